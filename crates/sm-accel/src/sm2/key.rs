//! Keys, and the digest that binds a key to its holder's name.

use std::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::backend::on_best;
use super::curve::{Affine, Jacobian};
use super::field::Arith;
use super::multiply::{Comb, multiply, multiply_base};
use super::nonce::Nonces;
use super::scalar::Scalar;
use super::{Error, words};
use crate::sm3::Sm3;

/// a, b, x and y of the base point as the digest of a name takes them (GB/T 32918.2, 5.5).
const PARAMETERS: [[u64; 4]; 4] = [
    [0xffff_ffff_ffff_fffc, 0xffff_ffff_0000_0000, 0xffff_ffff_ffff_ffff, 0xffff_fffe_ffff_ffff],
    [0xddbc_bd41_4d94_0e93, 0xf397_89f5_15ab_8f92, 0x4d5a_9e4b_cf65_09a7, 0x28e9_fa9e_9d9f_5e34],
    [0x715a_4589_334c_74c7, 0x8fe3_0bbf_f266_0be1, 0x5f99_0446_6a39_c994, 0x32c4_ae2c_1f19_8119],
    [0x02df_32e5_2139_f0a0, 0xd0a9_877c_c62a_4740, 0x59bd_cee3_6b69_2153, 0xbc37_36a2_f4f6_779c],
];

/// A point of the curve other than infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(pub(crate) Affine);

impl Point {
    /// From `04 || x || y`. Refuses a coordinate of p or more and a point off the curve.
    pub fn from_uncompressed(bytes: &[u8; 65]) -> Result<Point, Error> {
        on_best!(decode_point, bytes)
    }

    /// `04 || x || y`.
    pub fn to_uncompressed(&self) -> [u8; 65] {
        on_best!(encode_point, &self.0)
    }

    /// From the coordinates, 32 bytes each, the highest first.
    pub(crate) fn from_coordinates(x: &[u8; 32], y: &[u8; 32]) -> Result<Point, Error> {
        on_best!(point_at, x, y)
    }

    pub(crate) fn coordinates(&self) -> ([u8; 32], [u8; 32]) {
        on_best!(coordinates, &self.0)
    }
}

fn decode_point<F: Arith>(bytes: &[u8; 65]) -> Result<Point, Error> {
    let Some((0x04, coordinates)) = bytes.split_first() else { return Err(Error::Point) };
    let ([x, y], []) = coordinates.as_chunks::<32>() else { return Err(Error::Point) };
    point_at::<F>(x, y)
}

fn point_at<F: Arith>(x: &[u8; 32], y: &[u8; 32]) -> Result<Point, Error> {
    let (Some(x), Some(y)) = (F::decode(x), F::decode(y)) else { return Err(Error::Point) };
    let point = Affine { x, y };
    if point.on_curve::<F>() { Ok(Point(point)) } else { Err(Error::Point) }
}

pub(crate) fn coordinates<F: Arith>(point: &Affine) -> ([u8; 32], [u8; 32]) {
    (F::encode(&point.x), F::encode(&point.y))
}

fn encode_point<F: Arith>(point: &Affine) -> [u8; 65] {
    let (x, y) = coordinates::<F>(point);
    let mut bytes = [0x04; 65];
    let (_, rest) = bytes.split_at_mut(1);
    let (left, right) = rest.split_at_mut(32);
    left.copy_from_slice(&x);
    right.copy_from_slice(&y);
    bytes
}

/// A public key for verification. Clones share the table.
#[derive(Clone, Debug)]
pub struct PublicKey {
    point: Point,
    table: Arc<OnceLock<Comb>>,
}

impl PublicKey {
    pub fn new(point: Point) -> PublicKey {
        PublicKey { point, table: Arc::default() }
    }

    pub fn point(&self) -> &Point {
        &self.point
    }

    /// Makes the table with which verifications take a third of the time. It costs 86 KiB and the time of about ten verifications: for
    /// keys that are met again, such as those of authorities and servers. A second call does nothing.
    pub fn prepare(&self) {
        self.table.get_or_init(|| on_best!(comb, &self.point.0));
    }

    /// Whether [`PublicKey::prepare`] has been called on it or a clone.
    pub fn is_prepared(&self) -> bool {
        self.table.get().is_some()
    }

    pub(crate) fn table(&self) -> Option<&Comb> {
        self.table.get()
    }
}

impl From<Point> for PublicKey {
    fn from(point: Point) -> PublicKey {
        PublicKey::new(point)
    }
}

