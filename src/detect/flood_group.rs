//! What floods are made of: whatever is sent to one target in one way, summed over its sources.

use super::network::Network;
use super::outcome::{EPHEMERAL_PORT_MIN, ICMP, ICMP_V6, TCP, UDP};
use crate::aggregate::{ContactKey, ContactView, TCP_RST, TCP_SYN, Tally};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Packets of a flow that is no session: a handshake and an end take more.
const SHORT_PACKETS_MAX: u64 = 2;

/// An answer to a SYN is repeated a few times.
const REPEATED_PACKETS_MAX: u64 = 6;

/// Fewer packets than one in so many come back from a stream that goes one way. Receivers that merge segments
/// acknowledge some 45 of them at once.
const ONE_WAY_SHARE: u64 = 100;

/// UDP ports whose services answer more than they are asked and are misused for it: QOTD, chargen, DNS, TFTP,
/// portmap, NTP, NetBIOS, SNMP, LDAP, RIP, SQL browser, SSDP, ARMS, `WS-Discovery`, mDNS, `CoAP`, memcached.
const REFLECTOR_PORTS: [u16; 18] = [
    17, 19, 53, 69, 111, 123, 137, 161, 389, 520, 1434, 1900, 3283, 3702, 5353, 5683, 10_001,
    11_211,
];

/// Fewer reflectors than this are no attack: what is asked may go another way than the answers.
const REFLECTORS_MIN: u64 = 5;

/// Whether UDP from this port may be reflected.
fn is_reflector(port: u16) -> bool {
    REFLECTOR_PORTS.contains(&port)
}

/// Whether hardly anything came back.
pub(super) const fn is_one_way(sent: &Tally, back: &Tally) -> bool {
    back.packets.saturating_mul(ONE_WAY_SHARE) < sent.packets
}

/// In which way something is sent to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    /// Flows that the source opened to a port.
    Opened,
    /// ICMP.
    Ping,
    /// Answers to what the target never sent.
    Reflected,
    /// All that goes one way.
    Volume,
    /// All flows from outside.
    Flows,
}

impl Way {
    /// As it stands in identities.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Opened => 0,
            Self::Ping => 1,
            Self::Reflected => 2,
            Self::Volume => 3,
            Self::Flows => 4,
        }
    }

    /// Whether it sums up other ways.
    pub(super) const fn is_total(self) -> bool {
        matches!(self, Self::Volume | Self::Flows)
    }

    /// The name of its rate in the evidence.
    pub(super) const fn rate_name(self) -> &'static str {
        match self {
            Self::Opened | Self::Flows => "flows_per_second",
            Self::Ping | Self::Reflected | Self::Volume => "packets_per_second",
        }
    }
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) target: Addr,
    pub(super) way: Way,
    /// 0 for all protocols.
    pub(super) protocol: u8,
    /// Of the target; of the source where answers are reflected.
    pub(super) port: u16,
}

impl Group {
    /// Whose episode it belongs to. Totals come last of a target's.
    pub(super) const fn episode(&self) -> (Addr, (u8, u8)) {
        (self.target, (self.way.number(), self.protocol))
    }

    /// What an analyst calls it.
    pub(super) const fn variant(&self, load: &Load) -> &'static str {
        match (self.way, self.protocol) {
            (Way::Opened, TCP) if load.is_syn() => "syn",
            (Way::Opened, TCP) => "tcp",
            (Way::Opened, _) => "udp",
            (Way::Ping, _) => "icmp",
            (Way::Reflected, _) => "reflected",
            (Way::Volume, _) => "volume",
            (Way::Flows, _) => "flows",
        }
    }
}

/// What a contact adds to a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// What the rate is made of, flows or packets; 0 if it is what a flood is compared with.
    pub(super) weight: u64,
}

/// What a contact sends one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Toward {
    pub(super) target: Addr,
    pub(super) source: Addr,
    way: Way,
    protocol: u8,
    port: u16,
    sent: Tally,
    back: Tally,
    flags: Option<u8>,
    first_start: UnixSeconds,
    last_end: UnixSeconds,
}

impl Toward {
    /// What a contact sends either way, as far as it may be a flood.
    pub(super) fn of(
        key: &ContactKey,
        contact: ContactView<'_>,
        network: &Network,
    ) -> [Option<Self>; 2] {
        let ((forward, forward_flags), (back, back_flags)) = (contact.forward(), contact.back());
        let to_server = Self {
            target: key.server,
            source: key.client,
            way: Way::Opened,
            protocol: key.protocol,
            port: key.port,
            sent: forward,
            back,
            flags: forward_flags,
            first_start: contact.first_start(),
            last_end: contact.last_end(),
        };
        let to_client = Self {
            target: key.client,
            source: key.server,
            way: Way::Reflected,
            sent: back,
            back: forward,
            flags: back_flags,
            ..to_server
        };
        if matches!(key.protocol, ICMP | ICMP_V6) {
            let ping = |toward: Self| Self { way: Way::Ping, ..toward };
            return [asker([ping(to_server), ping(to_client)], network), None];
        }
        if forward.flows == 0 {
            return [(back.flows > 0).then_some(to_client), None];
        }
        let answers = match contact.client_ports() {
            [port] if key.protocol == UDP && back.flows == 0 && is_reflector(*port) => Some(*port),
            _ => None,
        };
        let to_server = match answers {
            // Between two service ports, which one is the client's is a toss-up.
            Some(port) => Self { way: Way::Reflected, port, ..to_server },
            None => to_server,
        };
        // What was asked for shows how much the target asks.
        let is_asked = key.protocol == UDP && is_reflector(key.port) && back.flows > 0;
        let way = if is_asked { Way::Reflected } else { Way::Volume };
        let is_told = is_asked || is_one_way(&back, &forward);
        let pushed = is_told.then_some(Self { way, ..to_client });
        [Some(to_server), pushed]
    }

