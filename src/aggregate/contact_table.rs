//! The contacts of one shard: a set per open pane, handed over when the watermark has passed.
//!
//! Rows come from the router, which sends all rows of an address pair to one shard ([`pair_hash`]);
//! closed panes go to the detect stage, which merges those of all shards. Rows are taken a few at a time:
//! first their keys are hashed and the memory that they will need is asked for, then they are added, so
//! that the processor waits for many rows at once. A contact takes 64 bytes and 4 to 10 bytes of index,
//! so the default limit is some 600 MB. Beside them stand 24 to 130 bytes where not all fits (IPv6, many
//! client ports, two points of view), and 272 for counts that need 64 bits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::contact::{Contact, ContactKey};
use super::contact_hash::KeyHasher;
use super::contact_index::{FreeEntry, NUMBERS_MAX};
use super::contact_plain::{PlainColumns, PlainRow};
use super::contact_row::{Columns, ContactRow};
use super::contact_set::ContactSet;
use super::contact_slot::{NarrowKey, Sent};
use super::contact_spares::Spares;
use super::place::{Place, PlaceNames, PlaceRef, Places};
use super::table::spread;
use crate::net::Addr;
use crate::record::FlowBatch;
use crate::units::{PaneIndex, UnixSeconds};

/// How many contacts a table keeps over all open panes, unless told otherwise.
pub const CONTACTS_MAX_DEFAULT: usize = 8_000_000;

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

/// The contacts of one shard in one pane, ready to be merged with those of other shards.
#[derive(Debug)]
pub struct PaneContacts {
    /// The pane, in units of the table's pane length.
    pub pane: PaneIndex,
    /// Length of the pane.
    pub pane_seconds: i64,
    /// The contacts.
    pub contacts: ContactSet,
    /// What the contacts' places refer to.
    pub places: Arc<PlaceNames>,
    /// Latest `end` of a record in the pane.
    pub newest_end: UnixSeconds,
    /// Rows that found no room: if not 0, counts are lower bounds.
    pub refused_rows: u64,
    /// Numbers by place, once another shard's contact was moved here.
    place_numbers: HashMap<Place, u32>,
}

impl PaneContacts {
    /// Moves a contact to the set of another shard, where its key may be already.
    pub fn move_contact(&mut self, number: u32, to: &mut Self) {
        let mut taken = self.contacts.take(number);
        let numbers: Vec<(u32, Option<u32>)> = taken
            .contact
            .places
            .iter()
            .map(|id| (id, to.place_number(self.places.name(id))))
            .collect();
        let number_of =
            |id| numbers.iter().find(|(from, _)| *from == id).and_then(|(_, number)| *number);
        taken.contact.places = taken.contact.places.renumbered(&to.places, number_of);
        to.contacts.put(taken, &to.places);
    }

    /// The number of another shard's place.
    fn place_number(&mut self, place: PlaceRef<'_>) -> Option<u32> {
        if self.place_numbers.is_empty() {
            self.place_numbers.extend(self.places.iter().map(PlaceRef::to_place).zip(0..));
        }
        match self.place_numbers.entry(place.to_place()) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(unknown) => {
                let number = Arc::make_mut(&mut self.places).push(place)?;
                Some(*unknown.insert(number))
            }
        }
    }

    /// Takes for the client what was the server of these contacts. All are taken out before the first one
    /// is put in again, because they may take each other's keys.
    pub fn turn_contacts(&mut self, numbers: &[u32]) {
        let taken: Vec<_> = numbers.iter().map(|number| self.contacts.take(*number)).collect();
        for mut taken in taken {
            taken.key = taken.key.turned();
            taken.contact.flip();
            self.contacts.put(taken, &self.places);
        }
    }
}

