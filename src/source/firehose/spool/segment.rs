//! A file of the spool: a head, and frames behind one another.
//!
//! ```text
//! magic, start, end of the segment before, count, CRC-32 │ hashes of the newest requests │ frames
//! ```
//!
//! Offsets in the spool go on over all its segments: a segment's frames begin at `start`. The hashes are those of
//! the requests that were taken before the segment was begun, so that its predecessors can be removed.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zerocopy::IntoBytes as _;

use crate::checkpoint::disk::{Disk, DiskFile};
use crate::source::firehose::frame::{Frame, NoFrame};

const MAGIC: &[u8; 8] = b"FGSPOOL1";
const FIXED_BYTES: usize = 8 + 8 + 8 + 4 + 4;
const HASH_BYTES: usize = 16;

/// Most hashes of a head; a greater count is none.
const HASHES_MAX: usize = 1 << 24;

/// Bytes that are copied at once.
const COPIED_AT_ONCE: usize = 1 << 20;

/// What begins a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Where its first frame is in the spool.
    pub(super) start: u64,
    /// Up to where frames before it were taken; less than `start` if a write failed there.
    pub(super) previous_end: u64,
    /// The newest requests before it, the oldest first.
    pub(super) known: Vec<u128>,
}

impl Head {
    pub(super) fn encode(start: u64, previous_end: u64, known: [&[u128]; 2]) -> Vec<u8> {
        let count = known.iter().map(|hashes| hashes.len()).sum::<usize>();
        let mut out = Vec::with_capacity(FIXED_BYTES + HASH_BYTES * count);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&previous_end.to_le_bytes());
        let count = u32::try_from(count).expect("the number of known requests has a limit");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        known.into_iter().for_each(|hashes| out.extend_from_slice(hashes.as_bytes()));
        let checksum = crc32fast::hash(&out);
        out[FIXED_BYTES - 4..FIXED_BYTES].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The head of a file and its length; `None` if it has none.
    fn read(file: &dyn DiskFile) -> io::Result<Option<(Self, u64)>> {
        let mut fixed = read_exactly(file, 0, FIXED_BYTES)?;
        if fixed.len() < FIXED_BYTES || fixed[..8] != *MAGIC {
            return Ok(None);
        }
        let number = |at: usize| {
            u64::from_le_bytes(fixed[at..at + 8].try_into().expect("it has eight bytes"))
        };
        let short = |at: usize| {
            u32::from_le_bytes(fixed[at..at + 4].try_into().expect("it has four bytes"))
        };
        let (start, previous_end) = (number(8), number(16));
        let (count, checksum) = (short(24) as usize, short(28));
        if count > HASHES_MAX {
            return Ok(None);
        }
        let hashes = read_exactly(file, FIXED_BYTES as u64, HASH_BYTES * count)?;
        fixed[FIXED_BYTES - 4..].fill(0);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&fixed);
        hasher.update(&hashes);
        if hashes.len() < HASH_BYTES * count || hasher.finalize() != checksum {
            return Ok(None);
        }
        let known = hashes.chunks_exact(HASH_BYTES);
        let known = known.map(|hash| u128::from_le_bytes(hash.try_into().expect("16 bytes")));
        let known = known.collect();
        Ok(Some((Self { start, previous_end, known }, (FIXED_BYTES + hashes.len()) as u64)))
    }
}

/// The name of the segment that begins here.
pub(super) fn name_of(start: u64) -> String {
    format!("segment-{start:020}.spool")
}

/// Where the segment of this name begins; `None` if it is another file.
pub(super) fn start_in(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".spool")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// A segment that is read.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) head: Head,
    head_bytes: u64,
    /// Where the next frame is in the spool.
    pub(super) at: u64,
}

impl SegmentReader {
    /// `None` if it has no head.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        let file = disk.open(path)?;
        let Some((head, head_bytes)) = Head::read(file.as_ref())? else { return Ok(None) };
        let (path, at) = (path.to_owned(), head.start);
        Ok(Some(Self { file, path, head, head_bytes, at }))
    }

    /// The length of the file.
    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        self.file.length()
    }

    /// The length of the file up to an offset of the spool.
    pub(super) const fn bytes_until(&self, end: u64) -> u64 {
        self.head_bytes + (end - self.head.start)
    }

    /// Copies the file up to an offset of the spool.
    pub(super) fn copy_until(&self, end: u64, to: &mut dyn DiskFile) -> io::Result<()> {
        let (mut at, end) = (0, self.bytes_until(end));
        while at < end {
            let length =
                usize::try_from(end - at).map_or(COPIED_AT_ONCE, |left| left.min(COPIED_AT_ONCE));
            let bytes = read_exactly(self.file.as_ref(), at, length)?;
            if bytes.len() < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write(&bytes)?;
            at += length as u64;
        }
        Ok(())
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> io::Result<Result<Frame, NoFrame>> {
        let offset = self.head_bytes + (self.at - self.head.start);
        let prefix = read_exactly(self.file.as_ref(), offset, 8)?;
        let Some(prefix) = prefix.first_chunk().copied() else { return Ok(Err(NoFrame::Cut)) };
        let Some(length) = Frame::length_in(prefix) else { return Ok(Err(NoFrame::Damaged)) };
        if self.file.length()? < offset + length as u64 {
            return Ok(Err(NoFrame::Cut));
        }
        let frame = Frame::check(&Bytes::from(read_exactly(self.file.as_ref(), offset, length)?));
        if frame.is_ok() {
            self.at += length as u64;
        }
        Ok(frame)
    }

    /// Reads on from here.
    pub(super) fn seek(&mut self, to: u64) {
        self.at = to.max(self.at);
    }
}

/// As many bytes at an offset, or fewer if the file ends before.
fn read_exactly(file: &dyn DiskFile, offset_bytes: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(offset_bytes + filled as u64, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_where_segments_begin() {
        assert_eq!(start_in(&name_of(1 << 40)), Some(1 << 40));
        for other in ["segment-5.spool", "segment-0000000000000000000x.spool", "lock"] {
            assert_eq!(start_in(other), None);
        }
    }
}
