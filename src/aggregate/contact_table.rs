//! The contacts of one shard: a set per open pane, handed over when the watermark has passed.
//!
//! Rows come from the router, which sends all rows of an address pair to one shard ([`pair_hash`]);
//! closed panes go to the detect stage, which merges those of all shards. Rows are taken a few at a time:
//! first their keys are hashed and the memory that they will need is asked for, then they are added, so
//! that the processor waits for many rows at once. A contact takes 64 bytes and 4 to 10 bytes of index.
//! Beside them stand 24 to 130 bytes where not all fits (IPv6, many
//! client ports, two points of view), and 272 for counts that need 64 bits.

mod memory;
mod saved;

use std::sync::Arc;

use super::contact::{Contact, ContactKey};
use super::contact_hash::KeyHasher;
use super::contact_importance::Importance;
use super::contact_index::FreeEntry;
use super::contact_pane::PaneContacts;
use super::contact_plain::{PlainColumns, PlainRow};
use super::contact_row::{Columns, ContactRow, SilenceRow};
use super::contact_slot::{NarrowKey, Sent};
use super::contact_spares::Spares;
use super::place::{PlaceRef, Places};
use super::table::spread;
use crate::net::Addr;
use crate::record::FlowBatch;
use crate::units::{PaneIndex, UnixSeconds};
use memory::Limits;

/// Memory that a table may take, unless told otherwise: for some 8 million contacts in open panes.
pub const CONTACT_BYTES_DEFAULT: usize = 1536 << 20;

const _: () = assert!(size_of::<Contact>() <= 272);

/// How many rows are prepared before they are added.
const ROWS_AHEAD: usize = 64;

/// A hash of an address pair that is the same in both directions.
#[must_use]
pub fn pair_hash(src: Addr, dst: Addr, seed: u64) -> u64 {
    let (low, high) = if src <= dst { (src, dst) } else { (dst, src) };
    fold(high.bits() ^ u128::from(fold(low.bits() ^ u128::from(seed))))
}

