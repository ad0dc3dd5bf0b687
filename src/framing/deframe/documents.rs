//! The JSON side of deframing: documents in a row, and which member of which form holds the record.
//!
//! Two forms make up nearly all traffic and are read without a tree: CloudWatch Logs envelopes and the
//! objects that VPC flow logs send to Firehose. A document's end is searched only for the others.

use std::ops::ControlFlow;

use base64_simd::STANDARD;

use crate::framing::fault::InputFault;
use crate::framing::framed::{FramedBuilder, LayoutScope};
use crate::framing::json::{
    DIRECT_START, EnvelopeEnd, Node, Piece, Splitter, is_separator, read_envelope, row_of,
};
use crate::framing::sniff::{Form, form_of};
use crate::framing::stream::BLOCK_BYTES;
use crate::record::FaultKind;

use super::{Completeness, EmitCut, NESTING_MAX, Unwrapping, Wrapped};

impl Unwrapping<'_> {
    /// JSON documents of an input, handed on in parts.
    pub(super) fn documents_in_parts(
        mut self,
        bytes: &[u8],
        completeness: Completeness,
        emit: &mut EmitCut<'_>,
    ) -> ControlFlow<()> {
        let mut at = 0;
        loop {
            let taken = self.documents(&bytes[at..], 0, completeness, BLOCK_BYTES);
            let part = &bytes[at..at + taken];
            at += taken;
            self.count_decoded(part);
            let empty = FramedBuilder::new(self.pool, 2 * BLOCK_BYTES);
            let mut framed = std::mem::replace(&mut self.out, empty).finish();
            framed.more_follows = at < bytes.len() && framed.input_fault.is_none();
            let more_follows = framed.more_follows;
            let left_bytes = if more_follows { bytes.len() - at } else { 0 };
            emit(framed, left_bytes as u64)?;
            if !more_follows {
                return ControlFlow::Continue(());
            }
        }
    }

    /// JSON documents in a row, with lines of text between them, until about `lines_bytes_enough` of
    /// lines are there. Gives how far it came.
    pub(super) fn documents(
        &mut self,
        bytes: &[u8],
        nesting: u32,
        completeness: Completeness,
        lines_bytes_enough: usize,
    ) -> usize {
        let mut at = 0;
        // Once the fast way met a break, ends are searched first: it could go over the rest of the payload
        // again for each of many broken documents.
        let mut search_first = false;
        while at < bytes.len() && self.out.lines.len_bytes() < lines_bytes_enough {
            let faults_before = self.out.framed.faults.len();
            let rest = &bytes[at..];
            let (text_before, control_before) = (self.out.lines.mark(), self.out.framed.control);
            let lead = rest.iter().take_while(|byte| is_separator(**byte)).count();
            let lines_before = self.out.framed.input_lines + line_ends(&rest[..lead]);
            let (taken, lines) = match self.fast_document(&rest[lead..], &mut search_first) {
                Some((length, line_ends)) => (lead + length, line_ends),
                None => {
                    let taken = self.searched_document(rest, nesting, completeness, search_first);
                    (taken, line_ends(&rest[lead..taken]))
                }
            };
            assert!(taken >= lead && taken > 0, "separators are passed first");
            let limit_bytes = self.limits.document_bytes_max;
            if nesting == 0 && self.scope == LayoutScope::Input && taken - lead > limit_bytes {
                self.out.set_back(text_before);
                self.out.framed.control = control_before;
                self.out.framed.faults.truncate(faults_before);
                self.out.framed.input_fault = Some(InputFault::EndlessDocument { limit_bytes });
                return at;
            }
            if nesting == 0 {
                for fault in &mut self.out.framed.faults[faults_before..] {
                    fault.input_line = lines_before;
                }
                if self.scope == LayoutScope::Input {
                    self.out.framed.input_lines = lines_before + lines;
                }
            }
            at += taken;
        }
        at
    }

    /// All documents in `bytes`.
    pub(super) fn all_documents(&mut self, bytes: &[u8], nesting: u32, completeness: Completeness) {
        self.documents(bytes, nesting, completeness, usize::MAX);
    }

    /// Reads an envelope, and leaves no trace if it is another document.
    fn envelope(&mut self, bytes: &[u8]) -> EnvelopeEnd {
        let begun = self.resume_text();
        let end =
            read_envelope(bytes, self.limits.line_bytes_max, self.copier, &mut self.out.lines);
        if begun && end == EnvelopeEnd::Other {
            self.out.abandon_empty_segment();
        }
        end
    }

    /// Takes a document exactly of the form that VPC flow logs send to Firehose.
    fn direct_message(&mut self, rest: &[u8]) -> Option<usize> {
        let inside = rest.strip_prefix(DIRECT_START)?;
        let begun = self.resume_text();
        let limit = self.limits.line_bytes_max;
        let taken = self.out.lines.push_last_string(self.copier, inside, limit);
        if begun && taken.is_none() {
            self.out.abandon_empty_segment();
        }
        taken.map(|taken| DIRECT_START.len() + taken)
    }

    /// Takes the document at the start of `rest` if it is one of the two forms that make up nearly
    /// all traffic, and gives its length and how many line ends are in it.
    fn fast_document(&mut self, rest: &[u8], search_first: &mut bool) -> Option<(usize, u64)> {
        if let Some(length) = self.direct_message(rest) {
            return Some((length, 0));
        }
        if *search_first || rest.first() != Some(&b'{') {
            return None;
        }
        let before = self.out.lines.mark();
        match self.envelope(rest) {
            EnvelopeEnd::Whole(envelope) => {
                self.finish_envelope(envelope.is_control, envelope.bad_events, rest);
                Some((envelope.length, envelope.line_ends))
            }
            EnvelopeEnd::Other => None,
            EnvelopeEnd::Broken => {
                self.out.lines.set_back(before);
                *search_first = true;
                None
            }
        }
    }

    fn finish_envelope(&mut self, is_control: bool, bad_events: u64, bytes: &[u8]) {
        self.out.framed.control += u64::from(is_control);
        for _ in 0..bad_events {
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
            Piece::Document => self.document(bytes, nesting, try_envelope),
            Piece::Broken => self.broken_document(bytes, lost_end),
            Piece::Text if lost_end => {}
            // Also the remains of a broken document that went over several lines: whether one came
            // before can't be known, because it may have been in another payload.
            Piece::Text => self.text(bytes, Completeness::Whole),
        }
        end
    }

    fn document(&mut self, bytes: &[u8], nesting: u32, try_envelope: bool) {
        if try_envelope {
            match self.envelope(bytes) {
                EnvelopeEnd::Whole(envelope) => {
                    return self.finish_envelope(envelope.is_control, envelope.bad_events, bytes);
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
        // What broke is told once, here, however the envelope ended.
        let _ = self.envelope(bytes);
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
        self.all_documents(bytes, nesting + 1, Completeness::Whole);
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
                let wrapped = Wrapped { data: &data, shared: None };
                self.payload(wrapped, None, nesting + 1, Completeness::Whole);
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

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn trim_separators(bytes: &[u8]) -> &[u8] {
    let lead = bytes.iter().take_while(|byte| is_separator(**byte)).count();
    bytes[lead..].trim_ascii_end()
}
