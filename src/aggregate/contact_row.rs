//! The part of a record that the contact table reads.

use super::contact::ContactKey;
use super::contact_slot::Sent;
use super::initiator::{self, Ends};
use super::interface_tally::Silence;
use super::place::PlaceRef;
use crate::net::Addr;
use crate::record::{Action, ColumnView, FieldId, FlowBatch, LogStatus, Slot, TextView};
use crate::units::UnixSeconds;

/// The columns that contacts are made of. Only the addresses and `end` are indispensable.
pub const CONTACT_COLUMNS: &[FieldId] = &[
    FieldId::SrcAddr,
    FieldId::DstAddr,
    FieldId::SrcPort,
    FieldId::DstPort,
    FieldId::Protocol,
    FieldId::Packets,
    FieldId::Bytes,
    FieldId::Start,
    FieldId::End,
    FieldId::Action,
    FieldId::LogStatus,
    FieldId::TcpFlags,
    FieldId::PktSrcAddr,
    FieldId::PktDstAddr,
    FieldId::FlowDirection,
    FieldId::InterfaceId,
    FieldId::AccountId,
    FieldId::VpcId,
    FieldId::SubnetId,
];

/// At which end of the traffic a record was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vantage {
    /// No `flow-direction`.
    #[default]
    Unknown,
    /// `ingress`: the destination's interface.
    Ingress,
    /// `egress`: the source's interface.
    Egress,
}

impl Vantage {
    /// What `flow-direction` says.
    #[inline]
    pub(super) fn of(direction: Option<&[u8]>) -> Self {
        match direction {
            Some(b"ingress") => Self::Ingress,
            Some(b"egress") => Self::Egress,
            _ => Self::Unknown,
        }
    }
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct ContactRow<'a> {
    /// Source: `pkt-srcaddr` if the record has it, so that NAT and pods don't hide behind an interface.
    pub src: Addr,
    /// Destination: `pkt-dstaddr` if the record has it.
    pub dst: Addr,
    /// `srcport`, 0 if absent.
    pub src_port: u16,
    /// `dstport`, 0 if absent.
    pub dst_port: u16,
    /// `protocol`, 0 if absent.
    pub protocol: u8,
    /// `packets`
    pub packets: u64,
    /// `bytes`
    pub bytes: u64,
    /// `start`, or `end` if absent.
    pub start: UnixSeconds,
    /// `end`
    pub end: UnixSeconds,
    /// `action`; ACCEPT if absent.
    pub action: Action,
    /// `tcp-flags` of a TCP record.
    pub tcp_flags: Option<u8>,
    /// `flow-direction`
    pub vantage: Vantage,
    /// `interface-id`
    pub interface_id: Option<&'a [u8]>,
    /// `account-id`
    pub account_id: Option<&'a [u8]>,
    /// `vpc-id`
    pub vpc_id: Option<&'a [u8]>,
    /// `subnet-id`
    pub subnet_id: Option<&'a [u8]>,
}

impl<'a> ContactRow<'a> {
    /// Which contact the record belongs to, and what it says of it.
    #[inline]
    pub(super) fn sent(&self) -> (ContactKey, Sent) {
        let from_client = initiator::source_is_client(Ends {
            source_is_lower: self.src <= self.dst,
            src_port: self.src_port,
            dst_port: self.dst_port,
            action: self.action,
            tcp_flags: self.tcp_flags,
        });
        let (client, server, client_port, port) = if from_client {
            (self.src, self.dst, self.src_port, self.dst_port)
        } else {
            (self.dst, self.src, self.dst_port, self.src_port)
        };
        let sent = Sent {
            from_client,
            rejected: self.action == Action::Reject,
            vantage: self.vantage,
            tcp_flags: self.tcp_flags,
            client_port,
            packets: self.packets,
            bytes: self.bytes,
            start: self.start.min(self.end),
            end: self.end,
        };
        (ContactKey { client, server, protocol: self.protocol, port }, sent)
    }

    #[inline]
    pub(super) const fn place(&self) -> PlaceRef<'a> {
        PlaceRef([self.interface_id, self.account_id, self.vpc_id, self.subnet_id])
    }
}

/// One record that stands for no traffic.
#[derive(Clone, Copy, Debug)]
pub struct SilenceRow<'a> {
    /// What it says.
    pub silence: Silence,
    /// `start`, or `end` if absent.
    pub start: UnixSeconds,
    /// `end`
    pub end: UnixSeconds,
    /// `interface-id`
    pub interface_id: Option<&'a [u8]>,
    /// `account-id`
    pub account_id: Option<&'a [u8]>,
    /// `vpc-id`
    pub vpc_id: Option<&'a [u8]>,
    /// `subnet-id`
    pub subnet_id: Option<&'a [u8]>,
}

impl<'a> SilenceRow<'a> {
    pub(super) const fn place(&self) -> PlaceRef<'a> {
        PlaceRef([self.interface_id, self.account_id, self.vpc_id, self.subnet_id])
    }
}

const TCP: u8 = 6;

/// The flags of a TCP record. Transit Gateway records carry more than fit the meaning used here.
#[inline]
pub(super) fn masked_flags(protocol: u8, bits: u32) -> Option<u8> {
    (protocol == TCP).then(|| u8::try_from(bits & 0x17).expect("masked to five bits"))
}

