//! From the hash of a key to its position in a list: an open-addressing table that can be asked ahead.
//!
//! ```text
//! entry: upper half of the hash (32 bits) │ position + 1 (32 bits)        0: free
//! ```
//!
//! Half of the hash stands in the entry, so that the table grows without a look at the keys and a wrong
//! entry nearly never costs one either, and so that an entry can be moved up when one before it leaves. Linear
//! probing.

use crate::simd;

const POSITION_MASK: u64 = 0xffff_ffff;

/// Smallest number of entries of a table that is not empty.
const ENTRIES_MIN: usize = 1 << 6;

/// Positions by hash.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    /// A power of two, or none at all.
    entries: Vec<u64>,
    used: usize,
}

impl KeyIndex {
    /// Asks for the cache line where looking for `hash` begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        simd::prefetch(&self.entries, first_slot(hash, self.entries.len().wrapping_sub(1)));
    }

    /// The position that was inserted with `hash` and for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mask = self.entries.len().checked_sub(1)?;
        let mut slot = first_slot(hash, mask);
        loop {
            let entry = self.entries[slot];
            if entry == 0 {
                return None;
            }
            if (entry ^ hash) & !POSITION_MASK == 0 {
                let position = position_of(entry);
                if is_it(position) {
                    return Some(position);
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Adds a position that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, position: usize) {
        if self.used >= self.entries.len() / 4 * 3 {
            self.grow();
        }
        self.put(entry_of(hash, position));
        self.used += 1;
    }

    /// Moves what was inserted with `hash` at one position to another.
    pub(super) fn replace(&mut self, hash: u64, from: usize, to: usize) {
        let mask = self.entries.len() - 1;
        let (from, to) = (entry_of(hash, from), entry_of(hash, to));
        let mut slot = first_slot(hash, mask);
        while self.entries[slot] != from {
            assert_ne!(self.entries[slot], 0, "the position was inserted");
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = to;
    }

    /// Takes out what was inserted with `hash` at a position.
    pub(super) fn remove(&mut self, hash: u64, position: usize) {
        let mask = self.entries.len() - 1;
        let leaving = entry_of(hash, position);
        let mut hole = first_slot(hash, mask);
        while self.entries[hole] != leaving {
            assert_ne!(self.entries[hole], 0, "the position was inserted");
            hole = (hole + 1) & mask;
        }
        let mut slot = (hole + 1) & mask;
        while self.entries[slot] != 0 {
            let entry = self.entries[slot];
            let way = |from: usize| slot.wrapping_sub(from) & mask;
            if way(first_slot(entry, mask)) >= way(hole) {
                self.entries[hole] = entry;
                hole = slot;
            }
            slot = (slot + 1) & mask;
        }
        self.entries[hole] = 0;
        self.used -= 1;
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<u64>()
    }

    fn grow(&mut self) {
        let mut grown = vec![0; (self.entries.len() * 2).max(ENTRIES_MIN)];
        simd::advise_huge_pages(&mut grown);
        let old = std::mem::replace(&mut self.entries, grown);
        old.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
    }

    fn put(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut slot = first_slot(entry, mask);
        while self.entries[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = entry;
    }
}

fn entry_of(hash: u64, position: usize) -> u64 {
    let number = u32::try_from(position + 1).expect("lists are bounded below 2^32");
    (hash & !POSITION_MASK) | u64::from(number)
}

const fn first_slot(hash: u64, mask: usize) -> usize {
    (hash >> 32) as usize & mask
}

const fn position_of(entry: u64) -> usize {
    (entry & POSITION_MASK) as usize - 1
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_was_inserted(
            // Few different hashes, so that many keys share one.
            keys in prop::collection::hash_set((0_u64..8, 0_u32..40), 0..200),
        ) {
            let hash_of = |(hash, _): &(u64, u32)| hash << 60 | hash << 33;
            let keys: Vec<_> = keys.into_iter().collect();
            let mut index = KeyIndex::default();
            let mut model = HashMap::new();
            for round in 0..2 {
                for (position, key) in keys.iter().enumerate().skip(round) {
                    prop_assert_eq!(index.find(hash_of(key), |at| keys[at] == *key), None);
                    index.insert(hash_of(key), position);
                    model.insert(*key, position);
                }
                for hash in 0..8 {
                    for value in 0..40 {
                        let key = (hash, value);
                        let found = index.find(hash_of(&key), |at| keys[at] == key);
                        prop_assert_eq!(found, model.get(&key).copied());
                    }
                }
                let mut left = HashSet::new();
                for (key, position) in &model {
                    let moved = position + keys.len();
                    index.replace(hash_of(key), *position, moved);
                    left.insert(moved);
                    let is_it = |at| at >= keys.len() && keys[at - keys.len()] == *key;
                    prop_assert_eq!(index.find(hash_of(key), is_it), Some(moved));
                }
                for (key, position) in std::mem::take(&mut model) {
                    let moved = position + keys.len();
                    index.remove(hash_of(&key), moved);
                    left.remove(&moved);
                    for position in &left {
                        let key = &keys[*position - keys.len()];
                        prop_assert!(index.find(hash_of(key), |at| at == *position).is_some());
                    }
                    prop_assert_eq!(index.find(hash_of(&key), |at| at == moved), None);
                }
            }
        }
    }
}
