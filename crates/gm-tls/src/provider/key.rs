//! SM2 keys of the provider: import from and export to the library's own, generation, comparison.
//!
//! Public keys come from [`super::decoder`]. The library decodes private keys itself and exports each to this provider at its first use,
//! once. What cannot be taken, such as a key over explicit parameters, stays with the library.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use openssl::{
    bn::BigNumContext,
    ec::{EcGroup, EcPoint, PointConversionForm},
    nid::Nid,
};
use sm_accel::sm2::{self, Point, PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{
    count::{self, Operation},
    ffi::{self, Callback, Dispatch, dispatch, succeeds},
    param::{self, Param},
};

const PRIVATE: c_int = 0x01;
const PUBLIC: c_int = 0x02;
const KEY_PAIR: c_int = PRIVATE | PUBLIC;
const DOMAIN: c_int = 0x04;

/// The name of the curve in the library.
const CURVE: &CStr = c"SM2";
/// Bytes of the longest signature in DER, as `ECDSA_size` has it.
pub(super) const SIGNATURE_LENGTH: usize = 72;

/// Verifications after which a key is taken for one that will be met again, such as an authority's, and gets a table.
const FREQUENT: u32 = 16;
/// Tables of 86 KiB in a process.
const MAX_TABLES: usize = 64;
static TABLES: AtomicUsize = AtomicUsize::new(0);

/// A key, or half of one, or none yet but the curve.
#[derive(Clone, Default)]
pub(super) struct Key {
    pub(super) secret: Option<Arc<SecretKey>>,
    pub(super) public: Option<Arc<Public>>,
}

/// A public key with what is computed of it once.
pub(super) struct Public {
    key: PublicKey,
    /// The digest of the default ID.
    z: OnceLock<[u8; 32]>,
    verifications: AtomicU32,
}

impl Public {
    fn new(point: Point) -> Arc<Public> {
        Arc::new(Public { key: PublicKey::new(point), z: OnceLock::new(), verifications: AtomicU32::new(0) })
    }

    pub(super) fn point(&self) -> &Point {
        self.key.point()
    }

    /// The digest of its holder's name; `None` is the default ID.
    pub(super) fn z(&self, id: Option<&[u8]>) -> Option<[u8; 32]> {
        match id {
            Some(id) if id != sm2::DEFAULT_ID => sm2::digest_id(id, self.point()).ok(),
            _ => Some(*self.z.get_or_init(|| sm2::digest_id(sm2::DEFAULT_ID, self.point()).unwrap_or_default())),
        }
    }

    /// The key to verify with.
    pub(super) fn verifying(&self) -> &PublicKey {
        let before = self.verifications.fetch_add(1, Ordering::Relaxed);
        if before == FREQUENT {
            if TABLES.fetch_add(1, Ordering::Relaxed) < MAX_TABLES {
                self.key.prepare();
            } else {
                TABLES.fetch_sub(1, Ordering::Relaxed);
            }
        } else if before > u32::MAX / 2 {
            self.verifications.store(FREQUENT + 1, Ordering::Relaxed);
        }
        &self.key
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        // A key of this type is never cloned with its table, so the table ends here.
        if self.key.is_prepared() {
            TABLES.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Key {
    fn of_secret(secret: SecretKey) -> Key {
        Key { public: Some(Public::new(*secret.public_point())), secret: Some(Arc::new(secret)) }
    }

    pub(super) fn of_point(point: Point) -> Key {
        Key { secret: None, public: Some(Public::new(point)) }
    }

    /// The key behind a pointer of the library.
    ///
    /// # Safety
    /// `data` is null or a key of this provider that lives as long as the reference.
    pub(super) unsafe fn borrow<'a>(data: *const c_void) -> Option<&'a Key> {
        // SAFETY: the caller's promise.
        unsafe { data.cast::<Key>().as_ref() }
    }

    fn part(&self, selection: c_int) -> Key {
        Key {
            secret: self.secret.clone().filter(|_| selection & PRIVATE != 0),
            public: self.public.clone().filter(|_| selection & PUBLIC != 0),
        }
    }

    fn has(&self, selection: c_int) -> bool {
        (selection & PRIVATE == 0 || self.secret.is_some()) && (selection & PUBLIC == 0 || self.public.is_some())
    }

    /// As the library compares: the public keys if both are there, else the private ones.
    fn matches(&self, other: &Key, selection: c_int) -> bool {
        if selection & KEY_PAIR == 0 {
            return true;
        }
        if selection & PUBLIC != 0
            && let (Some(one), Some(two)) = (&self.public, &other.public)
        {
            return one.point() == two.point();
        }
        match (&self.secret, &other.secret) {
            (Some(one), Some(two)) if selection & PRIVATE != 0 => one.public_point() == two.public_point(),
            _ => false,
        }
    }

    /// Points are checked when they are decoded, and private keys when they are taken; what is left is whether they belong together.
    fn is_valid(&self, selection: c_int) -> bool {
        self.has(selection)
            && (selection & KEY_PAIR != KEY_PAIR
                || matches!((&self.secret, &self.public), (Some(secret), Some(public)) if secret.public_point() == public.point()))
    }

    fn read(params: &[Param], selection: c_int) -> Option<Key> {
        let named = param::find(params, c"group")?.as_text()?.eq_ignore_ascii_case(CURVE.to_bytes());
        let explicit = param::find(params, c"decoded-from-explicit").and_then(Param::as_number).unwrap_or(0) != 0;
        if selection & DOMAIN == 0 || !named || explicit {
            return None;
        }
        let mut key = Key::default();
        if selection & KEY_PAIR == 0 {
            return Some(key);
        }
        if let Some(public) = param::find(params, c"pub") {
            key.public = Some(Public::new(point(public.as_octets()?)?));
        }
        if selection & PRIVATE != 0
            && let Some(private) = param::find(params, c"priv")
        {
            let secret = secret(private.number_bytes()?)?;
            key.public.get_or_insert_with(|| Public::new(*secret.public_point()));
            key.secret = Some(Arc::new(secret));
        }
        Some(key)
    }
}

/// From any encoding; the library undoes compression.
fn point(bytes: &[u8]) -> Option<Point> {
    if let Ok(bytes) = bytes.try_into() {
        return Point::from_uncompressed(bytes).ok();
    }
    let group = EcGroup::from_curve_name(Nid::SM2).ok()?;
    let mut context = BigNumContext::new().ok()?;
    let point = EcPoint::from_bytes(&group, bytes, &mut context).ok()?;
    let bytes = point.to_bytes(&group, PointConversionForm::UNCOMPRESSED, &mut context).ok()?;
    Point::from_uncompressed(bytes.as_slice().try_into().ok()?).ok()
}

/// From a number of which the least byte is first.
fn secret(number: &[u8]) -> Option<SecretKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    let (low, high) = number.split_at_checked(32).unwrap_or((number, &[]));
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    bytes.iter_mut().rev().zip(low).for_each(|(to, from)| *to = *from);
    SecretKey::from_bytes(&bytes).ok()
}

/// The key of an `EVP_PKEY`, exported to this provider if need be.
pub(super) fn of_pkey(pkey: *mut c_void) -> Option<Key> {
    let mut found: *const c_void = std::ptr::null();
    let mut params = [Param::for_pointer(KEY_POINTER, &mut found), Param::END];
    // A key of another provider leaves the question unanswered.
    // SAFETY: the caller got the pointer from the library, which keeps the key alive during its call; the list ends with a null name, and
    // its value outlives the call.
    unsafe { ffi::EVP_PKEY_get_params(pkey, params.as_mut_ptr()) };
    // SAFETY: null, or what `answer` answered: a key that `pkey` holds.
    unsafe { Key::borrow(found) }.cloned().or_else(|| exported(pkey))
}

/// Through an operation of this provider, because the library offers no other public way.
fn exported(pkey: *mut c_void) -> Option<Key> {
    // SAFETY: the caller got the pointer from the library, which keeps the key alive during its call; null is the default context.
    let context = unsafe { ffi::EVP_PKEY_CTX_new_from_pkey(std::ptr::null_mut(), pkey, OURS.as_ptr()) };
    if context.is_null() {
        return None;
    }
    let mut found: *const c_void = std::ptr::null();
    let mut params = [Param::for_pointer(KEY_POINTER, &mut found), Param::END];
    // SAFETY: the context is live until it is freed; the list ends with a null name, and its value outlives the call.
    let asked = unsafe {
        ffi::EVP_PKEY_encrypt_init(context) == 1 && ffi::EVP_PKEY_CTX_get_params(context, params.as_mut_ptr()) == 1
    };
    // SAFETY: null, or what `encryption` answered: a key that its context holds.
    let key = if asked { unsafe { Key::borrow(found) }.cloned() } else { None };
    // SAFETY: made above and freed once.
    unsafe { ffi::EVP_PKEY_CTX_free(context) };
    key
}

const OURS: &CStr = c"provider=shangmq-accel";
/// The parameter with which [`of_pkey`] asks for the key.
pub(super) const KEY_POINTER: &CStr = c"shangmq-key";

pub(super) static SM2: [Dispatch; 23] = dispatch![
    1 => new,
    2 => generate_init,
    3 => generate_template,
    4 => generate_set_params,
    5 => generate_settable_params,
    6 => generate,
    7 => ffi::free::<Generation>,
    8 => load,
    10 => ffi::free::<Key>,
    11 => sm2_params,
    12 => gettable_params,
    13 => set_params,
    14 => settable_params,
    20 => sm2_operation_name,
    21 => has,
    22 => validate,
    23 => matches,
    40 => import,
    41 => transfer_types,
    42 => export,
    43 => transfer_types,
    44 => duplicate,
];

/// Keys for a key exchange of TLS 1.3 over the curve, which the library calls EC there.
pub(super) static CURVE_KEYS: [Dispatch; 23] = dispatch![
    1 => new,
    2 => generate_init,
    3 => generate_template,
    4 => generate_set_params,
    5 => generate_settable_params,
    6 => generate,
    7 => ffi::free::<Generation>,
    8 => load,
    10 => ffi::free::<Key>,
    11 => ec_params,
    12 => gettable_params,
    13 => set_params,
    14 => settable_params,
    20 => ec_operation_name,
    21 => has,
    22 => validate,
    23 => matches,
    40 => import,
    41 => transfer_types,
    42 => export,
    43 => transfer_types,
    44 => duplicate,
];

extern "C" fn new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(Key::default())))
}

