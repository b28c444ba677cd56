//! The ways to compute in the field, and the choice of one.

use crate::cpu::features;

/// A way to compute SM2. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust.
    Portable,
    /// Products with MULX, ADCX and ADOX, tables read with AVX2.
    Adx,
}

impl Backend {
    /// Every way, the best first.
    pub const ALL: [Backend; 2] = [Backend::Adx, Backend::Portable];

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Backend::Portable => true,
            Backend::Adx => {
                let found = features();
                cfg!(target_arch = "x86_64") && found.bmi2 && found.adx && found.avx2
            }
        }
    }

    /// The ways this machine can run, the best first.
    pub fn available() -> impl Iterator<Item = Backend> {
        Backend::ALL.into_iter().filter(|way| way.is_available())
    }

    /// What is used.
    pub fn best() -> Backend {
        #[cfg(test)]
        if let Some(forced) = forced::get() {
            return forced;
        }
        Backend::available().next().unwrap_or(Backend::Portable)
    }

    /// As documents and `version` name it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Portable => "portable",
            Backend::Adx => "BMI2 + ADX",
        }
    }
}

/// Calls a function that is generic over [`super::field::Arith`] in the form for this machine.
macro_rules! on_best {
    ($function:path, $($argument:expr),*) => {{
        use $function as function;
        match $crate::sm2::backend::Backend::best() {
            // `best` gives only what `is_available` allows: the processor has the instructions.
            #[cfg(target_arch = "x86_64")]
            $crate::sm2::backend::Backend::Adx => function::<$crate::sm2::field::adx::Adx>($($argument),*),
            _ => function::<$crate::sm2::field::portable::Portable>($($argument),*),
        }
    }};
}
pub(crate) use on_best;

/// Tests run everything on each backend in turn.
#[cfg(test)]
pub(crate) mod forced {
    use std::cell::Cell;

    use super::Backend;

    thread_local!(static FORCED: Cell<Option<Backend>> = const { Cell::new(None) });

    pub(super) fn get() -> Option<Backend> {
        FORCED.get()
    }

    /// Runs `test` on each backend of this machine.
    pub(crate) fn on_each(mut test: impl FnMut()) {
        for backend in Backend::available() {
            FORCED.set(Some(backend));
            test();
        }
        FORCED.set(None);
    }
}
