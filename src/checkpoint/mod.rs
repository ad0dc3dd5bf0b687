//! Everything that must survive: snapshots of state, the journal of findings, how far each sink got,
//! and what could not be read.
//!
//! One state directory per job, locked by the process that runs it ([`StateDirectory`]). All of it goes
//! through [`disk::Disk`], which has a twin in memory that fails as tests want it to. What state means is
//! the caller's business: a snapshot holds named parts of bytes, written with [`crate::codec`].
//!
//! ```text
//!  state/lock                      held while a process runs
//!  state/snapshot-00000042.fgs     the newest two
//!  state/journal-00000003.ndjson   findings, rotated
//!  state/cursors.json              how far each sink got in the journal
//!  state/dead-letter-00000001.ndjson
//! ```

mod container;
mod cursors;
mod dead_letters;
mod directory;
pub mod disk;
mod error;
mod journal;
mod line_log;
mod partials;
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
pub use snapshots::{Restored, Snapshots, Written};
