//! How fast bytes become lines: files in ranges, gzip, CloudWatch Logs envelopes, Firehose and KPL records.
//!
//! Parsing is not part of it. Each bench compares its lines with those that went in.

mod lines;

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;

use divan::Bencher;
use divan::counter::BytesCount;
use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge::framing::{Deframer, InputReader, Limits, Payload, SourceRecord};
use flowgauge::record::TextSlice;
use flowgauge::simd::{GzipDecoder, Isa};
use md5::{Digest, Md5};

const TEXT_BYTES: usize = 16 << 20;
/// Text of the benches without a file: what is unwrapped at a time in the program, so that it stays in a
/// core's cache.
const HOT_BYTES: usize = 256 << 10;
/// Events of one envelope, as busy log groups have them.
const ENVELOPE_EVENTS: usize = 200;

fn main() {
    divan::main();
}

/// Reading a file in ranges, as `analyze` does without the parser.
#[divan::bench]
fn plain_file(bencher: Bencher) {
    let text = lines::version_2(TEXT_BYTES);
    file(bencher, &text, &text, text.len());
}

/// The yardstick for the two that follow: libdeflate alone, into memory that was used before.
#[divan::bench]
fn libdeflate_text(bencher: Bencher) {
    libdeflate(bencher, &lines::version_2(TEXT_BYTES));
}

#[divan::bench]
fn gzip_text_file(bencher: Bencher) {
    let text = lines::version_2(TEXT_BYTES);
    file(bencher, &gzip(&text), &text, text.len());
}

/// Without a parser the rate is of the JSON that comes out of libdeflate.
#[divan::bench]
fn libdeflate_envelopes(bencher: Bencher) {
    libdeflate(bencher, &envelopes(&lines::version_2(TEXT_BYTES)));
}

#[divan::bench]
fn gzip_envelopes_file(bencher: Bencher) {
    let text = lines::version_2(TEXT_BYTES);
    let json = envelopes(&text);
    file(bencher, &gzip(&json), &text, json.len());
}

/// Envelopes as Kinesis has them: each a gzip member and a record of its own.
#[divan::bench]
fn gzip_envelopes_records(bencher: Bencher) {
    let text = lines::version_2(TEXT_BYTES);
    let json = envelopes(&text);
    let packed: Vec<Vec<u8>> = json.split_inclusive(|byte| *byte == b'\n').map(gzip).collect();
    records(bencher, &packed, &text, json.len());
}

#[divan::bench]
fn libdeflate_envelopes_records(bencher: Bencher) {
    let json = envelopes(&lines::version_2(TEXT_BYTES));
    let packed: Vec<Vec<u8>> = json.split_inclusive(|byte| *byte == b'\n').map(gzip).collect();
    let mut decoder = GzipDecoder::new();
    let mut out = Vec::with_capacity(1 << 20);
    bencher.counter(BytesCount::new(json.len())).bench_local(|| {
        let mut sum = 0;
        for member in &packed {
            out.clear();
            decoder.member(member, &mut out, usize::MAX).expect("a good member");
            sum += out.len();
        }
        assert_eq!(sum, json.len());
    });
}

#[divan::bench(args = Isa::available())]
fn envelopes_in_memory(bencher: Bencher, isa: Isa) {
    let text = lines::version_2(HOT_BYTES);
    documents(bencher, isa, envelopes(&text), &text);
}

/// A quote in one field of each message, so that none is copied as it is.
#[divan::bench]
fn envelopes_with_escapes(bencher: Bencher) {
    let text = lines::version_2(HOT_BYTES);
    let plain = String::from_utf8(text).expect("ASCII").replace("eni-", "\"ni-");
    let escaped = plain.replace('"', "\\\"");
    documents(bencher, Isa::detect(), envelopes(escaped.as_bytes()), plain.as_bytes());
}

#[divan::bench]
fn firehose_direct(bencher: Bencher) {
    let text = lines::version_2(HOT_BYTES);
    let mut json = Vec::new();
    for line in split(&text) {
        json.extend_from_slice(b"{\"message\":\"");
        json.extend_from_slice(line);
        json.extend_from_slice(b"\"}");
    }
    documents(bencher, Isa::detect(), json, &text);
}

#[divan::bench]
fn kpl_aggregates(bencher: Bencher) {
    let text = lines::version_2(TEXT_BYTES);
    let all: Vec<&[u8]> = split(&text).collect();
    let packed: Vec<Vec<u8>> = all.chunks(200).map(aggregate).collect();
    let bytes = packed.iter().map(Vec::len).sum();
    records(bencher, &packed, &text, bytes);
}

fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end)
}

fn gzip(data: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data.as_ref()).expect("memory");
    encoder.finish().expect("memory")
}

