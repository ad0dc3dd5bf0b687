//! The judge: puts the shards' panes together and asks the detectors.
//!
//! Every shard reports how far it has closed its panes. A pane is judged when all shards have closed it,
//! in pane order, so that findings depend neither on the number of shards nor on who was faster.

use std::collections::BTreeMap;

use crate::aggregate::PaneContacts;
use crate::detect::DetectorSet;
use crate::finding::Finding;
use crate::units::{PaneIndex, UnixSeconds};

/// Panes of one shard, up to a watermark.
pub(super) struct ShardPanes {
    pub(super) shard_index: usize,
    pub(super) watermark: UnixSeconds,
    pub(super) panes: Vec<PaneContacts>,
}

/// Aligns shards and runs detectors.
pub(super) struct Judge {
    detectors: DetectorSet,
    pane_seconds: i64,
    /// How far each shard has come.
    watermarks: Vec<UnixSeconds>,
    waiting: BTreeMap<PaneIndex, Vec<PaneContacts>>,
}

impl Judge {
    pub(super) fn new(detectors: DetectorSet, pane_seconds: i64, shard_count: usize) -> Self {
        let watermarks = vec![UnixSeconds::MIN; shard_count];
        Self { detectors, pane_seconds, watermarks, waiting: BTreeMap::new() }
    }

    /// Takes panes of a shard and appends the findings of every pane that this completes.
    pub(super) fn accept(&mut self, shard: ShardPanes, findings: &mut Vec<Finding>) {
        for contacts in shard.panes {
            self.waiting.entry(contacts.pane).or_default().push(contacts);
        }
        self.watermarks[shard.shard_index] = shard.watermark;
        let complete_until = self.watermarks.iter().copied().min().expect("there is a shard");
        while let Some(entry) = self.waiting.first_entry() {
            let pane = *entry.key();
            if pane.end(self.pane_seconds) > complete_until {
                break;
            }
            self.detectors.on_pane(pane, entry.remove(), findings);
        }
    }

    /// Appends what the detectors have left to say at the end of the stream.
    pub(super) fn finish(mut self, findings: &mut Vec<Finding>) {
        assert!(self.waiting.is_empty(), "every shard closed all its panes");
        self.detectors.on_end(findings);
    }
}
