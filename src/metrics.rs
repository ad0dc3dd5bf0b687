//! Counters of a run: a fixed set, counted locally and added per batch, read by whoever reports.
//!
//! A worker keeps plain [`Counts`] beside its other state and adds them to the run's shared
//! [`Metrics`] once per batch, so that no atomic is touched per record. Kinds of faults and findings are
//! counted where those kinds are known; here are only their totals. Latencies are kept in one
//! [`LatencyHistogram`] per thread and merged when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// The counters of a run, shared by its threads through an `Arc`.
        #[derive(Debug, Default)]
        pub struct Metrics { $($name: AtomicU64,)* }

        /// Plain counts: what a worker has not yet added, or what a run had at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl Metrics {
            /// Adds what a worker counted and leaves it at zero.
            pub fn take(&self, counts: &mut Counts) {
                let counts = std::mem::take(counts);
                $(if counts.$name != 0 {
                    self.$name.fetch_add(counts.$name, Ordering::Relaxed);
                })*
            }

            /// The counts at this moment. Each is exact; two of them may be a batch apart while
            /// workers run.
            #[must_use]
            pub fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Name, one line of help and value of every counter, in a fixed order.
            #[must_use]
            pub fn rows(&self) -> Vec<CounterRow> {
                vec![$(CounterRow {
                    name: stringify!($name),
                    help: concat!($($doc),+).trim_ascii(),
                    value: self.$name,
                },)*]
            }
        }
    };
}

counters! {
    /// Record lines, good and malformed; headers and control messages are not among them.
    records_total,
    /// Record lines that could not be taken.
    records_malformed_total,
    /// Records that came after their window was closed; they are in the totals all the same.
    records_late_total,
    /// Header lines.
    headers_total,
    /// Messages that a source sends about itself, such as CloudWatch's control messages.
    control_messages_total,
    /// Bytes read from disk or network, before decompression.
    read_bytes_total,
    /// Bytes after decompression.
    decoded_bytes_total,
    /// Inputs (files, shards) that ended with a fault.
    inputs_damaged_total,
    /// Requests that a source's service turned away because of its rate limits.
    source_throttled_total,
    /// Requests that a source sent again.
    source_retries_total,
    /// Keys that left a full table.
    keys_evicted_total,
    /// Findings, open and closed.
    findings_total,
    /// Records and findings that a sink took.
    sink_sent_total,
    /// Requests that a sink sent again.
    sink_retries_total,
    /// Records and findings that a sink gave up, by its configuration.
    sink_dropped_total,
}

/// One counter for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The count.
    pub value: u64,
}

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
    fn workers_counts_add_up() {
        let metrics = Metrics::default();
        let mut counts = Counts { records_total: 3, findings_total: 1, ..Counts::default() };
        metrics.take(&mut counts);
        assert_eq!(counts, Counts::default());
        counts.records_total = 4;
        metrics.take(&mut counts);
        let expected = Counts { records_total: 7, findings_total: 1, ..Counts::default() };
        assert_eq!(metrics.snapshot(), expected);
    }

    #[test]
    fn rows_carry_name_help_and_value() {
        let rows = Counts { records_malformed_total: 2, ..Counts::default() }.rows();
        let help = "Record lines that could not be taken.";
        assert!(rows.contains(&CounterRow { name: "records_malformed_total", help, value: 2 }));
        assert!(rows.iter().all(|row| row.name.ends_with("_total") && row.help.ends_with('.')));
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
