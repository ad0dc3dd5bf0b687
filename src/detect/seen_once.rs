//! Keys that were seen lately, by a part of their hash: five bytes each, and what a hash table leaves free.
//!
//! The first stage before a table with large entries: only a key that comes back is worth one. Two sets take
//! turns: when the younger one is full, it becomes the older one. Of a million keys that were never noted some
//! 500 are taken for ones that were.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::codec::{DecodeError, Decoder, Encoder};

/// Bytes of a key at most, in a table that has just grown.
const KEY_BYTES: usize = 12;

/// The sets.
#[derive(Debug)]
pub(super) struct SeenOnce {
    keys_max: usize,
    young: HashSet<u32, FixedState>,
    old: HashSet<u32, FixedState>,
}

impl SeenOnce {
    /// Empty sets that remember at least `keys_max` keys, or as many as `bytes_max` has room for.
    pub(super) fn new(keys_max: usize, bytes_max: usize) -> Self {
        let keys_max = keys_max.min(bytes_max / 2 / KEY_BYTES).max(8);
        Self { keys_max, young: HashSet::default(), old: HashSet::default() }
    }

    /// Notes a key and says whether it was known.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a part of the hash that tables don't go by"
    )]
    pub(super) fn note(&mut self, hash: u64) -> bool {
        let key = hash as u32;
        if self.young.contains(&key) {
            return true;
        }
        if self.young.len() >= self.keys_max {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key);
        self.old.contains(&key)
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.young.allocation_size() + self.old.allocation_size()
    }

    /// Saves the sets.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        for set in [&self.young, &self.old] {
            let keys: BTreeSet<u32> = set.iter().copied().collect();
            out.count(keys.len());
            keys.into_iter().for_each(|key| out.u32(key));
        }
    }

    /// Loads what [`Self::save`] wrote into empty sets; what there is no room for is left out.
    pub(super) fn load(&self, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("keys seen once", 1..=1)?;
        let mut load_set = || {
            let mut set = HashSet::default();
            for _ in 0..from.count(4)? {
                let key = from.u32()?;
                if set.len() < self.keys_max {
                    set.insert(key);
                }
            }
            Ok(set)
        };
        Ok(Self { keys_max: self.keys_max, young: load_set()?, old: load_set()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_a_turn() {
        let mut seen = SeenOnce::new(100, usize::MAX);
        for key in 0..1000_u64 {
            assert!(!seen.note(key), "{key}");
            assert!(seen.note(key));
            if key % 7 == 0 {
                let mut out = Encoder::default();
                seen.save(&mut out);
                let bytes = out.into_bytes();
                seen = SeenOnce::new(100, usize::MAX).load(&mut Decoder::new(&bytes)).unwrap();
            }
            assert!(seen.young.contains(&0) || seen.old.contains(&0) || key >= 100);
        }
        assert!(seen.bytes() < 200 * KEY_BYTES * 2);
    }
}
