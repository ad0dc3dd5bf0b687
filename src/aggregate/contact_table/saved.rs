//! The table as bytes, and its open panes spread over another number of shards.

use super::{ContactTable, OpenPane};
use crate::aggregate::contact::ContactKey;
use crate::aggregate::contact_importance::Importance;
use crate::aggregate::contact_pane::PaneContacts;
use crate::aggregate::interface_tallies::InterfaceTallies;
use crate::aggregate::place::{PlaceIds, Places};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::PaneIndex;

/// The first form has no tallies of interfaces.
const VERSION: u16 = 2;

impl ContactTable {
    /// Writes the table.
    pub fn save(&self, out: &mut Encoder) {
        out.version(VERSION);
        out.i64(self.pane_seconds);
        out.u64(self.seed);
        out.i64(self.open_from.0);
        out.u64(self.late_rows);
        out.u64(self.refused_rows);
        out.u64(self.evicted_contacts);
        out.count(self.rows_unmeasured);
        out.count(self.limits.overrun_bytes);
        out.option(self.importance.as_ref(), |out, importance| importance.save(out));
        out.count(self.place_lists.len());
        self.place_lists.iter().for_each(|places| places.save(out));
        out.count(self.open.len());
        for open in &self.open {
            out.count(open.place_list);
            open.contacts.save_contacts(out);
            open.contacts.tallies.save(out);
        }
    }

    /// Reads a table, which goes on as the one that was written would have, if `bytes_max` is the same; a
    /// table that is too large for it shrinks before its next record. Hashes keep their seed.
    ///
    /// # Errors
    /// If the bytes are no table for panes of `pane_seconds`.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    pub fn load(
        pane_seconds: i64,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let form = from.version("the contacts of a shard", 1..=VERSION)?;
        if from.i64()? != pane_seconds {
            return Err(DecodeError::Invalid("length of a pane"));
        }
        let seed = from.u64()?;
        let mut table = Self::new(pane_seconds, seed, bytes_max);
        table.open_from = PaneIndex(from.i64()?);
        table.late_rows = from.u64()?;
        table.refused_rows = from.u64()?;
        table.evicted_contacts = from.u64()?;
        let rows_unmeasured = usize::try_from(from.u64()?).unwrap_or(0);
        table.rows_unmeasured = rows_unmeasured.min(table.limits.rows_unmeasured(0));
        table.limits.overrun_bytes = usize::try_from(from.u64()?).unwrap_or(0);
        table.importance = from.option(|from| Importance::load(seed, from))?;
        table.place_lists.clear();
        for _ in 0..from.count(size_of::<u64>() * 2)? {
            let places = Places::load(seed, table.limits.place_list_bytes, from)?;
            table.place_lists.push(places);
        }
        for _ in 0..from.count(size_of::<u64>() * 2)? {
            let open = table.load_pane(form, from)?;
            table.open.push(open);
        }
        if table.place_lists.is_empty() {
            return Err(DecodeError::Invalid("list of places"));
        }
        Ok(table)
    }

    fn load_pane(&self, form: u16, from: &mut Decoder<'_>) -> Result<OpenPane, DecodeError> {
        let place_list = usize::try_from(from.u64()?).unwrap_or(usize::MAX);
        let places = self.place_lists.get(place_list);
        let place_count = places.ok_or(DecodeError::Invalid("list of places"))?.names().len();
        let mut contacts = PaneContacts::load_contacts(
            self.pane_seconds,
            place_count,
            self.limits.open_bytes,
            &self.spares,
            from,
        )?;
        if form > 1 {
            contacts.load_tallies(place_count, self.limits.tallied_max, from)?;
        } else {
            contacts.tallies =
                InterfaceTallies::new(contacts.pane, self.pane_seconds, self.limits.tallied_max);
        }
        let is_known = |open: &OpenPane| open.contacts.pane == contacts.pane;
        let is_valid = contacts.seed == self.seed
            && contacts.pane >= self.open_from
            && !self.open.iter().any(is_known);
        if is_valid {
            Ok(OpenPane { contacts, place_list })
        } else {
            Err(DecodeError::Invalid("pane"))
        }
    }

    /// Takes those contacts of a pane that `owns` says are this shard's: how the open panes of another number
    /// of shards, or of other processes, become this table's. A shard owns the addresses of which it
    /// is the [`pair_owner`](crate::aggregate::pair_owner). The counts of what left the pane and those of interfaces go to
    /// one shard only, the one that `takes_counts`.
    ///
    /// # Panics
    /// If the pane has another length, or was handed over already.
    pub fn absorb(
        &mut self,
        pane: &PaneContacts,
        takes_counts: bool,
        owns: impl Fn(&ContactKey) -> bool,
    ) {
        assert_eq!(pane.pane_seconds, self.pane_seconds);
        assert!(pane.pane >= self.open_from, "the pane is still open");
        let position = self.open_position(pane.pane);
        let OpenPane { contacts, place_list } = &mut self.open[position as usize];
        let list = &mut self.place_lists[*place_list];
        let numbers: Vec<Option<u32>> = pane
            .places
            .iter()
            .map(|place| {
                let hash = list.hash(&place);
                list.id_of(hash, list.prefetch_likely(hash), &place)
            })
            .collect();
        let names = list.names();
        let number_of = |id: u32| numbers[id as usize];
        let renumbered = |ids: PlaceIds| ids.renumbered(names, number_of);
        contacts.contacts.absorb(&pane.contacts, names, renumbered, owns);
        contacts.newest_end = contacts.newest_end.max(pane.newest_end);
        if takes_counts {
            contacts.tallies.merge(&pane.tallies, number_of);
            contacts.note_rows_of(pane);
            self.refused_rows += pane.refused_rows;
            self.evicted_contacts += pane.evicted_contacts;
        }
        self.rows_unmeasured = 0;
    }

    /// The open panes by themselves, in no order, for [`Self::absorb`].
    #[must_use]
    pub fn into_open_panes(mut self) -> Vec<PaneContacts> {
        let place_lists = &self.place_lists;
        let open = std::mem::take(&mut self.open).into_iter();
        open.map(|open| open.with_places(place_lists)).collect()
    }
}
