//! Unwraps payloads into flow log lines: a pure function that parse workers call.
//!
//! ```text
//! record ─► KPL aggregate ─► gzip, zstd ─► JSON ─► base64 ─┐
//!    ▲                                     │              │
//!    └─────────────────────────────────────┼──────────────┘   at most NESTING_MAX times
//!                                          └─► lines
//! ```
//!
//! Every record is told by its own start, because streams mix forms. What cannot be unwrapped is one
//! fault; what comes before damage is kept. The work is linear in the bytes: a document is read at
//! most three times (fast way, search for its end, slow way).

use std::sync::Arc;

use base64_simd::STANDARD;
use bytes::Bytes;

use super::chunk::{LongLine, Payload, SourceRecord};
use crate::record::FaultKind;
use super::framed::{Framed, FramedBuilder, LayoutScope};
use super::inflate::{self, Inflated, Inflater};
use super::json::{
    EnvelopeEnd, LayoutMemo, Node, Piece, Splitter, direct_message, is_separator, read_envelope,
    row_of,
};
use super::kpl::{self, Aggregate};
use super::limits::Limits;
use super::lines::LineBuffer;
use super::sniff::{Form, form_of, without_mark};

/// How many wrappings inside one another are undone; AWS's own deliveries have at most three.
const NESTING_MAX: u32 = 6;
/// How much larger a payload may become beyond the limit for one record; flow logs inflate 5 to 20 times.
const RATIO_ALLOWED: usize = 64;

/// Unwraps a payload. Never fails: what is wrong becomes [`Framed::faults`].
#[must_use]
pub fn deframe(payload: Payload, limits: &Limits) -> Framed {
    match payload {
        Payload::Lines(bytes) => of_lines(bytes),
        Payload::LongLine(line) => of_long_line(&line),
        Payload::Documents(bytes) => of_documents(&bytes, limits, Completeness::Whole),
        Payload::DocumentStart(bytes) => of_documents(&bytes, limits, Completeness::Cut),
        Payload::Records(records) => of_records(records, limits),
        #[cfg(feature = "parquet")]
        Payload::RowGroup(group) => group.deframe(),
    }
}

fn of_lines(bytes: Vec<u8>) -> Framed {
    let mut builder = FramedBuilder::default();
    builder.begin_segment(None, LayoutScope::Input);
    builder.framed.bytes_decoded = bytes.len() as u64;
    builder.lines = LineBuffer::of_lines(bytes);
    builder.framed.input_lines = builder.lines.count();
    builder.finish()
}

fn of_long_line(line: &LongLine) -> Framed {
    let mut builder = FramedBuilder::default();
    let detail = format!("it has {} bytes", line.length_bytes);
    builder.fault(FaultKind::LineTooLong, detail, None, &line.excerpt);
    builder.framed.input_lines = 1;
    builder.framed.bytes_decoded = line.length_bytes;
    builder.finish()
}

fn of_documents(bytes: &[u8], limits: &Limits, completeness: Completeness) -> Framed {
    let mut deframer = Deframer::new(limits, LayoutScope::Input, bytes.len());
    deframer.count_decoded(bytes);
    deframer.documents(bytes, 0, completeness);
    deframer.out.framed.input_lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
    deframer.out.finish()
}

fn of_records(records: Vec<SourceRecord>, limits: &Limits) -> Framed {
    let payload_bytes = records.iter().map(|record| record.data.len()).sum();
    let mut deframer = Deframer::new(limits, LayoutScope::Record, payload_bytes);
    for record in records {
        deframer.begin_record(Some(record.sequence_number));
        deframer.payload(record.data, record.hash_key_range, 0, Completeness::Whole);
    }
    deframer.out.finish()
}

/// Whether bytes end where their producer ended them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    Whole,
    /// The end is lost and told of elsewhere.
    Cut,
}

struct Deframer<'a> {
    limits: &'a Limits,
    out: FramedBuilder,
    inflater: Inflater,
    memo: LayoutMemo,
    row: Vec<u8>,
    /// The scope of lines that are not rows.
    scope: LayoutScope,
    origin: Option<Arc<str>>,
    /// What the record, or the block of documents, may still inflate to.
    record_budget_bytes: usize,
    /// What the payload may still inflate to: a batch of bombs must not add up.
    payload_budget_bytes: usize,
}

impl<'a> Deframer<'a> {
    fn new(limits: &'a Limits, scope: LayoutScope, payload_bytes: usize) -> Self {
        let ratio_budget = payload_bytes.saturating_mul(RATIO_ALLOWED);
        let payload_budget_bytes = limits.inflated_bytes_max.saturating_add(ratio_budget);
        Self {
            limits,
            out: FramedBuilder::default(),
            inflater: Inflater::new(),
            memo: LayoutMemo::default(),
            row: Vec::new(),
            origin: None,
            record_budget_bytes: match scope {
                LayoutScope::Record => limits.inflated_bytes_max,
                _ => payload_budget_bytes,
            },
            payload_budget_bytes,
            scope,
        }
    }