/// The contacts of one shard.
#[derive(Debug)]
pub struct ContactTable {
    pane_seconds: i64,
    contacts_max: usize,
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
    contact_count: usize,
    /// Panes before this one have been handed over.
    open_from: PaneIndex,
    late_rows: u64,
    refused_rows: u64,
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
    /// An empty table with room for [`CONTACTS_MAX_DEFAULT`] contacts.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub fn new(pane_seconds: i64, seed: u64) -> Self {
        Self::with_contacts_max(pane_seconds, seed, CONTACTS_MAX_DEFAULT)
    }

    /// An empty table with room for `contacts_max` contacts over all open panes. When it is full,
    /// contacts that it has go on being counted and rows of new ones are refused and counted.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive, or `contacts_max` more than can be numbered (16 million).
    #[must_use]
    pub fn with_contacts_max(pane_seconds: i64, seed: u64, contacts_max: usize) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        assert!(contacts_max <= NUMBERS_MAX, "contacts have numbers of 24 bits");
        Self {
            pane_seconds,
            contacts_max,
            seed,
            hasher: KeyHasher::new(seed),
            divider: PaneDivider::new(pane_seconds),
            open: Vec::new(),
            place_lists: vec![Places::new(seed)],
            positions: [0; 64],
            contact_count: 0,
            open_from: PaneIndex(i64::MIN),
            late_rows: 0,
            refused_rows: 0,
            spares: Arc::default(),
            prepared: Vec::new(),
            lacking: Vec::new(),
        }
    }

    /// Adds those of `rows` that stand for traffic between two addresses at a known time; NODATA,
    /// SKIPDATA and rows without them are passed over.
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

    /// Adds one record, which was routed by its addresses.
    pub fn add_row(&mut self, row: &ContactRow<'_>) {
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
        for row in rows {
            if let Some(PlainRow { key, sent, is_stray }) = plain.and_then(|plain| plain.row(row)) {
                let hash = self.hasher.narrow(&key);
                let key = PreparedKey { hash, key, is_wide: false };
                self.prepare(key, &sent, &columns.place(row), row, is_stray, prepared);
            } else if let Some(contact_row) = columns.row(row) {
                let is_stray = columns.is_stray(&contact_row, row);
                self.prepare_row(&contact_row, row, is_stray, prepared);
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
        let may_begin = self.contact_count < self.contacts_max;
        let count_before = open.contacts.len();
        let number = if row.is_wide {
            open.contacts.add_wide(row.hash, wide_key(), &row.sent, may_begin)
        } else {
            open.contacts.add_narrow(row.hash, row.likely, row.key, &row.sent, may_begin)
        };
        let Some(number) = number else {
            open.refused_rows += 1;
            self.refused_rows += 1;
            return;
        };
        self.contact_count += open.contacts.len() - count_before;
        if row.is_stray {
            open.contacts.mark_stray(number);
        }
        let places = &mut self.place_lists[*place_list];
        if row.place_hash != 0
            && let Some(id) = places.id_of(row.place_hash, row.likely_place, &place())
        {
            open.contacts.add_place(number, id, places.names());
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
            self.place_lists.push(Places::new(self.seed));
        }
        let count_hint = self.open.iter().map(|open| open.contacts.contacts.len()).max();
        let contacts = PaneContacts {
            pane,
            pane_seconds: self.pane_seconds,
            contacts: ContactSet::new(
                self.hasher,
                pane.start(self.pane_seconds),
                count_hint.unwrap_or(0),
                &self.spares,
            ),
            places: Arc::default(),
            newest_end: UnixSeconds::MIN,
            refused_rows: 0,
            place_numbers: HashMap::new(),
        };
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
            .map(|OpenPane { mut contacts, place_list }| {
                contacts.places = Arc::clone(place_lists[place_list].names());
                contacts
            })
            .collect();
        self.drop_unused_place_lists();
        closed.sort_unstable_by_key(|closed| closed.pane);
        self.contact_count -= closed.iter().map(|pane| pane.contacts.len()).sum::<usize>();
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

    /// Contacts kept.
    #[must_use]
    pub const fn contact_count(&self) -> usize {
        self.contact_count
    }

    /// Rows that came after their pane was handed over.
    #[must_use]
    pub const fn late_rows(&self) -> u64 {
        self.late_rows
    }

    /// Rows that found the table full.
    #[must_use]
    pub const fn refused_rows(&self) -> u64 {
        self.refused_rows
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::{PlaceIds, Vantage};
    use super::*;
    use crate::record::Action;

    const CLIENT: Addr = Addr::v4(0xcb00_7109);
    const SERVER: Addr = Addr::v4(0x0a00_0105);

    fn request() -> ContactRow<'static> {
        ContactRow {
            src: CLIENT,
            dst: SERVER,
            src_port: 50_000,
            dst_port: 443,
            protocol: 6,
            packets: 3,
            bytes: 300,
            start: UnixSeconds(60),
            end: UnixSeconds(70),
            action: Action::Accept,
            tcp_flags: None,
            vantage: Vantage::Unknown,
            interface_id: Some(b"eni-1"),
            account_id: None,
            vpc_id: None,
            subnet_id: None,
        }
    }

    fn answer(to: &ContactRow<'static>) -> ContactRow<'static> {
        let (src, dst, src_port, dst_port) = (to.dst, to.src, to.dst_port, to.src_port);
        ContactRow { src, dst, src_port, dst_port, ..*to }
    }

    fn table_of(rows: &[ContactRow<'static>]) -> ContactTable {
        let mut table = ContactTable::new(60, 1);
        for row in rows {
            table.add_row(row);
        }
        table
    }

    fn contacts_of(pane: &PaneContacts) -> Vec<(ContactKey, Contact)> {
        let mut contacts: Vec<_> =
            pane.contacts.iter().map(|(_, key, contact)| (key, contact.to_contact())).collect();
        contacts.sort_by_key(|(key, _)| *key);
        contacts
    }

    #[test]
    fn both_directions_meet_in_one_contact() {
        let there = request();
        let panes = table_of(&[answer(&there), there]).close_all();
        let [(key, contact)] = &contacts_of(&panes[0])[..] else { panic!("one contact") };
        assert_eq!((key.client, key.server, key.port), (CLIENT, SERVER, 443));
        assert_eq!(contact.forward.tally().packets, 3);
        assert_eq!(contact.back.tally().packets, 3);
        assert_eq!(contact.client_ports.as_slice(), [50_000]);
        assert_eq!(contact.places.iter().count(), 1);
    }

    #[test]
    fn traffic_logged_at_both_ends_counts_once() {
        let egress = ContactRow { vantage: Vantage::Egress, ..request() };
        let refused = ContactRow { vantage: Vantage::Ingress, action: Action::Reject, ..request() };
        let panes = table_of(&[egress, refused]).close_all();
        let tally = contacts_of(&panes[0])[0].1.forward.tally();
        assert_eq!((tally.flows, tally.rejected, tally.packets), (1, 1, 3));
    }

    #[test]
    fn panes_close_at_the_watermark_and_late_rows_are_counted() {
        let later = ContactRow { end: UnixSeconds(130), ..request() };
        let mut table = table_of(&[later, request()]);
        assert!(table.close_until(UnixSeconds(119)).is_empty());
        let closed = table.close_until(UnixSeconds(120));
        assert_eq!(closed.iter().map(|p| p.pane).collect::<Vec<_>>(), [PaneIndex(1)]);
        table.add_row(&request());
        assert_eq!((table.late_rows(), table.contact_count()), (1, 1));
        assert_eq!(table.close_all().len(), 1);
        assert_eq!(table.contact_count(), 0);
    }

    #[test]
    fn a_full_table_refuses_contacts_that_it_does_not_have() {
        let mut table = ContactTable::with_contacts_max(60, 1, 1);
        let other = ContactRow { dst_port: 80, ..request() };
        for row in [request(), other, request()] {
            table.add_row(&row);
        }
        assert_eq!((table.refused_rows(), table.contact_count()), (1, 1));
        let panes = table.close_all();
        assert_eq!(panes[0].refused_rows, 1);
        assert_eq!(contacts_of(&panes[0])[0].1.forward.tally().flows, 2);
    }

    #[test]
    fn the_pair_hash_spreads_and_is_symmetric() {
        let mut shards = [0_u32; 8];
        let mut seen = BTreeSet::new();
        for low in 0..64_u32 {
            for high in 0..64_u32 {
                let (a, b) = (Addr::v4(0x0a00_0000 + low), Addr::v4(0xcb00_7100 + high));
                let hash = pair_hash(a, b, 7);
                assert_eq!(hash, pair_hash(b, a, 7));
                shards[(hash % 8) as usize] += 1;
                seen.insert(hash);
            }
        }
        assert_eq!(seen.len(), 4096);
        assert!(shards.iter().all(|count| (400..=624).contains(count)), "{shards:?}");
    }

    /// The contacts of a pane with their places by name.
    fn named(pane: &PaneContacts) -> Vec<(ContactKey, Contact, BTreeSet<Place>)> {
        let named = |(key, contact): (ContactKey, Contact)| {
            let places = contact.places.iter().map(|id| pane.places.place(id)).collect();
            (key, Contact { places: PlaceIds::default(), ..contact }, places)
        };
        contacts_of(pane).into_iter().map(named).collect()
    }

    fn any_row() -> impl Strategy<Value = ContactRow<'static>> {
        let names: [&[u8]; 3] = [b"eni-1", b"eni-2", b"eni-3"];
        (0_u32..3, 0_u32..3, 1_u16..5, 1_u16..5, 0_i64..180, 0_u8..8, 0_usize..3).prop_map(
            move |(src, dst, src_port, dst_port, end, bits, name)| ContactRow {
                src: Addr::v4(src),
                dst: Addr::v4(dst),
                src_port,
                dst_port,
                end: UnixSeconds(end),
                action: if bits & 1 == 1 { Action::Reject } else { Action::Accept },
                tcp_flags: (bits & 2 != 0).then_some(bits >> 1),
                interface_id: Some(names[name]),
                ..request()
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_of_records_does_not_show(
            rows in prop::collection::vec(any_row(), 0..60).prop_flat_map(|rows| {
                (Just(rows.clone()), Just(rows).prop_shuffle())
            }),
        ) {
            let [one, other] = [&rows.0, &rows.1].map(|rows| {
                table_of(rows).close_all().iter().map(named).collect::<Vec<_>>()
            });
            prop_assert_eq!(one, other);
        }

        #[test]
        fn plain_maps_say_the_same(
            rows in prop::collection::vec(wild_row(), 0..400), contacts_max in 1_usize..200,
        ) {
            let mut table = ContactTable::with_contacts_max(60, 9, contacts_max);
            let mut model = Model::default();
            for row in &rows {
                table.add_row(row);
                model.add(row, contacts_max);
            }
            prop_assert_eq!(table.refused_rows(), model.refused_rows);
            let panes: BTreeMap<PaneIndex, Vec<_>> =
                table.close_all().iter().map(|pane| (pane.pane, named(pane))).collect();
            prop_assert_eq!(panes, model.named());
        }
    }

    /// What the table does, in the plainest way.
    #[derive(Default)]
    struct Model {
        panes: BTreeMap<PaneIndex, BTreeMap<ContactKey, (Contact, BTreeSet<Place>)>>,
        refused_rows: u64,
    }

    impl Model {
        fn add(&mut self, row: &ContactRow<'_>, contacts_max: usize) {
            let (key, sent) = row.sent();
            let count: usize = self.panes.values().map(BTreeMap::len).sum();
            let pane = self.panes.entry(row.end.pane(60)).or_default();
            if count >= contacts_max && !pane.contains_key(&key) {
                self.refused_rows += 1;
                return;
            }
            let (contact, places) = pane.entry(key).or_default();
            contact.add(&sent);
            if row.place() != PlaceRef::default() {
                places.insert(row.place().to_place());
                if places.len() > 2 {
                    places.pop_last();
                }
            }
        }

        fn named(self) -> BTreeMap<PaneIndex, Vec<(ContactKey, Contact, BTreeSet<Place>)>> {
            let listed = |pane: BTreeMap<ContactKey, (Contact, BTreeSet<Place>)>| {
                pane.into_iter().map(|(key, (contact, places))| (key, contact, places)).collect()
            };
            self.panes.into_iter().map(|(pane, contacts)| (pane, listed(contacts))).collect()
        }
    }

    /// Rows that seldom fit a slot, often for the same contact.
    fn wild_row() -> impl Strategy<Value = ContactRow<'static>> {
        let addr = || {
            let v6 = Addr::v6(0x2001_0db8 << 96 | 7);
            prop::sample::select(vec![Addr::v4(1), Addr::v4(2), Addr::v6(1), v6])
        };
        let port = || prop::sample::select(vec![0, 22, 443, 5000, 5001, 5002, 5003, 5004]);
        let count = || {
            let large = [u64::from(u32::MAX), u64::MAX, 1 << 31];
            prop_oneof![8 => 0_u64..100, 1 => prop::sample::select(large.to_vec())]
        };
        let ends = prop_oneof![9 => 0_i64..180, 1 => Just(i64::from(i32::MAX) * 60)];
        let starts =
            prop_oneof![9 => 0_i64..200, 1 => prop::sample::select(vec![i64::MIN, 1 << 40])];
        let names: [&[u8]; 4] = [b"eni-1", b"eni-2", b"eni-3", &[b'x'; 60]];
        let vantages = vec![Vantage::Unknown, Vantage::Ingress, Vantage::Egress];
        let kind =
            (prop::sample::select(vantages), prop::option::of(0_u8..32), 0_usize..5, any::<bool>());
        ((addr(), addr(), port(), port()), (count(), count(), starts, ends), kind).prop_map(
            move |((src, dst, src_port, dst_port), (packets, bytes, start, end), kind)| {
                let (vantage, tcp_flags, name, rejected) = kind;
                ContactRow {
                    src,
                    dst,
                    src_port,
                    dst_port,
                    packets,
                    bytes,
                    start: UnixSeconds(start),
                    end: UnixSeconds(end),
                    vantage,
                    tcp_flags,
                    action: if rejected { Action::Reject } else { Action::Accept },
                    interface_id: names.get(name).copied(),
                    ..request()
                }
            },
        )
    }

    #[test]
    fn more_records_than_a_slot_counts_are_counted() {
        let rows = vec![request(); 70_000];
        let panes = table_of(&rows).close_all();
        assert_eq!(contacts_of(&panes[0])[0].1.forward.tally().flows, 70_000);
    }

    #[test]
    fn panes_are_divided_exactly() {
        for pane_seconds in [1, 2, 3, 7, 60, 86_399, 1 << 31, i64::MAX] {
            let divider = PaneDivider::new(pane_seconds);
            let near = |moment: i64| (-2..=2).map(move |offset| moment.saturating_add(offset));
            let moments = [0, 1_767_225_600, i64::from(u32::MAX), i64::MIN, i64::MAX];
            let multiples =
                (0..10).map(|i| i * (i64::from(u32::MAX) / 9 / pane_seconds) * pane_seconds);
            for moment in moments.into_iter().chain(multiples).flat_map(near).map(UnixSeconds) {
                assert_eq!(divider.pane(moment), moment.pane(pane_seconds), "{moment:?}");
            }
        }
    }
}
