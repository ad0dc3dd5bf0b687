//! A set of 64-bit numbers other than 0: eight bytes each, filled in batches.
//!
//! Counts distinct values: a number is (key's number, value). Same layout and growth as
//! [`SumTable`](super::SumTable), without sums.

use zerocopy::FromZeros;

use super::{AHEAD, EMPTY_SHIFT, Mixer, capacity, grown, shift_of, slot_index};
use crate::simd;

/// Numbers other than 0, each once.
#[derive(Debug)]
pub struct NumberSet {
    /// 0 is an empty slot.
    slots: Vec<u64>,
    shift: u32,
    len: usize,
    mixer: Mixer,
    /// Hashes of a batch.
    hashes: Vec<u64>,
}

impl NumberSet {
    /// An empty set.
    #[must_use]
    pub const fn new(mixer: Mixer) -> Self {
        Self { slots: Vec::new(), shift: EMPTY_SHIFT, len: 0, mixer, hashes: Vec::new() }
    }

    /// How many numbers it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All numbers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().copied().filter(|number| *number != 0)
    }

    /// Takes up those of `numbers` that it does not hold.
    ///
    /// # Panics
    /// If one of them is 0.
    pub fn insert_all(&mut self, numbers: &[u64]) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(numbers.iter().map(|number| self.mixer.word(*number)));
        for (index, (number, hash)) in numbers.iter().zip(&hashes).enumerate() {
            if let Some(later) = hashes.get(index + AHEAD) {
                simd::prefetch(&self.slots, slot_index(*later, self.shift));
            }
            self.insert(*number, *hash);
        }
        self.hashes = hashes;
    }

    fn insert(&mut self, number: u64, hash: u64) {
        assert!(number != 0, "0 is the mark of an empty slot");
        if self.len == capacity(self.slots.len()) {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut index = slot_index(hash, self.shift);
        while self.slots[index & mask] != number {
            if self.slots[index & mask] == 0 {
                self.slots[index & mask] = number;
                self.len += 1;
                return;
            }
            index += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let slot_count = grown::<u64>(self.slots.len());
        let mut slots = u64::new_vec_zeroed(slot_count).expect("memory for a larger set");
        simd::advise_huge_pages(&mut slots);
        let shift = shift_of(slot_count);
        let mask = slot_count - 1;
        for number in self.iter() {
            let mut index = slot_index(self.mixer.word(number), shift);
            while slots[index & mask] != 0 {
                index += 1;
            }
            slots[index & mask] = number;
        }
        (self.slots, self.shift) = (slots, shift);
    }
}
