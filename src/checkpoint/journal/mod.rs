//! The journal of findings: every finding once, for good, in files that `jq` reads.
//!
//! After a restart the engine judges again what it had judged since its snapshot. The journal knows the findings
//! behind the snapshot's position and drops those that come again, so it holds no (id, revision) twice;
//! findings that do not come again stay. Sinks that were behind read on from their own positions.
//!
//! Each line carries a number without gaps and a checksum. What a crash cut off at the end is removed at the start; a line
//! damaged elsewhere is passed over and told, and hides nothing.

mod line;
mod reader;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::Finding;

use super::directory::StateDirectory;
use super::error::CheckpointError;
use super::line_log::{LineLog, Place};
use line::Key;

pub use reader::{JournalFault, JournalLine, JournalReader};

/// Appends one finding as one JSON object on a line of its own, with members `id` and `revision`.
pub type Encode = fn(&Finding, &mut Vec<u8>);

const PREFIX: &str = "journal-";

/// No journal comes to a file of a greater number.
const FILES_MAX: u64 = 1_000_000_000_000_000;

/// No journal comes to a finding of a greater number.
const FINDINGS_MAX: u64 = 1 << 62;

/// Limits of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// A file that would become longer is followed by another.
    pub file_bytes_max: u64,
    /// The oldest files go when all together are longer.
    pub total_bytes_max: u64,
    /// The oldest files go when there are more.
    pub files_max: usize,
    /// How many findings are known in order not to be written twice; beyond, the oldest are forgotten.
    pub known_max: usize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        let known_max = 4_000_000;
        Self { file_bytes_max: 64 << 20, total_bytes_max: 1 << 30, files_max: 1_000, known_max }
    }
}

/// A place in the journal, between two findings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct JournalPosition {
    /// The number of the file.
    pub file: u64,
    /// Bytes before it in the file.
    pub offset_bytes: u64,
    /// Findings that were ever written before it.
    pub findings: u64,
}

impl JournalPosition {
    /// Writes it to a snapshot.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.file);
        out.u64(self.offset_bytes);
        out.u64(self.findings);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// If it is not what [`Self::save`] wrote.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("journal position", 1..=1)?;
        let position = Self { file: from.u64()?, offset_bytes: from.u64()?, findings: from.u64()? };
        if position.file > FILES_MAX || position.findings > FINDINGS_MAX {
            return Err(DecodeError::Invalid("journal position"));
        }
        Ok(position)
    }

    const fn place(self) -> Place {
        Place { file: self.file, offset_bytes: self.offset_bytes }
    }
}

/// What happened to findings since the journal was opened, and what was found then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounters {
    /// Findings behind the snapshot's position when it was opened.
    pub recovered: u64,
    /// Bytes at the end that a crash had left unfinished, and which were removed.
    pub torn_bytes: u64,
    /// Lines behind the snapshot's position that are damaged, and were left as they are.
    pub damaged: u64,
    /// Findings before the snapshot's position that are not there although they were durable: files
    /// were removed or cut by somebody.
    pub missing: u64,
    /// Findings written.
    pub written: u64,
    /// Findings that were there already, and were not written again.
    pub repeats: u64,
    /// Files removed to make room.
    pub files_removed: u64,
    /// How often a file could not be removed; it is tried again.
    pub removals_failed: u64,
    /// Findings forgotten before a snapshot held what came of them: should they come again after a restart, they
    /// would be written again.
    pub forgotten_early: u64,
}

/// What became of findings that were appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Findings written.
    pub written: u64,
    /// Findings that were there already.
    pub repeats: u64,
}

/// Writes the journal.
#[derive(Debug)]
pub struct Journal {
    log: LineLog,
    encode: Encode,
    settings: JournalSettings,
    known: HashSet<Key>,
    /// The same with their numbers, in order.
    known_order: VecDeque<(u64, Key)>,
    findings: u64,
    counters: JournalCounters,
    lines: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a state directory, or begins it. Findings behind `after`, the position that
    /// the restored snapshot holds, are known from now on; without a snapshot all are.
    ///
    /// # Errors
    /// If it cannot be read or mended.
    pub fn open(
        directory: Arc<StateDirectory>,
        settings: JournalSettings,
        encode: Encode,
        after: Option<JournalPosition>,
    ) -> Result<Self, CheckpointError> {
        let log = LineLog::open(directory, PREFIX, settings.file_bytes_max)?;
        let mut journal = Self {
            log,
            encode,
            settings,
            known: HashSet::new(),
            known_order: VecDeque::new(),
            findings: 0,
            counters: JournalCounters::default(),
            lines: Vec::new(),
        };
        journal.recover(after.unwrap_or_default())?;
        Ok(journal)
    }

