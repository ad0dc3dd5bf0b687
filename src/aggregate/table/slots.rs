//! The memory of an open-addressing table, and how it grows.
//!
//! ```text
//! hash:    ……iiii             the low bits are the home bucket; the next bit decides where it goes at growth
//! memory:  [used slots, all zeroed at first][reserved: zeroed, not touched yet]
//! growth:  slot i ──► i or i + used
//! ```
//!
//! The first touch of fresh memory is the dearest step in the life of a table: the kernel clears each page,
//! which takes longer than the upserts that fill it. So larger tables reserve zeroed memory that nothing
//! touches, and double in place: half of the entries stay, the other half go to the same places of the
//! upper half, and both are written in order. A table of 128 MiB touches 170 MiB in all its life
//! instead of 255, and on the way there never has two copies of more than 32 MiB.

use zerocopy::FromZeros;

use super::Mixer;
use crate::simd;

/// What stands in a slot; all zeroes are a vacant one.
pub(super) trait Stored: Copy + FromZeros {
    fn is_vacant(&self) -> bool;
    fn hash(&self, mixer: &Mixer) -> u64;
}

impl Stored for u64 {
    #[inline]
    fn is_vacant(&self) -> bool {
        *self == 0
    }

    #[inline]
    fn hash(&self, mixer: &Mixer) -> u64 {
        mixer.word(*self)
    }
}

/// The fewest slots of a table that holds something.
const SLOTS_MIN: usize = 1 << 10;

/// Tables below this size grow four times, in memory of just their size.
const RESERVING_BYTES_MIN: usize = 512 << 10;

/// How many times its size a larger table reserves. Not more: an allocator that hands out memory which
/// was in use before has to clear all of it, reserved or not.
const RESERVED_TIMES: usize = 4;

/// Slots, a power of two of them in use.
#[derive(Debug)]
pub(super) struct Slots<S> {
    memory: Vec<S>,
    used: usize,
}

impl<S: Stored> Slots<S> {
    /// Slots that are looked at together: those of a cache line, two at most. How far a key stands from
    /// its home is a throw of dice that no branch predictor foresees, and a wrong guess costs more than
    /// a comparison.
    const BUCKET: usize = if size_of::<S>() > 32 { 1 } else { 2 };

    pub(super) const fn new() -> Self {
        Self { memory: Vec::new(), used: 0 }
    }

    /// Entries that may be in the table before it grows: 13/16 of the slots, because fresh memory costs
    /// more than longer probes.
    pub(super) const fn capacity(&self) -> usize {
        self.used / 16 * 13
    }

    /// What stands in the slots in use.
    pub(super) fn entries(&self) -> impl Iterator<Item = &S> {
        self.memory[..self.used].iter().filter(|slot| !slot.is_vacant())
    }

    /// Has the processor fetch the home slot of a hash.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        simd::prefetch(&self.memory, index_of(hash) & self.used.wrapping_sub(1));
    }

    /// The first slot from the home of `hash` on that is vacant or for which `is_wanted` holds. It may
    /// hold for vacant slots too.
    ///
    /// # Panics
    /// If there is no slot.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_wanted: impl Fn(&S) -> bool) -> usize {
        let mask = self.used.wrapping_sub(1);
        let home = index_of(hash) & mask & !(Self::BUCKET - 1);
        let bucket = &self.memory[home..home + Self::BUCKET];
        let hits = bucket.iter().rev().fold(0, |hits, slot| hits << 1 | u32::from(is_wanted(slot)));
        if hits != 0 {
            return home + hits.trailing_zeros() as usize;
        }
        let mut index = home;
        loop {
            let slot = &self.memory[index];
            if slot.is_vacant() || is_wanted(slot) {
                return index;
            }
            index = (index + 1) & mask;
        }
    }

    #[inline]
    pub(super) fn at(&mut self, index: usize) -> &mut S {
        &mut self.memory[index]
    }

    fn put(&mut self, entry: S, mixer: &Mixer) {
        let index = self.find(entry.hash(mixer), |_| false);
        self.memory[index] = entry;
    }

    /// More slots with the same entries.
    ///
    /// # Panics
    /// If the system has no memory left.
    #[cold]
    pub(super) fn grow(&mut self, mixer: &Mixer) {
        if self.used > 0 && self.used * 2 <= self.memory.len() {
            self.double_in_place(mixer);
            return;
        }
        // Where so much address space is refused, less will do.
        let (used, reserved) = if self.used * size_of::<S>() < RESERVING_BYTES_MIN {
            let used = (self.used * 4).max(SLOTS_MIN);
            (used, [used; 2])
        } else {
            (self.used * 2, [RESERVED_TIMES, 2].map(|times| self.used * times))
        };
        let memory = reserved.into_iter().find_map(|slots| S::new_vec_zeroed(slots).ok());
        let mut grown = Self { memory: memory.expect("memory for a larger table"), used };
        simd::advise_huge_pages(&mut grown.memory);
        self.entries().for_each(|entry| grown.put(*entry, mixer));
        *self = grown;
    }

    /// Takes as many reserved slots into use as there are.
    ///
    /// Entries are taken out and put back in the order of their slots. Each finds a place at or before
    /// the one that it left, or in the upper half, so no search of a later one is cut by the gap.
    fn double_in_place(&mut self, mixer: &Mixer) {
        // The first run may have begun at the end of the table, where it belongs after everything else.
        let first_vacant = self.memory.iter().position(Stored::is_vacant);
        let first_vacant = first_vacant.expect("a table is never full");
        let (used, vacant) = (self.used, S::new_zeroed());
        let first_run = self.memory[..first_vacant].to_vec();
        self.memory[..first_vacant].fill(vacant);
        self.used = used * 2;
        for index in first_vacant..used {
            let entry = std::mem::replace(&mut self.memory[index], vacant);
            if !entry.is_vacant() {
                self.put(entry, mixer);
            }
        }
        first_run.into_iter().for_each(|entry| self.put(entry, mixer));
    }
}

/// The bits of a hash that tell slots.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
#[inline]
const fn index_of(hash: u64) -> usize {
    hash as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Runs around the end of the table, full runs and empty ones, at every doubling.
        #[test]
        fn entries_are_found_after_doubling_in_place(
            numbers in prop::collection::hash_set(1_u64..2000, 1..400),
            seed in 0_u64..50,
        ) {
            let mixer = Mixer::with_seed(seed);
            let memory = u64::new_vec_zeroed(1024).unwrap();
            let mut slots = Slots { memory, used: 16 };
            for (count, number) in numbers.iter().enumerate() {
                if count == slots.capacity() {
                    slots.grow(&mixer);
                }
                slots.put(*number, &mixer);
                for earlier in numbers.iter().take(count + 1) {
                    let index = slots.find(mixer.word(*earlier), |slot| slot == earlier);
                    prop_assert_eq!(*slots.at(index), *earlier);
                }
            }
            prop_assert_eq!(slots.memory.len(), 1024);
            prop_assert_eq!(slots.entries().count(), numbers.len());
        }
    }
}
