//! Which keys were seen lately, though nothing else is known of them any more.
//!
//! A key that leaves a full table is noted here in a few bits: a Bloom filter whose bits of one key lie in
//! one cache line (Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters"). Two filters
//! take turns: when the younger one holds as many keys as it is made for, it becomes the older one, and that one
//! is emptied. So a key is remembered until between one and two times that many others have left after it.
//! About one key in thirty that was never noted is taken for one that was.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;

/// Bits of memory per key.
const BITS_PER_KEY: usize = 10;

/// Bits that a key sets.
const BITS_SET: u32 = 5;

/// Words of a cache line.
const LINE_WORDS: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(64))]
struct Line([u64; LINE_WORDS]);

/// The filters; they take no memory before the first key.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    line_count: usize,
    keys_max: usize,
    young: Vec<Line>,
    old: Vec<Line>,
    key_count: usize,
}

impl Doorkeeper {
    /// Filters that remember at least `keys_max` keys.
    pub(super) fn new(keys_max: usize) -> Self {
        let line_count = (keys_max * BITS_PER_KEY).div_ceil(LINE_WORDS * 64).max(1);
        Self { line_count, keys_max, young: Vec::new(), old: Vec::new(), key_count: 0 }
    }

    /// How many keys filters of `bytes` remember at least.
    pub(super) const fn keys_in(bytes: usize) -> usize {
        bytes / 2 / LINE_WORDS / 8 * LINE_WORDS * 64 / BITS_PER_KEY
    }

    /// Asks for the memory that [`Self::has`] will read.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if !self.young.is_empty() {
            let (line, _) = self.place(hash);
            simd::prefetch(&self.young, line);
            simd::prefetch(&self.old, line);
        }
    }

    /// Whether the key was noted lately.
    pub(super) fn has(&self, hash: u64) -> bool {
        if self.young.is_empty() {
            return false;
        }
        let (line, bits) = self.place(hash);
        let is_in = |filter: &[Line]| {
            filter[line].0.iter().zip(bits.0).all(|(word, bits)| word & bits == bits)
        };
        is_in(&self.young) || is_in(&self.old)
    }

    /// Notes a key.
    pub(super) fn note(&mut self, hash: u64) {
        if self.young.is_empty() {
            self.young = vec![Line::default(); self.line_count];
            self.old = self.young.clone();
        }
        if self.key_count == self.keys_max {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.fill(Line::default());
            self.key_count = 0;
        }
        let (line, bits) = self.place(hash);
        self.young[line].0.iter_mut().zip(bits.0).for_each(|(word, bits)| *word |= bits);
        self.key_count += 1;
    }

    /// The line of a key and its bits in it.
    #[expect(clippy::cast_possible_truncation, reason = "halves and lower bits are wanted")]
    fn place(&self, hash: u64) -> (usize, Line) {
        // The table's index goes by the upper half of the hash as it is.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash >> 29;
        let line = ((u128::from(mixed) * self.line_count as u128) >> 64) as usize;
        let mut bits = Line::default();
        let mut rest = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ hash;
        for _ in 0..BITS_SET {
            bits.0[(rest >> 6) as usize % LINE_WORDS] |= 1 << (rest & 63);
            rest >>= 9;
        }
        (line, bits)
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * size_of::<Line>()
    }

    /// Saves what was noted.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.count(self.key_count);
        out.plain(&self.young);
        out.plain(&self.old);
    }

    /// Loads what [`Self::save`] wrote. Filters of another size are of no use and are left out.
    pub(super) fn load(keys_max: usize, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("doorkeeper", 1..=1)?;
        let key_count = from.count(0)?;
        let (young, old) = (from.plain::<Line>()?, from.plain::<Line>()?);
        let mut doorkeeper = Self::new(keys_max);
        if young.len() != old.len() {
            return Err(DecodeError::Invalid("doorkeeper"));
        }
        if young.len() == doorkeeper.line_count && key_count <= keys_max {
            doorkeeper = Self { young, old, key_count, ..doorkeeper };
        }
        Ok(doorkeeper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (key ^ key >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ key >> 27
    }

    #[test]
    fn keys_are_remembered_for_a_turn_and_few_are_mistaken() {
        const KEYS_MAX: u64 = 10_000;
        let keys_max = usize::try_from(KEYS_MAX).unwrap();
        let mut doorkeeper = Doorkeeper::new(keys_max);
        assert!(!doorkeeper.has(hash(1)));
        for key in 0..5 * KEYS_MAX {
            doorkeeper.note(hash(key));
            let oldest = key.saturating_sub(KEYS_MAX);
            assert!(doorkeeper.has(hash(oldest)), "{oldest} of {key}");
        }
        let mistaken = (1_000_000..1_100_000).filter(|key| doorkeeper.has(hash(*key))).count();
        assert!(mistaken < 4_000, "{mistaken} of 100000");
        let mut out = Encoder::default();
        doorkeeper.save(&mut out);
        let bytes = out.into_bytes();
        let loaded = Doorkeeper::load(keys_max, &mut Decoder::new(&bytes)).unwrap();
        assert_eq!((loaded.young, loaded.old), (doorkeeper.young, doorkeeper.old));
        let smaller = Doorkeeper::load(100, &mut Decoder::new(&bytes)).unwrap();
        assert_eq!(smaller.bytes(), 0);
        assert!(Doorkeeper::new(Doorkeeper::keys_in(4096)).line_count * 2 * 64 <= 4096);
    }
}
