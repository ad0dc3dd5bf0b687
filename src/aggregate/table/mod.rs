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

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(super) use byte_set::ByteSet;
pub use dense::DenseTable;
pub use mix::Mixer;
pub(super) use mix::{fold, spread};
pub use number_set::NumberSet;
use slots::{Slots, Stored};
pub(super) use wide_key::SHORT_TEXT_BYTES;
pub use wide_key::WideKey;

use crate::codec::{DecodeError, Decoder, Encoder};

/// How many keys ahead of the upsert a slot is prefetched.
const AHEAD: usize = 24;

/// A key of a [`SumTable`].
pub trait Key: Copy + Eq {
    /// The key with its counts, as they stand in the table.
    type Slot: KeySlot<Self>;

    /// Its hash.
    fn hash(&self, mixer: &Mixer) -> u64;
}

/// A key and its counts side by side; a number of 0 is a vacant slot.
pub trait KeySlot<K>: Stored {
    /// A slot with these.
    fn new(key: K, counts: Counts) -> Self;
    /// The key.
    fn key(&self) -> &K;
    /// The key, to be changed.
    fn key_mut(&mut self) -> &mut K;
    /// The counts.
    fn counts(&self) -> &Counts;
    /// The counts, to be changed.
    fn counts_mut(&mut self) -> &mut Counts;
}

/// The slot of a kind of key: types of their own, because only those can be told to hold no padding.
macro_rules! key_slot {
    ($slot:ident, $key:ty, $bytes:literal, $hash:ident, $words:expr) => {
        /// A slot of a table.
        #[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
        #[repr(C)]
        pub struct $slot {
            key: $key,
            counts: Counts,
        }

        const _: () = assert!(size_of::<$slot>() == $bytes);

        impl Key for $key {
            type Slot = $slot;

            #[inline]
            fn hash(&self, mixer: &Mixer) -> u64 {
                mixer.$hash($words(self))
            }
        }

        impl Stored for $slot {
            #[inline]
            fn is_vacant(&self) -> bool {
                self.counts.number == 0
            }

            #[inline]
            fn hash(&self, mixer: &Mixer) -> u64 {
                Key::hash(&self.key, mixer)
            }
        }

        impl KeySlot<$key> for $slot {
            #[inline]
            fn new(key: $key, counts: Counts) -> Self {
                Self { key, counts }
            }

            #[inline]
            fn key(&self) -> &$key {
                &self.key
            }

            #[inline]
            fn key_mut(&mut self) -> &mut $key {
                &mut self.key
            }

            #[inline]
            fn counts(&self) -> &Counts {
                &self.counts
            }

            #[inline]
            fn counts_mut(&mut self) -> &mut Counts {
                &mut self.counts
            }
        }
    };
}

key_slot!(NarrowSlot, u64, 32, word, |key: &u64| *key);
key_slot!(WideSlot, WideKey, 64, five_words, WideKey::words);

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes)]
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

/// Sums per key.
#[derive(Debug)]
pub struct SumTable<K: Key> {
    slots: Slots<K::Slot>,
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
        self.slots.entries().map(|slot| (slot.key(), slot.counts()))
    }

    /// Bytes of memory in use.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// Bytes of memory in use once `more` keys were added.
    #[must_use]
    pub const fn bytes_with(&self, more: usize) -> usize {
        if more == 0 { self.slots.bytes() } else { self.slots.bytes_for(self.len + more) }
    }

    /// Keeps the keys for which `keep` holds, which may change their counts.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut Counts) -> bool) {
        let Self { slots, mixer, .. } = self;
        let mut keep_slot = |slot: &mut K::Slot| {
            let key = *slot.key();
            keep(&key, slot.counts_mut())
        };
        self.len = slots.retain(mixer, &mut keep_slot);
        slots.shrink(self.len, mixer);
    }

    /// Changes keys, which must stay different from each other.
    pub(super) fn rekey(&mut self, mut change: impl FnMut(&mut K)) {
        self.slots.replace_all(&self.mixer, |slot| change(slot.key_mut()));
    }

    /// Bytes that [`Self::save`] writes.
    pub(super) const fn saved_bytes(&self) -> usize {
        self.slots.saved_bytes(self.len)
    }

    /// Writes the table, but for its hash.
    pub(super) fn save(&self, out: &mut Encoder) {
        self.slots.save(out);
    }

    /// Reads a table that had this hash.
    pub(super) fn load(mixer: Mixer, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (slots, len) = Slots::load(from)?;
        Ok(Self { slots, len, mixer })
    }

    /// The counts of `key`, which has this hash.
    #[inline]
    fn upsert(&mut self, key: &K, hash: u64, last_number: &mut u32) -> &mut Counts {
        // A key of zeroes finds a vacant slot in the same way as any other that is not there.
        let mut index = self.slots.find(hash, |slot| slot.key() == key);
        if self.slots.at(index).is_vacant() {
            index = self.make_room(index, hash);
            *last_number = last_number.checked_add(1).expect("memory ends long before 2^32 keys");
            let counts = Counts { number: *last_number, ..Counts::default() };
            *self.slots.at(index) = K::Slot::new(*key, counts);
        }
        self.slots.at(index).counts_mut()
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
