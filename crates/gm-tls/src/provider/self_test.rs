//! Known answers and consistency of pairs, asked of the accelerated provider by name before anything else may use it.

use openssl::{md::Md, md_ctx::MdCtx};

use super::ProviderError;

/// Only the provider under test may answer.
pub(super) const OURS: &str = "provider=shangmq-accel";

/// Falsifies what a self-test compares, to prove that it would be noticed.
#[doc(hidden)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sabotage {
    test: Option<String>,
}

impl Sabotage {
    pub fn of(test: &str) -> Sabotage {
        Sabotage { test: Some(test.to_owned()) }
    }

    /// Builds with debug assertions take the name of a test from `GM_TLS_SABOTAGE_SELF_TEST`; others are never told.
    #[cfg(debug_assertions)]
    pub(super) fn from_environment() -> Sabotage {
        Sabotage { test: std::env::var("GM_TLS_SABOTAGE_SELF_TEST").ok() }
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn from_environment() -> Sabotage {
        Sabotage::default()
    }

    fn hits(&self, test: &str) -> bool {
        self.test.as_deref() == Some(test)
    }
}

/// A test: its name, and what it found. Those that compare take the falsehood as a mask of the answer's first byte.
type Test = (&'static str, fn(mask: u8) -> Option<bool>);

static TESTS: &[Test] = &[("SM3", sm3)];

/// Names of all tests, in order.
#[doc(hidden)]
pub fn names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|(name, _)| *name)
}

pub(super) fn run(sabotage: &Sabotage) -> Result<(), ProviderError> {
    for (name, test) in TESTS {
        let mask = u8::from(sabotage.hits(name));
        if test(mask) != Some(true) {
            return Err(ProviderError::SelfTest { test: name });
        }
    }
    Ok(())
}

/// Whether an answer is the expected one.
fn same(found: &[u8], expected: &[u8], mask: u8) -> bool {
    let mut found = found.to_vec();
    if let Some(first) = found.first_mut() {
        *first ^= mask;
    }
    found == expected
}

/// GB/T 32905-2016, example 1.
fn sm3(mask: u8) -> Option<bool> {
    const ABC: [u8; 32] = [
        0x66, 0xc7, 0xf0, 0xf4, 0x62, 0xee, 0xed, 0xd9, 0xd1, 0xf2, 0xd4, 0x6b, 0xdc, 0x10, 0xe4, 0xe2, 0x41, 0x67,
        0xc4, 0x87, 0x5c, 0xf2, 0xf7, 0xa2, 0x29, 0x7d, 0xa0, 0x2b, 0x8f, 0x4b, 0xa8, 0xe0,
    ];
    let sm3 = Md::fetch(None, "SM3", Some(OURS)).ok()?;
    let mut context = MdCtx::new().ok()?;
    let mut digest = [0; 32];
    context.digest_init(&sm3).ok()?;
    context.digest_update(b"abc").ok()?;
    context.digest_final(&mut digest).ok()?;
    Some(same(&digest, &ABC, mask))
}
