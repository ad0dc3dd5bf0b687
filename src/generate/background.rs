//! Ordinary traffic: web clients, outbound requests, internal services, name look-ups, refused noise of
//! the internet, and a few groups that look like attacks.
//!
//! Every outside client keeps to four servers and every source of noise to two hosts with one port
//! each, so that no ordinary source looks like a scan, however often the skewed pools draw it. Noise
//! never asks for an administration port: whoever does so from outside is in the labels.

use super::exchange::{Exchange, Flow, ICMP, ICMP_V6, Leg, Outcome, Party, Status, TCP, UDP, Via};
use super::exchange::{FIN, RST, SYN, SYN_ACK};
use super::network::{InterfaceIndex, Network, Role};
use super::random::{Random, Weighted, Zipf, mix2};
use super::settings::GenerateSettings;

/// What ordinary traffic consists of.
#[derive(Clone, Copy, Debug)]
enum Theme {
    WebClient,
    Outbound,
    Internal,
    NameLookup,
    NatGateway,
    Resolver,
    Poller,
    Ping,
}

/// Themes and how many of 100 conversations they are.
const THEMES: [(Theme, f64); 8] = [
    (Theme::WebClient, 38.0),
    (Theme::Outbound, 22.0),
    (Theme::Internal, 24.0),
    (Theme::NameLookup, 8.0),
    (Theme::NatGateway, 3.0),
    (Theme::Resolver, 2.0),
    (Theme::Poller, 2.0),
    (Theme::Ping, 1.0),
];

/// Port, protocol and weight of what web servers are asked for.
const WEB: [(u16, u8, f64); 3] = [(443, TCP, 76.0), (80, TCP, 16.0), (443, UDP, 8.0)];

/// Port, protocol and weight of what hosts ask the internet for.
const OUTBOUND: [(u16, u8, f64); 6] = [
    (443, TCP, 78.0),
    (80, TCP, 9.0),
    (443, UDP, 6.0),
    (123, UDP, 4.0),
    (5671, TCP, 1.5),
    (587, TCP, 1.5),
];

/// What the noise of the internet asks for and does not get.
const NOISE: [(u16, u8); 14] = [
    (445, TCP),
    (139, TCP),
    (80, TCP),
    (8080, TCP),
    (5060, UDP),
    (6379, TCP),
    (1433, TCP),
    (2323, TCP),
    (8443, TCP),
    (7547, TCP),
    (81, TCP),
    (52869, TCP),
    (161, UDP),
    (11211, UDP),
];

/// Clients behind the NAT gateway.
const NAT_CLIENTS: u64 = 24;
const POLLED_PORT: u16 = 9100;
/// Sources of noise keep to this many (host, port) pairs.
const NOISE_HABITS: u64 = 2;
/// Outside clients keep to this many servers.
const CLIENT_HABITS: u64 = 4;

/// Wanted shares as fractions of `2^32`, and how far they are met.
#[derive(Clone, Debug)]
struct Shares {
    nodata: Share,
    rejected: Share,
    ipv6: Share,
}

#[derive(Clone, Debug)]
struct Share {
    wanted: u64,
    counted: u64,
}

const WHOLE: u64 = 1 << 32;

impl Share {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "settings hold shares between 0 and 1"
    )]
    const fn new(share: f64) -> Self {
        Self { wanted: (share * WHOLE as f64) as u64, counted: 0 }
    }

    /// Whether the next draw should belong to the share, so that it is met over `total` records but
    /// not in a regular pattern.
    fn is_due(&self, total: u64, random: &mut Random) -> bool {
        const SLACK: u64 = 16;
        if self.wanted == 0 || self.wanted == WHOLE {
            return self.wanted == WHOLE;
        }
        let target = (u128::from(total) * u128::from(self.wanted)) >> 32;
        let target = u64::try_from(target).expect("a share of a 64-bit count");
        self.counted + SLACK < target + random.below(2 * SLACK)
    }
}

/// Draws ordinary traffic.
#[derive(Clone, Debug)]
pub(super) struct Background {
    random: Random,
    seed: u64,
    themes: Weighted,
    web_services: Weighted,
    outbound_services: Weighted,
    external_ranks: Zipf,
    interface_ranks: Zipf,
    web_ranks: Zipf,
    external_count: u32,
    shares: Shares,
    records: u64,
    records_with_traffic: u64,
    polled: u32,
}

