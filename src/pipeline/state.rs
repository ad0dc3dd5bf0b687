//! A state shard: the tables of the keys that it owns.
//!
//! Gets routed batches, watermarks and barriers in stream order; hands over the contacts of panes that are
//! complete, its saved state at a barrier, and at the end its part of the tops. Nothing here is shared or locked.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Ending, Epoch, PartName, SavedPart, ShardPanes, ToJudge, ToShard};
use crate::aggregate::{ContactTable, FlowSizes, RoutedBatch, ShardTalkers, TopSet};
use crate::codec::{DecodeError, Decoder, Encoder, SEGMENT_BYTES};
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
    tables: Tables,
}

/// What a shard keeps.
pub(super) struct Tables {
    pub(super) tops: TopSet,
    pub(super) contacts: Option<ContactTable>,
    /// If there are tops of windows.
    pub(super) talkers: Option<ShardTalkers>,
    /// How large flows are; not if nothing but totals is wanted.
    pub(super) sizes: Option<FlowSizes>,
}

impl StateShard {
    pub(super) const fn new(shard_index: usize, tables: Tables) -> Self {
        Self { shard_index, tables }
    }

    /// The tables, to be filled with those of other shards.
    pub(super) const fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
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
                let panes = self.close_until(watermark, Some(arrived));
                watch.lap(Stage::Contacts, 0);
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
                    let panes = self.close_all();
                    watch.lap(Stage::Contacts, 0);
                    out(FromShard::ToJudge(ToJudge::Panes(panes)));
                }
                out(FromShard::ToJudge(ToJudge::End(ending)));
            }
        }
    }

    /// Adds the rows that this shard owns.
    pub(super) fn add(&mut self, routed: &RoutedBatch, watch: &mut Stopwatch) {
        let Tables { tops, contacts, talkers, sizes } = &mut self.tables;
        tops.add(routed, self.shard_index);
        if let Some(sizes) = sizes {
            sizes.add(routed, self.shard_index);
        }
        if let Some(talkers) = talkers {
            talkers.add(routed, self.shard_index);
        }
        watch.lap(Stage::Tops, 0);
        if let Some(contacts) = contacts {
            contacts.add(&routed.batch, routed.contact_rows(self.shard_index));
            watch.lap(Stage::Contacts, 0);
        }
    }

    /// The panes that are complete at `watermark`, oldest first.
    fn close_until(&mut self, watermark: UnixSeconds, arrived: Option<Duration>) -> ShardPanes {
        let Tables { contacts, talkers, .. } = &mut self.tables;
        let contacts = contacts.as_mut().map(|contacts| contacts.close_until(watermark));
        let talkers = talkers.as_mut().map(|talkers| talkers.close_until(watermark));
        ShardPanes {
            shard_index: self.shard_index,
            watermark,
            arrived,
            panes: contacts.unwrap_or_default(),
            talkers: talkers.unwrap_or_default(),
        }
    }

    /// The panes that are still open, at the end of the stream.
    fn close_all(&mut self) -> ShardPanes {
        let Tables { contacts, talkers, .. } = &mut self.tables;
        ShardPanes {
            shard_index: self.shard_index,
            watermark: UnixSeconds::MAX,
            arrived: None,
            panes: contacts.as_mut().map_or_else(Vec::new, ContactTable::close_all),
            talkers: talkers.as_mut().map_or_else(Vec::new, ShardTalkers::close_all),
        }
    }

    /// This shard's part of the tops, and of how large flows are.
    pub(super) fn into_tops(self) -> (TopSet, Option<FlowSizes>) {
        (self.tables.tops, self.tables.sizes)
    }

    /// About as many bytes as the shard takes when it is saved.
    pub(super) fn saved_bytes(&self) -> usize {
        let Tables { tops, contacts, talkers, sizes } = &self.tables;
        tops.saved_bytes()
            + contacts.as_ref().map_or(0, ContactTable::saved_bytes)
            + talkers.as_ref().map_or(0, ShardTalkers::saved_bytes)
            + sizes.as_ref().map_or(0, FlowSizes::bytes)
    }

    fn save(&self, epoch: Epoch, spares: Vec<Vec<u8>>) -> SavedPart {
        let mut saved = Encoder::with_spares(spares);
        self.tables.save(&mut saved);
        SavedPart::new(epoch, PartName::Shard(self.shard_index), saved)
    }
}

impl Tables {
    fn save(&self, out: &mut Encoder) {
        let Self { tops, contacts, talkers, sizes } = self;
        tops.save(out);
        out.option(contacts.as_ref(), |out, contacts| contacts.save(out));
        out.version(1);
        out.option(sizes.as_ref(), |out, sizes| sizes.save(out));
        out.option(talkers.as_ref(), |out, talkers| talkers.save(out));
    }

    /// Reads what stands behind tops and contacts: nothing in snapshots that knew no sizes, whose flows are then
    /// counted from now on.
    ///
    /// # Errors
    /// If it is something else, or talkers of which `load_talkers` can make nothing.
    pub(super) fn load_rest(
        &mut self,
        from: &mut Decoder<'_>,
        load_talkers: impl FnOnce(&mut Decoder<'_>) -> Result<ShardTalkers, DecodeError>,
    ) -> Result<(), DecodeError> {
        if from.is_at_end() {
            return Ok(());
        }
        from.version("the rest of a shard", 1..=1)?;
        let sizes = from.option(FlowSizes::load)?;
        let talkers = from.option(load_talkers)?;
        if talkers.is_some() != self.talkers.is_some() {
            return Err(DecodeError::Invalid("talkers"));
        }
        if self.sizes.is_some() {
            self.sizes = sizes.or_else(|| self.sizes.take());
        }
        self.talkers = talkers;
        Ok(())
    }
}
