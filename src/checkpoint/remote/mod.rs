//! Copies of snapshots in a bucket, so that a run goes on elsewhere when its machine is lost.
//!
//! ```text
//!  s3://bucket/prefix/manifest.json                                which snapshots there are, who may add some
//!  s3://bucket/prefix/snapshot-00000042-0123456789abcdef.fgs       the newest two, by epoch and run
//! ```
//!
//! A snapshot is written to the state directory first, then its file is uploaded under a name that no other
//! process uses, and listed last: what is not listed is no snapshot, whole or not. The list is changed by
//! conditional writes (`fence`), so that of two processes one is refused. On start the newest of both sides is
//! used (`branch` says when only the copies count). Without the feature `s3` the types are here and nobody
//! can make a [`Remote`].

mod error;

#[cfg(not(feature = "s3"))]
mod absent;
#[cfg(feature = "s3")]
mod branch;
#[cfg(feature = "s3")]
mod bucket;
#[cfg(feature = "s3")]
mod copies;
#[cfg(feature = "s3")]
mod fence;
#[cfg(feature = "s3")]
mod manifest;
#[cfg(feature = "s3")]
mod owned;
#[cfg(all(test, feature = "s3"))]
mod tests;
#[cfg(feature = "s3")]
mod transfer;

#[cfg(not(feature = "s3"))]
pub use absent::{Remote, RemoteSettings};
#[cfg(feature = "s3")]
pub use bucket::RemoteStore;
pub use error::RemoteError;
#[cfg(feature = "s3")]
pub use owned::{Remote, RemoteSettings};

use super::disk::DiskFile;

/// A snapshot in the state directory that is to be copied.
#[derive(Debug)]
pub struct SnapshotFile {
    /// Its number.
    pub epoch: u64,
    /// How long it is.
    pub bytes: u64,
    /// It stays readable though the file may lose its name meanwhile.
    pub file: Box<dyn DiskFile>,
}

/// Who keeps snapshots somewhere, for those who meet it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteIdentity {
    /// Random: no two runs of the program have the same.
    pub run: u128,
    /// The machine, for people.
    pub host: String,
    /// The process, for people.
    pub process: u32,
    /// Tells this start of the machine from all others, if the system says so: a process that ended since is
    /// then known to be gone when its state directory is free.
    pub boot: Option<String>,
}
