//! The write-ahead spool: what was acknowledged and is in no snapshot yet.
//!
//! A request is acknowledged once its frames are written and synced; many share a sync. Segments are removed
//! when a durable snapshot holds all of their frames. After a restart everything behind the position of the
//! snapshot is read again, in the order in which it was written: the spool is the input, its offsets are the positions.
//!
//! After a write or a sync that failed nobody can say what is on the disk. The segment is then left, the requests of the
//! batch are refused, and the next segment begins behind all that may have been written; its head says up to where
//! requests were taken. If there is no next one when the process ends, what can be read of the last is written anew
//! at the start, and taken: when Firehose sends such a request again, its id is known.

mod segment;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::Frame;
use crate::checkpoint::disk::{Disk, DiskFile};
use crate::recent::RecentHashes;
use segment::{Head, SegmentReader, name_of, start_in};

/// A segment that is longer is followed by the next.
const SEGMENT_BYTES: u64 = 128 << 20;

/// Ids of requests that are remembered, so that one that is sent again is not counted again: Firehose waits for two
/// minutes at most before it does. At a thousand requests a second they reach back over four. 14 MB of memory, and
/// 4 MB at the head of a segment.
const KNOWN_REQUESTS_MAX: usize = 1 << 18;

/// Why the spool can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}` of the spool", path.display())]
pub(super) struct SpoolError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl SpoolError {
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { doing, path, source }
    }
}

/// Limits of a spool.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpoolLimits {
    /// When its files are this long altogether, nothing more is taken.
    pub(super) bytes_max: u64,
    /// A segment that is longer is followed by the next.
    pub(super) segment_bytes: u64,
}

impl SpoolLimits {
    /// The usual segments.
    pub(super) const fn new(bytes_max: u64) -> Self {
        Self { bytes_max, segment_bytes: SEGMENT_BYTES }
    }
}

/// A file that is complete.
#[derive(Debug)]
struct Closed {
    path: PathBuf,
    /// Behind its last frame.
    end: u64,
    file_bytes: u64,
}

/// The file that is written.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    file_bytes: u64,
    /// What is synced of it.
    synced_bytes: u64,
}

/// The spool as its writer has it.
#[derive(Debug)]
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    limits: SpoolLimits,
    closed: VecDeque<Closed>,
    open: Option<Open>,
    /// Behind the last frame that is synced, and behind the last that was tried to write.
    synced_end: u64,
    end: u64,
    known: RecentHashes,
}

