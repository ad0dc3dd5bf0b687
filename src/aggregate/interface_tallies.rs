//! What each interface logged in a pane: records, packets and bytes of either direction, and records that
//! stand for no traffic (NODATA, SKIPDATA), which no contact knows.
//!
//! Rows are counted under the number of their place, which the table looks up anyway: a row with
//! `flow-direction` adds to one cache line. Without the field the direction is told by the interface's own
//! address, the one that all its records have in common: both addresses of its first record are
//! candidates, with what each of them sent, and a record without a candidate strikes it out. The
//! candidates left and their counts are the same in any order of records. IPv6 records without direction
//! count apart, because an interface may have an IPv4 address too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::contact_row::Vantage;
use super::contact_slot::Sent;
use super::interface_tally::{Candidate, FlowCounts, InterfaceTally, Own, Silence};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;
use crate::units::{PaneIndex, UnixSeconds};

/// One of an interface's lines: what nearly all rows add to. Times are counted from the pane's end back to the
/// start, and from its start on to the end, so that 0 stands for nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(64))]
struct Line {
    received: FlowCounts,
    sent: FlowCounts,
    before_end: u32,
    last_end: u32,
    span_seconds: u32,
    own: Own,
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// Notes a time that ends in the pane.
    #[inline]
    fn see(&mut self, start: UnixSeconds, end: UnixSeconds, pane: &PaneTime) {
        let span = seconds_between(start, end);
        self.before_end = self.before_end.max(seconds_between(end, pane.end).saturating_add(span));
        self.last_end = self.last_end.max(seconds_between(pane.start, end).saturating_add(1));
        self.span_seconds = self.span_seconds.max(span);
    }
}

/// What only some interfaces need. The first cache line is all that rows without direction of an interface whose own
/// address is found add to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(64))]
struct Beside {
    candidates: [u32; 2],
    candidate_count: u32,
    nodata_records: u32,
    undirected: FlowCounts,
    candidate_sent: [FlowCounts; 2],
    undirected_wide: FlowCounts,
    skipdata_records: u32,
    skip_before_end: u32,
    skip_last_end: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Beside>() == 128);

impl Beside {
    /// Adds a record from the first address to the second.
    #[inline]
    fn add(&mut self, counts: FlowCounts, [src, dst]: [u32; 2]) {
        let is_first = self.undirected.flows == 0;
        self.undirected = self.undirected.plus(counts);
        if is_first {
            self.candidates = [src, dst];
            self.candidate_count = 1 + u32::from(src != dst);
        }
        if self.candidate_count == 2 {
            self.strike_out(|addr| addr != src && addr != dst);
        } else if self.candidate_count == 1 && self.candidates[0] != src {
            if self.candidates[0] != dst {
                self.strike_out(|_| true);
            }
            return;
        }
        for place in 0..self.candidate_count as usize {
            if self.candidates[place] == src {
                self.candidate_sent[place] = self.candidate_sent[place].plus(counts);
            }
        }
    }

    fn strike_out(&mut self, is_out: impl Fn(u32) -> bool) {
        let (candidates, sent) = (self.candidates, self.candidate_sent);
        let count = self.candidate_count as usize;
        let left = (0..count).filter(|place| !is_out(candidates[*place]));
        self.put_candidates(left.map(|place| (candidates[place], sent[place])));
    }

    fn put_candidates(&mut self, list: impl Iterator<Item = (u32, FlowCounts)>) {
        self.candidates = [0; 2];
        self.candidate_sent = Default::default();
        self.candidate_count = 0;
        for (place, (candidate, sent)) in list.take(2).enumerate() {
            self.candidates[place] = candidate;
            self.candidate_sent[place] = sent;
            self.candidate_count += 1;
        }
    }
}

/// When a pane is.
#[derive(Clone, Copy, Debug)]
struct PaneTime {
    start: UnixSeconds,
    end: UnixSeconds,
}

