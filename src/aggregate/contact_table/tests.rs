//! The table against plain maps; what is saved, merged and spread anew says the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::contact_slot::number_of;
use super::super::{
    Contact, InterfaceTally, Place, PlaceIds, Silence, SilenceRow, Vantage, pair_owner,
};
use super::*;
use crate::codec::{Decoder, Encoder};
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
    let mut table = ContactTable::new(60, 1, CONTACT_BYTES_DEFAULT);
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
        rows in prop::collection::vec(wild_row(), 0..400),
    ) {
        let mut table = ContactTable::new(60, 9, 64 << 20);
        let mut model = Model::default();
        for row in &rows {
            table.add_row(row);
            model.add(row);
        }
        prop_assert_eq!(table.refused_rows(), 0);
        let panes: BTreeMap<PaneIndex, Vec<_>> =
            table.close_all().iter().map(|pane| (pane.pane, named(pane))).collect();
        prop_assert_eq!(panes, model.named());
    }
}

/// What the table does, in the plainest way.
#[derive(Default)]
struct Model {
    panes: BTreeMap<PaneIndex, BTreeMap<ContactKey, (Contact, BTreeSet<Place>)>>,
}

impl Model {
    fn add(&mut self, row: &ContactRow<'_>) {
        let (key, sent) = row.sent();
        let pane = self.panes.entry(row.end.pane(60)).or_default();
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
    let starts = prop_oneof![9 => 0_i64..200, 1 => prop::sample::select(vec![i64::MIN, 1 << 40])];
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

/// Another table's bytes, read again.
fn saved_and_loaded(table: &ContactTable, bytes_max: usize) -> ContactTable {
    let mut out = Encoder::default();
    table.save(&mut out);
    let bytes = out.into_bytes();
    let mut from = Decoder::new(&bytes);
    let loaded = ContactTable::load(60, bytes_max, &mut from).unwrap();
    from.finish().unwrap();
    loaded
}

fn pane_saved_and_loaded(pane: &PaneContacts) -> PaneContacts {
    let mut out = Encoder::default();
    pane.save(&mut out);
    let bytes = out.into_bytes();
    let mut from = Decoder::new(&bytes);
    let loaded = PaneContacts::load(&mut from).unwrap();
    from.finish().unwrap();
    loaded
}

/// All that can be seen of panes, numbers too.
fn seen(panes: &[PaneContacts]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let seen = |pane: &PaneContacts| {
        let contacts: Vec<_> = pane
            .contacts
            .iter()
            .map(|(number, key, contact)| {
                let contact = contact.to_contact();
                let places: Vec<_> =
                    contact.places.iter().map(|id| pane.places.place(id)).collect();
                (number, key, contact, places, pane.contacts.find(pane.contacts.hash(&key), &key))
            })
            .collect();
        let lists: [Vec<u32>; 2] =
            [pane.contacts.odd().collect(), pane.contacts.strays().collect()];
        let counts = (pane.newest_end, pane.refused_rows, pane.evicted_contacts);
        (pane.pane, contacts, lists, counts)
    };
    panes.iter().map(seen).collect()
}

fn add_rows(table: &mut ContactTable, rows: &[ContactRow<'static>]) {
    for (number, row) in rows.iter().enumerate() {
        table.add_row(row);
        if number % 50 == 49 {
            // Some contacts are marked, and some panes closed.
            let contacts = &mut table.open[0].contacts.contacts;
            contacts.mark_stray(u32::try_from(number).unwrap() % number_of(contacts.len()));
        }
    }
}

fn turn_some(panes: &mut [PaneContacts]) {
    for pane in panes {
        let numbers: Vec<u32> = pane.contacts.odd().filter(|number| number % 3 == 1).collect();
        pane.turn_contacts(&numbers);
    }
}

proptest! {
    #[test]
    fn a_table_that_was_saved_goes_on_as_before(
        rows in prop::collection::vec(wild_row(), 1..300), cut in 0_usize..300,
    ) {
        let cut = cut.min(rows.len());
        let mut table = ContactTable::new(60, 5, 64 << 20);
        add_rows(&mut table, &rows[..cut]);
        table.close_until(UnixSeconds(60));
        let mut loaded = saved_and_loaded(&table, 64 << 20);
        for table in [&mut table, &mut loaded] {
            add_rows(table, &rows[cut..]);
        }
        prop_assert_eq!(table.late_rows(), loaded.late_rows());
        let mut panes = table.close_all();
        prop_assert_eq!(seen(&panes), seen(&loaded.close_all()));
        turn_some(&mut panes);
        let mut read: Vec<_> = panes.iter().map(pane_saved_and_loaded).collect();
        prop_assert_eq!(seen(&panes), seen(&read));
        turn_some(&mut panes);
        turn_some(&mut read);
        prop_assert_eq!(seen(&panes), seen(&read));
    }

    #[test]
    fn broken_bytes_are_refused_or_harmless(
        rows in prop::collection::vec(wild_row(), 1..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        length: prop::sample::Index,
        is_cut: bool,
    ) {
        let mut table = ContactTable::new(60, 5, 64 << 20);
        add_rows(&mut table, &rows);
        let mut out = Encoder::default();
        table.save(&mut out);
        let mut saved = vec![out.into_bytes()];
        for pane in table.close_all() {
            let mut out = Encoder::default();
            pane.save(&mut out);
            saved.push(out.into_bytes());
        }
        for (number, bytes) in saved.iter_mut().enumerate() {
            if is_cut {
                bytes.truncate(length.index(bytes.len()));
            }
            let flips = if bytes.is_empty() { &[] } else { &flips[..] };
            for (index, bit) in flips {
                let at = index.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let mut from = Decoder::new(bytes);
            if number == 0 {
                if let Ok(mut table) = ContactTable::load(60, 1 << 20, &mut from) {
                    rows.iter().for_each(|row| table.add_row(row));
                    turn_some(&mut table.close_all());
                }
            } else if let Ok(mut pane) = PaneContacts::load(&mut from) {
                turn_some(std::slice::from_mut(&mut pane));
                seen(&[pane]);
            }
        }
    }

    /// Rows cut at random over processes, whose panes are merged in any order, and spread over shards anew.
    #[test]
    fn parts_merged_in_any_order_are_the_whole(
        rows in prop::collection::vec((wild_row(), 0_u64..7), 0..300),
        part_count in prop::sample::select(vec![1_u64, 2, 7]),
        order in Just((0..7_usize).collect::<Vec<_>>()).prop_shuffle(),
        go_on in prop::collection::vec(wild_row(), 0..50),
    ) {
        let mut whole = ContactTable::new(60, 1, 64 << 20);
        let mut parts: Vec<_> =
            (0..part_count).map(|seed| ContactTable::new(60, seed, 64 << 20)).collect();
        for (row, part) in &rows {
            whole.add_row(row);
            parts[usize::try_from(part % part_count).unwrap()].add_row(row);
        }
        let panes_of = |parts: Vec<ContactTable>| {
            let mut parts: Vec<_> = parts.into_iter().map(Some).collect();
            let in_order = order.iter().filter_map(|part| parts.get_mut(*part)?.take());
            in_order.flat_map(ContactTable::into_open_panes).collect::<Vec<_>>()
        };
        let copies = parts.iter().map(|table| saved_and_loaded(table, 64 << 20)).collect();
        // Panes merged.
        let mut merged: BTreeMap<PaneIndex, PaneContacts> = BTreeMap::new();
        for pane in panes_of(copies) {
            match merged.entry(pane.pane) {
                std::collections::btree_map::Entry::Vacant(free) => { free.insert(pane); }
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().merge(&pane),
            }
        }
        let merged: Vec<_> = merged.values().map(|pane| (pane.pane, pane.newest_end, named(pane))).collect();
        // Open panes taken over by three shards, which go on.
        let mut shards: Vec<_> = (0..3).map(|seed| ContactTable::new(60, seed, 64 << 20)).collect();
        for pane in panes_of(parts) {
            for (number, shard) in shards.iter_mut().enumerate() {
                let owns = |key: &ContactKey| pair_owner(key.client, key.server, 3, 77) == number;
                shard.absorb(&pane, number == 0, owns);
            }
        }
        let expected = |table: &mut ContactTable| {
            let panes = table.close_all();
            panes.iter().map(|pane| (pane.pane, pane.newest_end, named(pane))).collect::<Vec<_>>()
        };
        let mut copy = saved_and_loaded(&whole, 64 << 20);
        prop_assert_eq!(merged, expected(&mut copy));
        for row in &go_on {
            whole.add_row(row);
            shards[pair_owner(row.src, row.dst, 3, 77)].add_row(row);
        }
        let mut spread: BTreeMap<PaneIndex, Vec<_>> = BTreeMap::new();
        for pane in shards.iter_mut().flat_map(ContactTable::close_all) {
            spread.entry(pane.pane).or_default().extend(named(&pane));
        }
        spread.values_mut().for_each(|contacts| contacts.sort_by_key(|(key, _, _)| *key));
        let whole: BTreeMap<PaneIndex, Vec<_>> =
            whole.close_all().iter().map(|pane| (pane.pane, named(pane))).collect();
        prop_assert_eq!(spread, whole);
    }
}

/// What interfaces logged, by name; a place's parts are of no matter here.
fn interfaces_of(panes: &[PaneContacts]) -> BTreeMap<(PaneIndex, Vec<u8>), InterfaceTally> {
    let mut tallies: BTreeMap<_, InterfaceTally> = BTreeMap::new();
    for pane in panes {
        for (name, _, tally) in pane.interfaces() {
            let sum = tallies.entry((pane.pane, name.to_vec()));
            sum.and_modify(|sum| sum.merge(&tally)).or_insert(tally);
        }
    }
    tallies
}

fn nodata(end: i64) -> SilenceRow<'static> {
    SilenceRow {
        silence: Silence::NoData,
        start: UnixSeconds(end - 60),
        end: UnixSeconds(end),
        interface_id: Some(b"eni-9"),
        account_id: None,
        vpc_id: None,
        subnet_id: None,
    }
}

#[test]
fn tables_and_panes_of_the_first_form_have_no_tallies() {
    let mut table = table_of(&[request(), answer(&request())]);
    table.add_silence(&nodata(100));
    let mut out = Encoder::default();
    out.version(1);
    out.i64(table.pane_seconds);
    out.u64(table.seed);
    out.i64(table.open_from.0);
    [0, 0, 0].into_iter().for_each(|count| out.u64(count));
    out.count(table.rows_unmeasured);
    out.count(table.limits.overrun_bytes);
    out.option(None::<()>, |_, ()| ());
    out.count(table.place_lists.len());
    table.place_lists.iter().for_each(|places| places.save(&mut out));
    out.count(table.open.len());
    for open in &table.open {
        out.count(open.place_list);
        open.contacts.save_contacts(&mut out);
    }
    let bytes = out.into_bytes();
    let mut from = Decoder::new(&bytes);
    let mut loaded = ContactTable::load(60, CONTACT_BYTES_DEFAULT, &mut from).unwrap();
    from.finish().unwrap();
    loaded.add_silence(&nodata(101));
    let [loaded, panes] = [&mut loaded, &mut table].map(ContactTable::close_all);
    assert_eq!(contacts_of(&loaded[0]), contacts_of(&panes[0]));
    assert_eq!(interfaces_of(&loaded).len(), 1, "what came since");
    assert_eq!(interfaces_of(&panes).len(), 2);

    let mut out = Encoder::default();
    out.version(1);
    out.i64(60);
    panes[0].places.save(&mut out);
    panes[0].save_contacts(&mut out);
    let bytes = out.into_bytes();
    let mut from = Decoder::new(&bytes);
    let pane = PaneContacts::load(&mut from).unwrap();
    from.finish().unwrap();
    assert_eq!(contacts_of(&pane), contacts_of(&panes[0]));
    assert!(interfaces_of(&[pane]).is_empty());
}

#[test]
fn late_silences_are_counted_and_open_ones_go_to_one_heir() {
    let mut table = table_of(&[request()]);
    table.add_silence(&nodata(100));
    table.add_silence(&nodata(130));
    let mut bytes = Encoder::default();
    table.save(&mut bytes);
    let bytes = bytes.into_bytes();
    let saved = ContactTable::load(60, CONTACT_BYTES_DEFAULT, &mut Decoder::new(&bytes)).unwrap();
    let mut heirs = [1, 2].map(|_| ContactTable::new(60, 1, CONTACT_BYTES_DEFAULT));
    for pane in saved.into_open_panes() {
        for (index, heir) in heirs.iter_mut().enumerate() {
            heir.absorb(&pane, index == 0, |key| pair_owner(key.client, key.server, 2, 7) == index);
        }
    }
    let of_heirs: Vec<_> = heirs.iter_mut().flat_map(ContactTable::close_all).collect();
    let closed = table.close_until(UnixSeconds(120));
    table.add_silence(&nodata(110));
    assert_eq!(table.late_rows(), 1);
    let expected: Vec<_> = closed.into_iter().chain(table.close_all()).collect();
    assert_eq!(interfaces_of(&of_heirs), interfaces_of(&expected));
}
