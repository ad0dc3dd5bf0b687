//! The summary of a run as JSON, schema `flowgauge.summary/v1`.
//!
//! Counters are exact integers of any size; field names are AWS's header names. Keys of a top are
//! text, whatever their type.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sequence::MalformedSample;
use super::{RunReport, TalkersReport};
use crate::aggregate::{FlowSizes, Metric, Sums, TopAnswer, TopSpec};
use crate::detect::Suppressed;
use crate::finding::FindingKind;
use crate::record::{FaultKind, Slot};
use crate::sink::encode;
use crate::sink::encode::talkers::SizesForm;

/// The name and version of the summary form.
pub const SUMMARY_SCHEMA: &str = "flowgauge.summary/v1";

/// The summary of a run, ready to be written as JSON.
#[derive(Debug, Serialize)]
pub struct Summary {
    schema: &'static str,
    input: InputSummary,
    records: RecordSummary,
    action: ActionSummary,
    bytes: u128,
    packets: u128,
    time: TimeSummary,
    by_protocol: BTreeMap<usize, SumsSummary>,
    /// Percentiles of the bytes of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_bytes: Option<SizesForm>,
    top: Vec<TopSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    talkers: Option<TalkersSummary>,
    findings: FindingSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<SuppressedSummary>,
    malformed_by_reason: BTreeMap<&'static str, u64>,
    malformed_samples: Vec<SampleSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_inputs: Vec<FailedInputSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_inputs_unnamed: Option<u64>,
    throughput: ThroughputSummary,
}

#[derive(Debug, Serialize)]
struct InputSummary {
    files: u64,
    bytes_read: u64,
    bytes_decoded: u64,
}

#[derive(Debug, Serialize)]
struct RecordSummary {
    total: u64,
    ok: u64,
    nodata: u64,
    skipdata: u64,
    malformed: u64,
    headers: u64,
    late: u64,
    control: u64,
    /// Good records that `--where`, `--since` or `--until` left out; in no other figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    filtered: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ActionSummary {
    accept: u64,
    reject: u64,
}

#[derive(Debug, Serialize)]
struct TimeSummary {
    first_start: Option<i64>,
    last_end: Option<i64>,
}

#[derive(Debug, Serialize)]
struct SumsSummary {
    flows: u64,
    packets: u128,
    bytes: u128,
}

#[derive(Debug, Serialize)]
struct TopSummary {
    by: Vec<String>,
    metric: String,
    exact: bool,
    /// The most that a row may be off, and that a key which is not listed may have beyond the last row.
    error_bound: u128,
    /// Entries that left because memory was short.
    #[serde(skip_serializing_if = "is_zero")]
    evicted: u64,
    /// Keys whose distinct values are estimated because memory was short.
    #[serde(skip_serializing_if = "is_zero")]
    estimated: u64,
    /// Keys that have at least the value asked for with `--min`.
    keys: u64,
    rows: Vec<RowSummary>,
}

