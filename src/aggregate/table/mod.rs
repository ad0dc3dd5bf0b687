//! Tables for sums per key and for distinct values: open addressing, linear probing, filled in batches.
//!
//! ```text
//! hash:   iiii……      the top bits are the slot, so that growth reads and writes both tables in order
//! slots:  [key, sums][key, sums][empty][key, sums]…      32 bytes with a 64-bit key, 64 with a wide one
//! ```
//!
//! Out of the cache a look-up is one wait for memory. A batch is hashed first, then each upsert is
//! preceded by the prefetch of a slot [`AHEAD`] keys later, so that waits overlap. Slots are zeroed
//! memory from the kernel, on huge pages where they are offered; the first touch of memory costs as
//! much as an upsert, so slots are packed and tables are filled to 13/16 before they grow (figures in
//! `benches/README.md`). The slot of a key hangs on a secret: see `mix`.

mod byte_set;
mod dense;
mod mix;
mod number_set;
mod wide_key;

use zerocopy::FromZeros;

pub(super) use byte_set::ByteSet;
pub use dense::DenseTable;
pub use mix::Mixer;
pub use number_set::NumberSet;
pub use wide_key::WideKey;

use crate::simd;

/// How many keys ahead of the upsert a slot is prefetched.
const AHEAD: usize = 24;

/// The fewest slots of a table that holds something.
const SLOTS_MIN: usize = 1 << 10;

/// Tables up to this size grow four times, larger ones twice: small ones leave the cache anyway before
/// the extra room could cost a page.
const FAST_GROWTH_BYTES_MAX: usize = 4 << 20;

/// [`slot_index`]'s shift before there is a slot.
const EMPTY_SHIFT: u32 = 63;

/// Entries that `slots` take before they grow.
const fn capacity(slots: usize) -> usize {
    slots / 16 * 13
}

/// The next number of slots of type `T`.
const fn grown<T>(slots: usize) -> usize {
    if slots == 0 {
        SLOTS_MIN
    } else if slots * size_of::<T>() < FAST_GROWTH_BYTES_MAX {
        slots * 4
    } else {
        slots * 2
    }
}

/// The shift that leaves as many top bits of a hash as number `slots`, a power of two.
const fn shift_of(slots: usize) -> u32 {
    u64::BITS - slots.trailing_zeros()
}

#[expect(clippy::cast_possible_truncation, reason = "the top bits number slots in memory")]
const fn slot_index(hash: u64, shift: u32) -> usize {
    (hash >> shift) as usize
}

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
    /// A number of 0 is an empty slot.
    counts: Counts,
}

const _: () = assert!(size_of::<Slot<u64>>() == 32 && size_of::<Slot<WideKey>>() == 64);

/// Sums per key.
#[derive(Debug)]
pub struct SumTable<K> {
    slots: Vec<Slot<K>>,
    shift: u32,
    len: usize,
    mixer: Mixer,
}

impl<K: Key> SumTable<K> {
    /// An empty table.
    #[must_use]
    pub const fn new(mixer: Mixer) -> Self {
        Self { slots: Vec::new(), shift: EMPTY_SHIFT, len: 0, mixer }
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
        let filled = self.slots.iter().filter(|slot| slot.counts.number != 0);
        filled.map(|slot| (&slot.key, &slot.counts))
    }

    /// The counts of `key`, which has this hash.
    #[inline]
    fn upsert(&mut self, key: &K, hash: u64, last_number: &mut u32) -> &mut Counts {
        let mask = self.slots.len().wrapping_sub(1);
        let mut index = slot_index(hash, self.shift);
        while let Some(slot) = self.slots.get(index & mask) {
            if slot.counts.number == 0 {
                break;
            }
            if slot.key == *key {
                return &mut self.slots[index & mask].counts;
            }
            index += 1;
        }
        self.insert(key, hash, index, last_number)
    }

    /// Makes the slot of a key that the table does not hold; `index` is where the search for it ended.
    fn insert(&mut self, key: &K, hash: u64, index: usize, last_number: &mut u32) -> &mut Counts {
        let mut index = index;
        if self.len == capacity(self.slots.len()) {
            self.grow();
            index = vacant_index(&self.slots, slot_index(hash, self.shift));
        }
        *last_number = last_number.checked_add(1).expect("memory ends long before 2^32 keys");
        self.len += 1;
        let mask = self.slots.len() - 1;
        let slot = &mut self.slots[index & mask];
        *slot = Slot { key: *key, counts: Counts { number: *last_number, ..Counts::default() } };
        &mut slot.counts
    }

    #[cold]
    fn grow(&mut self) {
        let slot_count = grown::<Slot<K>>(self.slots.len());
        let mut slots = Slot::<K>::new_vec_zeroed(slot_count).expect("memory for a larger table");
        simd::advise_huge_pages(&mut slots);
        self.shift = shift_of(slot_count);
        for slot in self.slots.iter().filter(|slot| slot.counts.number != 0) {
            let hash = slot.key.hash(&self.mixer);
            let index = vacant_index(&slots, slot_index(hash, self.shift));
            slots[index] = *slot;
        }
        self.slots = slots;
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
        hashes.clear();
        hashes.extend(keys.iter().map(|key| key.hash(&self.mixer)));
        for (index, (key, hash)) in keys.iter().zip(&*hashes).enumerate() {
            if let Some(later) = hashes.get(index + AHEAD) {
                simd::prefetch(&self.slots, slot_index(*later, self.shift));
            }
            update(index, self.upsert(key, *hash, last_number));
        }
    }
}

/// The first empty slot at or after `index`, around the end.
fn vacant_index<K>(slots: &[Slot<K>], mut index: usize) -> usize {
    let mask = slots.len() - 1;
    while slots[index & mask].counts.number != 0 {
        index += 1;
    }
    index & mask
}
