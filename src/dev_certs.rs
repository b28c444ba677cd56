//! The development set of certificates as the program knows it: made on the first start without a configuration.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use gm_tls::pki::development::{CertKey, DevCerts, DevelopmentError};

/// Where the set is when nothing else is said, relative to the working directory.
pub const DEFAULT_DIR: &str = "gm-certs/dev";

/// Finds the set in `dir`, or makes it when there is nothing.
///
/// # Errors
/// It cannot be written, or what is there is not a complete set that is valid now; that is left as it is.
pub fn ensure(dir: &Path) -> Result<DevCerts, DevelopmentError> {
    DevCerts::ensure(dir, now())
}

/// Unix seconds; a clock before 1970 counts as 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
