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

mod documents;

use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{LongLine, Payload, SourceRecord};
use super::framed::{Framed, FramedBuilder, LayoutScope};
use super::inflate::{self, Inflated, Inflater};
use super::json::LayoutMemo;
use super::kpl::{self, Aggregate};
use super::limits::Limits;
use super::lines::LineBuffer;
use super::sniff::{Form, form_of, without_mark};
use crate::record::FaultKind;

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
        deframer.payload(&record.data, record.hash_key_range, 0, Completeness::Whole);
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
        data: &Bytes,
        hash_key_range: Option<(u128, u128)>,
        nesting: u32,
        completeness: Completeness,
    ) {
        if nesting > NESTING_MAX {
            return self.fault(FaultKind::Unsupported, "it is wrapped too many times", data);
        }
        match form_of(data) {
            Form::Gzip => {
                let inflated = self.inflater.gzip(data, self.budget_bytes());
                self.inflated(inflated, data, nesting);
            }
            Form::Zstd => {
                let inflated = inflate::zstd(data, self.budget_bytes());
                self.inflated(inflated, data, nesting);
            }
            Form::KplAggregate => self.aggregate(data, hash_key_range, nesting),
            Form::Parquet => self.fault(FaultKind::Unsupported, "it is Parquet", data),
            Form::Foreign(name) => self.fault(FaultKind::Unsupported, name, data),
            Form::Json => {
                self.count_decoded(data);
                self.documents(without_mark(data), nesting, completeness);
            }
            Form::Text => {
                self.count_decoded(data);
                self.text(without_mark(data), completeness);
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
                self.payload(&bytes.into(), None, nesting + 1, Completeness::Whole);
            }
            Inflated::Cut(bytes) => {
                self.spend(bytes.len());
                let faults_before = self.out.framed.faults.len();
                self.payload(&bytes.into(), None, nesting + 1, Completeness::Cut);
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
                    self.payload(&record, None, nesting + 1, Completeness::Whole);
                }
            }
        }
    }

    /// Goes back to lines that are not rows; tells whether that began a segment.
    fn resume_text(&mut self) -> bool {
        let begins = self.out.current_scope() != Some(&self.scope);
        if begins {
            self.out.begin_segment(self.origin.clone(), self.scope.clone());
        }
        begins
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
}

#[cfg(test)]
mod tests;
