//! What can go wrong with copies of snapshots in a bucket.

use std::error::Error;
use std::path::PathBuf;

use super::super::error::RefusalReason;

/// Why snapshots could not be copied, or copies not be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The store did not do what it was asked, or did not say so.
    #[error("cannot {doing} `{object}`")]
    Store {
        /// What was being done, such as `write`.
        doing: &'static str,
        /// The URL of the object.
        object: String,
        /// What the store said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The snapshot on disk could not be read.
    #[error("cannot read the snapshot to copy it to `{object}`")]
    Disk {
        /// The URL of the object.
        object: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process is alive that keeps its snapshots there.
    #[error(
        "another process keeps its snapshots in `{url}` ({owner}); stop it, or give this one a `remote` of its own"
    )]
    Owned {
        /// Where the copies lie.
        url: String,
        /// Who it is.
        owner: String,
    },
    /// Another process has taken over what this one had.
    #[error(
        "another process has taken over `{url}` ({owner}); this one stops, as both read the same sources; start it again only when the other one has ended"
    )]
    Overtaken {
        /// Where the copies lie.
        url: String,
        /// Who it is.
        owner: String,
    },
    /// The copies are those of a job that is configured differently.
    #[error(
        "`{url}` belongs to another job (fingerprint {found:032x}, this one is {expected:032x}); bring back the `pane` that it was saved with, or name another `remote`"
    )]
    OtherJob {
        /// Where the copies lie.
        url: String,
        /// The job that wrote them.
        found: u128,
        /// The job that wants to read them.
        expected: u128,
    },
    /// There are snapshots on both sides, of runs that know nothing of each other.
    #[error(
        "`{}` has snapshots, and `{url}` has those of another run; move the ones that are not to be used elsewhere",
        directory.display()
    )]
    TwoRuns {
        /// The state directory.
        directory: PathBuf,
        /// Where the copies lie.
        url: String,
    },
    /// The store takes writes whose condition does not hold.
    #[error(
        "the store behind `{url}` ignores the conditions of writes, so two processes could both believe to own it; use one that knows `If-Match` and `If-None-Match`"
    )]
    Unconditional {
        /// Where the copies lie.
        url: String,
    },
    /// The list of the copies cannot be used.
    #[error("`{object}` cannot be used: {reason}")]
    Manifest {
        /// The URL of the list.
        object: String,
        /// Why.
        reason: RefusalReason,
    },
    /// It was told to stop while it waited.
    #[error("stopped while waiting for the process that keeps its snapshots in `{url}`")]
    Stopped {
        /// Where the copies lie.
        url: String,
    },
}

impl RemoteError {
    /// Whether this process must not go on: somebody else owns the copies.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Overtaken { .. } | Self::Owned { .. } | Self::Manifest { .. })
    }
}
