//! SM4 and its modes. What is compared with are the modes by their definitions, over RustCrypto's block cipher.

use ::sm4::cipher::{BlockCipherEncrypt, KeyInit};
use sm_accel::InOut;
use sm_accel::ghash;
use sm_accel::sm4::{Backend, Cbc, Ccm, Ctr, Error, Gcm, Key};

use crate::{Noise, hex, lengths};

const KEY: [u8; 16] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];

fn on(backend: Backend, key: &[u8; 16]) -> Key {
    Key::with_backend(key, backend).unwrap()
}

/// The other implementation.
struct Other(::sm4::Sm4);

impl Other {
    fn new(key: &[u8; 16]) -> Other {
        Other(::sm4::Sm4::new(&(*key).into()))
    }

    fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = block.into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    fn ctr(&self, counter: [u8; 16], data: &[u8], next: impl Fn(u128) -> u128) -> Vec<u8> {
        let mut counter = u128::from_be_bytes(counter);
        let mut out = Vec::new();
        for piece in data.chunks(16) {
            let stream = self.encrypt(counter.to_be_bytes());
            out.extend(piece.iter().zip(stream).map(|(byte, key)| byte ^ key));
            counter = next(counter);
        }
        out
    }

    fn cbc(&self, iv: [u8; 16], data: &[u8]) -> Vec<u8> {
        let mut last = iv;
        let mut out = Vec::new();
        for block in data.as_chunks::<16>().0 {
            last.iter_mut().zip(block).for_each(|(byte, more)| *byte ^= more);
            last = self.encrypt(last);
            out.extend(last);
        }
        out
    }

