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

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Mixer;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;

/// What stands in a slot; all zeroes are a vacant one.
pub trait Stored: Copy + FromBytes + IntoBytes + Immutable {
    /// Whether nothing stands there.
    fn is_vacant(&self) -> bool;
    /// The hash of what it is found by.
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

/// Slots that are saved together, as many as a word has bits.
const GROUP: usize = 64;

/// Set in the first byte of a table that was saved without its vacant slots.
const PACKED: u8 = 0x80;

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

    /// Bytes in use; what is reserved takes none.
    pub(super) const fn bytes(&self) -> usize {
        self.used * size_of::<S>()
    }

    /// Bytes in use once there is room for `entry_count` entries.
    pub(super) const fn bytes_for(&self, entry_count: usize) -> usize {
        let mut used = self.used;
        while used / 16 * 13 < entry_count {
            used = Self::more_than(used);
        }
        used * size_of::<S>()
    }

    /// How many slots come after `used` of them.
    const fn more_than(used: usize) -> usize {
        if used == 0 {
            SLOTS_MIN
        } else if used * size_of::<S>() < RESERVING_BYTES_MIN {
            used * 4
        } else {
            used * 2
        }
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
            let used = Self::more_than(self.used);
            (used, [used; 2])
        } else {
            (self.used * 2, [RESERVED_TIMES, 2].map(|times| self.used * times))
        };
        let memory = reserved.into_iter().find_map(|slots| S::new_vec_zeroed(slots).ok());
        self.move_to(memory.expect("memory for a larger table"), used, mixer);
    }

    fn move_to(&mut self, memory: Vec<S>, used: usize, mixer: &Mixer) {
        let mut moved = Self { memory, used };
        simd::advise_huge_pages(&mut moved.memory);
        self.entries().for_each(|entry| moved.put(*entry, mixer));
        *self = moved;
    }

    /// Looks at each entry, keeps those for which `keep` holds, and returns how many. An entry may be
    /// changed, but not what it is found by. Takes no memory.
    pub(super) fn retain(&mut self, mixer: &Mixer, mut keep: impl FnMut(&mut S) -> bool) -> usize {
        let Some((first_run, first_vacant)) = self.take_first_run() else { return 0 };
        let (vacant, mut kept) = (S::new_zeroed(), 0);
        // As at doubling in place: each entry finds a place at or before the one that it left.
        for index in first_vacant..self.used {
            let mut entry = std::mem::replace(&mut self.memory[index], vacant);
            if !entry.is_vacant() && keep(&mut entry) {
                self.put(entry, mixer);
                kept += 1;
            }
        }
        for mut entry in first_run {
            if keep(&mut entry) {
                self.put(entry, mixer);
                kept += 1;
            }
        }
        kept
    }

    /// Finds places anew for entries that `change` may change in any way.
    pub(super) fn replace_all(&mut self, mixer: &Mixer, mut change: impl FnMut(&mut S)) {
        let mut entries: Vec<S> = self.entries().copied().collect();
        self.memory[..self.used].fill(S::new_zeroed());
        entries.iter_mut().for_each(|entry| {
            change(entry);
            self.put(*entry, mixer);
        });
    }

    /// Gives memory back if `entry_count` entries, which are all, fill less than two thirds of half of it.
    pub(super) fn shrink(&mut self, entry_count: usize, mixer: &Mixer) {
        let mut used = self.used;
        while used > SLOTS_MIN && used / 32 * 13 >= entry_count + entry_count / 2 {
            used /= 2;
        }
        if used < self.used {
            self.move_to(S::new_vec_zeroed(used).expect("memory for a smaller table"), used, mixer);
        }
    }

    /// Bytes that [`Self::save`] writes for `entry_count` entries, which are all.
    pub(super) const fn saved_bytes(&self, entry_count: usize) -> usize {
        self.used / GROUP * size_of::<u64>() + entry_count * size_of::<S>()
    }

    /// Writes the slots in use, a group at a time: a bit for each that says whether something stands there, then what
    /// does. Vacant slots are a third of most tables; leaving them out costs less than writing them.
    pub(super) fn save(&self, out: &mut Encoder) {
        let reserved_times = self.memory.len().checked_div(self.used).unwrap_or(1);
        out.u8(PACKED | u8::try_from(reserved_times).expect("few times"));
        out.count(self.used);
        let mut packed = [S::new_zeroed(); GROUP];
        for group in self.memory[..self.used].chunks_exact(GROUP) {
            let (mut occupied, mut count) = (0_u64, 0);
            for (index, slot) in group.iter().enumerate() {
                packed[count] = *slot;
                let is_occupied = !slot.is_vacant();
                occupied |= u64::from(is_occupied) << index;
                count += usize::from(is_occupied);
            }
            out.u64(occupied);
            out.raw(packed[..count].as_bytes());
        }
    }

    /// Reads what was saved, and says how many entries there are.
    pub(super) fn load(from: &mut Decoder<'_>) -> Result<(Self, usize), DecodeError> {
        let form = from.u8()?;
        let (is_packed, reserved_times) = (form & PACKED != 0, usize::from(form & !PACKED));
        let used = if is_packed {
            from.count_of_groups(GROUP, size_of::<u64>())?
        } else {
            from.count(size_of::<S>())?
        };
        let is_size = used == 0 || used >= SLOTS_MIN && used.is_power_of_two();
        if !is_size || !reserved_times.is_power_of_two() || reserved_times > RESERVED_TIMES {
            return Err(DecodeError::Invalid("table size"));
        }
        let slot_count = used.checked_mul(reserved_times).ok_or(DecodeError::Truncated)?;
        let memory = S::new_vec_zeroed(slot_count).map_err(|_| DecodeError::Truncated)?;
        let mut slots = Self { memory, used };
        simd::advise_huge_pages(&mut slots.memory);
        let in_use = &mut slots.memory[..used];
        if is_packed {
            in_use.chunks_exact_mut(GROUP).try_for_each(|group| load_group(group, from))?;
        } else {
            in_use.as_mut_bytes().copy_from_slice(from.raw(used * size_of::<S>())?);
        }
        let len = slots.entries().count();
        // Every search ends at a vacant slot, so there must be some.
        if len > slots.capacity() {
            return Err(DecodeError::Invalid("table"));
        }
        Ok((slots, len))
    }

    /// Takes as many reserved slots into use as there are.
    ///
    /// Entries are taken out and put back in the order of their slots. Each finds a place at or before
    /// the one that it left, or in the upper half, so no search of a later one is cut by the gap.
    fn double_in_place(&mut self, mixer: &Mixer) {
        let (used, vacant) = (self.used, S::new_zeroed());
        let Some((first_run, first_vacant)) = self.take_first_run() else { return };
        self.used = used * 2;
        for index in first_vacant..used {
            let entry = std::mem::replace(&mut self.memory[index], vacant);
            if !entry.is_vacant() {
                self.put(entry, mixer);
            }
        }
        first_run.into_iter().for_each(|entry| self.put(entry, mixer));
    }

    /// Takes out the entries before the first vacant slot, and says where that is. Their run may have
    /// begun at the end of the table, so they are put back after everything else.
    fn take_first_run(&mut self) -> Option<(Vec<S>, usize)> {
        let used = &mut self.memory[..self.used];
        if used.is_empty() {
            return None;
        }
        let first_vacant = used.iter().position(Stored::is_vacant).expect("a table is never full");
        let first_run = used[..first_vacant].to_vec();
        used[..first_vacant].fill(S::new_zeroed());
        Some((first_run, first_vacant))
    }
}

