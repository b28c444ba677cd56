//! Whether a certificate was revoked since it was issued: revocation lists (RFC 5280 section 5) and answers of OCSP responders
//! (RFC 6960). Here they are read and their signatures checked; where they come from, how long they are kept and what follows from them
//! is the business of the broker.
//!
//! Revocation lists are read by [`Crl`] and not by the library, whose decoded form of a list takes ten times the memory of the list.
//! Without the feature `tongsuo` only that reader is built.

mod crl;
mod facts;

#[cfg(feature = "tongsuo")]
pub(crate) mod chain;
#[cfg(feature = "tongsuo")]
mod ocsp;
#[cfg(feature = "tongsuo")]
mod pss;
#[cfg(feature = "tongsuo")]
mod signature;
#[cfg(feature = "tongsuo")]
pub(crate) mod staple;

#[cfg(feature = "tongsuo")]
pub use self::{
    chain::{Admission, Inspector, NotAdmitted, PeerChains, is_issued_by},
    ocsp::{CertIdHash, OcspAnswer, OcspError, OcspState, ocsp_request},
    signature::{CrlFileError, read_lists},
    staple::{Fingerprint, Staple, StapleSource, fingerprint},
};
pub use self::{
    crl::{Crl, CrlError, Reason, Scope},
    facts::{Facts, FactsError},
};

#[cfg(feature = "tongsuo")]
pub(crate) use self::crl::{element, value};

/// Clocks of authorities and of this machine may differ by so much, in seconds.
pub const CLOCK_SKEW_SECS: i64 = 300;

#[cfg(test)]
#[cfg(feature = "tongsuo")]
mod tests;
