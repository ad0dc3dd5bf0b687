//! Exact totals of a run: lines by what they were, actions, bytes, packets, protocols, time span.
//!
//! Parse workers make a [`Totals`] per block and the sequencer adds them up; sums are 128 bits wide, so
//! no sequence of 64-bit counters can overflow them.

use std::ops::Range;

use super::row_bits::{WORD_ROWS, least_and_greatest, places, sum, where_not};
use crate::codec::{COUNT_MAX, DecodeError, Decoder, Encoder};
use crate::record::{Action, ColumnView, Faults, FieldId, FlowBatch, LogStatus};
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

impl Sums {
    fn add(&mut self, flows: u64, packets: u128, bytes: u128) {
        self.flows += flows;
        self.packets += packets;
        self.bytes += bytes;
    }
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

    /// Adds the rows of `batch`, or those in `kept` (ascending); the others count as filtered.
    pub fn add_batch(&mut self, batch: &FlowBatch, kept: Option<&[u32]>) {
        match kept {
            None => self.add_columns(batch),
            Some(rows) => {
                self.filtered += (batch.rows() - rows.len()) as u64;
                self.add_rows(batch, rows.iter().map(|row| *row as usize));
            }
        }
    }

    /// Adds all rows, a column at a time.
    fn add_columns(&mut self, batch: &FlowBatch) {
        let statuses = batch.log_statuses();
        let actions = batch.actions();
        let protocols = batch.protocols();
        let bytes = Counter::of(batch, FieldId::Bytes);
        let packets = Counter::of(batch, FieldId::Packets);
        for first in (0..batch.rows()).step_by(WORD_ROWS) {
            let end = batch.rows().min(first + WORD_ROWS);
            let all = u64::MAX >> (WORD_ROWS - (end - first));
            let mut traffic = all;
            if let Some(column) = &statuses {
                let values = &column.raw()[first..end];
                let other = where_not(values, |status| status as u8, LogStatus::Ok as u8);
                traffic &= !(other & !absent_word(column, first));
                let nodata = |place: &usize| values[*place] == LogStatus::NoData;
                let nodata_count = places(all & !traffic).filter(nodata).count() as u64;
                self.nodata += nodata_count;
                self.skipdata += u64::from((all & !traffic).count_ones()) - nodata_count;
            }
            self.ok += u64::from(traffic.count_ones());
            if let Some(column) = &actions {
                let values = &column.raw()[first..end];
                let rejected = where_not(values, |action| action as u8, Action::Accept as u8);
                let present = all & !absent_word(column, first);
                self.reject += u64::from((rejected & present).count_ones());
                self.accept += u64::from((present & !rejected).count_ones());
            }
            let bytes_here = bytes.sum(first..end);
            let packets_here = packets.sum(first..end);
            self.bytes += bytes_here;
            self.packets += packets_here;
            let Some(column) = &protocols else { continue };
            // TCP, which most records are, has what the others leave.
            let values = &column.raw()[first..end];
            let traffic = traffic & !absent_word(column, first);
            let others = traffic & where_not(values, |protocol| protocol, TCP);
            let tcp = traffic & !others;
            let mut left =
                Sums { flows: tcp.count_ones().into(), packets: packets_here, bytes: bytes_here };
            for place in places(all & !tcp) {
                let packets = u128::from(packets.get(first + place));
                let bytes = u128::from(bytes.get(first + place));
                left.packets -= packets;
                left.bytes -= bytes;
                if others >> place & 1 == 1 {
                    self.by_protocol[usize::from(values[place])].add(1, packets, bytes);
                }
            }
            self.by_protocol[usize::from(TCP)].add(left.flows, left.packets, left.bytes);
        }
        if let Some((first, _)) = range_of(batch, FieldId::Start) {
            self.first_start = least(self.first_start, Some(first));
        }
        if let Some((_, last)) = range_of(batch, FieldId::End) {
            self.last_end = self.last_end.max(Some(last));
        }
    }