/// Takes over a key that [`super::decoder`] made: a reference to it is the place of a pointer, which becomes null.
unsafe extern "C" fn load(reference: *const c_void, size: usize) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || {
        if size != size_of::<*mut c_void>() {
            return None;
        }
        // SAFETY: the library passes on what the decoder of this provider gave it, a pointer's place that nothing else uses meanwhile.
        let place = unsafe { reference.cast_mut().cast::<*mut c_void>().as_mut() }?;
        Some(std::mem::replace(place, std::ptr::null_mut()))
    })
}

unsafe extern "C" fn duplicate(data: *const c_void, selection: c_int) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || {
        // SAFETY: a key of this provider, alive during the call.
        Some(ffi::hand_out(unsafe { Key::borrow(data) }?.part(selection)))
    })
}

unsafe extern "C" fn has(data: *const c_void, selection: c_int) -> c_int {
    // SAFETY: a key of this provider, alive during the call.
    succeeds(|| unsafe { Key::borrow(data) }?.has(selection).then_some(()))
}

unsafe extern "C" fn matches(one: *const c_void, two: *const c_void, selection: c_int) -> c_int {
    // SAFETY: keys of this provider, alive during the call.
    succeeds(|| unsafe { Key::borrow(one)?.matches(Key::borrow(two)?, selection) }.then_some(()))
}

