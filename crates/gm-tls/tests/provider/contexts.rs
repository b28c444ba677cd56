//! Contexts that are copied, used again, used after they failed, and used in the wrong order.

use openssl::{cipher::Cipher, cipher_ctx::CipherCtx};

use crate::{OURS, THEIRS, harness::noise, start};

const KEY: &[u8; 16] = b"0123456789abcdef";

fn fetch(properties: &str, name: &str) -> Cipher {
    start();
    Cipher::fetch(None, name, Some(properties)).unwrap()
}

fn encrypting(properties: &str, name: &str, iv: &[u8]) -> CipherCtx {
    let mut context = CipherCtx::new().unwrap();
    context.encrypt_init(Some(&fetch(properties, name)), None, None).unwrap();
    if name == "SM4-GCM" {
        context.set_iv_length(iv.len()).unwrap();
    }
    context.encrypt_init(None, Some(KEY), Some(iv)).unwrap();
    context
}

fn finish(mut context: CipherCtx, data: &[u8], tag: bool) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut made) = (Vec::new(), vec![0; if tag { 16 } else { 0 }]);
    context.cipher_update_vec(data, &mut out).unwrap();
    context.cipher_final_vec(&mut out).unwrap();
    if tag {
        context.tag(&mut made).unwrap();
    }
    (out, made)
}

#[test]
fn a_copied_context_goes_its_own_way() {
    let data = noise(400);
    for (name, iv) in [("SM4-GCM", 12), ("SM4-CBC", 16), ("SM4-CTR", 16)] {
        let iv = noise(iv);
        for cut in [0, 5, 16, 100, 256, 300] {
            let (head, tail) = data.split_at(cut);
            let gcm = name == "SM4-GCM";
            let mut first = encrypting(OURS, name, &iv);
            let mut start = Vec::new();
            if gcm {
                first.cipher_update(b"associated", None).unwrap();
            }
            first.cipher_update_vec(head, &mut start).unwrap();
            let mut second = CipherCtx::new().unwrap();
            second.copy(&first).unwrap();
            first.cipher_update_vec(b"something else", &mut Vec::new()).unwrap();
            drop(first);
            let (rest, tag) = finish(second, tail, gcm);

            let mut whole = encrypting(THEIRS, name, &iv);
            if gcm {
                whole.cipher_update(b"associated", None).unwrap();
            }
            let expected = finish(whole, &data, gcm);
            assert_eq!(([start, rest].concat(), tag), expected, "{name}, copied after {cut} bytes");
        }
    }
}

#[test]
fn gcm_takes_every_length_of_iv_that_the_library_takes() {
    let data = noise(100);
    for length in 1..=128 {
        let iv = noise(length);
        let ours = finish(encrypting(OURS, "SM4-GCM", &iv), &data, true);
        assert_eq!(ours, finish(encrypting(THEIRS, "SM4-GCM", &iv), &data, true), "an IV of {length} bytes");
    }
    let mut context = CipherCtx::new().unwrap();
    context.encrypt_init(Some(&fetch(OURS, "SM4-GCM")), None, None).unwrap();
    assert!(context.set_iv_length(129).is_err());
}

#[test]
fn associated_data_after_the_message_are_refused() {
    let mut context = encrypting(OURS, "SM4-GCM", &[1; 12]);
    context.cipher_update_vec(b"message", &mut Vec::new()).unwrap();
    assert!(context.cipher_update(b"late", None).is_err());
    let mut context = CipherCtx::new().unwrap();
    context.encrypt_init(Some(&fetch(OURS, "SM4-CCM")), None, None).unwrap();
    context.set_iv_length(12).unwrap();
    context.set_tag_length(16).unwrap();
    context.encrypt_init(None, Some(KEY), Some(&[1; 12])).unwrap();
    context.set_data_len(7).unwrap();
    context.cipher_update_vec(b"message", &mut Vec::new()).unwrap();
    assert!(context.cipher_update(b"late", None).is_err());
    assert!(context.cipher_update_vec(b"another", &mut Vec::new()).is_err(), "a nonce serves two messages");
}