/// From a time to one that is not before it; no more than 32 bits hold.
#[inline]
fn seconds_between(from: UnixSeconds, to: UnixSeconds) -> u32 {
    u32::try_from(to.0.wrapping_sub(from.0).cast_unsigned()).unwrap_or(u32::MAX)
}

/// The interfaces of a pane, by the numbers of their places.
#[derive(Clone, Debug)]
pub(super) struct InterfaceTallies {
    time: PaneTime,
    lines: Vec<Line>,
    /// Not longer than `lines`.
    beside: Vec<Beside>,
    /// How many places are counted; rows of others are refused.
    places_max: usize,
    refused_rows: u64,
}

impl InterfaceTallies {
    /// Tallies of the pane, for up to `places_max` places.
    pub(super) fn new(pane: PaneIndex, pane_seconds: i64, places_max: usize) -> Self {
        Self {
            time: PaneTime { start: pane.start(pane_seconds), end: pane.end(pane_seconds) },
            lines: Vec::new(),
            beside: Vec::new(),
            places_max,
            refused_rows: 0,
        }
    }

    /// How many places a limit of memory is for.
    pub(super) const fn places_in(bytes: usize) -> usize {
        bytes / (size_of::<Line>() + size_of::<Beside>()) / 2
    }

    /// Asks for the memory where a row of this place will be counted.
    #[inline]
    pub(super) fn prefetch(&self, place: u32) {
        simd::prefetch(&self.lines, place as usize);
        simd::prefetch(&self.beside, place as usize);
    }

    /// Counts a row; `ends` are its source and destination if both are IPv4.
    #[inline]
    pub(super) fn add(&mut self, place: Option<u32>, sent: &Sent, ends: Option<[u32; 2]>) {
        let Some(number) = place.filter(|place| self.has_line(*place)) else {
            self.refused_rows += 1;
            return;
        };
        let line = &mut self.lines[number as usize];
        line.see(sent.start, sent.end, &self.time);
        let counts = FlowCounts::of(sent);
        let [src, dst] = ends.unwrap_or_default();
        let (side, own) = match sent.vantage {
            Vantage::Ingress => (&mut line.received, dst),
            Vantage::Egress => (&mut line.sent, src),
            Vantage::Unknown => return self.add_undirected(number, counts, ends),
        };
        *side = side.plus(counts);
        line.own = line.own.and(Own(own));
    }

    #[inline]
    fn add_undirected(&mut self, number: u32, counts: FlowCounts, ends: Option<[u32; 2]>) {
        let beside = self.beside(number);
        match ends {
            Some(ends) => beside.add(counts, ends),
            None => beside.undirected_wide = beside.undirected_wide.plus(counts),
        }
    }

    /// Counts a record that stands for no traffic.
    pub(super) fn add_silence(
        &mut self,
        place: Option<u32>,
        silence: Silence,
        start: UnixSeconds,
        end: UnixSeconds,
    ) {
        let Some(number) = place.filter(|place| self.has_line(*place)) else {
            self.refused_rows += 1;
            return;
        };
        let time = self.time;
        self.lines[number as usize].see(start, end, &time);
        let beside = self.beside(number);
        match silence {
            Silence::NoData => beside.nodata_records = beside.nodata_records.saturating_add(1),
            Silence::SkipData => {
                beside.skipdata_records = beside.skipdata_records.saturating_add(1);
                let before_end = seconds_between(start, time.end);
                beside.skip_before_end = beside.skip_before_end.max(before_end);
                let last_end = seconds_between(time.start, end).saturating_add(1);
                beside.skip_last_end = beside.skip_last_end.max(last_end);
            }
        }
    }

    /// Whether the place has a line; it is given one if there is room.
    #[inline]
    fn has_line(&mut self, place: u32) -> bool {
        (place as usize) < self.lines.len() || self.grow(place as usize)
    }

    #[cold]
    fn grow(&mut self, place: usize) -> bool {
        let has_room = place < self.places_max;
        if has_room {
            self.lines.resize(place + 1, Line::default());
        }
        has_room
    }

