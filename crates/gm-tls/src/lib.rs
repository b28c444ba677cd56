//! TLS 1.2 and 1.3, RFC 8998 and TLCP (GB/T 38636-2020) over Tongsuo: the only user of the C library and the only place for
//! `unsafe` code. Everything above knows a connection's security through [`PeerIdentity`] alone.
//!
//! - [`hello`] reads a ClientHello without the library, to choose a context before anything is committed.
//! - [`cert`], [`key`], [`pair`] and [`pki`] are certificates, keys, the dual pair of TLCP, and a small authority; [`public`] checks
//!   signatures over data, [`seal`] keeps secrets at rest.
//! - [`provider`] chooses who computes SM2, SM3 and SM4: the library, or the accelerated provider that is added to it.
//! - [`revocation`] reads revocation lists and OCSP answers and checks who signed them.
//! - [`suites`] names the cipher suites; [`server`] and [`client`] build contexts that accept exactly what was configured.
//! - [`engine`] is one connection as a state machine without IO; [`stream`] drives it over any tokio stream.

pub mod hello;
pub mod revocation;
pub mod suites;

#[cfg(feature = "tongsuo")]
mod after;
#[cfg(feature = "tongsuo")]
mod alert;
#[cfg(feature = "tongsuo")]
pub mod cert;
#[cfg(feature = "tongsuo")]
pub mod client;
#[cfg(feature = "tongsuo")]
mod context;
#[cfg(feature = "tongsuo")]
pub mod engine;
#[cfg(feature = "tongsuo")]
pub mod error;
#[cfg(feature = "tongsuo")]
mod ffi;
#[cfg(feature = "tongsuo")]
mod forget;
#[cfg(feature = "tongsuo")]
pub mod identity;
#[cfg(feature = "tongsuo")]
pub mod key;
#[cfg(feature = "tongsuo")]
mod lasting;
#[cfg(feature = "tongsuo")]
mod offer;
#[cfg(feature = "tongsuo")]
pub mod pair;
#[cfg(feature = "tongsuo")]
mod pem;
#[cfg(feature = "tongsuo")]
pub mod pki;
#[cfg(feature = "tongsuo")]
pub mod policy;
#[cfg(feature = "tongsuo")]
pub mod provider;
#[cfg(feature = "tongsuo")]
pub mod psk;
#[cfg(feature = "tongsuo")]
pub mod public;
#[cfg(feature = "tongsuo")]
pub mod seal;
#[cfg(feature = "tongsuo")]
pub mod server;
#[cfg(feature = "tongsuo")]
pub mod stream;
#[cfg(feature = "tongsuo")]
pub mod tickets;
#[cfg(feature = "tongsuo")]
mod verify;

/// Starts the library without a configuration of its own: its `openssl.cnf`, or the file that `OPENSSL_CONF` names, can lower what is
/// asked of certificates for every program of a machine, and no program notices. A program calls this before anything else that uses
/// the library; what reads keys and certificates or builds contexts here calls it as well.
#[cfg(feature = "tongsuo")]
pub fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(ffi::start_without_configuration);
}

#[cfg(feature = "tongsuo")]
pub use pem::stranger;
#[cfg(feature = "tongsuo")]
pub use {
    error::{ContextError, HandshakeError, HandshakeFailure},
    identity::{PeerIdentity, Protocol},
    stream::TlsStream,
};

/// Name and version of the linked library and of the OpenSSL that it is based on, as it says them.
#[cfg(feature = "tongsuo")]
pub fn library_version() -> String {
    format!("{}, based on {}", ffi::tongsuo_version(), openssl::version::version())
}