unsafe extern "C" fn validate(data: *const c_void, selection: c_int, _thorough: c_int) -> c_int {
    // SAFETY: a key of this provider, alive during the call.
    succeeds(|| unsafe { Key::borrow(data) }?.is_valid(selection).then_some(()))
}

unsafe extern "C" fn import(data: *mut c_void, selection: c_int, params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a key of this provider that nothing else uses yet.
        let key = unsafe { data.cast::<Key>().as_mut() }?;
        // SAFETY: a list of the library, alive during the call.
        *key = Key::read(unsafe { param::list(params) }, selection)?;
        count::one(Operation::KeyImport);
        Some(())
    })
}

unsafe extern "C" fn export(
    data: *mut c_void,
    selection: c_int,
    callback: Option<Callback>,
    arg: *mut c_void,
) -> c_int {
    ffi::guard(0, || {
        // SAFETY: a key of this provider, alive during the call.
        let key = unsafe { Key::borrow(data) }?;
        if selection & DOMAIN == 0 || selection & KEY_PAIR == PRIVATE {
            return None;
        }
        let public =
            key.public.as_ref().filter(|_| selection & PUBLIC != 0).map(|public| public.point().to_uncompressed());
        let private = key.secret.as_ref().filter(|_| selection & PRIVATE != 0).map(|secret| {
            let mut number = secret.to_bytes();
            number.reverse();
            number
        });
        let mut params = [Param::with_text(c"group", CURVE), Param::END, Param::END, Param::END];
        let (_, free) = params.split_first_mut()?;
        let mut free = free.iter_mut();
        if let Some(public) = &public {
            *free.next()? = Param::with_octets(c"pub", public);
        }
        if let Some(private) = &private {
            *free.next()? = Param::with_number(c"priv", private.as_slice());
        }
        // SAFETY: the list ends with a null name, and it and its values outlive the call; `arg` is the caller's own.
        Some(unsafe { callback?(params.as_ptr(), arg) })
    })
}

