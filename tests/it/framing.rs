//! Every form in which flow logs arrive, read as a whole: the files of `datasets/` and the samples of
//! other projects.
//!
//! Samples live beside the repository and are not part of it; without them those tests say so and pass.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "all of this file is tests")]

use std::fs::File;
use std::path::{Path, PathBuf};

use flowgauge::framing::{Framed, InputReader, Limits, Payload, SourceRecord, deframe};

/// What an input gave in all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    /// Lines that are not blank, headers included.
    lines: usize,
    control: u64,
    faults: usize,
    input_fault: Option<String>,
}

fn dataset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(name)
}

fn sample(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/samples").join(name);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
    }
    path.exists().then_some(path)
}

fn read(path: &Path) -> (Vec<Framed>, Option<String>) {
    let limits = Limits::default();
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut reader = InputReader::of_file(file, &limits);
    let (mut pieces, mut bytes_read) = (Vec::new(), 0);
    let end = loop {
        match reader.next_piece() {
            Ok(Some(piece)) => {
                let mut framed = deframe(piece.payload, &limits);
                bytes_read += piece.bytes_read + framed.bytes_read;
                let fault = framed.input_fault.take();
                pieces.push(framed);
                if let Some(fault) = fault {
                    break Some(fault.to_string());
                }
            }
            Ok(None) => break None,
            Err(fault) => break Some(fault.to_string()),
        }
    };
    assert_eq!(bytes_read, length, "{}", path.display());
    pieces.iter().for_each(assert_covered);
    (pieces, end)
}

/// Segments and runs cover the lines, in order.
fn assert_covered(framed: &Framed) {
    let mut at = 0;
    for run in framed.runs() {
        assert_eq!(run.bytes.start, at);
        let before = memchr::memchr_iter(b'\n', &framed.lines[..at]).count();
        assert_eq!(run.line_index, before as u64);
        at = run.bytes.end;
    }
    assert_eq!(at, framed.lines.len());
}

fn lines_of(pieces: &[Framed]) -> Vec<String> {
    let text: Vec<u8> = pieces.iter().flat_map(|framed| framed.lines.to_vec()).collect();
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(|line| !line.is_empty())
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect()
}

fn sum_of(pieces: &[Framed], input_fault: Option<String>) -> Sum {
    Sum {
        lines: lines_of(pieces).len(),
        control: pieces.iter().map(|framed| framed.control).sum(),
        faults: pieces.iter().map(|framed| framed.faults.len()).sum(),
        input_fault,
    }
}

fn check(path: &Path, lines: usize, control: u64, faults: usize) {
    let (pieces, input_fault) = read(path);
    let expected = Sum { lines, control, faults, input_fault: None };
    assert_eq!(sum_of(&pieces, input_fault), expected, "{}", path.display());
}

/// Name, lines with headers, control messages, faults.
const DATASETS: [(&str, usize, u64, usize); 33] = [
    ("v2-header.log", 11, 0, 0),
    ("v2-no-header.log", 10, 0, 0),
    ("v5-header.log", 7, 0, 0),
    ("v5-alphabetical.log", 7, 0, 0),
    ("custom-order.log", 6, 0, 0),
    ("v11-header.log", 5, 0, 0),
    ("tgw-header.log", 5, 0, 0),
    ("v2-crlf.log", 11, 0, 0),
    ("v2-no-final-newline.log", 11, 0, 0),
    ("v2-byte-order-mark.log", 4, 0, 0),
    ("repeated-headers.log", 11, 0, 0),
    ("hostile.log", 17, 0, 0),
    ("v2-one-member.log.gz", 11, 0, 0),
    ("v2-two-members-padded.log.gz", 12, 0, 0),
    ("v2.log.zst", 11, 0, 0),
    ("cwl-envelope.json", 10, 0, 0),
    ("cwl-envelope-pretty.json", 10, 0, 0),
    ("cwl-envelope-reordered.json", 10, 0, 0),
    ("cwl-envelopes-in-a-row.json", 10, 1, 0),
    ("cwl-envelopes-in-a-row.json.gz", 10, 1, 0),
    ("cwl-records-concatenated.gz", 10, 1, 0),
    ("firehose-direct-concatenated.json", 10, 0, 0),
    ("firehose-direct.ndjson", 10, 0, 0),
    ("firehose-http-body.json", 6, 1, 1),
    ("lambda-kinesis-event.json", 10, 1, 0),
    ("lambda-cloudwatch-event.json", 5, 0, 0),
    ("cloudwatch-events.ndjson", 10, 0, 0),
    ("athena-rows.ndjson", 10, 0, 0),
    ("opensearch-array.json", 10, 0, 0),
    ("s3-notification.json", 0, 1, 0),
    ("broken-documents.ndjson", 11, 0, 2),
    ("kpl-aggregate.bin", 10, 0, 0),
    ("kpl-aggregate-digest-wrong.bin", 0, 0, 1),
];

