//! What held a secret holds nothing of it after it was dropped: the memory itself is looked at.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::mem::MaybeUninit;

use sm_accel::sm2::exchange::{Own, Peer, Role, agree};
use sm_accel::sm2::{SecretKey, digest_id};
use sm_accel::sm3::{self, HmacSm3, Sm3};
use sm_accel::sm4::{self, Ctr, Gcm, Key};

/// The memory of a value before and after it was dropped.
fn around_drop<T>(value: T) -> (Vec<u8>, Vec<u8>) {
    let mut place = Box::new(MaybeUninit::<T>::zeroed());
    place.write(value);
    let look = |place: &MaybeUninit<T>| {
        let start: *const u8 = place.as_ptr().cast();
        // SAFETY: so many bytes belong to the place, all of which were written as zeros before the value came.
        (0..size_of::<T>()).map(|at| unsafe { start.add(at).read_volatile() }).collect::<Vec<u8>>()
    };
    let before = look(&place);
    // SAFETY: a value was written, and is not used again.
    unsafe { place.as_mut_ptr().drop_in_place() };
    (before, look(&place))
}

/// At least `secret` bytes were erased, and no more than `public` hold anything; between fields there may be what was never written.
fn erases<T>(what: &str, value: T, secret: usize, public: usize) {
    let (before, after) = around_drop(value);
    let erased = before.iter().zip(&after).filter(|(before, after)| **before != 0 && **after == 0).count();
    let left = after.iter().filter(|byte| **byte != 0).count();
    // A byte in 256 of what is random is zero before.
    assert!(erased >= secret - secret / 16, "{what}: {erased} bytes erased of {} that were there", before.len());
    assert!(left <= public, "{what}: {left} bytes are left");
}

#[test]
fn keys_and_states_of_sm4_are_erased() {
    for backend in sm4::Backend::available() {
        let key = || Key::with_backend(&[0x5a; 16], backend).unwrap();
        // Round keys of both directions; the backend is left.
        erases("key", key(), 256, 8);
        let mut ctr = Ctr::new(key(), &[7; 16]);
        ctr.apply([0; 5].as_mut_slice().into());
        // And the stock of the key stream; what was used of it, and the way of counting, are left.
        erases("CTR", ctr, 256 + 256, 32);
        let gcm = Gcm::new(key());
        let mut message = gcm.start(&[7; 12]).unwrap();
        gcm.encrypt(&mut message, [1; 21].as_mut_slice().into()).unwrap();
        erases("message", message, 256 + 16 + 16 + 5, 64);
        // At least the hash key itself.
        erases("GCM", gcm, 256 + 16, 48);
    }
}

#[test]
fn states_of_sm3_are_erased() {
    for backend in sm3::Backend::available() {
        let mut hasher = Sm3::with_backend(backend).unwrap();
        hasher.update(&[0x5a; 100]);
        erases("SM3", hasher, 32 + 36, 16);
        let mac = HmacSm3::on(Sm3::with_backend(backend).unwrap(), &[0x5a; 32]);
        erases("HMAC", mac, 64, 32);
    }
}

#[test]
fn keys_of_sm2_and_what_was_agreed_are_erased() {
    let key = |byte| SecretKey::from_bytes(&[byte; 32]).unwrap();
    // The public key and marks of what was computed are left.
    erases("a key that never signed", key(0x5a), 32, 64 + 16);
    let signer = key(0x5a);
    signer.sign_digest(&[1; 32]).unwrap();
    // The number itself, 1 / (1 + d), and the two states that secret numbers come from.
    erases("a key that has signed", signer, 32 + 32 + 64, 64 + 16);
    let (one, two) = (key(0x5a), key(0x3c));
    let z = digest_id(b"someone", one.public_point()).unwrap();
    let own = Own { key: &one, ephemeral: &one, z: &z };
    let peer = Peer { key: two.public_point(), ephemeral: two.public_point(), z: &z };
    // The names and the ephemeral keys are left.
    erases("what was agreed", agree(Role::Initiator, &own, &peer).unwrap(), 64, 64 + 128);
}
