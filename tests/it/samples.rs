//! Every sample read by the program: a golden summary per file, and values equal to what peers parsed.
//!
//! Samples of other projects live beside the repository and are read where they are; without them those
//! tests say so and pass. `datasets/` holds records of the same forms.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowgauge::framing::{InputReader, LayoutScope, Limits, deframe};
use flowgauge::record::{
    ColumnSet, FieldId, FieldKind, FlowBatch, Layout, Parser, Slot, TextSlice,
};
use flowgauge::simd::Isa;
use flowgauge::units::UnixSeconds;
use serde_json::Value;

use crate::program::{flowgauge, root, shared, without_throughput};

/// Set to write the golden files from what the program does now.
const UPDATE_VARIABLE: &str = "UPDATE_GOLDEN";

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_none_or(|extension| extension != "md") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Exit code and summary of `analyze` on a file, as golden text.
fn analyzed(folder: &Path, path: &Path) -> String {
    let output = flowgauge()
        .args(["analyze", "--quiet", "--no-detect", "--output", "json"])
        .arg(path)
        .output()
        .expect("the program starts");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    let mut summary = without_throughput(summary);
    summary["exit"] = output.status.code().into();
    let text = serde_json::to_string_pretty(&summary).expect("JSON") + "\n";
    let folder = format!("{}/", folder.display());
    text.replace(&folder, "")
}

