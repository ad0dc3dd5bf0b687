//! A state shard: the tables of the keys that it owns.
//!
//! Gets routed batches, watermarks and barriers in stream order; hands over the contacts of panes that are
//! complete, its saved state at a barrier, and at the end its part of the tops. Nothing here is shared or locked.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Ending, Epoch, PartName, SavedPart, ShardPanes, ToJudge, ToShard};
use crate::aggregate::{ContactTable, PaneContacts, RoutedBatch, TopSet};
use crate::codec::{Encoder, SEGMENT_BYTES};
use crate::metrics::{Stage, Stopwatch};
use crate::units::UnixSeconds;

/// What a shard gives.
pub(super) enum FromShard {
    ToJudge(ToJudge),
    Saved {
        part: SavedPart,
        /// How long the shard stood still for it.
        took: Duration,
    },
    /// Batches that this shard was the last to read.
    Used(Vec<RoutedBatch>),
}

/// One shard of the state.
pub(super) struct StateShard {
    shard_index: usize,
    tops: TopSet,
    contacts: Option<ContactTable>,
}

impl StateShard {
    pub(super) const fn new(
        shard_index: usize,
        tops: TopSet,
        contacts: Option<ContactTable>,
    ) -> Self {
        Self { shard_index, tops, contacts }
    }

    /// The tables, to be filled with those of other shards.
    pub(super) const fn tables_mut(&mut self) -> (&mut TopSet, Option<&mut ContactTable>) {
        (&mut self.tops, self.contacts.as_mut())
    }

    /// Takes a message. `spares` gives memory for what is saved at a barrier.
    pub(super) fn take(
        &mut self,
        message: ToShard,
        watch: &mut Stopwatch,
        spares: &mut dyn FnMut(usize) -> Vec<Vec<u8>>,
        out: &mut dyn FnMut(FromShard),
    ) {
        let shard_index = self.shard_index;
        match message {
            ToShard::Rows(batches) => {
                batches.iter().for_each(|routed| self.add(routed, watch));
                if let Some(batches) = Arc::into_inner(batches) {
                    out(FromShard::Used(batches));
                }
            }
            ToShard::Watermark { watermark, arrived } => {
                let panes = self.close_until(watermark);
                watch.lap(Stage::Contacts, 0);
                let arrived = Some(arrived);
                let panes = ShardPanes { shard_index, watermark, arrived, panes };
                out(FromShard::ToJudge(ToJudge::Panes(panes)));
            }
            ToShard::Barrier(epoch) => {
                let segments = spares(self.saved_bytes() / SEGMENT_BYTES + 1);
                let part = self.save(epoch, segments);
                out(FromShard::Saved { part, took: watch.lap(Stage::Save, 0) });
                out(FromShard::ToJudge(ToJudge::Barrier { shard_index, epoch }));
            }
            ToShard::Detectors(detectors) => {
                // One is enough for all.
                if shard_index == 0 {
                    out(FromShard::ToJudge(ToJudge::Detectors(detectors)));
                }
            }
            ToShard::End(ending) => {
                if ending == Ending::Close {
                    let (watermark, panes) = (UnixSeconds::MAX, self.close_all());
                    watch.lap(Stage::Contacts, 0);
                    let panes = ShardPanes { shard_index, watermark, arrived: None, panes };
                    out(FromShard::ToJudge(ToJudge::Panes(panes)));
                }
                out(FromShard::ToJudge(ToJudge::End(ending)));
            }
        }
    }

    /// Adds the rows that this shard owns.
    pub(super) fn add(&mut self, routed: &RoutedBatch, watch: &mut Stopwatch) {
        self.tops.add(routed, self.shard_index);
        watch.lap(Stage::Tops, 0);
        if let Some(contacts) = &mut self.contacts {
            contacts.add(&routed.batch, routed.contact_rows(self.shard_index));
            watch.lap(Stage::Contacts, 0);
        }
    }

    /// The panes that are complete at `watermark`, oldest first.
    pub(super) fn close_until(&mut self, watermark: UnixSeconds) -> Vec<PaneContacts> {
        self.contacts.as_mut().map_or_else(Vec::new, |contacts| contacts.close_until(watermark))
    }

    /// The panes that are still open, at the end of the stream.
    pub(super) fn close_all(&mut self) -> Vec<PaneContacts> {
        self.contacts.as_mut().map_or_else(Vec::new, ContactTable::close_all)
    }

    /// This shard's part of the tops.
    pub(super) fn into_tops(self) -> TopSet {
        self.tops
    }

    /// About as many bytes as the shard takes when it is saved.
    pub(super) fn saved_bytes(&self) -> usize {
        self.tops.saved_bytes() + self.contacts.as_ref().map_or(0, ContactTable::saved_bytes)
    }

    fn save(&self, epoch: Epoch, spares: Vec<Vec<u8>>) -> SavedPart {
        let mut saved = Encoder::with_spares(spares);
        self.tops.save(&mut saved);
        saved.option(self.contacts.as_ref(), |saved, contacts| contacts.save(saved));
        SavedPart::new(epoch, PartName::Shard(self.shard_index), saved)
    }
}
