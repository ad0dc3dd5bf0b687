//! Latency histograms, one per thread.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Clock;

/// How long batches took in one stage: 1 µs to 60 s, within 1 % or half a microsecond, in some 25 kB.
///
/// What is shorter or longer is counted at that end.
#[derive(Clone, Debug)]
pub struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    const SHORTEST_NS: u64 = 1_000;
    const LONGEST_NS: u64 = 60_000_000_000;

    /// A histogram without any batch.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(Self::SHORTEST_NS, Self::LONGEST_NS, 2);
        Self(histogram.expect("constants within what the crate allows"))
    }

    /// Counts one batch.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(Self::LONGEST_NS);
        self.0.saturating_record(nanoseconds.clamp(Self::SHORTEST_NS, Self::LONGEST_NS));
    }

    /// Does `work` and counts how long it took.
    pub fn time<T>(&mut self, clock: &dyn Clock, work: impl FnOnce() -> T) -> T {
        let began = clock.monotonic();
        let result = work();
        self.record(clock.monotonic().saturating_sub(began));
        result
    }

    /// Adds the batches of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Number of batches.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time within which this share of the batches was done, 0 if there are none.
    ///
    /// # Panics
    /// If `quantile` is not within 0 and 1.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        assert!((0.0..=1.0).contains(&quantile), "a quantile is within 0 and 1");
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUANTILES: [f64; 6] = [0.0, 0.01, 0.5, 0.9, 0.999, 1.0];

    fn histogram(nanoseconds: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        for ns in nanoseconds {
            histogram.record(Duration::from_nanos(*ns));
        }
        histogram
    }

    fn check_quantile(nanoseconds: &[u64], quantile: f64, expected_ns: u64) {
        let got_ns = u64::try_from(histogram(nanoseconds).quantile(quantile).as_nanos()).unwrap();
        let slack_ns = (expected_ns / 100).max(512);
        assert!(got_ns.abs_diff(expected_ns) <= slack_ns, "{got_ns} for {expected_ns}");
    }

    #[test]
    fn quantiles_are_near_and_stay_in_bounds() {
        check_quantile(&[], 0.5, 0);
        check_quantile(&[1_500_000], 0.5, 1_500_000);
        check_quantile(&[5_000, 7_000_000], 0.5, 5_000);
        check_quantile(&[5_000, 7_000_000], 1.0, 7_000_000);
        check_quantile(&[0], 1.0, 1_000);
        check_quantile(&[u64::MAX], 1.0, 60_000_000_000);
    }

    proptest! {
        #[test]
        fn merging_threads_is_recording_in_one(
            nanoseconds in prop::collection::vec(0u64..100_000_000_000, 0..100),
            split in any::<prop::sample::Index>(),
        ) {
            let (left, right) = nanoseconds.split_at(split.index(nanoseconds.len() + 1));
            let mut merged = histogram(left);
            merged.merge(&histogram(right));
            let whole = histogram(&nanoseconds);
            prop_assert_eq!(merged.count(), whole.count());
            for quantile in QUANTILES {
                prop_assert_eq!(merged.quantile(quantile), whole.quantile(quantile));
            }
        }
    }
}