    fn begin_record(&mut self, origin: Option<Arc<str>>) {
        self.origin = origin;
        self.record_budget_bytes = self.limits.inflated_bytes_max;
        self.out.begin_segment(self.origin.clone(), self.scope.clone());
    }

    fn fault(&mut self, kind: FaultKind, detail: &'static str, bytes: &[u8]) {
        self.out.fault(kind, detail, self.origin.clone(), bytes);
    }

    fn count_decoded(&mut self, bytes: &[u8]) {
        self.out.framed.bytes_decoded += bytes.len() as u64;
    }

    /// Anything, told by its start.
    fn payload(
        &mut self,
        data: Bytes,
        hash_key_range: Option<(u128, u128)>,
        nesting: u32,
        completeness: Completeness,
    ) {
        if nesting > NESTING_MAX {
            return self.fault(FaultKind::Unsupported, "it is wrapped too many times", &data);
        }
        match form_of(&data) {
            Form::Gzip => {
                let inflated = self.inflater.gzip(&data, self.budget_bytes());
                self.inflated(inflated, &data, nesting);
            }
            Form::Zstd => {
                let inflated = inflate::zstd(&data, self.budget_bytes());
                self.inflated(inflated, &data, nesting);
            }
            Form::KplAggregate => self.aggregate(&data, hash_key_range, nesting),
            Form::Parquet => self.fault(FaultKind::Unsupported, "it is Parquet", &data),
            Form::Foreign(name) => self.fault(FaultKind::Unsupported, name, &data),
            Form::Json => {
                self.count_decoded(&data);
                self.documents(without_mark(&data), nesting, completeness);
            }
            Form::Text => {
                self.count_decoded(&data);
                self.text(without_mark(&data), completeness);
            }
        }
    }

    fn budget_bytes(&self) -> usize {
        self.record_budget_bytes.min(self.payload_budget_bytes)
    }

    fn spend(&mut self, inflated_bytes: usize) {
        self.record_budget_bytes -= inflated_bytes;
        self.payload_budget_bytes -= inflated_bytes;
    }

    fn inflated(&mut self, inflated: Inflated, packed: &[u8], nesting: u32) {
        match inflated {
            Inflated::TooLarge => {
                self.fault(FaultKind::TooLarge, "it inflates beyond the limit", packed);
            }
            Inflated::Whole(bytes) => {
                self.spend(bytes.len());
                self.payload(bytes.into(), None, nesting + 1, Completeness::Whole);
            }
            Inflated::Cut(bytes) => {
                self.spend(bytes.len());
                let faults_before = self.out.framed.faults.len();
                self.payload(bytes.into(), None, nesting + 1, Completeness::Cut);
                // The damage is one fault, whatever it did to the forms inside.
                self.out.framed.faults.truncate(faults_before);
                self.fault(FaultKind::Compression, "it breaks off or is damaged", packed);
            }
        }
    }

    fn aggregate(&mut self, data: &Bytes, hash_key_range: Option<(u128, u128)>, nesting: u32) {
        match kpl::unpack(data, hash_key_range) {
            Err(detail) => self.fault(FaultKind::KplAggregate, detail, data),
            Ok(Aggregate::Elsewhere) => self.out.framed.aggregates_elsewhere += 1,
            Ok(Aggregate::Records(records)) => {
                for record in records {
                    self.out.begin_segment(self.origin.clone(), self.scope.clone());
                    self.payload(record, None, nesting + 1, Completeness::Whole);
                }
            }
        }
    }

    /// Goes back to lines that are not rows.
    fn resume_text(&mut self) {
        if self.out.current_scope() != Some(&self.scope) {
            self.out.begin_segment(self.origin.clone(), self.scope.clone());
        }
    }

    fn text(&mut self, text: &[u8], completeness: Completeness) {
        let whole_lines = match completeness {
            Completeness::Whole => text,
            Completeness::Cut => &text[..memchr::memrchr(b'\n', text).map_or(0, |at| at + 1)],
        };
        self.resume_text();
        let mut long_lines = Vec::new();
        self.out.lines.push_text(whole_lines, self.limits.line_bytes_max, |line| {
            long_lines.push(line[..line.len().min(super::EXCERPT_BYTES)].to_vec());
        });
        for line in long_lines {
            self.fault(FaultKind::LineTooLong, "it is longer than the limit", &line);
        }
    }