impl Background {
    pub(super) fn new(settings: &GenerateSettings, network: &Network) -> Self {
        let seed = mix2(settings.seed, 0x6261_636b);
        let ordinary = network.interface_count() - InterfaceIndex::FIRST_ORDINARY;
        let web_count = u32::try_from(network.web().len()).expect("at most a million");
        Self {
            random: Random::new(seed),
            seed,
            themes: Weighted::new(&THEMES.map(|(_, weight)| weight)),
            web_services: Weighted::new(&WEB.map(|(_, _, weight)| weight)),
            outbound_services: Weighted::new(&OUTBOUND.map(|(_, _, weight)| weight)),
            external_ranks: Zipf::new(settings.external_addresses, settings.zipf),
            interface_ranks: Zipf::new(ordinary, settings.zipf),
            web_ranks: Zipf::new(web_count, settings.zipf),
            external_count: settings.external_addresses,
            shares: Shares {
                nodata: Share::new(settings.nodata_share),
                rejected: Share::new(settings.reject_share),
                ipv6: Share::new(settings.ipv6_share),
            },
            records: 0,
            records_with_traffic: 0,
            polled: 0,
        }
    }

    /// Appends the records of one more conversation, probe or gap whose last packet was at `end`.
    pub(super) fn draw(&mut self, network: &Network, end: i64, flows: &mut Vec<Flow>) {
        let before = flows.len();
        if self.shares.nodata.is_due(self.records, &mut self.random) {
            flows.push(self.gap(network, end));
        } else {
            let v6 = self.shares.ipv6.is_due(self.records_with_traffic, &mut self.random);
            if self.shares.rejected.is_due(self.records, &mut self.random) {
                self.noise(network, end, v6).record(network, flows);
            } else {
                self.conversation(network, end, v6, flows);
            }
        }
        self.count(&flows[before..]);
    }

    fn count(&mut self, flows: &[Flow]) {
        for flow in flows {
            self.records += 1;
            self.shares.rejected.counted += u64::from(flow.rejected);
            if flow.status == Status::Ok {
                self.records_with_traffic += 1;
                self.shares.ipv6.counted += u64::from(flow.src.as_v4().is_none());
            } else {
                self.shares.nodata.counted += 1;
            }
        }
    }

    fn gap(&mut self, network: &Network, end: i64) -> Flow {
        let interface = self.random.below_u32(network.interface_count());
        let status = if self.random.one_in(3) { Status::SkipData } else { Status::NoData };
        Flow::gap(network, InterfaceIndex(interface), end, status)
    }

    /// One probe of the internet that is refused.
    fn noise(&mut self, network: &Network, end: i64, v6: bool) -> Exchange {
        let rank = self.random.below_u32(self.external_count);
        let habit = mix2(self.seed ^ u64::from(rank), self.random.below(NOISE_HABITS));
        let mut fixed = Random::new(habit);
        let (port, protocol) = fixed.pick(&NOISE);
        let target = self.ordinary_of(network, &mut fixed);
        let packets = self.random.between(1, 2);
        Exchange {
            client: Party::outside(network.external(rank, v6), ephemeral(&mut self.random)),
            server: Party::inside(network, target, v6, port),
            protocol,
            request: Leg {
                packets,
                bytes: packets * self.random.pick(&[40, 44, 52, 60]),
                tcp_flags: if protocol == TCP { SYN } else { 0 },
            },
            outcome: Outcome::Rejected,
            end,
            seconds: i64::from(packets > 1),
            attack: None,
        }
    }

    fn conversation(&mut self, network: &Network, end: i64, v6: bool, flows: &mut Vec<Flow>) {
        let theme = THEMES[self.themes.draw(&mut self.random)].0;
        let exchange = match theme {
            Theme::WebClient => self.web_client(network, v6),
            Theme::Outbound => self.outbound(network, v6),
            Theme::Internal => self.internal(network, v6),
            Theme::NameLookup => self.name_lookup(network, v6),
            Theme::NatGateway if v6 => self.outbound(network, v6),
            Theme::NatGateway => return self.nat_gateway(network, end, flows),
            Theme::Resolver => self.resolver(network, v6),
            Theme::Poller => self.poller(network, v6),
            Theme::Ping => self.ping(network, v6),
        };
        Exchange { end, ..exchange }.record(network, flows);
    }

    fn web_client(&mut self, network: &Network, v6: bool) -> Exchange {
        let rank = self.external_ranks.draw(&mut self.random);
        let habit = mix2(self.seed ^ u64::from(rank), 16 + self.random.below(CLIENT_HABITS));
        let server = network.web()[self.web_ranks.draw(&mut Random::new(habit)) as usize];
        let (port, protocol, _) = WEB[self.web_services.draw(&mut self.random)];
        let client = Party::outside(network.external(rank, v6), ephemeral(&mut self.random));
        self.answered(client, Party::inside(network, server, v6, port), protocol)
    }

    fn outbound(&mut self, network: &Network, v6: bool) -> Exchange {
        let host = self.ordinary(network);
        let rank = self.external_ranks.draw(&mut self.random);
        let (port, protocol, _) = OUTBOUND[self.outbound_services.draw(&mut self.random)];
        let client_port = if port == 123 { 123 } else { ephemeral(&mut self.random) };
        let client = Party::inside(network, host, v6, client_port);
        let server = Party::outside(network.external(rank, v6), port);
        if port == 123 {
            return self.datagrams(client, server, 1);
        }
        self.answered(client, server, protocol)
    }

