//! How large flows are: the distribution of `bytes` over the records that stand for traffic.
//!
//! As an HDR histogram with three digits that count: a percentile is within a thousandth of the truth. It grows with
//! the greatest value, to some 450 kB for 2^64 - 1 bytes; usual flow logs need 100 to 200 kB.

use std::ops::AddAssign;

use hdrhistogram::Histogram;

use super::route::RoutedBatch;
use super::top::RowsOf;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::{FieldId, LogStatus};

/// Digits of a value that are kept.
const DIGITS: u8 = 3;

/// Bits of a value that are kept: as many as an HDR histogram of three digits keeps.
const KEPT_BITS: u32 = 11;

/// The sizes of some flows: counts by place, in the order of values. The places are those of the HDR histogram that
/// percentiles are read off, but a count takes half of the instructions (26 for 49).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowSizes {
    counts: Vec<u64>,
    max: u64,
}

/// The place of a value: itself below 2^11, then 2^10 places for each further bit.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a place is below 2^16")]
const fn place_of(bytes: u64) -> usize {
    let shift = (u64::BITS - bytes.leading_zeros()).saturating_sub(KEPT_BITS);
    ((shift as usize) << (KEPT_BITS - 1)) + (bytes >> shift) as usize
}

/// The least value of a place.
const fn least_of(place: usize) -> u64 {
    let shift = (place >> (KEPT_BITS - 1)).saturating_sub(1);
    ((place - (shift << (KEPT_BITS - 1))) as u64) << shift
}

/// What reports say of sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeQuantiles {
    /// Half of the records have no more.
    pub p50: u64,
    /// Nine of ten have no more.
    pub p90: u64,
    /// All but one of a hundred have no more.
    pub p99: u64,
    /// All but one of a thousand have no more.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl FlowSizes {
    /// Counts a record.
    #[inline]
    pub fn record(&mut self, bytes: u64) {
        self.record_many(bytes, 1);
    }

    #[inline]
    fn record_many(&mut self, bytes: u64, count: u64) {
        let place = place_of(bytes);
        if place >= self.counts.len() {
            self.grow(place);
        }
        self.counts[place] += count;
        self.max = self.max.max(bytes);
    }

    #[cold]
    fn grow(&mut self, place: usize) {
        self.counts.resize((place + 1).next_multiple_of(1 << (KEPT_BITS - 1)), 0);
    }

    /// Counts the records that `shard` is to look at, late ones too.
    pub fn add(&mut self, routed: &RoutedBatch, shard: usize) {
        let batch = &routed.batch;
        let Some(bytes) = batch.counters(FieldId::Bytes) else { return };
        let statuses = batch.log_statuses();
        for row in routed.top_rows(RowsOf::AnyShard, shard) {
            let status = statuses.and_then(|statuses| statuses.get(row));
            if status.unwrap_or_default() == LogStatus::Ok
                && let Some(bytes) = bytes.get(row)
            {
                self.record(bytes);
            }
        }
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Values at the lower ends of places, with their counts.
    fn counted(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        counts.map(|(place, count)| (least_of(place), count))
    }

    /// The percentiles; `None` without a record.
    #[must_use]
    pub fn quantiles(&self) -> Option<SizeQuantiles> {
        let histogram = Histogram::<u64>::new(DIGITS);
        let mut histogram = histogram.expect("a constant within what the crate allows");
        for (bytes, count) in self.counted() {
            histogram.record_n(bytes, count).expect("it grows to hold any value");
        }
        // The upper end of a place may be beyond the largest value in it.
        let max = self.max;
        let at = |quantile| histogram.value_at_quantile(quantile).min(max);
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(at);
        (!histogram.is_empty()).then_some(SizeQuantiles { p50, p90, p99, p999, max })
    }

    /// Bytes of memory held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }

    /// Writes the sizes that are there, with their counts.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        let counted: Vec<u64> = self.counted().flat_map(|(bytes, count)| [bytes, count]).collect();
        out.plain(&counted);
        out.u64(self.max);
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// If the bytes are no sizes.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("flow sizes", 1..=1)?;
        let counted: Vec<u64> = from.plain()?;
        let (pairs, rest) = counted.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(DecodeError::Invalid("flow sizes"));
        }
        let mut sizes = Self::default();
        for [bytes, count] in pairs {
            sizes.record_many(*bytes, *count);
        }
        // A place is named by its lower end.
        sizes.max = from.u64()?;
        Ok(sizes)
    }
}

impl AddAssign<&Self> for FlowSizes {
    fn add_assign(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.max = self.max.max(other.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(bytes: &[u64]) -> FlowSizes {
        let mut sizes = FlowSizes::default();
        bytes.iter().for_each(|bytes| sizes.record(*bytes));
        sizes
    }

    fn check_quantile(sorted: &[u64], got: u64, per_mille: usize) {
        let place = (sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
        let truth = sorted[place];
        assert!(got.abs_diff(truth) <= truth / 1000 + 1, "{got} for {truth}");
    }

    proptest! {
        #[test]
        fn percentiles_are_near_and_sums_of_parts_are_the_whole(
            bytes in prop::collection::vec(
                prop_oneof![0_u64..3000, 0_u64..10_000_000_000, Just(u64::MAX)],
                1..200,
            ),
            split in any::<prop::sample::Index>(),
        ) {
            let whole = sizes(&bytes);
            let (left, right) = bytes.split_at(split.index(bytes.len()));
            let mut merged = sizes(left);
            merged += &sizes(right);
            prop_assert_eq!(&merged, &whole);
            let mut saved = Encoder::default();
            whole.save(&mut saved);
            let loaded = FlowSizes::load(&mut Decoder::new(&saved.into_bytes())).unwrap();
            prop_assert_eq!(&loaded, &whole);
            let mut sorted = bytes;
            sorted.sort_unstable();
            let got = whole.quantiles().unwrap();
            let shares = [(got.p50, 500), (got.p90, 900), (got.p99, 990), (got.p999, 999)];
            for (got, per_mille) in shares {
                check_quantile(&sorted, got, per_mille);
            }
            check_quantile(&sorted, got.max, 1000);
        }
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(FlowSizes::default().quantiles(), None);
        assert_eq!(sizes(&[0]).quantiles().unwrap().max, 0);
    }
}
