//! Key agreement of SM2 (GB/T 32918.3), as the ECDHE suites of TLCP use it, and Diffie-Hellman over its curve, as TLS 1.3 uses it
//! (RFC 8998, 3.2).

use std::ffi::{c_int, c_void};

use sm_accel::sm2::exchange::{self, Own, Peer, Role};

use super::{
    count::{self, Operation},
    ffi::{self, Dispatch, dispatch, succeeds},
    key::{Key, of_pkey},
    param::{self, Param},
};

/// An ID has at most 8,191 bytes: its length in bits has two.
const MAX_ID: usize = 8191;

/// What an agreement is made of. In TLCP the server is the initiator.
#[derive(Clone, Default)]
struct Agreement {
    ephemeral: Key,
    peer_ephemeral: Key,
    key: Key,
    peer_key: Key,
    id: Vec<u8>,
    peer_id: Vec<u8>,
    initiator: bool,
    length: usize,
}

impl Agreement {
    fn set(&mut self, params: &[Param]) -> Option<()> {
        let id = |param: &Param| param.as_octets().filter(|id| id.len() <= MAX_ID).map(<[u8]>::to_vec);
        for param in params {
            if param.is(c"sm2-initiator") {
                self.initiator = param.as_number()? != 0;
            } else if param.is(c"self-enc-key") {
                self.key = of_pkey(param.as_pointer()?)?;
            } else if param.is(c"peer-enc-key") {
                self.peer_key = of_pkey(param.as_pointer()?)?;
            } else if param.is(c"self-id") {
                self.id = id(param)?;
            } else if param.is(c"peer-id") {
                self.peer_id = id(param)?;
            } else if param.is(c"outlen") {
                self.length = param.as_size()?;
            } else if param.is(c"digest") {
                param.as_text()?.eq_ignore_ascii_case(b"SM3").then_some(())?;
            }
        }
        Some(())
    }

    fn derive(&self, secret: &mut [u8]) -> Option<()> {
        count::one(Operation::Agree);
        let (own_public, peer_public) = (self.key.public.as_ref()?, self.peer_key.public.as_ref()?);
        let agreed = exchange::agree(
            if self.initiator { Role::Initiator } else { Role::Responder },
            &Own {
                key: self.key.secret.as_ref()?,
                ephemeral: self.ephemeral.secret.as_ref()?,
                z: &own_public.z(Some(&self.id))?,
            },
            &Peer {
                key: peer_public.point(),
                ephemeral: self.peer_ephemeral.public.as_ref()?.point(),
                z: &peer_public.z(Some(&self.peer_id))?,
            },
        );
        agreed.ok()?.fill(secret);
        Some(())
    }
}

pub(super) static SM2DH: [Dispatch; 11] = dispatch![
    1 => agreement_new,
    2 => agreement_init,
    3 => agreement_derive,
    4 => agreement_set_peer,
    5 => ffi::free::<Agreement>,
    6 => ffi::duplicate::<Agreement>,
    7 => agreement_set_params,
    8 => agreement_settable_params,
    9 => agreement_params,
    10 => agreement_gettable_params,
];

extern "C" fn agreement_new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(Agreement::default())))
}

unsafe extern "C" fn agreement_init(context: *mut c_void, key: *const c_void, params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; a key of this provider; the library's list.
        let (context, key, params) =
            unsafe { (ffi::borrow::<Agreement>(context)?, Key::borrow(key)?, param::list(params)) };
        context.ephemeral = key.clone();
        context.set(params)?;
        (context.key.secret.is_some() && context.peer_key.public.is_some()).then_some(())
    })
}

unsafe extern "C" fn agreement_set_peer(context: *mut c_void, key: *const c_void) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; a key of this provider.
        let (context, key) = unsafe { (ffi::borrow::<Agreement>(context)?, Key::borrow(key)?) };
        context.peer_ephemeral = key.clone();
        Some(())
    })
}

