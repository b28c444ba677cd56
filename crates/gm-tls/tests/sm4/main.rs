//! SM4 of the linked library against RustCrypto's `sm4` and the published vectors: the block cipher, CBC, GCM and CCM, which are
//! what the suites of TLCP and RFC 8998 use. Modes are built here from single blocks, so that the library is never its own witness.

#![cfg(feature = "tongsuo")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use proptest::prelude::*;
use sm4::Sm4;
use sm4::cipher::{BlockCipherEncrypt, KeyInit};

type Block = [u8; 16];

const TAG_LEN: usize = 16;

/// The example of GB/T 32907: key and plaintext are the same.
const GBT_32907: &str = "0123456789abcdeffedcba9876543210";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn block(text: &str) -> Block {
    hex(text).try_into().unwrap()
}

mod library {
    use super::*;

    fn start(cipher: &CipherRef, key: &Block, iv: Option<&[u8]>) -> CipherCtx {
        let mut context = CipherCtx::new().unwrap();
        context.encrypt_init(Some(cipher), Some(key), iv).unwrap();
        context.set_padding(false);
        context
    }

    pub fn ecb_rounds(key: &Block, text: Block, rounds: usize) -> Block {
        let mut context = start(Cipher::sm4_ecb(), key, None);
        let (mut from, mut to) = (text, [0; 32]);
        for _ in 0..rounds {
            assert_eq!(context.cipher_update(&from, Some(&mut to)).unwrap(), 16);
            from.copy_from_slice(&to[..16]);
        }
        from
    }

    pub fn cbc(key: &Block, iv: &Block, text: &[u8]) -> Vec<u8> {
        let mut context = start(Cipher::sm4_cbc(), key, Some(iv));
        let mut out = Vec::new();
        context.cipher_update_vec(text, &mut out).unwrap();
        context.cipher_final_vec(&mut out).unwrap();
        out
    }

    /// Ciphertext and tag.
    pub fn aead(name: &str, key: &Block, nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let cipher = Cipher::fetch(None, name, None).unwrap();
        let mut context = CipherCtx::new().unwrap();
        context.encrypt_init(Some(&cipher), None, None).unwrap();
        context.set_iv_length(nonce.len()).unwrap();
        if name.ends_with("CCM") {
            context.set_tag_length(TAG_LEN).unwrap();
        }
        context.encrypt_init(None, Some(key), Some(nonce)).unwrap();
        if name.ends_with("CCM") {
            context.set_data_len(text.len()).unwrap();
        }
        context.cipher_update(aad, None).unwrap();
        let mut out = Vec::new();
        context.cipher_update_vec(text, &mut out).unwrap();
        context.cipher_final_vec(&mut out).unwrap();
        let mut tag = vec![0; TAG_LEN];
        context.tag(&mut tag).unwrap();
        (out, tag)
    }
}

mod witness {
    use super::*;

    pub fn encrypt(key: &Block, text: &Block) -> Block {
        let mut out = (*text).into();
        Sm4::new(&(*key).into()).encrypt_block(&mut out);
        out.into()
    }

    pub fn ecb_rounds(key: &Block, text: Block, rounds: usize) -> Block {
        let cipher = Sm4::new(&(*key).into());
        let mut out = text.into();
        (0..rounds).for_each(|_| cipher.encrypt_block(&mut out));
        out.into()
    }

    fn xor(one: &Block, other: &[u8]) -> Block {
        std::array::from_fn(|at| one[at] ^ other.get(at).unwrap_or(&0))
    }

    pub fn cbc(key: &Block, iv: &Block, text: &[u8]) -> Vec<u8> {
        let mut last = *iv;
        let mut out = Vec::new();
        for part in text.chunks(16) {
            last = encrypt(key, &xor(&last, part));
            out.extend(last);
        }
        out
    }