fn load_group<S: Stored>(group: &mut [S], from: &mut Decoder<'_>) -> Result<(), DecodeError> {
    let mut occupied = from.u64()?;
    let bytes = from.raw(occupied.count_ones() as usize * size_of::<S>())?;
    for bytes in bytes.chunks_exact(size_of::<S>()) {
        let index = occupied.trailing_zeros() as usize;
        group[index].as_mut_bytes().copy_from_slice(bytes);
        if group[index].is_vacant() {
            return Err(DecodeError::Invalid("slot"));
        }
        occupied &= occupied - 1;
    }
    Ok(())
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
    use zerocopy::FromZeros;

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

        #[test]
        fn entries_are_found_after_others_left(
            numbers in prop::collection::hash_set(1_u64..2000, 1..400),
            seed in 0_u64..50,
            divisor in 2_u64..5,
        ) {
            let mixer = Mixer::with_seed(seed);
            let memory = u64::new_vec_zeroed(512).unwrap();
            let mut slots = Slots { memory, used: 512 };
            numbers.iter().for_each(|number| slots.put(*number, &mixer));
            let kept: Vec<u64> = numbers.into_iter().filter(|n| n % divisor != 0).collect();
            prop_assert_eq!(slots.retain(&mixer, |number| *number % divisor != 0), kept.len());
            prop_assert_eq!(slots.entries().count(), kept.len());
            for number in &kept {
                let index = slots.find(mixer.word(*number), |slot| slot == number);
                prop_assert_eq!(*slots.at(index), *number);
            }
        }
    }

    /// Slots with these numbers, saved as before vacant ones were left out.
    fn save_whole(slots: &Slots<u64>, out: &mut Encoder) {
        out.u8(1);
        out.plain(&slots.memory[..slots.used]);
    }

    proptest! {
        #[test]
        fn slots_come_back_as_they_were(
            numbers in prop::collection::hash_set(1_u64..5000, 0..1500),
            seed in 0_u64..50,
            cut in 0_usize..2000,
            flip in 0_usize..2000,
        ) {
            let mixer = Mixer::with_seed(seed);
            let mut slots = Slots::<u64>::new();
            for (count, number) in numbers.iter().enumerate() {
                if count == slots.capacity() {
                    slots.grow(&mixer);
                }
                slots.put(*number, &mixer);
            }
            let mut out = Encoder::default();
            slots.save(&mut out);
            let first_bytes = 9;
            prop_assert_eq!(out.len(), first_bytes + slots.saved_bytes(numbers.len()));
            let mut bytes = out.into_bytes();
            let mut whole = Encoder::default();
            save_whole(&slots, &mut whole);
            for bytes in [&bytes, &whole.into_bytes()] {
                let mut from = Decoder::new(bytes);
                let (loaded, len) = Slots::<u64>::load(&mut from).unwrap();
                prop_assert_eq!(from.finish(), Ok(()));
                prop_assert_eq!(len, numbers.len());
                prop_assert_eq!(&loaded.memory, &slots.memory);
            }
            let cut = cut % bytes.len();
            prop_assert!(Slots::<u64>::load(&mut Decoder::new(&bytes[..cut])).is_err());
            let flip = flip % bytes.len();
            bytes[flip] ^= 1 << (flip % 8);
            // Whatever is made of it, nothing panics.
            let _is_sound = Slots::<u64>::load(&mut Decoder::new(&bytes)).is_ok();
        }
    }
}
