//! Known answers and consistency of pairs, asked of the accelerated provider by its name or its property before anything else may use it.

use std::ptr;

use openssl::{cipher::Cipher, cipher_ctx::CipherCtx, md::Md, md_ctx::MdCtx};
use sm_accel::{
    sm2::{
        self, Ciphertext, SecretKey, Signature,
        exchange::{self, Own, Peer, Role},
    },
    sm3::{Backend as Sm3Backend, Sm3},
    sm4::{Backend as Sm4Backend, Cbc, Ctr, Gcm, Key},
};

use super::{ProviderError, ffi, param::Param, table::GM_PROPERTIES};

/// Only the provider under test may answer.
pub(super) const OURS: &str = "provider=shangmq-accel";

/// Falsifies what a self-test compares, to prove that it would be noticed.
#[doc(hidden)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sabotage {
    test: Option<String>,
}

impl Sabotage {
    pub fn of(test: &str) -> Sabotage {
        Sabotage { test: Some(test.to_owned()) }
    }

    /// Builds with debug assertions take the name of a test from `GM_TLS_SABOTAGE_SELF_TEST`; others are never told.
    #[cfg(debug_assertions)]
    pub(super) fn from_environment() -> Sabotage {
        Sabotage { test: std::env::var("GM_TLS_SABOTAGE_SELF_TEST").ok() }
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn from_environment() -> Sabotage {
        Sabotage::default()
    }

    fn hits(&self, test: &str) -> bool {
        self.test.as_deref() == Some(test)
    }
}

/// A test: its name, and what it found. Those that compare take the falsehood as a mask of the answer's first byte.
type Test = (&'static str, fn(mask: u8) -> Option<bool>);

static TESTS: &[Test] = &[
    ("SM3", sm3),
    ("HMAC-SM3", hmac),
    ("TLS1-PRF", prf),
    ("SM4-ECB", sm4_ecb),
    ("SM4-CBC", sm4_cbc),
    ("SM4-CTR", sm4_ctr),
    ("SM4-GCM", sm4_gcm),
    ("SM4-CCM", sm4_ccm),
    ("long messages", long_messages),
    ("SM2 signature", sm2_signature),
    ("SM2 verification", sm2_verification),
    ("SM2 decryption", sm2_decryption),
    ("SM2 key agreement", sm2_agreement),
    ("SM2 consistency", sm2_consistency),
];

/// Names of all tests, in order.
#[doc(hidden)]
pub fn names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|(name, _)| *name)
}

pub(super) fn run(sabotage: &Sabotage) -> Result<(), ProviderError> {
    for (name, test) in TESTS {
        let mask = u8::from(sabotage.hits(name));
        if test(mask) != Some(true) {
            return Err(ProviderError::SelfTest { test: name });
        }
    }
    Ok(())
}

/// Whether an answer is the expected one.
fn same(found: &[u8], expected: &[u8], mask: u8) -> bool {
    let mut found = found.to_vec();
    if let Some(first) = found.first_mut() {
        *first ^= mask;
    }
    found == expected
}

/// Bytes from digits and spaces.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u32> = text.chars().filter(|one| *one != ' ').map(|one| one.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.as_chunks().0.iter().map(|[high, low]| (high << 4 | low) as u8).collect();
    bytes.try_into().ok()
}

/// GB/T 32905-2016, example 1.
fn sm3(mask: u8) -> Option<bool> {
    let expected: [u8; 32] = hex("66c7f0f4 62eeedd9 d1f2d46b dc10e4e2 4167c487 5cf2f7a2 297da02b 8f4ba8e0")?;
    Some(same(&digest(b"abc")?, &expected, mask))
}

fn digest(message: &[u8]) -> Option<[u8; 32]> {
    let sm3 = Md::fetch(None, "SM3", Some(OURS)).ok()?;
    let mut context = MdCtx::new().ok()?;
    let mut digest = [0; 32];
    context.digest_init(&sm3).ok()?;
    context.digest_update(message).ok()?;
    context.digest_final(&mut digest).ok()?;
    Some(digest)
}

