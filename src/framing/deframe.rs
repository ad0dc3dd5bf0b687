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

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rayon::ThreadPool;

use super::chunk::{LongLine, Payload, SourceRecord};
use super::fault::InputFault;
use super::file_range::{FileRange, RangeForm};
use super::framed::{EXCERPT_BYTES, Framed, FramedBuilder, LayoutScope};
use super::inflate::{self, Inflated, Inflater};
use super::json::LayoutMemo;
use super::kpl::{self, Aggregate};
use super::limits::Limits;
use super::packed::{PackedFile, Unpacked};
use super::position::{DecodedPlace, Position};
use super::sniff::{Form, form_of, without_mark};
use super::stream::{BLOCK_BYTES, InputReader};
use crate::record::{FaultKind, TextPool, TextSlice};
use crate::simd::{Isa, QuotedCopier};

/// How many wrappings inside one another are undone; AWS's own deliveries have at most three.
const NESTING_MAX: u32 = 6;
/// How much larger a payload may become beyond the limit for one record; flow logs inflate 5 to 20 times.
const RATIO_ALLOWED: usize = 64;

/// Unwraps a payload as a whole. Never fails: what is wrong becomes [`Framed::faults`].
#[must_use]
pub fn deframe(payload: Payload, limits: &Limits) -> Framed {
    let mut whole: Option<Framed> = None;
    let end = Deframer::new(Isa::detect(), limits).deframe(payload, &mut |part| {
        match &mut whole {
            Some(whole) => whole.append(part),
            None => whole = Some(part),
        }
        ControlFlow::Continue(())
    });
    assert!(end.is_continue(), "nothing breaks off here");
    whole.expect("a payload gives at least one part")
}

/// Takes the parts of a payload as they are unwrapped.
pub type EmitFramed<'a> = dyn FnMut(Framed) -> ControlFlow<()> + 'a;

/// Takes parts of lines or documents, and how many bytes of the payload are left behind each.
type EmitCut<'a> = dyn FnMut(Framed, u64) -> ControlFlow<()> + 'a;

/// Unwraps payloads, with buffers and decoders that are made once per worker.
#[derive(Debug)]
pub struct Deframer {
    limits: Limits,
    pool: TextPool,
    inflater: Inflater,
    copier: QuotedCopier,
    /// For the members of one file.
    threads: Option<Arc<ThreadPool>>,
}

