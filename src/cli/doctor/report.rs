//! Verdicts for people and for programs, schema `flowgauge.doctor/v1`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::KnownFlowLog;
use super::needs::{format_text, preset};
use super::verdict::{Verdict, percent};
use crate::finding::FindingKind;
use crate::record::FaultKind;
use crate::units::{ByteCount, Grouped, UnixSeconds, duration_text};

const SCHEMA: &str = "flowgauge.doctor/v1";
/// How much of a malformed line is shown.
const SAMPLE_CHARS_SHOWN: usize = 160;

/// The report for people.
pub(super) fn text(verdicts: &[Verdict], flow_logs: &[KnownFlowLog]) -> String {
    let mut out = String::new();
    for log in flow_logs {
        flow_log_text(&mut out, log);
    }
    for verdict in verdicts {
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing to a string cannot fail.
        let _is_written = verdict_text(&mut out, verdict).is_ok();
    }
    out
}

fn flow_log_text(out: &mut String, log: &KnownFlowLog) {
    let interval = log
        .aggregation_interval_seconds
        .map_or_else(String::new, |seconds| format!(", intervals of {seconds} s"));
    let _is_written = writeln!(
        out,
        "Flow log {} of {}: {} traffic to {}{interval}",
        log.id, log.resource, log.traffic, log.destination
    )
    .is_ok();
    let line = match (&log.failure, log.format.is_empty()) {
        (_, true) => "  the service did not say its format".to_owned(),
        (_, false) => format!("  format = \"{}\"", log.format),
    };
    out.push_str(&line);
    out.push('\n');
    if let Some(failure) = &log.failure {
        out.push_str("  error: it is not delivered: ");
        out.push_str(failure);
        out.push('\n');
    }
}

fn verdict_text(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let Verdict { survey, .. } = verdict;
    writeln!(out, "Source {} ({})", verdict.name, verdict.kind)?;
    for error in &verdict.errors {
        writeln!(out, "  error: {error}")?;
    }
    if let Some(action) = &verdict.denied_action {
        writeln!(
            out,
            "  missing permission: {action} (`flowgauge iam policy` prints all that are needed)"
        )?;
    }
    for warning in &verdict.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    let grouped = |count: u64| Grouped(count.into());
    let inputs = if verdict.input_count == 1 { "input" } else { "inputs" };
    let rest = if verdict.is_cut { ", there is more" } else { "" };
    writeln!(
        out,
        "  sample       {} of {} {inputs}{rest}",
        ByteCount(verdict.bytes_read.into()),
        verdict.input_count
    )?;
    for (index, (wrapping, count)) in verdict.wrappings.iter().enumerate() {
        let title = if index == 0 { "wrapping" } else { "" };
        let of = if verdict.wrappings.len() > 1 {
            format!(" ({})", grouped(*count))
        } else {
            String::new()
        };
        writeln!(out, "  {title:<12} {wrapping}{of}")?;
    }
    if survey.total() == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "  records      {}: {} ok, {} NODATA ({}), {} SKIPDATA ({}), {} malformed",
        grouped(survey.total()),
        grouped(survey.ok),
        grouped(survey.nodata),
        percent(survey.nodata, survey.total()),
        grouped(survey.skipdata),
        percent(survey.skipdata, survey.total()),
        grouped(survey.faults.total())
    )?;
    format_lines(out, verdict)?;
    time_lines(out, verdict)?;
    for need in &verdict.missing {
        let names: Vec<&str> = need.fields.iter().map(|field| field.name()).collect();
        let affected = if need.indispensable_to.is_empty() {
            String::new()
        } else {
            " (no detector can do without)".to_owned()
        };
        writeln!(out, "  missing      {}: {}{affected}", names.join(" or "), need.cost)?;
    }
    for sample in &survey.samples {
        let text: String =
            String::from_utf8_lossy(&sample.text).chars().take(SAMPLE_CHARS_SHOWN).collect();
        writeln!(out, "  malformed    {}: {}", sample.reason, text.escape_debug())?;
    }
    if let Some(config) = &verdict.config {
        writeln!(out, "  put into the configuration:")?;
        for line in config.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}

fn format_lines(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let Some((layout, origin)) = &verdict.layout else { return Ok(()) };
    let name = preset(layout).map_or_else(String::new, |name| format!(", all of {name}"));
    let origin = match origin.name() {
        "data" => "said by the data",
        "given" => "as given",
        "default" => "AWS's default, as no header says another",
        _ => "guessed from the records",
    };
    writeln!(out, "  format       {} fields{name}, {origin}", layout.field_count())?;
    writeln!(out, "  fields       {}", layout.header())
}

