//! A VPC whose interfaces record what hosts send: windows of 60 s with a phase of their own, delivered late.

use std::collections::BTreeMap;
use std::fmt::Write;

use flowgauge::detect::Network;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const SYN_ACK: u8 = 18;
pub(crate) const FIN: u8 = 1;

const WINDOW_SECONDS: i64 = 60;
/// Four hours, as long as the longest windows of detectors.
pub(crate) const SPAN_SECONDS: i64 = 14_400;

/// An IPv4 address.
pub(crate) type Ip = u32;
pub(crate) type End = (Ip, u16);

/// SplitMix64: the same numbers from a seed everywhere.
pub(crate) struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let count = (high - low + 1).cast_unsigned();
        low + (self.bits() % count).cast_signed()
    }

    pub(crate) fn percent(&mut self, chance: i64) -> bool {
        self.between(0, 99) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let last = i64::try_from(items.len()).unwrap() - 1;
        items[usize::try_from(self.between(0, last)).unwrap()]
    }

    pub(crate) fn port(&mut self) -> u16 {
        u16::try_from(self.between(32_768, 60_999)).unwrap()
    }

    /// Some of the items, in any order.
    pub(crate) fn some<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        for place in 0..count.min(items.len()) {
            let last = i64::try_from(items.len()).unwrap() - 1;
            let other = usize::try_from(self.between(i64::try_from(place).unwrap(), last)).unwrap();
            items.swap(place, other);
        }
        items.truncate(count);
        items
    }
}

/// What one end sent in a row.
#[derive(Clone, Copy)]
pub(crate) struct Leg {
    pub(crate) at: i64,
    pub(crate) seconds: i64,
    pub(crate) src: End,
    pub(crate) dst: End,
    pub(crate) protocol: u8,
    pub(crate) packets: i64,
    pub(crate) bytes: i64,
    pub(crate) flags: u8,
}

/// What rules make of a leg.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    /// Rejected where it arrives.
    RejectIn,
    /// Rejected where it leaves.
    RejectOut,
}

/// What a server makes of a TCP connection.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Rejected,
    Silent,
    Refused,
    /// A handshake that is reset at once.
    Bare,
    /// Packets and bytes of the client, of the server, and how long it takes in seconds.
    Talk([i64; 5]),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RecordKey {
    deliver: i64,
    interface: Ip,
    window: i64,
    src: End,
    dst: End,
    pkt: (Ip, Ip),
    protocol: u8,
    is_egress: bool,
    is_rejected: bool,
}

#[derive(Default)]
struct Record {
    packets: i64,
    bytes: i64,
    start: i64,
    end: i64,
    flags: u8,
}

/// A planted attack.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) kind: &'static str,
    pub(crate) variant: &'static str,
    /// Kinds that are right as well.
    pub(crate) also: &'static [&'static str],
    pub(crate) actors: Vec<Ip>,
    pub(crate) targets: Vec<Ip>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Right to find, and no fault to miss.
    pub(crate) is_optional: bool,
}

/// What looks like an attack and is none.
#[derive(Clone, Debug)]
pub(crate) struct Benign {
    pub(crate) name: &'static str,
    pub(crate) actors: Vec<Ip>,
    pub(crate) must_not: &'static [&'static str],
}