impl Deframer {
    /// A worker without its thread.
    #[must_use]
    pub fn new(isa: Isa, limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            pool: TextPool::new(limits.kept_text_bytes_max),
            inflater: Inflater::default(),
            copier: QuotedCopier::new(isa),
            threads: None,
        }
    }

    /// As [`Self::new`], for a worker that may have the members of a large file inflated by these threads.
    #[must_use]
    pub fn with_threads(isa: Isa, limits: &Limits, threads: &Arc<ThreadPool>) -> Self {
        Self { threads: Some(Arc::clone(threads)), ..Self::new(isa, limits) }
    }

    /// Unwraps a payload into parts, of which large ones have several, so that each is handed on while
    /// it is in a cache. Never fails: what is wrong becomes [`Framed::faults`].
    pub fn deframe(&mut self, payload: Payload, emit: &mut EmitFramed<'_>) -> ControlFlow<()> {
        self.deframe_until(payload, None, emit)
    }

    /// As [`Self::deframe`], of a payload up to a known position, so that all parts tell theirs.
    pub fn deframe_until(
        &mut self,
        payload: Payload,
        position: Option<&Position>,
        emit: &mut EmitFramed<'_>,
    ) -> ControlFlow<()> {
        let mut emit = |mut part: Framed| {
            if !part.more_follows && part.position.is_none() {
                part.position = position.cloned();
            }
            emit(part)
        };
        let emit: &mut EmitFramed<'_> = &mut emit;
        match payload {
            Payload::Lines(lines) => emit(Framed::of_lines(lines)),
            Payload::LongLine(line) => emit(of_long_line(&line)),
            Payload::Documents(bytes) => {
                self.documents(&bytes, Completeness::Whole, &mut |mut part, left_bytes| {
                    part.position = position.and_then(|end| end.before(left_bytes));
                    emit(part)
                })
            }
            Payload::DocumentStart(bytes) => {
                self.documents(&bytes, Completeness::Cut, &mut |part, _| emit(part))
            }
            Payload::Records(records) => emit(self.records(records)),
            #[cfg(feature = "parquet")]
            Payload::RowGroup(group) => emit(group.deframe()),
            Payload::FileRange(range) => self.file_range(&range, emit),
            Payload::Packed(file) => self.packed(&file, emit),
        }
    }

    fn documents(
        &mut self,
        bytes: &[u8],
        completeness: Completeness,
        emit: &mut EmitCut<'_>,
    ) -> ControlFlow<()> {
        let Self { limits, pool, inflater, copier, .. } = self;
        let unwrapping =
            Unwrapping::new(limits, pool, inflater, *copier, LayoutScope::Input, bytes.len());
        unwrapping.documents_in_parts(bytes, completeness, emit)
    }

    fn records(&mut self, records: Vec<SourceRecord>) -> Framed {
        let payload_bytes = records.iter().map(|record| record.data.len()).sum();
        let Self { limits, pool, inflater, copier, .. } = self;
        let mut unwrapping =
            Unwrapping::new(limits, pool, inflater, *copier, LayoutScope::Record, payload_bytes);
        for record in records {
            unwrapping.begin_record(Some(record.sequence_number));
            let wrapped = Wrapped { data: &record.data, shared: Some(&record.data) };
            unwrapping.payload(wrapped, record.hash_key_range, 0, Completeness::Whole);
        }
        unwrapping.out.finish()
    }

    fn file_range(&mut self, range: &FileRange, emit: &mut EmitFramed<'_>) -> ControlFlow<()> {
        let mut at = 0;
        loop {
            let piece = range.load(at, &self.pool);
            let piece_end = range.start + (at + piece.bytes.len()) as u64;
            at += piece.bytes.len();
            let completeness = match piece.fault {
                None => Completeness::Whole,
                Some(_) => Completeness::Cut,
            };
            // A line end may have been added.
            let file_end = piece_end.min(range.start + range.length as u64);
            let (mut unread_bytes, mut fault) = (piece.bytes_read, piece.fault);
            let mut left_before = piece.bytes.len() as u64;
            let ends_anywhere = fault.is_some() || range.ends_in_fault;
            let mut emit_placed = |mut part: Framed, left_bytes: u64| {
                let is_end = !part.more_follows;
                // What a part holds counts as read with it, so that the rest counts once if it is read again.
                let bytes_read = if is_end {
                    unread_bytes
                } else {
                    (left_before - left_bytes).min(unread_bytes)
                };
                left_before = left_bytes;
                unread_bytes -= bytes_read;
                part.bytes_read += bytes_read;
                if is_end {
                    part.input_fault = part.input_fault.take().or_else(|| fault.take());
                    part.more_follows = !piece.is_last;
                }
                if !(is_end && piece.is_last && ends_anywhere) {
                    let place = (piece_end - left_bytes).min(file_end);
                    part.position = Some(Position::bytes(place));
                }
                emit(part)
            };
            match range.form {
                RangeForm::Lines => cut_lines(&piece.bytes, &self.limits, &mut emit_placed)?,
                RangeForm::Documents => {
                    self.documents(&piece.bytes, completeness, &mut emit_placed)?;
                }
            }
            if piece.is_last {
                return ControlFlow::Continue(());
            }
        }
    }

    fn packed(&mut self, file: &PackedFile, emit: &mut EmitFramed<'_>) -> ControlFlow<()> {
        let opened =
            file.open(&mut self.inflater, self.threads.as_deref(), &self.pool, &self.limits);
        let (unpacked, bytes_read) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                return emit(Framed { input_fault: Some(fault), ..Framed::default() });
            }
        };
        let from = file.from();
        let (pieces, end_added, form) = match unpacked {
            Unpacked::Lines(pieces, end_added) => (pieces, end_added, RangeForm::Lines),
            Unpacked::Documents(pieces) => (pieces, false, RangeForm::Documents),
            Unpacked::Stream(packed) => {
                let reader = InputReader::of_bytes(packed, from, &self.limits);
                return self.stream(reader, emit);
            }
        };
        let text_bytes: usize = pieces.iter().map(|piece| piece.text().len()).sum();
        let decoded_bytes_max = text_bytes as u64 - u64::from(end_added);
        if from.decoded_bytes > decoded_bytes_max {
            let position = Position::decoded(from);
            let fault = InputFault::replaced(&position, "it ends before that");
            return emit(Framed { input_fault: Some(fault), ..Framed::default() });
        }
        let mut uncounted_bytes = bytes_read.saturating_sub(from.bytes_read);
        let last = pieces.len() - 1;
        let mut piece_start = 0;
        for (index, piece) in pieces.into_iter().enumerate() {
            let piece_end = piece_start + piece.text().len() as u64;
            let range = piece.range();
            let passed = usize::try_from(from.decoded_bytes.saturating_sub(piece_start))
                .map_or(range.end, |passed| passed.clamp(range.start, range.end));
            let rest = TextSlice::new(Arc::clone(piece.text()), passed..range.end);
            piece_start = piece_end;
            if rest.is_empty() && index < last {
                continue;
            }
            let mut emit_placed = |mut part: Framed, left_bytes: u64| {
                part.bytes_read += std::mem::take(&mut uncounted_bytes);
                part.more_follows |= index < last;
                let decoded_bytes = (piece_end - left_bytes).min(decoded_bytes_max);
                let place = DecodedPlace { decoded_bytes, bytes_read };
                part.position = Some(Position::decoded(place));
                emit(part)
            };
            match form {
                RangeForm::Lines => cut_lines(&rest, &self.limits, &mut emit_placed)?,
                RangeForm::Documents => {
                    self.documents(&rest, Completeness::Whole, &mut emit_placed)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Unwraps all that a reader gives.
    fn stream(&mut self, mut reader: InputReader, emit: &mut EmitFramed<'_>) -> ControlFlow<()> {
        let input_fault = loop {
            match reader.next_piece() {
                Ok(None) => break None,
                Err(fault) => break Some(fault),
                Ok(Some(piece)) => {
                    let mut bytes_read = piece.bytes_read;
                    self.deframe_until(piece.payload, piece.position.as_ref(), &mut |mut part| {
                        part.bytes_read += std::mem::take(&mut bytes_read);
                        part.more_follows = true;
                        emit(part)
                    })?;
                }
            }
        };
        emit(Framed { input_fault, ..Framed::default() })
    }
}

/// Hands on lines in blocks, and those that are too long by themselves.
pub(super) fn cut_lines(
    lines: &TextSlice,
    limits: &Limits,
    emit: &mut EmitCut<'_>,
) -> ControlFlow<()> {
    let line_bytes_max = limits.line_bytes_max.max(BLOCK_BYTES);
    let whole = lines.range();
    let mut at = 0;
    loop {
        let rest = &lines[at..];
        let near = &rest[..rest.len().min(BLOCK_BYTES)];
        let length = match memchr::memrchr(b'\n', near) {
            Some(last) => last + 1,
            None => memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1),
        };
        let mut part = if length > line_bytes_max + 1 {
            let length_bytes = length as u64 - 1;
            of_long_line(&LongLine { length_bytes, excerpt: rest[..EXCERPT_BYTES].to_vec() })
        } else {
            let start = whole.start + at;
            Framed::of_lines(TextSlice::new(Arc::clone(lines.text()), start..start + length))
        };
        at += length;
        part.more_follows = at < lines.len();
        let more_follows = part.more_follows;
        emit(part, (lines.len() - at) as u64)?;
        if !more_follows {
            return ControlFlow::Continue(());
        }
    }
}

fn of_long_line(line: &LongLine) -> Framed {
    let mut builder = FramedBuilder::new(&TextPool::default(), 0);
    let detail = format!("it has {} bytes", line.length_bytes);
    builder.long_line(detail, None, line);
    builder.framed.input_lines = 1;
    builder.framed.bytes_decoded = line.length_bytes;
    builder.finish()
}

/// The bytes of a record, and the shared memory that they are, if they are.
#[derive(Clone, Copy)]
struct Wrapped<'a> {
    data: &'a [u8],
    shared: Option<&'a Bytes>,
}