extern "C" fn transfer_types(selection: c_int) -> *const Param {
    static PARAMETERS: [Param; 2] = [Param::text(c"group"), Param::END];
    static PUBLIC_KEY: [Param; 3] = [Param::text(c"group"), Param::octets(c"pub"), Param::END];
    static PAIR: [Param; 4] = [Param::text(c"group"), Param::octets(c"pub"), Param::number(c"priv"), Param::END];
    match selection & KEY_PAIR {
        0 => PARAMETERS.as_ptr(),
        PUBLIC => PUBLIC_KEY.as_ptr(),
        _ => PAIR.as_ptr(),
    }
}

unsafe extern "C" fn sm2_params(data: *mut c_void, params: *mut Param) -> c_int {
    // SAFETY: as the library promises to `answer`.
    unsafe { answer(data, params, c"SM3") }
}

unsafe extern "C" fn ec_params(data: *mut c_void, params: *mut Param) -> c_int {
    // SAFETY: as the library promises to `answer`.
    unsafe { answer(data, params, c"SHA256") }
}

/// # Safety
/// `data` is a key of this provider, and `params` a list that only this call uses.
unsafe fn answer(data: *mut c_void, params: *mut Param, digest: &'static CStr) -> c_int {
    succeeds(|| {
        // SAFETY: the caller's promise.
        let (key, params) = unsafe { (Key::borrow(data)?, param::list_mut(params)) };
        let public = || key.public.as_ref().map(|public| public.point().to_uncompressed());
        for param in params {
            if param.is(c"bits") {
                param.set_number(256)?;
            } else if param.is(c"security-bits") {
                param.set_number(128)?;
            } else if param.is(c"max-size") {
                param.set_number(SIGNATURE_LENGTH as u64)?;
            } else if param.is(c"default-digest") {
                param.set_text(digest)?;
            } else if param.is(c"group") {
                param.set_text(CURVE)?;
            } else if param.is(c"field-type") {
                param.set_text(c"prime-field")?;
            } else if param.is(c"point-format") {
                param.set_text(c"uncompressed")?;
            } else if param.is(c"encoding") {
                param.set_text(c"named_curve")?;
            } else if param.is(c"decoded-from-explicit") {
                param.set_number(0)?;
            } else if param.is(c"encoded-pub-key") {
                param.set_octets(&public()?)?;
            } else if param.is(c"pub") {
                if let Some(public) = public() {
                    param.set_octets(&public)?;
                }
            } else if param.is(c"qx") || param.is(c"qy") {
                if let Some([_, coordinates @ ..]) = public() {
                    let (x, y) = coordinates.split_at(32);
                    let mut number = [0; 32];
                    number.iter_mut().rev().zip(if param.is(c"qx") { x } else { y }).for_each(|(to, from)| *to = *from);
                    param.set_number_bytes(&number)?;
                }
            } else if param.is(KEY_POINTER) {
                param.set_pointer(std::ptr::from_ref(key).cast(), size_of::<Key>())?;
            } else if param.is(c"priv")
                && let Some(secret) = &key.secret
            {
                let mut number = secret.to_bytes();
                number.reverse();
                param.set_number_bytes(number.as_slice())?;
            }
        }
        Some(())
    })
}

