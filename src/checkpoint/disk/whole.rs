//! A file that is written once, from its start to its end, past the system's page cache.
//!
//! A snapshot is read again only after a restart. Written through the page cache it would take as much
//! memory as it is long for a while: pages that the system has to find and clear, at the cost of the stream
//! beside it, and that push out what others read. Direct writes go in whole blocks of the disk, from memory
//! that begins at a multiple of a block; what is left at the end goes through the cache. Where a file system
//! knows no direct writes, all does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::DiskWriter;

/// A multiple of every disk's block.
const BLOCK_BYTES: usize = 4096;

/// Bytes of one direct write: so many that the way to the disk counts for little.
const WRITE_BYTES: usize = 4 << 20;

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

    fn write_buffer(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[self.start..self.start + self.filled];
        if let Some(direct) = self.direct.as_ref().filter(|_| self.filled == WRITE_BYTES) {
            match direct.write_all_at(bytes, self.written) {
                // Some file systems say only now that they know no direct writes.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.direct = None,
                result => return result,
            }
        }
        self.cached.write_all_at(bytes, self.written)
    }
}

impl DiskWriter for WholeFile {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WRITE_BYTES - self.filled));
            let at = self.start + self.filled;
            self.buffer[at..at + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == WRITE_BYTES {
                self.write_buffer()?;
                self.written += WRITE_BYTES as u64;
                self.filled = 0;
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
        let content: Vec<u8> =
            (0..2 * WRITE_BYTES + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let lengths = [0, 1, BLOCK_BYTES, WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1];
        for length in lengths.into_iter().chain([content.len()]) {
            for piece in [3 << 20, 4097, 1 << 23] {
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
