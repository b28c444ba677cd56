//! SM4 and its modes against the library's own, over calls as everybody and over records as TLS drives them.

use openssl::{cipher::Cipher, cipher_ctx::CipherCtx};

use crate::{OURS, THEIRS, harness::noise, start};

const KEY: &[u8; 16] = b"0123456789abcdef";

fn cipher(properties: &str, name: &str) -> Cipher {
    start();
    Cipher::fetch(None, name, Some(properties)).unwrap()
}

/// What comes out in all, or `None` where a call fails.
fn run(
    properties: &str,
    name: &str,
    encrypt: bool,
    iv: Option<&[u8]>,
    data: &[u8],
    cuts: &[usize],
    padding: bool,
) -> Option<Vec<u8>> {
    let (cipher, mut context) = (cipher(properties, name), CipherCtx::new().unwrap());
    if encrypt {
        context.encrypt_init(Some(&cipher), Some(KEY), iv).unwrap();
    } else {
        context.decrypt_init(Some(&cipher), Some(KEY), iv).unwrap();
    }
    context.set_padding(padding);
    let mut out = Vec::new();
    let mut rest = data;
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (now, later) = rest.split_at(cut.min(rest.len()));
        context.cipher_update_vec(now, &mut out).ok()?;
        rest = later;
    }
    context.cipher_final_vec(&mut out).ok()?;
    Some(out)
}

const CUTS: [&[usize]; 6] = [&[], &[1], &[15, 1], &[16, 16, 5], &[17, 30, 1, 1], &[7, 200]];

