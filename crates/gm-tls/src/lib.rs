//! TLS and TLCP.

#[cfg(feature = "tongsuo")]
pub mod cert;
#[cfg(feature = "tongsuo")]
pub mod key;
#[cfg(feature = "tongsuo")]
pub mod pair;
#[cfg(feature = "tongsuo")]
mod pem;
#[cfg(feature = "tongsuo")]
pub mod pki;
