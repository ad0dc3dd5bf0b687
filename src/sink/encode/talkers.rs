//! The tops of a window: one JSON object per line, schema `flowgauge.talkers/v1`.

use serde::Serialize;

use crate::aggregate::{Metric, SizeQuantiles, Sums, TalkerWindow, TopRow};
use crate::record::Slot;

/// The name and version of the form.
pub const TALKERS_SCHEMA: &str = "flowgauge.talkers/v1";

/// Appends the window as one line, ended by a line feed.
///
/// # Panics
/// Never: every part of a window has a JSON form, and memory takes all bytes.
pub fn encode(window: &TalkerWindow, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, &form(window)).expect("a window has a JSON form");
    out.push(b'\n');
}

/// The window as it is written in lines and in summaries.
#[must_use]
pub fn form(window: &TalkerWindow) -> impl Serialize {
    let TalkerWindow { spec, start, end, sums, sizes, answer } = window;
    let row = |(rank, row): (u64, &TopRow)| {
        let TopRow { key, sums: of_key, distinct, error_bound, .. } = row;
        let share = share(&spec.top.metric, of_key, sums);
        let error_bound = (*error_bound > 0).then_some(*error_bound);
        let Sums { flows, packets, bytes } = *of_key;
        Row {
            rank,
            key: key.clone(),
            bytes,
            packets,
            flows,
            distinct: *distinct,
            share,
            error_bound,
        }
    };
    Line {
        schema: TALKERS_SCHEMA,
        name: spec.name.clone(),
        by: spec.top.by.iter().map(Slot::name).map(str::to_owned).collect(),
        metric: spec.top.metric.name(),
        window_start: start.to_string(),
        window_end: end.to_string(),
        window_seconds: end.0.saturating_sub(start.0),
        exact: answer.is_exact(),
        error_bound: answer.error_bound,
        evicted: answer.evicted,
        keys: answer.key_count,
        flows: sums.flows,
        packets: sums.packets,
        bytes: sums.bytes,
        flow_bytes: sizes.map(SizesForm::of),
        rows: (1..).zip(&answer.rows).map(row).collect(),
    }
}

/// The form's parts in its order.
#[derive(Serialize)]
struct Line {
    schema: &'static str,
    name: String,
    by: Vec<String>,
    metric: String,
    window_start: String,
    window_end: String,
    window_seconds: i64,
    exact: bool,
    /// The most that a row may be off, and that a key which is not listed may have beyond the last row.
    error_bound: u128,
    /// Entries that left because memory was short.
    #[serde(skip_serializing_if = "is_zero")]
    evicted: u64,
    keys: u64,
    flows: u64,
    packets: u128,
    bytes: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_bytes: Option<SizesForm>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    rank: u64,
    key: Vec<String>,
    bytes: u128,
    packets: u128,
    flows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct: Option<u64>,
    /// Of all traffic of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// How much more the key may have of the metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_bound: Option<u128>,
}

/// Percentiles of the sizes of flows, in bytes, as they are written.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SizesForm {
    p50: u64,
    p90: u64,
    p99: u64,
    #[serde(rename = "p99.9")]
    p999: u64,
    max: u64,
}

impl SizesForm {
    /// The form of these percentiles.
    #[must_use]
    pub const fn of(sizes: SizeQuantiles) -> Self {
        let SizeQuantiles { p50, p90, p99, p999, max } = sizes;
        Self { p50, p90, p99, p999, max }
    }
}

/// What part of all traffic a key has, by the metric that adds up, with six digits.
fn share(metric: &Metric, of_key: &Sums, all: &Sums) -> Option<f64> {
    let (part, whole) = match metric {
        Metric::Bytes => (of_key.bytes, all.bytes),
        Metric::Packets => (of_key.packets, all.packets),
        Metric::Flows => (of_key.flows.into(), all.flows.into()),
        Metric::Distinct(_) => return None,
    };
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e6).round() / 1e6)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{FlowSizes, TalkerSpec, TopAnswer, TopSpec};
    use crate::record::FieldId;
    use crate::units::UnixSeconds;

    fn check(metric: Metric, distinct: Option<u64>, error_bound: u128, expected: &str) {
        let top = TopSpec {
            by: vec![Slot::Known(FieldId::SrcAddr)],
            metric,
            rows_max: 10,
            metric_min: 0,
            window_seconds: None,
        };
        let of_key = Sums { flows: 2, packets: 20, bytes: 300 };
        let key = vec!["10.0.0.1".to_owned()];
        let row = TopRow { window_start: None, key, sums: of_key, distinct, error_bound };
        let mut sizes = FlowSizes::default();
        [100, 200, 600].into_iter().for_each(|bytes| sizes.record(bytes));
        let answer = TopAnswer { key_count: 2, error_bound, rows: vec![row], ..Default::default() };
        let window = TalkerWindow {
            spec: TalkerSpec { name: "senders".to_owned(), top, window_seconds: 300 },
            start: UnixSeconds(0),
            end: UnixSeconds(300),
            sums: Sums { flows: 3, packets: 30, bytes: 900 },
            sizes: sizes.quantiles(),
            answer,
        };
        let mut line = Vec::new();
        encode(&window, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with("}\n") && line.contains(expected), "{line}");
    }

    #[test]
    fn windows_are_lines() {
        check(
            Metric::Bytes,
            None,
            0,
            r#"{"schema":"flowgauge.talkers/v1","name":"senders","by":["srcaddr"],"metric":"bytes","window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:05:00Z","window_seconds":300,"exact":true,"error_bound":0,"keys":2,"flows":3,"packets":30,"bytes":900,"flow_bytes":{"p50":200,"p90":600,"p99":600,"p99.9":600,"max":600},"rows":[{"rank":1,"key":["10.0.0.1"],"bytes":300,"packets":20,"flows":2,"share":0.333333}]}"#,
        );
        check(Metric::Flows, None, 7, r#""share":0.666667,"error_bound":7}"#);
        let ports = Metric::Distinct(Slot::Known(FieldId::DstPort));
        check(ports, Some(2), 0, r#""metric":"distinct:dstport","window_start""#);
    }
}
