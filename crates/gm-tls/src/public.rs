//! Public keys that check signatures over data, each by the one algorithm of its kind.

use std::path::Path;

use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;

use crate::cert::{CertError, Certificate, KeyKind, Source};
use crate::pem;

/// Largest key file in bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;
/// The shortest RSA modulus that is taken, in bits, and the longest: checking takes time that grows with it.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;
/// SubjectPublicKeyInfo up to the coordinates of an uncompressed point (RFC 5480): P-256, and SM2 of GB/T 35276.
const P256_HEADER: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const SM2_HEADER: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf,
    0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00, 0x04,
];

/// Why a public key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    #[error("{origin}: cannot read the file: {error}")]
    Unreadable { origin: Source, error: std::io::Error },
    #[error("{origin}: larger than {MAX_FILE_BYTES} bytes, which no public key needs")]
    TooLarge { origin: Source },
    #[error("{origin}: holds no public key; a PEM block `-----BEGIN PUBLIC KEY-----` or a certificate is expected")]
    NotAKey { origin: Source },
    #[error("{origin}: the public key is damaged and cannot be decoded")]
    Malformed { origin: Source },
    #[error("{origin}: the public key is neither SM2, ECDSA P-256 nor RSA of 2048 to 8192 bits")]
    Unsupported { origin: Source },
    #[error(transparent)]
    Certificate(#[from] CertError),
}

/// What a public key checks signatures by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256,
    /// SM2 with SM3 and the default signer ID of GM/T 0009.
    Sm2Sm3,
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    pkey: PKey<Public>,
    kind: SignatureKind,
}

impl PublicKey {
    /// Loads the public key, or that of the certificate, which a PEM file begins with.
    pub fn from_file(field: &str, path: &Path) -> Result<PublicKey, PublicKeyError> {
        let origin = Source::file(field, path);
        match pem::read_file(path, MAX_FILE_BYTES) {
            Ok(Some(contents)) => PublicKey::from_pem(origin, &contents.bytes),
            Ok(None) => Err(PublicKeyError::TooLarge { origin }),
            Err(error) => Err(PublicKeyError::Unreadable { origin, error }),
        }
    }

    /// Decodes a PEM text like [`PublicKey::from_file`].
    pub fn from_pem(origin: Source, text: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let blocks = pem::blocks(text, 16).map_err(|_| PublicKeyError::Malformed { origin: origin.clone() })?;
        let wanted = blocks.iter().find(|block| matches!(block.label, "PUBLIC KEY" | "CERTIFICATE"));
        let Some(block) = wanted else { return Err(PublicKeyError::NotAKey { origin }) };
        let pkey = if block.label == "CERTIFICATE" {
            Certificate::from_pem(&origin, block.text)?.x509().public_key()
        } else {
            PKey::public_key_from_pem(block.text)
        };
        PublicKey::checked(pkey, origin)
    }

    /// A point of P-256 or SM2 by its coordinates.
    pub fn from_point(
        origin: Source,
        kind: SignatureKind,
        x: &[u8; 32],
        y: &[u8; 32],
    ) -> Result<PublicKey, PublicKeyError> {
        let header = match kind {
            SignatureKind::EcdsaP256Sha256 => P256_HEADER,
            SignatureKind::Sm2Sm3 => SM2_HEADER,
            SignatureKind::RsaSha256 => return Err(PublicKeyError::Unsupported { origin }),
        };
        let der = [&header[..], x, y].concat();
        PublicKey::checked(PKey::public_key_from_der(&der), origin)
    }

    /// An RSA key by modulus and exponent, most significant byte first.
    pub fn from_rsa(origin: Source, modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let key = (|| {
            PKey::from_rsa(Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?)
        })();
        PublicKey::checked(key, origin)
    }

