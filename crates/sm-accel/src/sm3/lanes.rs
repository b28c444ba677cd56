//! SM3 in vectors, a block in each lane: the schedules of consecutive blocks of one message, which do not depend on each other, and
//! whole digests of several messages.

/// The next words of an expansion: word `j` takes the place of word `j - 16`.
macro_rules! steps {
    ($w:ident, $first:ident, $second:ident; $($j:literal)*) => {$(
        let x = xor3($w[$j], $w[($j + 7) % 16], rotate::<15>($w[($j + 13) % 16]));
        let x = xor3(x, rotate::<15>(x), rotate::<23>(x));
        let new = xor3(x, rotate::<7>($w[($j + 3) % 16]), $w[($j + 10) % 16]);
        if let (Some(first), Some(second)) = ($first.next(), $second.next()) {
            store(first, new);
            store(second, xor(new, $w[($j + 12) % 16]));
        }
        $w[$j] = new;
    )*};
}

/// Where it is used there are `Vector`, `LANES`, `load_words` (word by word, those of all blocks), `store` and the operations on
/// vectors: `rotate`, `xor3`, `xor`, `add`, `splat`, `majority` and `choose`.
macro_rules! lanes {
    ($features:literal) => {
        /// Words of a schedule, of all lanes together: those of the expansion, and each with the one four later.
        const FIRST: usize = 68 * LANES;
        const SECOND: usize = 64 * LANES;

        struct Schedule {
            first: [u32; FIRST],
            second: [u32; SECOND],
        }

        impl Schedule {
            const EMPTY: Schedule = Schedule { first: [0; FIRST], second: [0; SECOND] };

            /// As a whole: erased word by word it would take as long as a whole block does.
            fn erase(&mut self) {
                *self = Schedule::EMPTY;
                zeroize::optimization_barrier(self);
            }
        }

        #[target_feature(enable = $features)]
        #[inline]
        #[allow(unused_assignments, reason = "the last words are stored, and not read from their place again")]
        fn expand(schedule: &mut Schedule, blocks: [&[u8; BLOCK]; LANES]) {
            let mut w = load_words(blocks);
            let (first, second) = (schedule.first.as_chunks_mut::<LANES>().0, schedule.second.as_chunks_mut::<LANES>().0);
            let mut first = first.iter_mut();
            let mut second = second.iter_mut();
            for (word, place) in w.into_iter().zip(first.by_ref()) {
                store(place, word);
            }
            for ((a, b), place) in w.into_iter().zip(w.into_iter().skip(4)).zip(second.by_ref()) {
                store(place, xor(a, b));
            }
            steps!(w, first, second; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            steps!(w, first, second; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            steps!(w, first, second; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            steps!(w, first, second; 0 1 2 3);
        }

        /// One block of each of several messages.
        #[target_feature(enable = $features)]
        pub(super) fn compress_each(states: &mut [State; LANES], blocks: [&[u8; BLOCK]; LANES]) {
            let mut schedule = Schedule::EMPTY;
            expand(&mut schedule, blocks);
            let mut columns = [[0; LANES]; 8];
            for (lane, state) in states.iter().enumerate() {
                for (column, word) in columns.iter_mut().zip(state) {
                    column.split_at_mut(lane).1.first_mut().into_iter().for_each(|place| *place = *word);
                }
            }
            let first = schedule.first.as_chunks::<LANES>().0;
            let second = schedule.second.as_chunks::<LANES>().0;
            let old = [load(&columns[0]), load(&columns[1]), load(&columns[2]), load(&columns[3]), load(&columns[4]), load(&columns[5]), load(&columns[6]), load(&columns[7])];
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = old;
            for (j, (word, pair)) in (0u32..).zip(first.iter().zip(second)) {
                let turned = rotate::<12>(a);
                let ss1 = rotate::<7>(add(add(turned, e), splat(block::constant(j))));
                let (ff, gg) = if j < 16 { (xor3(a, b, c), xor3(e, f, g)) } else { (majority(a, b, c), choose(e, f, g)) };
                let tt1 = add(add(ff, d), add(xor(ss1, turned), load(pair)));
                let tt2 = add(add(gg, h), add(ss1, load(word)));
                (d, c, b, a) = (c, rotate::<9>(b), a, tt1);
                (h, g, f, e) = (g, rotate::<19>(f), e, xor3(tt2, rotate::<9>(tt2), rotate::<17>(tt2)));
            }
            for (column, (old, new)) in columns.iter_mut().zip(old.into_iter().zip([a, b, c, d, e, f, g, h])) {
                store(column, xor(old, new));
            }
            for (lane, state) in states.iter_mut().enumerate() {
                for (column, word) in columns.iter().zip(state) {
                    *word = column.get(lane).copied().unwrap_or_default();
                }
            }
            columns.zeroize();
            schedule.erase();
        }
    };
}
pub(super) use {lanes, steps};
