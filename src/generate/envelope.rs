//! Lines wrapped as stream services carry them: CloudWatch Logs subscription documents, Firehose's JSON
//! records, KPL aggregates, bare lines.
//!
//! Reads lines off a [`Generator`] and gives payloads with the partition key under which a producer
//! would put them. The encoders are written by hand and share nothing with the decoders of `framing`,
//! so that one can test the other.

use std::io::Write;
use std::ops::Range;

use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};

use super::generator::Generator;
use super::network::{InterfaceIndex, Network};
use super::text::LineText;

/// How lines are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bare records, one a payload.
    Lines,
    /// CloudWatch Logs subscription documents, one log stream (interface) each, gzip.
    CloudWatch,
    /// Firehose's `{"message":"…"}`, one a payload.
    Direct,
    /// KPL aggregates of bare records.
    Kpl,
    /// All of the others in turn.
    Mixed,
}

/// Most events of one CloudWatch Logs document.
const DOCUMENT_EVENTS_MAX: usize = 500;
/// Most records of one KPL aggregate; with the longest lines it stays below a stream's 1 MiB a record.
const AGGREGATE_RECORDS_MAX: usize = 250;
/// Lines of one turn of [`Form::Mixed`].
const TURN_LINES: usize = 1_000;
const TURNS: [Form; 4] = [Form::CloudWatch, Form::Direct, Form::Kpl, Form::Lines];
/// What a KPL aggregate begins with.
const KPL_MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// Wraps the lines of one stream.
#[derive(Clone, Debug)]
pub struct Envelopes {
    form: Form,
    /// Whether CloudWatch Logs documents are compressed, as they are in a stream.
    compression: DocumentCompression,
    events: u64,
    turns: usize,
    lines: Vec<HeldLine>,
    text: Vec<u8>,
    number: LineText,
}

/// Whether CloudWatch Logs documents are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentCompression {
    /// As streams carry them.
    Gzip,
    /// Plain JSON with an LF after each document.
    Plain,
}

#[derive(Clone, Debug)]
struct HeldLine {
    interface: InterfaceIndex,
    start: i64,
    /// Where the line stands in the text, without its LF.
    place: Range<usize>,
}

/// A payload and the partition key that it is put under.
pub type KeyedPayload = (String, Vec<u8>);

impl Envelopes {
    /// Wraps in `form`.
    #[must_use]
    pub fn new(form: Form, compression: DocumentCompression) -> Self {
        Self {
            form,
            compression,
            events: 0,
            turns: 0,
            lines: Vec::new(),
            text: Vec::new(),
            number: LineText::new(),
        }
    }

    /// Takes up to `lines_max` lines of the generator and appends what they are wrapped in; returns how
    /// many lines there were, 0 at the end of the stream.
    pub fn wrap(
        &mut self,
        generator: &mut Generator,
        lines_max: usize,
        out: &mut Vec<KeyedPayload>,
    ) -> usize {
        let (form, lines_max) = match self.form {
            Form::Mixed => (TURNS[self.turns % TURNS.len()], lines_max.min(TURN_LINES)),
            form => (form, lines_max),
        };
        self.turns += 1;
        self.hold(generator, lines_max);
        match form {
            Form::CloudWatch => self.documents(generator.network(), out),
            Form::Kpl => self.aggregates(generator.network(), out),
            Form::Direct => self.singles(generator.network(), b"{\"message\":\"", b"\"}", out),
            Form::Lines | Form::Mixed => self.singles(generator.network(), b"", b"", out),
        }
        self.lines.len()
    }

    fn hold(&mut self, generator: &mut Generator, lines_max: usize) {
        self.lines.clear();
        self.text.clear();
        while self.lines.len() < lines_max {
            let Some(line) = generator.next_line() else { return };
            let place = self.text.len()..self.text.len() + line.text.len() - 1;
            self.text.extend_from_slice(line.text);
            self.lines.push(HeldLine { interface: line.interface, start: line.start, place });
        }
    }

