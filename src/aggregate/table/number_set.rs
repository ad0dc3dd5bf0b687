//! A set of 64-bit numbers other than 0: eight bytes each, filled in batches.
//!
//! Counts distinct values: a number is (key's number, value). Same layout and growth as
//! [`SumTable`](super::SumTable), without sums.

use super::slots::Slots;
use super::{AHEAD, Mixer};
use crate::codec::{DecodeError, Decoder, Encoder};

/// Numbers other than 0, each once.
#[derive(Debug)]
pub struct NumberSet {
    /// 0 is an empty slot.
    slots: Slots<u64>,
    len: usize,
    mixer: Mixer,
    /// Hashes of a batch.
    hashes: Vec<u64>,
}

impl NumberSet {
    /// An empty set.
    #[must_use]
    pub const fn new(mixer: Mixer) -> Self {
        Self { slots: Slots::new(), len: 0, mixer, hashes: Vec::new() }
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
        self.slots.entries().copied()
    }

    /// Bytes of memory in use.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// Bytes of memory in use once `more` numbers were taken up.
    #[must_use]
    pub const fn bytes_with(&self, more: usize) -> usize {
        if more == 0 { self.slots.bytes() } else { self.slots.bytes_for(self.len + more) }
    }

    /// Writes the set, but for its hash.
    pub(in crate::aggregate) fn save(&self, out: &mut Encoder) {
        self.slots.save(out);
    }

    /// Reads a set that had this hash.
    pub(in crate::aggregate) fn load(
        mixer: Mixer,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let (slots, len) = Slots::load(from)?;
        Ok(Self { slots, len, mixer, hashes: Vec::new() })
    }

    /// Takes up those of `numbers` that it does not hold.
    ///
    /// # Panics
    /// If one of them is 0.
    pub fn insert_all(&mut self, numbers: &[u64]) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(numbers.iter().map(|number| self.mixer.word(*number)));
        hashes.iter().take(AHEAD).for_each(|hash| self.slots.prefetch(*hash));
        for (index, (number, hash)) in numbers.iter().zip(&hashes).enumerate() {
            if let Some(later) = hashes.get(index + AHEAD) {
                self.slots.prefetch(*later);
            }
            self.insert(*number, *hash);
        }
        self.hashes = hashes;
    }

    fn insert(&mut self, number: u64, hash: u64) {
        assert!(number != 0, "0 is the mark of an empty slot");
        if self.len == self.slots.capacity() {
            self.slots.grow(&self.mixer);
        }
        let index = self.slots.find(hash, |slot| *slot == number);
        let slot = self.slots.at(index);
        self.len += usize::from(*slot == 0);
        *slot = number;
    }
}
