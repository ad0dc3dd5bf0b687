//! The contacts of one shard: a table per open pane, handed over when the watermark has passed.
//!
//! Rows come from the router, which sends all rows of an address pair to one shard ([`pair_hash`]);
//! closed panes go to the detect stage, which merges those of all shards. Cost per record: one hash of
//! 35 bytes, one probe, one comparison with the previous record's interface; no allocation once the
//! contact exists. A contact and its key take about 250 bytes, so the default limit is half a GB.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::contact::{Contact, ContactKey};
use super::contact_row::{self, ContactRow};
use super::place::{Place, Places};
use crate::net::Addr;
use crate::record::FlowBatch;
use crate::units::{PaneIndex, UnixSeconds};

/// How many contacts a table keeps over all open panes, unless told otherwise.
pub const CONTACTS_MAX_DEFAULT: usize = 2_000_000;

const _: () = assert!(size_of::<(ContactKey, Contact)>() <= 272);

/// A hash of an address pair that is the same in both directions.
#[must_use]
pub fn pair_hash(src: Addr, dst: Addr, seed: u64) -> u64 {
    let (low, high) = if src <= dst { (src, dst) } else { (dst, src) };
    fold(high.bits() ^ u128::from(fold(low.bits() ^ u128::from(seed))))
}

