//! What could not be read, put aside with its origin and the reason, so that the stream goes on and
//! somebody may look at it.
//!
//! Schema `flowgauge.dead_letter/v1`, one JSON object per line. The oldest stay when the limit is
//! reached: the first of many alike says most. A chunk that is read again after a restart may stand
//! there twice.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::units::UnixSeconds;

use super::directory::StateDirectory;
use super::disk::Disk;
use super::error::CheckpointError;
use super::line_log::{LineLog, Names};

const PREFIX: &str = "dead-letter-";

const SCHEMA: &str = "flowgauge.dead_letter/v1";

/// How every letter begins.
const LINE_START: &[u8] = b"{\"schema\":\"flowgauge.dead_letter/v1\"";

/// Limits of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// A file that would become longer is followed by another, in a state directory.
    pub file_bytes_max: u64,
    /// When all files are as long as this, nothing more is written until some are removed by hand and the job is
    /// started again.
    pub total_bytes_max: u64,
    /// Of each chunk, only so much is kept.
    pub payload_bytes_max: usize,
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self { file_bytes_max: 16 << 20, total_bytes_max: 256 << 20, payload_bytes_max: 64 << 10 }
    }
}

/// Bytes that could not be read.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Wall time.
    pub time: UnixSeconds,
    /// The name of the input: a shard, a file.
    pub input: &'a str,
    /// Where in the input: a sequence number, a byte offset.
    pub position: &'a str,
    /// Why they could not be read.
    pub reason: &'a str,
    /// The bytes, or the first of them.
    pub payload: &'a [u8],
    /// How many bytes there were.
    pub length_bytes: u64,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCounters {
    /// Letters written.
    pub written: u64,
    /// Letters that there was no room for.
    pub dropped: u64,
    /// Letters of which only the first bytes were kept.
    pub cut: u64,
}

/// Writes dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    log: LineLog,
    settings: DeadLetterSettings,
    counters: DeadLetterCounters,
    line: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    time: String,
    input: &'a str,
    position: &'a str,
    reason: &'a str,
    payload_bytes: u64,
    /// Absent when the payload is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_bytes: Option<usize>,
    payload_base64: String,
}

impl DeadLetters {
    /// Opens the dead letters of a state directory, or begins them. A last line that a crash cut off is
    /// removed.
    ///
    /// # Errors
    /// If they cannot be read or mended.
    pub fn open(
        directory: Arc<StateDirectory>,
        settings: DeadLetterSettings,
    ) -> Result<Self, CheckpointError> {
        let log = LineLog::open(directory, Names::Numbered(PREFIX), settings.file_bytes_max)?;
        Self::settled(log, settings)
    }

