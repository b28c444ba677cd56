//! Arithmetic modulo p with MULX, ADCX and ADOX. The text of each block is whole: no branches, no tables, no access to memory but the
//! operands, so that its time depends on nothing but the processor.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::curve::{Affine, Jacobian};
use super::super::multiply::{COMB_ROW, WINDOW};
use super::{Arith, Fe, P};

/// The assembly has the words of p as numbers, two of them as -1.
const _: () = assert!(matches!(P, [u64::MAX, 0xffff_ffff_0000_0000, u64::MAX, 0xffff_fffe_ffff_ffff]));

/// For processors with BMI2, ADX and AVX2. Only `on_best` may choose it, after [`super::super::Backend::is_available`] said so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adx;

/// One step of Montgomery reduction: adds `m * p` for `m` = the lowest word, which is its own quotient because -1/p = 1 mod 2^64, and
/// drops that word. What is left to add is `m * (2^192 - 2^160 - 2^32 + 1)`: with `q = m * (2^32 - 1)`, take q from the two words that
/// follow, and `m * 2^32` from the two after them, of which the upper is m itself.
macro_rules! reduce_word {
    ($m:literal, $t1:literal, $t2:literal, $t3:literal) => {
        concat!(
            "shlx rax, ",
            $m,
            ", rsi\n",
            "shrx rcx, ",
            $m,
            ", rsi\n",
            "sub rax, ",
            $m,
            "\n",
            "sbb rcx, 0\n",
            "sub ",
            $t1,
            ", rax\n",
            "sbb ",
            $t2,
            ", rcx\n",
            "shlx rax, ",
            $m,
            ", rsi\n",
            "sbb ",
            $t3,
            ", rax\n",
            "shrx rax, ",
            $m,
            ", rsi\n",
            "sbb ",
            $m,
            ", rax\n",
        )
    };
}

/// From the product in r8..r15 its Montgomery reduction in r8..r11, less than p.
macro_rules! reduce {
    () => {
        concat!(
            "mov esi, 32\n",
            reduce_word!("r8", "r9", "r10", "r11"),
            reduce_word!("r9", "r10", "r11", "r8"),
            reduce_word!("r10", "r11", "r8", "r9"),
            reduce_word!("r11", "r8", "r9", "r10"),
            "add r8, r12\n",
            "adc r9, r13\n",
            "adc r10, r14\n",
            "adc r11, r15\n",
            subtract_p!(),
        )
    };
}

/// Takes p once from the carry and r8..r11 if that leaves no less than zero.
macro_rules! subtract_p {
    () => {
        concat!(
            "mov ecx, 0\n",
            "adc rcx, 0\n",
            "movabs rax, 0xffffffff00000000\n",
            "movabs rdx, 0xfffffffeffffffff\n",
            "mov r12, r8\n",
            "mov r13, r9\n",
            "mov r14, r10\n",
            "mov r15, r11\n",
            "sub r12, -1\n",
            "sbb r13, rax\n",
            "sbb r14, -1\n",
            "sbb r15, rdx\n",
            "sbb rcx, 0\n",
            "cmovnc r8, r12\n",
            "cmovnc r9, r13\n",
            "cmovnc r10, r14\n",
            "cmovnc r11, r15\n",
        )
    };
}

/// Adds the first operand times the word in rdx to the accumulator, and starts its next word.
macro_rules! row {
    ($t0:literal, $t1:literal, $t2:literal, $t3:literal, $t4:literal) => {
        concat!(
            "xor eax, eax\n",
            "mulx rcx, rax, [rsi]\n",
            "adcx ",
            $t0,
            ", rax\n",
            "adox ",
            $t1,
            ", rcx\n",
            "mulx rcx, rax, [rsi + 8]\n",
            "adcx ",
            $t1,
            ", rax\n",
            "adox ",
            $t2,
            ", rcx\n",
            "mulx rcx, rax, [rsi + 16]\n",
            "adcx ",
            $t2,
            ", rax\n",
            "adox ",
            $t3,
            ", rcx\n",
            "mulx ",
            $t4,
            ", rax, [rsi + 24]\n",
            "adcx ",
            $t3,
            ", rax\n",
            "mov eax, 0\n",
            "adox ",
            $t4,
            ", rax\n",
            "adcx ",
            $t4,
            ", rax\n",
        )
    };
}