/// The columns of a batch that contacts are made of.
pub(super) struct Columns<'a> {
    srcs: ColumnView<'a, Addr>,
    dsts: ColumnView<'a, Addr>,
    ends: ColumnView<'a, i64>,
    statuses: Option<ColumnView<'a, LogStatus>>,
    pkt_srcs: Option<ColumnView<'a, Addr>>,
    pkt_dsts: Option<ColumnView<'a, Addr>>,
    src_ports: Option<ColumnView<'a, u16>>,
    dst_ports: Option<ColumnView<'a, u16>>,
    protocols: Option<ColumnView<'a, u8>>,
    packets: Option<ColumnView<'a, u64>>,
    bytes: Option<ColumnView<'a, u64>>,
    starts: Option<ColumnView<'a, i64>>,
    actions: Option<ColumnView<'a, Action>>,
    flags: Option<ColumnView<'a, u32>>,
    directions: Option<TextView<'a>>,
    interfaces: Option<TextView<'a>>,
    accounts: Option<TextView<'a>>,
    vpcs: Option<TextView<'a>>,
    subnets: Option<TextView<'a>>,
}

impl<'a> Columns<'a> {
    /// The columns, unless the batch lacks an indispensable one.
    pub(super) fn of(batch: &'a FlowBatch) -> Option<Self> {
        let text = |field| batch.texts(&Slot::Known(field));
        Some(Self {
            srcs: batch.addrs(FieldId::SrcAddr)?,
            dsts: batch.addrs(FieldId::DstAddr)?,
            ends: batch.seconds(FieldId::End)?,
            statuses: batch.log_statuses(),
            pkt_srcs: batch.addrs(FieldId::PktSrcAddr),
            pkt_dsts: batch.addrs(FieldId::PktDstAddr),
            src_ports: batch.ports(FieldId::SrcPort),
            dst_ports: batch.ports(FieldId::DstPort),
            protocols: batch.protocols(),
            packets: batch.counters(FieldId::Packets),
            bytes: batch.counters(FieldId::Bytes),
            starts: batch.seconds(FieldId::Start),
            actions: batch.actions(),
            flags: batch.small_ints(FieldId::TcpFlags),
            directions: text(FieldId::FlowDirection),
            interfaces: text(FieldId::InterfaceId),
            accounts: text(FieldId::AccountId),
            vpcs: text(FieldId::VpcId),
            subnets: text(FieldId::SubnetId),
        })
    }

    /// Whether the router, which goes by the packet's last addresses, took another pair for the record's.
    #[inline]
    pub(super) fn is_stray(&self, contact_row: &ContactRow<'_>, row: usize) -> bool {
        (self.pkt_srcs.is_some() && self.srcs.get(row) != Some(contact_row.src))
            || (self.pkt_dsts.is_some() && self.dsts.get(row) != Some(contact_row.dst))
    }

    /// Where the record of `row` was made.
    #[inline]
    pub(super) fn place(&self, row: usize) -> PlaceRef<'a> {
        let text = |column: Option<TextView<'a>>| column.and_then(|column| column.get(row));
        PlaceRef([text(self.interfaces), text(self.accounts), text(self.vpcs), text(self.subnets)])
    }

    /// The record of `row`, if it stands for no traffic at a known time.
    #[cold]
    pub(super) fn silence(&self, row: usize) -> Option<SilenceRow<'a>> {
        let silence = match value(self.statuses, row)? {
            LogStatus::Ok => return None,
            LogStatus::NoData => Silence::NoData,
            LogStatus::SkipData => Silence::SkipData,
        };
        let end = self.ends.get(row)?;
        let PlaceRef([interface_id, account_id, vpc_id, subnet_id]) = self.place(row);
        Some(SilenceRow {
            silence,
            start: UnixSeconds(value(self.starts, row).unwrap_or(end).min(end)),
            end: UnixSeconds(end),
            interface_id,
            account_id,
            vpc_id,
            subnet_id,
        })
    }

    /// The record of `row`, if it stands for traffic between two addresses at a known time.
    #[inline]
    pub(super) fn row(&self, row: usize) -> Option<ContactRow<'a>> {
        if value(self.statuses, row).is_some_and(|status| status != LogStatus::Ok) {
            return None;
        }
        let (src, dst, end) = (self.srcs.get(row)?, self.dsts.get(row)?, self.ends.get(row)?);
        let protocol = value(self.protocols, row).unwrap_or(0);
        let tcp_flags = value(self.flags, row).and_then(|bits| masked_flags(protocol, bits));
        let text = |column: Option<TextView<'a>>| column.and_then(|column| column.get(row));
        Some(ContactRow {
            src: value(self.pkt_srcs, row).unwrap_or(src),
            dst: value(self.pkt_dsts, row).unwrap_or(dst),
            src_port: value(self.src_ports, row).unwrap_or(0),
            dst_port: value(self.dst_ports, row).unwrap_or(0),
            protocol,
            packets: value(self.packets, row).unwrap_or(0),
            bytes: value(self.bytes, row).unwrap_or(0),
            start: UnixSeconds(value(self.starts, row).unwrap_or(end)),
            end: UnixSeconds(end),
            action: value(self.actions, row).unwrap_or_default(),
            tcp_flags,
            vantage: Vantage::of(text(self.directions)),
            interface_id: text(self.interfaces),
            account_id: text(self.accounts),
            vpc_id: text(self.vpcs),
            subnet_id: text(self.subnets),
        })
    }
}

/// The value of a row in a column that may not be there.
#[inline]
fn value<T: Copy>(column: Option<ColumnView<'_, T>>, row: usize) -> Option<T> {
    column.and_then(|column| column.get(row))
}