/// As OpenSSL gives it.
fn hmac(mask: u8) -> Option<bool> {
    let expected: [u8; 32] = hex("220bf579 ded55539 3f0159f6 6c998778 22a3ecf6 10d15521 54b41d44 b94db3ae")?;
    let key: [u8; 37] = std::array::from_fn(|at| at as u8 + 1);
    let (mut code, mut length) = ([0; 32], 0);
    let params = [Param::with_text(c"digest", c"SM3"), Param::END];
    // SAFETY: all pointers are live for the calls, with the sizes of their buffers; null is the default library context, and a null
    // method or context is refused or ignored by each function.
    let done = unsafe {
        let method = ffi::EVP_MAC_fetch(ptr::null_mut(), c"HMAC".as_ptr(), GM_PROPERTIES.as_ptr());
        let context = ffi::EVP_MAC_CTX_new(method);
        ffi::EVP_MAC_free(method);
        let done = !context.is_null()
            && ffi::EVP_MAC_init(context, key.as_ptr(), key.len(), params.as_ptr()) == 1
            && ffi::EVP_MAC_update(context, [0xcd; 50].as_ptr(), 50) == 1
            && ffi::EVP_MAC_final(context, code.as_mut_ptr(), &mut length, code.len()) == 1;
        ffi::EVP_MAC_CTX_free(context);
        done
    };
    Some(done && length == code.len() && same(&code, &expected, mask))
}

/// A master secret, as OpenSSL's HMAC with SM3 gives it by the definition of RFC 5246, section 5.
fn prf(mask: u8) -> Option<bool> {
    let expected: [u8; 48] = hex(
        "0136afc1 1c90f0ed e6f4de2d 45a7ab36 f02f9e28 3bbb1d9b 561ab13b a8ce25da 3fc6d735 18d06832 2ad99cbf dc7d4847",
    )?;
    let (secret, seed): ([u8; 48], [u8; 64]) = (std::array::from_fn(|at| at as u8), std::array::from_fn(|at| at as u8));
    let mut found = [0; 48];
    let params = [
        Param::with_text(c"digest", c"SM3"),
        Param::with_octets(c"secret", &secret),
        Param::with_octets(c"seed", b"master secret"),
        Param::with_octets(c"seed", &seed),
        Param::END,
    ];
    // SAFETY: as for `hmac`.
    let done = unsafe {
        let method = ffi::EVP_KDF_fetch(ptr::null_mut(), c"TLS1-PRF".as_ptr(), GM_PROPERTIES.as_ptr());
        let context = ffi::EVP_KDF_CTX_new(method);
        ffi::EVP_KDF_free(method);
        let done =
            !context.is_null() && ffi::EVP_KDF_derive(context, found.as_mut_ptr(), found.len(), params.as_ptr()) == 1;
        ffi::EVP_KDF_CTX_free(context);
        done
    };
    Some(done && same(&found, &expected, mask))
}

/// The key of GB/T 32907-2016, annex A, and of RFC 8998, annex A.
const SM4_KEY: &str = "01234567 89ABCDEF FEDCBA98 76543210";

/// Encrypts by the provider and takes it back.
fn both_ways(name: &str, iv: Option<&str>, plaintext: &[u8], ciphertext: &[u8], mask: u8) -> Option<bool> {
    let cipher = Cipher::fetch(None, name, Some(OURS)).ok()?;
    let (key, iv): ([u8; 16], Option<[u8; 16]>) = (hex(SM4_KEY)?, iv.and_then(hex));
    let iv = iv.as_ref().map(|iv| iv.as_slice());
    let mut context = CipherCtx::new().ok()?;
    let (mut there, mut back) = (Vec::new(), Vec::new());
    context.encrypt_init(Some(&cipher), Some(&key), iv).ok()?;
    context.set_padding(false);
    context.cipher_update_vec(plaintext, &mut there).ok()?;
    context.cipher_final_vec(&mut there).ok()?;
    context.decrypt_init(Some(&cipher), Some(&key), iv).ok()?;
    context.cipher_update_vec(&there, &mut back).ok()?;
    context.cipher_final_vec(&mut back).ok()?;
    Some(same(&there, ciphertext, mask) && back == plaintext)
}

/// GB/T 32907-2016, annex A.1.
fn sm4_ecb(mask: u8) -> Option<bool> {
    let expected: [u8; 16] = hex("681EDF34 D206965E 86B3E94F 536E4246")?;
    both_ways("SM4-ECB", None, &hex::<16>(SM4_KEY)?, &expected, mask)
}