    fn singles(&self, network: &Network, before: &[u8], after: &[u8], out: &mut Vec<KeyedPayload>) {
        out.extend(self.lines.iter().map(|line| {
            let data = [before, &self.text[line.place.clone()], after].concat();
            (network.interface_id(line.interface).to_owned(), data)
        }));
    }

    /// One document per interface and at most [`DOCUMENT_EVENTS_MAX`] events; the first of a stream is
    /// the service's check that the destination lives.
    fn documents(&mut self, network: &Network, out: &mut Vec<KeyedPayload>) {
        if self.events == 0 && !self.lines.is_empty() {
            let check = control_document(self.lines[0].start);
            out.push(("control".to_owned(), self.finish_document(check)));
        }
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort_by_key(|line| line.interface);
        for stream in lines.chunk_by(|a, b| a.interface == b.interface) {
            for events in stream.chunks(DOCUMENT_EVENTS_MAX) {
                let document = self.document(network, events);
                let key = network.interface_id(events[0].interface).to_owned();
                out.push((key, self.finish_document(document)));
            }
        }
        self.lines = lines;
    }

    fn document(&mut self, network: &Network, events: &[HeldLine]) -> Vec<u8> {
        let interface = events[0].interface;
        let mut json = Vec::with_capacity(400 * events.len());
        json.extend_from_slice(b"{\"messageType\":\"DATA_MESSAGE\",\"owner\":\"");
        json.extend_from_slice(network.account_id(interface).as_bytes());
        json.extend_from_slice(b"\",\"logGroup\":\"/vpc/flow-logs\",\"logStream\":\"");
        json.extend_from_slice(network.interface_id(interface).as_bytes());
        json.extend_from_slice(b"-all\",\"subscriptionFilters\":[\"to-stream\"],\"logEvents\":[");
        for (index, event) in events.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            self.event(event, &mut json);
        }
        json.extend_from_slice(b"]}");
        json
    }

    fn event(&mut self, event: &HeldLine, json: &mut Vec<u8>) {
        // Event ids are 56 digits that grow.
        const ID_START: u64 = 3_870_000_000_000_000_000;
        self.events += 1;
        self.number.clear();
        self.number.text(b"{\"id\":\"3870000000000000000000000000000000000");
        self.number.number(ID_START + self.events);
        self.number.text(b"\",\"timestamp\":");
        self.number.seconds(event.start);
        self.number.text(b"000,\"message\":\"");
        json.extend_from_slice(self.number.as_bytes());
        json.extend_from_slice(&self.text[event.place.clone()]);
        json.extend_from_slice(b"\"}");
    }

    fn finish_document(&self, mut document: Vec<u8>) -> Vec<u8> {
        match self.compression {
            DocumentCompression::Plain => {
                document.push(b'\n');
                document
            }
            DocumentCompression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                let written = encoder.write_all(&document).and_then(|()| encoder.finish());
                written.expect("writing to memory does not fail")
            }
        }
    }

    fn aggregates(&self, network: &Network, out: &mut Vec<KeyedPayload>) {
        for lines in self.lines.chunks(AGGREGATE_RECORDS_MAX) {
            // One key for all records: a consumer drops an aggregate of which any key is of another shard.
            let key = network.interface_id(lines[0].interface);
            let records = lines.iter().map(|line| &self.text[line.place.clone()]);
            out.push((key.to_owned(), kpl_aggregate(key, records)));
        }
    }
}

fn control_document(second: i64) -> Vec<u8> {
    format!(
        r#"{{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{{"id":"","timestamp":{second}000,"message":"CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."}}]}}"#
    )
    .into_bytes()
}

/// The KPL's aggregated record: magic, a protobuf message, the MD5 of the message.
///
/// `AggregatedRecord { repeated string partition_key_table = 1; repeated Record records = 3 }`,
/// `Record { uint64 partition_key_index = 1; bytes data = 3 }`.
fn kpl_aggregate<'a>(key: &str, records: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut aggregate = KPL_MAGIC.to_vec();
    length_delimited(1, key.as_bytes(), &mut aggregate);
    let mut record = Vec::new();
    for data in records {
        record.clear();
        record.extend_from_slice(&[1 << 3, 0]);
        length_delimited(3, data, &mut record);
        length_delimited(3, &record, &mut aggregate);
    }
    let digest = Md5::digest(&aggregate[KPL_MAGIC.len()..]);
    aggregate.extend_from_slice(&digest);
    aggregate
}

