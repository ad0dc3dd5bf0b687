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
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::simd;
use crate::units::{PaneIndex, UnixSeconds};

/// Records, and what they count.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowCounts {
    /// `bytes`
    pub bytes: u64,
    /// `packets`
    pub packets: u64,
    /// Records.
    pub flows: u32,
    /// Those of them that were rejected.
    pub rejected: u32,
}

impl FlowCounts {
    #[inline]
    const fn of(sent: &Sent) -> Self {
        Self { bytes: sent.bytes, packets: sent.packets, flows: 1, rejected: sent.rejected as u32 }
    }

    /// These and `other` together; no count goes beyond its type.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
            flows: self.flows.saturating_add(other.flows),
            rejected: self.rejected.saturating_add(other.rejected),
        }
    }

    /// What is left of these without `other`.
    const fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            packets: self.packets.saturating_sub(other.packets),
            flows: self.flows.saturating_sub(other.flows),
            rejected: self.rejected.saturating_sub(other.rejected),
        }
    }
}

/// An address that may be the interface's own, and what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    addr: u32,
    sent: FlowCounts,
}

/// What one interface logged in a pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceTally {
    /// Records whose `flow-direction` says that the interface received.
    pub received: FlowCounts,
    /// Records whose `flow-direction` says that the interface sent.
    pub sent: FlowCounts,
    /// IPv4 records without `flow-direction`.
    pub undirected: FlowCounts,
    /// IPv6 records without `flow-direction`.
    pub undirected_wide: FlowCounts,
    /// In order; none if no address is in all undirected records.
    candidates: Vec<Candidate>,
    /// NODATA records.
    pub nodata_records: u32,
    /// SKIPDATA records.
    pub skipdata_records: u32,
    /// Earliest `start` and latest `end` of SKIPDATA records.
    pub skipped: Option<(UnixSeconds, UnixSeconds)>,
    /// Earliest `start` of any record.
    pub first_start: UnixSeconds,
    /// Latest `end` of any record.
    pub last_end: UnixSeconds,
    /// The longest time from `start` to `end`: no longer than the aggregation interval, and nearly as long if
    /// there is much traffic.
    pub span_seconds: u32,
}

impl InterfaceTally {
    /// Addresses that all undirected records have in common: one, unless there was only one peer, or
    /// the interface passes on what others send.
    pub fn candidates(&self) -> impl Iterator<Item = Addr> {
        self.candidates.iter().map(|candidate| Addr::v4(candidate.addr))
    }

    /// What was received and sent, if that can be told with `own` for the interface's address. IPv6 records
    /// without direction are in neither.
    #[must_use]
    pub fn directions(&self, own: Option<Addr>) -> Option<[FlowCounts; 2]> {
        if self.undirected.flows == 0 {
            return Some([self.received, self.sent]);
        }
        let own = own?.as_v4()?;
        let candidate = self.candidates.iter().find(|candidate| candidate.addr == own)?;
        let received = self.undirected.minus(candidate.sent);
        Some([self.received.plus(received), self.sent.plus(candidate.sent)])
    }

    /// Traffic in any direction.
    #[must_use]
    pub const fn traffic(&self) -> FlowCounts {
        self.received.plus(self.sent).plus(self.undirected).plus(self.undirected_wide)
    }

    /// Adds what the same interface logged in the same pane elsewhere.
    pub fn merge(&mut self, other: &Self) {
        let (was_empty, is_empty) = (self.undirected.flows == 0, other.undirected.flows == 0);
        if was_empty {
            self.candidates.clone_from(&other.candidates);
        } else if !is_empty {
            self.candidates.retain_mut(|candidate| {
                let of_other = other.candidates.iter().find(|other| other.addr == candidate.addr);
                let sent = of_other.map(|other| candidate.sent.plus(other.sent));
                candidate.sent = sent.unwrap_or_default();
                sent.is_some()
            });
        }
        for (counts, others) in [
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
            (&mut self.undirected, other.undirected),
            (&mut self.undirected_wide, other.undirected_wide),
        ] {
            *counts = counts.plus(others);
        }
        self.nodata_records = self.nodata_records.saturating_add(other.nodata_records);
        self.skipdata_records = self.skipdata_records.saturating_add(other.skipdata_records);
        self.skipped = match (self.skipped, other.skipped) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        self.first_start = self.first_start.min(other.first_start);
        self.last_end = self.last_end.max(other.last_end);
        self.span_seconds = self.span_seconds.max(other.span_seconds);
    }
}

/// What a record says of its interface beside traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// NODATA: there was no traffic.
    NoData,
    /// SKIPDATA: records were lost.
    SkipData,
}

/// One of an interface's lines: what nearly all rows add to. Times are counted from the pane's end back to the
/// start, and from its start on to the end, so that 0 stands for nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct Line {
    received: FlowCounts,
    sent: FlowCounts,
    before_end: u32,
    last_end: u32,
    span_seconds: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    #[inline]
    fn see(&mut self, start: UnixSeconds, end: UnixSeconds, pane: &PaneTime) {
        self.before_end = self.before_end.max(seconds_between(start, pane.end));
        self.last_end = self.last_end.max(seconds_between(pane.start, end).saturating_add(1));
        self.span_seconds = self.span_seconds.max(seconds_between(start, end));
    }
}

/// What only some interfaces need.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct Beside {
    undirected: FlowCounts,
    undirected_wide: FlowCounts,
    candidate_sent: [FlowCounts; 2],
    candidates: [u32; 2],
    candidate_count: u32,
    nodata_records: u32,
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

    #[inline(never)]
    fn strike_out(&mut self, is_out: impl Fn(u32) -> bool) {
        let list = self.candidates.into_iter().zip(self.candidate_sent);
        let left: Vec<_> = list
            .take(self.candidate_count as usize)
            .filter(|(candidate, _)| !is_out(*candidate))
            .collect();
        self.put_candidates(left.into_iter());
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

#[inline]
fn seconds_between(from: UnixSeconds, to: UnixSeconds) -> u32 {
    u32::try_from(to.0.saturating_sub(from.0).max(0)).unwrap_or(u32::MAX)
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
        let side = match sent.vantage {
            Vantage::Ingress => &mut line.received,
            Vantage::Egress => &mut line.sent,
            Vantage::Unknown => return self.add_undirected(number, counts, ends),
        };
        *side = side.plus(counts);
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
            unused: 0,
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