/// The plaintext and IV of the examples in draft-ribose-cfrg-sm4-10, annex A.2.
const SM4_TEXT: &str = "AAAAAAAA BBBBBBBB CCCCCCCC DDDDDDDD EEEEEEEE FFFFFFFF AAAAAAAA BBBBBBBB";
const SM4_IV: &str = "00010203 04050607 08090A0B 0C0D0E0F";

/// draft-ribose-cfrg-sm4-10, A.2.2.1.
fn sm4_cbc(mask: u8) -> Option<bool> {
    let expected: [u8; 32] = hex("78EBB11C C40B0A48 312AAEB2 040244CB 4CB70169 51909226 979B0D15 DC6A8F6D")?;
    both_ways("SM4-CBC", Some(SM4_IV), &hex::<32>(SM4_TEXT)?, &expected, mask)
}

/// draft-ribose-cfrg-sm4-10, A.2.5.1.
fn sm4_ctr(mask: u8) -> Option<bool> {
    let plaintext: [u8; 64] = hex("AAAAAAAA AAAAAAAA BBBBBBBB BBBBBBBB CCCCCCCC CCCCCCCC DDDDDDDD DDDDDDDD \
         EEEEEEEE EEEEEEEE FFFFFFFF FFFFFFFF AAAAAAAA AAAAAAAA BBBBBBBB BBBBBBBB")?;
    let expected: [u8; 64] = hex("AC3236CB 970CC207 91364C39 5A1342D1 A3CBC187 8C6F30CD 074CCE38 5CDD70C7 \
         F234BC0E 24C11980 FD1286310 CE37B926 E02FCD0F AA0BAF38 B2933851 D824514")?;
    both_ways("SM4-CTR", Some(SM4_IV), &plaintext, &expected, mask)
}

/// What the other examples do not reach because they are short: several vectors at once, with one to four sets of them and a rest.
/// The answers are those of the plain code, which the other tests of a mode hold to be right.
fn long_messages(mask: u8) -> Option<bool> {
    let (key, iv) = (hex(SM4_KEY)?, hex(SM4_IV)?);
    let plain = || Key::with_backend(&key, Sm4Backend::Portable);
    let mut right = true;
    for length in [272, 528, 784, 1040, 6672] {
        let text: Vec<u8> = (0..length).map(|at: usize| (at ^ at >> 5) as u8).collect();
        let [mut ecb, mut cbc, mut ctr, mut gcm] = [(); 4].map(|()| text.clone());
        plain()?.encrypt_blocks(ecb.as_mut_slice().into());
        Ctr::new(plain()?, &iv).apply(ctr.as_mut_slice().into());
        let tag = Gcm::new(plain()?).seal(&hex::<12>(NONCE)?, &hex::<20>(AAD)?, gcm.as_mut_slice().into()).ok()?;
        right &= both_ways("SM4-ECB", None, &text, &ecb, mask)?
            & both_ways("SM4-CTR", Some(SM4_IV), &text, &ctr, mask)?
            & authenticated("SM4-GCM", &text, &gcm, &tag, mask)?;
        // Plain code takes its time for blocks that are chained.
        if length < 2000 {
            Cbc::new(plain()?, &iv).encrypt(cbc.as_mut_slice().into()).ok()?;
            right &= both_ways("SM4-CBC", Some(SM4_IV), &text, &cbc, mask)?;
        }
        let mut hasher = Sm3::with_backend(Sm3Backend::Portable)?;
        hasher.update(&text);
        right &= same(&digest(&text)?, &hasher.finalize(), mask);
    }
    Some(right)
}

/// RFC 8998, annex A: both modes have one nonce, associated data and plaintext.
const NONCE: &str = "00001234 56780000 0000ABCD";
const AAD: &str = "FEEDFACE DEADBEEF FEEDFACE DEADBEEF ABADDAD2";
const TEXT: &str = "AAAAAAAA AAAAAAAA BBBBBBBB BBBBBBBB CCCCCCCC CCCCCCCC DDDDDDDD DDDDDDDD \
     EEEEEEEE EEEEEEEE FFFFFFFF FFFFFFFF EEEEEEEE EEEEEEEE AAAAAAAA AAAAAAAA";