    /// SP 800-38D, bit by bit.
    fn gcm(&self, nonce: &[u8], aad: &[u8], data: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let h = u128::from_be_bytes(self.encrypt([0; 16]));
        let mut table = [h; 128];
        for i in 1..128 {
            table[i] = (table[i - 1] >> 1) ^ if table[i - 1] & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        let hash = |parts: &[&[u8]], last: u128| {
            let mut y = 0u128;
            let mut take = |block: u128| {
                let x = y ^ block;
                y = (0..128).filter(|bit| x >> (127 - bit) & 1 == 1).fold(0, |sum, bit| sum ^ table[bit]);
            };
            for chunk in parts.iter().flat_map(|part| part.chunks(16)) {
                let mut block = [0; 16];
                block[..chunk.len()].copy_from_slice(chunk);
                take(u128::from_be_bytes(block));
            }
            take(last);
            y
        };
        let first = if nonce.len() == 12 {
            u128::from_be_bytes([nonce, &[0, 0, 0, 1]].concat().try_into().unwrap())
        } else {
            hash(&[nonce], nonce.len() as u128 * 8)
        };
        let next = |counter: u128| (counter >> 32 << 32) | u128::from((counter as u32).wrapping_add(1));
        let cipher = self.ctr(next(first).to_be_bytes(), data, next);
        let sum = hash(&[aad, &cipher], ((aad.len() as u128 * 8) << 64) | (data.len() as u128 * 8));
        let tag = sum ^ u128::from_be_bytes(self.encrypt(first.to_be_bytes()));
        (cipher, tag.to_be_bytes().to_vec())
    }

    /// SP 800-38C.
    fn ccm(&self, nonce: &[u8], aad: &[u8], data: &[u8], tag_length: usize) -> (Vec<u8>, Vec<u8>) {
        let size = 15 - nonce.len();
        let mut text = vec![(u8::from(!aad.is_empty()) << 6) | ((tag_length as u8 - 2) / 2) << 3 | (size as u8 - 1)];
        text.extend(nonce);
        text.extend(&(data.len() as u128).to_be_bytes()[16 - size..]);
        if aad.len() >= 0xff00 {
            text.extend([0xff, 0xfe]);
            text.extend((aad.len() as u32).to_be_bytes());
        } else if !aad.is_empty() {
            text.extend((aad.len() as u16).to_be_bytes());
        }
        text.extend(aad);
        text.resize(text.len().next_multiple_of(16), 0);
        text.extend(data);
        text.resize(text.len().next_multiple_of(16), 0);
        let mac = self.cbc([0; 16], &text)[text.len() - 16..].to_vec();
        let mut counter = [0; 16];
        counter[0] = size as u8 - 1;
        counter[1..=nonce.len()].copy_from_slice(nonce);
        let out = self.ctr(counter, &[mac.clone(), data.to_vec()].concat(), |counter| counter + 1);
        (out[16..].to_vec(), out[..tag_length].to_vec())
    }
}

/// The same work in place and from one buffer to another, at other offsets; both must give the same.
fn apply(data: &[u8], offset: usize, mut f: impl FnMut(InOut<'_>)) -> Vec<u8> {
    let mut place = vec![0xaa; offset + data.len() + 1];
    place[offset..][..data.len()].copy_from_slice(data);
    f(InOut::from(&mut place[offset..][..data.len()]));
    assert_eq!(
        (place[offset + data.len()], place[..offset].iter().all(|byte| *byte == 0xaa)),
        (0xaa, true),
        "beyond the end"
    );
    let mut input = vec![0xbb; offset / 2];
    input.extend(data);
    let mut output = vec![0xcc; offset + 3 + data.len() + 1];
    f(InOut::new(&input[offset / 2..], &mut output[offset + 3..][..data.len()]).unwrap());
    assert_eq!(&output[offset + 3..][..data.len()], &place[offset..][..data.len()], "two buffers");
    assert_eq!((&input[offset / 2..], output[offset + 3 + data.len()]), (data, 0xcc), "the input, or beyond the end");
    output[offset + 3..][..data.len()].to_vec()
}

#[test]
fn gives_the_examples_of_gb_t_32907() {
    for backend in Backend::available() {
        let key = on(backend, &KEY);
        let mut block = KEY;
        key.encrypt_block(&mut block);
        assert_eq!(block.to_vec(), hex("681edf34d206965e86b3e94f536e4246"), "{backend:?}");
        key.decrypt_block(&mut block);
        assert_eq!(block, KEY, "{backend:?}");
    }
}

/// The second example of the standard, and its way back.
#[test]
fn encrypts_a_million_times() {
    for backend in Backend::available() {
        let key = on(backend, &KEY);
        let mut block = KEY;
        (0..1_000_000).for_each(|_| key.encrypt_block(&mut block));
        assert_eq!(block.to_vec(), hex("595298c7c6fd271f0402f804c33d3f66"), "{backend:?}");
    }
}

fn rfc_8998() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let data = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xee, 0xaa].map(|byte| [byte; 8]).concat();
    (hex("00001234567800000000abcd"), hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), data)
}

