//! Key agreement (GB/T 32918.3), as the ECDHE suites of TLCP use it: each side has a static and an ephemeral key.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Error;
use super::backend::on_best;
use super::curve::Affine;
use super::encrypt::derive_key;
use super::field::Arith;
use super::key::{Point, SecretKey, coordinates_of_product};
use super::multiply::multiply_two_vartime;
use super::scalar::Scalar;
use super::words::from_be_bytes;
use crate::sm3::Sm3;

/// Whose side the own keys are on. In TLCP the server is the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Initiator,
    Responder,
}

/// What one side knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    pub key: &'a SecretKey,
    pub ephemeral: &'a SecretKey,
    /// [`super::digest_id`] of its name and static key.
    pub z: &'a [u8; 32],
}

/// What one side knows of the other.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub key: &'a Point,
    pub ephemeral: &'a Point,
    /// [`super::digest_id`] of its name and static key.
    pub z: &'a [u8; 32],
}

/// What both sides have in common. Erased when it is dropped.
pub struct Agreed {
    /// The coordinates of the common point.
    common: Zeroizing<([u8; 32], [u8; 32])>,
    /// Z of the initiator, then of the responder.
    names: [[u8; 32]; 2],
    /// The coordinates of the ephemeral keys, the initiator's first.
    ephemerals: [[u8; 32]; 4],
}

/// Agrees with a peer. Refuses the case that the common point is infinity.
pub fn agree(role: Role, own: &Own<'_>, peer: &Peer<'_>) -> Result<Agreed, Error> {
    let (own_x, own_y) = own.ephemeral.public_point().coordinates();
    let (peer_x, peer_y) = peer.ephemeral.coordinates();
    let t = Zeroizing::new(shortened(&own_x).mul(&own.ephemeral.scalar).add(&own.key.scalar));
    let point = on_best!(peer_point, &peer.key.0, &shortened(&peer_x), &peer.ephemeral.0);
    let Some(point) = point.filter(|_| !t.is_zero()) else { return Err(Error::Exchange) };
    let common = Zeroizing::new(on_best!(coordinates_of_product, &t, &point));
    let (names, ephemerals) = match role {
        Role::Initiator => ([*own.z, *peer.z], [own_x, own_y, peer_x, peer_y]),
        Role::Responder => ([*peer.z, *own.z], [peer_x, peer_y, own_x, own_y]),
    };
    Ok(Agreed { common, names, ephemerals })
}

impl Agreed {
    /// The key, of any length.
    pub fn key(&self, length: usize) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; length]);
        self.fill(&mut key);
        key
    }

    /// The key, into a buffer of its length.
    pub fn fill(&self, key: &mut [u8]) {
        let ((x, y), [initiator, responder]) = (&*self.common, &self.names);
        derive_key(&[x, y, initiator, responder], key);
    }

    /// What the responder sends to prove that it has the key (S_B = S_1).
    pub fn responder_confirmation(&self) -> [u8; 32] {
        self.confirmation(2)
    }

    /// What the initiator sends to prove that it has the key (S_A = S_2).
    pub fn initiator_confirmation(&self) -> [u8; 32] {
        self.confirmation(3)
    }

    fn confirmation(&self, side: u8) -> [u8; 32] {
        let (x, y) = &*self.common;
        let mut inner = Sm3::new();
        inner.update(x);
        self.names.iter().chain(&self.ephemerals).for_each(|part| inner.update(part));
        let mut outer = Sm3::new();
        outer.update(&[side]);
        outer.update(y);
        outer.update(Zeroizing::new(inner.finalize()).as_slice());
        outer.finalize()
    }
}

/// Its part erases itself.
impl ZeroizeOnDrop for Agreed {}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreed").finish_non_exhaustive()
    }
}

/// 2^127 and the lower 127 bits of a coordinate.
fn shortened(x: &[u8; 32]) -> Scalar {
    let [a, b, _, _] = from_be_bytes(x);
    Scalar([a, b | 1 << 63, 0, 0])
}

/// `key + factor * ephemeral`, all public; `None` for infinity.
fn peer_point<F: Arith>(key: &Affine, factor: &Scalar, ephemeral: &Affine) -> Option<Affine> {
    let sum = multiply_two_vartime::<F>(&Scalar::default(), factor, ephemeral).add_affine_vartime::<F>(key);
    (!sum.z.is_zero()).then(|| sum.to_affine::<F>())
}