fn authenticated(name: &str, plaintext: &[u8], ciphertext: &[u8], tag: &[u8; 16], mask: u8) -> Option<bool> {
    let (nonce, aad): ([u8; 12], [u8; 20]) = (hex(NONCE)?, hex(AAD)?);
    let cipher = Cipher::fetch(None, name, Some(OURS)).ok()?;
    let key: [u8; 16] = hex(SM4_KEY)?;
    let ccm = name == "SM4-CCM";
    let mut context = CipherCtx::new().ok()?;
    let (mut there, mut made) = (Vec::new(), [0; 16]);
    context.encrypt_init(Some(&cipher), None, None).ok()?;
    context.set_iv_length(nonce.len()).ok()?;
    if ccm {
        context.set_tag_length(tag.len()).ok()?;
    }
    context.encrypt_init(None, Some(&key), Some(&nonce)).ok()?;
    if ccm {
        context.set_data_len(plaintext.len()).ok()?;
    }
    context.cipher_update(&aad, None).ok()?;
    context.cipher_update_vec(plaintext, &mut there).ok()?;
    context.cipher_final_vec(&mut there).ok()?;
    context.tag(&mut made).ok()?;
    let open = |tag: &[u8]| {
        let (mut context, mut back) = (CipherCtx::new().ok()?, Vec::new());
        context.decrypt_init(Some(&cipher), None, None).ok()?;
        context.set_iv_length(nonce.len()).ok()?;
        context.set_tag(tag).ok()?;
        context.decrypt_init(None, Some(&key), Some(&nonce)).ok()?;
        if ccm {
            context.set_data_len(ciphertext.len()).ok()?;
        }
        context.cipher_update(&aad, None).ok()?;
        context.cipher_update_vec(ciphertext, &mut back).ok()?;
        context.cipher_final_vec(&mut back).ok()?;
        Some(back)
    };
    let mut wrong = *tag;
    wrong[15] ^= 1;
    let refused = open(&wrong).is_none();
    // The library notes the refusal as an error, which is nobody's.
    drop(openssl::error::ErrorStack::get());
    Some(there == ciphertext && same(&made, tag, mask) && open(tag)? == plaintext && refused)
}

/// RFC 8998, A.1.
fn sm4_gcm(mask: u8) -> Option<bool> {
    let ciphertext: [u8; 64] = hex("17F399F0 8C67D5EE 19D0DC99 69C4BB7D 5FD46FD3 75648906 9157B282 BB200735 \
         D82710CA 5C22F0CC FA7CBF93 D496AC15 A56834CB CF98C397 B4024A26 91233B8D")?;
    authenticated("SM4-GCM", &hex::<64>(TEXT)?, &ciphertext, &hex("83DE3541 E4C2B581 77E065A9 BF7B62EC")?, mask)
}

/// RFC 8998, A.2.
fn sm4_ccm(mask: u8) -> Option<bool> {
    let ciphertext: [u8; 64] = hex("48AF9350 1FA62ADB CD414CCE 6034D895 DDA1BF8F 132F0420 98661572 E7483094 \
         FD12E518 CE062C98 ACEE28D9 5DF4416B ED31A2F0 4476C18B B40C84A7 4B97DC5B")?;
    authenticated("SM4-CCM", &hex::<64>(TEXT)?, &ciphertext, &hex("16842D4F A186F56A B3325697 1FA110F4")?, mask)
}

/// The key of the examples of GB/T 32918.5-2017.
fn example_key() -> Option<SecretKey> {
    SecretKey::from_bytes(&hex("3945208F 7B2144B1 3F36E38A C6D39F95 88939369 2860B51A 42FB81EF 4DF7C5B8")?).ok()
}

/// The digest that is signed in annex A: of the name, the key and the message.
fn example_digest(key: &SecretKey) -> Option<[u8; 32]> {
    let mut hasher = Sm3::new();
    hasher.update(&sm2::digest_id(sm2::DEFAULT_ID, key.public_point()).ok()?);
    hasher.update(b"message digest");
    Some(hasher.finalize())
}

/// The digest of annex A of GB/T 32918.5, and a signature of it with a fresh secret number, which must be right and another each time.
fn sm2_signature(mask: u8) -> Option<bool> {
    let expected: [u8; 32] = hex("F0B43E94 BA45ACCA ACE692ED 534382EB 17E6AB5A 19CE7B31 F4486FDF C0D28640")?;
    let key = example_key()?;
    let digest = example_digest(&key)?;
    let (one, two) = (key.sign_digest(&digest).ok()?, key.sign_digest(&digest).ok()?);
    let right = [one, two].iter().all(|signature| key.public_key().verify_digest(&digest, signature));
    Some(right && one != two && same(&digest, &expected, mask))
}

