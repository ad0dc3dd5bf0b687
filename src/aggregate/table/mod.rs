//! Tables for sums per key and for distinct values: open addressing, linear probing, filled in batches.
//!
//! ```text
//! slots:  [key, sums][key, sums][empty][key, sums]…      32 bytes with a 64-bit key, 64 with a wide one
//! ```
//!
//! Out of the cache a look-up is one wait for memory. A batch is hashed first, then each upsert is
//! preceded by the prefetch of a slot some keys later ([`AHEAD`]), so that waits overlap. Memory is
//! zeroed by the kernel, on huge pages where they are offered (`slots`). Where a key stands hangs on a
//! secret (`mix`). Figures are in `benches/README.md`.

mod byte_set;
mod dense;
mod mix;
mod number_set;
mod slots;
mod wide_key;

use zerocopy::FromZeros;

pub(super) use byte_set::ByteSet;
pub use dense::DenseTable;
pub use mix::Mixer;
pub(super) use mix::{fold, spread};
pub use number_set::NumberSet;
use slots::{Slots, Stored};
pub(super) use wide_key::SHORT_TEXT_BYTES;
pub use wide_key::WideKey;

/// How many keys ahead of the upsert a slot is prefetched.
const AHEAD: usize = 24;

/// A key of a [`SumTable`].
pub trait Key: Copy + Eq + FromZeros {
    /// Its hash.
    fn hash(&self, mixer: &Mixer) -> u64;
}

impl Key for u64 {
    #[inline]
    fn hash(&self, mixer: &Mixer) -> u64 {
        mixer.word(*self)
    }
}

impl Key for WideKey {
    #[inline]
    fn hash(&self, mixer: &Mixer) -> u64 {
        mixer.five_words(self.words())
    }
}

/// A table that batches of keys are added to.
pub trait Upsert<K> {
    /// Calls `update` for each key of a batch, in order, with its index and its counts; a new key gets
    /// the number after `*last_number`. `hashes` is scratch.
    ///
    /// # Panics
    /// If numbers run out, which memory does before.
    fn upsert_all(
        &mut self,
        keys: &[K],
        hashes: &mut Vec<u64>,
        last_number: &mut u32,
        update: impl FnMut(usize, &mut Counts),
    );
}

/// What a slot counts. Packets and flows are 32 bits wide and bytes 64; what passes that is the
/// caller's to keep, by the key's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct Counts {
    /// Bytes modulo 2^64.
    pub bytes: u64,
    /// Packets modulo 2^32.
    pub packets: u32,
    /// Records modulo 2^32.
    pub flows: u32,
    /// The key's number as the caller gave it, never 0.
    pub number: u32,
    /// For the caller; 0 in a new slot.
    pub mark: u32,
}

#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Slot<K> {
    key: K,
    /// A number of 0 is a vacant slot.
    counts: Counts,
}

const _: () = assert!(size_of::<Slot<u64>>() == 32 && size_of::<Slot<WideKey>>() == 64);

impl<K: Key> Stored for Slot<K> {
    #[inline]
    fn is_vacant(&self) -> bool {
        self.counts.number == 0
    }

    #[inline]
    fn hash(&self, mixer: &Mixer) -> u64 {
        self.key.hash(mixer)
    }
}

/// Sums per key.
#[derive(Debug)]
pub struct SumTable<K> {
    slots: Slots<Slot<K>>,
    len: usize,
    mixer: Mixer,
}

impl<K: Key> SumTable<K> {
    /// An empty table.
    #[must_use]
    pub fn new(mixer: Mixer) -> Self {
        Self { slots: Slots::new(), len: 0, mixer }
    }

    /// How many keys it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All keys with their counts, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Counts)> {
        self.slots.entries().map(|slot| (&slot.key, &slot.counts))
    }

    /// The counts of `key`, which has this hash.
    #[inline]
    fn upsert(&mut self, key: &K, hash: u64, last_number: &mut u32) -> &mut Counts {
        // A key of zeroes finds a vacant slot in the same way as any other that is not there.
        let mut index = self.slots.find(hash, |slot| slot.key == *key);
        if self.slots.at(index).is_vacant() {
            index = self.make_room(index, hash);
            *last_number = last_number.checked_add(1).expect("memory ends long before 2^32 keys");
            let counts = Counts { number: *last_number, ..Counts::default() };
            *self.slots.at(index) = Slot { key: *key, counts };
        }
        &mut self.slots.at(index).counts
    }

    /// The vacant slot for one more key, which is `index` unless the table must grow.
    fn make_room(&mut self, index: usize, hash: u64) -> usize {
        self.len += 1;
        if self.len <= self.slots.capacity() {
            return index;
        }
        self.slots.grow(&self.mixer);
        self.slots.find(hash, |_| false)
    }
}

impl<K: Key> Upsert<K> for SumTable<K> {
    fn upsert_all(
        &mut self,
        keys: &[K],
        hashes: &mut Vec<u64>,
        last_number: &mut u32,
        mut update: impl FnMut(usize, &mut Counts),
    ) {
        if self.slots.capacity() == 0 && !keys.is_empty() {
            self.slots.grow(&self.mixer);
        }
        hashes.clear();
        hashes.extend(keys.iter().map(|key| key.hash(&self.mixer)));
        hashes.iter().take(AHEAD).for_each(|hash| self.slots.prefetch(*hash));
        for (index, (key, hash)) in keys.iter().zip(&*hashes).enumerate() {
            if let Some(later) = hashes.get(index + AHEAD) {
                self.slots.prefetch(*later);
            }
            update(index, self.upsert(key, *hash, last_number));
        }
    }
}

#[cfg(test)]
mod tests;
