//! The comparisons of this binary with the library, on what lesser machines offer. What a machine offers is asked once in a process, so
//! each set of instructions is a process of its own.

use std::{process::Command, sync::Once};

use sm_accel::{cpu, ghash, sm2, sm3, sm4};

/// Tells a process which of [`SETS`] it may use.
const SET: &str = "GM_TLS_TEST_CPU";
const SETS: [&str; 3] = ["none", "AES-NI", "GFNI"];

fn features(set: &str) -> cpu::Features {
    let none = cpu::Features::default();
    match set {
        "none" => none,
        "AES-NI" => cpu::Features { bmi2: true, avx2: true, aes: true, pclmulqdq: true, ..none },
        "GFNI" => cpu::Features { adx: true, gfni: true, ..features("AES-NI") },
        other => panic!("{other}"),
    }
}

/// Holds this process to its set, before anything asks.
pub fn limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(set) = std::env::var(SET) {
            assert!(cpu::limit(features(&set)), "asked before");
        }
    });
}

#[cfg(target_arch = "x86_64")]
fn has_every_set() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("bmi2") && has!("adx") && has!("avx2") && has!("aes") && has!("pclmulqdq") && has!("gfni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_every_set() -> bool {
    false
}

/// What serves now of each family.
fn best() -> [&'static str; 4] {
    let ghash = ghash::Backend::available().next().unwrap_or(ghash::Backend::Portable);
    [sm2::Backend::best().name(), sm3::Backend::best().name(), sm4::Backend::best().name(), ghash.name()]
}

#[test]
fn everything_is_the_librarys_with_every_set_of_instructions() {
    if std::env::var_os(SET).is_some() {
        return;
    }
    for set in SETS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["contexts::", "digest::", "sm2::", "sm4::", "lesser::the_set"])
            .env(SET, set)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("lesser::the_set_is_what_serves ... ok"),
            "{set}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_set_is_what_serves() {
    crate::start();
    let expected = match std::env::var(SET).as_deref() {
        Ok("none") => ["portable", "portable", "portable", "portable"],
        Ok("AES-NI") => ["portable", "BMI2", "AES-NI + AVX2", "PCLMULQDQ"],
        Ok("GFNI") => ["BMI2 + ADX", "BMI2", "GFNI + AVX2", "PCLMULQDQ"],
        _ => return,
    };
    if has_every_set() {
        assert_eq!(best(), expected);
    }
    assert!(best().iter().all(|name| !name.contains("512")), "{:?}", best());
}
