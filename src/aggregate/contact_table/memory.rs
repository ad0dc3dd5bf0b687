//! How much memory a table takes, and what it does when that is too much.

use super::{ContactTable, OpenPane, ROWS_AHEAD};
use crate::aggregate::contact_importance::Importance;
use crate::aggregate::contact_index::NUMBERS_MAX;
use crate::aggregate::contact_pane::{Lost, PaneContacts, thin};
use crate::aggregate::interface_tallies::InterfaceTallies;
use crate::aggregate::place::Places;

/// The least that a table is made for.
const BYTES_MIN: usize = 1 << 20;

/// How often a pane that is handed over is made smaller.
const THINNINGS_MAX: usize = 4;

/// How much memory each part of a table may take, in bytes; see [`ContactTable::new`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: usize,
    pub(super) open_bytes: usize,
    /// For one pane.
    closed_pane_bytes: usize,
    /// For panes that were handed over, and spares.
    pub(super) handed_over_bytes: usize,
    importance_bytes: usize,
    /// For one list; usually there is one, or an old one and a new one.
    pub(super) place_list_bytes: usize,
    /// How many places a pane counts rows of: their tallies take up to a thirty-second of `open_bytes`.
    pub(super) tallied_max: usize,
    /// Instead of `open_bytes` where panes by themselves take more; 0 where not.
    pub(super) overrun_bytes: usize,
}

impl Limits {
    pub(super) fn of(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(BYTES_MIN);
        Self {
            bytes_max,
            open_bytes: bytes_max / 8 * 3,
            closed_pane_bytes: bytes_max / 8,
            handed_over_bytes: bytes_max / 8 * 3,
            importance_bytes: bytes_max / 8,
            place_list_bytes: bytes_max / 32,
            tallied_max: InterfaceTallies::places_in(bytes_max / 8 * 3 / 16),
            overrun_bytes: 0,
        }
    }

    /// How many rows fit for sure if open panes take `bytes`: each step of a list's growth doubles it at most,
    /// and no row takes more than 2 KiB beyond that.
    pub(super) const fn rows_unmeasured(&self, bytes: usize) -> usize {
        self.open_bytes.saturating_sub(bytes.saturating_mul(2)) / 2048
    }
}

impl ContactTable {
    /// Memory held, in bytes, without that of panes that were handed over.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let open: usize = self.open.iter().map(OpenPane::bytes).sum();
        let places: usize = self.place_lists.iter().map(Places::bytes).sum();
        let importance = self.importance.as_ref().map_or(0, Importance::bytes);
        let [spare, _] = self.spares.bytes();
        open + places + importance + spare
    }

    /// At least as many bytes as it takes when it is saved, and not many more: indexes are made anew.
    #[must_use]
    pub fn saved_bytes(&self) -> usize {
        let open: usize = self.open.iter().map(OpenPane::bytes).sum();
        let places: usize = self.place_lists.iter().map(Places::bytes).sum();
        open + places + self.importance.as_ref().map_or(0, Importance::bytes)
    }

    /// Memory of panes that were handed over and are still alive, in bytes, as it was then.
    #[must_use]
    pub fn bytes_handed_over(&self) -> usize {
        self.spares.bytes()[1]
    }

    /// Measures memory, and lets contacts leave if there is too much.
    #[cold]
    pub(super) fn measure(&mut self) {
        let mut bytes = self.open_bytes_needed();
        let longest = self.open.iter().map(|open| open.contacts.contacts.len()).max();
        let has_numbers = longest.unwrap_or(0) + ROWS_AHEAD <= NUMBERS_MAX;
        if bytes <= self.limits.open_bytes.max(self.limits.overrun_bytes) && has_numbers {
            self.rows_unmeasured = self.limits.rows_unmeasured(bytes);
            return;
        }
        for _ in 0..THINNINGS_MAX {
            self.thin_open(bytes);
            bytes = self.open_bytes_needed();
            if bytes <= self.limits.open_bytes / 8 * 7 {
                self.limits.overrun_bytes = 0;
                return;
            }
        }
        // Panes take some memory each, whatever they hold. Where that is too much in itself, nothing is gained
        // by thinning them again for every row.
        self.limits.overrun_bytes = bytes + bytes / 4;
    }

    /// Memory that open panes need for the next rows too, in bytes.
    fn open_bytes_needed(&self) -> usize {
        let open = self.open.iter().map(|OpenPane { contacts, place_list }| {
            let place_count = self.place_lists[*place_list].names().len() + ROWS_AHEAD;
            contacts.contacts.bytes_needed(ROWS_AHEAD) + contacts.tallies.bytes_needed(place_count)
        });
        open.sum()
    }

    /// Lets half of what open panes hold leave.
    fn thin_open(&mut self, bytes: usize) {
        let kept = (self.limits.open_bytes / 2).min(bytes / 2) as u64;
        let importance = self
            .importance
            .get_or_insert_with(|| Importance::new(self.seed, self.limits.importance_bytes));
        let mut panes: Vec<&mut PaneContacts> =
            self.open.iter_mut().map(|open| &mut open.contacts).collect();
        panes.sort_unstable_by_key(|pane| pane.pane);
        let lost = thin(&mut panes, importance, (kept << 16) / bytes as u64);
        self.note_lost(lost);
    }

    const fn note_lost(&mut self, Lost { contacts, rows }: Lost) {
        self.evicted_contacts += contacts;
        self.refused_rows += rows;
    }

    /// Lets contacts of a pane leave that takes more than those that are handed over may.
    pub(super) fn thin_closed(&mut self, pane: &mut PaneContacts) {
        let bytes_max = self.limits.closed_pane_bytes;
        // Once is not always enough, because memory doesn't shrink in step with the contacts.
        for _ in 0..THINNINGS_MAX {
            let bytes = pane.contacts.bytes_needed(0);
            if bytes <= bytes_max {
                return;
            }
            let importance = self
                .importance
                .get_or_insert_with(|| Importance::new(self.seed, self.limits.importance_bytes));
            let lost =
                thin(&mut [&mut *pane], importance, ((bytes_max as u64) << 16) / bytes as u64);
            self.note_lost(lost);
        }
    }
}
