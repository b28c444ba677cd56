//! SM2 encryption (GB/T 32918.4) in the ASN.1 of GM/T 0009, and the decryption of a premaster secret of TLCP, which never fails.

use std::ffi::{c_int, c_void};

use sm_accel::sm2::{self, Ciphertext};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    key::{KEY_POINTER, Key},
    param::{self, Param},
};

/// Bytes of the premaster secret (GB/T 38636-2020, 6.4.5.8).
const PREMASTER_LENGTH: usize = 48;

#[derive(Clone, Default)]
struct Context {
    /// Boxed, because a pointer to it is handed out by [`KEY_POINTER`].
    key: Box<Key>,
    /// The version that a premaster secret must begin with; 0 while anything is decrypted.
    client_version: u16,
}

impl Context {
    fn begin(&mut self, key: *const c_void, params: *const Param) -> Option<()> {
        self.client_version = 0;
        // SAFETY: a key of this provider, alive during the call.
        *self.key = unsafe { Key::borrow(key) }?.clone();
        // SAFETY: a list of the library, alive during the call.
        self.set(unsafe { param::list(params) })
    }

    fn set(&mut self, params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"digest") {
                param.as_text()?.eq_ignore_ascii_case(b"SM3").then_some(())?;
            } else if param.is(c"tls-client-version") {
                self.client_version = u16::try_from(param.as_number()?).ok()?;
            }
        }
        Some(())
    }

    fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        count::one(Operation::Decrypt);
        self.key.secret.as_ref()?.decrypt_der(ciphertext).ok()
    }

    /// The premaster secret, or 48 random bytes if there is anything wrong with it: a peer learns nothing but that the handshake fails,
    /// which it does later and in any case alike.
    fn premaster(&self, ciphertext: &[u8]) -> Option<Zeroizing<[u8; PREMASTER_LENGTH]>> {
        let mut secret = Zeroizing::new([0; PREMASTER_LENGTH]);
        ffi::random(secret.as_mut())?;
        let found = self.decrypt(ciphertext).unwrap_or_default();
        let good = found.len().ct_eq(&PREMASTER_LENGTH);
        let mut candidate = Zeroizing::new([0; PREMASTER_LENGTH]);
        candidate.iter_mut().zip(found.iter()).for_each(|(to, from)| *to = *from);
        let [major, minor, ..] = *candidate;
        let [wanted_major, wanted_minor] = self.client_version.to_be_bytes();
        let good = good & major.ct_eq(&wanted_major) & minor.ct_eq(&wanted_minor);
        secret.iter_mut().zip(candidate.iter()).for_each(|(to, from)| to.conditional_assign(from, good));
        Some(secret)
    }
}

/// Bytes of the longest ciphertext of so many bytes.
fn ciphertext_length(plaintext: usize) -> Option<usize> {
    const COORDINATE: usize = 2 + 33;
    const HASH: usize = 2 + 32;
    let inner = (2 * COORDINATE + HASH).checked_add(encoded(plaintext)?)?;
    encoded(inner)
}

/// Bytes of a string of DER with its head.
fn encoded(length: usize) -> Option<usize> {
    let head = match length {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        0x1_0000..=0xff_ffff => 5,
        _ => 6,
    };
    length.checked_add(head)
}

pub(super) static SM2: [Dispatch; 12] = dispatch![
    1 => new,
    2 => init,
    3 => encrypt,
    4 => init,
    5 => decrypt,
    6 => ffi::free::<Context>,
    7 => ffi::duplicate::<Context>,
    8 => params,
    9 => gettable_params,
    10 => set_params,
    11 => settable_params,
];

extern "C" fn new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(Context::default())))
}

unsafe extern "C" fn init(context: *mut c_void, key: *const c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call.
    succeeds(|| unsafe { ffi::borrow::<Context>(context) }?.begin(key, params))
}

unsafe extern "C" fn encrypt(
    context: *mut c_void,
    out: *mut u8,
    length: *mut usize,
    size: usize,
    data: *const u8,
    data_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        let (context, out, length, data) = unsafe {
            (
                ffi::borrow::<Context>(context)?,
                ffi::bytes_mut(out, size),
                length.as_mut()?,
                ffi::bytes(data, data_length),
            )
        };
        let Some(out) = out else {
            *length = ciphertext_length(data_length)?;
            return Some(());
        };
        count::one(Operation::Encrypt);
        let ciphertext = sm2::encrypt(context.key.public.as_ref()?.point(), data).ok()?.to_der();
        out.get_mut(..ciphertext.len())?.copy_from_slice(&ciphertext);
        *length = ciphertext.len();
        Some(())
    })
}

unsafe extern "C" fn decrypt(
    context: *mut c_void,
    out: *mut u8,
    length: *mut usize,
    size: usize,
    data: *const u8,
    data_length: usize,
) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffers.
        let (context, out, length, data) = unsafe {
            (
                ffi::borrow::<Context>(context)?,
                ffi::bytes_mut(out, size),
                length.as_mut()?,
                ffi::bytes(data, data_length),
            )
        };
        let premaster = context.client_version != 0;
        let Some(out) = out else {
            *length = if premaster { PREMASTER_LENGTH } else { Ciphertext::from_der(data).ok()?.cipher.len() };
            return Some(());
        };
        if premaster {
            let out = out.get_mut(..PREMASTER_LENGTH)?;
            out.copy_from_slice(context.premaster(data)?.as_slice());
            *length = PREMASTER_LENGTH;
        } else {
            let mut plaintext = context.decrypt(data)?;
            out.get_mut(..plaintext.len())?.copy_from_slice(&plaintext);
            *length = plaintext.len();
            plaintext.zeroize();
        }
        Some(())
    })
}

unsafe extern "C" fn params(context: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the library's list.
        let (context, params) = unsafe { (ffi::borrow::<Context>(context)?, param::list_mut(params)) };
        for param in params {
            if param.is(c"digest") {
                param.set_text(c"SM3")?;
            } else if param.is(c"tls-client-version") {
                param.set_number(context.client_version.into())?;
            } else if param.is(KEY_POINTER) {
                param.set_pointer(std::ptr::from_ref::<Key>(&context.key).cast(), size_of::<Key>())?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 4] =
        [Param::text(c"digest"), Param::number(c"tls-client-version"), Param::octets_pointer(KEY_POINTER), Param::END];
    LIST.as_ptr()
}

unsafe extern "C" fn set_params(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; the library's list.
    succeeds(|| unsafe { ffi::borrow::<Context>(context)?.set(param::list(params)) })
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 3] = [Param::text(c"digest"), Param::number(c"tls-client-version"), Param::END];
    LIST.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ciphertext_is_longer_than_is_said() {
        let key = sm2::generate_key().unwrap();
        for length in [1, 2, 20, 48, 92, 93, 94, 127, 128, 200, 255, 256, 1000, 65_535, 65_536] {
            let longest = ciphertext_length(length).unwrap();
            for _ in 0..4 {
                let found = sm2::encrypt(key.public_point(), &vec![7; length]).unwrap().to_der().len();
                assert!(found <= longest && found + 6 >= longest, "{length}: {found}, said {longest}");
            }
        }
    }
}
