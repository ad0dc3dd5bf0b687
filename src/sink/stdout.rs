//! Findings on standard output, one line of JSON each.
//!
//! Each batch is written as a whole, under one lock and flushed, so that lines never mix and a
//! reader sees a finding as soon as it was raised. A reader that goes away (`| head`) is
//! [`SinkError::Closed`], which ends a run without being a failure.

use std::io::{self, Write};

use crate::finding::Finding;

use super::{Sink, SinkError};

/// Writes to standard output.
#[derive(Debug)]
pub struct StdoutSink {
    name: String,
}

impl StdoutSink {
    /// The sink `name` of the configuration.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name }
    }

    fn write_to(&self, out: &mut dyn Write, lines: &[u8]) -> Result<(), SinkError> {
        out.write_all(lines).and_then(|()| out.flush()).map_err(|error| self.error(error))
    }

    fn error(&self, source: io::Error) -> SinkError {
        let name = self.name.clone();
        match source.kind() {
            io::ErrorKind::BrokenPipe => SinkError::Closed { name },
            _ => SinkError::Io { name, target: "standard output".to_owned(), source },
        }
    }
}

impl Sink for StdoutSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, _: &[Finding], lines: &[u8]) -> Result<(), SinkError> {
        self.write_to(&mut io::stdout().lock(), lines)
    }

    fn write_again(&mut self, lines: &[Vec<u8>]) -> Result<(), SinkError> {
        let mut out = io::stdout().lock();
        let written = lines.iter().try_for_each(|line| out.write_all(line));
        written.and_then(|()| out.flush()).map_err(|error| self.error(error))
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        io::stdout().flush().map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails.
    struct Limited {
        taken: Vec<u8>,
        room: usize,
        then: io::ErrorKind,
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(self.then.into());
            }
            self.room -= count;
            self.taken.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn check(room: usize, then: io::ErrorKind, expected: Result<&str, &str>) {
        let mut out = Limited { taken: Vec::new(), room, then };
        let sink = StdoutSink::new("out".to_owned());
        let result = sink.write_to(&mut out, b"{\"revision\":1}\n{\"revision\":2}\n");
        let text = String::from_utf8(out.taken).unwrap();
        match expected {
            Ok(lines) => assert_eq!((result.is_ok(), text.as_str()), (true, lines)),
            Err(message) => assert_eq!(result.unwrap_err().to_string(), message),
        }
    }

    #[test]
    fn a_batch_is_written_and_a_closed_reader_is_told_from_a_failure() {
        check(1 << 10, io::ErrorKind::Other, Ok("{\"revision\":1}\n{\"revision\":2}\n"));
        check(20, io::ErrorKind::BrokenPipe, Err("sink `out`: its reader is gone"));
        check(0, io::ErrorKind::StorageFull, Err("sink `out` cannot write to standard output"));
    }
}
