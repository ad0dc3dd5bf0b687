//! Exact totals of a run: lines by what they were, actions, bytes, packets, protocols, time span.
//!
//! Parse workers make a [`Totals`] per block and the sequencer adds them up; sums are 128 bits wide, so
//! no sequence of 64-bit counters can overflow them.

use crate::record::{Action, Faults, FieldId, FlowBatch, LogStatus};
use crate::units::UnixSeconds;

/// The columns that [`Totals::add_batch`] reads.
pub const TOTALS_COLUMNS: [FieldId; 7] = [
    FieldId::Protocol,
    FieldId::Packets,
    FieldId::Bytes,
    FieldId::Start,
    FieldId::End,
    FieldId::Action,
    FieldId::LogStatus,
];

/// Flows, packets and bytes of a group of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Records.
    pub flows: u64,
    /// Packets.
    pub packets: u128,
    /// Bytes.
    pub bytes: u128,
}

/// The totals of some records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Records that stand for traffic.
    pub ok: u64,
    /// Records that say there was none.
    pub nodata: u64,
    /// Records that stand for a gap.
    pub skipdata: u64,
    /// Header lines.
    pub headers: u64,
    /// Records later than their input's watermark.
    pub late: u64,
    /// Control messages of CloudWatch Logs.
    pub control: u64,
    /// Good records that the job's filter left out; they are in no other total.
    pub filtered: u64,
    /// Lines and records that were not taken.
    pub faults: Faults,
    /// Records with action `ACCEPT`.
    pub accept: u64,
    /// Records with action `REJECT`.
    pub reject: u64,
    /// Bytes of all good records.
    pub bytes: u128,
    /// Packets of all good records.
    pub packets: u128,
    /// Least `start`.
    pub first_start: Option<UnixSeconds>,
    /// Greatest `end`.
    pub last_end: Option<UnixSeconds>,
    /// By IANA protocol number; 256 places.
    pub by_protocol: Box<[Sums]>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            ok: 0,
            nodata: 0,
            skipdata: 0,
            headers: 0,
            late: 0,
            control: 0,
            filtered: 0,
            faults: Faults::default(),
            accept: 0,
            reject: 0,
            bytes: 0,
            packets: 0,
            first_start: None,
            last_end: None,
            by_protocol: vec![Sums::default(); 256].into(),
        }
    }
}

impl Totals {
    /// Lines that were records, good or not.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.ok + self.nodata + self.skipdata + self.faults.total()
    }

    /// Adds the rows of `batch` for which `keep` holds.
    pub fn add_batch(&mut self, batch: &FlowBatch, keep: impl Fn(usize) -> bool) {
        let statuses = batch.log_statuses();
        let actions = batch.actions();
        let byte_counts = batch.counters(FieldId::Bytes);
        let packet_counts = batch.counters(FieldId::Packets);
        let starts = batch.seconds(FieldId::Start);
        let ends = batch.seconds(FieldId::End);
        let protocols = batch.protocols();
        for row in 0..batch.rows() {
            if !keep(row) {
                self.filtered += 1;
                continue;
            }
            let status = statuses.and_then(|column| column.get(row)).unwrap_or_default();
            match status {
                LogStatus::Ok => self.ok += 1,
                LogStatus::NoData => self.nodata += 1,
                LogStatus::SkipData => self.skipdata += 1,
            }
            match actions.and_then(|column| column.get(row)) {
                Some(Action::Accept) => self.accept += 1,
                Some(Action::Reject) => self.reject += 1,
                None => {}
            }
            let bytes = u128::from(byte_counts.and_then(|column| column.get(row)).unwrap_or(0));
            let packets = u128::from(packet_counts.and_then(|column| column.get(row)).unwrap_or(0));
            self.bytes += bytes;
            self.packets += packets;
            if let Some(start) = starts.and_then(|column| column.get(row)).map(UnixSeconds) {
                self.first_start = Some(self.first_start.map_or(start, |first| first.min(start)));
            }
            if let Some(end) = ends.and_then(|column| column.get(row)).map(UnixSeconds) {
                self.last_end = Some(self.last_end.map_or(end, |last| last.max(end)));
            }
            let protocol = protocols.and_then(|column| column.get(row));
            if let (LogStatus::Ok, Some(protocol)) = (status, protocol) {
                let sums = &mut self.by_protocol[usize::from(protocol)];
                sums.flows += 1;
                sums.packets += packets;
                sums.bytes += bytes;
            }
        }
    }

    /// Adds other totals; samples of faults stay where they are.
    pub fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.nodata += other.nodata;
        self.skipdata += other.skipdata;
        self.headers += other.headers;
        self.late += other.late;
        self.control += other.control;
        self.filtered += other.filtered;
        self.faults.add_counts(&other.faults);
        self.accept += other.accept;
        self.reject += other.reject;
        self.bytes += other.bytes;
        self.packets += other.packets;
        self.first_start = least(self.first_start, other.first_start);
        self.last_end = self.last_end.max(other.last_end);
        for (sums, added) in self.by_protocol.iter_mut().zip(&other.by_protocol) {
            sums.flows += added.flows;
            sums.packets += added.packets;
            sums.bytes += added.bytes;
        }
    }
}

fn least(a: Option<UnixSeconds>, b: Option<UnixSeconds>) -> Option<UnixSeconds> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Layout, Parser, TextSlice};
    use crate::simd::Isa;

    fn totals_of(text: &str) -> Totals {
        let mut parser = Parser::new(Isa::detect(), TOTALS_COLUMNS.into_iter().collect());
        let text = TextSlice::from(text.as_bytes().to_vec());
        let block = parser.parse(text.text(), text.range(), &Layout::default_v2());
        let mut totals = Totals { headers: block.header_count, ..Totals::default() };
        block.batches.iter().for_each(|batch| totals.add_batch(batch, |_| true));
        totals.faults.add_counts(&block.faults);
        totals
    }

    #[test]
    fn sums_pass_64_bits() {
        let line = "2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 18446744073709551615 18446744073709551615 1 2 ACCEPT OK\n";
        let totals = totals_of(&line.repeat(3));
        assert_eq!(totals.bytes, 3 * u128::from(u64::MAX));
        assert_eq!(totals.by_protocol[6].packets, 3 * u128::from(u64::MAX));
    }

    #[test]
    fn lines_are_counted_by_what_they_are() {
        let totals = totals_of(
            "2 1 eni-1 - - - - - - - 10 70 - NODATA\n\
             2 1 eni-1 - - - - - - - 5 60 - SKIPDATA\n\
             2 1 eni-1 10.0.0.1 10.0.0.2 1 2 17 3 4 - - REJECT -\n\
             2 1 eni-1 10.0.0.1 10.0.0.2 1 2 17 3 4 - - DENY OK\n\
             \n",
        );
        assert_eq!((totals.nodata, totals.skipdata, totals.ok), (1, 1, 1));
        assert_eq!((totals.records(), totals.faults.total()), (4, 1));
        assert_eq!((totals.accept, totals.reject), (0, 1));
        assert_eq!(totals.first_start, Some(UnixSeconds(5)));
        assert_eq!(totals.last_end, Some(UnixSeconds(70)));
    }

    #[test]
    fn merging_equals_adding_everything_to_one() {
        let lines = "2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 2 3 4 ACCEPT OK\n\
                     2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 2 1 9 REJECT OK\n";
        let (first, second) = lines.split_at(lines.find('\n').unwrap() + 1);
        let mut merged = totals_of(first);
        merged.merge(&totals_of(second));
        assert_eq!(merged, totals_of(lines));
    }
}
