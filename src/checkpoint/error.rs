//! What can go wrong with durable state.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::remote::RemoteError;
use crate::codec::DecodeError;

/// Why durable state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused an operation on a file.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was being done, such as `write`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process works with the state directory.
    #[error(
        "another process uses the state directory `{}`; stop it, or give this one a directory of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes to the file.
    #[error("another process writes to `{}`; stop it, or name another file", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
    },
    /// A file for dead letters holds something else, which stays as it is.
    #[error("`{}` holds something else than dead letters; name another file", path.display())]
    NoDeadLetters {
        /// The file.
        path: PathBuf,
    },
    /// A directory for partials has some already.
    #[error("`{}` has partials already; name an empty directory, or remove them", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The copies of snapshots elsewhere cannot be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// There are snapshots, and none can be used. To begin afresh over them would lose what they hold.
    #[error(
        "none of the snapshots in `{}` can be used: {}; to begin without them, move them to another directory",
        directory.display(),
        Refusals(refused)
    )]
    NoneUsable {
        /// The state directory.
        directory: PathBuf,
        /// Each snapshot with the reason, newest first.
        refused: Vec<Refusal>,
    },
}

impl CheckpointError {
    /// For `map_err`: the error of an operation on `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether the same call may succeed later without anybody's help but room on the disk: the caller
    /// keeps what it has and tries again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::Interrupted
                | io::ErrorKind::TimedOut
                | io::ErrorKind::WouldBlock
        )
    }
}

struct Refusals<'a>(&'a [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().enumerate() {
            write!(f, "{}{refusal}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// A file that was not used, and why.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is refused: {reason}", path.display())]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// Why. Its text says what to do.
    pub reason: RefusalReason,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum RefusalReason {
    /// It ends before it says that it is complete.
    #[error("it is cut short at {length_bytes} bytes")]
    CutShort {
        /// How long it is.
        length_bytes: u64,
    },
    /// It does not begin as a snapshot does.
    #[error("it is no snapshot of flowgauge")]
    Foreign,
    /// A newer version of the program wrote it.
    #[error(
        "its form is {found} and this version reads up to {newest}; run the version that wrote it, or a later one"
    )]
    Newer {
        /// Its form.
        found: u16,
        /// The newest form that this version reads.
        newest: u16,
    },
    /// It was written on a machine with another order of bytes.
    #[error("it was written on a machine with another byte order; restore it on such a machine")]
    ByteOrder,
    /// A checksum does not match, or lengths contradict each other.
    #[error("its {what} is damaged")]
    Damaged {
        /// The part concerned.
        what: String,
    },
    /// It holds the state of a job that is configured differently.
    #[error(
        "it belongs to another job (fingerprint {found:032x}, this one is {expected:032x}); bring back the `pane` that it was saved with, or use another state directory"
    )]
    OtherJob {
        /// The job that wrote it.
        found: u128,
        /// The job that wants to read it.
        expected: u128,
    },
    /// A part is not in it.
    #[error("it has no part `{name}`")]
    Missing {
        /// The name of the part.
        name: String,
    },
    /// A part is sound, but this version cannot make state of it.
    #[error("its part `{name}` cannot be read: {error}")]
    Part {
        /// The name of the part.
        name: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// It is listed, and not there.
    #[error("it is listed, and somebody has removed it")]
    Gone,
    /// The system refused to read it.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
}

impl RefusalReason {
    /// Whether the file is of no use to anybody, and may be removed once there are better ones.
    pub(super) const fn is_worthless(&self) -> bool {
        matches!(self, Self::CutShort { .. } | Self::Damaged { .. } | Self::Gone)
    }
}