/// Whether bytes end where their producer ended them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    Whole,
    /// The end is lost and told of elsewhere.
    Cut,
}

/// The work on one payload.
struct Unwrapping<'a> {
    limits: &'a Limits,
    pool: &'a TextPool,
    inflater: &'a mut Inflater,
    copier: QuotedCopier,
    out: FramedBuilder,
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

impl<'a> Unwrapping<'a> {
    fn new(
        limits: &'a Limits,
        pool: &'a TextPool,
        inflater: &'a mut Inflater,
        copier: QuotedCopier,
        scope: LayoutScope,
        payload_bytes: usize,
    ) -> Self {
        let ratio_budget = payload_bytes.saturating_mul(RATIO_ALLOWED);
        let payload_budget_bytes = limits.inflated_bytes_max.saturating_add(ratio_budget);
        Self {
            limits,
            out: FramedBuilder::new(pool, 2 * BLOCK_BYTES),
            pool,
            inflater,
            copier,
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
        wrapped: Wrapped<'_>,
        hash_key_range: Option<(u128, u128)>,
        nesting: u32,
        completeness: Completeness,
    ) {
        let data = wrapped.data;
        if nesting > NESTING_MAX {
            return self.fault(FaultKind::Unsupported, "it is wrapped too many times", data);
        }
        match form_of(data) {
            Form::Gzip | Form::Zstd => self.compressed(data, nesting),
            Form::KplAggregate => self.aggregate(wrapped, hash_key_range, nesting),
            Form::Parquet => self.fault(FaultKind::Unsupported, "it is Parquet", data),
            Form::Foreign(name) => self.fault(FaultKind::Unsupported, name, data),
            Form::Json => {
                self.count_decoded(data);
                self.all_documents(without_mark(data), nesting, completeness);
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

    fn compressed(&mut self, packed: &[u8], nesting: u32) {
        let budget_bytes = self.budget_bytes();
        let mut bytes = self.pool.take(Inflater::room_for(packed, budget_bytes));
        bytes.clear();
        let inflated = match form_of(packed) {
            Form::Zstd => inflate::zstd(packed, &mut bytes, budget_bytes),
            _ => self.inflater.gzip(packed, &mut bytes, budget_bytes),
        };
        self.spend(bytes.len());
        let inside = Wrapped { data: &bytes, shared: None };
        match inflated {
            Inflated::TooLarge => {
                self.fault(FaultKind::TooLarge, "it inflates beyond the limit", packed);
            }
            Inflated::Whole => self.payload(inside, None, nesting + 1, Completeness::Whole),
            Inflated::Cut => {
                let faults_before = self.out.framed.faults.len();
                self.payload(inside, None, nesting + 1, Completeness::Cut);
                // The damage is one fault, whatever it did to the forms inside.
                self.out.framed.faults.truncate(faults_before);
                self.fault(FaultKind::Compression, "it breaks off or is damaged", packed);
            }
        }
        self.pool.give_back(bytes);
    }

    fn aggregate(
        &mut self,
        wrapped: Wrapped<'_>,
        hash_key_range: Option<(u128, u128)>,
        nesting: u32,
    ) {
        let data = wrapped.shared.cloned();
        let data = data.unwrap_or_else(|| Bytes::copy_from_slice(wrapped.data));
        match kpl::unpack(&data, hash_key_range) {
            Err(detail) => self.fault(FaultKind::KplAggregate, detail, &data),
            Ok(Aggregate::Elsewhere) => self.out.framed.aggregates_elsewhere += 1,
            Ok(Aggregate::Records(records)) => {
                for record in records {
                    self.out.begin_segment(self.origin.clone(), self.scope.clone());
                    let wrapped = Wrapped { data: &record, shared: Some(&record) };
                    self.payload(wrapped, None, nesting + 1, Completeness::Whole);
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
            let excerpt = line[..line.len().min(EXCERPT_BYTES)].to_vec();
            long_lines.push(LongLine { length_bytes: line.len() as u64, excerpt });
        });
        for line in long_lines {
            self.out.long_line("it is longer than the limit", self.origin.clone(), &line);
        }
    }
}

#[cfg(test)]
mod tests;