    fn internal(&mut self, network: &Network, v6: bool) -> Exchange {
        let host = self.ordinary(network);
        let service = network.service_of(host, self.random.below(12));
        if service == host {
            return self.outbound(network, v6);
        }
        let (port, protocol) = network.interface(service).service();
        let client = Party::inside(network, host, v6, ephemeral(&mut self.random));
        self.answered(client, Party::inside(network, service, v6, port), protocol)
    }

    fn name_lookup(&mut self, network: &Network, v6: bool) -> Exchange {
        let host = self.ordinary(network);
        let client = Party::inside(network, host, v6, ephemeral(&mut self.random));
        let server = Party::inside(network, InterfaceIndex::RESOLVER, v6, 53);
        self.datagrams(client, server, 2)
    }

    /// The resolver asks servers of the internet in turn.
    fn resolver(&mut self, network: &Network, v6: bool) -> Exchange {
        let rank = self.random.below_u32(self.external_count);
        let port = ephemeral(&mut self.random);
        let client = Party::inside(network, InterfaceIndex::RESOLVER, v6, port);
        self.datagrams(client, Party::outside(network.external(rank, v6), 53), 3)
    }

    /// The poller reaches every host in turn, and between them tries the dead one again.
    fn poller(&mut self, network: &Network, v6: bool) -> Exchange {
        let port = ephemeral(&mut self.random);
        let client = Party::inside(network, InterfaceIndex::POLLER, v6, port);
        if self.random.one_in(8) {
            let dead = InterfaceIndex::DEAD_HOST;
            return Exchange {
                outcome: Outcome::Silent,
                request: Leg { packets: 4, bytes: 240, tcp_flags: SYN },
                seconds: 7,
                ..self.answered(client, Party::inside(network, dead, v6, POLLED_PORT), TCP)
            };
        }
        let ordinary = network.interface_count() - InterfaceIndex::FIRST_ORDINARY;
        self.polled = (self.polled + 1) % ordinary;
        let target = InterfaceIndex(InterfaceIndex::FIRST_ORDINARY + self.polled);
        self.answered(client, Party::inside(network, target, v6, POLLED_PORT), TCP)
    }

    fn ping(&mut self, network: &Network, v6: bool) -> Exchange {
        let host = self.ordinary(network);
        let target = network.service_of(host, self.random.below(3));
        if target == host {
            return self.outbound(network, v6);
        }
        let packets = self.random.between(1, 8);
        let leg = Leg { packets, bytes: packets * 84, tcp_flags: 0 };
        Exchange {
            client: Party::inside(network, host, v6, 0),
            server: Party::inside(network, target, v6, 0),
            protocol: if v6 { ICMP_V6 } else { ICMP },
            request: leg,
            outcome: Outcome::Answered(leg),
            end: 0,
            seconds: i64::try_from(packets - 1).expect("at most 7"),
            attack: None,
        }
    }

    /// A client behind the NAT gateway: two records at the client and four at the gateway, where the
    /// packet addresses keep the real ends.
    fn nat_gateway(&mut self, network: &Network, end: i64, flows: &mut Vec<Flow>) {
        let ordinary = network.interface_count() - InterfaceIndex::FIRST_ORDINARY;
        let place = self.random.below(NAT_CLIENTS.min(u64::from(ordinary)));
        let place = u32::try_from(place).expect("at most NAT_CLIENTS");
        let host = InterfaceIndex(InterfaceIndex::FIRST_ORDINARY + place);
        let gateway = InterfaceIndex::NAT_GATEWAY;
        let rank = self.external_ranks.draw(&mut self.random);
        let remote = network.external(rank, false);
        let (port, protocol, _) = OUTBOUND[self.outbound_services.draw(&mut self.random)];
        let client = Party::inside(network, host, false, ephemeral(&mut self.random));
        let exchange = self.answered(client, Party::outside(remote, port), protocol);
        let exchange = Exchange { end, ..exchange };
        let first = flows.len();
        exchange.record(network, flows);
        // The remote end is not ours, but the next hop is.
        flows[first..].iter_mut().for_each(|flow| flow.peer = Some(gateway));
        let Outcome::Answered(answer) = exchange.outcome else {
            unreachable!("ordinary exchanges are answered");
        };
        let gateway_addr = network.interface(gateway).v4;
        let gateway_port = self.random.port(1024, 65535);
        let request = exchange.flow(network, gateway, Some(host));
        flows.push(Flow { dst: gateway_addr, via: Via::Destination(remote), ..request });
        let outside =
            Flow { src: gateway_addr, src_port: gateway_port, egress: true, peer: None, ..request };
        flows.push(outside);
        flows.push(Flow { egress: false, ..outside.answer(answer) });
        let back = request.answer(answer);
        flows.push(Flow { src: gateway_addr, via: Via::Source(remote), egress: true, ..back });
    }

