//! Snapshots: collects the saved parts of a barrier and writes them.
//!
//! A snapshot that cannot be written is given up, counted and logged; the one before stays, and the next barrier
//! tries again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{Epoch, PartName, SavedPart};
use crate::checkpoint::{Part, Snapshots};
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
}

/// Writes snapshots.
pub(super) struct SnapshotStage {
    snapshots: Snapshots,
    shard_count: usize,
    /// How long after a snapshot memory is made ready for the next.
    prepare_after: Duration,
    collected: BTreeMap<Epoch, BTreeMap<PartName, Vec<Vec<u8>>>>,
    /// Memory that parts were not written into.
    spares: Vec<Vec<u8>>,
    report: SnapshotReport,
}

/// A barrier whose snapshot is written or given up.
pub(super) struct Settled {
    pub(super) epoch: Epoch,
    pub(super) is_durable: bool,
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
        let SavedPart { epoch, name, segments, spares } = part;
        self.spares.extend(spares);
        let parts = self.collected.entry(epoch).or_default();
        let is_new = parts.insert(name, segments).is_none();
        assert!(is_new, "a stage saves its state once for a barrier");
        if parts.len() < self.shard_count + OTHER_PARTS {
            return None;
        }
        let parts: Vec<Part> = self
            .collected
            .remove(&epoch)?
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
        Some(Settled { epoch, is_durable: written.is_ok(), segments })
    }

    pub(super) const fn prepare_after(&self) -> Duration {
        self.prepare_after
    }

    pub(super) fn finish(self) -> SnapshotReport {
        self.report
    }
}