impl Spool {
    /// Opens the spool in a directory, of which everything before `resume_at` is in a snapshot. Also gives what is
    /// behind.
    ///
    /// # Errors
    /// If its files can't be read. What is damaged in them is told and passed over.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        resume_at: Option<u64>,
        limits: SpoolLimits,
    ) -> Result<(Self, Replay), SpoolError> {
        for part in directory.parent().into_iter().chain([directory]) {
            disk.create_directory(part).map_err(SpoolError::at("make", part))?;
        }
        let mut spool = Self {
            disk,
            directory: directory.to_owned(),
            limits,
            closed: VecDeque::new(),
            open: None,
            synced_end: resume_at.unwrap_or(0),
            end: resume_at.unwrap_or(0),
            known: RecentHashes::new(KNOWN_REQUESTS_MAX),
        };
        let replay = spool.read_segments(resume_at)?;
        spool.trim(resume_at.unwrap_or(0));
        Ok((spool, replay))
    }

    /// Whether more may be written.
    pub(super) fn has_room(&self) -> bool {
        self.file_bytes() < self.limits.bytes_max
    }

    /// How long its files are.
    pub(super) fn file_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|segment| segment.file_bytes).sum();
        closed + self.open.as_ref().map_or(0, |open| open.file_bytes)
    }

    /// Whether a request was taken before, as far as is remembered.
    pub(super) fn knows(&self, request_hash: u128) -> bool {
        self.known.contains(request_hash)
    }

    /// Writes the frames of a request, and gives the offset behind each. They are durable after [`Self::sync`].
    ///
    /// # Errors
    /// What the system says. Nothing that was written since the last sync is to be relied on then.
    pub(super) fn write(&mut self, frames: &[Frame]) -> Result<Vec<u64>, SpoolError> {
        // Only between two syncs: what is refused together must stand behind what was taken, in one file.
        let is_full =
            self.open.as_ref().is_some_and(|open| open.file_bytes >= self.limits.segment_bytes);
        if is_full && self.synced_end == self.end {
            self.close();
        }
        if self.open.is_none() {
            self.begin_segment()?;
        }
        let open = self.open.as_mut().expect("it was begun");
        let mut ends = Vec::with_capacity(frames.len());
        for frame in frames {
            let length = frame.bytes().len() as u64;
            open.file_bytes += length;
            self.end += length;
            open.file.write(frame.bytes()).map_err(SpoolError::at("write", &open.path))?;
            ends.push(self.end);
        }
        Ok(ends)
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the system says. Nothing that was written since the last sync is to be relied on then.
    pub(super) fn sync(&mut self) -> Result<(), SpoolError> {
        // Without a segment the last one was left: what was tried to write in it was refused.
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.synced_bytes < open.file_bytes {
            open.file.sync().map_err(SpoolError::at("sync", &open.path))?;
            open.synced_bytes = open.file_bytes;
        }
        self.synced_end = self.end;
        Ok(())
    }

    /// Remembers a request, whose frames are durable.
    pub(super) fn remember(&mut self, request_hash: u128) {
        self.known.insert(request_hash);
    }

    /// Leaves the segment that is written, after an error: the next begins behind all that may be in it.
    pub(super) fn abandon(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        // The less there is to be found after a crash the better; nothing depends on it.
        let _is_cut = open.file.truncate(open.synced_bytes).and_then(|()| open.file.sync()).is_ok();
        let file_bytes = open.file_bytes;
        self.closed.push_back(Closed { path: open.path, end: self.synced_end, file_bytes });
    }

    /// Removes segments all of whose frames are before `safe_end`, which a durable snapshot holds; but not the last, which
    /// alone knows the requests that were taken.
    pub(super) fn trim(&mut self, safe_end: u64) {
        while let Some(segment) = self.closed.front()
            && segment.end <= safe_end
            && (self.open.is_some() || self.closed.len() > 1)
        {
            // What can't be removed now is at the next start.
            if let Err(error) = self.disk.remove(&segment.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(
                    path = %segment.path.display(),
                    error = &error as &dyn std::error::Error,
                    "a file of the spool that is not needed any more could not be removed"
                );
            }
            self.closed.pop_front();
        }
    }

    fn close(&mut self) {
        if let Some(Open { path, file_bytes, .. }) = self.open.take() {
            self.closed.push_back(Closed { path, end: self.end, file_bytes });
        }
    }

    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        let path = self.directory.join(name_of(self.end));
        let head = Head::encode(self.end, self.synced_end, self.known.as_slices());
        let made = self.disk.create(&path).and_then(|mut file| {
            file.write(&head)?;
            file.sync()?;
            self.disk.sync_directory(&self.directory)?;
            Ok(file)
        });
        let file = made.map_err(SpoolError::at("begin", &path))?;
        let file_bytes = head.len() as u64;
        self.open = Some(Open { path, file, file_bytes, synced_bytes: file_bytes });
        Ok(())
    }

    /// Reads all segments that hold frames behind `resumed_at`, which tells the requests that are known.
    fn read_segments(&mut self, resumed_at: Option<u64>) -> Result<Replay, SpoolError> {
        let resume_at = resumed_at.unwrap_or(0);
        let names =
            self.disk.list(&self.directory).map_err(SpoolError::at("list", &self.directory))?;
        let mut readers = Vec::new();
        for start in names.iter().filter_map(|name| start_in(name)) {
            readers.extend(self.open_segment(&self.directory.join(name_of(start)))?);
        }
        let heads: Vec<(u64, u64)> =
            readers.iter().map(|reader| (reader.head.start, reader.head.previous_end)).collect();
        let mut segments = VecDeque::new();
        for (index, mut reader) in readers.into_iter().enumerate() {
            let path = reader.path.clone();
            let next = heads.get(index + 1).copied();
            // Also where nothing was acknowledged: names never go back.
            self.end = self.end.max(reader.head.start);
            if let Some((next_start, _)) = next
                && next_start <= resume_at
            {
                let file_bytes = reader.file_bytes().map_err(SpoolError::at("read", &path))?;
                self.closed.push_back(Closed { path, end: next_start, file_bytes });
                continue;
            }
            let missing_to = reader.head.previous_end;
            if self.closed.is_empty() && resumed_at.is_some_and(|at| at < missing_to) {
                tell_loss(&path, resume_at, missing_to);
            }
            for hash in std::mem::take(&mut reader.head.known) {
                self.known.insert(hash);
            }
            let taken_end = next.map(|(_, previous_end)| previous_end);
            let end = self.read_frames(&mut reader, taken_end)?;
            if next.is_none() && end == reader.head.start {
                // The next segment takes its name, and must not be removed by it.
                continue;
            }
            if next.is_none() && end > resume_at {
                self.rewrite(&reader, end)?;
            }
            let file_bytes = reader.bytes_until(end);
            self.closed.push_back(Closed { path: path.clone(), end, file_bytes });
            // What was refused is between the two.
            self.synced_end = self.synced_end.max(end);
            self.end = self.end.max(end);
            if end > resume_at {
                segments.push_back((path, end));
            }
        }
        Ok(Replay { disk: Arc::clone(&self.disk), segments, from: resume_at, reader: None })
    }

    /// A segment; one without a head is set aside, because a process may have been ended while it wrote it.
    fn open_segment(&self, path: &Path) -> Result<Option<SegmentReader>, SpoolError> {
        let reader = SegmentReader::open(self.disk.as_ref(), path);
        let reader = reader.map_err(SpoolError::at("read", path))?;
        if reader.is_none() {
            let aside = path.with_extension("damaged");
            tracing::warn!(
                path = %path.display(),
                renamed_to = %aside.display(),
                "a file of the spool has no head; it was not begun whole, or is damaged"
            );
            self.disk.rename(path, &aside).map_err(SpoolError::at("rename", path))?;
        }
        Ok(reader)
    }

    /// Reads the frames of a segment to the end of its last whole request, which it gives. If another segment follows, its
    /// head says up to where frames were taken: what is behind was refused.
    fn read_frames(
        &mut self,
        reader: &mut SegmentReader,
        taken_end: Option<u64>,
    ) -> Result<u64, SpoolError> {
        let path = reader.path.clone();
        let mut end = reader.at;
        while taken_end.is_none_or(|taken_end| reader.at < taken_end) {
            let frame = reader.next_frame().map_err(SpoolError::at("read", &path))?;
            let Ok(frame) = frame else { break };
            if frame.is_last() && taken_end.is_none_or(|taken_end| reader.at <= taken_end) {
                self.known.insert(frame.request_hash());
                end = reader.at;
            }
        }
        match taken_end {
            Some(taken_end) if end < taken_end && taken_end > reader.head.start => {
                tell_loss(&path, end, taken_end);
            }
            _ => {}
        }
        Ok(end)
    }

    /// Writes the last segment anew: a sync may have failed when it was written, and then nobody knows what of it is on
    /// the disk, though all of it can be read until the system needs the memory.
    fn rewrite(&self, reader: &SegmentReader, end: u64) -> Result<(), SpoolError> {
        let temporary = reader.path.with_extension("tmp");
        let written = self.disk.create(&temporary).and_then(|mut file| {
            reader.copy_until(end, file.as_mut())?;
            file.sync()
        });
        written.map_err(SpoolError::at("write", &temporary))?;
        self.disk
            .rename(&temporary, &reader.path)
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(SpoolError::at("replace", &reader.path))
    }
}

