//! The journal read back, for sinks that have fallen behind.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::directory::StateDirectory;
use crate::checkpoint::error::CheckpointError;
use crate::checkpoint::line_log::{Lines, name_of};
use crate::finding::FindingId;

use super::{JournalPosition, PREFIX, line};

/// A finding of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    /// Its identity.
    pub id: FindingId,
    /// Its revision.
    pub revision: u32,
    /// The finding as its encoder wrote it, a line of JSON with its line end.
    pub finding: Vec<u8>,
    /// Behind the line: where a reader goes on that has settled it.
    pub next: JournalPosition,
}

/// What a reader passed over, or was stopped by.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// A line is not as it was written.
    #[error(
        "a finding in `{}` at byte {offset_bytes} is damaged and was passed over ({length_bytes} bytes)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        offset_bytes: u64,
        /// How long it is.
        length_bytes: u64,
    },
    /// Findings are gone: their files were removed to make room, or their lines are damaged.
    #[error("{count} findings before finding {before} are no longer in the journal")]
    Missing {
        /// How many.
        count: u64,
        /// The number of the first that is there.
        before: u64,
    },
    /// A file cannot be read; the reader has ended.
    #[error(transparent)]
    Io(CheckpointError),
}

/// Goes through the findings that were durable when it was made.
#[derive(Debug)]
pub struct JournalReader {
    directory: Arc<StateDirectory>,
    /// Number and what is to be read of each file that was not begun.
    files: VecDeque<(u64, (u64, u64))>,
    open: Option<(u64, Lines)>,
    findings: u64,
    /// A line whose predecessors are missing, which is told first.
    held: Option<JournalLine>,
}

impl JournalReader {
    pub(super) const fn new(
        directory: Arc<StateDirectory>,
        files: VecDeque<(u64, (u64, u64))>,
        findings: u64,
    ) -> Self {
        Self { directory, files, open: None, findings, held: None }
    }

    fn read(&mut self) -> Result<Option<JournalLine>, JournalFault> {
        if let Some(line) = self.held.take() {
            return Ok(Some(line));
        }
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some((number, lines)) = &mut self.open else { continue };
            let (number, offset_bytes) = (*number, lines.offset_bytes());
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.open = None;
                    continue;
                }
                Err(source) => return Err(self.stopped(number, source)),
            };
            let length_bytes = line.len() as u64;
            let Some(parsed) = line::parse(line) else {
                let path = self.directory.file(&name_of(PREFIX, number));
                return Err(JournalFault::Damaged { path, offset_bytes, length_bytes });
            };
            let mut finding = parsed.open_object.to_vec();
            finding.extend_from_slice(b"}\n");
            let before = parsed.seq;
            let next = JournalPosition {
                file: number,
                offset_bytes: offset_bytes + length_bytes,
                findings: before + 1,
            };
            let line = JournalLine { id: parsed.key.0, revision: parsed.key.1, finding, next };
            let expected = std::mem::replace(&mut self.findings, before + 1);
            if before > expected {
                self.held = Some(line);
                return Err(JournalFault::Missing { count: before - expected, before });
            }
            return Ok(Some(line));
        }
    }

    /// Opens the next file that is there; false if there is none.
    fn open_next(&mut self) -> Result<bool, JournalFault> {
        while let Some((number, span)) = self.files.pop_front() {
            match Lines::open(&self.directory, &name_of(PREFIX, number), span) {
                Ok(lines) => {
                    self.open = Some((number, lines));
                    return Ok(true);
                }
                // It was removed to make room; that lines are missing shows at the next.
                Err(CheckpointError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.files.clear();
                    return Err(JournalFault::Io(error));
                }
            }
        }
        Ok(false)
    }

    fn stopped(&mut self, number: u64, source: io::Error) -> JournalFault {
        self.files.clear();
        self.open = None;
        let path = self.directory.file(&name_of(PREFIX, number));
        JournalFault::Io(CheckpointError::Io { doing: "read", path, source })
    }
}

impl Iterator for JournalReader {
    type Item = Result<JournalLine, JournalFault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
