//! What keys may have lost since entries left a table that had reached its limit.
//!
//! The least important half of the entries leaves at once: those whose value *may be* the least. A key
//! that left with the value `v`, and may have lost `e` before, can't have had more than `v + e`; the
//! greatest such sum that ever left is the *bound*: no key that is not in the table has had more, and a
//! key that comes (back) may have lost that much. This is Misra and Gries' algorithm in the bulk form of
//! Anderson et al., "A High-Performance Algorithm for Identifying Frequent Items in Data Streams" (IMC
//! 2017, the frequent-items sketch of Apache DataSketches), but for one thing: there the threshold is taken
//! off every entry that stays. Here sums stay whole and each key knows what it was spared, so that a sum is
//! never more than the truth, the bound of each key is its own, and a key that never left is exact.
//!
//! What stays has at least as much above the old bound as the rise, and that is at least half of the
//! entries; so all rises together are at most `2 × total / entries` (ibid., theorem 3).
//!
//! Losses are counted in units of a power of two, so that 32 bits per key will do. Bounds are rounded up,
//! what was spared is rounded down.

use crate::codec::{DecodeError, Decoder, Encoder};

/// The bound in units, at most. Half of what 32 bits hold, so that two of them can be added.
const UNITS_MAX: u64 = 1 << 31;

/// No sum of 2^48 records comes near to it.
const GREATEST_MAX: u128 = 1 << 127;

/// A unit with which [`UNITS_MAX`] are [`GREATEST_MAX`].
const SHIFT_MAX: u32 = 96;

/// The losses of one table, in the metric of its question.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// A unit is 2^this.
    shift: u32,
    /// What a key that is not in the table may have had, in units.
    bound: u64,
    /// By number of the key: how much less than that it may have lost, in units. Keys beyond the end came
    /// after the last purge: they may have lost all of the bound.
    spared: Vec<u32>,
    /// Entries that left. A key that came back and left again counts twice.
    evicted: u64,
}

impl Loss {
    /// Entries that left.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What a key that is not in the table may have had.
    pub(super) fn of_missing(&self) -> u128 {
        u128::from(self.bound) << self.shift
    }

    /// What the key with this number may have lost.
    #[inline]
    pub(super) fn of(&self, number: u32) -> u128 {
        u128::from(self.bound - u64::from(self.spared(number))) << self.shift
    }

    /// What the key with this number was spared, in units.
    #[inline]
    fn spared(&self, number: u32) -> u32 {
        self.spared.get(number as usize).copied().unwrap_or(0)
    }

    /// The same losses, of keys that have new numbers.
    pub(super) fn renumbered(&self) -> Self {
        Self { spared: Vec::new(), ..*self }
    }

    /// Takes over what a key of `others` was spared, by its number here, beside what it has.
    pub(super) fn take_over(&mut self, number: u32, others: &Self, others_number: u32) {
        let spared = others.spared(others_number);
        let spared = spared.checked_shr(self.shift - others.shift).unwrap_or(0);
        if spared == 0 {
            return;
        }
        let place = number as usize;
        if place >= self.spared.len() {
            self.spared.resize(place + 1, 0);
        }
        self.spared[place] += spared;
    }

    /// Notes that entries left, the greatest of which may have had `greatest`. The keys that stay have
    /// the numbers up to `last_number`.
    pub(super) fn entries_left(&mut self, count: u64, greatest: u128, last_number: u32) {
        self.evicted += count;
        self.spared.resize(last_number as usize + 1, 0);
        let rise = self.units(greatest).saturating_sub(self.bound);
        let rise = u32::try_from(rise).expect("at most UNITS_MAX");
        self.bound += u64::from(rise);
        self.spared.iter_mut().for_each(|spared| *spared += rise);
    }

    /// Takes over the bound of another table, some of whose keys are to be taken over. What they were
    /// spared may be told afterwards.
    pub(super) fn add_bound(&mut self, other: &Self) {
        while self.shift < other.shift {
            self.coarsen();
        }
        self.add_to_all(other.of_missing());
    }

