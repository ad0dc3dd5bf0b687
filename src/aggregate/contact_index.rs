//! From the hash of a contact's key to its number: an open-addressing table of 32-bit entries.
//!
//! ```text
//! entry: tag (8 bits of the hash) │ number + 1 (24 bits)        0: free
//! ```
//!
//! The contacts themselves lie elsewhere, one after the other in the order of their first records.
//! Sixteen entries share a cache line, so that looking for a key that isn't there, which is the usual
//! case, costs one line of a table that is a sixteenth of the contacts; a wrong tag costs no look at a
//! contact. Linear probing, no removal.

use crate::simd;

/// How many contacts a table can number.
pub(super) const NUMBERS_MAX: usize = (1 << NUMBER_BITS) - 1;

const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// Smallest number of entries of a table that is not empty.
const ENTRIES_MIN: usize = 1 << 10;

/// The free entry at which looking for a hash ended. As long as it is free, nothing was inserted that
/// would have been found there. That of no table is never free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FreeEntry {
    position: u32,
    /// Length of the table less 1: it is another table if it has grown.
    mask: u32,
}

const _: () = assert!(NUMBERS_MAX * 4 < u32::MAX as usize);

/// Numbers by hash.
#[derive(Debug, Default)]
pub(super) struct ContactIndex {
    /// A power of two, or none at all.
    entries: Vec<u32>,
    used: usize,
}

impl ContactIndex {
    /// An empty table for `count` keys.
    pub(super) fn for_count(count: usize) -> Self {
        Self { entries: free_entries(entry_count_for(count)), used: 0 }
    }

    /// Memory held, in bytes.
    #[inline]
    pub(super) const fn bytes(&self) -> usize {
        self.entries.len() * size_of::<u32>()
    }

    /// Memory of a table that was made for `count` keys, in bytes.
    pub(super) const fn bytes_for(count: usize) -> usize {
        entry_count_for(count) * size_of::<u32>()
    }

    /// Memory after `more` further keys, in bytes.
    #[inline]
    pub(super) const fn bytes_with(&self, more: usize) -> usize {
        let bytes = self.bytes();
        if self.used + more <= self.room() { bytes } else { Self::bytes_for(self.used + more) }
    }

    /// A table of `entry_count` entries if that is a length that tables have, else one for `count` keys.
    pub(super) fn with_entries(entry_count: usize, count: usize) -> Self {
        let is_usual = entry_count.is_power_of_two() && entry_count >= entry_count_for(count);
        if is_usual {
            Self { entries: free_entries(entry_count), used: 0 }
        } else {
            Self::for_count(count)
        }
    }

    /// Number of entries, free ones too.
    pub(super) const fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Empties the table and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.entries.fill(0);
        self.used = 0;
    }

    /// How many keys fit before the table grows.
    pub(super) const fn room(&self) -> usize {
        self.entries.len() / 4 * 3
    }

    /// Asks for the cache line where looking for `hash` begins.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        simd::prefetch(&self.entries, self.first_position(hash) as usize);
    }

    /// A contact that may be the one with `hash`, without looking at it, or where it will go.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Result<u32, FreeEntry> {
        self.find_or_free(hash, |_| true)
    }

    /// Whether looking for the hash would still end at `free`.
    #[inline]
    pub(super) fn is_free(&self, free: FreeEntry) -> bool {
        self.mask() == free.mask && self.entries.get(free.position as usize) == Some(&0)
    }

    /// The number that was inserted with `hash` and for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_or_free(hash, is_it).ok()
    }

    /// As [`Self::find`]; what looked in vain says where the number goes.
    #[inline]
    pub(super) fn find_or_free(
        &self,
        hash: u64,
        mut is_it: impl FnMut(u32) -> bool,
    ) -> Result<u32, FreeEntry> {
        let mask = self.mask();
        if self.entries.is_empty() {
            return Err(FreeEntry { position: 0, mask });
        }
        let mut position = self.first_position(hash);
        loop {
            let entry = self.entries[position as usize];
            if entry == 0 {
                return Err(FreeEntry { position, mask });
            }
            if entry >> NUMBER_BITS == tag_of(hash) {
                let number = (entry & NUMBER_MASK) - 1;
                if is_it(number) {
                    return Ok(number);
                }
            }
            position = (position + 1) & mask;
        }
    }

    /// Whether the next insertion needs [`Self::grow`] first.
    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.used >= self.room()
    }

    /// Adds a number that is not there yet.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if let Err(free) = self.find_or_free(hash, |_| false) {
            self.insert_at(free, hash, number);
        }
    }

    /// As [`Self::insert`], where looking for the number ended.
    #[inline]
    pub(super) fn insert_at(&mut self, free: FreeEntry, hash: u64, number: u32) {
        debug_assert!(self.is_free(free) && !self.is_full());
        debug_assert!((number as usize) < NUMBERS_MAX);
        self.entries[free.position as usize] = (tag_of(hash) << NUMBER_BITS) | (number + 1);
        self.used += 1;
    }

    /// Doubles the table; `hashes` are those of all numbers from 0 on.
    pub(super) fn grow(&mut self, hashes: impl Iterator<Item = u64>) {
        let grown = (self.entries.len() * 2).max(ENTRIES_MIN);
        // The old ones go first, so that both are never there at once.
        self.entries = Vec::new();
        self.entries = free_entries(grown);
        self.used = 0;
        for (number, hash) in (0..).zip(hashes) {
            self.insert(hash, number);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the table's length")]
    const fn first_position(&self, hash: u64) -> u32 {
        hash as u32 & self.mask()
    }

    #[expect(clippy::cast_possible_truncation, reason = "tables have far fewer than 2^32 entries")]
    const fn mask(&self) -> u32 {
        (self.entries.len() as u32).wrapping_sub(1)
    }
}

/// The highest bits of the hash; positions come from the lowest.
const fn tag_of(hash: u64) -> u32 {
    (hash >> 56) as u32
}

const fn entry_count_for(count: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let entries = (count / 3 * 4 + 4).next_power_of_two();
    if entries < ENTRIES_MIN { ENTRIES_MIN } else { entries }
}

fn free_entries(count: usize) -> Vec<u32> {
    let mut entries = vec![0; count];
    simd::advise_huge_pages(&mut entries);
    entries
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_of_keys_says_the_same(keys in prop::collection::vec(0_u64..3000, 0..4000)) {
            // Few positions and tags, so that keys collide in both.
            let hash_of = |key: u64| ((key % 5) << 56) | ((key % 61) * 17);
            let mut known: Vec<u64> = Vec::new();
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            let mut index = ContactIndex::for_count(0);
            for key in keys {
                let hash = hash_of(key);
                let found = index.find_or_free(hash, |number| known[number as usize] == key);
                prop_assert_eq!(found.ok(), model.get(&key).copied());
                let Err(free) = found else { continue };
                let number = u32::try_from(known.len()).unwrap();
                if index.is_full() {
                    index.grow(known.iter().map(|key| hash_of(*key)));
                    prop_assert!(!index.is_free(free), "it was another table's");
                    index.insert(hash, number);
                } else {
                    prop_assert!(index.is_free(free));
                    index.insert_at(free, hash, number);
                }
                prop_assert!(!index.is_free(free));
                known.push(key);
                model.insert(key, number);
            }
            index.clear();
            prop_assert!(known.iter().all(|key| index.find(hash_of(*key), |_| true).is_none()));
        }
    }
}
