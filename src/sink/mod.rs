//! Where findings go: one file or folder per kind of sink, encoders beside them.

pub mod encode;
mod file;
#[cfg(feature = "kinesis")]
pub mod kinesis;
mod stdout;

use std::path::PathBuf;

use crate::finding::Finding;

pub use file::FileSink;
pub use stdout::StdoutSink;

/// Something that takes findings away.
pub trait Sink: Send {
    /// The name in the configuration.
    fn name(&self) -> &str;

    /// Hands over findings in order, also as lines of the native form ([`encode::ndjson`]), because most sinks
    /// want that; returning means that they were accepted.
    ///
    /// # Errors
    /// If they could not be accepted and a repeat would not help.
    fn write(&mut self, findings: &[Finding], lines: &[u8]) -> Result<(), SinkError>;

    /// Hands over findings of an earlier process that may not have got here, each as a line of the native form.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn write_again(&mut self, lines: &[Vec<u8>]) -> Result<(), SinkError>;

    /// Makes everything accepted so far visible to readers.
    ///
    /// # Errors
    /// If that is impossible.
    fn flush(&mut self) -> Result<(), SinkError>;
}

/// Why a sink could not take findings.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The operating system refused.
    #[error("sink `{name}` cannot write to {target}")]
    Io {
        /// The name in the configuration.
        name: String,
        /// A path, or `standard output`.
        target: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be opened.
    #[error(
        "sink `{name}` cannot open `{}`; its directory must exist and be writable: create it, or change `path`",
        path.display()
    )]
    Open {
        /// The name in the configuration.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Whoever read the output has gone: the run ends, and nothing has failed.
    #[error("sink `{name}`: its reader is gone")]
    Closed {
        /// The name in the configuration.
        name: String,
    },
}