    /// Adds some rows, one after the other.
    fn add_rows(&mut self, batch: &FlowBatch, rows: impl Iterator<Item = usize>) {
        let statuses = batch.log_statuses();
        let actions = batch.actions();
        let byte_counts = batch.counters(FieldId::Bytes);
        let packet_counts = batch.counters(FieldId::Packets);
        let starts = batch.seconds(FieldId::Start);
        let ends = batch.seconds(FieldId::End);
        let protocols = batch.protocols();
        for row in rows {
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
                self.by_protocol[usize::from(protocol)].add(1, packets, bytes);
            }
        }
    }

    /// Saves them.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        for count in [
            self.ok,
            self.nodata,
            self.skipdata,
            self.headers,
            self.late,
            self.control,
            self.filtered,
            self.accept,
            self.reject,
        ] {
            out.u64(count);
        }
        self.faults.save_counts(out);
        out.u128(self.bytes);
        out.u128(self.packets);
        out.option(self.first_start, |out, first| out.i64(first.0));
        out.option(self.last_end, |out, last| out.i64(last.0));
        for sums in &self.by_protocol {
            out.u64(sums.flows);
            out.u128(sums.packets);
            out.u128(sums.bytes);
        }
    }

    /// What [`Self::save`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("the totals", 1..=1)?;
        let mut totals = Self {
            ok: from.counted()?,
            nodata: from.counted()?,
            skipdata: from.counted()?,
            headers: from.counted()?,
            late: from.counted()?,
            control: from.counted()?,
            filtered: from.counted()?,
            accept: from.counted()?,
            reject: from.counted()?,
            faults: Faults::load_counts(from)?,
            bytes: wide(from)?,
            packets: wide(from)?,
            first_start: from.option(Decoder::i64)?.map(UnixSeconds),
            last_end: from.option(Decoder::i64)?.map(UnixSeconds),
            ..Self::default()
        };
        for sums in &mut totals.by_protocol {
            *sums = Sums { flows: from.counted()?, packets: wide(from)?, bytes: wide(from)? };
        }
        Ok(totals)
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
            sums.add(added.flows, added.packets, added.bytes);
        }
    }
}

/// A sum that as many 64-bit numbers can have as can be counted.
fn wide(from: &mut Decoder<'_>) -> Result<u128, DecodeError> {
    let sum_max = u128::from(COUNT_MAX) * u128::from(u64::MAX);
    Some(from.u128()?).filter(|sum| *sum <= sum_max).ok_or(DecodeError::Invalid("sum"))
}

/// IANA's number of TCP.
const TCP: u8 = 6;

/// A counter column, or none; absent is 0.
struct Counter<'a>(Option<ColumnView<'a, u64>>);

impl<'a> Counter<'a> {
    fn of(batch: &'a FlowBatch, field: FieldId) -> Self {
        Self(batch.counters(field))
    }

    fn get(&self, row: usize) -> u64 {
        self.0.and_then(|column| column.get(row)).unwrap_or(0)
    }

    /// The sum over the rows of one word: of all values, less what stands in absent places.
    fn sum(&self, rows: Range<usize>) -> u128 {
        let Some(column) = &self.0 else { return 0 };
        let values = &column.raw()[rows.start..rows.end];
        let meaningless = places(absent_word(column, rows.start)).map(|place| values[place]);
        sum(values) - meaningless.map(u128::from).sum::<u128>()
    }
}

/// The absent bits of the word that begins at `first`.
fn absent_word<T: Copy>(column: &ColumnView<'_, T>, first: usize) -> u64 {
    column.absent_words().get(first / WORD_ROWS).copied().unwrap_or(0)
}