    /// Counter mode from the block after `counter`, of which the last `width` bytes count.
    fn ctr(key: &Block, mut counter: Block, width: usize, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in text.chunks(16) {
            for byte in counter.iter_mut().rev().take(width) {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
            out.extend(encrypt(key, &counter).iter().zip(part).map(|(key, byte)| key ^ byte));
        }
        out
    }

    /// NIST SP 800-38D, algorithms 2 (GHASH) and 4, with nonces of 96 bits.
    pub fn gcm(key: &Block, nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let h = u128::from_be_bytes(encrypt(key, &[0; 16]));
        let counter: Block = std::array::from_fn(|at| *nonce.get(at).unwrap_or(&u8::from(at == 15)));
        let out = ctr(key, counter, 4, text);
        let bits = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap() * 8;
        let lengths = [bits(aad).to_be_bytes(), bits(&out).to_be_bytes()].concat();
        let mut hash = 0_u128;
        for part in aad.chunks(16).chain(out.chunks(16)).chain([&lengths[..]]) {
            hash = multiply(hash ^ u128::from_be_bytes(xor(&[0; 16], part)), h);
        }
        let tag = xor(&encrypt(key, &counter), &hash.to_be_bytes()).to_vec();
        (out, tag)
    }

    /// The product in GF(2^128) in GCM's order of bits: SP 800-38D, algorithm 1.
    fn multiply(x: u128, y: u128) -> u128 {
        let (mut product, mut v) = (0, y);
        for bit in (0..128).rev() {
            if (x >> bit) & 1 == 1 {
                product ^= v;
            }
            v = (v >> 1) ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        product
    }

    /// RFC 3610 with a length field of 3 bytes and tags of 16.
    pub fn ccm(key: &Block, nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut first: Block = std::array::from_fn(|at| *nonce.get(at.wrapping_sub(1)).unwrap_or(&0));
        first[0] = (u8::from(!aad.is_empty()) << 6) | (7 << 3) | 2;
        first[13..].copy_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes()[1..]);
        let mut authenticated = first.to_vec();
        if !aad.is_empty() {
            authenticated.extend(u16::try_from(aad.len()).unwrap().to_be_bytes());
            authenticated.extend(aad);
            authenticated.resize(authenticated.len().next_multiple_of(16), 0);
        }
        authenticated.extend(text);
        let mac = authenticated.chunks(16).fold([0; 16], |mac, part| encrypt(key, &xor(&mac, part)));
        let mut counter: Block = std::array::from_fn(|at| *nonce.get(at.wrapping_sub(1)).unwrap_or(&0));
        counter[0] = 2;
        let tag = xor(&encrypt(key, &counter), &mac).to_vec();
        (ctr(key, counter, 3, text), tag)
    }
}

#[test]
fn both_give_the_published_block_and_a_million_rounds_of_it() {
    let key = block(GBT_32907);
    for (rounds, expected) in [(1, "681edf34d206965e86b3e94f536e4246"), (1_000_000, "595298c7c6fd271f0402f804c33d3f66")]
    {
        assert_eq!(witness::ecb_rounds(&key, key, rounds), block(expected), "witness, {rounds}");
        assert_eq!(library::ecb_rounds(&key, key, rounds), block(expected), "library, {rounds}");
    }
}

#[test]
fn both_give_the_ciphertexts_of_rfc_8998_appendix_a() {
    let key = block(GBT_32907);
    let nonce: [u8; 12] = hex("00001234567800000000abcd").try_into().unwrap();
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let text = hex("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd\
                    eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa");
    let gcm = (
        hex("17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735\
             d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"),
        hex("83de3541e4c2b58177e065a9bf7b62ec"),
    );
    assert_eq!(witness::gcm(&key, &nonce, &aad, &text), gcm);
    assert_eq!(library::aead("SM4-GCM", &key, &nonce, &aad, &text), gcm);
    let ccm = (
        hex("48af93501fa62adbcd414cce6034d895dda1bf8f132f042098661572e7483094\
             fd12e518ce062c98acee28d95df4416bed31a2f04476c18bb40c84a74b97dc5b"),
        hex("16842d4fa186f56ab33256971fa110f4"),
    );
    assert_eq!(witness::ccm(&key, &nonce, &aad, &text), ccm);
    assert_eq!(library::aead("SM4-CCM", &key, &nonce, &aad, &text), ccm);
}

proptest! {
    #[test]
    fn the_library_agrees_with_the_witness_in_every_mode_of_the_suites(
        key: Block,
        iv: Block,
        nonce: [u8; 12],
        aad in prop::collection::vec(any::<u8>(), 1..40),
        text in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let whole = &text[..text.len() / 16 * 16];
        prop_assert_eq!(library::cbc(&key, &iv, whole), witness::cbc(&key, &iv, whole));
        prop_assert_eq!(library::aead("SM4-GCM", &key, &nonce, &aad, &text), witness::gcm(&key, &nonce, &aad, &text));
        prop_assert_eq!(library::aead("SM4-CCM", &key, &nonce, &aad, &text), witness::ccm(&key, &nonce, &aad, &text));
    }
}
