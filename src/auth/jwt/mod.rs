//! Clients that show a JSON Web Token (RFC 7519) as their password.
//!
//! A key checks signatures by one algorithm, which its kind decides and not the token, so that no token chooses how it is checked.

mod claims;
mod keys;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{ConfigError, JwtConfig};

use super::acl::Rules;
use super::{Accepted, AuthRequest, Authenticator, Verdict, VerdictFuture};
use claims::ClaimTemplate;
use keys::Keys;
use token::Token;

/// Topics that a token may list.
pub(super) const MAX_TOPICS: usize = 256;

/// Why a token is refused, for the operator; the client is not told. Nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    #[error("token with a signature that no key of auth.jwt made")]
    Signature,
    #[error("token with a header that must be understood and is not (crit)")]
    CriticalHeader,
    #[error("token that does not say when it expires (exp)")]
    NoExpiry,
    #[error("token expired {secs} s ago")]
    Expired { secs: u64 },
    #[error("token that is not valid before {secs} s from now (nbf, iat); is a clock wrong?")]
    NotYet { secs: u64 },
    #[error("token whose claims are no JSON object, or whose exp, nbf or iat is no number")]
    ClaimType,
    #[error("token without the claim that auth.jwt.username_claim names")]
    NoUsername,
    #[error("token for another user than CONNECT names")]
    OtherUser,
    #[error("token with a claim that is not what auth.jwt.verify_claims asks for")]
    Claim,
    #[error("token whose list of topics is not understood (auth.jwt.acl_claim)")]
    Acl,
}

/// The authenticator.
pub struct Jwt {
    keys: Keys,
    username_claim: String,
    acl_claim: String,
    leeway: Duration,
    claims: Vec<(String, ClaimTemplate)>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("keys", &self.keys).field("claims", &self.claims.len()).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    /// When they cannot be read whole and without a mistake.
    pub fn load(config: &JwtConfig) -> Result<Jwt, ConfigError> {
        let mut claims = Vec::new();
        for (name, text) in &config.verify_claims {
            let template = text.parse().map_err(|reason: claims::UnknownPlaceholder| {
                config.place.error(format!("verify_claims.{name}: {reason}"))
            })?;
            claims.push((name.clone(), template));
        }
        Ok(Jwt {
            keys: Keys::load(&config.keys)?,
            username_claim: config.username_claim.clone(),
            acl_claim: config.acl_claim.clone(),
            leeway: config.leeway,
            claims,
        })
    }

    fn judge(&self, request: &AuthRequest<'_>, now: Duration) -> Verdict {
        let Some(token) = request.password.and_then(Token::parse) else { return Verdict::Ignore };
        match self.verify(&token, request, now) {
            Ok(accepted) => Verdict::Accept(accepted),
            Err(reason) => Verdict::RejectToken(reason),
        }
    }

    fn verify(&self, token: &Token<'_>, request: &AuthRequest<'_>, now: Duration) -> Result<Accepted, TokenRefused> {
        if token.has_critical_headers() {
            return Err(TokenRefused::CriticalHeader);
        }
        if !self.keys.verify(token) {
            return Err(TokenRefused::Signature);
        }
        let claims = token.claims().ok_or(TokenRefused::ClaimType)?;
        let valid_for = claims::check_times(&claims, now, self.leeway)?;
        let username = claims.get(&self.username_claim).ok_or(TokenRefused::NoUsername)?;
        let username = username.as_str().filter(|name| !name.is_empty()).ok_or(TokenRefused::NoUsername)?;
        if request.username.is_some_and(|sent| sent != username) {
            return Err(TokenRefused::OtherUser);
        }
        for (name, template) in &self.claims {
            if !claims.get(name).is_some_and(|claim| template.accepts(claim, request)) {
                return Err(TokenRefused::Claim);
            }
        }
        let rules = match claims.get(&self.acl_claim) {
            None => None,
            Some(listed) => Some(Arc::new(Rules::from(claims::granted(listed).ok_or(TokenRefused::Acl)?))),
        };
        Ok(Accepted { username: Some(username.into()), rules, valid_for: Some(valid_for) })
    }
}

impl Authenticator for Jwt {
    fn verify<'a>(&'a self, request: &'a AuthRequest<'a>) -> VerdictFuture<'a> {
        // A clock before 1970 makes every token one of the future.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // One signature: as long as a part of a handshake, and without waiting for anything.
        Box::pin(std::future::ready(self.judge(request, now)))
    }
}

/// Takes arbitrary bytes as far as a token goes without a key, for fuzzing.
#[doc(hidden)]
pub fn fuzz_token(data: &[u8]) {
    if let Some(token) = Token::parse(data)
        && let Some(claims) = token.claims()
    {
        let _ = claims::check_times(&claims, Duration::from_secs(1), Duration::ZERO);
        claims.values().for_each(|claim| drop(claims::granted(claim)));
    }
}

#[cfg(test)]
mod tests;
