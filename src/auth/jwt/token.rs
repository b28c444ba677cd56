//! A token in its compact form (RFC 7515 section 3.1), taken apart without trusting anything in it.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

/// Longest token: far more than a header, some claims and a list of topics.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token of which nothing has been checked.
#[derive(Debug)]
pub(super) struct Token<'a> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    /// What the signature covers: header and payload as they were sent.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// `None` when this is no token but, perhaps, a password.
    pub(super) fn parse(password: &'a [u8]) -> Option<Token<'a>> {
        let text = std::str::from_utf8(password).ok().filter(|text| text.len() <= MAX_TOKEN_BYTES)?;
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        // Strict: one text for each value, no padding, no stray characters.
        let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).ok();
        let header: Map<String, Value> = serde_json::from_slice(&decode(header)?).ok()?;
        header.get("alg")?.as_str()?;
        Some(Token { header, payload: decode(payload)?, signed, signature: decode(signature)? })
    }

    /// The algorithm that the token says it is signed by.
    pub(super) fn algorithm(&self) -> &str {
        self.header.get("alg").and_then(Value::as_str).unwrap_or_default()
    }

    /// Which of several keys it says it is signed by.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// RFC 7515 section 4.1.11: whatever is listed must be understood, and nothing is.
    pub(super) fn has_critical_headers(&self) -> bool {
        self.header.contains_key("crit")
    }

    pub(super) fn claims(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.payload).ok()
    }
}