fn comb<F: Arith>(point: &Affine) -> Comb {
    Comb::new::<F>(point)
}

/// A private key. Erased when it is dropped.
pub struct SecretKey {
    /// From 1 to n - 2.
    pub(crate) scalar: Scalar,
    public: Point,
    /// Made at the first signature: ephemeral keys make none.
    signing: OnceLock<Signing>,
}

/// What signatures of one key have in common.
pub(crate) struct Signing {
    /// 1 / (1 + d).
    pub(crate) inverse: Scalar,
    pub(crate) nonces: Nonces,
}

impl SecretKey {
    /// From 32 bytes, the highest first: 1 to n - 2 (GB/T 32918.1, 6.1).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<SecretKey, Error> {
        let scalar = Zeroizing::new(Scalar::decode(bytes).ok_or(Error::SecretKey)?);
        // n - 1 has no inverse of 1 + d.
        if scalar.is_zero() || scalar.add(&Scalar::ONE).is_zero() {
            return Err(Error::SecretKey);
        }
        let public = Point(on_best!(base_multiple, &scalar));
        Ok(SecretKey { scalar: *scalar, public, signing: OnceLock::new() })
    }

    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.scalar.encode())
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(self.public)
    }

    pub fn public_point(&self) -> &Point {
        &self.public
    }

    /// The x coordinate of the product with the other's public key, as TLS 1.3 takes it with curveSM2 (RFC 8998, 3.2). It cannot be
    /// infinity: the order of the curve is prime and the peer's point not infinity.
    pub fn ecdh(&self, peer: &Point) -> Zeroizing<[u8; 32]> {
        let product = Zeroizing::new(on_best!(coordinates_of_product, &self.scalar, &peer.0));
        Zeroizing::new(product.0)
    }

    pub(crate) fn signing(&self) -> &Signing {
        self.signing.get_or_init(|| Signing {
            inverse: self.scalar.add(&Scalar::ONE).invert(),
            nonces: Nonces::new(&Zeroizing::new(self.scalar.encode())),
        })
    }
}

/// The affine form of `scalar * G`; the scalar is not 0.
pub(crate) fn base_multiple<F: Arith>(scalar: &Scalar) -> Affine {
    Zeroizing::new(multiply_base::<F>(scalar)).to_affine::<F>()
}

/// The affine coordinates of `scalar * point`; the scalar is not 0.
pub(crate) fn coordinates_of_product<F: Arith>(scalar: &Scalar, point: &Affine) -> ([u8; 32], [u8; 32]) {
    let product: Zeroizing<Jacobian> = Zeroizing::new(multiply::<F>(point, scalar));
    coordinates::<F>(&Zeroizing::new(product.to_affine::<F>()))
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.scalar.zeroize();
        if let Some(signing) = self.signing.get_mut() {
            signing.inverse.zeroize();
        }
    }
}

impl ZeroizeOnDrop for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A new private key from the system's random numbers.
pub fn generate_key() -> Result<SecretKey, Error> {
    loop {
        let scalar = random_scalar()?;
        match SecretKey::from_bytes(&Zeroizing::new(scalar.encode())) {
            // n - 1, once in 2^256.
            Err(Error::SecretKey) => {}
            other => return other,
        }
    }
}

/// Uniform from 1 to n - 1, from the system's random numbers.
pub(crate) fn random_scalar() -> Result<Zeroizing<Scalar>, Error> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|_| Error::Random)?;
        // Refused once in 2^32, and what was refused is never used.
        if let Some(scalar) = Scalar::decode(&bytes).map(Zeroizing::new).filter(|scalar| !scalar.is_zero()) {
            return Ok(scalar);
        }
    }
}

/// Z, the digest of a holder's name, the curve and the public key, which goes before each message signed (GB/T 32918.2, 5.5).
pub fn digest_id(id: &[u8], key: &Point) -> Result<[u8; 32], Error> {
    let bits = u16::try_from(id.len()).ok().and_then(|bytes| bytes.checked_mul(8)).ok_or(Error::Id)?;
    let mut hasher = Sm3::new();
    hasher.update(&bits.to_be_bytes());
    hasher.update(id);
    for parameter in PARAMETERS {
        hasher.update(&words::to_be_bytes(parameter));
    }
    let (x, y) = key.coordinates();
    hasher.update(&x);
    hasher.update(&y);
    Ok(hasher.finalize())
}
