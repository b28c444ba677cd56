//! Chooses who computes SM2, SM3 and SM4 before a subcommand touches a key.

use gm_tls::provider::{self, Provider, ProviderError};

use crate::config::CryptoConfig;

/// The provider did not pass; nothing is done with it, and nothing else takes its place unasked.
#[derive(Debug, thiserror::Error)]
#[error("crypto.provider: {0}; {advice}", advice = CryptoConfig::ADVICE)]
pub(super) struct Unusable(#[from] ProviderError);

/// A variable that names no provider.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {VARIABLE}: `{0}` is not a known value; it must be one of accelerated, tongsuo")]
pub(super) struct UnknownProvider(String);

/// The key `crypto.provider` in the environment.
const VARIABLE: &str = "SHANGMQ_CRYPTO__PROVIDER";

pub(super) fn choose(provider: Provider) -> Result<(), Unusable> {
    Ok(provider::choose(provider)?)
}

/// For subcommands that read no configuration: as the environment says, which goes before any file anyway.
pub(super) fn choose_by_environment() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let provider = match std::env::var_os(VARIABLE) {
        None => Provider::default(),
        Some(word) => {
            let word = word.to_string_lossy();
            CryptoConfig::word(&word).ok_or_else(|| UnknownProvider(word.into_owned()))?
        }
    };
    Ok(choose(provider)?)
}