fn tell_loss(path: &Path, from: u64, to: u64) {
    tracing::error!(
        path = %path.display(),
        from,
        to,
        "a file of the spool is damaged, or one before it is missing: what was acknowledged between these offsets is lost"
    );
}

/// What of the spool is in no snapshot.
#[derive(Debug)]
pub(super) struct Replay {
    disk: Arc<dyn Disk>,
    /// Files, and the end of the last whole request in each.
    segments: VecDeque<(PathBuf, u64)>,
    from: u64,
    reader: Option<(SegmentReader, u64)>,
}

impl Replay {
    /// The next frame and the offset behind it; `None` after the last.
    ///
    /// # Errors
    /// If it can't be read any more.
    pub(super) fn next_frame(&mut self) -> Result<Option<(Frame, u64)>, SpoolError> {
        loop {
            let Some((reader, end)) = &mut self.reader else {
                let Some((path, end)) = self.segments.pop_front() else { return Ok(None) };
                let reader = SegmentReader::open(self.disk.as_ref(), &path)
                    .and_then(|reader| reader.ok_or_else(|| io::ErrorKind::InvalidData.into()));
                let mut reader = reader.map_err(SpoolError::at("read", &path))?;
                reader.seek(self.from);
                self.reader = Some((reader, end));
                continue;
            };
            if reader.at >= *end {
                self.reader = None;
                continue;
            }
            let frame = reader
                .next_frame()
                .and_then(|frame| frame.map_err(|_| io::Error::from(io::ErrorKind::InvalidData)));
            let frame = frame.map_err(SpoolError::at("read", &reader.path))?;
            return Ok(Some((frame, reader.at)));
        }
    }
}

#[cfg(test)]
mod tests;
