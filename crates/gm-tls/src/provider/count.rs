//! Counts what the provider served, for tests to prove that it was this provider. Builds without debug assertions count nothing.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of operation that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Digest,
    /// HMAC with SM3.
    Mac,
    /// The pseudorandom function of TLCP.
    Prf,
    Gcm,
    Ccm,
    Cbc,
    OtherMode,
    KeyImport,
    KeyDecode,
    KeyGeneration,
    Sign,
    Verify,
    Encrypt,
    Decrypt,
    /// Key agreement by GB/T 32918.3.
    Agree,
    /// Diffie-Hellman on the curve.
    Derive,
}

#[cfg(debug_assertions)]
const KINDS: usize = Operation::Derive as usize + 1;
#[cfg(debug_assertions)]
static COUNTS: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];

#[cfg(debug_assertions)]
pub(super) fn one(operation: Operation) {
    if let Some(count) = COUNTS.get(operation as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn one(_operation: Operation) {}

/// How many of a kind this process has served.
#[cfg(debug_assertions)]
pub fn served(operation: Operation) -> u64 {
    COUNTS.get(operation as usize).map_or(0, |count| count.load(Ordering::Relaxed))
}