/// The signature of annex A of GB/T 32918.5, with a table for the key and without, and one that is wrong.
fn sm2_verification(mask: u8) -> Option<bool> {
    let mut signature = Signature {
        r: hex("F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3")?,
        s: hex("B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA")?,
    };
    signature.r[0] ^= mask;
    let key = example_key()?;
    let (digest, public) = (example_digest(&key)?, key.public_key());
    let plain = public.verify_digest(&digest, &signature);
    public.prepare();
    let with_table = public.verify_digest(&digest, &signature);
    signature.s[31] ^= 1;
    Some(plain && with_table && !public.verify_digest(&digest, &signature))
}

/// Annex C of GB/T 32918.5, and a ciphertext that was changed.
fn sm2_decryption(mask: u8) -> Option<bool> {
    let ciphertext: [u8; 116] = hex(
        "04 04EBFC71 8E8D1798 62043226 8E77FEB6 415E2EDE 0E073C0F 4F640ECD 2E149A73 E858F9D8 1E5430A5 7B36DAAB 8F950A3C \
         64E6EE6A 63094D99 283AFF76 7E124DF0 59983C18 F809E262 923C53AE C295D303 83B54E39 D609D160 AFCB1908 D0BD8766 \
         21886CA9 89CA9C7D 58087307 CA93092D 651EFA",
    )?;
    let mut ciphertext = Ciphertext::from_bytes(&ciphertext).ok()?;
    let key = example_key()?;
    let plaintext = key.decrypt(&ciphertext).ok()?;
    ciphertext.hash[0] ^= 1;
    Some(key.decrypt(&ciphertext).is_err() && same(&plaintext, b"encryption standard", mask))
}

/// Annex B of GB/T 32918.5.
fn sm2_agreement(mask: u8) -> Option<bool> {
    let secret = |text: &str| SecretKey::from_bytes(&hex(text)?).ok();
    let own = secret("81EB26E9 41BB5AF1 6DF11649 5F906952 72AE2CD6 3D6C4AE1 678418BE 48230029")?;
    let own_short = secret("D4DE1547 4DB74D06 491C440D 305E0124 00990F3E 390C7E87 153C12DB 2EA60BB3")?;
    let peer = secret("78512991 7D45A9EA 5437A593 56B82338 EAADDA6C EB199088 F14AE10D EFA229B5")?;
    let peer_short = secret("7E071248 14B30948 9125EAED 10111316 4EBF0F34 58C5BD88 335C1F9D 596243D6")?;
    let z = |key: &SecretKey| sm2::digest_id(sm2::DEFAULT_ID, key.public_point()).ok();
    let agreed = exchange::agree(
        Role::Initiator,
        &Own { key: &own, ephemeral: &own_short, z: &z(&own)? },
        &Peer { key: peer.public_point(), ephemeral: peer_short.public_point(), z: &z(&peer)? },
    );
    let expected: [u8; 16] = hex("6C893473 54DE2484 C60B4AB1 FDE4C6E5")?;
    Some(same(&agreed.ok()?.key(16), &expected, mask))
}

/// A fresh key: what it signs is verified, what is encrypted for it is decrypted, and both sides of an exchange share the same.
fn sm2_consistency(mask: u8) -> Option<bool> {
    let (one, two) = (sm2::generate_key().ok()?, sm2::generate_key().ok()?);
    let digest = sm_accel::sm3::digest(one.ecdh(two.public_point()).as_slice());
    let signature = one.sign_digest(&digest).ok()?;
    let signed = one.public_key().verify_digest(&digest, &signature);
    let foreign = two.public_key().verify_digest(&digest, &signature);
    let plaintext = two.decrypt(&sm2::encrypt(two.public_point(), &digest).ok()?).ok()?;
    let shared = two.ecdh(one.public_point());
    let same_secret = same(one.ecdh(two.public_point()).as_slice(), shared.as_slice(), mask);
    Some(signed && !foreign && *plaintext == digest && same_secret)
}
