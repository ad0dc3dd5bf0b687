//! The line of statistics that a stream job logs from time to time: two samples in, one line out, as text
//! for people or as JSON.
//!
//! Whoever knows the pipeline fills [`StatsSample`]s; nothing here reads a clock or a counter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::units::{ByteCount, Grouped, duration_text};

use super::intake::Intake;
use super::latency::Quantiles;

/// What a stream job has done up to a moment, and how it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsSample {
    /// Monotonic time of the sample.
    pub at: Duration,
    /// Record lines so far.
    pub records: u64,
    /// Bytes of text so far.
    pub bytes: u64,
    /// Of the records, those that are malformed.
    pub malformed: u64,
    /// Of the records, those that came too late for their window.
    pub late: u64,
    /// Findings delivered so far, each revision counted.
    pub findings: u64,
    /// Findings that noise control left out so far, each revision counted.
    pub suppressed: u64,
    /// Entries that left full tables so far.
    pub evicted: u64,
    /// How far the event time of inputs (shards, files) is behind wall time, the slowest first and only those.
    pub lags: Vec<(Arc<str>, Duration)>,
    /// Memory of the process in RAM, in bytes, if the system tells.
    pub resident_bytes: Option<u64>,
    /// Memory that the process may use, in bytes.
    pub memory_max_bytes: u64,
    /// How full each channel is, in the order of the stages.
    pub queues: Vec<QueueFill>,
    /// How long batches took by stage, since the start.
    pub latencies: Vec<(&'static str, Quantiles)>,
    /// Age of the newest snapshot, if there is one.
    pub snapshot_age: Option<Duration>,
    /// Since the newest snapshot was copied elsewhere, if one was.
    pub copy_age: Option<Duration>,
    /// How sources that read from a service stand.
    pub intakes: Vec<Intake>,
}

/// How full a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueFill {
    /// The stage that takes from it.
    pub stage: &'static str,
    /// Messages that wait; over all threads of the stage.
    pub waiting: usize,
    /// Messages that it holds at most.
    pub capacity: usize,
}

/// What happened between two samples, and how things stand at the later one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatsLine {
    /// Time between the two.
    #[serde(rename = "interval_seconds", serialize_with = "seconds")]
    pub interval: Duration,
    /// Record lines in that time.
    pub records: u64,
    /// Records per second of that time.
    pub records_per_second: u64,
    /// Bytes of text per second of that time.
    pub bytes_per_second: u64,
    /// Malformed records in that time.
    pub malformed: u64,
    /// Late records in that time.
    pub late: u64,
    /// Findings delivered in that time.
    pub findings: u64,
    /// Findings that noise control left out in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed: u64,
    /// Entries that left full tables in that time.
    pub evicted: u64,
    /// How far the slowest input is behind.
    #[serde(rename = "lag_seconds", serialize_with = "optional_seconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Duration>,
    /// How far inputs are behind, the slowest ones.
    #[serde(rename = "lag_seconds_by_input", serialize_with = "by_input")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lags: Vec<(Arc<str>, Duration)>,
    /// Memory of the process in RAM, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Memory that the process may use, in bytes.
    pub memory_max_bytes: u64,
    /// How full each channel is.
    pub queues: Vec<QueueFill>,
    /// How long batches took by stage, since the start of the run.
    #[serde(serialize_with = "by_stage")]
    pub latencies: Vec<(&'static str, Quantiles)>,
    /// Age of the newest snapshot.
    #[serde(rename = "snapshot_age_seconds", serialize_with = "optional_seconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_age: Option<Duration>,
    /// Since the newest snapshot was copied elsewhere.
    #[serde(rename = "copy_age_seconds", serialize_with = "optional_seconds")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_age: Option<Duration>,
    /// How sources that read from a service stand; counters since the start of the run.
    #[serde(
        rename = "sources",
        serialize_with = "by_source",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub intakes: Vec<Intake>,
}

