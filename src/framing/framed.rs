//! What deframing gives to the parser: lines, which layout they have, and what could not be unwrapped.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{FaultKind, Layout, TextPool, TextSlice};

use super::chunk::LongLine;
use super::fault::InputFault;
use super::lines::{LineBuffer, LineMark};
use super::position::Position;

/// Bytes of a line that is too long that are kept to show it.
pub const EXCERPT_BYTES: usize = 200;
/// Bytes of a bad record that are kept for somebody to look at.
const RECORD_BYTES_KEPT: usize = 64 << 10;
/// Faults of one payload that keep an excerpt; the others are counted.
const EXCERPTS_MAX: usize = 16;

/// One payload, or a part of a large one, unwrapped.
///
/// Each fault stands for one malformed record. Lines are not checked here: that is the parser's work.
#[derive(Debug, Default)]
pub struct Framed {
    /// Flow log lines, each ending in LF; some may be blank.
    pub lines: TextSlice,
    /// The lines in runs of one origin and one [`LayoutScope`], in order; they cover `lines`.
    pub segments: Vec<Segment>,
    /// Messages by which a service tests its destination, and notifications: counted, never parsed.
    pub control: u64,
    /// KPL aggregates that hash outside the shard; the shard that owns them delivers them as well.
    pub aggregates_elsewhere: u64,
    /// Records and documents that could not be unwrapped, or that hold nothing of a flow log.
    pub faults: Vec<RecordFault>,
    /// What was left out without being wrong, for people: columns that are no fields.
    pub notes: Vec<String>,
    /// Whether `lines` are lines of the input itself, so that counting them counts the input's.
    pub lines_are_input: bool,
    /// How many lines of the input were passed otherwise, for counting line numbers; 0 for records.
    pub input_lines: u64,
    /// Bytes read from disk while unwrapping.
    pub bytes_read: u64,
    /// Bytes after decompression of files and records.
    pub bytes_decoded: u64,
    /// What ended the input early, found only while unwrapping.
    pub input_fault: Option<InputFault>,
    /// From where the input can be read on after this part; `None` if it can't be, or only its source knows.
    pub position: Option<Position>,
    /// Whether another part of the same payload comes.
    pub more_follows: bool,
}

/// A run of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in [`Framed::lines`]; it ends where the next begins.
    pub offset: usize,
    /// The number of its first line, from 0.
    pub line_index: u64,
    /// The sequence number of the stream record that it came from.
    pub origin: Option<Arc<str>>,
    /// Which layout its lines have.
    pub scope: LayoutScope,
    /// `false` if certainly no line in it is a header.
    pub may_hold_header: bool,
}

/// With which layout lines are read, and whom a header line among them binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutScope {
    /// The input's current layout; a header binds everything that follows in the input.
    Input,
    /// The input's initial layout; a header binds the rest of this segment only.
    Record,
    /// This layout, made from column names.
    Fixed(Arc<Layout>),
}

/// A record or document that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// What exactly.
    pub detail: Cow<'static, str>,
    /// The sequence number of the stream record.
    pub origin: Option<Arc<str>>,
    /// For inputs with lines: the line of the payload on which it begins, from 0.
    pub input_line: u64,
    /// How it begins; empty if enough others were kept.
    pub excerpt: Bytes,
    /// How long it is.
    pub length_bytes: u64,
}

/// Neighbouring segments that a parser may read in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where in [`Framed::lines`].
    pub bytes: Range<usize>,
    /// The number of its first line, from 0.
    pub line_index: u64,
    /// Which layout its lines have.
    pub scope: &'a LayoutScope,
}

impl Framed {
    /// Lines of the input itself.
    pub(super) fn of_lines(lines: TextSlice) -> Self {
        let segment = Segment {
            offset: 0,
            line_index: 0,
            origin: None,
            scope: LayoutScope::Input,
            may_hold_header: true,
        };
        let segments = if lines.is_empty() { Vec::new() } else { vec![segment] };
        let bytes_decoded = lines.len() as u64;
        Self { lines, segments, lines_are_input: true, bytes_decoded, ..Self::default() }
    }

    /// Adds the next part of the same payload.
    pub(super) fn append(&mut self, next: Self) {
        let (offset, line_index) = (self.lines.len(), line_count(&self.lines));
        let input_lines = self.input_lines + if self.lines_are_input { line_index } else { 0 };
        self.segments.extend(next.segments.into_iter().map(|segment| Segment {
            offset: segment.offset + offset,
            line_index: segment.line_index + line_index,
            ..segment
        }));
        self.faults.extend(
            next.faults
                .into_iter()
                .map(|fault| RecordFault { input_line: fault.input_line + input_lines, ..fault }),
        );
        self.lines = [&self.lines[..], &next.lines].concat().into();
        self.control += next.control;
        self.aggregates_elsewhere += next.aggregates_elsewhere;
        self.notes.extend(next.notes);
        self.lines_are_input |= next.lines_are_input;
        self.input_lines += next.input_lines;
        self.bytes_read += next.bytes_read;
        self.bytes_decoded += next.bytes_decoded;
        self.input_fault = self.input_fault.take().or(next.input_fault);
        self.position = next.position;
        self.more_follows = next.more_follows;
    }