extern "C" fn gettable_params(_provider: *mut c_void) -> *const Param {
    static LIST: [Param; 15] = [
        Param::signed(c"bits"),
        Param::signed(c"security-bits"),
        Param::signed(c"max-size"),
        Param::text(c"default-digest"),
        Param::text(c"group"),
        Param::text(c"field-type"),
        Param::text(c"point-format"),
        Param::text(c"encoding"),
        Param::signed(c"decoded-from-explicit"),
        Param::octets(c"encoded-pub-key"),
        Param::octets(c"pub"),
        Param::number(c"qx"),
        Param::number(c"qy"),
        Param::number(c"priv"),
        Param::END,
    ];
    LIST.as_ptr()
}

/// A peer's public key as it comes in a handshake, which is never compressed there (RFC 8446, 4.2.8.2).
unsafe extern "C" fn set_params(data: *mut c_void, params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a key of this provider that nothing else uses during the call.
        let key = unsafe { data.cast::<Key>().as_mut() }?;
        // SAFETY: a list of the library, alive during the call.
        if let Some(encoded) = param::find(unsafe { param::list(params) }, c"encoded-pub-key") {
            let point = Point::from_uncompressed(encoded.as_octets()?.try_into().ok()?).ok()?;
            *key = Key::of_point(point);
        }
        Some(())
    })
}

extern "C" fn settable_params(_provider: *mut c_void) -> *const Param {
    static LIST: [Param; 2] = [Param::octets(c"encoded-pub-key"), Param::END];
    LIST.as_ptr()
}

const OPERATION_EXCHANGE: c_int = 11;
const OPERATION_SIGNATURE: c_int = 12;

extern "C" fn sm2_operation_name(operation: c_int) -> *const c_char {
    match operation {
        OPERATION_EXCHANGE => c"SM2DH".as_ptr(),
        OPERATION_SIGNATURE => c"SM2".as_ptr(),
        _ => std::ptr::null(),
    }
}

extern "C" fn ec_operation_name(operation: c_int) -> *const c_char {
    match operation {
        OPERATION_EXCHANGE => c"ECDH".as_ptr(),
        OPERATION_SIGNATURE => c"ECDSA".as_ptr(),
        _ => std::ptr::null(),
    }
}

/// A key to be generated.
struct Generation {
    selection: c_int,
}

impl Generation {
    /// There is one curve, under its name.
    fn accepts(params: &[Param]) -> Option<()> {
        for param in params {
            if param.is(c"group") && !param.as_text()?.eq_ignore_ascii_case(CURVE.to_bytes())
                || param.is(c"encoding") && param.as_text()? != b"named_curve"
            {
                return None;
            }
        }
        Some(())
    }
}

unsafe extern "C" fn generate_init(_provider: *mut c_void, selection: c_int, params: *const Param) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || {
        // SAFETY: a list of the library, alive during the call.
        Generation::accepts(unsafe { param::list(params) })?;
        Some(ffi::hand_out(Generation { selection }))
    })
}

unsafe extern "C" fn generate_template(_generation: *mut c_void, template: *mut c_void) -> c_int {
    // SAFETY: a key of this provider, alive during the call. It says nothing but the curve, and there is only one.
    succeeds(|| unsafe { Key::borrow(template) }.map(|_| ()))
}

unsafe extern "C" fn generate_set_params(_generation: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a list of the library, alive during the call.
    succeeds(|| Generation::accepts(unsafe { param::list(params) }))
}

extern "C" fn generate_settable_params(_generation: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 4] =
        [Param::text(c"group"), Param::text(c"encoding"), Param::text(c"point-format"), Param::END];
    LIST.as_ptr()
}

unsafe extern "C" fn generate(generation: *mut c_void, _callback: *const c_void, _arg: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || {
        // SAFETY: what `generate_init` made, alive during the call.
        let generation = unsafe { generation.cast::<Generation>().as_ref() }?;
        if generation.selection & KEY_PAIR == 0 {
            return Some(ffi::hand_out(Key::default()));
        }
        count::one(Operation::KeyGeneration);
        Some(ffi::hand_out(Key::of_secret(sm2::generate_key().ok()?)))
    })
}

#[cfg(test)]
mod tests;
