//! SM4-GCM, SM4-CBC and SM3 of sm-accel on every backend beside Tongsuo's, one after the other in one run, so that the ratios hold
//! whatever the machine.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set itself up must stop")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::{CipherCtx, CipherCtxRef};
use openssl::md::Md;
use openssl::md_ctx::MdCtx;
use sm_accel::sm4::{Backend, Cbc, Gcm, Key};
use sm_accel::{InOut, sm3};

const KEY: [u8; 16] = [7; 16];
const NONCE: [u8; 12] = [1; 12];
const HEADER: [u8; 13] = [2; 13];

fn sm4_gcm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("SM4-GCM seal");
    for length in [64, 1024, 16_384] {
        group.throughput(Throughput::Bytes(length as u64));
        let cipher = Cipher::fetch(None, "SM4-GCM", None).unwrap();
        let mut context = CipherCtx::new().unwrap();
        context.encrypt_init(Some(&cipher), Some(&KEY), Some(&NONCE)).unwrap();
        let (input, mut output, mut tag) = (vec![0; length], vec![0; length + 16], [0; 16]);
        group.bench_function(BenchmarkId::new("Tongsuo", length), |bencher| {
            bencher.iter(|| {
                context.encrypt_init(None, None, Some(&NONCE)).unwrap();
                context.cipher_update(&HEADER, None).unwrap();
                context.cipher_update(black_box(&input), Some(&mut output)).unwrap();
                context.cipher_final(&mut []).unwrap();
                context.tag(&mut tag).unwrap();
            });
        });
        for backend in Backend::available() {
            let gcm = Gcm::new(Key::with_backend(&KEY, backend).unwrap());
            group.bench_function(BenchmarkId::new(backend.name(), length), |bencher| {
                bencher.iter(|| {
                    let data = InOut::new(black_box(&input), output.split_at_mut(length).0).unwrap();
                    gcm.seal(&NONCE, &HEADER, data).unwrap()
                });
            });
        }
    }
}

fn sm4_cbc(criterion: &mut Criterion) {
    const LENGTH: usize = 16_384;
    let (input, mut output) = (vec![0; LENGTH], vec![0; LENGTH + 16]);
    for decrypt in [false, true] {
        let mut group = criterion.benchmark_group(if decrypt { "SM4-CBC decrypt" } else { "SM4-CBC encrypt" });
        group.throughput(Throughput::Bytes(LENGTH as u64));
        let mut context = CipherCtx::new().unwrap();
        let init = if decrypt { CipherCtxRef::decrypt_init } else { CipherCtxRef::encrypt_init };
        init(&mut context, Some(Cipher::sm4_cbc()), Some(&KEY), Some(&KEY)).unwrap();
        context.set_padding(false);
        group.bench_function(BenchmarkId::new("Tongsuo", LENGTH), |bencher| {
            bencher.iter(|| context.cipher_update(black_box(&input), Some(&mut output)).unwrap());
        });
        for backend in Backend::available() {
            let mut chain = Cbc::new(Key::with_backend(&KEY, backend).unwrap(), &KEY);
            group.bench_function(BenchmarkId::new(backend.name(), LENGTH), |bencher| {
                bencher.iter(|| {
                    let data = InOut::new(black_box(&input), output.split_at_mut(LENGTH).0).unwrap();
                    if decrypt { chain.decrypt(data) } else { chain.encrypt(data) }.unwrap();
                });
            });
        }
    }
}

fn digests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("SM3");
    let sm3 = Md::fetch(None, "SM3", None).unwrap();
    for length in [64, 1024, 8192] {
        group.throughput(Throughput::Bytes(length as u64));
        let input = vec![0; length];
        let mut context = MdCtx::new().unwrap();
        let mut digest = [0; 32];
        group.bench_function(BenchmarkId::new("Tongsuo", length), |bencher| {
            bencher.iter(|| {
                context.digest_init(&sm3).unwrap();
                context.digest_update(black_box(&input)).unwrap();
                context.digest_final(&mut digest).unwrap();
            });
        });
        for backend in sm3::Backend::available() {
            group.bench_function(BenchmarkId::new(backend.name(), length), |bencher| {
                bencher.iter(|| {
                    let mut hasher = sm3::Sm3::with_backend(backend).unwrap();
                    hasher.update(black_box(&input));
                    hasher.finalize()
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = sm4_gcm, sm4_cbc, digests
}
criterion_main!(benches);
