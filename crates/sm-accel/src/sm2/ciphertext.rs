//! A ciphertext and its encodings.

use super::key::Point;
use super::{Error, der};

/// The parts of a ciphertext (GB/T 32918.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// C1.
    pub point: Point,
    /// C3.
    pub hash: [u8; 32],
    /// C2, as long as the plaintext and never empty.
    pub cipher: Vec<u8>,
}

impl Ciphertext {
    /// The ASN.1 of GM/T 0009, as TLCP sends it.
    pub fn to_der(&self) -> Vec<u8> {
        der::encode_ciphertext(self)
    }

    /// Refuses all that is not the only encoding, and points off the curve.
    pub fn from_der(bytes: &[u8]) -> Result<Ciphertext, Error> {
        der::decode_ciphertext(bytes)
    }

    /// `C1 || C3 || C2`, C1 uncompressed.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.point.to_uncompressed()[..], &self.hash, &self.cipher].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Ciphertext, Error> {
        let (point, rest) = bytes.split_first_chunk::<65>().ok_or(Error::Encoding)?;
        let (hash, cipher) = rest.split_first_chunk::<32>().ok_or(Error::Encoding)?;
        if cipher.is_empty() {
            return Err(Error::Encoding);
        }
        let point = Point::from_uncompressed(point).map_err(|_| Error::Encoding)?;
        Ok(Ciphertext { point, hash: *hash, cipher: cipher.to_vec() })
    }
}
