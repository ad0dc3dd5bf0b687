//! A piece of a plain file that its worker reads: whole lines, or whole JSON documents.
//!
//! Where pieces begin and end was found before, from a few bytes near each end. The bytes themselves
//! are read once, by the worker that parses them, into buffers that stay in its cache and are used again.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memchr::memrchr;

use super::fault::InputFault;
use super::stream::BLOCK_BYTES;
use crate::record::{TextPool, TextSlice};

/// What a range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeForm {
    Lines,
    Documents,
}

/// A piece of a plain file.
#[derive(Clone, Debug)]
pub struct FileRange {
    pub(super) file: Arc<File>,
    pub(super) form: RangeForm,
    pub(super) start: u64,
    pub(super) length: usize,
    /// Whether it ends anywhere, because its end could not be looked at.
    pub(super) ends_in_fault: bool,
    /// Bytes before `start` that count as read with this range.
    pub(super) passed_bytes: u64,
}

/// A piece of a range that was read.
pub(super) struct LoadedPiece {
    pub(super) bytes: TextSlice,
    pub(super) bytes_read: u64,
    /// What stopped reading after it.
    pub(super) fault: Option<InputFault>,
    pub(super) is_last: bool,
}

impl FileRange {
    /// The first line of a range of lines, as far as it stands in its first bytes.
    pub(super) fn first_line(&self) -> Option<Vec<u8>> {
        if self.form != RangeForm::Lines {
            return None;
        }
        const LINE_BYTES: usize = 8 * 1024;
        let mut line = vec![0; LINE_BYTES.min(self.length)];
        let read_bytes = read_up_to(&self.file, &mut line, self.start).unwrap_or(0);
        line.truncate(read_bytes);
        line.truncate(memchr::memchr(b'\n', &line).unwrap_or(read_bytes));
        Some(line)
    }

    /// Reads the next piece, from `at` bytes after the start on: lines in blocks, documents all at once. A
    /// file that is shorter by now gives what is left of it, and an error what came before it.
    pub(super) fn load(&self, at: usize, pool: &TextPool) -> LoadedPiece {
        let left = self.length - at;
        let mut wanted = match self.form {
            RangeForm::Lines => left.min(BLOCK_BYTES),
            RangeForm::Documents => left,
        };
        let mut bytes = pool.take(wanted + 1);
        let mut filled = 0;
        let (is_last, error) = loop {
            bytes.resize(wanted, 0);
            let offset = self.start + (at + filled) as u64;
            let (read_bytes, error) = read_before_error(&self.file, &mut bytes[filled..], offset);
            filled += read_bytes;
            if filled < wanted || filled == left {
                break (true, error);
            }
            if let Some(last) = memrchr(b'\n', &bytes) {
                filled = last + 1;
                break (false, None);
            }
            wanted = (wanted + BLOCK_BYTES).min(left);
        };
        bytes.truncate(filled);
        let mut bytes_read = filled as u64;
        if at == 0 {
            bytes_read += self.passed_bytes;
        }
        if self.form == RangeForm::Lines {
            if error.is_some() || (is_last && self.ends_in_fault) {
                bytes.truncate(memrchr(b'\n', &bytes).map_or(0, |last| last + 1));
            } else if bytes.last().is_some_and(|last| *last != b'\n') {
                bytes.push(b'\n');
            }
        }
        let fault = error.map(InputFault::from);
        LoadedPiece { bytes: pool.text(bytes).into(), bytes_read, fault, is_last }
    }
}

/// Fills `buffer` from `offset` on as far as the file goes.
///
/// # Errors
/// What the system says.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match read_before_error(file, buffer, offset) {
        (read_bytes, None) => Ok(read_bytes),
        (_, Some(error)) => Err(error),
    }
}

fn read_before_error(file: &File, buffer: &mut [u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read_bytes) => filled += read_bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines_of(text: &[u8], range: &dyn Fn(Arc<File>) -> FileRange) -> (Vec<u8>, u64, usize) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let range = range(Arc::new(file));
        let (mut lines, mut bytes_read, mut pieces) = (Vec::new(), 0, 0);
        loop {
            let piece = range.load(lines.len(), &TextPool::default());
            lines.extend_from_slice(&piece.bytes);
            bytes_read += piece.bytes_read;
            pieces += 1;
            if piece.is_last {
                return (lines, bytes_read, pieces);
            }
        }
    }

    fn check(text: &[u8], ends_in_fault: bool, expected: &[u8], pieces: usize) {
        let length = text.len() - 2;
        let got = lines_of(text, &|file| FileRange {
            file,
            form: RangeForm::Lines,
            start: 2,
            length,
            ends_in_fault,
            passed_bytes: 2,
        });
        assert!(got == (expected.to_vec(), text.len() as u64, pieces), "{} pieces", got.2);
    }

    #[test]
    fn lines_are_read_in_blocks() {
        check(b"..1\n2\n", false, b"1\n2\n", 1);
        check(b"..1\n2", false, b"1\n2\n", 1);
        check(b"..1\n2", true, b"1\n", 1);
        check(b"..12", true, b"", 1);
        let text: Vec<u8> = (0..100_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        check(&[b"..", &text[..]].concat(), false, &text, 3);
        let long = [&text[..10], &vec![b'x'; 3 * BLOCK_BYTES], b"\n", &text[..10]].concat();
        check(&[b"..", &long[..]].concat(), false, &long, 2);
    }
}
