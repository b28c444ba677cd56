//! What a token whose signature is good says: when it holds, whom it is for, and which topics it lists.

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{MAX_TOPICS, TokenRefused};
use crate::auth::AuthRequest;
use crate::auth::acl::{Granted, TopicPattern};

/// Checks `exp`, `nbf` and `iat` (RFC 7519 section 4.1) and returns how long the token holds from `now`, the time since 1970.
pub(super) fn check_times(
    claims: &Map<String, Value>,
    now: Duration,
    leeway: Duration,
) -> Result<Duration, TokenRefused> {
    let expires = time(claims, "exp")?.ok_or(TokenRefused::NoExpiry)?;
    let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
    for begin in [time(claims, "nbf")?, time(claims, "iat")?].into_iter().flatten() {
        if begin > now + leeway {
            return Err(TokenRefused::NotYet { secs: (begin - now).ceil() as u64 });
        }
    }
    let left = expires + leeway - now;
    if left <= 0.0 {
        return Err(TokenRefused::Expired { secs: (now - expires) as u64 });
    }
    // What is too long for a duration is longer than any connection.
    Ok(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX))
}

/// A number of seconds since 1970.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, TokenRefused> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.map(Some).ok_or(TokenRefused::ClaimType)
}

/// The topics of EMQX's claim: `{"pub": […], "sub": […], "all": […]}`. `None` when any of it is not understood.
pub(super) fn granted(claim: &Value) -> Option<Granted> {
    let object = claim.as_object()?;
    let mut granted = Granted::default();
    let mut count = 0;
    for (name, topics) in object {
        let list = match name.as_str() {
            "pub" => &mut granted.publish,
            "sub" => &mut granted.subscribe,
            "all" => &mut granted.all,
            _ => return None,
        };
        for topic in topics.as_array()? {
            count += 1;
            if count > MAX_TOPICS {
                return None;
            }
            list.push(topic.as_str()?.parse::<TopicPattern>().ok()?);
        }
    }
    Some(granted)
}

/// A text that may hold `${username}`, `${clientid}` and `${cert_common_name}`: what a claim must be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClaimTemplate(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Username,
    ClientId,
    CertCommonName,
}

#[derive(Debug, thiserror::Error)]
#[error("placeholders are ${{username}}, ${{clientid}} and ${{cert_common_name}}")]
pub(super) struct UnknownPlaceholder;

impl FromStr for ClaimTemplate {
    type Err = UnknownPlaceholder;

    fn from_str(text: &str) -> Result<ClaimTemplate, UnknownPlaceholder> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or(UnknownPlaceholder)?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match name {
                "username" => Piece::Username,
                "clientid" => Piece::ClientId,
                "cert_common_name" => Piece::CertCommonName,
                _ => return Err(UnknownPlaceholder),
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(ClaimTemplate(pieces))
    }
}

impl ClaimTemplate {
    /// Whether the claim is this text, or a list that holds it. What the client did not send fits nothing.
    pub(super) fn accepts(&self, claim: &Value, request: &AuthRequest<'_>) -> bool {
        let Some(expected) = self.fill(request) else { return false };
        match claim {
            Value::String(text) => *text == expected,
            Value::Array(values) => values.iter().any(|value| value.as_str() == Some(&expected)),
            _ => false,
        }
    }

    fn fill(&self, request: &AuthRequest<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            text.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Username => request.username?,
                Piece::ClientId => request.client_id,
                Piece::CertCommonName => request.peer.common_name()?,
            });
        }
        (!text.is_empty()).then_some(text)
    }
}