/// Tops of windows: how many there were, and the last ones.
#[derive(Debug, Serialize)]
struct TalkersSummary {
    windows: u64,
    last: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct RowSummary {
    #[serde(skip_serializing_if = "Option::is_none")]
    window_start: Option<String>,
    key: Vec<String>,
    bytes: u128,
    packets: u128,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct: Option<u64>,
    /// How much more the key may have of the metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_bound: Option<u128>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Serialize)]
struct FindingSummary {
    total: u64,
    by_kind: BTreeMap<&'static str, u64>,
}

/// What noise control left out, each revision of a finding counted.
#[derive(Debug, Serialize)]
struct SuppressedSummary {
    total: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    allowed: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    below_severity: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    held_back: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unjudged_attempts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct SampleSummary {
    origin: String,
    reason: String,
    column: u16,
    text: String,
}

#[derive(Debug, Serialize)]
struct FailedInputSummary {
    name: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct ThroughputSummary {
    seconds: f64,
    records_per_second: u64,
    bytes_per_second: u64,
    threads: usize,
}

impl Summary {
    /// The summary of `report`, made by `thread_count` threads.
    #[must_use]
    pub fn new(report: &RunReport, thread_count: usize) -> Self {
        let inputs = &report.inputs;
        let totals = &inputs.totals;
        let seconds = report.elapsed.as_secs_f64();
        let protocols = totals.by_protocol.iter().enumerate();
        let by_kind: BTreeMap<&'static str, u64> =
            report.findings_by_kind.iter().map(|(kind, count)| (kind.name(), *count)).collect();
        let faults = FaultKind::ALL.map(|kind| (kind.name(), totals.faults.count(kind)));
        Self {
            schema: SUMMARY_SCHEMA,
            input: InputSummary {
                files: inputs.input_count,
                bytes_read: inputs.bytes_read,
                bytes_decoded: inputs.bytes_decoded,
            },
            records: RecordSummary {
                total: totals.records(),
                ok: totals.ok,
                nodata: totals.nodata,
                skipdata: totals.skipdata,
                malformed: totals.faults.total(),
                headers: totals.headers,
                late: totals.late,
                control: totals.control,
                filtered: (totals.filtered > 0).then_some(totals.filtered),
            },
            action: ActionSummary { accept: totals.accept, reject: totals.reject },
            bytes: totals.bytes,
            packets: totals.packets,
            time: TimeSummary {
                first_start: totals.first_start.map(|moment| moment.0),
                last_end: totals.last_end.map(|moment| moment.0),
            },
            by_protocol: protocols
                .filter(|(_, sums)| sums.flows > 0)
                .map(|(number, sums)| (number, SumsSummary::new(sums)))
                .collect(),
            flow_bytes: report
                .flow_sizes
                .as_ref()
                .and_then(FlowSizes::quantiles)
                .map(SizesForm::of),
            top: report
                .tops
                .iter()
                .zip(&report.answers)
                .map(|(spec, answer)| TopSummary::new(spec, answer))
                .collect(),
            talkers: TalkersSummary::new(&report.talkers),
            findings: FindingSummary { total: by_kind.values().sum(), by_kind },
            suppressed: SuppressedSummary::of(&report.suppressed),
            malformed_by_reason: faults.into_iter().filter(|(_, count)| *count > 0).collect(),
            malformed_samples: inputs.malformed_samples.iter().map(SampleSummary::new).collect(),
            failed_inputs: inputs
                .failed
                .iter()
                .map(|input| FailedInputSummary {
                    name: input.name.to_string(),
                    error: input.message.clone(),
                })
                .collect(),
            failed_inputs_unnamed: Some(inputs.failed_unnamed).filter(|count| *count > 0),
            throughput: ThroughputSummary {
                seconds,
                records_per_second: per_second(totals.records(), seconds),
                bytes_per_second: per_second(inputs.bytes_decoded, seconds),
                threads: thread_count,
            },
        }
    }
}

/// A whole rate, 0 where no time passed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates saturate")]
pub(crate) fn per_second(count: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 }
}

impl SuppressedSummary {
    /// Nothing where nothing was left out.
    fn of(suppressed: &Suppressed) -> Option<Self> {
        let by_kind = |counts: &BTreeMap<FindingKind, u64>| {
            counts.iter().map(|(kind, count)| (kind.name(), *count)).collect()
        };
        (suppressed != &Suppressed::default()).then(|| Self {
            total: suppressed.total(),
            allowed: suppressed.allowed.clone(),
            below_severity: by_kind(&suppressed.below_severity),
            held_back: by_kind(&suppressed.held_back),
            unjudged_attempts: suppressed.unjudged_attempts.clone(),
        })
    }
}

impl SumsSummary {
    const fn new(sums: &Sums) -> Self {
        Self { flows: sums.flows, packets: sums.packets, bytes: sums.bytes }
    }
}

impl TalkersSummary {
    fn new(report: &TalkersReport) -> Option<Self> {
        let form = |window| {
            serde_json::to_value(encode::talkers::form(window)).expect("a window has a JSON form")
        };
        let last = report.last.iter().map(form).collect();
        (report.windows > 0).then_some(Self { windows: report.windows, last })
    }
}

impl TopSummary {
    fn new(spec: &TopSpec, answer: &TopAnswer) -> Self {
        let rows = answer.rows.iter().map(|row| RowSummary {
            window_start: row.window_start.map(|start| start.to_string()),
            key: row.key.clone(),
            bytes: row.sums.bytes,
            packets: row.sums.packets,
            flows: row.sums.flows,
            distinct: match spec.metric {
                Metric::Distinct(_) => row.distinct,
                _ => None,
            },
            error_bound: Some(row.error_bound).filter(|bound| *bound > 0),
        });
        Self {
            by: spec.by.iter().map(|slot: &Slot| slot.name().to_owned()).collect(),
            metric: spec.metric.name(),
            exact: answer.is_exact(),
            error_bound: answer.error_bound,
            evicted: answer.evicted,
            estimated: answer.estimated_count,
            keys: answer.matching_count,
            rows: rows.collect(),
        }
    }
}

impl SampleSummary {
    fn new(sample: &MalformedSample) -> Self {
        let MalformedSample { origin, reason, column, text } = sample.clone();
        Self { origin, reason, column, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::TopRow;
    use crate::record::FieldId;

    #[test]
    fn what_left_shows() {
        let spec = TopSpec {
            by: vec![Slot::Known(FieldId::DstPort)],
            metric: Metric::Flows,
            rows_max: 10,
            metric_min: 0,
            window_seconds: None,
        };
        let row = TopRow {
            window_start: None,
            key: vec!["22".to_owned()],
            sums: Sums { flows: 3, packets: 2, bytes: 1 },
            distinct: None,
            error_bound: 0,
        };
        let mut answer = TopAnswer { matching_count: 1, rows: vec![row], ..TopAnswer::default() };
        let json = |answer: &TopAnswer| {
            serde_json::to_string(&TopSummary::new(&spec, answer)).expect("it has no maps")
        };
        let exact = r#"{"by":["dstport"],"metric":"flows","exact":true,"error_bound":0,"keys":1,"rows":[{"key":["22"],"bytes":1,"packets":2,"flows":3}]}"#;
        assert_eq!(json(&answer), exact);
        (answer.evicted, answer.error_bound, answer.rows[0].error_bound) = (7, 5, 4);
        let bounded = r#"{"by":["dstport"],"metric":"flows","exact":false,"error_bound":5,"evicted":7,"keys":1,"rows":[{"key":["22"],"bytes":1,"packets":2,"flows":3,"error_bound":4}]}"#;
        assert_eq!(json(&answer), bounded);
    }
}
