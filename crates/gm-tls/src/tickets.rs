//! Keys of session tickets, which outlive the contexts that use them: a reload takes no client its session, and nodes with one seed
//! take each other's tickets.
//!
//! A key serves for one period and opens tickets for some more. It is made from the seed and the number of its period, so that all that
//! have the seed and the time have the key. Tickets of RFC 8998 are protected by SM4 and SM3, those of TLS by AES and SHA-256.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::cipher::{Cipher, CipherRef};
use openssl::error::ErrorStack;
use openssl::foreign_types::ForeignTypeRef;
use openssl::hash::MessageDigest;
use openssl::mac_ctx::MacCtxRef;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;
use openssl::ssl::{SslContextBuilder, TicketKeyStatus};
use zeroize::Zeroizing;

use crate::key::Password;
use crate::server::ContextKind;

/// Shortest seed.
pub const MIN_SEED_BYTES: usize = 16;
/// How long a key makes tickets.
const PERIOD_SECS: u64 = 3600;
/// Length of a ticket key's name, RFC 5077 section 4.
const NAME_LEN: usize = 16;

/// The seed of all keys. Clones share it.
#[derive(Clone)]
pub struct TicketKeys {
    seed: Arc<Zeroizing<Vec<u8>>>,
    clock: fn() -> u64,
}

impl TicketKeys {
    /// Keys of this process alone.
    ///
    /// # Errors
    /// The random generator failed.
    pub fn random() -> Result<TicketKeys, ErrorStack> {
        crate::init();
        let mut seed = Zeroizing::new(vec![0; 32]);
        rand_bytes(&mut seed)?;
        Ok(TicketKeys::from_seed(seed))
    }

    /// Keys that every node with this seed has, of at least [`MIN_SEED_BYTES`].
    pub fn from_seed(seed: Zeroizing<Vec<u8>>) -> TicketKeys {
        TicketKeys { seed: Arc::new(seed), clock: unix_seconds }
    }

    /// As [`from_seed`](Self::from_seed), from a secret of the configuration; `None` when it is too short.
    pub fn from_secret(secret: &Password) -> Option<TicketKeys> {
        let seed = secret.bytes();
        (seed.len() >= MIN_SEED_BYTES).then(|| TicketKeys::from_seed(Zeroizing::new(seed.to_vec())))
    }

    /// With another clock, for tests.
    #[doc(hidden)]
    pub fn with_clock(self, clock: fn() -> u64) -> TicketKeys {
        TicketKeys { clock, ..self }
    }

    /// Makes a context protect its tickets by these keys and accept those of the last `lifetime_secs`.
    pub(crate) fn install(
        &self,
        context: &mut SslContextBuilder,
        kind: ContextKind,
        lifetime_secs: u32,
    ) -> Result<(), ErrorStack> {
        let keys = self.clone();
        let periods = u64::from(lifetime_secs).div_ceil(PERIOD_SECS);
        context.set_ticket_key_evp_callback(move |_, name, iv, cipher, mac, sealing| {
            let current = (keys.clock)() / PERIOD_SECS;
            if sealing {
                let key = keys.of_period(current, kind)?;
                copy(name, &key.name);
                let length = key.cipher().iv_length();
                let iv = iv.get_mut(..length).ok_or_else(ErrorStack::get)?;
                rand_bytes(iv)?;
                cipher.encrypt_init(Some(key.cipher()), Some(&key.seal), Some(iv))?;
                init_mac(mac, &key)?;
                return Ok(TicketKeyStatus::SUCCESS);
            }
            // Another node's clock may be a little ahead.
            let first = current.saturating_sub(periods);
            for period in (first..=current.saturating_add(1)).rev() {
                let key = keys.of_period(period, kind)?;
                if key.name != *name {
                    continue;
                }
                let iv = iv.get(..key.cipher().iv_length()).ok_or_else(ErrorStack::get)?;
                init_mac(mac, &key)?;
                cipher.decrypt_init(Some(key.cipher()), Some(&key.seal), Some(iv))?;
                let renew = period < current;
                return Ok(if renew { TicketKeyStatus::SUCCESS_AND_RENEW } else { TicketKeyStatus::SUCCESS });
            }
            Ok(TicketKeyStatus::FAILED)
        })
    }

    fn of_period(&self, period: u64, kind: ContextKind) -> Result<Key, ErrorStack> {
        let gm = kind != ContextKind::Tls;
        let part = |label: &str, length: usize| {
            let key = PKey::hmac(&self.seed)?;
            let mut signer = Signer::new(if gm { MessageDigest::sm3() } else { MessageDigest::sha256() }, &key)?;
            signer.update(b"shangmq session ticket ")?;
            signer.update(label.as_bytes())?;
            signer.update(&[0])?;
            signer.update(&period.to_be_bytes())?;
            let mut bytes = Zeroizing::new(signer.sign_to_vec()?);
            bytes.truncate(length);
            Ok::<_, ErrorStack>(bytes)
        };
        let name = part("name", NAME_LEN)?.to_vec();
        Ok(Key { gm, name, seal: part("seal", if gm { 16 } else { 32 })?, mac: part("mac", 32)? })
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

/// The keys of one period.
struct Key {
    gm: bool,
    name: Vec<u8>,
    seal: Zeroizing<Vec<u8>>,
    mac: Zeroizing<Vec<u8>>,
}

impl Key {
    fn cipher(&self) -> &'static CipherRef {
        if self.gm { Cipher::sm4_cbc() } else { Cipher::aes_256_cbc() }
    }

    fn digest(&self) -> &'static CStr {
        if self.gm { c"SM3" } else { c"SHA256" }
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

fn init_mac(mac: &mut MacCtxRef, key: &Key) -> Result<(), ErrorStack> {
    let digest = key.digest();
    // SAFETY: the parameters point to the key and to a static string, both of which outlive the call; the library copies what it keeps.
    let done = unsafe {
        let parameters = [
            openssl_sys::OSSL_PARAM_construct_octet_string(
                c"key".as_ptr(),
                key.mac.as_ptr().cast_mut().cast(),
                key.mac.len(),
            ),
            openssl_sys::OSSL_PARAM_construct_utf8_string(
                c"digest".as_ptr(),
                digest.as_ptr().cast_mut(),
                digest.to_bytes().len(),
            ),
            openssl_sys::OSSL_PARAM_construct_end(),
        ];
        openssl_sys::EVP_MAC_CTX_set_params(mac.as_ptr(), parameters.as_ptr())
    };
    if done == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
