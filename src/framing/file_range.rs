//! A piece of a plain file that its worker reads: whole lines, or whole JSON documents.
//!
//! Where pieces begin and end was found before, from a few bytes near each end. The bytes themselves
//! are read once, by the worker that parses them, into a buffer that is used again and again.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::chunk::Payload;
use super::fault::InputFault;
use crate::record::TextPool;

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
    /// Bytes before `start` that count as read with this range.
    pub(super) passed_bytes: u64,
}

/// A range that was read.
pub(super) struct LoadedRange {
    pub(super) payload: Payload,
    pub(super) bytes_read: u64,
    pub(super) fault: Option<InputFault>,
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

    /// Reads the range. A file that is shorter by now gives what is left of it, and an error what came
    /// before it.
    pub(super) fn load(&self, pool: &TextPool) -> LoadedRange {
        let mut bytes = pool.take(self.length + 1);
        bytes.resize(self.length, 0);
        let (read_bytes, error) = read_before_error(&self.file, &mut bytes, self.start);
        bytes.truncate(read_bytes);
        let fault = error.map(InputFault::from);
        let bytes_read = self.passed_bytes + bytes.len() as u64;
        if fault.is_some() && self.form == RangeForm::Lines {
            bytes.truncate(memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1));
        }
        let payload = match self.form {
            RangeForm::Lines => {
                if bytes.last().is_some_and(|last| *last != b'\n') {
                    bytes.push(b'\n');
                }
                Payload::Lines(pool.text(bytes).into())
            }
            RangeForm::Documents if fault.is_some() => {
                Payload::DocumentStart(pool.text(bytes).into())
            }
            RangeForm::Documents => Payload::Documents(pool.text(bytes).into()),
        };
        LoadedRange { payload, bytes_read, fault }
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