/// Both halves of a number, spread.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn fold(bits: u128) -> u64 {
    spread((bits as u64) ^ ((bits >> 64) as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// The contacts of one shard.
#[derive(Debug)]
pub struct ContactTable {
    pane_seconds: i64,
    limits: Limits,
    seed: u64,
    hasher: KeyHasher,
    /// How [`UnixSeconds::pane`] divides.
    divider: PaneDivider,
    /// In no order.
    open: Vec<OpenPane>,
    /// Lists of places; new panes take the last one.
    place_lists: Vec<Places>,
    /// Where in `open` the pane was that had these last bits.
    positions: [u8; 64],
    /// Rows that surely fit before memory is measured again.
    rows_unmeasured: usize,
    /// What clients did, once memory was short.
    importance: Option<Importance>,
    /// Panes before this one have been handed over.
    open_from: PaneIndex,
    late_rows: u64,
    refused_rows: u64,
    evicted_contacts: u64,
    spares: Arc<Spares>,
    prepared: Vec<Prepared>,
    /// Which rows of the batch lack values.
    lacking: Vec<u64>,
}

#[derive(Debug)]
struct OpenPane {
    contacts: PaneContacts,
    /// Which of the lists the contacts' places refer to.
    place_list: usize,
}

impl OpenPane {
    /// Memory held, in bytes, without the list of places.
    fn bytes(&self) -> usize {
        self.contacts.contacts.bytes() + self.contacts.tallies.bytes()
    }

    /// The pane with the list that its contacts' places refer to.
    fn with_places(self, place_lists: &[Places]) -> PaneContacts {
        let Self { mut contacts, place_list } = self;
        contacts.places = Arc::clone(place_lists[place_list].names());
        contacts
    }
}

/// A key as it is looked for.
struct PreparedKey {
    hash: u64,
    /// Of no meaning if `is_wide`.
    key: NarrowKey,
    is_wide: bool,
}

/// A row whose memory was asked for.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    hash: u64,
    place_hash: u64,
    sent: Sent,
    /// Of no meaning if `is_wide`.
    key: NarrowKey,
    is_wide: bool,
    /// The contact that may have the key, or where a new one goes.
    likely: Result<u32, FreeEntry>,
    /// The place that may be the row's.
    likely_place: Option<u32>,
    row: u32,
    open_position: u32,
    is_stray: bool,
}

impl ContactTable {
    /// An empty table that takes up to `bytes_max` bytes of memory, at least 1 MiB.
    ///
    /// That holds together with the panes that were handed over and are still alive, if those are not more than
    /// three; of each share there is: three eighths for open panes; as much for panes that were handed over and
    /// for memory that is kept for further ones; the rest for what is remembered of clients, for places, and
    /// for work. When open panes are about to take more, half of what they have leaves, least important
    /// contacts first (`contact_importance.rs`); and so does what a pane that is handed over has beyond an eighth.
    /// What left is counted, and its rows are as if they had never come.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub fn new(pane_seconds: i64, seed: u64, bytes_max: usize) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        let limits = Limits::of(bytes_max);
        Self {
            pane_seconds,
            limits,
            seed,
            hasher: KeyHasher::new(seed),
            divider: PaneDivider::new(pane_seconds),
            open: Vec::new(),
            place_lists: vec![Places::new(seed, limits.place_list_bytes)],
            positions: [0; 64],
            rows_unmeasured: 0,
            importance: None,
            open_from: PaneIndex(i64::MIN),
            late_rows: 0,
            refused_rows: 0,
            evicted_contacts: 0,
            spares: Arc::new(Spares::new(limits.handed_over_bytes, limits.bytes_max)),
            prepared: Vec::new(),
            lacking: Vec::new(),
        }
    }

    /// Counts rows that are about to come, and makes room for them if it may be missing.
    #[inline]
    fn expect_rows(&mut self, count: usize) {
        match self.rows_unmeasured.checked_sub(count) {
            Some(left) => self.rows_unmeasured = left,
            None => self.measure(),
        }
    }

    /// Adds those of `rows` that stand for traffic between two addresses at a known time; NODATA,
    /// SKIPDATA are only counted for their interface, and rows without addresses are passed over.
    pub fn add(&mut self, batch: &FlowBatch, rows: impl IntoIterator<Item = usize>) {
        let Some(columns) = Columns::of(batch) else { return };
        let mut lacking = std::mem::take(&mut self.lacking);
        let mut prepared = std::mem::take(&mut self.prepared);
        let plain = PlainColumns::of(batch, &mut lacking);
        let mut rows = rows.into_iter();
        loop {
            self.prepare_some(&columns, plain.as_ref(), &mut rows, &mut prepared);
            if prepared.is_empty() {
                break;
            }
            self.prefetch(&mut prepared);
            for row in &prepared {
                let number = row.row as usize;
                let wide_key = || columns.row(number).expect("it was read before").sent().0;
                self.apply(row, wide_key, || columns.place(number));
            }
            prepared.clear();
        }
        self.prepared = prepared;
        self.lacking = lacking;
    }

    /// Counts a record that stands for no traffic.
    pub fn add_silence(&mut self, row: &SilenceRow<'_>) {
        let pane = self.divider.pane(row.end);
        if pane < self.open_from {
            self.late_rows += 1;
            return;
        }
        self.expect_rows(1);
        let position = self.open_position(pane);
        let OpenPane { contacts: open, place_list } = &mut self.open[position as usize];
        open.newest_end = open.newest_end.max(row.end);
        let places = &mut self.place_lists[*place_list];
        let place = row.place();
        let hash = places.hash(&place);
        if hash != 0 {
            let id = places.id_of(hash, places.prefetch_likely(hash), &place);
            open.tallies.add_silence(id, row.silence, row.start, row.end);
        }
    }

    /// Adds one record, which was routed by its addresses.
    pub fn add_row(&mut self, row: &ContactRow<'_>) {
        self.expect_rows(1);
        let mut prepared = std::mem::take(&mut self.prepared);
        self.prepare_row(row, 0, false, &mut prepared);
        self.prefetch(&mut prepared);
        for prepared in prepared.drain(..) {
            self.apply(&prepared, || row.sent().0, || row.place());
        }
        self.prepared = prepared;
    }

    /// Prepares as many of the next rows as are taken at once.
    fn prepare_some(
        &mut self,
        columns: &Columns<'_>,
        plain: Option<&PlainColumns<'_>>,
        rows: &mut impl Iterator<Item = usize>,
        prepared: &mut Vec<Prepared>,
    ) {
        self.expect_rows(ROWS_AHEAD);
        for row in rows {
            if let Some(PlainRow { key, sent, is_stray }) = plain.and_then(|plain| plain.row(row)) {
                let hash = self.hasher.narrow(&key);
                let key = PreparedKey { hash, key, is_wide: false };
                self.prepare(key, &sent, &columns.place(row), row, is_stray, prepared);
            } else if let Some(contact_row) = columns.row(row) {
                let is_stray = columns.is_stray(&contact_row, row);
                self.prepare_row(&contact_row, row, is_stray, prepared);
            } else if let Some(silence) = columns.silence(row) {
                self.add_silence(&silence);
            }
            if prepared.len() == ROWS_AHEAD {
                break;
            }
        }
    }

    /// As [`Self::prepare`], for any row.
    #[inline(never)]
    fn prepare_row(
        &mut self,
        row: &ContactRow<'_>,
        row_number: usize,
        is_stray: bool,
        prepared: &mut Vec<Prepared>,
    ) {
        let (key, sent) = row.sent();
        let key = match NarrowKey::of(&key) {
            Some(key) => PreparedKey { hash: self.hasher.narrow(&key), key, is_wide: false },
            None => PreparedKey {
                hash: self.hasher.wide(&key),
                key: NarrowKey::default(),
                is_wide: true,
            },
        };
        self.prepare(key, &sent, &row.place(), row_number, is_stray, prepared);
    }

    /// Asks for the memory where the key and the place of a row will be looked for, unless it is late.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a row handed over in memory costs 3 ns more")]
    fn prepare(
        &mut self,
        PreparedKey { hash, key, is_wide }: PreparedKey,
        sent: &Sent,
        place: &PlaceRef<'_>,
        row_number: usize,
        is_stray: bool,
        prepared: &mut Vec<Prepared>,
    ) {
        let pane = self.divider.pane(sent.end);
        if pane < self.open_from {
            self.late_rows += 1;
            return;
        }
        let open_position = self.open_position(pane);
        let open = &self.open[open_position as usize];
        open.contacts.contacts.prefetch(hash);
        let place_hash = self.place_lists[open.place_list].hash(place);
        let row = u32::try_from(row_number).expect("a batch has far fewer than 2^32 rows");
        prepared.push(Prepared {
            hash,
            place_hash,
            sent: *sent,
            key,
            is_wide,
            likely: Err(FreeEntry::default()),
            likely_place: None,
            row,
            open_position,
            is_stray,
        });
    }

    /// Asks for the memory that rows will be compared with and added to.
    fn prefetch(&self, prepared: &mut [Prepared]) {
        for row in prepared.iter_mut() {
            let open = &self.open[row.open_position as usize];
            row.likely = open.contacts.contacts.prefetch_likely(row.hash);
            row.likely_place = self.place_lists[open.place_list].prefetch_likely(row.place_hash);
            if let Some(place) = row.likely_place {
                open.contacts.tallies.prefetch(place);
            }
        }
        for row in prepared {
            if let Ok(likely) = row.likely {
                let open = &self.open[row.open_position as usize];
                open.contacts.contacts.prefetch_beside(likely);
            }
        }
    }

    #[inline]
    fn apply<'a>(
        &mut self,
        row: &Prepared,
        wide_key: impl FnOnce() -> ContactKey,
        place: impl FnOnce() -> PlaceRef<'a>,
    ) {
        let OpenPane { contacts: open, place_list } = &mut self.open[row.open_position as usize];
        open.newest_end = open.newest_end.max(row.sent.end);
        let number = if row.is_wide {
            open.contacts.add_wide(row.hash, wide_key(), &row.sent)
        } else {
            open.contacts.add_narrow(row.hash, row.likely, row.key, &row.sent)
        };
        if row.is_stray {
            open.contacts.mark_stray(number);
        }
        let places = &mut self.place_lists[*place_list];
        if row.place_hash != 0 {
            let id = places.id_of(row.place_hash, row.likely_place, &place());
            let NarrowKey { client, server, .. } = row.key;
            let ends = if row.sent.from_client { [client, server] } else { [server, client] };
            open.tallies.add(id, &row.sent, (!row.is_wide).then_some(ends));
            if let Some(id) = id {
                open.contacts.add_place(number, id, places.names());
            }
        }
    }

    /// Where the pane is in `open`; it is opened if need be.
    #[inline]
    fn open_position(&mut self, pane: PaneIndex) -> u32 {
        let slot = usize::try_from(pane.0.rem_euclid(64)).expect("below 64");
        let likely = self.positions[slot];
        let is_it = |open: &OpenPane| open.contacts.pane == pane;
        if !self.open.get(usize::from(likely)).is_some_and(is_it) {
            let position = self.open.iter().position(is_it);
            let position = position.unwrap_or_else(|| {
                let new_pane = self.new_pane(pane);
                self.open.push(new_pane);
                self.open.len() - 1
            });
            let Ok(near) = u8::try_from(position) else {
                return u32::try_from(position).expect("panes are opened one after the other");
            };
            self.positions[slot] = near;
            return near.into();
        }
        likely.into()
    }

    fn new_pane(&mut self, pane: PaneIndex) -> OpenPane {
        if self.place_lists.last().is_none_or(Places::is_old) {
            self.place_lists.push(Places::new(self.seed, self.limits.place_list_bytes));
        }
        let count_hint = self.open.iter().map(|open| open.contacts.contacts.len()).max();
        let count_hint = count_hint.unwrap_or(0);
        let sizes = (count_hint, self.limits.tallied_max);
        let contacts = PaneContacts::new(pane, self.pane_seconds, self.seed, sizes, &self.spares);
        self.rows_unmeasured = 0;
        OpenPane { contacts, place_list: self.place_lists.len() - 1 }
    }

    /// Hands over the panes that end at or before `watermark`, oldest first; rows that come for them
    /// afterwards are counted as late.
    pub fn close_until(&mut self, watermark: UnixSeconds) -> Vec<PaneContacts> {
        self.open_from = self.open_from.max(watermark.pane(self.pane_seconds));
        let open_from = self.open_from;
        let place_lists = &self.place_lists;
        let mut closed: Vec<PaneContacts> = self
            .open
            .extract_if(.., |open| open.contacts.pane < open_from)
            .map(|open| open.with_places(place_lists))
            .collect();
        self.drop_unused_place_lists();
        closed.sort_unstable_by_key(|closed| closed.pane);
        for pane in &mut closed {
            self.thin_closed(pane);
            pane.contacts.hand_over();
        }
        closed
    }

    fn drop_unused_place_lists(&mut self) {
        let newest = self.place_lists.len() - 1;
        let oldest = self.open.iter().map(|open| open.place_list).min().unwrap_or(newest);
        self.place_lists.drain(..oldest);
        self.open.iter_mut().for_each(|open| open.place_list -= oldest);
    }

    /// Hands over every pane: the stream has ended.
    pub fn close_all(&mut self) -> Vec<PaneContacts> {
        match self.open.iter().map(|open| open.contacts.pane).max() {
            Some(last) => self.close_until(last.end(self.pane_seconds)),
            None => Vec::new(),
        }
    }

    /// The watermark that the last [`Self::close_until`] reached lies in or after this pane.
    #[must_use]
    pub const fn open_from(&self) -> PaneIndex {
        self.open_from
    }

    /// Takes no rows for panes before this one any more, of which none may be open.
    ///
    /// # Panics
    /// If one is.
    pub fn open_only_from(&mut self, pane: PaneIndex) {
        assert!(self.open.iter().all(|open| open.contacts.pane >= pane), "they are handed over");
        self.open_from = self.open_from.max(pane);
    }

    /// What hashes hang on.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Contacts kept.
    #[must_use]
    pub fn contact_count(&self) -> usize {
        self.open.iter().map(|open| open.contacts.contacts.len()).sum()
    }

    /// Rows that came after their pane was handed over.
    #[must_use]
    pub const fn late_rows(&self) -> u64 {
        self.late_rows
    }

    /// Rows whose contacts had to leave.
    #[must_use]
    pub const fn refused_rows(&self) -> u64 {
        self.refused_rows
    }

    /// Contacts that had to leave.
    #[must_use]
    pub const fn evicted_contacts(&self) -> u64 {
        self.evicted_contacts
    }
}

