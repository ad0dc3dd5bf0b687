//! Findings at the end of a file, one line of JSON each.
//!
//! Every batch is written at once; [`Sink::flush`] makes it durable. The directory is not made: a
//! mistyped path would otherwise be filled in silence.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::finding::Finding;

use super::{Sink, SinkError};

/// Appends to a file.
#[derive(Debug)]
pub struct FileSink {
    name: String,
    path: PathBuf,
    file: File,
    /// Pipes and devices can be written, but neither sought nor synced.
    is_regular: bool,
}

impl FileSink {
    /// Opens `path` for appending, or makes the file. A last line that a crash cut off is ended, so
    /// that the first finding stands on a line of its own.
    ///
    /// # Errors
    /// [`SinkError::Open`].
    pub fn open(name: String, path: &Path) -> Result<Self, SinkError> {
        match open_at_line_start(path) {
            Ok((file, is_regular)) => Ok(Self { name, path: path.to_owned(), file, is_regular }),
            Err(source) => Err(SinkError::Open { name, path: path.to_owned(), source }),
        }
    }

    fn error(&self, source: io::Error) -> SinkError {
        let target = format!("`{}`", self.path.display());
        SinkError::Io { name: self.name.clone(), target, source }
    }
}

fn open_at_line_start(path: &Path) -> io::Result<(File, bool)> {
    let is_regular = path.metadata().map_or(true, |metadata| metadata.is_file());
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).read(is_regular).open(path)?;
    if is_regular && file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok((file, is_regular))
}

impl Sink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, _: &[Finding], lines: &[u8]) -> Result<(), SinkError> {
        self.file.write_all(lines).map_err(|error| self.error(error))
    }

    fn write_again(&mut self, lines: &[Vec<u8>]) -> Result<(), SinkError> {
        self.file.write_all(&lines.concat()).map_err(|error| self.error(error))
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if !self.is_regular {
            return Ok(());
        }
        self.file.sync_all().map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: Option<&str>, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("findings.ndjson");
        if let Some(text) = before {
            std::fs::write(&path, text).unwrap();
        }
        let mut sink = FileSink::open("journal".to_owned(), &path).unwrap();
        sink.write(&[], b"{\"revision\":1}\n{\"revision\":2}\n").unwrap();
        sink.write(&[], b"").unwrap();
        sink.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn findings_go_to_the_end() {
        check(None, "{\"revision\":1}\n{\"revision\":2}\n");
        check(Some(""), "{\"revision\":1}\n{\"revision\":2}\n");
        check(Some("{}\n"), "{}\n{\"revision\":1}\n{\"revision\":2}\n");
        check(Some("{\"cut"), "{\"cut\n{\"revision\":1}\n{\"revision\":2}\n");
    }

    #[test]
    fn devices_can_be_written() {
        let path = Path::new("/dev/null");
        let mut sink = FileSink::open("null".to_owned(), path).unwrap();
        sink.write(&[], b"{}\n").unwrap();
        sink.flush().unwrap();
    }

    #[test]
    fn a_missing_directory_is_an_error_that_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent/findings.ndjson");
        let error = FileSink::open("journal".to_owned(), &path).unwrap_err();
        let expected = format!(
            "sink `journal` cannot open `{}`; its directory must exist and be writable: create it, or change `path`",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }
}