/// Lines in envelopes as AWS writes them, one per line.
fn envelopes(text: &[u8]) -> Vec<u8> {
    let mut json = Vec::new();
    let all: Vec<&[u8]> = split(text).collect();
    for (number, events) in all.chunks(ENVELOPE_EVENTS).enumerate() {
        json.extend_from_slice(br#"{"messageType":"DATA_MESSAGE","owner":"123456789012","logGroup":"/vpc/flow-logs","logStream":"eni-0123456789abcdef0-all","subscriptionFilters":["to-kinesis"],"logEvents":["#);
        for (index, line) in events.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let id = number * ENVELOPE_EVENTS + index;
            write!(
                json,
                r#"{comma}{{"id":"{id:056}","timestamp":{},"message":""#,
                1_767_225_600_000 + id
            )
            .expect("memory");
            json.extend_from_slice(line);
            json.extend_from_slice(b"\"}");
        }
        json.extend_from_slice(b"]}\n");
    }
    json
}

/// A KPL aggregate of these records.
fn aggregate(records: &[&[u8]]) -> Vec<u8> {
    fn member(out: &mut Vec<u8>, tag: u8, data: &[u8]) {
        out.push(tag << 3 | 2);
        let mut length = data.len();
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7F).expect("seven bits") | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).expect("seven bits"));
        out.extend_from_slice(data);
    }
    let mut body = Vec::new();
    member(&mut body, 1, b"partition key");
    for record in records {
        let mut inner = vec![1 << 3, 0];
        member(&mut inner, 3, record);
        member(&mut body, 3, &inner);
    }
    [&b"\xF3\x89\x9A\xC2"[..], &body, &Md5::digest(&body)].concat()
}

fn libdeflate(bencher: Bencher, data: &[u8]) {
    let packed = gzip(data);
    let mut decoder = GzipDecoder::new();
    let mut out = Vec::with_capacity(data.len());
    bencher.counter(BytesCount::new(data.len())).bench_local(|| {
        out.clear();
        decoder.member(&packed, &mut out, usize::MAX).expect("a good member");
    });
    assert!(out == data);
}

fn file(bencher: Bencher, content: &[u8], text: &[u8], bytes: usize) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(content).expect("a temporary file");
    let limits = Limits::default();
    let mut deframer = Deframer::new(Isa::detect(), &limits);
    let mut pass = |take: &mut TakeLines<'_>| {
        let opened = File::open(file.path()).expect("a temporary file");
        let mut reader = InputReader::of_file(opened, &limits);
        while let Some(piece) = reader.next_piece().expect("a good file") {
            deframe(&mut deframer, piece.payload, take);
        }
    };
    check(text, &mut pass);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| pass(&mut |lines| keep(lines)));
}

fn records(bencher: Bencher, packed: &[Vec<u8>], text: &[u8], bytes: usize) {
    let record = |data: &Vec<u8>| SourceRecord {
        data: data.clone().into(),
        sequence_number: "1".into(),
        arrival_ms: 0,
        hash_key_range: None,
    };
    // As many as a read of a shard gives.
    let payloads: Vec<Vec<SourceRecord>> =
        packed.chunks(40).map(|some| some.iter().map(record).collect()).collect();
    let mut deframer = Deframer::new(Isa::detect(), &Limits::default());
    let mut pass = |take: &mut TakeLines<'_>| {
        for records in &payloads {
            deframe(&mut deframer, Payload::Records(records.clone()), take);
        }
    };
    check(text, &mut pass);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| pass(&mut |lines| keep(lines)));
}

fn documents(bencher: Bencher, isa: Isa, json: Vec<u8>, text: &[u8]) {
    let bytes = json.len();
    let mut deframer = Deframer::new(isa, &Limits::default());
    let json = TextSlice::from(json);
    let mut pass = |take: &mut TakeLines<'_>| {
        deframe(&mut deframer, Payload::Documents(json.clone()), take);
    };
    check(text, &mut pass);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| pass(&mut |lines| keep(lines)));
}

fn deframe(deframer: &mut Deframer, payload: Payload, take: &mut TakeLines<'_>) {
    let end = deframer.deframe(payload, &mut |part| {
        assert!(part.faults.is_empty() && part.input_fault.is_none());
        take(&part.lines);
        ControlFlow::Continue(())
    });
    assert!(end.is_continue());
}

/// Gets the lines as they come.
type TakeLines<'a> = dyn FnMut(&[u8]) + 'a;

fn keep(lines: &[u8]) {
    divan::black_box(lines);
}

fn check(text: &[u8], pass: &mut dyn FnMut(&mut TakeLines<'_>)) {
    let mut got = Vec::new();
    pass(&mut |lines| got.extend_from_slice(lines));
    assert!(got == text, "the lines that went in come out");
}