unsafe extern "C" fn agreement_derive(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffer.
        let (context, out, length) =
            unsafe { (ffi::borrow::<Agreement>(context)?, ffi::bytes_mut(out, size), length.as_mut()?) };
        if let Some(out) = out {
            context.derive(out.get_mut(..context.length)?)?;
        }
        *length = context.length;
        Some(())
    })
}

unsafe extern "C" fn agreement_set_params(context: *mut c_void, params: *const Param) -> c_int {
    // SAFETY: a context of this file, used by nothing else during the call; the library's list.
    succeeds(|| unsafe { ffi::borrow::<Agreement>(context)?.set(param::list(params)) })
}

extern "C" fn agreement_settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 8] = [
        Param::signed(c"sm2-initiator"),
        Param::octets(c"self-id"),
        Param::octets(c"peer-id"),
        Param::octets_pointer(c"self-enc-key"),
        Param::octets_pointer(c"peer-enc-key"),
        Param::text(c"digest"),
        Param::number(c"outlen"),
        Param::END,
    ];
    LIST.as_ptr()
}

unsafe extern "C" fn agreement_params(context: *mut c_void, params: *mut Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the library's list.
        let (context, params) = unsafe { (ffi::borrow::<Agreement>(context)?, param::list_mut(params)) };
        for param in params {
            if param.is(c"digest") {
                param.set_text(c"SM3")?;
            } else if param.is(c"outlen") {
                param.set_number(context.length as u64)?;
            }
        }
        Some(())
    })
}

extern "C" fn agreement_gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 3] = [Param::text(c"digest"), Param::number(c"outlen"), Param::END];
    LIST.as_ptr()
}

/// Diffie-Hellman: one key and the peer's.
#[derive(Clone, Default)]
struct DiffieHellman {
    key: Key,
    peer: Key,
}

/// Bytes of what is shared: a coordinate.
const SHARED_LENGTH: usize = 32;

pub(super) static CURVE_DH: [Dispatch; 7] = dispatch![
    1 => dh_new,
    2 => dh_init,
    3 => dh_derive,
    4 => dh_set_peer,
    5 => ffi::free::<DiffieHellman>,
    6 => ffi::duplicate::<DiffieHellman>,
];

extern "C" fn dh_new(_provider: *mut c_void) -> *mut c_void {
    ffi::guard(std::ptr::null_mut(), || Some(ffi::hand_out(DiffieHellman::default())))
}

unsafe extern "C" fn dh_init(context: *mut c_void, key: *const c_void, _params: *const Param) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; a key of this provider.
        let (context, key) = unsafe { (ffi::borrow::<DiffieHellman>(context)?, Key::borrow(key)?) };
        context.key = key.clone();
        context.key.secret.as_ref().map(|_| ())
    })
}

unsafe extern "C" fn dh_set_peer(context: *mut c_void, key: *const c_void) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; a key of this provider.
        let (context, key) = unsafe { (ffi::borrow::<DiffieHellman>(context)?, Key::borrow(key)?) };
        context.peer = key.clone();
        context.peer.public.as_ref().map(|_| ())
    })
}

unsafe extern "C" fn dh_derive(context: *mut c_void, out: *mut u8, length: *mut usize, size: usize) -> c_int {
    succeeds(|| {
        // SAFETY: a context of this file, used by nothing else during the call; the caller's buffer.
        let (context, out, length) =
            unsafe { (ffi::borrow::<DiffieHellman>(context)?, ffi::bytes_mut(out, size), length.as_mut()?) };
        if let Some(out) = out {
            count::one(Operation::Derive);
            let shared = context.key.secret.as_ref()?.ecdh(context.peer.public.as_ref()?.point());
            out.get_mut(..SHARED_LENGTH)?.copy_from_slice(shared.as_slice());
        }
        *length = SHARED_LENGTH;
        Some(())
    })
}
