//! SM2, with keys that are there already.

use std::hint::black_box;

use criterion::Criterion;
use sm_accel::sm2::exchange::{Own, Peer, Role, agree};
use sm_accel::sm2::{Backend, Point, SecretKey, encrypt, generate_key};

pub fn operations(criterion: &mut Criterion) {
    let key = SecretKey::from_bytes(&[0x35; 32]).unwrap();
    let other = SecretKey::from_bytes(&[0x53; 32]).unwrap();
    let (digest, premaster) = ([0x42; 32], [0x5a; 48]);
    let signature = key.sign_digest(&digest).unwrap();
    let (public, prepared) = (key.public_key(), key.public_key());
    prepared.prepare();
    let bytes = key.public_point().to_uncompressed();
    let ciphertext = encrypt(key.public_point(), &premaster).unwrap();

    let mut group = criterion.benchmark_group(format!("sm2 ({})", Backend::best().name()));
    group.bench_function("sign", |bencher| bencher.iter(|| key.sign_digest(black_box(&digest)).unwrap()));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert!(public.verify_digest(black_box(&digest), &signature)));
    });
    group.bench_function("verify, prepared", |bencher| {
        bencher.iter(|| assert!(prepared.verify_digest(black_box(&digest), &signature)));
    });
    group.bench_function("prepare", |bencher| bencher.iter(|| key.public_key().prepare()));
    group.bench_function("decrypt 48 bytes", |bencher| bencher.iter(|| key.decrypt(black_box(&ciphertext)).unwrap()));
    group.bench_function("encrypt 48 bytes", |bencher| {
        bencher.iter(|| encrypt(key.public_point(), black_box(&premaster)).unwrap());
    });
    group.bench_function("ecdh", |bencher| bencher.iter(|| key.ecdh(black_box(other.public_point()))));
    group.bench_function("generate a key", |bencher| bencher.iter(|| generate_key().unwrap()));
    group.bench_function("read a point", |bencher| {
        bencher.iter(|| Point::from_uncompressed(black_box(&bytes)).unwrap())
    });
    let z = [0; 32];
    let own = Own { key: &key, ephemeral: &key, z: &z };
    let peer = Peer { key: other.public_point(), ephemeral: other.public_point(), z: &z };
    group.bench_function("agree", |bencher| {
        bencher.iter(|| agree(Role::Initiator, black_box(&own), &peer).unwrap().key(48));
    });
    group.finish();
}
