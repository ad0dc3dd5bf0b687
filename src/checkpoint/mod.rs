//! Everything that must survive: snapshots of state, the journal of findings, how far each sink got,
//! and what could not be read.
//!
//! One state directory per job, locked by the process that runs it ([`StateDirectory`]). All of it goes
//! through [`disk::Disk`], which has a twin in memory that fails as tests want it to. What state means is
//! the caller's business: a snapshot holds named parts of bytes, written with [`crate::codec`]. Snapshots may be
//! copied to a bucket ([`Remote`]), from which another machine goes on.
//!
//! ```text
//!  state/lock                      held while a process runs
//!  state/snapshot-00000042.fgs     the newest two
//!  state/journal-00000003.ndjson   findings, rotated
//!  state/cursors.json              how far each sink got in the journal
//!  state/dead-letter-00000001.ndjson
//!  state/remote.json               which copies in a bucket are this directory's
//! ```

mod checked_json;
mod container;
mod cursors;
mod dead_letters;
mod directory;
pub mod disk;
mod error;
mod journal;
mod line_log;
mod partials;
mod remote;
mod snapshots;

pub use container::{Part, Snapshot, SnapshotHead};
pub use cursors::Cursors;
pub use dead_letters::{DeadLetter, DeadLetterCounters, DeadLetterSettings, DeadLetters};
pub use directory::StateDirectory;
pub use error::{CheckpointError, Refusal, RefusalReason};
pub use journal::{
    Encode, Journal, JournalCounters, JournalFault, JournalLine, JournalMark, JournalPosition,
    JournalReader, JournalSettings,
};
pub use partials::{PartialReader, PartialWriter};
#[cfg(feature = "s3")]
pub use remote::RemoteStore;
pub use remote::{Remote, RemoteError, RemoteIdentity, RemoteSettings, SnapshotFile};
pub use snapshots::{Restored, Snapshots, Written};
