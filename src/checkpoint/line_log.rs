//! Numbered files of lines that only grow: what the journal and the dead letters are written to.
//!
//! Lines that were appended are in the file at once and durable after [`LineLog::sync`]. An append that
//! fails leaves nothing behind. Lines are held in memory until they are durable, because after a failed
//! sync only those that are written again can be relied on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::directory::{StateDirectory, number_in};
use super::disk::{DiskFile, DiskWriter, read_full};
use super::error::CheckpointError;

const SUFFIX: &str = ".ndjson";

/// More than this is not held in memory: appending then syncs by itself.
const UNSYNCED_BYTES_MAX: usize = 4 << 20;

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// What the files of a log are called.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// By this and their number.
    Numbered(&'static str),
    /// There is one, of this name.
    Single(String),
}

impl Names {
    fn of(&self, number: u64) -> String {
        match self {
            Self::Numbered(prefix) => name_of(prefix, number),
            Self::Single(name) => name.clone(),
        }
    }

    fn number_in(&self, name: &str) -> Option<u64> {
        match self {
            Self::Numbered(prefix) => number_in(name, prefix, SUFFIX),
            Self::Single(single) => (single == name).then_some(1),
        }
    }
}

/// A place in a log, between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) offset_bytes: u64,
}

#[derive(Debug)]
pub(super) struct LineLog {
    directory: Arc<StateDirectory>,
    names: Names,
    file_bytes_max: u64,
    /// Lengths of the files that are full, by number.
    closed: BTreeMap<u64, u64>,
    number: u64,
    file: Box<dyn DiskFile>,
    length_bytes: u64,
    synced_bytes: u64,
    /// The bytes between the two.
    unsynced: Vec<u8>,
    /// The file may hold anything but what it should behind what is synced.
    is_uncertain: bool,
}

impl LineLog {
    /// Opens the files of these names, or makes the first. The last is what is appended to. A single file
    /// grows without a limit.
    pub(super) fn open(
        directory: Arc<StateDirectory>,
        names: Names,
        file_bytes_max: u64,
    ) -> Result<Self, CheckpointError> {
        let file_bytes_max = match &names {
            Names::Numbered(_) => file_bytes_max,
            Names::Single(_) => u64::MAX,
        };
        let mut closed = BTreeMap::new();
        for name in directory.names()? {
            if let Some(number) = names.number_in(&name) {
                let path = directory.file(&name);
                let length = directory.disk().open(&path).and_then(|file| file.length());
                closed.insert(number, length.map_err(CheckpointError::io("open", &path))?);
            }
        }
        let (number, length_bytes) = closed.pop_last().unwrap_or((1, 0));
        let path = directory.file(&names.of(number));
        let file = directory.disk().append(&path).map_err(CheckpointError::io("open", &path))?;
        // Names that a killed process left may be in the system's memory only.
        directory.sync()?;
        Ok(Self {
            directory,
            names,
            file_bytes_max,
            closed,
            number,
            file,
            length_bytes,
            synced_bytes: length_bytes,
            unsynced: Vec::new(),
            is_uncertain: false,
        })
    }

    /// Numbers and lengths of all files, in order.
    pub(super) fn files(&self) -> Vec<(u64, u64)> {
        let closed = self.closed.iter().map(|(number, length)| (*number, *length));
        closed.chain([(self.number, self.length_bytes)]).collect()
    }

    pub(super) fn file_count(&self) -> usize {
        self.closed.len() + 1
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.closed.values().sum::<u64>() + self.length_bytes
    }

    /// Puts a file's good lines in its place, written anew: a process that was ended may have left them
    /// in the system's memory, where they stand as if they were durable after a sync that failed.
    pub(super) fn settle(&mut self, number: u64, good_bytes: u64) -> Result<(), CheckpointError> {
        let name = self.names.of(number);
        let path = self.directory.file(&name);
        let from = self.directory.disk().open(&path).map_err(CheckpointError::io("open", &path))?;
        let copy = &mut |out: &mut dyn DiskWriter| copy(from.as_ref(), good_bytes, out);
        self.directory.replace(&name, copy)?;
        if number == self.number {
            let file = self.directory.disk().append(&path);
            self.file = file.map_err(CheckpointError::io("open", &path))?;
            (self.length_bytes, self.synced_bytes) = (good_bytes, good_bytes);
        } else {
            self.closed.insert(number, good_bytes);
        }
        Ok(())
    }

