//! Snapshots: collects the saved parts of a barrier and writes them.
//!
//! A snapshot that cannot be written is given up, counted and logged; the one before stays, and the next barrier
//! tries again. One that is written is opened for whoever copies it elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::copying::CopyReport;
use super::message::{Epoch, PartName, SavedPart};
use crate::checkpoint::{Part, SnapshotFile, Snapshots};
use crate::units::UnixSeconds;

/// Parts beside those of the shards: inputs, judge and delivery.
const OTHER_PARTS: usize = 3;

/// What is known of snapshots that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Snapshots written.
    pub written: u64,
    /// Snapshots that could not be written.
    pub failed: u64,
    /// Bytes of the last one.
    pub bytes: u64,
    /// What became of their copies, if there are any.
    pub copies: Option<CopyReport>,
}

/// Writes snapshots.
pub(super) struct SnapshotStage {
    snapshots: Snapshots,
    shard_count: usize,
    /// How long after a snapshot memory is made ready for the next.
    prepare_after: Duration,
    collected: BTreeMap<Epoch, Collected>,
    /// Memory that parts were not written into.
    spares: Vec<Vec<u8>>,
    report: SnapshotReport,
}

/// The parts of a barrier that have come.
#[derive(Default)]
struct Collected {
    parts: BTreeMap<PartName, Vec<Vec<u8>>>,
    needs_journal: bool,
}

/// A barrier whose snapshot is written or given up.
pub(super) struct Settled {
    pub(super) epoch: Epoch,
    pub(super) is_durable: bool,
    /// Whether a process without this machine's journal could not go on from it.
    pub(super) needs_journal: bool,
    /// Memory that may be used again.
    pub(super) segments: Vec<Vec<u8>>,
}

impl SnapshotStage {
    pub(super) fn new(snapshots: Snapshots, shard_count: usize, interval: Duration) -> Self {
        let (collected, report) = (BTreeMap::new(), SnapshotReport::default());
        let (prepare_after, spares) = (interval / 2, Vec::new());
        Self { snapshots, shard_count, prepare_after, collected, spares, report }
    }

    /// Takes a part; writes the snapshot if it was the last one. `now` is wall time.
    pub(super) fn take(&mut self, part: SavedPart, now: UnixSeconds) -> Option<Settled> {
        let SavedPart { epoch, name, segments, spares, needs_journal } = part;
        self.spares.extend(spares);
        let collected = self.collected.entry(epoch).or_default();
        collected.needs_journal |= needs_journal;
        let is_new = collected.parts.insert(name, segments).is_none();
        assert!(is_new, "a stage saves its state once for a barrier");
        if collected.parts.len() < self.shard_count + OTHER_PARTS {
            return None;
        }
        let Collected { parts, needs_journal } = self.collected.remove(&epoch)?;
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|(name, segments)| Part { name: name.text(), segments })
            .collect();
        let written = self.snapshots.write(epoch.0, now, &parts);
        let mut segments: Vec<_> = parts.into_iter().flat_map(|part| part.segments).collect();
        segments.append(&mut self.spares);
        match &written {
            Ok(written) => {
                self.report.written += 1;
                self.report.bytes = written.bytes;
            }
            Err(error) => {
                self.report.failed += 1;
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "no snapshot was written; the one before stays, and another is tried in time"
                );
            }
        }
        Some(Settled { epoch, is_durable: written.is_ok(), needs_journal, segments })
    }

    /// Opens what was written for this barrier, to be copied.
    pub(super) fn file(&self, epoch: Epoch) -> Option<SnapshotFile> {
        match self.snapshots.file(epoch.0) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a snapshot cannot be copied; the next one is"
                );
                None
            }
        }
    }

    pub(super) const fn prepare_after(&self) -> Duration {
        self.prepare_after
    }

    pub(super) fn finish(self) -> SnapshotReport {
        self.report
    }
}
