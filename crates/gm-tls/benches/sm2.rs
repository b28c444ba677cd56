//! SM2 of sm-accel beside ECDSA and ECDH with P-256 and SM2 of Tongsuo, one after the other in one run, so that the ratios hold whatever
//! the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot set itself up must stop")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use sm_accel::sm2::{SecretKey, Signature, encrypt};

fn tongsuo_key(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// Signs and verifies a digest through EVP with the key set up beforehand, as `openssl speed` does.
fn tongsuo(criterion: &mut Criterion, name: &str, curve: Nid) {
    let key = tongsuo_key(curve);
    let digest = [0x42; 32];
    let mut signer = PkeyCtx::new(&key).unwrap();
    signer.sign_init().unwrap();
    let mut signature = Vec::new();
    signer.sign_to_vec(&digest, &mut signature).unwrap();
    criterion.bench_function(&format!("sign/{name}"), |bencher| {
        let mut out = [0; 80];
        bencher.iter(|| signer.sign(black_box(&digest), Some(&mut out)).unwrap());
    });
    let mut verifier = PkeyCtx::new(&key).unwrap();
    verifier.verify_init().unwrap();
    criterion.bench_function(&format!("verify/{name}"), |bencher| {
        bencher.iter(|| assert!(verifier.verify(black_box(&digest), &signature).unwrap()));
    });
    let peer = tongsuo_key(curve);
    let mut context = PkeyCtx::new(&key).unwrap();
    // Tongsuo does not offer it for every kind of key.
    if context.derive_init().is_ok() && context.derive_set_peer(&peer).is_ok() && context.derive(None).is_ok() {
        criterion.bench_function(&format!("ecdh/{name}"), |bencher| {
            let mut out = [0; 32];
            bencher.iter(|| context.derive(Some(&mut out)).unwrap());
        });
    }
}

fn accelerated(criterion: &mut Criterion) {
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    let digest = [0x42; 32];
    let signature = key.sign_digest(&digest).unwrap();
    let der = signature.to_der();
    criterion.bench_function("sign/SM2 sm-accel", |bencher| {
        bencher.iter(|| key.sign_digest(black_box(&digest)).unwrap().to_der());
    });
    let (public, prepared) = (key.public_key(), key.public_key());
    prepared.prepare();
    for (name, public) in [("verify/SM2 sm-accel", public), ("verify/SM2 sm-accel, prepared", prepared)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| assert!(public.verify_digest(black_box(&digest), &Signature::from_der(&der).unwrap())));
        });
    }
    let peer = SecretKey::from_bytes(&[0x53; 32]).unwrap();
    criterion.bench_function("ecdh/SM2 sm-accel", |bencher| bencher.iter(|| key.ecdh(black_box(peer.public_point()))));
    let premaster = encrypt(key.public_point(), &[0x5a; 48]).unwrap();
    let der = premaster.to_der();
    criterion.bench_function("decrypt 48 bytes/SM2 sm-accel", |bencher| {
        bencher.iter(|| key.decrypt(&sm_accel::sm2::Ciphertext::from_der(black_box(&der)).unwrap()).unwrap());
    });
}

fn all(criterion: &mut Criterion) {
    tongsuo(criterion, "P-256 Tongsuo", Nid::X9_62_PRIME256V1);
    accelerated(criterion);
    tongsuo(criterion, "SM2 Tongsuo", Nid::SM2);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
