//! Which implementation of SM2, SM3 and SM4 the library uses: its own, or the accelerated one of `sm-accel`, added to it as a
//! provider. Chosen once for a process, before the first context; nothing above notices the difference. What the accelerated
//! provider does not offer stays with the library's own.

mod cipher;
mod count;
mod decoder;
mod digest;
mod encryption;
mod exchange;
mod ffi;
mod kdf;
mod key;
mod mac;
mod param;
mod report;
mod self_test;
mod signature;
mod table;

use std::{ptr, sync::Mutex};

pub use count::Operation;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use count::served;
pub use report::{Service, cpu_features, services};
pub use self_test::{Sabotage, names as self_test_names};
#[doc(hidden)]
pub(crate) use table::GM_PREFERENCE;

/// The name under which libcrypto knows the accelerated provider.
pub const NAME: &str = "shangmq-accel";

/// Who computes SM2, SM3 and SM4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    /// The accelerated provider, tested before it is used.
    #[default]
    Accelerated,
    /// The linked library alone.
    Tongsuo,
}

/// Why the accelerated provider does not serve.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProviderError {
    #[error("the library did not take the accelerated provider: {0}")]
    Load(String),
    #[error("the accelerated provider failed its self-test at {test}; nothing is served with it")]
    SelfTest { test: &'static str },
    #[error("the provider was chosen before: {before:?}, now {now:?}")]
    ChosenBefore { before: Provider, now: Provider },
}

static CHOSEN: Mutex<Option<Result<Provider, ProviderError>>> = Mutex::new(None);

/// Chooses the provider of this process. Call it before the first context or key; the first call decides, and what it answered is
/// answered again. A process that never calls it uses the library alone.
///
/// # Errors
/// If the accelerated provider cannot be loaded or fails its test, which then stays unused, or if another was chosen before.
pub fn choose(provider: Provider) -> Result<(), ProviderError> {
    choose_with(provider, Sabotage::from_environment())
}

/// [`choose`], with a known answer of the self-test falsified.
#[doc(hidden)]
pub fn choose_with(provider: Provider, sabotage: Sabotage) -> Result<(), ProviderError> {
    crate::init();
    let mut chosen = CHOSEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let outcome = chosen.get_or_insert_with(|| match provider {
        Provider::Accelerated => load(&sabotage).map(|()| Provider::Accelerated),
        Provider::Tongsuo => Ok(Provider::Tongsuo),
    });
    match outcome {
        Ok(before) if *before == provider => Ok(()),
        Ok(before) => Err(ProviderError::ChosenBefore { before: *before, now: provider }),
        Err(error) => Err(error.clone()),
    }
}

/// Adds the provider, tests it by name, and only then prefers it. In this order nothing of the library ever meets an untested one.
fn load(sabotage: &Sabotage) -> Result<(), ProviderError> {
    let failed = || ProviderError::Load(openssl::error::ErrorStack::get().to_string());
    // The default provider is loaded by itself only as long as no other is.
    // SAFETY: null is the default library context; the strings are static; `init` is an initialiser as the library expects it.
    let ours = unsafe {
        if ffi::OSSL_PROVIDER_load(ptr::null_mut(), c"default".as_ptr()).is_null()
            || ffi::OSSL_PROVIDER_add_builtin(ptr::null_mut(), table::C_NAME.as_ptr(), table::init) != 1
        {
            return Err(failed());
        }
        ffi::OSSL_PROVIDER_load(ptr::null_mut(), table::C_NAME.as_ptr())
    };
    if ours.is_null() {
        return Err(failed());
    }
    let preferred = self_test::run(sabotage).and_then(|()| {
        // The question mark makes it a preference: what the provider lacks is fetched elsewhere.
        // SAFETY: null is the default library context; the string is static.
        match unsafe { ffi::EVP_set_default_properties(ptr::null_mut(), table::PREFERENCE.as_ptr()) } {
            1 => Ok(()),
            _ => Err(failed()),
        }
    });
    if preferred.is_err() {
        // SAFETY: loaded above and unloaded once; nothing fetched from it is left.
        unsafe { ffi::OSSL_PROVIDER_unload(ours) };
    }
    preferred
}