/// Division by the length of a pane as a multiplication: a 64-bit division for each record shows.
#[derive(Clone, Copy, Debug)]
struct PaneDivider {
    pane_seconds: i64,
    /// 2^64 / `pane_seconds`, rounded up, if both factors have 32 bits: then the product's upper half is
    /// the exact quotient (Lemire, Kaser, Kurz: Faster remainder by direct computation, 2019).
    reciprocal: Option<u64>,
}

impl PaneDivider {
    fn new(pane_seconds: i64) -> Self {
        let reciprocal = match u32::try_from(pane_seconds) {
            Ok(seconds @ 2..) => Some(u64::MAX / u64::from(seconds) + 1),
            _ => None,
        };
        Self { pane_seconds, reciprocal }
    }

    #[inline]
    fn pane(&self, moment: UnixSeconds) -> PaneIndex {
        match (self.reciprocal, u32::try_from(moment.0)) {
            (Some(reciprocal), Ok(seconds)) => {
                let product = u128::from(reciprocal) * u128::from(seconds);
                PaneIndex(i64::try_from(product >> 64).expect("it is less than `seconds`"))
            }
            _ => moment.pane(self.pane_seconds),
        }
    }
}

#[cfg(test)]
mod floods;
#[cfg(test)]
mod tests;