    fn checked(pkey: Result<PKey<Public>, ErrorStack>, origin: Source) -> Result<PublicKey, PublicKeyError> {
        // A failed attempt of the decoder leaves errors that the next TLS call would take for its own.
        let _ = ErrorStack::get();
        let pkey = pkey.map_err(|_| PublicKeyError::Malformed { origin: origin.clone() })?;
        let kind = match KeyKind::of(&pkey) {
            KeyKind::Rsa(bits) if RSA_BITS.contains(&bits) => SignatureKind::RsaSha256,
            KeyKind::EcP256 => SignatureKind::EcdsaP256Sha256,
            // The library would use another kind of key on this curve for ECDSA.
            KeyKind::Sm2 if pkey.id() == Id::SM2 => SignatureKind::Sm2Sm3,
            _ => return Err(PublicKeyError::Unsupported { origin }),
        };
        Ok(PublicKey { pkey, kind })
    }

    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// Whether a signature over a message is this key's. Those of elliptic curves are the two numbers of 32 bytes each, one after the
    /// other; those of SM2 may be DER as well.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = self.try_verify(message, signature).unwrap_or(false);
        // What was found wrong with a signature must not be taken for an error of the next TLS call.
        let _ = ErrorStack::get();
        verified
    }

    fn try_verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let digest = match self.kind {
            SignatureKind::RsaSha256 | SignatureKind::EcdsaP256Sha256 => MessageDigest::sha256(),
            SignatureKind::Sm2Sm3 => MessageDigest::sm3(),
        };
        let der = match (self.kind, signature.split_at_checked(32)) {
            (SignatureKind::RsaSha256, _) => signature.to_vec(),
            (_, Some((r, s))) if s.len() == 32 => {
                EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()?
            }
            (SignatureKind::Sm2Sm3, _) => signature.to_vec(),
            (SignatureKind::EcdsaP256Sha256, _) => return Ok(false),
        };
        Verifier::new(digest, &self.pkey)?.verify_oneshot(&der, message)
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sm2::dsa::signature::Signer;

    fn origin() -> Source {
        Source::new("key")
    }

    /// Signed by another implementation than the one that checks.
    #[test]
    fn an_sm2_signature_of_another_implementation_is_accepted_raw_and_as_der() {
        let signer = sm2::dsa::SigningKey::from_slice("1234567812345678", &[7; 32]).unwrap();
        let signature: sm2::dsa::Signature = signer.sign(b"message");
        let point = signer.verifying_key().to_sec1_bytes();
        let (x, y) = (point[1..33].try_into().unwrap(), point[33..].try_into().unwrap());
        let key = PublicKey::from_point(origin(), SignatureKind::Sm2Sm3, x, y).unwrap();
        assert_eq!(key.kind(), SignatureKind::Sm2Sm3);
        let raw = signature.to_bytes();
        assert!(key.verify(b"message", &raw));
        assert!(key.verify(b"message", &signature.to_der().to_vec()));
        assert!(!key.verify(b"massage", &raw));
        for cut in 0..raw.len() {
            assert!(!key.verify(b"message", &raw[..cut]), "{cut}");
        }
        assert!(!key.verify(b"message", &[0; 64]));
        // Under another signer ID.
        let other = sm2::dsa::SigningKey::from_slice("", &[7; 32]).unwrap();
        let signature: sm2::dsa::Signature = other.sign(b"message");
        assert!(!key.verify(b"message", &signature.to_bytes()));
    }

    /// RFC 7515 appendix A.3.
    #[test]
    fn the_signature_of_rfc_7515_is_accepted() {
        let number = |hex: &str| BigNum::from_hex_str(hex).unwrap().to_vec();
        let x: [u8; 32] =
            number("7fcdce2770f6c45d4183cbee6fdb4b7b580733357be9ef13bacf6e3c7bd15445").try_into().unwrap();
        let y: [u8; 32] =
            number("c7f144cd1bbd9b7e872cdfedb9eeb9f4b3695d6ea90b24ad8a4623288588e5ad").try_into().unwrap();
        let key = PublicKey::from_point(origin(), SignatureKind::EcdsaP256Sha256, &x, &y).unwrap();
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature: [u8; 64] = [
            14, 209, 33, 83, 121, 99, 108, 72, 60, 47, 127, 21, 88, 7, 212, 2, 163, 178, 40, 3, 58, 249, 124, 126, 23,
            129, 154, 195, 22, 158, 166, 101, 197, 10, 7, 211, 140, 60, 112, 229, 216, 241, 45, 175, 8, 74, 84, 128,
            166, 101, 144, 197, 242, 147, 80, 154, 143, 63, 127, 138, 131, 163, 84, 213,
        ];
        assert!(key.verify(message, &signature));
    }

    #[test]
    fn keys_of_each_kind_are_read_from_pem_and_check_their_own_signatures() {
        use crate::key::PrivateKey;
        for (kind, digest) in [
            (KeyKind::Rsa(2048), MessageDigest::sha256()),
            (KeyKind::EcP256, MessageDigest::sha256()),
            (KeyKind::Sm2, MessageDigest::sm3()),
        ] {
            let private = PrivateKey::generate(kind).unwrap();
            let pem = private.pkey().public_key_to_pem().unwrap();
            let key = PublicKey::from_pem(origin(), &pem).unwrap();
            let mut signer = openssl::sign::Signer::new(digest, private.pkey()).unwrap();
            let mut signature = signer.sign_oneshot_to_vec(b"message").unwrap();
            if !matches!(kind, KeyKind::Rsa(_)) {
                let pair = EcdsaSig::from_der(&signature).unwrap();
                signature = [pair.r().to_vec_padded(32).unwrap(), pair.s().to_vec_padded(32).unwrap()].concat();
            }
            assert!(key.verify(b"message", &signature), "{kind}");
            signature[20] ^= 1;
            assert!(!key.verify(b"message", &signature), "{kind}");
        }
    }

    #[test]
    fn what_is_no_key_or_a_weak_one_is_refused() {
        let refused = |text: &[u8]| PublicKey::from_pem(origin(), text).unwrap_err();
        assert!(matches!(refused(b""), PublicKeyError::NotAKey { .. }));
        let damaged = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert!(matches!(refused(damaged), PublicKeyError::Malformed { .. }));
        let weak = Rsa::generate(1024).unwrap().public_key_to_pem().unwrap();
        assert!(matches!(refused(&weak), PublicKeyError::Unsupported { .. }));
        let off_curve = PublicKey::from_point(origin(), SignatureKind::EcdsaP256Sha256, &[1; 32], &[1; 32]);
        assert!(matches!(off_curve, Err(PublicKeyError::Malformed { .. })));
    }
}