#[test]
fn blocks_chained_blocks_and_counters_are_the_librarys_in_all_pieces() {
    let iv = noise(16);
    for name in ["SM4-ECB", "SM4-CBC", "SM4-CTR"] {
        let iv = (name != "SM4-ECB").then_some(&iv[..]);
        for padding in [true, false] {
            for length in (0..70).chain([127, 128, 255, 256, 257, 1024, 4096]) {
                let data = noise(length);
                let ciphertext = run(THEIRS, name, true, iv, &data, &[], padding);
                for cuts in CUTS {
                    let ours = run(OURS, name, true, iv, &data, cuts, padding);
                    assert!(ours == ciphertext, "{name}, {length} bytes, {cuts:?}, padding {padding}");
                    // Any bytes are a ciphertext, mostly with bad padding or not whole blocks.
                    for text in [ciphertext.as_ref(), Some(&data)].into_iter().flatten() {
                        let theirs = run(THEIRS, name, false, iv, text, cuts, padding);
                        let ours = run(OURS, name, false, iv, text, cuts, padding);
                        assert!(ours == theirs, "{name}, decrypted {length} bytes, {cuts:?}, padding {padding}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_counter_carries_through_the_whole_block() {
    for iv in [[0xff; 16], *b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xfe"] {
        let data = noise(200);
        assert_eq!(
            run(OURS, "SM4-CTR", true, Some(&iv), &data, &[33], true),
            run(THEIRS, "SM4-CTR", true, Some(&iv), &data, &[], true)
        );
    }
}

/// A sealed message and its tag.
fn seal(properties: &str, name: &str, iv: &[u8], aad: &[u8], data: &[u8], tag: usize) -> (Vec<u8>, Vec<u8>) {
    let (cipher, mut context) = (cipher(properties, name), CipherCtx::new().unwrap());
    let ccm = name == "SM4-CCM";
    context.encrypt_init(Some(&cipher), None, None).unwrap();
    context.set_iv_length(iv.len()).unwrap();
    if ccm {
        context.set_tag_length(tag).unwrap();
    }
    context.encrypt_init(None, Some(KEY), Some(iv)).unwrap();
    if ccm {
        context.set_data_len(data.len()).unwrap();
    }
    context.cipher_update(aad, None).unwrap();
    let mut out = Vec::new();
    context.cipher_update_vec(data, &mut out).unwrap();
    context.cipher_final_vec(&mut out).unwrap();
    let mut made = vec![0; tag];
    context.tag(&mut made).unwrap();
    (out, made)
}

fn open(properties: &str, name: &str, iv: &[u8], aad: &[u8], data: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let (cipher, mut context) = (cipher(properties, name), CipherCtx::new().unwrap());
    context.decrypt_init(Some(&cipher), None, None).unwrap();
    context.set_iv_length(iv.len()).unwrap();
    context.set_tag(tag).unwrap();
    context.decrypt_init(None, Some(KEY), Some(iv)).unwrap();
    if name == "SM4-CCM" {
        context.set_data_len(data.len()).unwrap();
    }
    context.cipher_update(aad, None).unwrap();
    let mut out = Vec::new();
    context.cipher_update_vec(data, &mut out).ok()?;
    context.cipher_final_vec(&mut out).ok()?;
    Some(out)
}

#[test]
fn authenticated_messages_are_the_librarys_and_changed_ones_are_refused() {
    for (name, nonces, tags) in
        [("SM4-GCM", &[12, 8, 16, 60][..], &[16, 12][..]), ("SM4-CCM", &[12, 7, 13], &[16, 8, 4])]
    {
        for (nonce, tag) in nonces.iter().flat_map(|nonce| tags.iter().map(move |tag| (*nonce, *tag))) {
            let iv = noise(nonce);
            for length in [0, 1, 15, 16, 17, 64, 255, 256, 257, 1000, 4096, 16_384] {
                for aad in [0, 5, 13, 16, 100] {
                    let (data, aad) = (noise(length), noise(aad));
                    let ours = seal(OURS, name, &iv, &aad, &data, tag);
                    assert!(
                        ours == seal(THEIRS, name, &iv, &aad, &data, tag),
                        "{name}, nonce {nonce}, tag {tag}, {length} bytes, {} before",
                        aad.len()
                    );
                    let (ciphertext, made) = ours;
                    assert_eq!(open(OURS, name, &iv, &aad, &ciphertext, &made).as_ref(), Some(&data));
                    let mut wrong = made.clone();
                    wrong[tag - 1] ^= 1;
                    let mut other = aad.clone();
                    other.push(0);
                    for properties in [OURS, THEIRS] {
                        assert_eq!(open(properties, name, &iv, &aad, &ciphertext, &wrong), None);
                        assert_eq!(open(properties, name, &iv, &other, &ciphertext, &made), None);
                    }
                }
            }
        }
    }
}

#[test]
fn a_nonce_serves_one_message_only() {
    for properties in [OURS, THEIRS] {
        let mut context = CipherCtx::new().unwrap();
        context.encrypt_init(Some(&cipher(properties, "SM4-GCM")), Some(KEY), Some(&[1; 12])).unwrap();
        let mut out = Vec::new();
        context.cipher_update_vec(b"first", &mut out).unwrap();
        context.cipher_final_vec(&mut out).unwrap();
        assert!(context.cipher_update_vec(b"second", &mut out).is_err(), "{properties}");
    }
}

mod record {
    //! Records, by the controls that libssl uses.

    use std::ffi::{c_int, c_uint, c_void};

    use openssl::foreign_types::ForeignType;

    use super::*;

    unsafe extern "C" {
        fn EVP_CIPHER_CTX_ctrl(
            context: *mut openssl_sys::EVP_CIPHER_CTX,
            kind: c_int,
            number: c_int,
            pointer: *mut c_void,
        ) -> c_int;
        fn EVP_CipherUpdate(
            context: *mut openssl_sys::EVP_CIPHER_CTX,
            out: *mut u8,
            out_length: *mut c_int,
            data: *const u8,
            length: c_int,
        ) -> c_int;
        fn EVP_CIPHER_CTX_set_params(context: *mut openssl_sys::EVP_CIPHER_CTX, params: *const Param) -> c_int;
        fn EVP_CIPHER_CTX_get_params(context: *mut openssl_sys::EVP_CIPHER_CTX, params: *mut Param) -> c_int;
        fn OSSL_PARAM_construct_uint(key: *const i8, value: *mut c_uint) -> Param;
        fn OSSL_PARAM_construct_size_t(key: *const i8, value: *mut usize) -> Param;
        fn OSSL_PARAM_construct_octet_ptr(key: *const i8, value: *mut *mut c_void, length: usize) -> Param;
        fn OSSL_PARAM_construct_end() -> Param;
    }

    #[repr(C)]
    struct Param {
        key: *const i8,
        kind: c_uint,
        data: *mut c_void,
        size: usize,
        returned: usize,
    }

    const AEAD_SET_IVLEN: c_int = 0x09;
    const AEAD_SET_TAG: c_int = 0x11;
    const AEAD_SET_IV_FIXED: c_int = 0x12;
    const AEAD_TLS1_AAD: c_int = 0x16;

    /// One side of a connection.
    struct Side(CipherCtx);

    impl Side {
        fn aead(properties: &str, name: &str, encrypt: bool) -> Side {
            let (cipher, mut context) = (cipher(properties, name), CipherCtx::new().unwrap());
            let start = |context: &mut CipherCtx, key: Option<&[u8]>, cipher: Option<&Cipher>| {
                let cipher = cipher.map(|cipher| &**cipher);
                if encrypt {
                    context.encrypt_init(cipher, key, None).unwrap();
                } else {
                    context.decrypt_init(cipher, key, None).unwrap();
                }
            };
            if name == "SM4-CCM" {
                start(&mut context, None, Some(&cipher));
                control(&context, AEAD_SET_IVLEN, 12, std::ptr::null_mut());
                control(&context, AEAD_SET_TAG, 16, std::ptr::null_mut());
                control(&context, AEAD_SET_IV_FIXED, 4, b"salt".as_ptr().cast_mut().cast());
                start(&mut context, Some(KEY), None);
            } else {
                start(&mut context, Some(KEY), Some(&cipher));
                control(&context, AEAD_SET_IV_FIXED, 4, b"salt".as_ptr().cast_mut().cast());
            }
            Side(context)
        }

        /// A record in place; how long what came out is, or `None`.
        fn aead_record(&self, number: u64, record: &mut Vec<u8>, encrypt: bool) -> Option<usize> {
            let length = u16::try_from(record.len()).unwrap();
            let mut header = [&number.to_be_bytes()[..], &[23, 1, 1], &length.to_be_bytes()].concat();
            let pad = control(&self.0, AEAD_TLS1_AAD, 13, header.as_mut_ptr().cast());
            assert_eq!(pad, 16);
            if encrypt {
                record.resize(record.len() + 16, 0);
            }
            self.in_place(record)
        }

        fn in_place(&self, record: &mut Vec<u8>) -> Option<usize> {
            let (length, mut out) = (c_int::try_from(record.len()).unwrap(), 0);
            // SAFETY: the buffer has the length that is passed.
            let done = unsafe {
                EVP_CipherUpdate(self.0.as_ptr(), record.as_mut_ptr(), &raw mut out, record.as_ptr(), length)
            };
            drop(openssl::error::ErrorStack::get());
            (done == 1).then(|| usize::try_from(out).unwrap())
        }

        /// Whether a version of the protocol is taken.
        fn takes(properties: &str, version: c_uint) -> bool {
            let (cipher, mut context, mut version) =
                (cipher(properties, "SM4-CBC"), CipherCtx::new().unwrap(), version);
            context.encrypt_init(Some(&cipher), Some(KEY), Some(&[9; 16])).unwrap();
            // SAFETY: the list and its value outlive the call.
            let done = unsafe {
                let params =
                    [OSSL_PARAM_construct_uint(c"tls-version".as_ptr(), &raw mut version), OSSL_PARAM_construct_end()];
                EVP_CIPHER_CTX_set_params(context.as_ptr(), params.as_ptr())
            };
            drop(openssl::error::ErrorStack::get());
            done == 1
        }

        fn chained(properties: &str, encrypt: bool) -> Side {
            let (cipher, mut context) = (cipher(properties, "SM4-CBC"), CipherCtx::new().unwrap());
            if encrypt {
                context.encrypt_init(Some(&cipher), Some(KEY), Some(&[9; 16])).unwrap();
            } else {
                context.decrypt_init(Some(&cipher), Some(KEY), Some(&[9; 16])).unwrap();
            }
            let (mut version, mut mac) = (0x0101, 32);
            // SAFETY: the list and its values outlive the call.
            unsafe {
                let params = [
                    OSSL_PARAM_construct_uint(c"tls-version".as_ptr(), &raw mut version),
                    OSSL_PARAM_construct_size_t(c"tls-mac-size".as_ptr(), &raw mut mac),
                    OSSL_PARAM_construct_end(),
                ];
                assert_eq!(EVP_CIPHER_CTX_set_params(context.as_ptr(), params.as_ptr()), 1);
            }
            Side(context)
        }

        /// A record in place, which may become longer by its padding.
        fn chained_record(&self, record: &mut Vec<u8>, encrypt: bool) -> Option<()> {
            let (length, mut out) = (c_int::try_from(record.len()).unwrap(), 0);
            if encrypt {
                record.resize(record.len() + 16, 0);
            }
            // SAFETY: the buffer has the length that is passed and, for padding, 16 bytes more.
            let done = unsafe {
                EVP_CipherUpdate(self.0.as_ptr(), record.as_mut_ptr(), &raw mut out, record.as_ptr(), length)
            };
            drop(openssl::error::ErrorStack::get());
            (done == 1).then(|| record.truncate(usize::try_from(out).unwrap()))
        }

        fn mac(&self) -> Vec<u8> {
            let mut mac: *mut c_void = std::ptr::null_mut();
            // SAFETY: the list and its values outlive the call; the cipher answers with 32 bytes of its own.
            unsafe {
                let mut params =
                    [OSSL_PARAM_construct_octet_ptr(c"tls-mac".as_ptr(), &raw mut mac, 32), OSSL_PARAM_construct_end()];
                assert_eq!(EVP_CIPHER_CTX_get_params(self.0.as_ptr(), params.as_mut_ptr()), 1);
                std::slice::from_raw_parts(mac.cast(), 32).to_vec()
            }
        }
    }

    fn control(context: &CipherCtx, kind: c_int, number: c_int, pointer: *mut c_void) -> c_int {
        // SAFETY: the pointers are live for the call.
        let done = unsafe { EVP_CIPHER_CTX_ctrl(context.as_ptr(), kind, number, pointer) };
        assert!(done > 0, "control {kind:#x}");
        done
    }

    #[test]
    fn authenticated_records_go_between_the_library_and_us() {
        for name in ["SM4-GCM", "SM4-CCM"] {
            for (writer, reader) in [(OURS, THEIRS), (THEIRS, OURS), (OURS, OURS)] {
                let (write, read) = (Side::aead(writer, name, true), Side::aead(reader, name, false));
                let mut nonces = Vec::new();
                for (number, length) in (0u64..).zip([0, 1, 15, 16, 300, 16_384, 5, 0]) {
                    let text = noise(length);
                    // Eight bytes of room for the explicit nonce.
                    let mut record = [&[0; 8][..], &text].concat();
                    write.aead_record(number, &mut record, true).unwrap();
                    assert_eq!(record.len(), 8 + length + 16);
                    nonces.push(record[..8].to_vec());
                    assert_eq!(read.aead_record(number, &mut record, false), Some(length));
                    assert!(record[8..8 + length] == text, "{name} {writer} to {reader}");
                }
                nonces.sort();
                nonces.dedup();
                assert_eq!(nonces.len(), 8, "{name} by {writer}: a nonce came twice");
            }
        }
    }

    /// The number of a record is in its header: a second record would have the nonce of the first.
    #[test]
    fn a_header_serves_one_record() {
        for name in ["SM4-GCM", "SM4-CCM"] {
            let write = Side::aead(OURS, name, true);
            let mut record = [&[0; 8][..], &noise(32)].concat();
            write.aead_record(0, &mut record, true).unwrap();
            assert_eq!(write.in_place(&mut record.clone()), None, "{name}");
            record.truncate(40);
            assert!(write.aead_record(1, &mut record, true).is_some(), "{name}");
        }
    }

    /// Not SSL 3, nor TLS 1.3, nor what there is not.
    #[test]
    fn chained_records_have_a_version_that_knows_them() {
        for (version, taken) in
            [(0x0101, true), (0x0301, true), (0x0303, true), (0x0300, false), (0x0304, false), (7, false)]
        {
            assert_eq!(Side::takes(OURS, version), taken, "{version:#x}");
        }
    }

    #[test]
    fn changed_records_are_refused() {
        for name in ["SM4-GCM", "SM4-CCM"] {
            for at in [0, 7, 8, 20, 40, 55] {
                let (write, read) = (Side::aead(THEIRS, name, true), Side::aead(OURS, name, false));
                let mut record = [&[0; 8][..], &noise(32)].concat();
                write.aead_record(0, &mut record, true).unwrap();
                record[at] ^= 1;
                assert_eq!(read.aead_record(0, &mut record, false), None, "{name}, byte {at}");
            }
            let (write, read) = (Side::aead(THEIRS, name, true), Side::aead(OURS, name, false));
            let mut record = [&[0; 8][..], &noise(32)].concat();
            write.aead_record(0, &mut record, true).unwrap();
            assert_eq!(read.aead_record(1, &mut record, false), None, "{name}: another number");
        }
    }

    #[test]
    fn chained_records_go_between_the_library_and_us_with_their_macs() {
        for (writer, reader) in [(OURS, THEIRS), (THEIRS, OURS), (OURS, OURS)] {
            let (write, read) = (Side::chained(writer, true), Side::chained(reader, false));
            for length in (0..50).chain([255, 256, 1000, 16_384]) {
                // An IV, text and MAC, as the record layer lays them out.
                let (text, mac) = (noise(length), noise(length + 32)[length..].to_vec());
                let mut record = [&noise(16)[..], &text, &mac].concat();
                write.chained_record(&mut record, true).unwrap();
                assert_eq!(record.len() % 16, 0);
                read.chained_record(&mut record, false).unwrap();
                assert_eq!(record.len(), length, "{writer} to {reader}");
                assert_eq!(read.mac(), mac, "{writer} to {reader}, {length} bytes");
            }
        }
    }

    #[test]
    fn bad_padding_gives_a_random_mac_and_no_error() {
        for reader in [OURS, THEIRS] {
            let mut macs = Vec::new();
            for _ in 0..2 {
                let read = Side::chained(reader, false);
                // Random blocks have bad padding but for one in hundreds; these have.
                let mut record = vec![0x5a; 160];
                read.chained_record(&mut record, false).unwrap();
                assert_eq!(record.len(), 160 - 16 - 32, "{reader}");
                macs.push(read.mac());
            }
            assert_ne!(macs[0], macs[1], "{reader}: not random");
            let read = Side::chained(reader, false);
            assert_eq!(read.chained_record(&mut vec![0; 40], false), None, "{reader}: not whole blocks");
            assert_eq!(read.chained_record(&mut vec![0; 32], false), None, "{reader}: no room for a MAC");
        }
    }
}