    /// JSON documents in a row, with lines of text between them.
    fn documents(&mut self, bytes: &[u8], nesting: u32, completeness: Completeness) {
        let mut at = 0;
        let mut lines_counted = (0, 0);
        // Once the fast way met a break, ends are searched first: it could go over the rest of the
        // payload again for each of many broken documents.
        let mut search_first = false;
        let mut after_break = false;
        while at < bytes.len() {
            let faults_before = self.out.framed.faults.len();
            let rest = &bytes[at..];
            let lead = rest.iter().take_while(|byte| is_separator(**byte)).count();
            let taken = match self.fast_document(&rest[lead..], &mut search_first) {
                Some(length) => lead + length,
                None => self.searched_document(
                    rest,
                    nesting,
                    completeness,
                    search_first,
                    &mut after_break,
                ),
            };
            debug_assert!(taken > 0);
            if nesting == 0 && self.out.framed.faults.len() > faults_before {
                let begin = (at + lead).min(bytes.len());
                let newlines = memchr::memchr_iter(b'\n', &bytes[lines_counted.0..begin]).count();
                lines_counted = (begin, lines_counted.1 + newlines as u64);
                for fault in &mut self.out.framed.faults[faults_before..] {
                    fault.input_line = lines_counted.1;
                }
            }
            at += taken;
        }
    }

    /// Takes the document at the start of `rest` if it is one of the two forms that make up nearly
    /// all traffic, and gives its length.
    fn fast_document(&mut self, rest: &[u8], search_first: &mut bool) -> Option<usize> {
        if let Some((message, length)) = direct_message(rest) {
            self.text(message, Completeness::Whole);
            return Some(length);
        }
        if *search_first || rest.first() != Some(&b'{') {
            return None;
        }
        self.resume_text();
        let before = self.out.lines.mark();
        match read_envelope(rest, self.limits.line_bytes_max, &mut self.out.lines) {
            EnvelopeEnd::Whole(envelope) => {
                self.finish_envelope(envelope.is_control, envelope.empty_events, rest);
                Some(envelope.length)
            }
            EnvelopeEnd::Other => None,
            EnvelopeEnd::Broken => {
                self.out.lines.set_back(before);
                *search_first = true;
                None
            }
        }
    }

    fn finish_envelope(&mut self, is_control: bool, empty_events: u64, bytes: &[u8]) {
        self.out.framed.control += u64::from(is_control);
        for _ in 0..empty_events {
            self.fault(
                FaultKind::Json,
                "a log event has no message, or one that is too long",
                bytes,
            );
        }
    }

    /// Finds the end of the piece at the start of `rest`, takes the piece, and gives its length.
    fn searched_document(
        &mut self,
        rest: &[u8],
        nesting: u32,
        completeness: Completeness,
        try_envelope: bool,
        after_break: &mut bool,
    ) -> usize {
        let mut splitter = Splitter::new();
        let found = splitter.next_end(rest, 0);
        let lost_end = found.is_none() && completeness == Completeness::Cut;
        let (end, piece) = match (found, splitter.open_piece()) {
            (Some(found), _) => found,
            (None, Some(open)) => (rest.len(), open),
            (None, None) => return rest.len(),
        };
        let bytes = trim_separators(&rest[..end]);
        match piece {
            Piece::Document => {
                *after_break = false;
                self.document(bytes, nesting, try_envelope);
            }
            Piece::Broken => {
                *after_break = true;
                self.broken_document(bytes, lost_end);
            }
            // Remains of a broken document that went over several lines.
            Piece::Text if *after_break && matches!(bytes.first(), Some(b'"' | b'}' | b']')) => {}
            Piece::Text if lost_end => {}
            Piece::Text => self.text(bytes, Completeness::Whole),
        }
        end
    }

    fn document(&mut self, bytes: &[u8], nesting: u32, try_envelope: bool) {
        if try_envelope {
            self.resume_text();
            match read_envelope(bytes, self.limits.line_bytes_max, &mut self.out.lines) {
                EnvelopeEnd::Whole(envelope) => {
                    return self.finish_envelope(envelope.is_control, envelope.empty_events, bytes);
                }
                EnvelopeEnd::Broken => {
                    return self.fault(FaultKind::Json, "it is not well-formed JSON", bytes);
                }
                EnvelopeEnd::Other => {}
            }
        }
        match Node::parse(bytes) {
            Some(node) => self.node(&node, bytes, nesting),
            None => self.fault(FaultKind::Json, "it is not well-formed JSON", bytes),
        }
    }

    /// Keeps the messages of an envelope that breaks off.
    fn broken_document(&mut self, bytes: &[u8], lost_end: bool) {
        self.resume_text();
        let before = self.out.lines.mark();
        let end = read_envelope(bytes, self.limits.line_bytes_max, &mut self.out.lines);
        if end == EnvelopeEnd::Other {
            self.out.lines.set_back(before);
        }
        if !lost_end {
            self.fault(FaultKind::Json, "the JSON document breaks off", bytes);
        }
    }

