//! SM3 against the library's own.

use openssl::{md::Md, md_ctx::MdCtx};

use crate::{OURS, THEIRS, evp::EVP_MD_CTX_copy_ex, harness::noise, start};

fn sm3(properties: &str, pieces: &[&[u8]]) -> [u8; 32] {
    let mut context = MdCtx::new().unwrap();
    context.digest_init(&Md::fetch(None, "SM3", Some(properties)).unwrap()).unwrap();
    for piece in pieces {
        context.digest_update(piece).unwrap();
    }
    let mut digest = [0; 32];
    assert_eq!(context.digest_final(&mut digest).unwrap(), 32);
    digest
}

#[test]
fn digests_are_the_librarys_for_every_length() {
    start();
    let data = noise(4096);
    for length in (0..300).chain([511, 512, 513, 1023, 4095, 4096]) {
        let data = &data[..length];
        assert_eq!(sm3(OURS, &[data]), sm3(THEIRS, &[data]), "{length} bytes");
    }
}

#[test]
fn digests_are_the_same_in_pieces_and_from_a_copied_context() {
    start();
    let data = noise(300);
    for cut in [0, 1, 63, 64, 65, 128, 299] {
        let (head, tail) = data.split_at(cut);
        assert_eq!(sm3(OURS, &[head, tail]), sm3(THEIRS, &[&data]), "cut at {cut}");

        let mut first = MdCtx::new().unwrap();
        first.digest_init(&Md::fetch(None, "SM3", Some(OURS)).unwrap()).unwrap();
        first.digest_update(head).unwrap();
        let mut second = MdCtx::new().unwrap();
        copy(&mut second, &first);
        first.digest_update(b"something else").unwrap();
        second.digest_update(tail).unwrap();
        let mut digest = [0; 32];
        second.digest_final(&mut digest).unwrap();
        assert_eq!(digest, sm3(THEIRS, &[&data]), "copied at {cut}");
    }
}

fn copy(to: &mut MdCtx, from: &MdCtx) {
    use openssl::foreign_types::ForeignType;
    // SAFETY: both contexts are live.
    assert_eq!(unsafe { EVP_MD_CTX_copy_ex(to.as_ptr(), from.as_ptr()) }, 1);
}
