//! Signatures over digests (GB/T 32918.2).

use zeroize::Zeroizing;

use super::backend::on_best;
use super::curve::{Affine, Jacobian};
use super::field::{Arith, below_p};
use super::key::{PublicKey, SecretKey};
use super::multiply::{base_comb, multiply_base, multiply_two_vartime};
use super::scalar::{N, Scalar};
use super::words::adc;
use super::{Error, der};

/// r and s, the highest byte first. Any bytes can stand in it; verification refuses what is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    pub r: [u8; 32],
    pub s: [u8; 32],
}

impl Signature {
    /// `SEQUENCE { r INTEGER, s INTEGER }` (GM/T 0009, 7.3).
    pub fn to_der(&self) -> Vec<u8> {
        der::encode_signature(self)
    }

    /// Refuses all that is not the only encoding.
    pub fn from_der(bytes: &[u8]) -> Result<Signature, Error> {
        der::decode_signature(bytes)
    }
}

impl SecretKey {
    /// Signs e, the digest of Z and the message. Fails only if the system has no random bytes.
    pub fn sign_digest(&self, e: &[u8; 32]) -> Result<Signature, Error> {
        self.sign_by(e, |attempt| self.signing().nonces.next(e, attempt))
    }

    /// Signs with the first number that can be used. Every attempt asks for one of its own.
    pub(crate) fn sign_by(
        &self,
        e: &[u8; 32],
        mut next: impl FnMut(u32) -> Result<Zeroizing<Scalar>, Error>,
    ) -> Result<Signature, Error> {
        let mut attempt = 0;
        loop {
            let nonce = next(attempt)?;
            if let Some(signature) = self.sign_with(e, &nonce) {
                return Ok(signature);
            }
            attempt += 1;
        }
    }

    /// `None` if this nonce must not be used: r = 0, r + k = n or s = 0.
    pub(crate) fn sign_with(&self, e: &[u8; 32], nonce: &Scalar) -> Option<Signature> {
        let r = Scalar::reduce(e).add(&Scalar::reduce(&on_best!(base_x, nonce)));
        let sum = Zeroizing::new(r.add(nonce));
        // (k - r * d) / (1 + d) = (k + r) / (1 + d) - r.
        let s = self.signing().inverse.mul(&sum).sub(&r);
        let usable = !r.is_zero() & !sum.is_zero() & !s.is_zero();
        usable.then(|| Signature { r: r.encode(), s: s.encode() })
    }
}

impl PublicKey {
    /// Whether the signature of the digest e is this key's.
    pub fn verify_digest(&self, e: &[u8; 32], signature: &Signature) -> bool {
        let (Some(r), Some(s)) = (Scalar::decode(&signature.r), Scalar::decode(&signature.s)) else { return false };
        let t = r.add(&s);
        if r.is_zero() || s.is_zero() || t.is_zero() {
            return false;
        }
        // r = e + x mod n, so x is this or, if that is still below p, this and n.
        let x = r.sub(&Scalar::reduce(e));
        on_best!(verify, self, &s, &t, &x)
    }
}

fn base_x<F: Arith>(scalar: &Scalar) -> [u8; 32] {
    let product = Zeroizing::new(multiply_base::<F>(scalar));
    let inverse = Zeroizing::new(F::invert(&product.z));
    F::encode(&F::mul(&product.x, &F::square(&inverse)))
}

/// Whether the x coordinate of `s * G + t * key` is `x` modulo n.
fn verify<F: Arith>(key: &PublicKey, s: &Scalar, t: &Scalar, x: &Scalar) -> bool {
    let point: &Affine = &key.point().0;
    let sum = match key.table() {
        Some(table) => table.add_vartime::<F>(t, base_comb::<F>().add_vartime::<F>(s, Jacobian::INFINITY)),
        None => multiply_two_vartime::<F>(s, t, point),
    };
    if sum.z.is_zero() {
        return false;
    }
    let denominator = F::square(&sum.z);
    let [a, b, c, d] = x.0;
    let (e, carry) = adc(a, N[0], 0);
    let (f, carry) = adc(b, N[1], carry);
    let (g, carry) = adc(c, N[2], carry);
    let (h, carry) = adc(d, N[3], carry);
    let greater = [e, f, g, h];
    F::mul(&F::enter(x.0), &denominator) == sum.x
        || (carry == 0 && below_p(greater) && F::mul(&F::enter(greater), &denominator) == sum.x)
}