fn time_lines(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let survey = &verdict.survey;
    match survey.interval_seconds() {
        Some(seconds) => writeln!(
            out,
            "  aggregation  {seconds} s (the longest interval is {} s)",
            survey.interval_seconds_max
        )?,
        None => writeln!(out, "  aggregation  not shown by these records")?,
    }
    let (Some(first), Some(newest)) = (survey.first_end, survey.newest_end) else { return Ok(()) };
    writeln!(
        out,
        "  time         {} to {}, {:.1} records a second of it, {} bytes each",
        UnixSeconds(first),
        UnixSeconds(newest),
        rate(verdict),
        survey.line_bytes / survey.total().max(1)
    )?;
    if let Some(lag) = verdict.lag_seconds {
        let delivered = verdict.delivery_seconds.map_or_else(String::new, |seconds| {
            format!(", {} from its end to the service", seconds_text(seconds))
        });
        let end = if verdict.is_cut { " where the sample ends" } else { "" };
        writeln!(out, "  lag          {} behind now{end}{delivered}", seconds_text(lag))?;
    }
    writeln!(
        out,
        "  order        {} come after a later one, by {} at most",
        percent(survey.out_of_order, survey.parsed()),
        seconds_text(survey.disorder_seconds_max)
    )?;
    writeln!(
        out,
        "  interfaces   {}; {} of the records came twice",
        Grouped(u128::from(survey.interface_count)),
        percent(survey.repeated, survey.total())
    )
}

fn seconds_text(seconds: i64) -> String {
    let text = duration_text(std::time::Duration::from_secs(seconds.unsigned_abs()));
    if seconds < 0 { format!("-{text}") } else { text }
}

/// Records per second of event time.
fn rate(verdict: &Verdict) -> f64 {
    let survey = &verdict.survey;
    let span = survey.first_end.zip(survey.newest_end).map_or(0, |(first, newest)| newest - first);
    survey.parsed() as f64 / span.max(1) as f64
}

/// The report for programs, one line.
pub(super) fn json(verdicts: &[Verdict], flow_logs: &[KnownFlowLog]) -> String {
    let sources: Vec<Value> = verdicts.iter().map(verdict_json).collect();
    let mut text =
        json!({ "schema": SCHEMA, "sources": sources, "flow_logs": flow_logs }).to_string();
    text.push('\n');
    text
}

fn verdict_json(verdict: &Verdict) -> Value {
    let survey = &verdict.survey;
    let status = match (verdict.errors.is_empty(), verdict.warnings.is_empty()) {
        (false, _) => "error",
        (true, false) => "warning",
        (true, true) => "ok",
    };
    let faults: serde_json::Map<String, Value> = FaultKind::ALL
        .into_iter()
        .filter(|kind| survey.faults.count(*kind) > 0)
        .map(|kind| (kind.name().to_owned(), json!(survey.faults.count(kind))))
        .collect();
    let samples: Vec<Value> = survey
        .samples
        .iter()
        .map(|sample| {
            let text = String::from_utf8_lossy(&sample.text);
            json!({ "reason": sample.reason, "column": sample.column, "text": text })
        })
        .collect();
    let missing: Vec<Value> = verdict
        .missing
        .iter()
        .map(|need| {
            let fields: Vec<&str> = need.fields.iter().map(|field| field.name()).collect();
            let detectors: Vec<&str> =
                need.indispensable_to.iter().copied().map(FindingKind::name).collect();
            json!({ "fields": fields, "indispensable_to": detectors, "cost": need.cost })
        })
        .collect();
    let wrappings: Vec<Value> = verdict
        .wrappings
        .iter()
        .map(|(wrapping, count)| {
            json!({ "layers": wrapping.split(" > ").collect::<Vec<_>>(), "count": count })
        })
        .collect();
    let format = verdict.layout.as_ref().map(|(layout, origin)| {
        json!({
            "origin": origin.name(),
            "field_count": layout.field_count(),
            "preset": preset(layout),
            "fields": layout.header(),
            "config": format_text(layout),
        })
    });
    json!({
        "name": verdict.name,
        "type": verdict.kind,
        "status": status,
        "errors": verdict.errors,
        "denied_action": verdict.denied_action,
        "warnings": verdict.warnings,
        "sample": {
            "inputs": verdict.input_count,
            "bytes_read": verdict.bytes_read,
            "is_complete": !verdict.is_cut,
        },
        "wrappings": wrappings,
        "format": format,
        "records": {
            "total": survey.total(),
            "ok": survey.ok,
            "nodata": survey.nodata,
            "skipdata": survey.skipdata,
            "malformed": survey.faults.total(),
            "headers": survey.headers,
            "control": verdict.control_count,
            "repeated": survey.repeated,
            "bytes_each": survey.line_bytes / survey.total().max(1),
            "per_second_of_event_time": rate(verdict),
        },
        "malformed": { "by_reason": faults, "samples": samples },
        "aggregation_interval_seconds": survey.interval_seconds(),
        "time": {
            "first_end": survey.first_end,
            "last_end": survey.newest_end,
            "lag_seconds": verdict.lag_seconds,
            "delivery_seconds": verdict.delivery_seconds,
            "out_of_order": survey.out_of_order,
            "disorder_seconds_max": survey.disorder_seconds_max,
        },
        "interfaces": survey.interface_count,
        "missing": missing,
        "config": verdict.config,
    })
}
