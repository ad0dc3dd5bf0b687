//! The usual rows of a batch, read for the contact table without a question per column.
//!
//! A row is plain if it stands for traffic between two IPv4 addresses and has every number that the
//! layout has. Which rows have them all is known from the columns' absent bits, 64 rows at a time; all other
//! rows are read by [`Columns`](super::contact_row::Columns), which says the same of plain rows, a step at a
//! time.

use super::contact_row::{Vantage, masked_flags};
use super::contact_slot::{NarrowKey, Sent};
use super::initiator::{self, Ends};
use crate::net::Addr;
use crate::record::{Action, ColumnView, FieldId, FlowBatch, LogStatus, Slot, TextView};
use crate::units::UnixSeconds;

/// A plain row.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainRow {
    pub(super) key: NarrowKey,
    pub(super) sent: Sent,
    /// As [`Columns::is_stray`](super::contact_row::Columns::is_stray).
    pub(super) is_stray: bool,
}

/// The columns of a batch that has all of the usual ones.
pub(super) struct PlainColumns<'a> {
    /// A bit for each row that lacks a value.
    lacking: &'a [u64],
    statuses: Option<&'a [LogStatus]>,
    /// By which the router went.
    routed: [&'a [Addr]; 2],
    /// Source and destination.
    addrs: [&'a [Addr]; 2],
    ports: [&'a [u16]; 2],
    protocols: &'a [u8],
    packets: &'a [u64],
    bytes: &'a [u64],
    starts: &'a [i64],
    ends: &'a [i64],
    actions: &'a [Action],
    flags: Option<&'a [u32]>,
    directions: Option<TextView<'a>>,
}

impl<'a> PlainColumns<'a> {
    /// The columns, unless the batch lacks one; `lacking` is room for a bit per row.
    pub(super) fn of(batch: &'a FlowBatch, lacking: &'a mut Vec<u64>) -> Option<Self> {
        lacking.clear();
        lacking.resize(batch.rows().div_ceil(64), 0);
        let statuses = batch.log_statuses().map(|column| raw(column, lacking));
        let routed = [
            raw(batch.addrs(FieldId::SrcAddr)?, lacking),
            raw(batch.addrs(FieldId::DstAddr)?, lacking),
        ];
        let packet_src = batch.addrs(FieldId::PktSrcAddr).map(|column| raw(column, lacking));
        let packet_dst = batch.addrs(FieldId::PktDstAddr).map(|column| raw(column, lacking));
        let ports = [
            raw(batch.ports(FieldId::SrcPort)?, lacking),
            raw(batch.ports(FieldId::DstPort)?, lacking),
        ];
        let protocols = raw(batch.protocols()?, lacking);
        let packets = raw(batch.counters(FieldId::Packets)?, lacking);
        let bytes = raw(batch.counters(FieldId::Bytes)?, lacking);
        let starts = raw(batch.seconds(FieldId::Start)?, lacking);
        let ends = raw(batch.seconds(FieldId::End)?, lacking);
        let actions = raw(batch.actions()?, lacking);
        let flags = batch.small_ints(FieldId::TcpFlags).map(|column| raw(column, lacking));
        Some(Self {
            lacking,
            statuses,
            routed,
            addrs: [packet_src.unwrap_or(routed[0]), packet_dst.unwrap_or(routed[1])],
            ports,
            protocols,
            packets,
            bytes,
            starts,
            ends,
            actions,
            flags,
            directions: batch.texts(&Slot::Known(FieldId::FlowDirection)),
        })
    }

    /// The row, if it is plain.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a row handed over in memory costs 3 ns more")]
    pub(super) fn row(&self, row: usize) -> Option<PlainRow> {
        let lacks = self.lacking[row / 64] >> (row % 64) & 1 == 1;
        if lacks || self.statuses.is_some_and(|statuses| statuses[row] != LogStatus::Ok) {
            return None;
        }
        let [src, dst] = [self.addrs[0][row], self.addrs[1][row]];
        let is_stray = src != self.routed[0][row] || dst != self.routed[1][row];
        let (src, dst) = (src.as_v4()?, dst.as_v4()?);
        let [src_port, dst_port] = self.ports.map(|ports| ports[row]);
        let (protocol, action) = (self.protocols[row], self.actions[row]);
        let tcp_flags = self.flags.and_then(|flags| masked_flags(protocol, flags[row]));
        let source_is_lower = src <= dst;
        let from_client = initiator::source_is_client(Ends {
            source_is_lower,
            src_port,
            dst_port,
            action,
            tcp_flags,
        });
        // Which one it is is a toss-up: selections, no branches.
        let pick = |one: u32, other: u32| std::hint::select_unpredictable(from_client, one, other);
        let swapped_ports = u32::from(dst_port) | u32::from(src_port) << 16;
        let ports = pick(swapped_ports.rotate_left(16), swapped_ports);
        let [port_low, port_high, client_low, client_high] = ports.to_le_bytes();
        let end = self.ends[row];
        Some(PlainRow {
            key: NarrowKey {
                client: pick(src, dst),
                server: pick(dst, src),
                port: u16::from_le_bytes([client_low, client_high]),
                protocol,
            },
            sent: Sent {
                from_client,
                rejected: action == Action::Reject,
                vantage: Vantage::of(self.directions.and_then(|column| column.get(row))),
                tcp_flags,
                client_port: u16::from_le_bytes([port_low, port_high]),
                packets: self.packets[row],
                bytes: self.bytes[row],
                start: UnixSeconds(self.starts[row].min(end)),
                end: UnixSeconds(end),
            },
            is_stray,
        })
    }
}

/// The values of a column, once the rows that have none are marked in `lacking`.
fn raw<'a, T: Copy>(column: ColumnView<'a, T>, lacking: &mut [u64]) -> &'a [T] {
    for (lacking, absent) in lacking.iter_mut().zip(column.absent_words()) {
        *lacking |= absent;
    }
    column.raw()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::contact_row::{CONTACT_COLUMNS, Columns};
    use super::*;
    use crate::record::{Layout, Parser, TextSlice};
    use crate::simd::Isa;

    /// A line, most of whose fields are as usual.
    fn line(choices: &[usize; 14]) -> String {
        let fields: [&[&str]; 14] = [
            &["10.0.0.1", "10.0.0.2", "2001:db8::1", "-"],
            &["10.0.0.2", "10.0.0.1", "2001:db8::2", "-"],
            &["10.0.0.1", "10.0.0.2", "192.0.2.7", "-"],
            &["10.0.0.2", "10.0.0.1", "192.0.2.7", "-"],
            &["443", "50000", "0", "-"],
            &["50000", "443", "0", "-"],
            &["6", "17", "1", "-"],
            &["18446744073709551615", "3", "0", "-"],
            &["500", "0", "18446744073709551615", "-"],
            &["90", "60", "120", "-"],
            &["100", "60", "70", "-"],
            &["ACCEPT", "REJECT", "ACCEPT", "-"],
            &["OK", "-", "NODATA", "SKIPDATA"],
            &["ingress 2", "egress 18", "- 0", "sideways -"],
        ];
        let fields: Vec<&str> =
            fields.iter().zip(choices).map(|(values, choice)| values[*choice]).collect();
        fields.join(" ")
    }

    const HEADER: &str = "srcaddr dstaddr pkt-srcaddr pkt-dstaddr srcport dstport protocol packets bytes \
         start end action log-status flow-direction tcp-flags";

    proptest! {
        #[test]
        fn a_plain_row_is_what_any_row_is(
            choices in prop::collection::vec(
                prop::array::uniform14(prop::sample::select(vec![0_usize, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3])),
                1..200,
            ),
            with_packet_addrs: bool,
        ) {
            let columns: Vec<&str> = HEADER.split(' ').collect();
            let is_wanted = |index: &usize| with_packet_addrs || !(2..4).contains(index);
            let cut = |fields: &str| {
                let fields: Vec<&str> = fields.split(' ').collect();
                (0..columns.len()).filter(is_wanted).map(|i| fields[i]).collect::<Vec<_>>().join(" ")
            };
            let text: String =
                choices.iter().map(|choices| cut(&line(choices)) + "\n").collect();
            let layout = Layout::from_text(&cut(HEADER)).unwrap();
            let mut parser = Parser::new(Isa::detect(), CONTACT_COLUMNS.iter().copied().collect());
            let text = TextSlice::from(text.into_bytes());
            let block = parser.parse(text.text(), text.range(), &layout.into());
            let mut lacking = Vec::new();
            for batch in &block.batches {
                let plain = PlainColumns::of(batch, &mut lacking).expect("all columns are there");
                let columns = Columns::of(batch).expect("all columns are there");
                for row in 0..batch.rows() {
                    let Some(plain) = plain.row(row) else { continue };
                    let any = columns.row(row).expect("a plain row is a contact's");
                    let (key, sent) = any.sent();
                    prop_assert_eq!(Some(plain.key), NarrowKey::of(&key));
                    prop_assert_eq!(plain.sent, sent);
                    prop_assert_eq!(plain.is_stray, columns.is_stray(&any, row));
                }
            }
        }
    }
}
