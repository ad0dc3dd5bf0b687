//! From a conversation to the records that interfaces write of it.
//!
//! An exchange is what two ends said to each other within one window; every interface among the ends
//! records both directions of it, each as one [`Flow`].

use super::network::{InterfaceIndex, Network};
use crate::net::Addr;

/// ICMP, TCP, UDP and ICMPv6 as IANA numbers them.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP_V6: u8 = 58;

/// The flags that VPC flow logs know; SYN-ACK is the only place of ACK.
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const SYN_ACK: u8 = 18;

/// What the last field of the default format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    NoData,
    SkipData,
}

/// Where an address in the packet differs from the one in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Direct,
    /// The packet came from here.
    Source(Addr),
    /// The packet goes there.
    Destination(Addr),
}

/// The place of a planted attack in the list of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttackIndex(pub(super) u32);

/// One record before it is text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) src: Addr,
    pub(super) dst: Addr,
    pub(super) via: Via,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) start: i64,
    pub(super) end: i64,
    /// The interface that records.
    pub(super) interface: InterfaceIndex,
    /// The interface at the other side, if it is one of ours.
    pub(super) peer: Option<InterfaceIndex>,
    /// The attack that the record belongs to.
    pub(super) attack: Option<AttackIndex>,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) protocol: u8,
    pub(super) tcp_flags: u8,
    pub(super) egress: bool,
    pub(super) rejected: bool,
    pub(super) status: Status,
    /// Whether it goes from the side that opened the conversation to the one that was asked.
    pub(super) request: bool,
}

impl Flow {
    /// A record that stands for a window without records: `status` says why.
    pub(super) fn gap(
        network: &Network,
        interface: InterfaceIndex,
        end: i64,
        status: Status,
    ) -> Self {
        assert!(status != Status::Ok);
        let nobody = Addr::v4(0);
        Self {
            src: nobody,
            dst: nobody,
            via: Via::Direct,
            packets: 0,
            bytes: 0,
            start: network.window_start(interface, end),
            end,
            interface,
            peer: None,
            attack: None,
            src_port: 0,
            dst_port: 0,
            protocol: 0,
            tcp_flags: 0,
            egress: false,
            rejected: false,
            status,
            request: false,
        }
    }
}

/// One end of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) addr: Addr,
    pub(super) port: u16,
    /// The interface, if the end is one of ours.
    pub(super) interface: Option<InterfaceIndex>,
}

impl Party {
    pub(super) fn inside(
        network: &Network,
        interface: InterfaceIndex,
        v6: bool,
        port: u16,
    ) -> Self {
        let addr = network.interface(interface).addr(v6);
        Self { addr, port, interface: Some(interface) }
    }

    pub(super) const fn outside(addr: Addr, port: u16) -> Self {
        Self { addr, port, interface: None }
    }
}

/// What went one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) tcp_flags: u8,
}

/// What became of the request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// Let through and answered.
    Answered(Leg),
    /// Let through, no answer.
    Silent,
    /// Stopped at the interface of the side that was asked.
    Rejected,
}

/// What two ends said to each other within one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) client: Party,
    pub(super) server: Party,
    pub(super) protocol: u8,
    pub(super) request: Leg,
    pub(super) outcome: Outcome,
    /// Second of the last packet.
    pub(super) end: i64,
    /// Seconds between the first and the last packet; cut at the window.
    pub(super) seconds: i64,
    pub(super) attack: Option<AttackIndex>,
}

impl Exchange {
    /// Appends the records of the exchange, the requests before their answers.
    pub(super) fn record(&self, network: &Network, flows: &mut Vec<Flow>) {
        for (here, there, opened) in
            [(self.client, self.server, true), (self.server, self.client, false)]
        {
            let Some(interface) = here.interface else { continue };
            let flow = self.flow(network, interface, there.interface);
            let rejected = !opened && matches!(self.outcome, Outcome::Rejected);
            flows.push(Flow { egress: opened, rejected, ..flow });
            if let Outcome::Answered(leg) = self.outcome {
                flows.push(Flow { egress: !opened, ..flow.answer(leg) });
            }
        }
    }

    /// The request as `interface` sees it.
    pub(super) fn flow(
        &self,
        network: &Network,
        interface: InterfaceIndex,
        peer: Option<InterfaceIndex>,
    ) -> Flow {
        let window_start = network.window_start(interface, self.end);
        Flow {
            src: self.client.addr,
            dst: self.server.addr,
            via: Via::Direct,
            packets: self.request.packets,
            bytes: self.request.bytes,
            start: (self.end - self.seconds).max(window_start),
            end: self.end,
            interface,
            peer,
            attack: self.attack,
            src_port: self.client.port,
            dst_port: self.server.port,
            protocol: self.protocol,
            tcp_flags: self.request.tcp_flags,
            egress: false,
            rejected: false,
            status: Status::Ok,
            request: true,
        }
    }
}

impl Flow {
    /// The same conversation the other way round.
    pub(super) fn answer(&self, leg: Leg) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            packets: leg.packets,
            bytes: leg.bytes,
            tcp_flags: leg.tcp_flags,
            request: false,
            ..*self
        }
    }
}
