//! `[crypto]`: who computes SM2, SM3 and SM4.

use gm_tls::provider::Provider;

use super::section::{Place, Section};
use super::value::{Choice, Word};

/// `[crypto]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoConfig {
    /// Chosen once for the process, before any key is read.
    pub provider: Provider,
    /// Whether every listener serves SM2, SM3 and SM4 alone.
    pub gm_only: bool,
    /// Where that was written.
    pub gm_only_place: Place,
    /// Where `provider` was written.
    pub provider_place: Place,
}

impl CryptoConfig {
    /// For an operator whose accelerated provider does not pass.
    pub const ADVICE: &str =
        "set crypto.provider = \"tongsuo\" to do without the accelerated provider, and report this";

    pub(super) fn read(mut section: Section<'_>) -> CryptoConfig {
        let Word(provider) = section.read("provider", Word(Provider::default()));
        let gm_only = section.read("gm_only", false);
        let gm_only_place = section.place_of("gm_only");
        let provider_place = section.place_of("provider");
        section.finish();
        CryptoConfig { provider, gm_only, gm_only_place, provider_place }
    }

    /// The provider that a word of the configuration means.
    pub fn word(word: &str) -> Option<Provider> {
        Provider::WORDS.iter().find(|(known, _)| *known == word).map(|(_, provider)| *provider)
    }

    /// The word of the configuration for the provider.
    pub fn as_str(&self) -> &'static str {
        match self.provider {
            Provider::Accelerated => "accelerated",
            Provider::Tongsuo => "tongsuo",
        }
    }
}

impl Choice for Provider {
    const WORDS: &'static [(&'static str, Provider)] =
        &[("accelerated", Provider::Accelerated), ("tongsuo", Provider::Tongsuo)];
}