/// What a seed makes.
pub(crate) struct Traffic {
    /// Lines with their header.
    pub(crate) v5: String,
    pub(crate) v2: String,
    pub(crate) labels: Vec<Label>,
    pub(crate) benign: Vec<Benign>,
    pub(crate) network: Network,
    /// Whose scans nobody wants to hear of.
    pub(crate) wanted_scanner: Ip,
    pub(crate) hours: f64,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) start: i64,
    net: Ip,
    pub(crate) web: Vec<Ip>,
    pub(crate) app: Vec<Ip>,
    pub(crate) db: Vec<Ip>,
    pub(crate) desktops: Vec<Ip>,
    pub(crate) nat: Ip,
    pub(crate) wanted_scanner: Ip,
    pub(crate) threat_list: Vec<Ip>,
    records: BTreeMap<RecordKey, Record>,
    phases: BTreeMap<Ip, i64>,
    pub(crate) labels: Vec<Label>,
    pub(crate) benign: Vec<Benign>,
    outside_count: Ip,
    special_count: Ip,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x5eed_0f7a_ff1c);
        random.bits();
        let net = 0x0a00_0000 | Ip::try_from(random.between(1, 250)).unwrap() << 16;
        let mut hosts = |subnet: Ip, low, high| -> Vec<Ip> {
            let count = random.between(low, high);
            let first = Ip::try_from(random.between(10, 60)).unwrap();
            (0..Ip::try_from(count).unwrap())
                .map(|host| net + (subnet << 8) + first + host)
                .collect()
        };
        let (web, app) = (hosts(1, 16, 36), hosts(3, 30, 60));
        let (db, desktops) = (hosts(2, 8, 16), hosts(7, 10, 30));
        let start = 1_780_000_000 + random.between(0, 80_000);
        let mut world = Self {
            random,
            start,
            net,
            web,
            app,
            db,
            desktops,
            nat: net + 100,
            wanted_scanner: net + (5 << 8) + 199,
            threat_list: Vec::new(),
            records: BTreeMap::new(),
            phases: BTreeMap::new(),
            labels: Vec::new(),
            benign: Vec::new(),
            outside_count: 0,
            special_count: 0,
        };
        world.threat_list = vec![world.outside(), world.outside()];
        world
    }

    pub(crate) const fn is_inside(&self, ip: Ip) -> bool {
        ip >> 16 == self.net >> 16
    }

    /// An internet address that nobody had yet.
    pub(crate) fn outside(&mut self) -> Ip {
        self.outside_count += 1;
        // Of 100.128.0.0/9, spread.
        0x6480_0000 | self.outside_count.wrapping_mul(7_919) & 0x7f_ffff
    }

    /// A server of its own kind.
    pub(crate) fn special(&mut self) -> Ip {
        self.special_count += 1;
        self.net + (5 << 8) + 9 + self.special_count
    }

    /// A time at which something that takes `seconds` may begin.
    pub(crate) fn moment(&mut self, seconds: i64) -> i64 {
        self.start + 300 + self.random.between(0, SPAN_SECONDS - 600 - seconds)
    }

    pub(crate) fn leg(&mut self, leg: Leg, fate: Fate) {
        if self.is_inside(leg.src.0) {
            let is_rejected = fate == Fate::RejectOut;
            self.record(leg.src.0, &leg, (leg.src.0, leg.dst.0), true, is_rejected);
        }
        if fate != Fate::RejectOut && self.is_inside(leg.dst.0) {
            let is_rejected = fate == Fate::RejectIn;
            self.record(leg.dst.0, &leg, (leg.src.0, leg.dst.0), false, is_rejected);
        }
    }

    /// Records a leg at one interface, a record for each window that it touches.
    fn record(&mut self, at: Ip, leg: &Leg, pkt: (Ip, Ip), is_egress: bool, is_rejected: bool) {
        let random = &mut self.random;
        let phase = *self.phases.entry(at).or_insert_with(|| random.between(0, 59));
        let window = |time: i64| (time - phase).div_euclid(WINDOW_SECONDS);
        let windows = window(leg.at)..=window(leg.at + leg.seconds);
        let count = (windows.end() - windows.start() + 1).min(leg.packets.max(1));
        for (place, window) in windows.take(usize::try_from(count).unwrap()).enumerate() {
            let (opens, closes) =
                (window * WINDOW_SECONDS + phase, (window + 1) * WINDOW_SECONDS + phase);
            // The same delay for all records of an interface's window.
            let mixed = (i64::from(at) * 31 + window).wrapping_mul(2_654_435_761);
            let deliver = closes + 15 + mixed.rem_euclid(81);
            let key = RecordKey {
                deliver,
                interface: at,
                window,
                src: leg.src,
                dst: leg.dst,
                pkt,
                protocol: leg.protocol,
                is_egress,
                is_rejected,
            };
            let first = place == 0;
            let share = |all: i64| all / count + if first { all % count } else { 0 };
            let (start, end) = (leg.at.max(opens), (leg.at + leg.seconds).min(closes - 1));
            let record = self.records.entry(key).or_insert_with(|| Record {
                start,
                end,
                ..Record::default()
            });
            record.packets += share(leg.packets);
            record.bytes += share(leg.bytes);
            record.start = record.start.min(start);
            record.end = record.end.max(end);
            record.flags |= if first { leg.flags } else { 0 };
        }
    }

    /// A TCP connection from a port of the client.
    pub(crate) fn connect(&mut self, at: i64, client: End, server: End, reply: Reply) {
        let syn = Leg {
            at,
            seconds: 0,
            src: client,
            dst: server,
            protocol: TCP,
            packets: 1,
            bytes: 60,
            flags: SYN,
        };
        let back = Leg { src: server, dst: client, bytes: 60, flags: SYN_ACK, ..syn };
        match reply {
            Reply::Rejected => self.leg(syn, Fate::RejectIn),
            Reply::Silent => self.leg(syn, Fate::Pass),
            Reply::Refused => {
                self.leg(syn, Fate::Pass);
                self.leg(Leg { bytes: 40, flags: RST, ..back }, Fate::Pass);
            }
            Reply::Bare => {
                self.leg(Leg { packets: 3, bytes: 152, flags: SYN | RST, ..syn }, Fate::Pass);
                self.leg(back, Fate::Pass);
            }
            Reply::Talk([packets, bytes, back_packets, back_bytes, seconds]) => {
                let flags = SYN | FIN;
                self.leg(Leg { seconds, packets, bytes, flags, ..syn }, Fate::Pass);
                let flags = SYN_ACK | FIN;
                let (packets, bytes) = (back_packets, back_bytes);
                self.leg(Leg { seconds, packets, bytes, flags, ..back }, Fate::Pass);
            }
        }
    }

    /// As [`Self::connect`], from any port.
    pub(crate) fn tcp(&mut self, at: i64, client: Ip, server: Ip, port: u16, reply: Reply) {
        let client_port = self.random.port();
        self.connect(at, (client, client_port), (server, port), reply);
    }

    /// A question and its answer, if there is one.
    pub(crate) fn ask(
        &mut self,
        at: i64,
        (client, server): (End, End),
        protocol: u8,
        bytes: i64,
        answer: Option<i64>,
    ) {
        let leg =
            Leg { at, seconds: 0, src: client, dst: server, protocol, packets: 1, bytes, flags: 0 };
        self.leg(leg, Fate::Pass);
        if let Some(bytes) = answer {
            self.leg(Leg { src: server, dst: client, bytes, ..leg }, Fate::Pass);
        }
    }

    /// What a browser behind the gateway does, at all the interfaces that see it.
    pub(crate) fn through_nat(&mut self, at: i64, client: Ip, server: Ip, size: i64) {
        let (client_port, nat_port) = (self.random.port(), self.random.port());
        let out = Leg {
            at,
            seconds: 2,
            src: (client, client_port),
            dst: (server, 443),
            protocol: TCP,
            packets: 12,
            bytes: 1_800,
            flags: SYN | FIN,
        };
        let back = Leg {
            src: out.dst,
            dst: out.src,
            packets: 14,
            bytes: size,
            flags: SYN_ACK | FIN,
            ..out
        };
        let nat = self.nat;
        self.record(client, &out, (client, server), true, false);
        self.record(nat, &Leg { dst: (nat, 443), ..out }, (client, server), false, false);
        self.record(nat, &Leg { src: (nat, nat_port), ..out }, (nat, server), true, false);
        self.record(nat, &Leg { dst: (nat, nat_port), ..back }, (server, nat), false, false);
        self.record(nat, &Leg { src: (nat, 443), ..back }, (server, client), true, false);
        self.record(client, &back, (server, client), false, false);
    }

    pub(crate) fn label(
        &mut self,
        (kind, variant): (&'static str, &'static str),
        actors: &[Ip],
        targets: &[Ip],
        (start, end): (i64, i64),
    ) -> &mut Label {
        self.labels.push(Label {
            kind,
            variant,
            also: &[],
            actors: actors.to_vec(),
            targets: targets.to_vec(),
            start,
            end,
            is_optional: false,
        });
        self.labels.last_mut().unwrap()
    }

    pub(crate) fn benign(
        &mut self,
        name: &'static str,
        actors: &[Ip],
        must_not: &'static [&'static str],
    ) {
        self.benign.push(Benign { name, actors: actors.to_vec(), must_not });
    }

    pub(crate) fn traffic(self) -> Traffic {
        let mut v5 =
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
            bytes start end action log-status vpc-id subnet-id tcp-flags type pkt-srcaddr \
            pkt-dstaddr flow-direction\n"
                .to_owned();
        let mut v2 =
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
            bytes start end action log-status\n"
                .to_owned();
        let last = self.records.keys().map(|key| key.deliver).max().unwrap_or(self.start);
        for (key, record) in &self.records {
            let action = if key.is_rejected { "REJECT" } else { "ACCEPT" };
            let common = format!(
                "111122223333 eni-{:08x} {} {} {} {} {} {} {} {} {} {action} OK",
                key.interface,
                text(key.src.0),
                text(key.dst.0),
                key.src.1,
                key.dst.1,
                key.protocol,
                record.packets,
                record.bytes,
                record.start,
                record.end
            );
            writeln!(v2, "2 {common}").unwrap();
            writeln!(
                v5,
                "5 {common} vpc-1 subnet-{} {} IPv4 {} {} {}",
                key.interface >> 8 & 255,
                record.flags,
                text(key.pkt.0),
                text(key.pkt.1),
                if key.is_egress { "egress" } else { "ingress" }
            )
            .unwrap();
        }
        let host = |ip: Ip| format!("{}/32", text(ip)).parse().unwrap();
        Traffic {
            v5,
            v2,
            labels: self.labels,
            benign: self.benign,
            network: Network {
                inside: vec![format!("{}/16", text(self.net)).parse().unwrap()],
                allowlisted: vec![host(self.wanted_scanner)],
                nat_gateways: vec![host(self.nat)],
                ..Network::default()
            },
            wanted_scanner: self.wanted_scanner,
            #[expect(clippy::cast_precision_loss, reason = "some hours")]
            hours: (last - self.start) as f64 / 3600.0,
        }
    }
}

/// As records write it.
pub(crate) fn text(ip: Ip) -> String {
    std::net::Ipv4Addr::from_bits(ip).to_string()
}