    /// A document of any known form. `bytes` is the whole document, to show if it is none.
    fn node(&mut self, node: &Node<'_>, bytes: &[u8], nesting: u32) {
        match node {
            Node::Object(_) => self.object(node, bytes, nesting),
            Node::List(elements) => {
                for element in elements {
                    self.node(element, bytes, nesting);
                }
            }
            Node::Text(text) => self.string(text, nesting),
            _ => self.fault(FaultKind::Json, "a bare value is not a record", bytes),
        }
    }

    fn object(&mut self, node: &Node<'_>, bytes: &[u8], nesting: u32) {
        if node.text("messageType") == Some("CONTROL_MESSAGE") || is_notification(node) {
            self.out.framed.control += 1;
            return;
        }
        if let Some(elements) = CONTAINERS.iter().find_map(|name| node.list(name)) {
            for element in elements {
                self.node(element, bytes, nesting);
            }
            return;
        }
        if let Some(encoded) = encoded_data(node) {
            return self.base64(encoded, nesting);
        }
        if let Some(text) = TEXTS.iter().find_map(|name| node.text(name)) {
            return self.string(text, nesting);
        }
        if let Some(text) = node.member("Sns").and_then(|sns| sns.text("Message")) {
            return self.string(text, nesting);
        }
        self.row(node, bytes);
    }

    fn row(&mut self, node: &Node<'_>, bytes: &[u8]) {
        let Node::Object(members) = node else { return };
        self.row.clear();
        let Some(layout) = row_of(members, &mut self.memo, &mut self.row) else {
            return self.fault(FaultKind::Json, "no known member holds a flow log record", bytes);
        };
        let scope = LayoutScope::Fixed(layout);
        if self.out.current_scope() != Some(&scope) {
            self.out.begin_segment(self.origin.clone(), scope);
        }
        self.out.lines.push_line(&self.row);
    }

    /// Text inside JSON: lines, or JSON once more.
    fn string(&mut self, text: &str, nesting: u32) {
        let bytes = text.as_bytes();
        if form_of(bytes) != Form::Json {
            return self.text(bytes, Completeness::Whole);
        }
        if nesting >= NESTING_MAX {
            return self.fault(FaultKind::Unsupported, "it is wrapped too many times", bytes);
        }
        self.documents(bytes, nesting + 1, Completeness::Whole);
    }

    fn base64(&mut self, encoded: &str, nesting: u32) {
        let decoded = STANDARD
            .decode_to_vec(encoded)
            .or_else(|_| base64_simd::forgiving_decode_to_vec(encoded.as_bytes()));
        match decoded {
            Ok(data) => {
                // What was decoded stands for itself, even in a file: a header in it binds no other.
                let outer = std::mem::replace(&mut self.scope, LayoutScope::Record);
                self.out.begin_segment(self.origin.clone(), LayoutScope::Record);
                self.payload(data.into(), None, nesting + 1, Completeness::Whole);
                self.scope = outer;
            }
            Err(_) => {
                self.fault(FaultKind::Base64, "it is cut short or not base64", encoded.as_bytes());
            }
        }
    }
}

/// Members that hold one record per element: Firehose requests and transform events, Lambda and
/// GetRecords events, CloudWatch Logs events.
const CONTAINERS: [&str; 4] = ["records", "Records", "logEvents", "events"];

/// Members whose text is the record: CloudWatch Logs and Firehose, OpenSearch and SQS, SNS.
const TEXTS: [&str; 3] = ["message", "body", "Message"];

/// The base64 of a record: Firehose and its error objects, GetRecords, and what Lambda is called with.
fn encoded_data<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    let inside = |member: &str| node.member(member).and_then(|inner| inner.text("data"));
    node.text("data")
        .or_else(|| node.text("rawData"))
        .or_else(|| node.text("Data"))
        .or_else(|| inside("kinesis"))
        .or_else(|| inside("awslogs"))
}

/// Whether a document tells of an object or a subscription rather than of flows.
fn is_notification(node: &Node<'_>) -> bool {
    node.text("eventSource") == Some("aws:s3")
        || node.text("Event") == Some("s3:TestEvent")
        || (node.text("source") == Some("aws.s3") && node.text("detail-type").is_some())
        || matches!(node.text("Type"), Some("SubscriptionConfirmation" | "UnsubscribeConfirmation"))
}

fn trim_separators(bytes: &[u8]) -> &[u8] {
    let lead = bytes.iter().take_while(|byte| is_separator(**byte)).count();
    bytes[lead..].trim_ascii_end()
}
