//! The compression function (GB/T 32905, 5.3) with its schedule expanded between the rounds, and the rounds for a schedule that is there.

/// The chaining value: eight words.
pub(super) type State = [u32; 8];
/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// Majority, of rounds 16 to 63.
macro_rules! most {
    ($x:expr, $y:expr, $z:expr) => {
        ($x & ($y | $z)) | ($y & $z)
    };
}
/// Choice, of rounds 16 to 63. The two terms have no bit in common, so their sum is their union.
macro_rules! chosen {
    ($e:expr, $x:expr, $x1:expr, $f:expr, $g:expr) => {
        ($e & $f).wrapping_add(!$e & $g)
    };
}
macro_rules! parity_of_e {
    ($e:expr, $x:expr, $x1:expr, $f:expr, $g:expr) => {
        $e ^ $f ^ $g
    };
}
/// The same a step sooner for two operations more, from the parts of `$e`, of which `$x` comes first.
macro_rules! chosen_early {
    ($e:expr, $x:expr, $x1:expr, $f:expr, $g:expr) => {{
        let either = $f ^ $g;
        kept(($x & either) ^ $g) ^ ($x1 & either)
    }};
}
macro_rules! parity_early {
    ($e:expr, $x:expr, $x1:expr, $f:expr, $g:expr) => {
        kept($x ^ $f ^ $g) ^ $x1
    };
}
macro_rules! parity {
    ($x:expr, $y:expr, $z:expr) => {
        $x ^ $y ^ $z
    };
}

/// One round in place. The words take each other's places by their order in the next call. `$e` is also there as the sum of `$x` and
/// `$x1`, as the round before had it before its last step.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $x:ident $x1:ident, $ff:ident, $gg:ident, $t:expr, $w:expr, $w1:expr) => {
        let turned = $a.rotate_left(12);
        let ss1 = kept(turned.wrapping_add($t)).wrapping_add($e).rotate_left(7);
        let tt1 = kept($ff!($a, $b, $c).wrapping_add($d).wrapping_add($w1));
        let tt2 = kept($gg!($e, $x, $x1, $f, $g).wrapping_add(kept($h.wrapping_add($w))));
        $d = tt1.wrapping_add(ss1 ^ turned);
        $x = tt2.wrapping_add(ss1);
        $x1 = $x.rotate_left(9) ^ $x.rotate_left(17);
        $h = $x ^ $x1;
        $b = $b.rotate_left(9);
        $f = $f.rotate_left(19);
    };
}

/// A sum that the compiler shall not take apart: it would join summands to instructions that take longer on the way from one round to the
/// next, which is what counts here.
#[inline(always)]
pub(super) fn kept(sum: u32) -> u32 {
    let mut sum = sum;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0:e} */", inout(reg) sum, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The constant of round `j`, turned as the round wants it.
pub(super) const fn constant(j: u32) -> u32 {
    let t: u32 = if j < 16 { 0x79cc_4519 } else { 0x7a87_9d8a };
    t.rotate_left(j % 32)
}

/// Rounds `j` to `j + 3`, after which every word is in its place again.
macro_rules! four {
    ($v:ident, $j:expr, $ff:ident, $gg:ident, $w:ident, $w1:ident) => {
        let ([mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h], mut x, mut x1) = $v;
        round!(a b c d e f g h, x x1, $ff, $gg, const { constant($j) }, $w!($j), $w1!($j));
        round!(d a b c h e f g, x x1, $ff, $gg, const { constant($j + 1) }, $w!($j + 1), $w1!($j + 1));
        round!(c d a b g h e f, x x1, $ff, $gg, const { constant($j + 2) }, $w!($j + 2), $w1!($j + 2));
        round!(b c d a f g h e, x x1, $ff, $gg, const { constant($j + 3) }, $w!($j + 3), $w1!($j + 3));
        $v = ([a, b, c, d, e, f, g, h], x, x1);
    };
}

macro_rules! all_rounds {
    ($v:ident, $w:ident, $w1:ident, $parity:ident, $chosen:ident) => {
        four!($v, 0, parity, $parity, $w, $w1);
        four!($v, 4, parity, $parity, $w, $w1);
        four!($v, 8, parity, $parity, $w, $w1);
        four!($v, 12, parity, $parity, $w, $w1);
        four!($v, 16, most, $chosen, $w, $w1);
        four!($v, 20, most, $chosen, $w, $w1);
        four!($v, 24, most, $chosen, $w, $w1);
        four!($v, 28, most, $chosen, $w, $w1);
        four!($v, 32, most, $chosen, $w, $w1);
        four!($v, 36, most, $chosen, $w, $w1);
        four!($v, 40, most, $chosen, $w, $w1);
        four!($v, 44, most, $chosen, $w, $w1);
        four!($v, 48, most, $chosen, $w, $w1);
        four!($v, 52, most, $chosen, $w, $w1);
        four!($v, 56, most, $chosen, $w, $w1);
        four!($v, 60, most, $chosen, $w, $w1);
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) use {all_rounds, chosen_early, four, most, parity, parity_early, round};

/// Every block in turn, its schedule expanded between the rounds. Inlined where the instructions are chosen.
#[inline(always)]
#[allow(unused_assignments, unused_variables, reason = "the parts of a word are for rounds that take them early")]
pub(super) fn compress(state: &mut State, blocks: &[[u8; BLOCK]]) {
    for block in blocks {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        // The second word of round j is W[j] ^ W[j + 4]. A round evaluates it first, so W[j + 4] is expanded there: it takes the place
        // of W[j - 12], which no later round reads.
        macro_rules! second {
            ($j:expr) => {{
                if const { $j >= 12 } {
                    let x = words[($j + 4) % 16] ^ words[($j + 11) % 16] ^ words[($j + 1) % 16].rotate_left(15);
                    words[($j + 4) % 16] = x
                        ^ x.rotate_left(15)
                        ^ x.rotate_left(23)
                        ^ words[($j + 7) % 16].rotate_left(7)
                        ^ words[($j + 14) % 16];
                }
                words[$j % 16] ^ words[($j + 4) % 16]
            }};
        }
        macro_rules! first {
            ($j:expr) => {
                words[$j % 16]
            };
        }
        let [_, _, _, _, e, _, _, _] = *state;
        let mut rounds = (*state, e, 0);
        all_rounds!(rounds, first, second, parity_of_e, chosen);
        let (v, _, _) = rounds;
        for (old, new) in state.iter_mut().zip(v) {
            *old ^= new;
        }
    }
}

/// [`compress`] where three-operand rotations and `andn` are there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2")]
pub(super) fn compress_bmi2(state: &mut State, blocks: &[[u8; BLOCK]]) {
    compress(state, blocks);
}
