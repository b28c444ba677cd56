//! What the vector backends have in common, as macros: how blocks come into vectors and back, and the modes that work on many at once.
//!
//! A *set* is four vectors, each with one word of the same blocks; a *pass* is several sets, so that while one waits for its S-box
//! another can go on. Blocks are loaded as they stand; exchanging rows and columns within each 128 bits makes words of them. So lane
//! `l`, word `k` of a vector of words belongs to block `k * LANES + l` of its set.

/// Blocks to words and words to blocks: rows and columns of four by four words exchanged in every 128 bits. Its own inverse.
macro_rules! transpose {
    ($set:expr, $low32:ident, $high32:ident, $low64:ident, $high64:ident) => {{
        let [a, b, c, d] = $set;
        let (ab, cd) = ($low32(a, b), $low32(c, d));
        let (ef, gh) = ($high32(a, b), $high32(c, d));
        [$low64(ab, cd), $high64(ab, cd), $low64(ef, gh), $high64(ef, gh)]
    }};
}

/// Calls a function for as many sets as there are, four at most.
macro_rules! by_sets {
    ($data:expr, $function:ident($($argument:expr),*)) => {
        match $data.len() / SET {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            _ => $function::<4>($($argument),*),
        }
    };
}

/// The modes. Where it is used there are `SETS` of a pass, `round`, and what `vector256` or `vector512` exports.
macro_rules! modes {
    ($features:literal) => {
        const LANES: usize = WIDTH / BLOCK_LENGTH;
        /// Bytes of a set.
        const SET: usize = 4 * WIDTH;

        #[target_feature(enable = $features)]
        #[inline]
        fn rounds<const N: usize>(keys: &RoundKeys, sets: &mut [[Vector; 4]; N]) {
            for [k0, k1, k2, k3] in keys.as_chunks::<4>().0 {
                let keys = [splat(*k0), splat(*k1), splat(*k2), splat(*k3)];
                for [x0, x1, x2, x3] in sets.iter_mut() {
                    *x0 = round(*x0, *x1, *x2, *x3, keys[0]);
                }
                for [x0, x1, x2, x3] in sets.iter_mut() {
                    *x1 = round(*x1, *x2, *x3, *x0, keys[1]);
                }
                for [x0, x1, x2, x3] in sets.iter_mut() {
                    *x2 = round(*x2, *x3, *x0, *x1, keys[2]);
                }
                for [x0, x1, x2, x3] in sets.iter_mut() {
                    *x3 = round(*x3, *x0, *x1, *x2, keys[3]);
                }
            }
        }

        /// # Safety
        ///
        /// A set can be read.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn load_words(set: *const u8) -> [Vector; 4] {
            // SAFETY: the four vectors of a set.
            let (a, b) = unsafe { (load(set), load(set.add(WIDTH))) };
            // SAFETY: as above.
            let (c, d) = unsafe { (load(set.add(2 * WIDTH)), load(set.add(3 * WIDTH))) };
            exchange([turn(a), turn(b), turn(c), turn(d)])
        }

        /// The last four words become the block in reverse order.
        #[target_feature(enable = $features)]
        #[inline]
        fn to_blocks([x0, x1, x2, x3]: [Vector; 4]) -> [Vector; 4] {
            let [a, b, c, d] = exchange([x3, x2, x1, x0]);
            [turn(a), turn(b), turn(c), turn(d)]
        }

        /// # Safety
        ///
        /// `input` can be read and `output` written for `N` sets.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn ecb_sets<const N: usize>(keys: &RoundKeys, input: *const u8, output: *mut u8) {
            let mut sets = [[zero(); 4]; N];
            for (at, set) in sets.iter_mut().enumerate() {
                // SAFETY: set `at` of `N`.
                *set = unsafe { load_words(input.add(at * SET)) };
            }
            rounds(keys, &mut sets);
            for (at, set) in sets.into_iter().enumerate() {
                for (part, block) in to_blocks(set).into_iter().enumerate() {
                    // SAFETY: vector `part` of four, of set `at` of `N`.
                    unsafe { store(output.add(at * SET + part * WIDTH), block) };
                }
            }
        }

        /// Every whole block by itself.
        #[target_feature(enable = $features)]
        pub(super) fn ecb(keys: &RoundKeys, data: InOut<'_>) {
            let mut rest = data;
            while rest.len() >= SET {
                let sets = (rest.len() / SET).min(SETS);
                let (now, later) = rest.split_at(sets * SET);
                let (input, output) = now.pointers();
                // SAFETY: `now` has as many whole sets, at most SETS.
                unsafe { by_sets!(now, ecb_sets(keys, input, output)) };
                rest = later;
            }
            if !rest.is_empty() {
                let mut set = padded::<SET>(rest.input());
                let place = set.as_mut_ptr();
                // SAFETY: the copy is a set.
                unsafe { ecb_sets::<1>(keys, place, place) };
                rest.put(&set);
                set.zeroize();
            }
        }

        /// # Safety
        ///
        /// `input` can be read and `output` written for `N` sets.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn ctr_sets<const N: usize>(keys: &RoundKeys, counter: &[u32; 4], input: *const u8, output: *mut u8) {
            let [a, b, c, count] = *counter;
            let mut sets = [[splat(a), splat(b), splat(c), zero()]; N];
            let mut count = count;
            for set in &mut sets {
                set[3] = add(splat(count), offsets());
                count = count.wrapping_add(4 * LANES as u32);
            }
            rounds(keys, &mut sets);
            for (at, set) in sets.into_iter().enumerate() {
                for (part, stream) in to_blocks(set).into_iter().enumerate() {
                    let at = at * SET + part * WIDTH;
                    // SAFETY: vector `part` of four, of set `at` of `N`; it is read before it is written.
                    unsafe { store(output.add(at), xor(load(input.add(at)), stream)) };
                }
            }
        }

        /// Adds the encryption of the counter and its successors; the last word counts and wraps.
        #[target_feature(enable = $features)]
        pub(super) fn ctr(keys: &RoundKeys, counter: &[u32; 4], data: InOut<'_>) {
            let mut counter = *counter;
            let mut rest = data;
            while rest.len() >= SET {
                let sets = (rest.len() / SET).min(SETS);
                let (now, later) = rest.split_at(sets * SET);
                let (input, output) = now.pointers();
                // SAFETY: `now` has as many whole sets, at most SETS.
                unsafe { by_sets!(now, ctr_sets(keys, &counter, input, output)) };
                counter[3] = counter[3].wrapping_add((sets * 4 * LANES) as u32);
                rest = later;
            }
            if !rest.is_empty() {
                let mut set = padded::<SET>(rest.input());
                let place = set.as_mut_ptr();
                // SAFETY: the copy is a set.
                unsafe { ctr_sets::<1>(keys, &counter, place, place) };
                rest.put(&set);
                set.zeroize();
            }
        }

        /// `before` is the block of ciphertext before the first, and afterwards that before the next.
        ///
        /// # Safety
        ///
        /// `input` can be read and `output` written for `N` sets.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn cbc_sets<const N: usize>(
            keys: &RoundKeys,
            before: &mut [u8; BLOCK_LENGTH],
            input: *const u8,
            output: *mut u8,
        ) {
            let mut sets = [[zero(); 4]; N];
            for (at, set) in sets.iter_mut().enumerate() {
                // SAFETY: set `at` of `N`.
                *set = unsafe { load_words(input.add(at * SET)) };
            }
            // The vector that begins a block early, with the block from before.
            let mut first = [0; WIDTH];
            let (head, tail) = first.split_at_mut(BLOCK_LENGTH);
            head.copy_from_slice(before);
            // SAFETY: the first WIDTH - BLOCK_LENGTH bytes and the last block of the input.
            unsafe {
                std::ptr::copy_nonoverlapping(input, tail.as_mut_ptr(), WIDTH - BLOCK_LENGTH);
                *before = input.add(N * SET - BLOCK_LENGTH).cast::<[u8; BLOCK_LENGTH]>().read();
            }
            rounds(keys, &mut sets);
            // From the end: what is written then is no ciphertext that a vector before it needs, even in place.
            for (at, set) in sets.into_iter().enumerate().rev() {
                for (part, plain) in to_blocks(set).into_iter().enumerate().rev() {
                    let place = at * SET + part * WIDTH;
                    // SAFETY: vector `part` of four, of set `at` of `N`; only the very first has no block before it.
                    unsafe {
                        let early = if place == 0 { first.as_ptr() } else { input.add(place - BLOCK_LENGTH) };
                        store(output.add(place), xor(load(early), plain));
                    }
                }
            }
        }

        /// Decrypts whole blocks and adds the block of ciphertext before each; `before` is that of the first.
        #[target_feature(enable = $features)]
        pub(super) fn cbc_decrypt(keys: &RoundKeys, before: &[u8; BLOCK_LENGTH], data: InOut<'_>) {
            let mut before = *before;
            let mut rest = data;
            while rest.len() >= SET {
                let sets = (rest.len() / SET).min(SETS);
                let (now, later) = rest.split_at(sets * SET);
                let (input, output) = now.pointers();
                // SAFETY: `now` has as many whole sets, at most SETS.
                unsafe { by_sets!(now, cbc_sets(keys, &mut before, input, output)) };
                rest = later;
            }
            if !rest.is_empty() {
                let mut set = padded::<SET>(rest.input());
                let place = set.as_mut_ptr();
                // SAFETY: the copy is a set.
                unsafe { cbc_sets::<1>(keys, &mut before, place, place) };
                rest.put(&set);
                set.zeroize();
            }
        }
    };
}

pub(super) use {by_sets, modes, transpose};

/// A copy with zeros after it.
pub(super) fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut copy = [0; N];
    let length = bytes.len().min(N);
    copy.split_at_mut(length).0.copy_from_slice(bytes.split_at(length).0);
    copy
}