/// A message that was refused leaves a context that neither gives more of it nor accepts it after all, and that works with a new one.
#[test]
fn after_a_refused_message_only_a_new_one_is_taken() {
    for name in ["SM4-GCM", "SM4-CCM"] {
        let ccm = name == "SM4-CCM";
        let seal = |iv: &[u8]| {
            let mut context = CipherCtx::new().unwrap();
            context.encrypt_init(Some(&fetch(THEIRS, name)), None, None).unwrap();
            context.set_iv_length(12).unwrap();
            if ccm {
                context.set_tag_length(16).unwrap();
            }
            context.encrypt_init(None, Some(KEY), Some(iv)).unwrap();
            finish(context, b"a message of 24 bytes...", true)
        };
        let (text, tag) = seal(&[1; 12]);
        let mut context = CipherCtx::new().unwrap();
        context.decrypt_init(Some(&fetch(OURS, name)), None, None).unwrap();
        context.set_iv_length(12).unwrap();
        let mut wrong = tag.clone();
        wrong[0] ^= 1;
        context.set_tag(&wrong).unwrap();
        context.decrypt_init(None, Some(KEY), Some(&[1; 12])).unwrap();
        let mut out = Vec::new();
        let refused = context.cipher_update_vec(&text, &mut out).and_then(|_| context.cipher_final_vec(&mut out));
        assert!(refused.is_err(), "{name}");
        if ccm {
            assert!(out.iter().all(|byte| *byte == 0), "a refused message is shown");
        } else {
            assert!(context.cipher_update_vec(&text, &mut Vec::new()).is_err(), "{name}");
        }
        assert!(context.cipher_final_vec(&mut Vec::new()).is_err(), "{name}: accepted at the second call");
        drop(openssl::error::ErrorStack::get());

        let (text, tag) = seal(&[2; 12]);
        context.set_tag(&tag).unwrap();
        context.decrypt_init(None, None, Some(&[2; 12])).unwrap();
        let mut out = Vec::new();
        context.cipher_update_vec(&text, &mut out).unwrap();
        context.cipher_final_vec(&mut out).unwrap();
        assert_eq!(out, b"a message of 24 bytes...", "{name}");
    }
}

/// Padding of 1 to 16 bytes that is wrong in one of them, of none, and of more than a block.
#[test]
fn wrong_padding_of_a_message_is_refused() {
    for padding in 0..=255u8 {
        for wrong in [0usize, 1, 7, 15] {
            let mut block = [padding; 16];
            block[..16 - usize::from(padding).clamp(1, 16)].fill(0xaa);
            if wrong > 0 && wrong < usize::from(padding) && padding <= 16 {
                block[15 - wrong] ^= 1;
            } else if wrong > 0 {
                continue;
            }
            let mut context = encrypting(THEIRS, "SM4-CBC", &[9; 16]);
            context.set_padding(false);
            let (cipher, _) = finish(context, &[[7; 16], block].concat(), false);
            let mut context = CipherCtx::new().unwrap();
            context.decrypt_init(Some(&fetch(OURS, "SM4-CBC")), Some(KEY), Some(&[9; 16])).unwrap();
            let mut out = Vec::new();
            context.cipher_update_vec(&cipher, &mut out).unwrap();
            let good = context.cipher_final_vec(&mut out).is_ok();
            assert_eq!(good, (1..=16).contains(&padding) && wrong == 0, "padding {padding}, wrong {wrong}");
        }
    }
    drop(openssl::error::ErrorStack::get());
}

/// Output that runs into input not read yet would spoil it.
#[test]
fn buffers_that_overlap_in_part_are_refused() {
    use openssl::foreign_types::ForeignType;
    for (name, iv) in [("SM4-GCM", 12), ("SM4-CTR", 16), ("SM4-CBC", 16)] {
        for (from, to) in [(0, 1), (1, 0), (0, 63), (63, 0)] {
            let context = encrypting(OURS, name, &noise(iv));
            let (mut buffer, mut length) = (noise(160), 0);
            let start = buffer.as_mut_ptr();
            // SAFETY: both ranges lie in the buffer, and the cipher either refuses them or writes 64 bytes.
            let done = unsafe {
                openssl_sys::EVP_CipherUpdate(context.as_ptr(), start.add(to), &raw mut length, start.add(from), 64)
            };
            assert_eq!((done, &buffer), (0, &noise(160)), "{name}, from {from} to {to}");
        }
    }
    drop(openssl::error::ErrorStack::get());
}