impl StatsLine {
    /// The line of the time from `earlier` to `later`; a counter that went back counts as nothing.
    #[must_use]
    pub fn between(earlier: &StatsSample, later: &StatsSample) -> Self {
        let interval = later.at.saturating_sub(earlier.at);
        let gain = |of: fn(&StatsSample) -> u64| of(later).saturating_sub(of(earlier));
        let per_second = |count: u64| {
            let nanoseconds = interval.as_nanos().max(1);
            let rate = u128::from(count) * 1_000_000_000 / nanoseconds;
            if interval.is_zero() { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
        };
        let records = gain(|sample| sample.records);
        Self {
            interval,
            records,
            records_per_second: per_second(records),
            bytes_per_second: per_second(gain(|sample| sample.bytes)),
            malformed: gain(|sample| sample.malformed),
            late: gain(|sample| sample.late),
            findings: gain(|sample| sample.findings),
            suppressed: gain(|sample| sample.suppressed),
            evicted: gain(|sample| sample.evicted),
            lag: later.lags.iter().map(|(_, lag)| *lag).max(),
            lags: later.lags.clone(),
            resident_bytes: later.resident_bytes,
            memory_max_bytes: later.memory_max_bytes,
            queues: later.queues.clone(),
            latencies: later.latencies.clone(),
            snapshot_age: later.snapshot_age,
            copy_age: later.copy_age,
            intakes: later.intakes.clone(),
        }
    }
}

/// One line for people: what happened in the interval, then how things stand.
impl fmt::Display for StatsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |bytes: u64| ByteCount(bytes.into());
        let count = |count: u64| Grouped(count.into());
        write!(
            f,
            "{} records/s, {}/s, {} malformed, {} late, {} findings",
            count(self.records_per_second),
            bytes(self.bytes_per_second),
            count(self.malformed),
            count(self.late),
            count(self.findings),
        )?;
        if self.suppressed > 0 {
            write!(f, ", {} suppressed", count(self.suppressed))?;
        }
        if self.evicted > 0 {
            write!(f, ", {} evicted", count(self.evicted))?;
        }
        if let Some(lag) = self.lag {
            write!(f, "; lag {}", duration_text(Duration::from_secs(lag.as_secs())))?;
        }
        if let Some(resident) = self.resident_bytes {
            write!(f, "; memory {} of {}", bytes(resident), bytes(self.memory_max_bytes))?;
        }
        for (index, QueueFill { stage, waiting, capacity }) in self.queues.iter().enumerate() {
            let start = if index == 0 { "; queues" } else { "," };
            write!(f, "{start} {stage} {waiting}/{capacity}")?;
        }
        for (index, (stage, quantiles)) in self.latencies.iter().enumerate() {
            let start = if index == 0 { "; latency" } else { "," };
            write!(f, "{start} {stage} {quantiles}")?;
        }
        if let Some(age) = self.snapshot_age {
            write!(f, "; snapshot {} old", duration_text(Duration::from_secs(age.as_secs())))?;
        }
        if let Some(age) = self.copy_age {
            write!(f, ", copy {} old", duration_text(Duration::from_secs(age.as_secs())))?;
        }
        for intake in &self.intakes {
            write!(f, "; {intake}")?;
        }
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn optional_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

fn by_input<S: Serializer>(
    lags: &[(Arc<str>, Duration)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(lags.iter().map(|(input, lag)| (&**input, lag.as_secs_f64())))
}

fn by_source<S: Serializer>(intakes: &[Intake], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(intakes.iter().map(|intake| (&*intake.source, intake)))
}

fn by_stage<S: Serializer>(
    latencies: &[(&'static str, Quantiles)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(latencies.iter().map(|(stage, quantiles)| (stage, quantiles)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::LatencyHistogram;

    fn samples() -> (StatsSample, StatsSample) {
        let mut histogram = LatencyHistogram::new();
        for milliseconds in 1..=100 {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let earlier = StatsSample {
            at: Duration::from_secs(100),
            records: 1_000,
            bytes: 120_000,
            malformed: 5,
            ..StatsSample::default()
        };
        let later = StatsSample {
            at: Duration::from_secs(160),
            records: 60_001_000,
            bytes: 7_200_120_000,
            malformed: 12,
            late: 3,
            findings: 1_234,
            suppressed: 17,
            evicted: 7,
            lags: vec![("flow/shard-1".into(), Duration::from_millis(2_700))],
            resident_bytes: Some(512_000_000),
            memory_max_bytes: 4_000_000_000,
            queues: vec![
                QueueFill { stage: "parse", waiting: 3, capacity: 8 },
                QueueFill { stage: "judge", waiting: 0, capacity: 16 },
            ],
            latencies: vec![("parse", histogram.quantiles())],
            snapshot_age: Some(Duration::from_secs(4)),
            copy_age: Some(Duration::from_secs(14)),
            intakes: vec![Intake {
                source: "prod".into(),
                inputs: 4,
                behind: vec![("shard-1".into(), Duration::from_secs(3))],
                totals: vec![("records", 7)],
                troubles: vec![("throttled", 2)],
            }],
        };
        (earlier, later)
    }

    #[test]
    fn people_read_one_line() {
        let (earlier, later) = samples();
        assert_eq!(
            StatsLine::between(&earlier, &later).to_string(),
            "1,000,000 records/s, 120 MB/s, 7 malformed, 3 late, 1,234 findings, 17 suppressed, \
             7 evicted; lag 2s; \
             memory 512 MB of 4.00 GB; queues parse 3/8, judge 0/16; \
             latency parse p50 50ms p90 90ms p99 99ms max 100ms; snapshot 4s old, copy 14s old; \
             prod 4 inputs, 3s behind, 2 throttled"
        );
        let nothing = StatsLine::between(&StatsSample::default(), &StatsSample::default());
        assert_eq!(nothing.to_string(), "0 records/s, 0 B/s, 0 malformed, 0 late, 0 findings");
    }

    #[test]
    fn machines_read_fields_with_units() {
        let (earlier, mut later) = samples();
        (later.snapshot_age, later.copy_age) = (None, None);
        let line = serde_json::to_value(StatsLine::between(&earlier, &later)).unwrap();
        let latency = &line["latencies"]["parse"];
        assert_eq!((&latency["count"], &latency["p50_seconds"].is_f64()), (&json!(100), &true));
        let mut line = line.clone();
        line.as_object_mut().unwrap().remove("latencies");
        assert_eq!(
            line,
            json!({
                "interval_seconds": 60.0,
                "records": 60_000_000,
                "records_per_second": 1_000_000,
                "bytes_per_second": 120_000_000,
                "malformed": 7,
                "late": 3,
                "findings": 1_234,
                "suppressed": 17,
                "evicted": 7,
                "lag_seconds": 2.7,
                "lag_seconds_by_input": { "flow/shard-1": 2.7 },
                "resident_bytes": 512_000_000,
                "memory_max_bytes": 4_000_000_000_u64,
                "queues": [
                    { "stage": "parse", "waiting": 3, "capacity": 8 },
                    { "stage": "judge", "waiting": 0, "capacity": 16 },
                ],
                "sources": {
                    "prod": {
                        "inputs": 4,
                        "behind_seconds_by_input": { "shard-1": 3.0 },
                        "totals": { "records": 7 },
                        "troubles": { "throttled": 2 },
                    },
                },
            })
        );
    }

    #[test]
    fn counters_that_went_back_count_as_nothing() {
        let (earlier, later) = samples();
        let line = StatsLine::between(&later, &earlier);
        assert_eq!((line.records, line.records_per_second, line.malformed), (0, 0, 0));
        let same = StatsSample { records: 2_000, ..earlier.clone() };
        assert_eq!(StatsLine::between(&earlier, &same).records_per_second, 0, "no time, no rate");
    }
}