/// The first and the last moment of a column.
fn range_of(batch: &FlowBatch, field: FieldId) -> Option<(UnixSeconds, UnixSeconds)> {
    let column = batch.seconds(field)?;
    let (first, last) = if column.is_dense() {
        least_and_greatest(column.raw())?
    } else {
        let present = || (0..batch.rows()).filter_map(|row| column.get(row));
        present().min().zip(present().max())?
    };
    Some((UnixSeconds(first), UnixSeconds(last)))
}

fn least(a: Option<UnixSeconds>, b: Option<UnixSeconds>) -> Option<UnixSeconds> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Layout, Parser, TextSlice};
    use crate::simd::Isa;

    fn totals_of(text: &str) -> Totals {
        let mut parser = Parser::new(Isa::detect(), TOTALS_COLUMNS.into_iter().collect());
        let text = TextSlice::from(text.as_bytes().to_vec());
        let block = parser.parse(text.text(), text.range(), &Layout::default_v2());
        let mut totals = Totals { headers: block.header_count, ..Totals::default() };
        block.batches.iter().for_each(|batch| totals.add_batch(batch, None));
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

    proptest! {
        #[test]
        fn columns_equal_rows(
            rows in prop::collection::vec(
                (0_usize..8, 0_usize..6, 0_u64..4, any::<u64>(), 0_usize..4, any::<[u32; 2]>(), any::<u8>()),
                0..200,
            ),
        ) {
            let lines = rows.iter().map(|(status, protocol, kind, big, action, times, gaps)| {
                let or_gap = |bit: u8, value: String| {
                    if gaps >> bit & 1 == 1 && gaps >> 7 == 1 { "-".to_owned() } else { value }
                };
                let status = ["OK", "OK", "OK", "OK", "-", "OK", "NODATA", "SKIPDATA"][*status];
                let protocol = ["6", "6", "6", "17", "-", "1"][*protocol];
                let action = ["ACCEPT", "REJECT", "ACCEPT", "-"][*action];
                let bytes = or_gap(0, if *kind == 0 { big.to_string() } else { kind.to_string() });
                let packets = or_gap(1, if *kind == 1 { big.to_string() } else { "7".to_owned() });
                let (start, end) = (or_gap(2, times[0].to_string()), or_gap(3, times[1].to_string()));
                format!("2 1 eni-1 - - 1 2 {protocol} {packets} {bytes} {start} {end} {action} {status}\n")
            });
            let text = lines.collect::<Vec<String>>().concat();
            let mut parser = Parser::new(Isa::detect(), TOTALS_COLUMNS.into_iter().collect());
            let text = TextSlice::from(text.into_bytes());
            let block = parser.parse(text.text(), text.range(), &Layout::default_v2());
            let (mut columns, mut plain) = (Totals::default(), Totals::default());
            for batch in &block.batches {
                columns.add_batch(batch, None);
                plain.add_rows(batch, 0..batch.rows());
            }
            prop_assert_eq!(&columns, &plain);
            columns.faults.add_counts(&block.faults);
            let mut out = Encoder::default();
            columns.save(&mut out);
            let bytes = out.into_bytes();
            let mut from = Decoder::new(&bytes);
            prop_assert_eq!(Totals::load(&mut from), Ok(columns));
            prop_assert_eq!(from.finish(), Ok(()));
            prop_assert!(Totals::load(&mut Decoder::new(&bytes[..bytes.len() - 1])).is_err());
        }
    }

    #[test]
    fn filtered_rows_are_counted_as_such() {
        let line = "2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 2 3 4 ACCEPT OK\n".repeat(3);
        let mut parser = Parser::new(Isa::detect(), TOTALS_COLUMNS.into_iter().collect());
        let line = TextSlice::from(line.into_bytes());
        let block = parser.parse(line.text(), line.range(), &Layout::default_v2());
        let mut totals = Totals::default();
        totals.add_batch(&block.batches[0], Some(&[1]));
        assert_eq!((totals.ok, totals.filtered, totals.bytes), (1, 2, 2));
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
