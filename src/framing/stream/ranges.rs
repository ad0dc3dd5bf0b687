//! Cuts a plain file into ranges of whole lines or whole documents without reading what is in them.
//!
//! ```text
//! file:    … LF│line … line … LF│line …
//! range:       └─── start ─ end ┘ the last LF before start + RANGE_BYTES
//! ```
//!
//! Only the bytes before each planned end are looked at; the workers read the rest. The ranges are
//! those that reading in blocks would give.

use std::fs::File;
use std::io;
use std::sync::Arc;

use memchr::{memchr, memmem, memrchr};

use crate::framing::chunk::{LongLine, Payload};
use crate::framing::fault::InputFault;
use crate::framing::file_range::{FileRange, RangeForm, read_up_to};
use crate::framing::framed::EXCERPT_BYTES;
use crate::framing::limits::Limits;

use super::BLOCK_BYTES;

/// About how many bytes a range has: enough that its way through the queues costs nothing beside its
/// parsing, few enough that all workers have some.
pub(super) const RANGE_BYTES: usize = 1 << 20;

/// How much is looked at first for the end of a range: some lines.
const PROBE_BYTES: usize = 4 * 1024;

/// Where one JSON document certainly ends and the next begins, whatever came before: a `{` at the start of a line
/// begins a document unless a value may stand there, which is never so after a `}`. See
/// [`Splitter`](crate::framing::json::Splitter).
const DOCUMENT_BORDER: &[u8] = b"}\n{";

/// How far the end of a document is searched: envelopes of a busy log group have some megabytes.
const LONG_DOCUMENT_BYTES: usize = 16 << 20;

/// The ranges of a plain file.
pub(super) struct RangeCutter {
    file: Arc<File>,
    form: RangeForm,
    range_bytes: usize,
    line_bytes_max: usize,
    document_bytes_max: usize,
    at: u64,
    /// Bytes before `at` that no range answers for yet.
    passed_bytes: u64,
    probe: Vec<u8>,
    fault: Option<io::Error>,
}

/// What comes next in a file.
pub(super) enum NextRange {
    Payload(Payload, u64),
    End,
    /// The rest from here on has to be read as a stream.
    Unplannable(u64),
}

impl RangeCutter {
    /// The ranges of `file` after the first `start` bytes, which are a mark.
    pub(super) fn new(
        file: Arc<File>,
        form: RangeForm,
        start: u64,
        range_bytes: usize,
        limits: &Limits,
    ) -> Self {
        Self {
            file,
            form,
            range_bytes,
            // Shorter limits act as this one, as they do for what is read in blocks.
            line_bytes_max: limits.line_bytes_max.max(BLOCK_BYTES),
            document_bytes_max: limits.document_bytes_max.min(LONG_DOCUMENT_BYTES),
            at: start,
            passed_bytes: start,
            probe: Vec::new(),
            fault: None,
        }
    }

    /// Goes on at `offset`, up to which all was read before.
    pub(super) fn resume(&mut self, offset: u64) {
        (self.at, self.passed_bytes) = (offset, 0);
    }

    /// Up to where the file was handed on; `None` if that can't be known because the file can't be read.
    pub(super) fn taken_bytes(&self) -> Option<u64> {
        self.fault.is_none().then_some(self.at)
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn next_range(&mut self) -> Result<NextRange, InputFault> {
        if let Some(error) = self.fault.take() {
            return Err(error.into());
        }
        let left = self.file.metadata()?.len().saturating_sub(self.at);
        if left == 0 {
            return Ok(match std::mem::take(&mut self.passed_bytes) {
                0 => NextRange::End,
                mark => NextRange::Payload(Payload::Lines(Vec::new().into()), mark),
            });
        }
        if let Ok(left) = usize::try_from(left)
            && left <= self.range_bytes
        {
            return Ok(self.range(left));
        }
        let next = match self.last_border() {
            Ok(Some(length)) => Ok(self.range(length)),
            Ok(None) => match self.form {
                RangeForm::Lines => self.long_line(),
                RangeForm::Documents => self.long_document(),
            },
            Err(error) => Err(error),
        };
        next.or_else(|error| Ok(self.range_before(error)))
    }

    /// What can be read before an error; the error comes next.
    fn range_before(&mut self, error: io::Error) -> NextRange {
        self.fault = Some(error);
        self.range(self.range_bytes)
    }

    fn range(&mut self, length: usize) -> NextRange {
        let range = FileRange {
            ends_in_fault: self.fault.is_some(),
            file: Arc::clone(&self.file),
            form: self.form,
            start: self.at,
            length,
            passed_bytes: std::mem::take(&mut self.passed_bytes),
        };
        self.at += length as u64;
        NextRange::Payload(Payload::FileRange(range), 0)
    }

    /// The length up to the last border within a range, `None` if there is none.
    fn last_border(&mut self) -> io::Result<Option<usize>> {
        let form = self.form;
        let mut probe_bytes = PROBE_BYTES.min(self.range_bytes);
        loop {
            let offset = self.range_bytes - probe_bytes;
            let probe = self.read(self.at + offset as u64, probe_bytes)?;
            let border = match form {
                RangeForm::Lines => memrchr(b'\n', probe).map(|at| at + 1),
                RangeForm::Documents => memmem::rfind(probe, DOCUMENT_BORDER).map(|at| at + 2),
            };
            if border.is_some() || offset == 0 {
                return Ok(border.map(|border| offset + border));
            }
            probe_bytes = (probe_bytes * 4).min(self.range_bytes);
        }
    }

    /// The line at `at`, which does not end within a range.
    fn long_line(&mut self) -> io::Result<NextRange> {
        let mut length = self.range_bytes as u64;
        let has_end = loop {
            let probe = self.read(self.at + length, BLOCK_BYTES)?;
            match memchr(b'\n', probe) {
                Some(found) => {
                    length += found as u64;
                    break true;
                }
                None if probe.is_empty() => break false,
                None => length += probe.len() as u64,
            }
        };
        let taken = length + u64::from(has_end);
        if length <= self.line_bytes_max as u64 {
            let taken = usize::try_from(taken).expect("it is below a limit in memory");
            return Ok(self.range(taken));
        }
        let excerpt = self.read(self.at, EXCERPT_BYTES)?.to_vec();
        self.at += taken;
        let line = LongLine { length_bytes: length, excerpt };
        let bytes_read = taken + std::mem::take(&mut self.passed_bytes);
        Ok(NextRange::Payload(Payload::LongLine(line), bytes_read))
    }

    /// A document that goes on for more than a range.
    fn long_document(&mut self) -> io::Result<NextRange> {
        let mut length = self.range_bytes.saturating_sub(DOCUMENT_BORDER.len());
        while length < self.document_bytes_max {
            let probe = self.read(self.at + length as u64, BLOCK_BYTES)?;
            if let Some(found) = memmem::find(probe, DOCUMENT_BORDER) {
                return Ok(self.range(length + found + 2));
            }
            if probe.len() < BLOCK_BYTES {
                break;
            }
            length += BLOCK_BYTES - DOCUMENT_BORDER.len();
        }
        // A mark before the first document is read with it.
        Ok(NextRange::Unplannable(self.at - std::mem::take(&mut self.passed_bytes)))
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        self.probe.resize(length, 0);
        let read_bytes = read_up_to(&self.file, &mut self.probe, offset)?;
        Ok(&self.probe[..read_bytes])
    }
}
