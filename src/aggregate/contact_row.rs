//! The part of a record that the contact table reads.

use super::initiator::{self, Ends};
use super::place::PlaceRef;
use crate::net::Addr;
use crate::record::{Action, FieldId, FlowBatch, LogStatus, Slot};
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
    pub(super) fn source_is_client(&self) -> bool {
        initiator::source_is_client(&Ends {
            src: self.src,
            dst: self.dst,
            src_port: self.src_port,
            dst_port: self.dst_port,
            action: self.action,
            tcp_flags: self.tcp_flags,
        })
    }

    pub(super) const fn place(&self) -> PlaceRef<'a> {
        PlaceRef([self.interface_id, self.account_id, self.vpc_id, self.subnet_id])
    }
}

const TCP: u8 = 6;

/// Calls `take` for each of `rows` that stands for traffic between two addresses at a known time.
pub(super) fn for_each_row<'a>(
    batch: &'a FlowBatch,
    rows: impl IntoIterator<Item = usize>,
    mut take: impl FnMut(&ContactRow<'a>),
) {
    let (Some(srcs), Some(dsts), Some(ends)) =
        (batch.addrs(FieldId::SrcAddr), batch.addrs(FieldId::DstAddr), batch.seconds(FieldId::End))
    else {
        return;
    };
    let statuses = batch.log_statuses();
    let pkt_srcs = batch.addrs(FieldId::PktSrcAddr);
    let pkt_dsts = batch.addrs(FieldId::PktDstAddr);
    let src_ports = batch.ports(FieldId::SrcPort);
    let dst_ports = batch.ports(FieldId::DstPort);
    let protocols = batch.protocols();
    let packets = batch.counters(FieldId::Packets);
    let bytes = batch.counters(FieldId::Bytes);
    let starts = batch.seconds(FieldId::Start);
    let actions = batch.actions();
    let flags = batch.small_ints(FieldId::TcpFlags);
    let text = |field| batch.texts(&Slot::Known(field));
    let directions = text(FieldId::FlowDirection);
    let interfaces = text(FieldId::InterfaceId);
    let accounts = text(FieldId::AccountId);
    let vpcs = text(FieldId::VpcId);
    let subnets = text(FieldId::SubnetId);

    for row in rows {
        if statuses.and_then(|column| column.get(row)).is_some_and(|s| s != LogStatus::Ok) {
            continue;
        }
        let (Some(src), Some(dst), Some(end)) = (srcs.get(row), dsts.get(row), ends.get(row))
        else {
            continue;
        };
        let protocol = protocols.and_then(|column| column.get(row)).unwrap_or(0);
        // Transit Gateway records carry more flags than fit the meaning used here; they are masked.
        let tcp_flags = flags
            .filter(|_| protocol == TCP)
            .and_then(|column| column.get(row))
            .map(|bits| u8::try_from(bits & 0x17).expect("masked to five bits"));
        take(&ContactRow {
            src: pkt_srcs.and_then(|column| column.get(row)).unwrap_or(src),
            dst: pkt_dsts.and_then(|column| column.get(row)).unwrap_or(dst),
            src_port: src_ports.and_then(|column| column.get(row)).unwrap_or(0),
            dst_port: dst_ports.and_then(|column| column.get(row)).unwrap_or(0),
            protocol,
            packets: packets.and_then(|column| column.get(row)).unwrap_or(0),
            bytes: bytes.and_then(|column| column.get(row)).unwrap_or(0),
            start: UnixSeconds(starts.and_then(|column| column.get(row)).unwrap_or(end)),
            end: UnixSeconds(end),
            action: actions.and_then(|column| column.get(row)).unwrap_or_default(),
            tcp_flags,
            vantage: match directions.and_then(|column| column.get(row)) {
                Some(b"ingress") => Vantage::Ingress,
                Some(b"egress") => Vantage::Egress,
                _ => Vantage::Unknown,
            },
            interface_id: interfaces.and_then(|column| column.get(row)),
            account_id: accounts.and_then(|column| column.get(row)),
            vpc_id: vpcs.and_then(|column| column.get(row)),
            subnet_id: subnets.and_then(|column| column.get(row)),
        });
    }
}