/// Both halves of a number, spread by the multiplication of splitmix64's last step.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn fold(bits: u128) -> u64 {
    let halves = (bits as u64) ^ ((bits >> 64) as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let spread = (halves ^ (halves >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let spread = (spread ^ (spread >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    spread ^ (spread >> 31)
}

/// The contacts of one shard in one pane, ready to be merged with those of other shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaneContacts {
    /// The pane, in units of the table's pane length.
    pub pane: PaneIndex,
    /// Length of the pane.
    pub pane_seconds: i64,
    /// Contacts in the order of their keys.
    pub contacts: Vec<(ContactKey, Contact)>,
    /// What [`Contact::places`] refers to.
    pub places: Vec<Place>,
    /// Latest `end` of a record in the pane.
    pub newest_end: UnixSeconds,
    /// Rows that found no room: if not 0, counts are lower bounds.
    pub refused_rows: u64,
}

#[derive(Debug)]
struct OpenPane {
    contacts: HashMap<ContactKey, Contact, FixedState>,
    places: Places,
    newest_end: UnixSeconds,
    refused_rows: u64,
}

/// The contacts of one shard.
#[derive(Debug)]
pub struct ContactTable {
    pane_seconds: i64,
    contacts_max: usize,
    seed: u64,
    open: BTreeMap<PaneIndex, OpenPane>,
    contact_count: usize,
    /// Panes before this one have been handed over.
    open_from: PaneIndex,
    late_rows: u64,
    refused_rows: u64,
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
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub fn with_contacts_max(pane_seconds: i64, seed: u64, contacts_max: usize) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        Self {
            pane_seconds,
            contacts_max,
            seed,
            open: BTreeMap::new(),
            contact_count: 0,
            open_from: PaneIndex(i64::MIN),
            late_rows: 0,
            refused_rows: 0,
        }
    }

    /// Adds those of `rows` that stand for traffic between two addresses at a known time; NODATA,
    /// SKIPDATA and rows without them are passed over.
    pub fn add(&mut self, batch: &FlowBatch, rows: impl IntoIterator<Item = usize>) {
        contact_row::for_each_row(batch, rows, |row| self.add_row(row));
    }

    /// Adds one record.
    pub fn add_row(&mut self, row: &ContactRow<'_>) {
        let pane = row.end.pane(self.pane_seconds);
        if pane < self.open_from {
            self.late_rows += 1;
            return;
        }
        let from_client = row.source_is_client();
        let (client, server, port) = if from_client {
            (row.src, row.dst, row.dst_port)
        } else {
            (row.dst, row.src, row.src_port)
        };
        let key = ContactKey { client, server, protocol: row.protocol, port };
        let seed = self.seed;
        let open = self.open.entry(pane).or_insert_with(|| OpenPane {
            contacts: HashMap::with_hasher(FixedState::with_seed(seed)),
            places: Places::new(FixedState::with_seed(seed)),
            newest_end: row.end,
            refused_rows: 0,
        });
        open.newest_end = open.newest_end.max(row.end);
        let contact = if self.contact_count < self.contacts_max {
            let contact = open.contacts.entry(key).or_default();
            // Every record leaves a client port, so a contact without one was made just now.
            self.contact_count += usize::from(contact.client_ports.is_empty());
            contact
        } else if let Some(contact) = open.contacts.get_mut(&key) {
            contact
        } else {
            open.refused_rows += 1;
            self.refused_rows += 1;
            return;
        };
        contact.add(row, from_client);
        if let Some(id) = open.places.id_of(row.place()) {
            contact.places.insert(id, open.places.list());
        }
    }

    /// Hands over the panes that end at or before `watermark`, oldest first; rows that come for them
    /// afterwards are counted as late.
    pub fn close_until(&mut self, watermark: UnixSeconds) -> Vec<PaneContacts> {
        self.open_from = self.open_from.max(watermark.pane(self.pane_seconds));
        let still_open = self.open.split_off(&self.open_from);
        let closing = std::mem::replace(&mut self.open, still_open);
        let closed: Vec<_> =
            closing.into_iter().map(|(pane, open)| self.close(pane, open)).collect();
        self.contact_count -= closed.iter().map(|pane| pane.contacts.len()).sum::<usize>();
        closed
    }

    /// Hands over every pane: the stream has ended.
    pub fn close_all(&mut self) -> Vec<PaneContacts> {
        match self.open.last_key_value() {
            Some((last, _)) => self.close_until(last.end(self.pane_seconds)),
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

    fn close(&self, pane: PaneIndex, open: OpenPane) -> PaneContacts {
        let mut contacts: Vec<_> = open.contacts.into_iter().collect();
        contacts.sort_unstable_by_key(|(key, _)| *key);
        PaneContacts {
            pane,
            pane_seconds: self.pane_seconds,
            contacts,
            places: open.places.into_list(),
            newest_end: open.newest_end,
            refused_rows: open.refused_rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::Vantage;
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

    #[test]
    fn both_directions_meet_in_one_contact() {
        let there = request();
        let panes = table_of(&[answer(&there), there]).close_all();
        let [(key, contact)] = &panes[0].contacts[..] else { panic!("one contact") };
        assert_eq!((key.client, key.server, key.port), (CLIENT, SERVER, 443));
        assert_eq!(contact.forward.tally().packets, 3);
        assert_eq!(contact.back.tally().packets, 3);
        assert_eq!(contact.client_ports.as_slice(), [50_000]);
        assert_eq!(panes[0].places.len(), 1);
    }

    #[test]
    fn traffic_logged_at_both_ends_counts_once() {
        let egress = ContactRow { vantage: Vantage::Egress, ..request() };
        let refused = ContactRow { vantage: Vantage::Ingress, action: Action::Reject, ..request() };
        let panes = table_of(&[egress, refused]).close_all();
        let tally = panes[0].contacts[0].1.forward.tally();
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
        assert_eq!(panes[0].contacts[0].1.forward.tally().flows, 2);
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
            let named = |pane: &PaneContacts| -> Vec<_> {
                let name = |id: u32| pane.places[id as usize].clone();
                pane.contacts.iter().map(|(key, contact)| {
                    let places: BTreeSet<_> = contact.places.iter().map(name).collect();
                    let bare = Contact { places: super::super::PlaceIds::default(), ..contact.clone() };
                    (*key, bare, places)
                }).collect()
            };
            let [one, other] = [&rows.0, &rows.1].map(|rows| {
                table_of(rows).close_all().iter().map(named).collect::<Vec<_>>()
            });
            prop_assert_eq!(one, other);
        }
    }
}
