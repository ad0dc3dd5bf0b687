//! How large flows are: the distribution of `bytes` over the records that stand for traffic.
//!
//! An HDR histogram with three digits that count: a percentile is within a thousandth of the truth. It grows
//! with the greatest value, to some 450 kB for 2^64 - 1 bytes; usual flow logs need 100 to 200 kB.

use std::ops::AddAssign;

use hdrhistogram::Histogram;

use super::route::RoutedBatch;
use super::top::RowsOf;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::{FieldId, LogStatus};

/// Digits of a value that are kept.
const DIGITS: u8 = 3;

/// The sizes of some flows.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSizes {
    histogram: Histogram<u64>,
    max: u64,
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

impl Default for FlowSizes {
    fn default() -> Self {
        let histogram = Histogram::new(DIGITS);
        Self { histogram: histogram.expect("a constant within what the crate allows"), max: 0 }
    }
}

impl FlowSizes {
    /// Counts a record.
    #[inline]
    pub fn record(&mut self, bytes: u64) {
        self.record_many(bytes, 1);
    }

    fn record_many(&mut self, bytes: u64, count: u64) {
        self.histogram.record_n(bytes, count).expect("it grows to hold any value");
        self.max = self.max.max(bytes);
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
        self.histogram.len()
    }

    /// The percentiles; `None` without a record.
    #[must_use]
    pub fn quantiles(&self) -> Option<SizeQuantiles> {
        // The upper end of a step may be beyond the largest value in it.
        let max = self.max;
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(max);
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(at);
        (!self.histogram.is_empty()).then_some(SizeQuantiles { p50, p90, p99, p999, max })
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.histogram.distinct_values() * size_of::<u64>()
    }

    /// Writes the sizes that are there, with their counts.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        let counted: Vec<u64> = self
            .histogram
            .iter_recorded()
            .flat_map(|step| [step.value_iterated_to(), step.count_at_value()])
            .collect();
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
        // A step is named by its upper end.
        sizes.max = from.u64()?;
        Ok(sizes)
    }
}

impl AddAssign<&Self> for FlowSizes {
    fn add_assign(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("it grows to hold any value");
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
            prop_assert_eq!(loaded.quantiles(), whole.quantiles());
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