#[test]
fn every_dataset_is_read() {
    for (name, lines, control, faults) in DATASETS {
        check(&dataset(name), lines, control, faults);
    }
    let listed = DATASETS.map(|(name, ..)| name);
    let others = ["README.md", "v2-truncated.log.gz", "v2.parquet", "v2-int64.parquet"];
    for entry in std::fs::read_dir(dataset("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = listed.contains(&name.as_str()) || others.contains(&name.as_str());
        assert!(known || !name.contains('.'), "{name} is tested nowhere");
    }
}

#[test]
fn forms_of_the_same_records_give_the_same_lines() {
    let plain = lines_of(&read(&dataset("v2-no-header.log")).0);
    for name in [
        "cwl-envelope.json",
        "cwl-envelope-pretty.json",
        "cwl-envelope-reordered.json",
        "cwl-envelopes-in-a-row.json.gz",
        "cwl-records-concatenated.gz",
        "firehose-direct-concatenated.json",
        "firehose-direct.ndjson",
        "lambda-kinesis-event.json",
        "cloudwatch-events.ndjson",
        "athena-rows.ndjson",
        "opensearch-array.json",
        "kpl-aggregate.bin",
    ] {
        assert_eq!(lines_of(&read(&dataset(name)).0), plain, "{name}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_gives_the_lines_of_its_rows() {
    let mut plain = lines_of(&read(&dataset("v2-no-header.log")).0);
    // The datasets leave out the record whose counter Parquet cannot hold.
    plain.retain(|line| !line.contains(" 18446744073709551615 "));
    for name in ["v2.parquet", "v2-int64.parquet"] {
        let (pieces, fault) = read(&dataset(name));
        assert_eq!(fault, None);
        assert_eq!(pieces.len(), 3, "one per row group");
        assert_eq!(lines_of(&pieces), plain, "{name}");
        let flowgauge::framing::LayoutScope::Fixed(layout) = &pieces[0].segments[0].scope else {
            panic!("{name}")
        };
        assert_eq!(layout.field_count(), 14);
    }
}

#[test]
fn a_truncated_object_gives_its_whole_lines_and_says_so() {
    let (pieces, fault) = read(&dataset("v2-truncated.log.gz"));
    let lines = lines_of(&pieces);
    assert!(lines.len() > 500, "{}", lines.len());
    assert!(lines.iter().skip(1).all(|line| line.ends_with(" ACCEPT OK")));
    assert!(fault.unwrap().starts_with("gzip data is damaged after "));
    assert_eq!(pieces.iter().map(|framed| framed.faults.len()).sum::<usize>(), 0);
}

/// Name, lines with headers, control messages, faults.
const SAMPLES: [(&str, usize, u64, usize); 32] = [
    ("aws-docs-v2-default.log", 8, 0, 0),
    ("aws-docs-v3-nat-gateway.log", 7, 0, 0),
    ("aws-docs-v3-tcp-flags.log", 9, 0, 0),
    ("aws-docs-v3-tgw-eni.log", 5, 0, 0),
    ("aws-docs-v5-service-path-direction.log", 3, 0, 0),
    ("s3-text-header.lambda-promtail.log.gz", 4, 0, 0),
    ("s3-text-no-final-newline.coralogix.log.gz", 3, 0, 0),
    ("s3-text.m-mizutani.log.gz", 3, 0, 0),
    ("opensearch-catalog-vpcflow.json", 22, 0, 0),
    ("opensearch-catalog-vpcflow.log", 22, 0, 0),
    ("cloudwatch-events-v2.tenzir.ndjson", 4, 0, 0),
    ("flowlogs-reader-v2.log", 6, 0, 0),
    ("flowlogs-reader-v3-reordered.log", 3, 0, 0),
    ("flowlogs-reader-v4-sublocation.log", 3, 0, 0),
    ("panther-attack-scenario.log", 7, 0, 0),
    ("firehose-direct-vpc-capture.lambda-view.json", 2, 0, 0),
    // Plain JSON that is no flow log: one fault for each record.
    ("firehose-http/direct_put.json", 0, 0, 3),
    ("firehose-http/cw_logs_with_only_data_messages.json", 13, 0, 0),
    // `Hello World` is text; that it is no flow log is the parser's finding.
    ("event-shapes/kinesis-event.json", 2, 0, 0),
    ("event-shapes/kinesis-firehose-event.json", 2, 0, 0),
    ("event-shapes/cloudwatch-logs-event.json", 2, 0, 0),
    ("event-shapes/s3-event.json", 0, 1, 0),
    ("event-shapes/sqs-event.json", 1, 0, 0),
    ("kpl/kpl_generated_rec_no_ehks.bin", 8, 0, 0),
    ("dynatrace-leading-zero-account.log", 1, 0, 0),
    ("wazuh-v2.log", 1, 0, 0),
    ("flow-log-mapper-sample1.log", 14, 0, 0),
    ("flow-log-mapper-sample5.log", 14, 0, 0),
    ("go-vpcflow-digest-happy-path.log", 7, 0, 0),
    ("go-vpcflow-digest-bidirectional.log", 7, 0, 0),
    ("elastic-extra-samples-public-ips.log", 2, 0, 0),
    ("otel/cloudwatch-subscription-vpc.json", 2, 0, 0),
];

#[test]
fn every_sample_of_other_projects_is_read() {
    for (name, lines, control, faults) in SAMPLES {
        if let Some(path) = sample(name) {
            check(&path, lines, control, faults);
        }
    }
}

/// The strings at `pointer` of each JSON document in a file, as an independent reader finds them.
fn strings_at(path: &Path, pointer: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
    let mut found = Vec::new();
    for document in documents {
        let document = document.unwrap();
        let elements = match document.as_array() {
            Some(elements) => elements.clone(),
            None => vec![document],
        };
        for element in elements {
            found.push(element.pointer(pointer).unwrap().as_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn messages_come_out_as_they_were_put_in() {
    for (name, pointer) in [
        ("cloudwatch-events-v2.tenzir.ndjson", "/message"),
        ("opensearch-catalog-vpcflow.json", "/body"),
    ] {
        if let Some(path) = sample(name) {
            assert_eq!(lines_of(&read(&path).0), strings_at(&path, pointer), "{name}");
        }
    }
    if let Some(path) = sample("firehose-direct-vpc-capture.lambda-view.json") {
        let first = "2 647604195155 eni-05fdd58317a3a58e4 10.30.2.238 10.30.1.217 8089 39016 6 22 10527 1643160732 1643160792 ACCEPT OK";
        assert_eq!(lines_of(&read(&path).0)[0], first);
    }
}

/// Test cases of a peer hold an event and the parse that it expects: the event is read, the case itself
/// is no form in which logs arrive.
#[test]
fn events_of_peer_test_cases_are_read() {
    for name in ["accept", "reject", "ipv6traffic", "nodata"] {
        let Some(path) = sample(&format!("sekoia/{name}.json")) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        let case: serde_json::Value = serde_json::from_str(&text).unwrap();
        let framed = deframe(
            Payload::Documents(case["input"].to_string().into_bytes().into()),
            &Limits::default(),
        );
        let message = case["input"]["message"].as_str().unwrap();
        assert_eq!(lines_of(&[framed]), [message]);
        check(&path, 0, 0, 1);
    }
}

#[test]
fn the_records_of_a_real_aggregate_have_their_outer_sequence_number() {
    let Some(path) = sample("kpl/kpl_generated_rec_no_ehks.bin") else { return };
    let data = std::fs::read(path).unwrap();
    let record = |hash_key_range| SourceRecord {
        data: data.clone().into(),
        sequence_number: "4957".into(),
        arrival_ms: 0,
        hash_key_range,
    };
    let whole_range = record(Some((0, u128::MAX)));
    let framed = deframe(Payload::Records(vec![whole_range]), &Limits::default());
    assert_covered(&framed);
    let lines = lines_of(std::slice::from_ref(&framed));
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0], "RECORD 18 iklrpsvyhxnerodfeheru");
    assert!((0..8).all(|line| framed.origin_of(line).is_some_and(|origin| &**origin == "4957")));
    // Half a shard holds not all of its eight keys: the shard that does delivers it.
    let half = record(Some((0, u128::MAX / 2)));
    let framed = deframe(Payload::Records(vec![half]), &Limits::default());
    assert_eq!((framed.lines.len(), framed.aggregates_elsewhere, framed.faults.len()), (0, 1, 0));
}

/// Gives a few bytes at a time, as a pipe may.
struct Slow {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl std::io::Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(buf.len()).min(self.bytes.len() - self.at);
        buf[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Lines and number of faults of an input that arrives `step` bytes at a time.
fn piecewise(bytes: &[u8], step: usize) -> (String, usize) {
    let limits = Limits::default();
    let slow = Slow { bytes: bytes.to_vec(), at: 0, step };
    let mut reader = InputReader::of_stream(Box::new(slow), &limits);
    let (mut lines, mut faults) = (Vec::new(), 0);
    while let Some(piece) = reader.next_piece().unwrap() {
        let framed = deframe(piece.payload, &limits);
        lines.extend_from_slice(&framed.lines);
        faults += framed.faults.len();
    }
    (String::from_utf8_lossy(&lines).into_owned(), faults)
}

#[test]
fn damaged_documents_give_the_same_in_pieces_of_any_size() {
    for name in ["opensearch-array.json", "cwl-envelope-pretty.json", "broken-documents.ndjson"] {
        let whole = std::fs::read(dataset(name)).unwrap();
        for at in (0..whole.len()).step_by(37) {
            for byte in [0x1e, b'"', b'{', b'\n'] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let expected = piecewise(&damaged, usize::MAX);
                assert_eq!(piecewise(&damaged, 91), expected, "{name}, byte {byte} at {at}");
            }
        }
    }
}
