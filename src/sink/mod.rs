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

/// Appends one finding as one line, with its line end, to a buffer.
pub type Encode = fn(&Finding, &mut Vec<u8>);

/// Something that takes findings away.
pub trait Sink: Send {
    /// The name in the configuration.
    fn name(&self) -> &str;

    /// Hands over findings in order; returning means that they were accepted.
    ///
    /// # Errors
    /// If they could not be accepted and a repeat would not help.
    fn write(&mut self, findings: &[Finding]) -> Result<(), SinkError>;

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

#[cfg(test)]
mod testing {
    //! Findings that differ in their revision, and an encoder that writes only that.

    use std::collections::BTreeMap;

    use crate::finding::{Context, Finding, FindingId, FindingKind, Party, Severity, Status};
    use crate::net::Addr;
    use crate::units::UnixSeconds;

    pub(super) fn finding(revision: u32) -> Finding {
        let (kind, moment, addr) = (FindingKind::PortScan, UnixSeconds(0), Addr::v4(1));
        Finding {
            id: FindingId::new(kind, &[addr], &[addr], &[], moment),
            revision,
            status: Status::Open,
            kind,
            severity: Severity::Low,
            confidence: 1.0,
            title: String::new(),
            actor: Party::of(addr),
            target: Party::of(addr),
            first_seen: moment,
            last_seen: moment,
            detected_at: moment,
            window_seconds: 300,
            evidence: BTreeMap::new(),
            context: Context::default(),
            exact: true,
        }
    }

    pub(super) fn encode_revision(finding: &Finding, line: &mut Vec<u8>) {
        line.extend(format!("{{\"revision\":{}}}\n", finding.revision).bytes());
    }
}
