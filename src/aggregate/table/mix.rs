//! The seeded hash of table keys.
//!
//! Keys are addresses and ports that strangers choose, so it must not be possible to find keys that
//! share slots without knowing the seed. Each step multiplies two 64-bit words, at least one of them
//! hidden by a secret, to 128 bits and folds the halves. One such step is nearly linear: a long
//! arithmetic progression of keys (a scanned subnet) can bunch up under an unlucky secret. The second
//! step with a secret of its own takes that structure away; wyhash and foldhash's `quality` are
//! built in the same way. Two multiplications of three cycles each overlap between the keys of a batch.

/// A hash function drawn by a seed.
#[derive(Clone, Copy, Debug)]
pub struct Mixer {
    secrets: [u64; 8],
}

impl Mixer {
    /// The hash function of `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        let mut state = seed;
        // splitmix64: neighbouring seeds give unrelated secrets.
        let secrets = [(); 8].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            spread(state)
        });
        Self { secrets }
    }

    /// The hash of one word.
    #[inline]
    #[must_use]
    pub const fn word(&self, word: u64) -> u64 {
        let secrets = &self.secrets;
        fold(fold(word ^ secrets[0], secrets[1] | 1) ^ secrets[2], secrets[3] | 1)
    }

    /// The hash of two words.
    #[inline]
    #[must_use]
    pub const fn two_words(&self, one: u64, other: u64) -> u64 {
        let secrets = &self.secrets;
        let first = fold(one ^ secrets[0], other ^ secrets[1]);
        fold(first ^ secrets[2], secrets[3] | 1)
    }

    /// The hash of five words.
    #[inline]
    #[must_use]
    pub const fn five_words(&self, words: &[u64; 5]) -> u64 {
        let secrets = &self.secrets;
        let first = fold(words[0] ^ secrets[0], words[1] ^ secrets[1]);
        let second = fold(words[2] ^ secrets[2], words[3] ^ secrets[3]);
        let third = fold(words[4] ^ secrets[4], first ^ secrets[5]);
        fold(third ^ secrets[6], second ^ secrets[7])
    }
}

/// The halves of the product, one over the other.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
#[inline]
pub(in crate::aggregate) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The last step of splitmix64.
pub(in crate::aggregate) const fn spread(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Progressions and powers of two, which simple hashes bunch, must fill buckets like dice.
    #[test]
    fn structured_keys_spread() {
        let patterns: [fn(u64) -> u64; 5] = [
            |i| i,
            |i| i << 32,
            |i| i << 48 | i,
            |i| i.wrapping_mul(0x0001_0001_0000_0001),
            |i| i * 0x0100_0000,
        ];
        for seed in 0..20 {
            let mixer = Mixer::with_seed(seed);
            for (number, pattern) in patterns.into_iter().enumerate() {
                let mut high = [0_u32; 256];
                let mut low = [0_u32; 256];
                for i in 0..65_536 {
                    let hash = mixer.word(pattern(i));
                    high[(hash >> 56) as usize] += 1;
                    low[(hash & 255) as usize] += 1;
                }
                // 256 expected in each, standard deviation 16.
                let is_even =
                    |counts: &[u32]| counts.iter().all(|count| (150..400).contains(count));
                assert!(is_even(&high) && is_even(&low), "pattern {number}, seed {seed}");
            }
        }
    }

    #[test]
    fn every_word_counts() {
        let mixer = Mixer::with_seed(1);
        let base = mixer.five_words(&[7; 5]);
        let base_of_two = mixer.two_words(7, 7);
        for index in 0..5 {
            for bit in 0..64 {
                let mut words = [7; 5];
                words[index] ^= 1 << bit;
                let changed = (mixer.five_words(&words) ^ base).count_ones();
                assert!((10..55).contains(&changed), "word {index}, bit {bit}: {changed}");
                if let [one, other] = words[..2] {
                    let changed = (mixer.two_words(one, other) ^ base_of_two).count_ones();
                    let expected = if index < 2 { 10..55 } else { 0..1 };
                    assert!(expected.contains(&changed), "word {index}, bit {bit}: {changed}");
                }
            }
        }
    }
}