    /// Writes those findings that are not there yet. After an error none of them was written, and the same
    /// call may be tried again ([`CheckpointError::is_retryable`]).
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&mut self, findings: &[Finding]) -> Result<Appended, CheckpointError> {
        self.lines.clear();
        let (mut appended, known_before) = (Appended::default(), self.known_order.len());
        for finding in findings {
            let key = (finding.id, finding.revision);
            if !self.known.insert(key) {
                appended.repeats += 1;
                continue;
            }
            let seq = self.findings + appended.written;
            let start = self.lines.len();
            (self.encode)(finding, &mut self.lines);
            line::close(&mut self.lines, start, seq);
            self.known_order.push_back((seq, key));
            appended.written += 1;
        }
        if appended.written > 0
            && let Err(error) = self.log.append(&self.lines)
        {
            for (_, key) in self.known_order.drain(known_before..) {
                self.known.remove(&key);
            }
            return Err(error);
        }
        self.findings += appended.written;
        self.counters.written += appended.written;
        self.counters.repeats += appended.repeats;
        self.forget_beyond_limit();
        self.remove_old();
        Ok(appended)
    }

    /// Whether this revision of a finding is behind the snapshots that a restart may begin with.
    #[must_use]
    pub fn knows(&self, finding: &Finding) -> bool {
        self.known.contains(&(finding.id, finding.revision))
    }

    /// Makes all findings durable; the position behind them, for a snapshot or a sink's cursor.
    ///
    /// # Errors
    /// If they could not be made durable. They are written again with the next call.
    pub fn sync(&mut self) -> Result<JournalPosition, CheckpointError> {
        self.log.sync()?;
        let Place { file, offset_bytes } = self.log.synced_end();
        Ok(JournalPosition { file, offset_bytes, findings: self.findings })
    }

    /// The position behind all findings, durable or not.
    #[must_use]
    pub const fn position(&self) -> JournalPosition {
        let Place { file, offset_bytes } = self.log.end();
        JournalPosition { file, offset_bytes, findings: self.findings }
    }

    /// Forgets findings before the position of a snapshot that is durable: a restart from it does not make
    /// them again. With the position of the older of the two snapshots, a restart from either is covered
    /// without reading them back.
    pub fn forget_before(&mut self, position: JournalPosition) {
        while let Some((seq, key)) = self.known_order.front().copied()
            && seq < position.findings
        {
            self.known_order.pop_front();
            self.known.remove(&key);
        }
    }

    /// Goes through the durable findings behind a position, or through all that are there; the latter
    /// also if the position is behind the end, as one of another journal may be.
    #[must_use]
    pub fn read_from(&self, position: Option<JournalPosition>) -> JournalReader {
        let end = self.log.synced_end();
        // A position behind the end is of another journal: better twice than never.
        let start = position.filter(|start| start.place() <= end).unwrap_or_default();
        let mut files = VecDeque::new();
        for (number, length_bytes) in self.log.files() {
            let skipped = if number == start.file { start.offset_bytes } else { 0 };
            let until = if number == end.file { end.offset_bytes } else { length_bytes };
            if number >= start.file && skipped < until {
                files.push_back((number, (skipped, until)));
            }
        }
        JournalReader::new(Arc::clone(self.log.directory()), files, start.findings)
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> JournalCounters {
        self.counters
    }

    /// Memory held by what is known, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.known.capacity() * (size_of::<Key>() + 1)
            + self.known_order.capacity() * size_of::<(u64, Key)>()
            + self.lines.capacity()
    }

    /// Reads the lines behind a position, and cuts off what a crash left unfinished.
    fn recover(&mut self, after: JournalPosition) -> Result<(), CheckpointError> {
        let files = self.log.files();
        let mut last = None;
        for (index, &(number, length_bytes)) in files.iter().enumerate() {
            // Only empty files may stand behind the one that was written to last.
            let is_last = files[index + 1..].iter().all(|(_, length)| *length == 0);
            if number < after.file && !is_last {
                continue;
            }
            let is_within = number == after.file
                && after.offset_bytes <= length_bytes
                && self.log.is_line_start(after.place())?;
            let start = if is_within { after.offset_bytes } else { 0 };
            let good_bytes =
                self.recover_lines(number, (start, length_bytes), after.findings, &mut last)?;
            let good_bytes = if is_last { good_bytes } else { length_bytes };
            self.counters.torn_bytes += length_bytes - good_bytes;
            self.log.settle(number, good_bytes)?;
        }
        let next = last.map_or(after.findings, |last| last + 1);
        self.findings = next.max(after.findings);
        if after.place() > self.log.end() {
            // Positions must not come again: sinks would skip what is written there.
            self.counters.missing = after.findings.saturating_sub(last.map_or(0, |last| last + 1));
            self.log.rotate_to(after.file + 1)?;
        }
        Ok(())
    }

    /// Knows the findings of a part of a file from number `since` on; where the last sound line ends.
    fn recover_lines(
        &mut self,
        number: u64,
        span: (u64, u64),
        since: u64,
        last: &mut Option<u64>,
    ) -> Result<u64, CheckpointError> {
        let mut lines = self.log.lines(number, span)?;
        let (mut good_bytes, mut damaged) = (span.0, 0);
        while let Some(bytes) = self.log.read(number, &mut lines)? {
            let Some(parsed) = line::parse(bytes) else {
                damaged += 1;
                continue;
            };
            *last = Some(parsed.seq.max(last.unwrap_or(0)));
            if parsed.seq >= since && self.known.insert(parsed.key) {
                self.known_order.push_back((parsed.seq, parsed.key));
                self.counters.recovered += 1;
                self.forget_beyond_limit();
            }
            // What is damaged behind the last sound line is not counted so: it is cut off.
            self.counters.damaged += std::mem::take(&mut damaged);
            good_bytes = lines.offset_bytes();
        }
        Ok(good_bytes)
    }

    fn forget_beyond_limit(&mut self) {
        while self.known_order.len() > self.settings.known_max {
            let (_, key) = self.known_order.pop_front().expect("it is longer than a limit");
            self.known.remove(&key);
            self.counters.forgotten_early += 1;
        }
    }

    fn remove_old(&mut self) {
        while self.log.file_count() > self.settings.files_max
            || self.log.bytes() > self.settings.total_bytes_max
        {
            match self.log.remove_oldest() {
                Ok(Some(_)) => self.counters.files_removed += 1,
                Ok(None) => return,
                // Findings were written all the same: it is tried again with the next.
                Err(_) => {
                    self.counters.removals_failed += 1;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