/// A protobuf field of wire type 2: tag, length as a varint, bytes.
fn length_delimited(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).expect("masked to 7 bits") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("below 0x80"));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use prost::Message;

    use super::*;
    use crate::generate::GenerateSettings;

    fn settings() -> GenerateSettings {
        GenerateSettings {
            records: 5_000,
            interfaces: 64,
            external_addresses: 1_000,
            ..GenerateSettings::default()
        }
    }

    /// The lines of the stream in order, and what they are wrapped in.
    fn wrapped(form: Form) -> (Vec<String>, Vec<KeyedPayload>) {
        let mut text = Vec::new();
        Generator::new(&settings()).fill(&mut text, 5_000);
        let lines = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
        let mut generator = Generator::new(&settings());
        let mut envelopes = Envelopes::new(form, DocumentCompression::Gzip);
        let mut payloads = Vec::new();
        while envelopes.wrap(&mut generator, 3_000, &mut payloads) > 0 {}
        (lines, payloads)
    }

    fn check(form: Form, unwrap: impl Fn(&KeyedPayload) -> Vec<String>) {
        let (mut lines, payloads) = wrapped(form);
        let mut found: Vec<String> = payloads.iter().flat_map(unwrap).collect();
        lines.sort();
        found.sort();
        assert_eq!(lines, found);
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn direct(payload: &KeyedPayload) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_slice(&payload.1).unwrap();
        vec![json["message"].as_str().unwrap().to_owned()]
    }

    fn document(payload: &KeyedPayload) -> Vec<String> {
        let mut json = String::new();
        GzDecoder::new(&*payload.1).read_to_string(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        if json["messageType"] == "CONTROL_MESSAGE" {
            return Vec::new();
        }
        assert_eq!(json["logStream"].as_str().unwrap(), format!("{}-all", payload.0));
        let events = json["logEvents"].as_array().unwrap();
        let message = |event: &serde_json::Value| {
            assert_eq!(event["id"].as_str().unwrap().len(), 56);
            let message = event["message"].as_str().unwrap().to_owned();
            let fields: Vec<&str> = message.split(' ').collect();
            assert_eq!(fields[1], json["owner"].as_str().unwrap());
            assert_eq!(fields[2], payload.0);
            assert_eq!(format!("{}000", fields[10]), event["timestamp"].to_string());
            message
        };
        events.iter().map(message).collect()
    }

    #[derive(Clone, PartialEq, Message)]
    struct AggregatedRecord {
        #[prost(string, repeated, tag = "1")]
        partition_key_table: Vec<String>,
        #[prost(message, repeated, tag = "3")]
        records: Vec<UserRecord>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct UserRecord {
        #[prost(uint64, tag = "1")]
        partition_key_index: u64,
        #[prost(bytes = "vec", tag = "3")]
        data: Vec<u8>,
    }

    fn aggregate(payload: &KeyedPayload) -> Vec<String> {
        let message = payload.1.strip_prefix(&KPL_MAGIC).unwrap();
        let (message, digest) = message.split_at(message.len() - 16);
        assert_eq!(Md5::digest(message).as_slice(), digest);
        let aggregate = AggregatedRecord::decode(message).unwrap();
        assert_eq!(aggregate.partition_key_table, std::slice::from_ref(&payload.0));
        aggregate.records.iter().map(|record| text(&record.data)).collect()
    }

    #[test]
    fn every_form_holds_every_line() {
        check(Form::Lines, |payload| vec![text(&payload.1)]);
        check(Form::Direct, direct);
        check(Form::CloudWatch, document);
        check(Form::Kpl, aggregate);
        check(Form::Mixed, |payload| match payload.1[0] {
            0x1f => document(payload),
            0xf3 => aggregate(payload),
            b'{' => direct(payload),
            _ => vec![text(&payload.1)],
        });
    }
}