    #[inline]
    fn beside(&mut self, place: u32) -> &mut Beside {
        let place = place as usize;
        if place >= self.beside.len() {
            self.grow_beside(place);
        }
        &mut self.beside[place]
    }

    #[cold]
    fn grow_beside(&mut self, place: usize) {
        self.beside.resize(place + 1, Beside::default());
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + self.beside.capacity() * size_of::<Beside>()
    }

    /// Memory that is needed at most when `place_count` places are counted, in bytes.
    pub(super) fn bytes_needed(&self, place_count: usize) -> usize {
        let places = place_count.min(self.places_max);
        self.bytes().max(places * (size_of::<Line>() + size_of::<Beside>()))
    }

    /// Rows that were not counted: they had no place, or there were too many.
    pub(super) const fn refused_rows(&self) -> u64 {
        self.refused_rows
    }

    /// What was counted, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, InterfaceTally)> {
        let lines = (0_u32..).zip(&self.lines).filter(|(_, line)| line.last_end > 0);
        lines.map(|(place, line)| {
            let beside = self.beside.get(place as usize).copied().unwrap_or_default();
            (place, self.tally(line, &beside))
        })
    }

    fn tally(&self, line: &Line, beside: &Beside) -> InterfaceTally {
        let PaneTime { start, end } = self.time;
        let time = |before_end: u32, last_end: u32| {
            let last_end = start.saturating_add(i64::from(last_end) - 1);
            (end.saturating_add(-i64::from(before_end)), last_end)
        };
        let (first_start, last_end) = time(line.before_end, line.last_end);
        let list = beside.candidates.into_iter().zip(beside.candidate_sent);
        let mut candidates: Vec<Candidate> = list
            .take(beside.candidate_count as usize)
            .map(|(addr, sent)| Candidate { addr, sent })
            .collect();
        candidates.sort_unstable_by_key(|candidate| candidate.addr);
        InterfaceTally {
            received: line.received,
            sent: line.sent,
            undirected: beside.undirected,
            undirected_wide: beside.undirected_wide,
            candidates,
            nodata_records: beside.nodata_records,
            skipdata_records: beside.skipdata_records,
            skipped: (beside.skipdata_records > 0)
                .then(|| time(beside.skip_before_end, beside.skip_last_end)),
            first_start,
            last_end,
            own: line.own,
            span_seconds: line.span_seconds,
        }
    }

    /// Adds what another pane of the same time counted; `number_of` says what its places are here.
    pub(super) fn merge(&mut self, other: &Self, number_of: impl Fn(u32) -> Option<u32>) {
        self.refused_rows = self.refused_rows.saturating_add(other.refused_rows);
        for (place, tally) in other.iter() {
            match number_of(place).filter(|place| self.has_line(*place)) {
                Some(place) => self.merge_into(place, tally),
                None => {
                    let rows = tally.traffic().flows.saturating_add(tally.nodata_records);
                    let rows = rows.saturating_add(tally.skipdata_records);
                    self.refused_rows = self.refused_rows.saturating_add(rows.into());
                }
            }
        }
    }

    fn merge_into(&mut self, place: u32, tally: InterfaceTally) {
        let line = self.lines[place as usize];
        let mut sum = tally;
        if line.last_end > 0 {
            let beside = self.beside.get(place as usize).copied().unwrap_or_default();
            sum.merge(&self.tally(&line, &beside));
        }
        self.put(place, &sum);
    }

    fn put(&mut self, place: u32, tally: &InterfaceTally) {
        let PaneTime { start, end } = self.time;
        let times = |first: UnixSeconds, last: UnixSeconds| {
            (seconds_between(first, end), seconds_between(start, last).saturating_add(1))
        };
        let (before_end, last_end) = times(tally.first_start, tally.last_end);
        let skipped = tally.skipped.map(|(first, last)| times(first, last));
        let (skip_before_end, skip_last_end) = skipped.unwrap_or_default();
        self.lines[place as usize] = Line {
            received: tally.received,
            sent: tally.sent,
            before_end,
            last_end,
            span_seconds: tally.span_seconds,
            own: tally.own,
        };
        let mut beside = Beside {
            undirected: tally.undirected,
            undirected_wide: tally.undirected_wide,
            nodata_records: tally.nodata_records,
            skipdata_records: tally.skipdata_records,
            skip_before_end,
            skip_last_end,
            ..Beside::default()
        };
        let candidates = tally.candidates.iter();
        beside.put_candidates(candidates.map(|candidate| (candidate.addr, candidate.sent)));
        if beside != Beside::default() {
            *self.beside(place) = beside;
        }
    }

    /// Writes what was counted.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.u64(self.refused_rows);
        out.plain(&self.lines);
        out.plain(&self.beside);
    }

    /// Reads what [`Self::save`] wrote of a pane with `place_count` places into tallies without any.
    ///
    /// # Errors
    /// If the bytes are no tallies.
    pub(super) fn load(
        self,
        place_count: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let refused_rows = from.u64()?;
        let lines: Vec<Line> = from.plain()?;
        let beside: Vec<Beside> = from.plain()?;
        let is_valid = lines.len() <= place_count
            && beside.len() <= lines.len()
            && beside.iter().all(|beside| beside.candidate_count <= 2);
        if is_valid {
            Ok(Self { lines, beside, refused_rows, ..self })
        } else {
            Err(DecodeError::Invalid("tallies of interfaces"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::{ContactRow, ContactTable, PaneContacts, SilenceRow};
    use super::*;
    use crate::net::Addr;
    use crate::record::Action;

    /// A record of a pane that begins at 120, or one that stands for none.
    #[derive(Clone, Copy, Debug)]
    enum Row {
        Traffic(ContactRow<'static>),
        Silence(SilenceRow<'static>),
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let addrs = ["10.0.0.1", "10.0.0.2", "192.0.2.7", "2001:db8::1"];
        let addrs = addrs.map(|addr| addr.parse::<Addr>().unwrap());
        let numbers = (0_usize..4, 0_usize..4, 1_u64..100, 100_i64..180, 120_i64..180);
        (numbers, 0_usize..3, 0_u8..8, 0_u8..12).prop_map(
            move |((src, dst, bytes, start, end), name, bits, kind)| {
                let interface_id = [Some(&b"eni-1"[..]), Some(b"eni-2"), None][name];
                let vpc_id = (bits & 1 == 0).then_some(&b"vpc-1"[..]);
                let (start, end) = (UnixSeconds(start.min(end)), UnixSeconds(end));
                let (account_id, subnet_id) = (None, None);
                if kind < 2 {
                    let silence = [Silence::NoData, Silence::SkipData][usize::from(kind)];
                    return Row::Silence(SilenceRow {
                        silence,
                        start,
                        end,
                        interface_id,
                        account_id,
                        vpc_id,
                        subnet_id,
                    });
                }
                let vantage = match kind {
                    2 | 3 => Vantage::Ingress,
                    4 | 5 => Vantage::Egress,
                    _ => Vantage::Unknown,
                };
                // Mostly between the first two.
                let pick = |number: usize| addrs[if bits & 2 == 0 { number % 2 } else { number }];
                Row::Traffic(ContactRow {
                    src: pick(src),
                    dst: pick(dst),
                    src_port: 1,
                    dst_port: 2,
                    protocol: 17,
                    packets: bytes / 7,
                    bytes,
                    start,
                    end,
                    action: if bits & 4 == 0 { Action::Accept } else { Action::Reject },
                    tcp_flags: None,
                    vantage,
                    interface_id,
                    account_id,
                    vpc_id,
                    subnet_id,
                })
            },
        )
    }

    fn pane_of(rows: &[Row]) -> Option<PaneContacts> {
        let mut table = ContactTable::new(60, 1, 1 << 24);
        for row in rows {
            match row {
                Row::Traffic(row) => table.add_row(row),
                Row::Silence(row) => table.add_silence(row),
            }
        }
        table.close_all().pop()
    }

    fn tallies(pane: &PaneContacts) -> BTreeMap<Vec<u8>, InterfaceTally> {
        let mut tallies: BTreeMap<Vec<u8>, InterfaceTally> = BTreeMap::new();
        for (name, _, tally) in pane.interfaces() {
            tallies.entry(name.to_vec()).and_modify(|sum| sum.merge(&tally)).or_insert(tally);
        }
        tallies
    }

    /// The tallies by their definition, from plain lists.
    fn naive(rows: &[Row]) -> BTreeMap<Vec<u8>, InterfaceTally> {
        let name_of = |row: &Row| match row {
            Row::Traffic(row) => row.interface_id,
            Row::Silence(row) => row.interface_id,
        };
        let names: BTreeSet<&[u8]> = rows.iter().filter_map(name_of).collect();
        let of_name = |name: &[u8]| {
            let of_name = || rows.iter().filter(|row| name_of(row) == Some(name));
            let traffic: Vec<ContactRow<'_>> = of_name()
                .filter_map(|row| if let Row::Traffic(row) = row { Some(*row) } else { None })
                .collect();
            let silences: Vec<SilenceRow<'_>> = of_name()
                .filter_map(|row| if let Row::Silence(row) = row { Some(*row) } else { None })
                .collect();
            let is_wide =
                |row: &ContactRow<'_>| row.src.as_v4().is_none() || row.dst.as_v4().is_none();
            let sum = |is_wanted: &dyn Fn(&ContactRow<'_>) -> bool| {
                let rows = traffic.iter().filter(|row| is_wanted(row));
                rows.fold(FlowCounts::default(), |sum, row| FlowCounts {
                    bytes: sum.bytes + row.bytes,
                    packets: sum.packets + row.packets,
                    flows: sum.flows + 1,
                    rejected: sum.rejected + u32::from(row.action == Action::Reject),
                })
            };
            let is_undirected =
                |row: &ContactRow<'_>| row.vantage == Vantage::Unknown && !is_wide(row);
            let undirected: Vec<_> = traffic.iter().filter(|row| is_undirected(row)).collect();
            let ends = undirected.iter().flat_map(|row| [row.src, row.dst]);
            let candidates: BTreeSet<Addr> = ends
                .filter(|addr| undirected.iter().all(|row| [row.src, row.dst].contains(addr)))
                .collect();
            let owns: BTreeSet<u32> = traffic
                .iter()
                .filter(|row| row.vantage != Vantage::Unknown && !is_wide(row))
                .map(|row| if row.vantage == Vantage::Ingress { row.dst } else { row.src })
                .filter_map(Addr::as_v4)
                .collect();
            let of_kind = |kind: Silence| silences.iter().filter(move |row| row.silence == kind);
            let times = traffic.iter().map(|row| (row.start, row.end));
            let times = times.chain(silences.iter().map(|row| (row.start, row.end)));
            let skips = of_kind(Silence::SkipData);
            InterfaceTally {
                received: sum(&|row| row.vantage == Vantage::Ingress),
                sent: sum(&|row| row.vantage == Vantage::Egress),
                undirected: sum(&is_undirected),
                undirected_wide: sum(&|row| row.vantage == Vantage::Unknown && is_wide(row)),
                candidates: candidates
                    .into_iter()
                    .map(|addr| Candidate {
                        addr: addr.as_v4().unwrap(),
                        sent: sum(&|row| is_undirected(row) && row.src == addr),
                    })
                    .collect(),
                nodata_records: u32::try_from(of_kind(Silence::NoData).count()).unwrap(),
                skipdata_records: u32::try_from(skips.clone().count()).unwrap(),
                skipped: skips
                    .clone()
                    .map(|row| row.start)
                    .min()
                    .zip(skips.map(|row| row.end).max()),
                first_start: times.clone().map(|(start, _)| start).min().unwrap(),
                last_end: times.clone().map(|(_, end)| end).max().unwrap(),
                own: match owns.iter().copied().collect::<Vec<_>>()[..] {
                    [] => Own::NONE,
                    [own] => Own(own),
                    _ => Own::SEVERAL,
                },
                span_seconds: times
                    .map(|(start, end)| u32::try_from(end.0 - start.0).unwrap())
                    .max()
                    .unwrap(),
            }
        };
        names.into_iter().map(|name| (name.to_vec(), of_name(name))).collect()
    }

    proptest! {
        #[test]
        fn tallies_are_what_plain_lists_say_in_any_order_and_number_of_parts(
            rows in prop::collection::vec(any_row(), 1..60),
            cuts in prop::collection::btree_set(0_usize..60, 0..3),
        ) {
            let expected = naive(&rows);
            prop_assert_eq!(&tallies(&pane_of(&rows).unwrap()), &expected);
            let mut merged: Option<PaneContacts> = None;
            let mut from = 0;
            for to in cuts.into_iter().chain([rows.len()]).map(|cut| cut.min(rows.len())) {
                let part = pane_of(&rows[from..to]);
                from = to;
                // As it is written to a partial and read again.
                let part = part.map(|pane| {
                    let mut out = Encoder::default();
                    pane.save(&mut out);
                    let bytes = out.into_bytes();
                    let mut from = Decoder::new(&bytes);
                    let pane = PaneContacts::load(&mut from).unwrap();
                    from.finish().unwrap();
                    pane
                });
                match (&mut merged, part) {
                    (Some(merged), Some(part)) => merged.merge(&part),
                    (merged, part) => *merged = merged.take().or(part),
                }
            }
            prop_assert_eq!(tallies(&merged.unwrap()), expected);
        }
    }

    #[test]
    fn the_direction_is_told_by_the_address_that_all_records_share() {
        let row = |src: &str, dst: &str, bytes| {
            Row::Traffic(ContactRow {
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                src_port: 1,
                dst_port: 2,
                protocol: 17,
                packets: 1,
                bytes,
                start: UnixSeconds(120),
                end: UnixSeconds(130),
                action: Action::Accept,
                tcp_flags: None,
                vantage: Vantage::Unknown,
                interface_id: Some(b"eni-1"),
                account_id: None,
                vpc_id: None,
                subnet_id: None,
            })
        };
        let check = |rows: &[Row], expected: &[(&str, Option<[u64; 2]>)]| {
            let pane = pane_of(rows).unwrap();
            let tally = tallies(&pane).remove(&b"eni-1"[..]).unwrap();
            for (own, bytes) in expected {
                let told = tally.directions(Some(own.parse().unwrap()));
                assert_eq!(told.map(|told| told.map(|counts| counts.bytes)), *bytes, "{own}");
            }
            assert_eq!(tally.directions(None), None);
            tally.candidates().count()
        };
        let [own, one, other] = ["10.0.0.1", "10.0.0.2", "192.0.2.7"];
        let rows = [row(own, one, 1), row(one, own, 2), row(other, own, 4)];
        assert_eq!(check(&rows[..2], &[(own, Some([2, 1])), (one, Some([1, 2]))]), 2);
        assert_eq!(check(&rows, &[(own, Some([6, 1])), (one, None), (other, None)]), 1);
        let rows = [rows[0], rows[2], row(one, other, 8)];
        assert_eq!(check(&rows, &[(own, None), (one, None), (other, None)]), 0);
    }

    #[test]
    fn places_that_are_too_many_are_refused_and_counted() {
        let sent = Sent {
            from_client: true,
            rejected: false,
            vantage: Vantage::Egress,
            tcp_flags: None,
            client_port: 1,
            packets: 1,
            bytes: 1,
            start: UnixSeconds(120),
            end: UnixSeconds(130),
        };
        let mut tallies = InterfaceTallies::new(PaneIndex(2), 60, 3);
        for place in [Some(0), Some(2), Some(3), None] {
            tallies.add(place, &sent, None);
        }
        tallies.add_silence(Some(9), Silence::NoData, UnixSeconds(120), UnixSeconds(130));
        assert_eq!(tallies.refused_rows(), 3);
        let places: Vec<u32> = tallies.iter().map(|(place, _)| place).collect();
        assert_eq!(places, [0, 2]);
    }
}
