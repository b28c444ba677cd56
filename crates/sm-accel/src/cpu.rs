//! Which instructions this processor and system offer, asked once. Nothing else in the crate asks.

use std::sync::OnceLock;

/// Instruction sets that code here can use. A set counts only if the system saves its registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// BMI1 and BMI2: `andn`, `rorx`, `mulx`.
    pub bmi2: bool,
    /// ADX: `adcx`, `adox`.
    pub adx: bool,
    /// AVX2 with what every processor that has it has too (SSSE3, SSE4.1).
    pub avx2: bool,
    /// AES-NI.
    pub aes: bool,
    /// PCLMULQDQ.
    pub pclmulqdq: bool,
    /// GFNI.
    pub gfni: bool,
    /// VPCLMULQDQ: carry-less products of wide vectors.
    pub vpclmulqdq: bool,
    /// AVX-512 F, BW and VL.
    pub avx512: bool,
    /// AVX-512 IFMA: products of 52 bits.
    pub avx512ifma: bool,
}

impl Features {
    /// The names of what is there, as processors' makers write them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.bmi2, "BMI2"),
            (self.adx, "ADX"),
            (self.avx2, "AVX2"),
            (self.aes, "AES-NI"),
            (self.pclmulqdq, "PCLMULQDQ"),
            (self.gfni, "GFNI"),
            (self.vpclmulqdq, "VPCLMULQDQ"),
            (self.avx512, "AVX-512"),
            (self.avx512ifma, "AVX512-IFMA"),
        ]
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
    }
}

static FOUND: OnceLock<Features> = OnceLock::new();

/// What this machine offers.
pub fn features() -> &'static Features {
    FOUND.get_or_init(detect)
}

/// For tests of what runs on lesser machines: from now on this process has no more than `most`. False if something has asked before.
#[doc(hidden)]
pub fn limit(most: Features) -> bool {
    let has = detect();
    let limited = Features {
        bmi2: has.bmi2 && most.bmi2,
        adx: has.adx && most.adx,
        avx2: has.avx2 && most.avx2,
        aes: has.aes && most.aes,
        pclmulqdq: has.pclmulqdq && most.pclmulqdq,
        gfni: has.gfni && most.gfni,
        vpclmulqdq: has.vpclmulqdq && most.vpclmulqdq,
        avx512: has.avx512 && most.avx512,
        avx512ifma: has.avx512ifma && most.avx512ifma,
    };
    FOUND.set(limited).is_ok()
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Features {
    use std::arch::is_x86_feature_detected as has;
    Features {
        bmi2: has!("bmi1") && has!("bmi2"),
        adx: has!("adx"),
        avx2: has!("avx2") && has!("ssse3") && has!("sse4.1"),
        aes: has!("aes"),
        pclmulqdq: has!("pclmulqdq"),
        gfni: has!("gfni"),
        vpclmulqdq: has!("vpclmulqdq"),
        avx512: has!("avx512f") && has!("avx512bw") && has!("avx512vl"),
        avx512ifma: has!("avx512f") && has!("avx512ifma") && has!("avx512vl"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Features {
    Features::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_there_and_nothing_else() {
        assert_eq!(Features::default().names().count(), 0);
        let some = Features { gfni: true, avx2: true, ..Features::default() };
        assert_eq!(some.names().collect::<Vec<_>>(), ["AVX2", "GFNI"]);
    }
}