impl Arith for Adx {
    #[inline(always)]
    fn pick(row: &[Affine; COMB_ROW], magnitude: u64) -> Affine {
        // SAFETY: the processor has AVX2; a point is two vectors of four words, in any bits.
        unsafe { std::mem::transmute::<[__m256i; 2], Affine>(pick(row, magnitude)) }
    }

    #[inline(always)]
    fn pick_jacobian(table: &[Jacobian; WINDOW], magnitude: u64) -> Jacobian {
        // SAFETY: the processor has AVX2; a point is three vectors of four words, in any bits.
        unsafe { std::mem::transmute::<[__m256i; 3], Jacobian>(pick(table, magnitude)) }
    }

    #[inline(always)]
    fn mul(a: &Fe, b: &Fe) -> Fe {
        let (t0, t1, t2, t3);
        // SAFETY: reads the 32 bytes behind each of two references and writes only the registers named; the processor has BMI2 and ADX.
        unsafe {
            asm!(
                "mov rdx, [r15]",
                "mulx r9, r8, [rsi]",
                "mulx r10, rax, [rsi + 8]",
                "add r9, rax",
                "mulx r11, rax, [rsi + 16]",
                "adc r10, rax",
                "mulx r12, rax, [rsi + 24]",
                "adc r11, rax",
                "adc r12, 0",
                "mov rdx, [r15 + 8]",
                row!("r9", "r10", "r11", "r12", "r13"),
                "mov rdx, [r15 + 16]",
                row!("r10", "r11", "r12", "r13", "r14"),
                "mov rdx, [r15 + 24]",
                row!("r11", "r12", "r13", "r14", "r15"),
                reduce!(),
                inout("rsi") std::ptr::from_ref(a) => _, inout("r15") std::ptr::from_ref(b) => _,
                out("rax") _, out("rcx") _, out("rdx") _,
                out("r8") t0, out("r9") t1, out("r10") t2, out("r11") t3,
                out("r12") _, out("r13") _, out("r14") _,
                options(pure, readonly, nostack),
            );
        }
        Fe([t0, t1, t2, t3])
    }

    #[inline(always)]
    fn square(a: &Fe) -> Fe {
        let (t0, t1, t2, t3);
        // SAFETY: as in `mul`, with one reference.
        unsafe {
            asm!(
                "mov rdx, [rsi]",
                "mulx r10, r9, [rsi + 8]",
                "mulx r11, rax, [rsi + 16]",
                "add r10, rax",
                "mulx r12, rax, [rsi + 24]",
                "adc r11, rax",
                "adc r12, 0",
                "mov rdx, [rsi + 8]",
                "mulx rcx, rax, [rsi + 16]",
                "mulx r13, r14, [rsi + 24]",
                "add rcx, r14",
                "adc r13, 0",
                "add r11, rax",
                "adc r12, rcx",
                "mov rdx, [rsi + 16]",
                "mulx r14, rax, [rsi + 24]",
                "adc r13, rax",
                "adc r14, 0",
                "xor r15d, r15d",
                "add r9, r9",
                "adc r10, r10",
                "adc r11, r11",
                "adc r12, r12",
                "adc r13, r13",
                "adc r14, r14",
                "adc r15, 0",
                "mov rdx, [rsi]",
                "mulx rcx, r8, rdx",
                "mov rdx, [rsi + 8]",
                "add r9, rcx",
                "mulx rcx, rax, rdx",
                "mov rdx, [rsi + 16]",
                "adc r10, rax",
                "adc r11, rcx",
                "mulx rcx, rax, rdx",
                "mov rdx, [rsi + 24]",
                "adc r12, rax",
                "adc r13, rcx",
                "mulx rcx, rax, rdx",
                "adc r14, rax",
                "adc r15, rcx",
                reduce!(),
                inout("rsi") std::ptr::from_ref(a) => _,
                out("rax") _, out("rcx") _, out("rdx") _,
                out("r8") t0, out("r9") t1, out("r10") t2, out("r11") t3,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                options(pure, readonly, nostack),
            );
        }
        Fe([t0, t1, t2, t3])
    }