fn check_golden(folder: &Path, golden_folder: &str) {
    let golden_folder = root().join("tests/golden").join(golden_folder);
    let update = std::env::var_os(UPDATE_VARIABLE).is_some();
    let mut differing = Vec::new();
    let files = files_below(folder);
    assert!(!files.is_empty());
    for path in &files {
        let name = path.strip_prefix(folder).expect("below it").to_str().expect("UTF-8");
        let golden = golden_folder.join(format!("{}.json", name.replace('/', "--")));
        let text = analyzed(folder, path);
        if update {
            std::fs::create_dir_all(&golden_folder).expect("a folder for golden files");
            std::fs::write(&golden, &text).expect("a golden file");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if text != expected {
            differing.push(format!("{name}: expected {expected}\ngot {text}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_dataset_has_the_expected_summary() {
    check_golden(&root().join("datasets"), "datasets");
}

#[test]
fn every_sample_of_other_projects_has_the_expected_summary() {
    let Some(folder) = shared("data/samples") else { return };
    check_golden(&folder, "samples");
}

/// A record as names and values; what is absent has no entry.
type Record = BTreeMap<String, String>;

/// All records of a file, with every column.
fn records(path: &Path) -> Vec<Record> {
    let limits = Limits::default();
    let mut reader = InputReader::of_file(File::open(path).expect("a sample"), &limits);
    let wanted: ColumnSet = FieldId::ALL.into_iter().collect();
    let mut parser = Parser::new(Isa::detect(), wanted);
    let mut layout = Layout::default_v2();
    let mut records = Vec::new();
    while let Some(piece) = reader.next_piece().expect("a readable sample") {
        let framed = deframe(piece.payload, &limits);
        for run in framed.runs() {
            let start = match run.scope {
                LayoutScope::Input => Arc::clone(&layout),
                LayoutScope::Record => Layout::default_v2(),
                LayoutScope::Fixed(fixed) => Arc::clone(fixed),
            };
            let lines = TextSlice::from(framed.lines[run.bytes].to_vec());
            let block = parser.parse(lines.text(), lines.range(), &start);
            if let Some(after) = block.layout_after {
                layout = after;
            }
            for batch in &block.batches {
                records.extend((0..batch.rows()).map(|row| record(batch, row)));
            }
        }
    }
    records
}

fn record(batch: &FlowBatch, row: usize) -> Record {
    let mut record = Record::new();
    for slot in batch.layout().slots() {
        if let Some(value) = value(batch, slot, row) {
            record.insert(slot.name().to_owned(), value);
        }
    }
    record
}

fn value(batch: &FlowBatch, slot: &Slot, row: usize) -> Option<String> {
    let Slot::Known(field) = slot else {
        return Some(String::from_utf8_lossy(batch.texts(slot)?.get(row)?).into_owned());
    };
    match slot.kind() {
        FieldKind::Addr => batch.addrs(*field)?.get(row).map(|value| value.to_string()),
        FieldKind::Port => batch.ports(*field)?.get(row).map(|value| value.to_string()),
        FieldKind::Protocol => batch.protocols()?.get(row).map(|value| value.to_string()),
        FieldKind::Counter => batch.counters(*field)?.get(row).map(|value| value.to_string()),
        FieldKind::Seconds => batch.seconds(*field)?.get(row).map(|value| value.to_string()),
        FieldKind::Int32 => batch.small_ints(*field)?.get(row).map(|value| value.to_string()),
        FieldKind::Action => batch.actions()?.get(row).map(|value| value.name().to_owned()),
        FieldKind::LogStatus => batch.log_statuses()?.get(row).map(|value| value.name().to_owned()),
        FieldKind::Text => Some(String::from_utf8_lossy(batch.texts(slot)?.get(row)?).into_owned()),
    }
}

#[test]
fn values_equal_what_tenzir_parsed() {
    let Some(folder) = shared("data/samples") else { return };
    let expected = std::fs::read_to_string(folder.join("cloudwatch-events-v2.tenzir.expected.txt"))
        .expect("the peer's parse");
    let mut peers: Vec<Record> = Vec::new();
    for line in expected.lines().map(str::trim) {
        match line.split_once(": ") {
            _ if line == "{" => peers.push(Record::new()),
            Some((name, value)) => {
                let value = value.trim_end_matches(',').trim_matches('"');
                if value != "null" {
                    let record = peers.last_mut().expect("`{` comes first");
                    record.insert(name.replace('_', "-"), value.to_owned());
                }
            }
            None => {}
        }
    }
    assert_eq!(peers.len(), 4);
    assert_eq!(records(&folder.join("cloudwatch-events-v2.tenzir.ndjson")), peers);
}

#[test]
fn values_equal_what_sekoia_parsed() {
    let Some(folder) = shared("data/samples/sekoia") else { return };
    for path in files_below(&folder) {
        let text = std::fs::read_to_string(&path).expect("a sample");
        let case: Value = serde_json::from_str(&text).expect("JSON");
        let message = case["input"]["message"].as_str().expect("a line").to_owned() + "\n";
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::io::Write::write_all(&mut file, message.as_bytes()).expect("a temporary file");
        let ours = records(file.path()).pop().expect("one record");
        let peer = &case["expected"];
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let moment = |name: &str| {
            let seconds = ours.get(name).expect("a time").parse().expect("seconds");
            Some(UnixSeconds(seconds).to_string())
        };
        let our = |name: &str| ours.get(name).cloned();
        let lower = |name: &str| our(name).map(|word| word.to_ascii_lowercase());
        for (name, our_value, peer_value) in [
            ("account-id", our("account-id"), &peer["cloud"]["account"]["id"]),
            (
                "interface-id",
                our("interface-id"),
                &peer["observer"]["ingress"]["interface"]["name"],
            ),
            ("srcaddr", our("srcaddr"), &peer["source"]["ip"]),
            ("dstaddr", our("dstaddr"), &peer["destination"]["ip"]),
            ("srcport", our("srcport"), &peer["source"]["port"]),
            ("dstport", our("dstport"), &peer["destination"]["port"]),
            ("protocol", our("protocol"), &peer["network"]["iana_number"]),
            ("packets", our("packets"), &peer["source"]["packets"]),
            ("bytes", our("bytes"), &peer["source"]["bytes"]),
            ("start", moment("start"), &peer["event"]["start"]),
            ("end", moment("end"), &peer["event"]["end"]),
            ("action", lower("action"), &peer["action"]["name"]),
            ("log-status", lower("log-status"), &peer["event"]["outcome"]),
        ] {
            assert_eq!(our_value, text(peer_value), "{name} of {}", path.display());
        }
    }
}

#[test]
fn sums_equal_what_go_vpcflow_digested() {
    let Some(folder) = shared("data/samples") else { return };
    for case in ["happy-path", "bidirectional"] {
        // The peer adds up records that differ in the client's port and the time.
        let mut ours: BTreeMap<String, (u64, u64, u64, u64)> = BTreeMap::new();
        for record in records(&folder.join(format!("go-vpcflow-digest-{case}.log"))) {
            let text = |name: &str| record.get(name).cloned();
            let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
            let (Some(source_port), Some(target_port)) = (number("srcport"), number("dstport"))
            else {
                continue;
            };
            let is_client = |port: u64| if port > 1024 { 0 } else { port };
            let key = format!(
                "{} {} {} {} {} {} {}",
                text("interface-id").expect("it has one"),
                text("srcaddr").expect("it has one"),
                text("dstaddr").expect("it has one"),
                is_client(source_port),
                is_client(target_port),
                text("protocol").expect("it has one"),
                text("action").expect("it has one"),
            );
            let (start, end) = (number("start").expect("it has one"), number("end").expect("one"));
            let sums = ours.entry(key).or_insert((0, 0, u64::MAX, 0));
            sums.0 += number("packets").expect("it has one");
            sums.1 += number("bytes").expect("it has one");
            *sums = (sums.0, sums.1, sums.2.min(start), sums.3.max(end));
        }
        let expected = records(&folder.join(format!("go-vpcflow-digest-{case}.expected.txt")));
        assert_eq!(expected.len(), ours.len(), "{case}");
        for record in expected {
            let text = |name: &str| record.get(name).cloned().expect("the peer writes it");
            let number = |name: &str| text(name).parse::<u64>().expect("a number");
            let names =
                ["interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "action"];
            let key = names.map(text).join(" ");
            let (packets, bytes, ..) = ours[&key];
            assert_eq!((packets, bytes), (number("packets"), number("bytes")), "{case}: {key}");
        }
    }
}
