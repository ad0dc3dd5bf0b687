//! A state shard: the tables of the keys that it owns.
//!
//! Gets routed batches and watermarks in stream order; hands over the contacts of panes that are complete,
//! and at the end its part of the tops. Nothing here is shared or locked.

use crate::aggregate::{ContactTable, PaneContacts, RoutedBatch, TopSet, TopSpec};
use crate::metrics::{Stage, Stopwatch};
use crate::units::UnixSeconds;

/// One shard of the state.
pub(super) struct StateShard {
    shard_index: usize,
    tops: TopSet,
    contacts: Option<ContactTable>,
}

impl StateShard {
    pub(super) fn new(
        shard_index: usize,
        tops: &[TopSpec],
        contacts: Option<ContactTable>,
        seed: u64,
    ) -> Self {
        Self { shard_index, tops: TopSet::new(tops, seed, usize::MAX), contacts }
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
}