    /// Opens a file of dead letters, or begins it, in a directory that there is. A last line that a crash cut off is
    /// removed.
    ///
    /// # Errors
    /// If it cannot be read or mended, another process has it, or it holds anything else.
    pub fn open_file(
        disk: Arc<dyn Disk>,
        path: &Path,
        settings: DeadLetterSettings,
    ) -> Result<Self, CheckpointError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(CheckpointError::NoDeadLetters { path: path.to_owned() });
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = StateDirectory::of_file(disk, parent.unwrap_or(Path::new(".")), name)?;
        let log = LineLog::open(directory, Names::Single(name.to_owned()), u64::MAX)?;
        let &(number, length_bytes) = log.files().last().expect("there is one at least");
        let mut lines = log.lines(number, (0, length_bytes))?;
        let first = log.read(number, &mut lines)?.unwrap_or_default();
        if !first.starts_with(LINE_START) && !LINE_START.starts_with(first) {
            return Err(CheckpointError::NoDeadLetters { path: path.to_owned() });
        }
        Self::settled(log, settings)
    }

    fn settled(mut log: LineLog, settings: DeadLetterSettings) -> Result<Self, CheckpointError> {
        let &(number, length_bytes) = log.files().last().expect("there is one at least");
        let mut lines = log.lines(number, (0, length_bytes))?;
        let mut good_bytes = 0;
        while let Some(line) = log.read(number, &mut lines)? {
            if line.starts_with(b"{") && line.ends_with(b"}\n") {
                good_bytes = lines.offset_bytes();
            }
        }
        if length_bytes > 0 {
            log.settle(number, good_bytes)?;
        }
        Ok(Self { log, settings, counters: DeadLetterCounters::default(), line: Vec::new() })
    }

    /// Puts bytes aside; false if there is no room for more.
    ///
    /// # Errors
    /// If they cannot be written; nothing of them is then.
    pub fn write(&mut self, letter: &DeadLetter<'_>) -> Result<bool, CheckpointError> {
        let kept = &letter.payload[..letter.payload.len().min(self.settings.payload_bytes_max)];
        let is_cut = (kept.len() as u64) < letter.length_bytes;
        // A flood of them costs little once there is no more room.
        if self.log.bytes() + kept.len() as u64 > self.settings.total_bytes_max {
            self.counters.dropped += 1;
            return Ok(false);
        }
        let line = Line {
            schema: SCHEMA,
            time: letter.time.to_string(),
            input: letter.input,
            position: letter.position,
            reason: letter.reason,
            payload_bytes: letter.length_bytes,
            kept_bytes: is_cut.then_some(kept.len()),
            payload_base64: base64_simd::STANDARD.encode_to_string(kept),
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &line).expect("texts have a JSON form");
        self.line.push(b'\n');
        if self.log.bytes() + self.line.len() as u64 > self.settings.total_bytes_max {
            self.counters.dropped += 1;
            return Ok(false);
        }
        self.log.append(&self.line)?;
        self.counters.written += 1;
        self.counters.cut += u64::from(is_cut);
        Ok(true)
    }

    /// Makes what was put aside durable: before the position behind it is.
    ///
    /// # Errors
    /// If it could not be; it is written again with the next call.
    pub fn sync(&mut self) -> Result<(), CheckpointError> {
        self.log.sync()
    }

    /// How many there were since they were opened.
    #[must_use]
    pub const fn counters(&self) -> DeadLetterCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::disk::MemoryDisk;
    use crate::checkpoint::disk::memory::{Fault, Loss};

    fn open(disk: &MemoryDisk, settings: DeadLetterSettings) -> DeadLetters {
        let disk = Arc::new(disk.clone());
        let directory = StateDirectory::open(disk, Path::new("/state")).unwrap();
        DeadLetters::open(directory, settings).unwrap()
    }

    fn letter(payload: &[u8]) -> DeadLetter<'_> {
        DeadLetter {
            time: UnixSeconds(1_767_225_600),
            input: "shardId-000000000001",
            position: "4954",
            reason: "gzip: bad header",
            payload,
            length_bytes: payload.len() as u64,
        }
    }

    fn content(disk: &MemoryDisk, number: u64) -> String {
        let path = Path::new("/state").join(format!("dead-letter-{number:08}.ndjson"));
        String::from_utf8(disk.content(&path).unwrap()).unwrap()
    }

    #[test]
    fn a_letter_says_where_it_comes_from() {
        let disk = MemoryDisk::new(1);
        let settings = DeadLetterSettings { payload_bytes_max: 3, ..Default::default() };
        let mut letters = open(&disk, settings);
        assert!(letters.write(&letter(b"\x00\xff")).unwrap());
        assert!(letters.write(&letter(b"abcdef")).unwrap());
        let start = "{\"schema\":\"flowgauge.dead_letter/v1\",\"time\":\"2026-01-01T00:00:00Z\",\
                     \"input\":\"shardId-000000000001\",\"position\":\"4954\",\
                     \"reason\":\"gzip: bad header\",\"payload_bytes\":";
        let expected = format!(
            "{start}2,\"payload_base64\":\"AP8=\"}}\n{start}6,\"kept_bytes\":3,\"payload_base64\":\"YWJj\"}}\n"
        );
        assert_eq!(content(&disk, 1), expected);
        assert_eq!(letters.counters(), DeadLetterCounters { written: 2, dropped: 0, cut: 1 });
    }

    #[test]
    fn a_single_file_grows_to_its_limit_and_leaves_its_neighbours_alone() {
        let disk = MemoryDisk::new(1);
        let state = StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap();
        let path = Path::new("/state/poison.ndjson");
        let settings = DeadLetterSettings {
            file_bytes_max: 100,
            total_bytes_max: 1_000,
            ..Default::default()
        };
        let open = || DeadLetters::open_file(Arc::new(disk.clone()), path, settings);
        let mut letters = open().unwrap();
        assert!(matches!(open(), Err(CheckpointError::FileInUse { .. })));
        let written = (0..20).filter(|_| letters.write(&letter(b"x")).unwrap()).count();
        letters.sync().unwrap();
        drop(letters);
        let content = disk.content(path).unwrap();
        assert!((700..=1_000).contains(&content.len()), "{}", content.len());
        assert_eq!(content.split(|byte| *byte == b'\n').count(), written + 1);
        drop(open().unwrap());
        assert_eq!(disk.content(path).unwrap(), content);
        drop(state);
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let disk = MemoryDisk::new(1);
        disk.create_directory(Path::new("/var")).unwrap();
        let path = Path::new("/var/passwd");
        disk.append(path).unwrap().write(b"root:x:0:0\n").unwrap();
        let opened =
            DeadLetters::open_file(Arc::new(disk.clone()), path, DeadLetterSettings::default());
        assert!(matches!(opened, Err(CheckpointError::NoDeadLetters { .. })));
        assert_eq!(disk.content(path).unwrap(), b"root:x:0:0\n");
    }

    #[test]
    fn the_first_letters_stay_and_the_rest_is_counted() {
        let disk = MemoryDisk::new(1);
        let settings = DeadLetterSettings {
            file_bytes_max: 500,
            total_bytes_max: 1_000,
            ..Default::default()
        };
        let mut letters = open(&disk, settings);
        let written = (0..20).filter(|_| letters.write(&letter(b"x")).unwrap()).count();
        let bytes = content(&disk, 1).len() + content(&disk, 2).len();
        assert!((700..=1_000).contains(&bytes), "{bytes}");
        assert_eq!(letters.counters().dropped, 20 - written as u64);
        drop(letters);
        assert!(!open(&disk, settings).write(&letter(b"x")).unwrap(), "also after a restart");
    }

    #[test]
    fn a_torn_letter_is_removed_and_synced_ones_stay() {
        for seed in 0..50 {
            let disk = MemoryDisk::new(seed);
            let mut letters = open(&disk, DeadLetterSettings::default());
            letters.write(&letter(b"synced")).unwrap();
            letters.sync().unwrap();
            let synced = content(&disk, 1);
            disk.fail_at(0, Fault::Crash);
            letters.write(&letter(b"torn")).unwrap_err();
            drop(letters);
            disk.restart(Loss::Power);
            let mut letters = open(&disk, DeadLetterSettings::default());
            letters.write(&letter(b"next")).unwrap();
            let now = content(&disk, 1);
            assert!(now.starts_with(&synced), "seed {seed}");
            assert_eq!(now.lines().count(), 2, "seed {seed}: {now}");
            assert!(
                now.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
            );
        }
    }
}
