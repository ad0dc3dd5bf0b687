//! Latency histograms, one per thread.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

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

impl LatencyHistogram {
    /// What is said of it in reports.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|quantile| self.quantile(quantile));
        Quantiles { count: self.count(), p50, p90, p99, max }
    }
}

/// What is said of a histogram in reports; displays as `p50 1.2ms p90 3ms p99 40ms max 1.5s`, with two
/// digits that count, which is what the histogram keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Batches.
    pub count: u64,
    /// Half of them took no longer.
    #[serde(rename = "p50_seconds", serialize_with = "seconds")]
    pub p50: Duration,
    /// Nine of ten took no longer.
    #[serde(rename = "p90_seconds", serialize_with = "seconds")]
    pub p90: Duration,
    /// All but one of a hundred took no longer.
    #[serde(rename = "p99_seconds", serialize_with = "seconds")]
    pub p99: Duration,
    /// The longest.
    #[serde(rename = "max_seconds", serialize_with = "seconds")]
    pub max: Duration,
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, max] = [self.p50, self.p90, self.p99, self.max].map(ShortTime);
        write!(f, "p50 {p50} p90 {p90} p99 {p99} max {max}")
    }
}

/// A time with two digits that count, in the unit that keeps it short: `1.2ms`, `45µs`, `110s`.
struct ShortTime(Duration);

impl fmt::Display for ShortTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] =
            [(1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s")];
        let nanoseconds = self.0.as_nanos();
        // Rounded to two digits first: what becomes 1000 of a unit is 1 of the next.
        let mut step = 1;
        while nanoseconds / step >= 100 {
            step *= 10;
        }
        let rounded = (nanoseconds + step / 2) / step * step;
        let is_large_enough = |(unit_ns, _): &&(u128, &str)| rounded >= *unit_ns;
        let (unit_ns, unit) = UNITS.iter().rfind(is_large_enough).unwrap_or(&UNITS[0]);
        let (whole, tenths) = (rounded / unit_ns, rounded % unit_ns * 10 / unit_ns);
        if whole < 10 && tenths > 0 {
            write!(f, "{whole}.{tenths}{unit}")
        } else {
            write!(f, "{whole}{unit}")
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
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

    #[test]
    fn reports_say_two_digits() {
        let check = |nanoseconds: u64, expected: &str| {
            assert_eq!(ShortTime(Duration::from_nanos(nanoseconds)).to_string(), expected);
        };
        check(0, "0ns");
        check(999, "1µs");
        check(1_049, "1µs");
        check(1_250, "1.3µs");
        check(45_400, "45µs");
        check(123_456, "120µs");
        check(1_510_000, "1.5ms");
        check(999_999_999, "1s");
        check(110_000_000_000, "110s");
        let quantiles = histogram(&[1_500_000, 2_500_000, 40_000_000]).quantiles();
        assert_eq!(quantiles.to_string(), "p50 2.5ms p90 40ms p99 40ms max 40ms");
        assert_eq!(Quantiles::default(), LatencyHistogram::new().quantiles());
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
