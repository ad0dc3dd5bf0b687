//! The report for people: aligned, with units, most important figures first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::aggregate::{FlowSizes, Metric, SizeQuantiles, TopAnswer, TopSpec};
use crate::detect::Suppressed;
use crate::finding::FindingKind;
use crate::metrics::LatencyHistogram;
use crate::pipeline::{RunReport, per_second};
use crate::record::{FaultKind, Slot};
use crate::units::{ByteCount, Grouped};

/// Malformed samples that the text report shows; JSON has them all.
const SAMPLES_SHOWN: usize = 5;

/// Characters of a malformed line that the report shows.
const SAMPLE_CHARS_SHOWN: usize = 100;

/// The report as text.
pub(crate) fn text(report: &RunReport, thread_count: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write_all(&mut out, report, thread_count);
    out
}

fn write_all(out: &mut String, report: &RunReport, thread_count: usize) -> std::fmt::Result {
    let inputs = &report.inputs;
    let totals = &inputs.totals;
    let seconds = report.elapsed.as_secs_f64();
    let grouped = |count: u64| Grouped(u128::from(count));
    writeln!(
        out,
        "Input      {} {}, {} read, {} of text",
        grouped(inputs.input_count),
        if inputs.input_count == 1 { "input" } else { "inputs" },
        ByteCount(u128::from(inputs.bytes_read)),
        ByteCount(u128::from(inputs.bytes_decoded)),
    )?;
    let parts = [
        (totals.ok, "ok"),
        (totals.nodata, "without data"),
        (totals.skipdata, "skipped by AWS"),
        (totals.faults.total(), "malformed"),
        (totals.filtered, "filtered out"),
        (totals.late, "late"),
        (totals.headers, "headers"),
        (totals.control, "control messages"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", grouped(*count)))
        .collect();
    writeln!(out, "Records    {} ({})", grouped(totals.records()), parts.join(", "))?;
    writeln!(
        out,
        "Actions    {} ACCEPT, {} REJECT",
        grouped(totals.accept),
        grouped(totals.reject)
    )?;
    writeln!(out, "Traffic    {}, {} packets", ByteCount(totals.bytes), Grouped(totals.packets))?;
    if let Some(sizes) = report.flow_sizes.as_ref().and_then(FlowSizes::quantiles) {
        let SizeQuantiles { p50, p90, p99, p999, max } = sizes;
        let [p50, p90, p99, p999, max] =
            [p50, p90, p99, p999, max].map(|bytes| ByteCount(bytes.into()));
        writeln!(
            out,
            "Flow size  half up to {p50}, 90 % {p90}, 99 % {p99}, 99.9 % {p999}, all {max}"
        )?;
    }
    if report.talkers.windows > 0 {
        writeln!(out, "Windows    {} with tops of their own", grouped(report.talkers.windows))?;
    }
    if let (Some(first), Some(last)) = (totals.first_start, totals.last_end) {
        writeln!(out, "Time       {first} to {last}")?;
    }
    writeln!(
        out,
        "Speed      {} records/s, {}/s, {seconds:.2} s on {thread_count} {}",
        grouped(per_second(totals.records(), seconds)),
        ByteCount(u128::from(per_second(inputs.bytes_decoded, seconds))),
        if thread_count == 1 { "thread" } else { "threads" },
    )?;
    write_latency(out, "parse", "chunk", &report.latencies.parse)?;
    write_latency(out, "judge", "pane and shard", &report.latencies.judge)?;
    write_protocols(out, report)?;
    for (spec, answer) in report.tops.iter().zip(&report.answers) {
        write_top(out, spec, answer)?;
    }
    write_findings(out, report)?;
    write_suppressed(out, &report.suppressed)?;
    write_malformed(out, report)?;
    for input in &inputs.failed {
        writeln!(out, "\nIncomplete: {}: {}", input.name, input.message)?;
    }
    if inputs.failed_unnamed > 0 {
        writeln!(out, "\nIncomplete: {} more inputs", Grouped(inputs.failed_unnamed.into()))?;
    }
    Ok(())
}

/// Seconds and bytes of each stage, as text.
pub(crate) fn profile(report: &RunReport) -> String {
    let records = report.inputs.totals.records().max(1);
    let busy: f64 = report.profile.stages().map(|(_, time)| time.busy.as_secs_f64()).sum();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (stage, time) in report.profile.stages() {
        let seconds = time.busy.as_secs_f64();
        let (bytes, rate) = match time.bytes {
            0 => (String::new(), String::new()),
            bytes => (
                ByteCount(u128::from(bytes)).to_string(),
                format!("{}/s", ByteCount(u128::from(per_second(bytes, seconds)))),
            ),
        };
        rows.push(vec![
            stage.name().to_owned(),
            format!("{seconds:.3}"),
            format!("{:.1} %", 100.0 * seconds / busy),
            format!("{:.1}", 1e9 * seconds / records as f64),
            bytes,
            rate,
        ]);
    }
    let mut out = String::new();
    let columns = ["stage", "seconds", "share", "ns a record", "bytes", "rate"];
    // Writing to a String cannot fail.
    let _infallible = write_table(&mut out, "Profile", &columns, 1, &rows);
    let waits = report.back_pressure.iter().map(|(channel, pressure)| {
        let waited = format!("{:.3}", pressure.waited.as_secs_f64());
        vec![(*channel).to_owned(), pressure.sent.to_string(), pressure.waits.to_string(), waited]
    });
    let waits: Vec<Vec<String>> = waits.collect();
    if !waits.is_empty() {
        let columns = ["channel", "messages", "found it full", "seconds waited"];
        let _infallible = write_table(&mut out, "Back-pressure", &columns, 1, &waits);
    }
    out
}

fn write_latency(
    out: &mut String,
    stage: &str,
    unit: &str,
    latency: &LatencyHistogram,
) -> std::fmt::Result {
    if latency.count() == 0 {
        return Ok(());
    }
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| latency.quantile(share));
    writeln!(
        out,
        "Latency    {stage}: {half:.1?} half, {most:.1?} 99 %, {all:.1?} at most per {unit}"
    )
}

fn write_protocols(out: &mut String, report: &RunReport) -> std::fmt::Result {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (number, sums) in report.inputs.totals.by_protocol.iter().enumerate() {
        if sums.flows > 0 {
            rows.push(vec![
                protocol_name(number),
                Grouped(u128::from(sums.flows)).to_string(),
                Grouped(sums.packets).to_string(),
                ByteCount(sums.bytes).to_string(),
            ]);
        }
    }
    write_table(out, "Protocols", &["protocol", "flows", "packets", "bytes"], 1, &rows)
}

fn write_top(out: &mut String, spec: &TopSpec, answer: &TopAnswer) -> std::fmt::Result {
    let names: Vec<&str> = spec.by.iter().map(Slot::name).collect();
    let mut title = format!(
        "Top {} by {} ({} of {} keys)",
        names.join(", "),
        spec.metric.name(),
        answer.rows.len(),
        Grouped(u128::from(answer.matching_count)),
    );
    write_loss(&mut title, spec, answer)?;
    let mut head = Vec::new();
    if spec.window_seconds.is_some() {
        head.push("window");
    }
    head.extend(&names);
    let text_columns = head.len();
    let distinct = match &spec.metric {
        Metric::Distinct(slot) => Some(format!("distinct {}", slot.name())),
        _ => None,
    };
    head.extend(distinct.as_deref());
    head.extend(["bytes", "packets", "flows"]);
    let mut rows = Vec::new();
    for row in &answer.rows {
        let mut cells: Vec<String> = row.window_start.iter().map(ToString::to_string).collect();
        cells.extend(row.key.iter().cloned());
        if distinct.is_some() {
            cells.push(Grouped(u128::from(row.distinct.unwrap_or(0))).to_string());
        }
        cells.push(ByteCount(row.sums.bytes).to_string());
        cells.push(Grouped(row.sums.packets).to_string());
        cells.push(Grouped(u128::from(row.sums.flows)).to_string());
        rows.push(cells);
    }
    write_table(out, &title, &head, text_columns, &rows)
}

/// What the figures of a top that is not exact are worth.
fn write_loss(out: &mut String, spec: &TopSpec, answer: &TopAnswer) -> std::fmt::Result {
    let bound = match spec.metric {
        Metric::Bytes => ByteCount(answer.error_bound).to_string(),
        _ => Grouped(answer.error_bound).to_string(),
    };
    let counts = [
        (answer.evicted, "entries left because memory was short"),
        (answer.estimated_count, "counts of distinct values are estimates"),
    ];
    let reasons: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", Grouped(u128::from(*count))))
        .collect();
    if answer.is_exact() {
        return Ok(());
    }
    write!(
        out,
        "\n  Not exact: {}. A row may be off by {bound} at most, and a key that is missing may have \
         that much.",
        reasons.join(", ")
    )
}

fn write_findings(out: &mut String, report: &RunReport) -> std::fmt::Result {
    let rows: Vec<Vec<String>> = report
        .findings_by_kind
        .iter()
        .map(|(kind, count)| vec![kind.name().to_owned(), Grouped(u128::from(*count)).to_string()])
        .collect();
    write_table(out, "Findings", &["kind", "count"], 1, &rows)
}

/// What noise control left out.
fn write_suppressed(out: &mut String, suppressed: &Suppressed) -> std::fmt::Result {
    let Suppressed { allowed, below_severity, held_back, unjudged_attempts } = suppressed;
    let row = |what: String, count: u64, unit: &str| {
        vec![what, format!("{} {unit}", Grouped(u128::from(count)))]
    };
    let of_kinds = |counts: &BTreeMap<FindingKind, u64>, why: &str| -> Vec<Vec<String>> {
        let row = |(kind, count): (&FindingKind, &u64)| {
            row(format!("{}: {why}", kind.name()), *count, "findings")
        };
        counts.iter().map(row).collect()
    };
    let allowed = allowed.iter().map(|(label, count)| row(label.clone(), *count, "findings"));
    let mut rows: Vec<Vec<String>> = allowed.collect();
    rows.extend(of_kinds(below_severity, "below the least severity"));
    rows.extend(of_kinds(held_back, "too many in an hour"));
    rows.extend(
        unjudged_attempts
            .iter()
            .map(|(why, count)| row(format!("{why}: not judged"), *count, "attempts")),
    );
    write_table(out, "Not told", &["what", "count"], 1, &rows)
}

fn write_malformed(out: &mut String, report: &RunReport) -> std::fmt::Result {
    let faults = &report.inputs.totals.faults;
    if faults.total() == 0 {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = FaultKind::ALL
        .into_iter()
        .filter(|kind| faults.count(*kind) > 0)
        .map(|kind| vec![kind.to_string(), Grouped(u128::from(faults.count(kind))).to_string()])
        .collect();
    write_table(out, "Malformed", &["reason", "records"], 1, &rows)?;
    for sample in report.inputs.malformed_samples.iter().take(SAMPLES_SHOWN) {
        let text: String = sample.text.chars().take(SAMPLE_CHARS_SHOWN).collect();
        writeln!(out, "  {}: {}: {}", sample.origin, sample.reason, text.escape_debug())?;
    }
    Ok(())
}

/// Writes a table: the first `text_columns` to the left, figures to the right.
pub(super) fn write_table(
    out: &mut String,
    title: &str,
    head: &[&str],
    text_columns: usize,
    rows: &[Vec<String>],
) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    writeln!(out, "\n{title}")?;
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            if column < text_columns {
                write!(line, "  {cell:<width$}")?;
            } else {
                write!(line, "  {cell:>width$}")?;
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The name that people know, with IANA's number.
fn protocol_name(number: usize) -> String {
    let name = match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4 in IP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6 in IP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => return number.to_string(),
    };
    format!("{name} ({number})")
}