    /// What tells it from all others to its target.
    pub(super) const fn which(&self) -> (Addr, u16, u8) {
        (self.source, self.port, self.protocol)
    }

    /// The groups that it adds to, at most three.
    pub(super) fn parts(&self, network: &Network) -> impl Iterator<Item = (Group, Part)> {
        let own =
            Group { target: self.target, way: self.way, protocol: self.protocol, port: self.port };
        let total = |way| Group { way, protocol: 0, port: 0, ..own };
        let of_way = (!self.way.is_total()).then(|| (own, Part { weight: self.weight(network) }));
        let is_volume = is_one_way(&self.sent, &self.back);
        let volume = is_volume.then(|| (total(Way::Volume), Part { weight: self.sent.packets }));
        let is_called = self.way == Way::Opened && !network.is_inside(self.source);
        let flows = is_called.then(|| (total(Way::Flows), Part { weight: self.sent.flows.into() }));
        [of_way, volume, flows].into_iter().flatten()
    }

    /// Whether the source opened TCP flows. The resets that a scan draws go to a port of the scanner's, which looks
    /// like a service where both ports are ephemeral.
    fn is_surely_opened(&self) -> bool {
        match self.flags {
            Some(flags) if flags & TCP_SYN != 0 => true,
            Some(flags) if flags & TCP_RST != 0 => false,
            _ => self.port < EPHEMERAL_PORT_MIN,
        }
    }

    /// Flows that are too short to be sessions, or packets that answer nothing.
    fn weight(&self, network: &Network) -> u64 {
        let Tally { flows, packets, .. } = self.sent;
        let flows = u64::from(flows);
        let is_short = packets <= SHORT_PACKETS_MAX * flows;
        match (self.way, self.protocol) {
            (Way::Opened, TCP) if is_short && self.is_surely_opened() => flows,
            (Way::Opened, UDP) if is_short && self.back.packets < packets.div_ceil(2) => flows,
            (Way::Ping, _) => packets,
            // Between own hosts, and from them, the way of what was asked may not be logged.
            (Way::Reflected, _) if self.back.flows > 0 || network.is_inside(self.source) => 0,
            (Way::Reflected, TCP) if packets <= REPEATED_PACKETS_MAX * flows => packets,
            (Way::Reflected, UDP) if is_reflector(self.port) => packets,
            _ => 0,
        }
    }
}

/// Which of two ends that sent each other ICMP asked.
fn asker([one, other]: [Toward; 2], network: &Network) -> Option<Toward> {
    let (sent, returned) = (one.sent.packets, other.sent.packets);
    let is_inside = |toward: &Toward| network.is_inside(toward.source);
    // An echo has an answer of the same size. Then the stranger is taken for the one who asked.
    let is_other = if sent.min(returned) >= sent.max(returned).div_ceil(2) {
        is_inside(&one) && !is_inside(&other)
    } else {
        returned > sent
    };
    let toward = if is_other { other } else { one };
    (toward.sent.packets > 0).then_some(toward)
}

/// The sum of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) weight: u64,
    pub(super) flows: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) rejected: u64,
    /// Contacts, which are as many sources for one port.
    pub(super) sources: u64,
    /// Weight and address of the source that sends most.
    pub(super) heaviest: (u64, Addr),
    pub(super) first_start: UnixSeconds,
    pub(super) last_end: UnixSeconds,
    /// Flows of sessions with the same port, or packets that were asked for.
    others: u64,
    /// Whether all flags that were seen are of SYNs.
    has_other_flags: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            weight: 0,
            flows: 0,
            packets: 0,
            bytes: 0,
            rejected: 0,
            sources: 0,
            heaviest: (0, Addr::v4(0)),
            first_start: UnixSeconds::MAX,
            last_end: UnixSeconds::MIN,
            others: 0,
            has_other_flags: false,
        }
    }
}

impl Load {
    /// Adds a part that `toward` has in the group.
    pub(super) fn add(&mut self, toward: &Toward, part: Part) {
        let Tally { flows, rejected, packets, bytes } = toward.sent;
        if part.weight == 0 {
            let is_asked = toward.way == Way::Reflected;
            self.others += if is_asked { packets } else { flows.into() };
            return;
        }
        self.weight = self.weight.saturating_add(part.weight);
        self.flows += u64::from(flows);
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
        self.rejected += u64::from(rejected);
        self.sources += 1;
        self.heaviest = self.heaviest.max((part.weight, toward.source));
        self.first_start = self.first_start.min(toward.first_start);
        self.last_end = self.last_end.max(toward.last_end);
        self.has_other_flags |= toward.flags.is_some_and(|flags| flags & TCP_SYN == 0);
    }

    /// How long it took, but at least `least`.
    pub(super) fn seconds(&self, least: i64) -> u64 {
        self.last_end.0.saturating_sub(self.first_start.0).max(least).unsigned_abs()
    }

    /// Whether sessions are few beside it. Of a busy service with kept connections up to every second flow ends
    /// in a pane of its own, as a short one.
    pub(super) const fn is_mostly_short(&self) -> bool {
        self.weight >= self.others.saturating_mul(2)
    }

    /// Whether there are sources enough for what it is taken for.
    pub(super) fn has_sources(&self, way: Way) -> bool {
        way != Way::Reflected || self.sources >= REFLECTORS_MIN
    }

    const fn is_syn(&self) -> bool {
        !self.has_other_flags
    }
}
