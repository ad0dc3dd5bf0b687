//! Snapshots: collects the saved parts of a barrier and writes them.
//!
//! A snapshot that cannot be written is given up, counted and logged; the one before stays, and the next barrier
//! tries again.

use std::collections::BTreeMap;

use super::message::{PartName, SavedPart};
use crate::checkpoint::{Epoch, SnapshotStore};

impl PartName {
    /// The name in the snapshot.
    pub(super) fn text(self) -> String {
        match self {
            Self::Inputs => "inputs".to_owned(),
            Self::Shard(index) => format!("shard-{index}"),
            Self::Judge => "judge".to_owned(),
            Self::Delivery => "delivery".to_owned(),
        }
    }
}

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
pub(super) struct Snapshots {
    store: SnapshotStore,
    shard_count: usize,
    collected: BTreeMap<Epoch, BTreeMap<PartName, Vec<Vec<u8>>>>,
    report: SnapshotReport,
}

/// A barrier whose snapshot is written or given up.
pub(super) struct Settled {
    pub(super) epoch: Epoch,
    pub(super) is_durable: bool,
    /// Memory that may be used again.
    pub(super) segments: Vec<Vec<u8>>,
}

impl Snapshots {
    pub(super) fn new(store: SnapshotStore, shard_count: usize) -> Self {
        Self {
            store,
            shard_count,
            collected: BTreeMap::new(),
            report: SnapshotReport::default(),
        }
    }

    /// Takes a part; writes the snapshot if it was the last one.
    pub(super) fn take(&mut self, part: SavedPart) -> Option<Settled> {
        let SavedPart { epoch, name, segments } = part;
        let parts = self.collected.entry(epoch).or_default();
        let is_new = parts.insert(name, segments).is_none();
        assert!(is_new, "a stage saves its state once for a barrier");
        // Inputs, judge and delivery beside the shards.
        if parts.len() < self.shard_count + 3 {
            return None;
        }
        let parts = self.collected.remove(&epoch)?;
        let parts: Vec<(String, Vec<Vec<u8>>)> =
            parts.into_iter().map(|(name, segments)| (name.text(), segments)).collect();
        let bytes = parts.iter().flat_map(|(_, segments)| segments).map(|s| s.len() as u64).sum();
        let written = self.store.write(epoch, &parts);
        let segments = parts.into_iter().flat_map(|(_, segments)| segments).collect();
        match &written {
            Ok(()) => {
                self.report.written += 1;
                self.report.bytes = bytes;
            }
            Err(error) => {
                self.report.failed += 1;
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "no snapshot was written; the one before stays, and the next is tried in time"
                );
            }
        }
        Some(Settled { epoch, is_durable: written.is_ok(), segments })
    }

    pub(super) fn finish(self) -> SnapshotReport {
        self.report
    }
}