    fn ordinary(&mut self, network: &Network) -> InterfaceIndex {
        let rank = self.interface_ranks.draw(&mut self.random);
        spread(network, rank)
    }

    fn ordinary_of(&self, network: &Network, random: &mut Random) -> InterfaceIndex {
        spread(network, self.interface_ranks.draw(random))
    }

    /// A few datagrams each way, answered with `growth` times as much.
    fn datagrams(&mut self, client: Party, server: Party, growth: u64) -> Exchange {
        let packets = self.random.between(1, 2);
        let bytes = packets * self.random.between(56, 92);
        Exchange {
            client,
            server,
            protocol: UDP,
            request: Leg { packets, bytes, tcp_flags: 0 },
            outcome: Outcome::Answered(Leg { packets, bytes: bytes * growth, tcp_flags: 0 }),
            end: 0,
            seconds: 0,
            attack: None,
        }
    }

    /// A conversation with an answer, of any size.
    fn answered(&mut self, client: Party, server: Party, protocol: u8) -> Exchange {
        let size = self.random.tail(2_000_000);
        let asked = 5 + self.random.below(8) + size / 3;
        let given = 4 + self.random.below(8) + size;
        let (request_flags, answer_flags) = if protocol == TCP { self.tcp_flags() } else { (0, 0) };
        let answer = Leg {
            packets: given,
            bytes: given * self.random.between(90, 1_400),
            tcp_flags: answer_flags,
        };
        Exchange {
            client,
            server,
            protocol,
            request: Leg {
                packets: asked,
                bytes: asked * self.random.between(52, 400),
                tcp_flags: request_flags,
            },
            outcome: Outcome::Answered(answer),
            end: 0,
            seconds: i64::try_from(self.random.below(8) + size.min(3_600)).expect("small"),
            attack: None,
        }
    }

    /// Flags of both directions: whole conversations in one window, first, last and middle parts.
    fn tcp_flags(&mut self) -> (u8, u8) {
        match self.random.below(100) {
            0..=63 => (SYN | FIN, SYN_ACK | FIN),
            64..=73 => (SYN, SYN_ACK),
            74..=83 => (FIN, FIN),
            84..=95 => (0, 0),
            96..=97 => (SYN | FIN | RST, SYN_ACK | FIN),
            _ => (RST, FIN),
        }
    }
}

/// The interface of a popularity rank: neighbours in rank are not neighbours in the network.
fn spread(network: &Network, rank: u32) -> InterfaceIndex {
    let ordinary = network.interface_count() - InterfaceIndex::FIRST_ORDINARY;
    // A prime larger than every pool permutes it.
    let place = (u64::from(rank) * 2_147_483_647) % u64::from(ordinary);
    let place = u32::try_from(place).expect("below the count of interfaces");
    InterfaceIndex(InterfaceIndex::FIRST_ORDINARY + place)
}

/// A client's port: Linux's range mostly, the range of IANA and Windows, and anything above 1023.
pub(super) const fn ephemeral(random: &mut Random) -> u16 {
    match random.below(10) {
        0..=6 => random.port(32_768, 60_999),
        7 | 8 => random.port(49_152, 65_535),
        _ => random.port(10_000, 65_535),
    }
}

/// A group that looks like an attack: its name, why, and its interfaces.
pub(super) struct LookAlike {
    pub(super) name: &'static str,
    pub(super) note: &'static str,
    pub(super) must_not: &'static [&'static str],
    pub(super) interfaces: Vec<InterfaceIndex>,
}

const SCANS: [&str; 3] = ["port_scan", "host_sweep", "distributed_scan"];

/// The groups of ordinary traffic that must not be reported.
pub(super) fn look_alikes(network: &Network) -> Vec<LookAlike> {
    let ordinary = InterfaceIndex::FIRST_ORDINARY..network.interface_count();
    let web = |index: &InterfaceIndex| network.interface(*index).role == Role::Web;
    let group = |name, note, interfaces| LookAlike { name, note, must_not: &SCANS, interfaces };
    vec![
        group("nat_gateway", "many clients behind one address", vec![InterfaceIndex::NAT_GATEWAY]),
        group(
            "dns_resolver",
            "asked by every host, asks servers everywhere",
            vec![InterfaceIndex::RESOLVER],
        ),
        group(
            "poller",
            "reaches every host on one port, one of them is down",
            vec![InterfaceIndex::POLLER],
        ),
        group(
            "web_servers",
            "answers to thousands of client ports (the first of them)",
            ordinary.map(InterfaceIndex).filter(web).take(50).collect(),
        ),
    ]
}