#[test]
fn a_digest_that_was_left_unfinished_leaves_nothing_to_the_next() {
    use openssl::{md::Md, md_ctx::MdCtx};
    start();
    let (ours, theirs) = (Md::fetch(None, "SM3", Some(OURS)).unwrap(), Md::fetch(None, "SM3", Some(THEIRS)).unwrap());
    let (mut context, mut digests) = (MdCtx::new().unwrap(), [[0; 32]; 2]);
    context.digest_init(&ours).unwrap();
    context.digest_update(b"left unfinished").unwrap();
    for (md, digest) in [&ours, &theirs].into_iter().zip(&mut digests) {
        context.digest_init(md).unwrap();
        context.digest_update(b"message").unwrap();
        context.digest_final(digest).unwrap();
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_was_left_of_a_message_is_no_part_of_the_next() {
    for name in ["SM4-CBC", "SM4-CTR"] {
        let mut context = encrypting(OURS, name, &[9; 16]);
        context.cipher_update_vec(b"begun", &mut Vec::new()).unwrap();
        context.encrypt_init(None, None, Some(&[8; 16])).unwrap();
        let expected = finish(encrypting(THEIRS, name, &[8; 16]), b"another message", false);
        assert_eq!(finish(context, b"another message", false), expected, "{name}");
    }
}

#[test]
fn another_length_of_iv_asks_for_another_iv() {
    let mut context = encrypting(OURS, "SM4-GCM", &[1; 12]);
    context.set_iv_length(16).unwrap();
    assert!(context.cipher_update_vec(b"message", &mut Vec::new()).is_err());
    context.encrypt_init(None, None, Some(&[2; 16])).unwrap();
    assert!(context.cipher_update_vec(b"message", &mut Vec::new()).is_ok());
    drop(openssl::error::ErrorStack::get());
}

#[test]
fn who_encrypts_gives_no_tag() {
    let mut context = encrypting(OURS, "SM4-GCM", &[1; 12]);
    assert!(context.set_tag(&[0; 16]).is_err());
    context.cipher_update_vec(b"message", &mut Vec::new()).unwrap();
    assert!(context.tag(&mut [0; 16]).is_err(), "a tag before the end");
    drop(openssl::error::ErrorStack::get());
}

#[test]
fn a_ccm_message_has_the_length_that_was_announced() {
    for (announced, taken) in [(6, false), (7, true), (8, false)] {
        let mut context = CipherCtx::new().unwrap();
        context.encrypt_init(Some(&fetch(OURS, "SM4-CCM")), None, None).unwrap();
        context.set_iv_length(12).unwrap();
        context.set_tag_length(16).unwrap();
        context.encrypt_init(None, Some(KEY), Some(&[1; 12])).unwrap();
        context.set_data_len(announced).unwrap();
        assert_eq!(context.cipher_update_vec(b"message", &mut Vec::new()).is_ok(), taken, "{announced}");
    }
    drop(openssl::error::ErrorStack::get());
}

#[test]
fn there_is_no_iv_to_tell_before_one_was_given() {
    use openssl::foreign_types::ForeignType;
    unsafe extern "C" {
        fn EVP_CIPHER_CTX_get_original_iv(
            context: *mut openssl_sys::EVP_CIPHER_CTX,
            out: *mut std::ffi::c_void,
            length: usize,
        ) -> std::ffi::c_int;
    }
    let mut context = CipherCtx::new().unwrap();
    context.encrypt_init(Some(&fetch(OURS, "SM4-GCM")), Some(KEY), None).unwrap();
    let ask = |context: &CipherCtx| {
        let mut iv = [0u8; 12];
        // SAFETY: the context is live, and the buffer as long as is said.
        let told = unsafe { EVP_CIPHER_CTX_get_original_iv(context.as_ptr(), iv.as_mut_ptr().cast(), iv.len()) };
        (told == 1).then_some(iv)
    };
    assert_eq!(ask(&context), None);
    context.encrypt_init(None, None, Some(&[5; 12])).unwrap();
    assert_eq!(ask(&context), Some([5; 12]));
    drop(openssl::error::ErrorStack::get());
}