    /// Appends whole lines: all of them, or after an error none. A file may become longer than its limit
    /// by what is appended at once.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), CheckpointError> {
        debug_assert!(lines.ends_with(b"\n"));
        self.mend()?;
        if self.length_bytes > 0 && self.length_bytes + lines.len() as u64 > self.file_bytes_max {
            self.rotate_to(self.number + 1)?;
        }
        if self.unsynced.len() + lines.len() > UNSYNCED_BYTES_MAX {
            self.sync()?;
        }
        if let Err(source) = self.file.write(lines) {
            self.is_uncertain = self.file.truncate(self.length_bytes).is_err();
            return Err(self.error("write", source));
        }
        self.unsynced.extend_from_slice(lines);
        self.length_bytes += lines.len() as u64;
        Ok(())
    }

    /// Makes all lines durable.
    pub(super) fn sync(&mut self) -> Result<(), CheckpointError> {
        self.mend()?;
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.file.sync() {
            self.is_uncertain = true;
            return Err(self.error("sync", source));
        }
        self.synced_bytes = self.length_bytes;
        self.unsynced.clear();
        Ok(())
    }

    /// Where the next line goes.
    pub(super) const fn end(&self) -> Place {
        Place { file: self.number, offset_bytes: self.length_bytes }
    }

    /// Behind the last line that is durable.
    pub(super) const fn synced_end(&self) -> Place {
        Place { file: self.number, offset_bytes: self.synced_bytes }
    }

    /// Removes the oldest file unless it is the one that is appended to; its number.
    pub(super) fn remove_oldest(&mut self) -> Result<Option<u64>, CheckpointError> {
        let Some((&number, _)) = self.closed.first_key_value() else { return Ok(None) };
        self.directory.remove(&self.names.of(number))?;
        self.closed.remove(&number);
        Ok(Some(number))
    }

    /// Reads the lines of a file between two offsets.
    pub(super) fn lines(&self, number: u64, span: (u64, u64)) -> Result<Lines, CheckpointError> {
        Lines::open(&self.directory, &self.names.of(number), span)
    }

    /// Whether a line ends before a place, as it does unless somebody has changed the file.
    pub(super) fn is_line_start(&self, place: Place) -> Result<bool, CheckpointError> {
        let Some(before) = place.offset_bytes.checked_sub(1) else { return Ok(true) };
        let mut lines = self.lines(place.file, (before, place.offset_bytes))?;
        Ok(self.read(place.file, &mut lines)? == Some(b"\n"))
    }

    /// The next line of a file that is being read.
    pub(super) fn read<'a>(
        &self,
        number: u64,
        lines: &'a mut Lines,
    ) -> Result<Option<&'a [u8]>, CheckpointError> {
        let path = self.directory.file(&self.names.of(number));
        lines.next().map_err(CheckpointError::io("read", &path))
    }

    pub(super) const fn directory(&self) -> &Arc<StateDirectory> {
        &self.directory
    }

    /// Writes what is not durable once more, if the file may not hold it as it should.
    fn mend(&mut self) -> Result<(), CheckpointError> {
        if self.is_uncertain {
            let rest = &self.unsynced;
            let mended = self.file.truncate(self.synced_bytes).and_then(|()| self.file.write(rest));
            mended.map_err(|source| self.error("mend", source))?;
            self.is_uncertain = false;
        }
        Ok(())
    }

    /// Makes what there is durable, and goes on in a file of a greater number.
    pub(super) fn rotate_to(&mut self, number: u64) -> Result<(), CheckpointError> {
        assert!(number > self.number);
        self.sync()?;
        let path = self.directory.file(&self.names.of(number));
        let file = self.directory.disk().create(&path);
        let file = file.map_err(CheckpointError::io("make", &path))?;
        self.directory.sync()?;
        self.closed.insert(self.number, self.length_bytes);
        (self.number, self.file) = (number, file);
        (self.length_bytes, self.synced_bytes) = (0, 0);
        Ok(())
    }

    fn error(&self, doing: &'static str, source: io::Error) -> CheckpointError {
        let path = self.directory.file(&self.names.of(self.number));
        CheckpointError::Io { doing, path, source }
    }
}

fn copy(from: &dyn DiskFile, length_bytes: u64, out: &mut dyn DiskWriter) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut copied_bytes = 0;
    while copied_bytes < length_bytes {
        let left = usize::try_from(length_bytes - copied_bytes).unwrap_or(usize::MAX);
        let now = left.min(READ_BYTES);
        if read_full(from, copied_bytes, &mut buffer[..now])? < now {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write(&buffer[..now])?;
        copied_bytes += now as u64;
    }
    Ok(())
}

pub(super) fn name_of(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:08}{SUFFIX}")
}

/// Reads a file line by line.
#[derive(Debug)]
pub(super) struct Lines {
    file: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Of the buffer, where the next line begins.
    at: usize,
    /// Of the buffer, up to where there is no line end after `at`.
    searched: usize,
    /// Of the file, where the buffer ends.
    read_bytes: u64,
    end_bytes: u64,
}

impl Lines {
    pub(super) fn open(
        directory: &StateDirectory,
        name: &str,
        (start_bytes, end_bytes): (u64, u64),
    ) -> Result<Self, CheckpointError> {
        let path = directory.file(name);
        let file = directory.disk().open(&path).map_err(CheckpointError::io("open", &path))?;
        let read_bytes = start_bytes.min(end_bytes);
        Ok(Self { file, buffer: Vec::new(), at: 0, searched: 0, read_bytes, end_bytes })
    }

    /// Where in the file the next line begins.
    pub(super) const fn offset_bytes(&self) -> u64 {
        self.read_bytes - (self.buffer.len() - self.at) as u64
    }

    /// The next line with its line end, which only the last may lack.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let (start, end) = (self.at, self.searched + found + 1);
                (self.at, self.searched) = (end, end);
                return Ok(Some(&self.buffer[start..end]));
            }
            self.searched = self.buffer.len();
            if !self.fill()? {
                let start = self.at;
                (self.at, self.searched) = (self.buffer.len(), self.buffer.len());
                return Ok((start < self.at).then(|| &self.buffer[start..]));
            }
        }
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.searched -= self.at;
        self.at = 0;
        let left = usize::try_from(self.end_bytes - self.read_bytes).unwrap_or(usize::MAX);
        let held = self.buffer.len();
        self.buffer.resize(held + left.min(READ_BYTES), 0);
        let count = read_full(self.file.as_ref(), self.read_bytes, &mut self.buffer[held..]);
        let count = match count {
            Ok(count) => count,
            Err(error) => {
                self.buffer.truncate(held);
                return Err(error);
            }
        };
        self.buffer.truncate(held + count);
        self.read_bytes += count as u64;
        if count == 0 {
            self.end_bytes = self.read_bytes;
        }
        Ok(count > 0)
    }
}
