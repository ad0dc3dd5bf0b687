//! How much the tables of a detector may hold.

use super::doorkeeper::Doorkeeper;
use super::once::Once;

/// Bytes of an index per entry: 8, and half as much again while it grows.
const INDEX_ENTRY_BYTES: usize = 12;

/// How many departed keys are remembered for each key with one attempt.
const REMEMBERED_PER_KEY: usize = 4;

/// Limits of a [`Tracker`](super::tracker::Tracker).
#[expect(clippy::struct_field_names, reason = "each is the most of something")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableLimits {
    /// Values over all keys, those with one attempt among them.
    pub(super) values_max: usize,
    /// Values of the other keys: a quarter is kept for keys with one attempt, which may also take what is free.
    pub(super) tracked_values_max: usize,
    /// Keys with one attempt, not 0.
    pub(super) once_max: usize,
    /// Keys with more.
    pub(super) tracked_keys_max: usize,
    /// What these take, without the index.
    pub(super) tracked_bytes_max: usize,
    /// Departed keys that are remembered.
    pub(super) remembered_max: usize,
}

impl TableLimits {
    /// At most `values_max` values, in at most `bytes_max` bytes.
    ///
    /// Three eighths are the index, growth included; five sixteenths keys with several values, three
    /// sixteenths keys with one attempt, and an eighth remembers keys that left.
    pub(super) fn new(values_max: usize, bytes_max: usize) -> Self {
        let entries = prev_power_of_two(bytes_max / 8 * 3 / INDEX_ENTRY_BYTES);
        let keys_max = entries / 4 * 3;
        let once_max = (bytes_max / 16 * 3 / size_of::<Once>()).min(keys_max / 4 * 3);
        Self {
            values_max,
            tracked_values_max: values_max - values_max / 4,
            once_max: once_max.min(values_max).max(1),
            tracked_keys_max: keys_max - once_max,
            tracked_bytes_max: bytes_max / 16 * 5,
            remembered_max: values_max
                .saturating_mul(REMEMBERED_PER_KEY)
                .min(Doorkeeper::keys_in(bytes_max / 8)),
        }
    }
}

const fn prev_power_of_two(number: usize) -> usize {
    if number == 0 { 0 } else { 1 << number.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_whole() {
        for bytes_max in [1 << 20, 5 << 20, 100 << 20, 1 << 40] {
            let limits = TableLimits::new(usize::MAX, bytes_max);
            let keys_max = limits.once_max + limits.tracked_keys_max;
            let index = (keys_max / 3 * 4).next_power_of_two() * INDEX_ENTRY_BYTES;
            let remembered = limits.remembered_max / 4 * 5;
            let once = limits.once_max * size_of::<Once>();
            let all = index + remembered + once + limits.tracked_bytes_max;
            assert!(all <= bytes_max, "{all} of {bytes_max}");
            assert!(all >= bytes_max / 2, "{all} of {bytes_max}");
        }
        let limits = TableLimits::new(1000, usize::MAX);
        assert_eq!((limits.once_max, limits.remembered_max), (1000, 4000));
    }
}