    #[inline(always)]
    fn add(a: &Fe, b: &Fe) -> Fe {
        let ([mut t0, mut t1, mut t2, mut t3], [b0, b1, b2, b3]) = (a.0, b.0);
        // SAFETY: arithmetic in registers alone.
        unsafe {
            asm!(
                "add {t0}, {b0}",
                "adc {t1}, {b1}",
                "adc {t2}, {b2}",
                "adc {t3}, {b3}",
                "mov {b0:e}, 0",
                "adc {b0}, 0",
                "movabs {b1}, 0xffffffff00000000",
                "movabs {b3}, 0xfffffffeffffffff",
                "sub {t0}, -1",
                "sbb {t1}, {b1}",
                "sbb {t2}, -1",
                "sbb {t3}, {b3}",
                "sbb {b0}, 0",
                "and {b1}, {b0}",
                "and {b3}, {b0}",
                "add {t0}, {b0}",
                "adc {t1}, {b1}",
                "adc {t2}, {b0}",
                "adc {t3}, {b3}",
                t0 = inout(reg) t0, t1 = inout(reg) t1, t2 = inout(reg) t2, t3 = inout(reg) t3,
                b0 = inout(reg) b0 => _, b1 = inout(reg) b1 => _, b2 = in(reg) b2, b3 = inout(reg) b3 => _,
                options(pure, nomem, nostack),
            );
        }
        Fe([t0, t1, t2, t3])
    }

    #[inline(always)]
    fn sub(a: &Fe, b: &Fe) -> Fe {
        let ([mut t0, mut t1, mut t2, mut t3], [b0, b1, b2, b3]) = (a.0, b.0);
        // SAFETY: arithmetic in registers alone.
        unsafe {
            asm!(
                "sub {t0}, {b0}",
                "sbb {t1}, {b1}",
                "sbb {t2}, {b2}",
                "sbb {t3}, {b3}",
                "sbb {b0}, {b0}",
                "movabs {b1}, 0xffffffff00000000",
                "movabs {b3}, 0xfffffffeffffffff",
                "and {b1}, {b0}",
                "and {b3}, {b0}",
                "add {t0}, {b0}",
                "adc {t1}, {b1}",
                "adc {t2}, {b0}",
                "adc {t3}, {b3}",
                t0 = inout(reg) t0, t1 = inout(reg) t1, t2 = inout(reg) t2, t3 = inout(reg) t3,
                b0 = inout(reg) b0 => _, b1 = inout(reg) b1 => _, b2 = in(reg) b2, b3 = inout(reg) b3 => _,
                options(pure, nomem, nostack),
            );
        }
        Fe([t0, t1, t2, t3])
    }
}

/// The `VECTORS` vectors of the entry at `magnitude`, counted from 1, or zeros for 0. The whole table is read.
#[target_feature(enable = "avx2")]
fn pick<T, const VECTORS: usize>(table: &[T], magnitude: u64) -> [__m256i; VECTORS] {
    const { assert!(size_of::<T>() == VECTORS * size_of::<__m256i>()) };
    let wanted = _mm256_set1_epi64x(magnitude as i64);
    let one = _mm256_set1_epi64x(1);
    let mut position = one;
    let mut found = [_mm256_setzero_si256(); VECTORS];
    for entry in table {
        let mask = _mm256_cmpeq_epi64(position, wanted);
        let entry: *const __m256i = std::ptr::from_ref(entry).cast();
        for (index, found) in found.iter_mut().enumerate() {
            // SAFETY: an entry is this many vectors long, as the assertion says, and loads need no alignment.
            let part = unsafe { _mm256_loadu_si256(entry.add(index)) };
            *found = _mm256_or_si256(*found, _mm256_and_si256(mask, part));
        }
        position = _mm256_add_epi64(position, one);
    }
    found
}