    /// The lines in as few runs as layouts allow: records that hold no header cannot influence the
    /// ones behind them.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let mut segments = self.segments.iter().enumerate().peekable();
        std::iter::from_fn(move || {
            let (_, first) = segments.next()?;
            let mut last = first;
            while let Some((_, next)) = segments.next_if(|(_, next)| {
                next.scope == first.scope
                    && (first.scope != LayoutScope::Record || !last.may_hold_header)
            }) {
                last = next;
            }
            let end = segments.peek().map_or(self.lines.len(), |(_, next)| next.offset);
            Some(Run {
                bytes: first.offset..end,
                line_index: first.line_index,
                scope: &first.scope,
            })
        })
    }

    /// The sequence number of the record that a line came from.
    #[must_use]
    pub fn origin_of(&self, line_index: u64) -> Option<&Arc<str>> {
        let after = self.segments.partition_point(|segment| segment.line_index <= line_index);
        self.segments[..after].last()?.origin.as_ref()
    }
}

fn line_count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Collects a [`Framed`].
#[derive(Debug)]
pub(super) struct FramedBuilder {
    pub(super) lines: LineBuffer,
    pub(super) framed: Framed,
    pool: TextPool,
}

impl FramedBuilder {
    /// Room for about `capacity` bytes of lines in a buffer of `pool`.
    pub(super) fn new(pool: &TextPool, capacity: usize) -> Self {
        Self {
            lines: LineBuffer::in_buffer(pool.take(capacity)),
            framed: Framed::default(),
            pool: pool.clone(),
        }
    }

    /// Makes the lines that are added from here on belong to a segment like this.
    pub(super) fn begin_segment(&mut self, origin: Option<Arc<str>>, scope: LayoutScope) {
        self.end_segment();
        self.framed.segments.push(Segment {
            offset: self.lines.len_bytes(),
            line_index: self.lines.count(),
            origin,
            scope,
            may_hold_header: false,
        });
    }

    fn end_segment(&mut self) {
        let may_hold_header = self.lines.take_header_like();
        if let Some(last) = self.framed.segments.last_mut() {
            last.may_hold_header |= may_hold_header;
            if last.offset == self.lines.len_bytes() {
                self.framed.segments.pop();
            }
        }
    }

    /// Takes back the segment that was begun last if nothing was added to it: lines go on in the one
    /// before.
    pub(super) fn abandon_empty_segment(&mut self) {
        let lines_end = self.lines.len_bytes();
        self.framed.segments.pop_if(|last| last.offset == lines_end);
    }

    /// Forgets every line after `mark`.
    pub(super) fn set_back(&mut self, mark: LineMark) {
        self.lines.set_back(mark);
        let lines_end = self.lines.len_bytes();
        while self.framed.segments.pop_if(|last| last.offset >= lines_end).is_some() {}
    }

    /// The scope of the lines that are being added.
    pub(super) fn current_scope(&self) -> Option<&LayoutScope> {
        self.framed.segments.last().map(|segment| &segment.scope)
    }

    pub(super) fn fault(
        &mut self,
        kind: FaultKind,
        detail: impl Into<Cow<'static, str>>,
        origin: Option<Arc<str>>,
        bytes: &[u8],
    ) {
        let keep = if self.framed.faults.len() < EXCERPTS_MAX { RECORD_BYTES_KEPT } else { 0 };
        self.framed.faults.push(RecordFault {
            kind,
            detail: detail.into(),
            origin,
            input_line: 0,
            excerpt: Bytes::copy_from_slice(&bytes[..bytes.len().min(keep)]),
            length_bytes: bytes.len() as u64,
        });
    }

    /// A line that was too long, of which only the beginning is there.
    pub(super) fn long_line(
        &mut self,
        detail: impl Into<Cow<'static, str>>,
        origin: Option<Arc<str>>,
        line: &LongLine,
    ) {
        self.fault(FaultKind::LineTooLong, detail, origin, &line.excerpt);
        self.framed.faults.last_mut().expect("it was added").length_bytes = line.length_bytes;
    }

    pub(super) fn finish(mut self) -> Framed {
        self.end_segment();
        let Self { lines, mut framed, pool } = self;
        framed.lines = pool.text(lines.into_bytes()).into();
        debug_assert!(framed.lines.is_empty() || framed.lines.ends_with(b"\n"));
        debug_assert!(framed.segments.is_sorted_by_key(|segment| segment.offset));
        framed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: usize, scope: LayoutScope, may_hold_header: bool) -> Segment {
        let origin = Some(Arc::from(format!("at {offset}")));
        Segment { offset, line_index: offset as u64 / 2, origin, scope, may_hold_header }
    }

    #[test]
    fn records_without_headers_are_read_in_one_run() {
        use LayoutScope::Record;
        let fixed = LayoutScope::Fixed(Layout::default_v2());
        let framed = Framed {
            lines: b"1\n2\n3\n4\n5\n6\n".to_vec().into(),
            segments: vec![
                segment(0, Record, false),
                segment(2, Record, true),
                segment(4, Record, false),
                segment(6, fixed.clone(), true),
                segment(8, fixed, true),
                segment(10, LayoutScope::Input, true),
            ],
            ..Framed::default()
        };
        let runs: Vec<_> = framed.runs().map(|run| (run.bytes, run.line_index)).collect();
        assert_eq!(runs, [(0..4, 0), (4..6, 2), (6..10, 3), (10..12, 5)]);
        assert_eq!(framed.origin_of(0).map(|origin| &**origin), Some("at 0"));
        assert_eq!(framed.origin_of(4).map(|origin| &**origin), Some("at 8"));
        assert_eq!(Framed::default().runs().count(), 0);
        assert_eq!(Framed::default().origin_of(0), None);
    }
}