/// RFC 8998, A.1.
#[test]
fn gives_the_gcm_vector_of_rfc_8998() {
    let (nonce, aad, data) = rfc_8998();
    let expected =
        hex("17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15
         a56834cbcf98c397b4024a2691233b8d");
    for backend in Backend::available() {
        let gcm = Gcm::new(on(backend, &KEY));
        let mut out = data.clone();
        let tag = gcm.seal(&nonce, &aad, InOut::from(out.as_mut_slice())).unwrap();
        assert_eq!((&out, tag.to_vec()), (&expected, hex("83de3541e4c2b58177e065a9bf7b62ec")), "{backend:?}");
        gcm.open(&nonce, &aad, InOut::from(out.as_mut_slice()), &tag).unwrap();
        assert_eq!(out, data);
    }
}

/// RFC 8998, A.2.
#[test]
fn gives_the_ccm_vector_of_rfc_8998() {
    let (nonce, aad, data) = rfc_8998();
    let expected =
        hex("48af93501fa62adbcd414cce6034d895dda1bf8f132f042098661572e7483094fd12e518ce062c98acee28d95df4416b
         ed31a2f04476c18bb40c84a74b97dc5b");
    for backend in Backend::available() {
        let ccm = Ccm::new(on(backend, &KEY), 16).unwrap();
        let mut out = data.clone();
        let tag = ccm.seal(&nonce, &aad, InOut::from(out.as_mut_slice())).unwrap();
        assert_eq!((&out, tag.to_vec()), (&expected, hex("16842d4fa186f56ab33256971fa110f4")), "{backend:?}");
        ccm.open(&nonce, &aad, InOut::from(out.as_mut_slice()), &tag).unwrap();
        assert_eq!(out, data);
    }
}

#[test]
fn single_blocks_agree_under_many_keys() {
    let mut noise = Noise(3);
    let edges = [[0; 16], [0xff; 16], KEY];
    for round in 0..2000 {
        let key = edges.get(round).copied().unwrap_or_else(|| noise.bytes(16).try_into().unwrap());
        let block: [u8; 16] = noise.bytes(16).try_into().unwrap();
        let expected = Other::new(&key).encrypt(block);
        for backend in Backend::available() {
            let key = on(backend, &key);
            let mut out = block;
            key.encrypt_block(&mut out);
            assert_eq!(out, expected, "{backend:?}");
            key.decrypt_block(&mut out);
            assert_eq!(out, block, "{backend:?}");
        }
    }
    let libsm = libsm::sm4::cipher::Sm4Cipher::new(&KEY).unwrap();
    assert_eq!(libsm.encrypt(&KEY).unwrap(), Other::new(&KEY).encrypt(KEY));
}

#[test]
fn ecb_and_cbc_agree_at_every_number_of_blocks() {
    let mut noise = Noise(4);
    let key: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let iv: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let other = Other::new(&key);
    let text = noise.bytes(4096);
    for length in (0..=256).map(|blocks| blocks * 16) {
        let data = &text[..length];
        let ecb: Vec<u8> = data.as_chunks::<16>().0.iter().flat_map(|block| other.encrypt(*block)).collect();
        let cbc = other.cbc(iv, data);
        for backend in Backend::available() {
            let key = on(backend, &key);
            let offset = noise.below(40);
            let out = apply(data, offset, |data| assert!(key.encrypt_blocks(data).is_empty()));
            assert_eq!(out, ecb, "{backend:?} ECB, {length} bytes");
            let back = apply(&out, offset, |data| assert!(key.decrypt_blocks(data).is_empty()));
            assert_eq!(back, data, "{backend:?} ECB back, {length} bytes");
            let out = apply(data, offset, |data| Cbc::new(key.clone(), &iv).encrypt(data).unwrap());
            assert_eq!(out, cbc, "{backend:?} CBC, {length} bytes");
            let back = apply(&out, offset, |data| Cbc::new(key.clone(), &iv).decrypt(data).unwrap());
            assert_eq!(back, data, "{backend:?} CBC back, {length} bytes");
            let cut = noise.below(length / 16 + 1) * 16;
            for encrypt in [true, false] {
                let mut chain = Cbc::new(key.clone(), &iv);
                let mut out = if encrypt { data.to_vec() } else { cbc.clone() };
                for piece in [0..cut, cut..length] {
                    let piece = InOut::from(&mut out[piece]);
                    if encrypt { chain.encrypt(piece).unwrap() } else { chain.decrypt(piece).unwrap() }
                }
                assert_eq!(out, if encrypt { &cbc } else { data }, "{backend:?} CBC in two, {length} bytes");
            }
        }
    }
}

/// libsm has modes of its own: CBC with padding, and CTR.
#[test]
fn cbc_and_ctr_agree_with_libsm() {
    use libsm::sm4::cipher_mode::{CipherMode, Sm4CipherMode};
    let mut noise = Noise(11);
    let key: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let text = noise.bytes(4096 + 16);
    let (cbc, ctr) =
        (Sm4CipherMode::new(&key, CipherMode::Cbc).unwrap(), Sm4CipherMode::new(&key, CipherMode::Ctr).unwrap());
    for length in lengths() {
        let iv: [u8; 16] = noise.bytes(16).try_into().unwrap();
        let data = &text[..length];
        let padding = 16 - length % 16;
        let padded = [data, &vec![padding as u8; padding][..]].concat();
        let expected = (cbc.encrypt(&[], data, &iv).unwrap(), ctr.encrypt(&[], data, &iv).unwrap());
        for backend in Backend::available() {
            let out = apply(&padded, 0, |data| Cbc::new(on(backend, &key), &iv).encrypt(data).unwrap());
            assert_eq!(out, expected.0, "{backend:?} CBC, {length} bytes");
            let out = apply(data, 0, |data| Ctr::new(on(backend, &key), &iv).apply(data));
            assert_eq!(out, expected.1, "{backend:?} CTR, {length} bytes");
        }
    }
}

#[test]
fn what_is_no_whole_block_is_left_alone() {
    let mut data = [7; 37];
    assert_eq!(Key::new(&KEY).encrypt_blocks(InOut::from(data.as_mut_slice())).len(), 5);
    assert_eq!(data[32..], [7; 5]);
    let mut chain = Cbc::new(Key::new(&KEY), &KEY);
    let mut data = [7; 37];
    assert_eq!(chain.encrypt(InOut::from(data.as_mut_slice())), Err(Error::PartialBlock));
    assert_eq!(chain.decrypt(InOut::from(data.as_mut_slice())), Err(Error::PartialBlock));
    assert_eq!(data, [7; 37]);
    assert!(InOut::new(&[0; 3], &mut [0; 4]).is_none());
}

#[test]
fn ctr_agrees_at_every_length_in_pieces_and_where_counters_wrap() {
    let mut noise = Noise(5);
    let key: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let other = Other::new(&key);
    let text = noise.bytes(4096);
    for length in lengths() {
        let mut counter: [u8; 16] = noise.bytes(16).try_into().unwrap();
        match noise.below(4) {
            0 => counter[12..].copy_from_slice(&(0u32.wrapping_sub(noise.below(256) as u32)).to_be_bytes()),
            1 => counter = (0u128.wrapping_sub(noise.below(256) as u128)).to_be_bytes(),
            _ => {}
        }
        let data = &text[..length];
        let expected = other.ctr(counter, data, |counter| counter.wrapping_add(1));
        for backend in Backend::available() {
            let mut ctr = Ctr::new(on(backend, &key), &counter);
            let out = apply(data, noise.below(40), |data| {
                ctr.restart(&counter);
                ctr.apply(data);
            });
            assert_eq!(out, expected, "{backend:?}, {length} bytes");
            ctr.restart(&counter);
            let mut out = Vec::new();
            for piece in noise.pieces(data) {
                let mut piece = piece.to_vec();
                ctr.apply(InOut::from(piece.as_mut_slice()));
                out.extend(piece);
            }
            assert_eq!(out, expected, "{backend:?}, {length} bytes in pieces");
        }
    }
}

/// Every backend of the cipher, and every other GHASH with one of them.
fn gcms(key: &[u8; 16]) -> Vec<Gcm> {
    let ciphers = Backend::available().map(|backend| Gcm::new(on(backend, key)));
    let hashes = ghash::Backend::available().map(|backend| Gcm::with_hash(Key::new(key), backend));
    ciphers.chain(hashes).collect()
}

#[test]
fn gcm_agrees_at_every_length_of_data_nonce_and_associated_data() {
    let mut noise = Noise(6);
    let key: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let other = Other::new(&key);
    let text = noise.bytes(4096 + 300);
    let gcms = gcms(&key);
    for length in lengths() {
        let nonce_length = if noise.below(2) == 0 { 12 } else { 1 + noise.below(140) };
        let nonce = noise.bytes(nonce_length);
        let aad = &text[length..][..noise.below(300)];
        let data = &text[..length];
        let (cipher, tag) = other.gcm(&nonce, aad, data);
        for gcm in &gcms {
            let what = format!("{gcm:?}, nonce {nonce_length}, associated {}, {length} bytes", aad.len());
            let out = apply(data, noise.below(40), |data| {
                assert_eq!(gcm.seal(&nonce, aad, data).unwrap().to_vec(), tag, "{what}");
            });
            assert_eq!(out, cipher, "{what}");
            let out = apply(&cipher, noise.below(40), |data| gcm.open(&nonce, aad, data, &tag).unwrap());
            assert_eq!(out, data, "{what}");

            for encrypt in [true, false] {
                let mut message = gcm.start(&nonce).unwrap();
                noise.pieces(aad).into_iter().for_each(|piece| gcm.aad(&mut message, piece).unwrap());
                let mut out = Vec::new();
                for piece in noise.pieces(if encrypt { data } else { &cipher }) {
                    let mut piece = piece.to_vec();
                    let place = InOut::from(piece.as_mut_slice());
                    if encrypt { gcm.encrypt(&mut message, place) } else { gcm.decrypt(&mut message, place) }.unwrap();
                    out.extend(piece);
                }
                assert_eq!(out, if encrypt { cipher.as_slice() } else { data }, "{what}, in pieces");
                assert_eq!(gcm.verify(message.clone(), &tag), Ok(()), "{what}, in pieces");
                assert_eq!(gcm.finish(message).to_vec(), tag, "{what}, in pieces");
            }
        }
    }
}

#[test]
fn a_long_gcm_message_agrees() {
    let mut noise = Noise(7);
    let (key, text) = (KEY, noise.bytes(70_000));
    let other = Other::new(&key);
    for length in [16_384, 16_400, 65_536, 70_000, 69_999] {
        let (cipher, tag) = other.gcm(&[9; 12], b"record", &text[..length]);
        for gcm in gcms(&key) {
            let mut out = text[..length].to_vec();
            assert_eq!(
                gcm.seal(&[9; 12], b"record", InOut::from(out.as_mut_slice())).unwrap().to_vec(),
                tag,
                "{gcm:?}"
            );
            assert!(out == cipher, "{gcm:?}, {length} bytes");
        }
    }
}

#[test]
fn gcm_refuses_every_changed_bit_and_leaves_zeros() {
    let (nonce, aad, data) = rfc_8998();
    for gcm in gcms(&KEY) {
        let mut sealed = data.clone();
        let tag = gcm.seal(&nonce, &aad, InOut::from(sealed.as_mut_slice())).unwrap();
        let refuses = |nonce: &[u8], aad: &[u8], data: &[u8], tag: &[u8]| {
            let mut out = data.to_vec();
            assert_eq!(gcm.open(nonce, aad, InOut::from(out.as_mut_slice()), tag), Err(Error::Tag));
            assert!(out.iter().all(|byte| *byte == 0), "a refused message is shown");
        };
        let flip = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        (0..128).for_each(|bit| refuses(&nonce, &aad, &sealed, &flip(&tag, bit)));
        (0..sealed.len() * 8).for_each(|bit| refuses(&nonce, &aad, &flip(&sealed, bit), &tag));
        (0..aad.len() * 8).for_each(|bit| refuses(&nonce, &flip(&aad, bit), &sealed, &tag));
        (0..nonce.len() * 8).for_each(|bit| refuses(&flip(&nonce, bit), &aad, &sealed, &tag));
        (0..12).for_each(|length| refuses(&nonce, &aad, &sealed, &tag[..length]));
        refuses(&nonce, &aad, &sealed, &[tag.as_slice(), &[0]].concat());
        (12..=16).for_each(|length| {
            let mut out = sealed.clone();
            gcm.open(&nonce, &aad, InOut::from(out.as_mut_slice()), &tag[..length]).unwrap();
            assert_eq!(out, data);
        });
    }
}

#[test]
fn gcm_refuses_an_empty_nonce_and_late_associated_data() {
    let gcm = Gcm::new(Key::new(&KEY));
    let mut out = [7; 3];
    assert_eq!(gcm.seal(b"", b"", InOut::from(out.as_mut_slice())), Err(Error::Nonce));
    assert_eq!(gcm.open(b"", b"", InOut::from(out.as_mut_slice()), &[0; 16]), Err(Error::Nonce));
    assert_eq!(out, [0; 3]);
    let mut message = gcm.start(&[0; 12]).unwrap();
    gcm.encrypt(&mut message, InOut::from([1].as_mut_slice())).unwrap();
    assert_eq!(gcm.aad(&mut message, b"late"), Err(Error::Order));
}

#[test]
fn ccm_agrees_at_every_length_of_data_nonce_and_tag() {
    let mut noise = Noise(8);
    let key: [u8; 16] = noise.bytes(16).try_into().unwrap();
    let other = Other::new(&key);
    let text = noise.bytes(4096 + 300);
    for length in lengths() {
        let nonce_length = 7 + noise.below(7);
        let nonce = noise.bytes(nonce_length);
        let tag_length = [4, 6, 8, 10, 12, 14, 16, 16, 8][noise.below(9)];
        let aad = &text[length..][..noise.below(300)];
        let data = &text[..length];
        let (cipher, tag) = other.ccm(&nonce, aad, data, tag_length);
        for backend in Backend::available() {
            let what = format!(
                "{backend:?}, nonce {nonce_length}, tag {tag_length}, associated {}, {length} bytes",
                aad.len()
            );
            let ccm = Ccm::new(on(backend, &key), tag_length).unwrap();
            let out = apply(data, noise.below(40), |data| {
                let made = ccm.seal(&nonce, aad, data).unwrap();
                assert_eq!(
                    (&made[..tag_length], &made[tag_length..]),
                    (tag.as_slice(), &[0; 16][tag_length..]),
                    "{what}"
                );
            });
            assert_eq!(out, cipher, "{what}");
            let out = apply(&cipher, noise.below(40), |data| ccm.open(&nonce, aad, data, &tag).unwrap());
            assert_eq!(out, data, "{what}");
        }
    }
}

#[test]
fn ccm_takes_long_associated_data() {
    let aad = Noise(9).bytes(70_000);
    for length in [0xfeff, 0xff00, 70_000] {
        let expected = Other::new(&KEY).ccm(&[3; 12], &aad[..length], b"data", 16);
        let mut out = *b"data";
        let tag = Ccm::new(Key::new(&KEY), 16).unwrap().seal(&[3; 12], &aad[..length], InOut::from(out.as_mut_slice()));
        assert_eq!((out.to_vec(), tag.unwrap().to_vec()), expected, "{length}");
    }
}

#[test]
fn ccm_refuses_what_was_changed_and_what_it_cannot_do() {
    let (nonce, aad, data) = rfc_8998();
    for backend in Backend::available() {
        let ccm = Ccm::new(on(backend, &KEY), 8).unwrap();
        let mut sealed = data.clone();
        let tag = ccm.seal(&nonce, &aad, InOut::from(sealed.as_mut_slice())).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut out = sealed.clone();
            out[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ccm.open(&nonce, &aad, InOut::from(out.as_mut_slice()), &tag[..8]), Err(Error::Tag));
            assert!(out.iter().all(|byte| *byte == 0), "a refused message is shown");
        }
        for wrong in [&tag[..7], &tag[..9], &[0; 8]] {
            let mut out = sealed.clone();
            assert_eq!(ccm.open(&nonce, &aad, InOut::from(out.as_mut_slice()), wrong), Err(Error::Tag));
        }
        ccm.open(&nonce, &aad, InOut::from(sealed.as_mut_slice()), &tag[..8]).unwrap();
        assert_eq!(sealed, data);
        for length in [0, 6, 14] {
            assert_eq!(ccm.seal(&vec![0; length], b"", InOut::from([].as_mut_slice())), Err(Error::Nonce));
        }
        let mut long = vec![0; 65_536];
        assert_eq!(ccm.seal(&[0; 13], b"", InOut::from(long.as_mut_slice())), Err(Error::TooLong));
    }
    for length in [0, 2, 5, 18] {
        assert_eq!(Ccm::new(Key::new(&KEY), length).err(), Some(Error::Tag));
    }
}
