//! A file that is written once, from its start to its end, past the system's page cache.
//!
//! A snapshot is read again only after a restart. Written through the page cache it would take as much
//! memory as it is long for a while: pages that the system has to find and clear, at the cost of the stream
//! beside it, and that push out what others read. Direct writes go in whole blocks of the disk, from memory
//! that begins at a multiple of a block: that of the caller where it does, else a buffer. What is left at the end
//! goes through the cache. Where a file system knows no direct writes, all does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::DiskWriter;

/// A multiple of every disk's block.
pub(in crate::checkpoint) const BLOCK_BYTES: usize = 4096;

/// Bytes of one direct write out of the buffer: so many that the way to the disk counts for little.
const WRITE_BYTES: usize = 4 << 20;

/// From so many bytes on, what the caller has is written as it lies there.
const UNCOPIED_BYTES_MIN: usize = 1 << 20;

/// A file under way.
#[derive(Debug)]
pub(super) struct WholeFile {
    /// Through the page cache.
    cached: File,
    /// Past it; `None` where that can't be.
    direct: Option<File>,
    /// Has [`WRITE_BYTES`] from `start` on, which is where a block may begin.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes of the file before those in the buffer.
    written: u64,
}

impl WholeFile {
    /// An empty file under this name, in place of one that may be there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let cached = options.write(true).create(true).truncate(true).open(path)?;
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok();
        let buffer = vec![0; WRITE_BYTES + BLOCK_BYTES];
        let start = buffer.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "memory of bytes can be aligned");
        Ok(Self { cached, direct, buffer, start, filled: 0, written: 0 })
    }

    /// Writes the buffer, past the cache if it ends at a block.
    fn write_buffer(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[self.start..self.start + self.filled];
        write_at(&mut self.direct, &self.cached, bytes, self.written)?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Whether whole blocks of these bytes can go to the disk as they lie.
    fn takes_uncopied(&self, bytes: &[u8]) -> bool {
        bytes.len() >= UNCOPIED_BYTES_MIN
            && self.direct.is_some()
            && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
            && self.filled.is_multiple_of(BLOCK_BYTES)
    }
}

/// Writes bytes that begin at a block of the file.
fn write_at(
    direct: &mut Option<File>,
    cached: &File,
    bytes: &[u8],
    offset_bytes: u64,
) -> io::Result<()> {
    if let Some(file) = direct.as_ref().filter(|_| bytes.len().is_multiple_of(BLOCK_BYTES)) {
        match file.write_all_at(bytes, offset_bytes) {
            // Some file systems say only now that they know no direct writes.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => *direct = None,
            result => return result,
        }
    }
    cached.write_all_at(bytes, offset_bytes)
}

impl DiskWriter for WholeFile {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.takes_uncopied(bytes) {
                self.write_buffer()?;
                let (now, later) = bytes.split_at(bytes.len() / BLOCK_BYTES * BLOCK_BYTES);
                write_at(&mut self.direct, &self.cached, now, self.written)?;
                self.written += now.len() as u64;
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(WRITE_BYTES - self.filled));
            let at = self.start + self.filled;
            self.buffer[at..at + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == WRITE_BYTES {
                self.write_buffer()?;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        self.cached.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_written_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("whole");
        let mut memory: Vec<u8> = vec![0; 2 * WRITE_BYTES + 5 + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        let content = &mut memory[start..start + 2 * WRITE_BYTES + 5];
        content
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = u8::try_from(at % 251).unwrap());
        let lengths = [0, 1, BLOCK_BYTES, WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1];
        for length in lengths.into_iter().chain([content.len()]) {
            // Some pieces are written as they lie, some out of the buffer, some begin within a block.
            for piece in [3 << 20, 4097, 1 << 23, (2 << 20) + 8192, (1 << 20) + 1] {
                let mut file = WholeFile::create(&path).unwrap();
                for bytes in content[..length].chunks(piece) {
                    file.write(bytes).unwrap();
                }
                file.sync().unwrap();
                assert!(std::fs::read(&path).unwrap() == content[..length], "{length} bytes");
            }
        }
    }
}