    /// Raises the bound for all keys.
    pub(super) fn add_to_all(&mut self, lost: u128) {
        self.bound += self.units(lost);
        while self.bound > UNITS_MAX {
            self.coarsen();
        }
    }

    /// How many units that is, rounded up, once they are large enough for [`UNITS_MAX`] of them.
    fn units(&mut self, value: u128) -> u64 {
        let value = value.min(GREATEST_MAX);
        loop {
            match u64::try_from(value.div_ceil(1 << self.shift)) {
                Ok(units) if units <= UNITS_MAX => return units,
                _ => self.coarsen(),
            }
        }
    }

    /// Counts entries of another table as left from here.
    pub(super) const fn add_evicted(&mut self, other: &Self) {
        self.evicted += other.evicted;
    }

    fn coarsen(&mut self) {
        self.shift += 1;
        self.bound = self.bound.div_ceil(2);
        self.spared.iter_mut().for_each(|spared| *spared >>= 1);
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.spared.capacity() * size_of::<u32>()
    }

    /// Bytes of memory in use. Hangs on what is in it alone.
    pub(super) const fn bytes_in_use(&self) -> usize {
        self.spared.len() * size_of::<u32>()
    }

    pub(super) fn save(&self, out: &mut Encoder) {
        out.u32(self.shift);
        out.u64(self.bound);
        out.u64(self.evicted);
        out.plain(&self.spared);
    }

    /// Reads the losses of keys with numbers up to `last_number`.
    pub(super) fn load(last_number: u32, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (shift, bound, evicted) = (from.u32()?, from.u64()?, from.u64()?);
        let spared: Vec<u32> = from.plain()?;
        let is_valid = shift <= SHIFT_MAX
            && bound <= UNITS_MAX
            && spared.iter().all(|spared| u64::from(*spared) <= bound)
            && spared.len() <= last_number as usize + 1
            && evicted < 1 << 63;
        if !is_valid {
            return Err(DecodeError::Invalid("bound of a top"));
        }
        Ok(Self { shift, bound, spared, evicted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stays_is_spared_what_others_may_have_lost() {
        let mut loss = Loss::default();
        loss.entries_left(5, 10, 2);
        assert_eq!((loss.of(1), loss.of(2), loss.of(3), loss.of_missing()), (0, 0, 10, 10));
        let mut next = loss.renumbered();
        // The second and the new one stay.
        next.take_over(1, &loss, 2);
        next.take_over(2, &loss, 3);
        next.entries_left(1, 15, 2);
        assert_eq!((next.of(1), next.of(2), next.of_missing()), (0, 10, 15));
        assert_eq!(next.evicted(), 6);
    }

    #[test]
    fn bounds_beyond_32_bits_are_rounded_up() {
        let mut loss = Loss::default();
        loss.entries_left(1, 3, 1);
        let mut next = loss.renumbered();
        next.take_over(1, &loss, 1);
        let greatest = (1 << 100) + 1;
        next.entries_left(1, greatest, 1);
        assert!(next.of_missing() >= greatest && next.of_missing() < greatest + (1 << 70));
        assert!(next.of(1) <= 1 << 71);
        next.entries_left(1, u128::MAX, 1);
        assert_eq!(next.of_missing(), GREATEST_MAX);
    }

    #[test]
    fn losses_of_two_tables_add_up() {
        let (mut one, mut other) = (Loss::default(), Loss::default());
        one.entries_left(1, 10, 1);
        other.entries_left(1, 1 << 40, 1);
        one.add_bound(&other);
        one.take_over(2, &other, 1);
        // The first may have lost what the other table lost; the second what this one lost.
        assert!(one.of(1) >= 1 << 40);
        assert!((10..1 << 12).contains(&one.of(2)));
        assert!(one.of_missing() >= (1 << 40) + 10);
    }
}
