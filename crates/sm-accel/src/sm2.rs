//! SM2 on the recommended curve (GB/T 32918.1 to .5): signatures, encryption, key agreement, and ECDH over it (RFC 8998).
//!
//! What touches a secret takes the same time for every value of it: no branch on it, no index, whole rows of tables read. Verification
//! alone varies in time, and everything in it is public. All refusals of one operation are one error.

mod backend;
mod ciphertext;
mod curve;
pub mod der;
mod encrypt;
pub mod exchange;
mod field;
mod key;
mod multiply;
mod nonce;
mod scalar;
mod signature;
#[cfg(test)]
mod tests;
mod words;

pub use backend::Backend;
pub use ciphertext::Ciphertext;
pub use encrypt::encrypt;
pub use key::{Point, PublicKey, SecretKey, digest_id, generate_key};
pub use signature::Signature;

/// The distinguished ID of GM/T 0009 for signers who agreed on none.
pub const DEFAULT_ID: &[u8] = b"1234567812345678";

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("SM2 private key outside 1..=n-2")]
    SecretKey,
    #[error("SM2 public key is not a point of the curve in uncompressed form")]
    Point,
    #[error("SM2 distinguished ID of more than 8191 bytes")]
    Id,
    #[error("malformed DER of an SM2 signature or ciphertext")]
    Encoding,
    #[error("SM2 plaintext is empty or longer than the standard's key derivation can cover")]
    Plaintext,
    /// One error for every wrong ciphertext.
    #[error("SM2 decryption failed")]
    Decryption,
    #[error("SM2 key agreement failed")]
    Exchange,
    #[error("the system gave no random bytes")]
    Random,
}
