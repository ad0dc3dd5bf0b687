//! The journal of findings: every finding once, for good, in files that `jq` reads.
//!
//! After a restart the engine judges again what it had judged since its snapshot. The journal knows the
//! findings from then on and drops those that come again, so it holds no (id, revision) twice; findings
//! that do not come again stay. Sinks that were behind read on from their own positions.
//!
//! Each line carries a number without gaps and a checksum. What a crash cut off at the end is removed at
//! the start; a line damaged elsewhere is passed over and told, and hides nothing.

mod known;
mod line;
mod position;
mod reader;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::finding::Finding;

use super::directory::StateDirectory;
use super::error::CheckpointError;
use super::line_log::{LineLog, Names, Place};
use known::Known;
use line::Key;

pub use position::{JournalMark, JournalPosition};
pub use reader::{JournalFault, JournalLine, JournalReader};

/// Appends one finding as one JSON object on a line of its own, with members `id` and `revision`.
pub type Encode = fn(&Finding, &mut Vec<u8>);

const PREFIX: &str = "journal-";

/// Limits of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// A file that would become longer is followed by another.
    pub file_bytes_max: u64,
    /// The oldest files go when all together are longer.
    pub total_bytes_max: u64,
    /// The oldest files go when there are more.
    pub files_max: usize,
    /// How many findings are known in order not to be written twice, of those from before the restart and
    /// of later ones; beyond, the oldest are forgotten.
    pub known_max: usize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        let known_max = 4_000_000;
        Self { file_bytes_max: 64 << 20, total_bytes_max: 1 << 30, files_max: 1_000, known_max }
    }
}

/// What happened to findings since the journal was opened, and what was found then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounters {
    /// Findings that were there when it was opened and may come again.
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
    /// Findings that may come again and were forgotten, being too many: they would be written twice.
    pub forgotten_early: u64,
}

/// Writes the journal.
#[derive(Debug)]
pub struct Journal {
    log: LineLog,
    encode: Encode,
    settings: JournalSettings,
    known: Known,
    findings: u64,
    counters: JournalCounters,
    lines: Vec<u8>,
    /// The findings of the last batch as they were encoded.
    appended: Vec<u8>,
    /// Findings of the batch that is being written.
    batch: HashSet<Key>,
}

impl Journal {
    /// Opens the journal of a state directory, or begins it. With the mark of the snapshot that was
    /// restored, the findings that come again are known; without a snapshot all that are there may.
    ///
    /// # Errors
    /// If it cannot be read or mended.
    pub fn open(
        directory: Arc<StateDirectory>,
        settings: JournalSettings,
        encode: Encode,
        after: Option<&JournalMark>,
    ) -> Result<Self, CheckpointError> {
        let log = LineLog::open(directory, Names::Numbered(PREFIX), settings.file_bytes_max)?;
        let mut journal = Self {
            log,
            encode,
            settings,
            known: Known::default(),
            findings: 0,
            counters: JournalCounters::default(),
            lines: Vec::new(),
            appended: Vec::new(),
            batch: HashSet::new(),
        };
        for (seq, key) in after.iter().flat_map(|mark| &mark.pending) {
            journal.known.expect(*seq, *key);
        }
        journal.recover(after.map(|mark| mark.position).unwrap_or_default())?;
        journal.counters.recovered = journal.known.pending().len() as u64;
        Ok(journal)
    }

    /// Writes those findings that are not there yet, and leaves only them in the list: what sinks are to
    /// be given. After an error none was written, the list is as it was, and the same call may be tried
    /// again ([`CheckpointError::is_retryable`]).
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&mut self, findings: &mut Vec<Finding>) -> Result<(), CheckpointError> {
        self.lines.clear();
        self.appended.clear();
        self.batch.clear();
        let mut written = 0;
        for finding in findings.iter() {
            let key = key_of(finding);
            if self.known.contains(&key) || !self.batch.insert(key) {
                continue;
            }
            let (start, encoded_at) = (self.lines.len(), self.appended.len());
            (self.encode)(finding, &mut self.appended);
            self.lines.extend_from_slice(&self.appended[encoded_at..]);
            line::close(&mut self.lines, start, self.findings + written);
            written += 1;
        }
        if written > 0 {
            self.log.append(&self.lines)?;
        }
        self.counters.written += written;
        self.counters.repeats += findings.len() as u64 - written;
        let (before, batch) = (self.findings, &mut self.batch);
        self.findings += written;
        findings.retain(|finding| {
            let key = key_of(finding);
            self.known.settle(before, key);
            batch.remove(&key)
        });
        self.forget_beyond_limit();
        self.remove_old();
        Ok(())
    }

    /// The findings that the last [`Self::append`] left in the list, as they were encoded: a line each.
    #[must_use]
    pub fn appended(&self) -> &[u8] {
        &self.appended
    }

    /// Makes all findings durable; the position behind them, for a sink that has settled them.
    ///
    /// # Errors
    /// If they could not be made durable. They are written again with the next call.
    pub fn sync(&mut self) -> Result<JournalPosition, CheckpointError> {
        self.log.sync()?;
        Ok(self.position())
    }

    /// What a snapshot must keep that is taken now.
    ///
    /// # Panics
    /// If a finding is not durable: the journal goes first.
    #[must_use]
    pub fn mark(&self) -> JournalMark {
        assert_eq!(self.log.synced_end(), self.log.end(), "the journal is synced");
        JournalMark { position: self.position(), pending: self.known.pending().collect() }
    }

    /// The position behind all findings, durable or not: where a new sink begins.
    #[must_use]
    pub const fn position(&self) -> JournalPosition {
        let Place { file, offset_bytes } = self.log.end();
        JournalPosition { file, offset_bytes, findings: self.findings }
    }

    /// Forgets what came before the mark of a snapshot that is durable: a restart from it does not make
    /// that again.
    pub fn forget_before(&mut self, mark: &JournalMark) {
        self.known.forget_before(mark.position.findings);
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
        let batch = self.batch.capacity() * (size_of::<Key>() + 1);
        self.known.bytes() + batch + self.lines.capacity() + self.appended.capacity()
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
            // What is before the mark, or in a file that was followed by another, is durable.
            if is_last && start < length_bytes {
                self.counters.torn_bytes += length_bytes - good_bytes;
                self.log.settle(number, good_bytes)?;
            }
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
            if parsed.seq >= since {
                self.known.expect(parsed.seq, parsed.key);
                self.forget_beyond_limit();
            }
            // What is damaged behind the last sound line is not counted so: it is cut off.
            self.counters.damaged += std::mem::take(&mut damaged);
            good_bytes = lines.offset_bytes();
        }
        Ok(good_bytes)
    }

    fn forget_beyond_limit(&mut self) {
        self.counters.forgotten_early += self.known.limit(self.settings.known_max);
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

fn key_of(finding: &Finding) -> Key {
    (finding.id, finding.revision)
}

#[cfg(test)]
mod tests;
