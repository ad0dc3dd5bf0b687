//! Where findings go: one file or folder per kind of sink, encoders beside them.

#[cfg(feature = "kinesis")]
pub mod kinesis;

use crate::finding::Finding;

/// Something that takes findings away.
pub trait Sink: Send {
    /// The name in the configuration.
    fn name(&self) -> &str;

    /// Hands over findings in order; returning means that they were accepted.
    ///
    /// # Errors
    /// If they could not be accepted and a repeat would not help.
    fn write(&mut self, findings: &[Finding]) -> Result<(), SinkError>;

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
}
