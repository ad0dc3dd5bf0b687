//! Attacks of every kind, each with hosts, speeds and sizes of its own.

use super::world::{
    End, FIN, Fate, ICMP, Ip, Leg, RST, Reply, SPAN_SECONDS, SYN, SYN_ACK, TCP, UDP, World,
};

/// Ports that scanners know, and others.
const TOP_PORTS: [u16; 60] = [
    7, 9, 13, 21, 22, 23, 25, 26, 37, 53, 79, 80, 81, 88, 106, 110, 111, 113, 119, 135, 139, 143,
    144, 179, 199, 389, 427, 443, 444, 445, 465, 513, 514, 515, 543, 544, 548, 554, 587, 631, 646,
    873, 990, 993, 995, 1025, 1026, 1433, 1720, 1723, 2000, 2049, 3000, 3128, 3306, 3389, 5060,
    5432, 5900, 8080,
];
const SWEPT_PORTS: [u16; 8] = [445, 1433, 6379, 3306, 9200, 11_211, 27_017, 5432];

pub(crate) fn plant(world: &mut World) {
    port_scans(world);
    stealthy_scans(world);
    block_and_decoys(world);
    sweeps(world);
    accepted_and_icmp_sweeps(world);
    shared_scans(world);
    guesses(world);
    slow_guesses(world);
    misconfigurations(world);
    volumes(world);
    beacons(world);
    services(world);
}

/// What becomes of a probe of a firewalled host: rejected mostly.
fn behind_rules(world: &mut World) -> Reply {
    match world.random.between(0, 99) {
        0..=93 => Reply::Rejected,
        94..=96 => Reply::Refused,
        _ => Reply::Bare,
    }
}

fn open_group(world: &mut World) -> Reply {
    if world.random.percent(55) { Reply::Refused } else { Reply::Silent }
}

fn ports(world: &mut World, count: i64) -> Vec<u16> {
    let first = u16::try_from(world.random.between(1, 9_000)).unwrap();
    let count = usize::try_from(count).unwrap();
    if world.random.percent(50) {
        (first..).take(count).collect()
    } else {
        let mut ports = world.random.some(&TOP_PORTS, count);
        ports.extend((first..).take(count - ports.len()));
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// A vertical scan at even speed.
fn scan(
    world: &mut World,
    (client, server): (Ip, Ip),
    ports: &[u16],
    seconds: i64,
    reply: impl Fn(&mut World) -> Reply,
) -> (i64, i64) {
    let start = world.moment(seconds);
    let client_port = world.random.port();
    let count = i64::try_from(ports.len()).unwrap();
    for (place, port) in (0..).zip(ports) {
        let reply = reply(world);
        world.connect(
            start + seconds * place / count,
            (client, client_port),
            (server, *port),
            reply,
        );
    }
    (start, start + seconds)
}

fn port_scans(world: &mut World) {
    /// Variant, ports, seconds, and what becomes of a probe.
    type Case = (&'static str, (i64, i64), (i64, i64), fn(&mut World) -> Reply);
    let cases: [Case; 5] = [
        ("syn_fast", (100, 1_000), (4, 200), behind_rules),
        ("syn_open_sg", (100, 900), (2, 100), open_group),
        ("connect", (40, 200), (5, 120), open_group),
        ("slow", (60, 250), (1_800, 5_400), behind_rules),
        ("very_slow", (45, 70), (7_000, 12_000), behind_rules),
    ];
    for (variant, counts, seconds, replies) in cases {
        let client = world.outside();
        let server = world.random.pick(&[world.web[2], world.app[3], world.app[7], world.db[1]]);
        let count = world.random.between(counts.0, counts.1);
        let seconds = world.random.between(seconds.0, seconds.1);
        let ports = ports(world, count);
        let span = scan(world, (client, server), &ports, seconds, replies);
        world.label(("port_scan", variant), &[client], &[server], span);
    }
    let (client, server) = (world.desktops[0], world.db[2]);
    let count = world.random.between(20, 60);
    let ports = ports(world, count);
    let seconds = world.random.between(20, 400);
    let span = scan(world, (client, server), &ports, seconds, behind_rules);
    world.label(("port_scan", "internal_low"), &[client], &[server], span);
}

fn stealthy_scans(world: &mut World) {
    for (variant, flags) in [("fin", FIN), ("null", 0), ("xmas", FIN)] {
        let (client, server) = (world.outside(), world.random.pick(&world.app.clone()));
        let count = world.random.between(60, 200);
        let ports = ports(world, count);
        let start = world.moment(60);
        let client_port = world.random.port();
        let is_open = world.random.percent(50);
        for (place, port) in (0..).zip(&ports) {
            let leg = Leg {
                at: start + place / 10,
                seconds: 0,
                src: (client, client_port),
                dst: (server, *port),
                protocol: TCP,
                packets: 1,
                bytes: 40,
                flags,
            };
            world.leg(leg, if is_open { Fate::Pass } else { Fate::RejectIn });
            if is_open {
                let (src, dst) = (leg.dst, leg.src);
                world.leg(Leg { src, dst, flags: RST, ..leg }, Fate::Pass);
            }
        }
        world.label(("port_scan", variant), &[client], &[server], (start, start + 60));
    }
    let (client, server) = (world.outside(), world.random.pick(&world.app.clone()));
    let count = world.random.between(40, 120);
    let ports = ports(world, count);
    let start = world.moment(120);
    for (place, port) in (0..).zip(&ports) {
        udp_probe(world, start + place, (client, 40_000), (server, *port));
    }
    world.label(("port_scan", "udp"), &[client], &[server], (start, start + count));
}

fn udp_probe(world: &mut World, at: i64, src: End, dst: End) {
    let (protocol, flags) = (UDP, 0);
    let leg = Leg { at, seconds: 0, src, dst, protocol, packets: 1, bytes: 60, flags };
    let is_rejected = world.random.percent(90);
    world.leg(leg, if is_rejected { Fate::RejectIn } else { Fate::Pass });
}

fn block_and_decoys(world: &mut World) {
    let client = world.outside();
    let count = usize::try_from(world.random.between(5, 14)).unwrap();
    let servers = world.random.some(&world.app.clone(), count);
    let start = world.moment(60);
    let port_count = usize::try_from(world.random.between(20, 40)).unwrap();
    let ports = world.random.some(&TOP_PORTS, port_count);
    for server in &servers {
        for port in &ports {
            let at = start + world.random.between(0, 30);
            let reply = behind_rules(world);
            world.tcp(at, client, *server, *port, reply);
        }
    }
    let label = world.label(("port_scan", "block"), &[client], &servers, (start, start + 30));
    label.also = &["host_sweep"];

    let count = world.random.between(4, 10);
    let clients: Vec<Ip> = (0..count).map(|_| world.outside()).collect();
    let server = world.web[5];
    let port_count = usize::try_from(world.random.between(40, 60)).unwrap();
    let ports = world.random.some(&TOP_PORTS, port_count);
    let (start, seconds) = (world.moment(100), world.random.between(2, 90));
    for (place, port) in (0..).zip(&ports) {
        let at = start + seconds * place / i64::try_from(port_count).unwrap();
        for client in &clients {
            let reply = behind_rules(world);
            world.connect(at, (*client, 51_234), (server, *port), reply);
        }
    }
    let span = (start, start + seconds);
    world.label(("port_scan", "decoy"), &clients, &[server], span).also = &["distributed_scan"];
}

fn all_hosts(world: &World) -> Vec<Ip> {
    [&world.web[..], &world.app, &world.db].concat()
}

fn sweeps(world: &mut World) {
    for (variant, seconds, protocol) in [
        ("syn_fast", (1, 60), TCP),
        ("syn_minutes", (300, 1_500), TCP),
        ("slow", (2_400, 5_000), TCP),
        ("udp", (1, 200), UDP),
    ] {
        let client = world.outside();
        let hosts = all_hosts(world);
        let count = usize::try_from(world.random.between(30, 60)).unwrap();
        let hosts = world.random.some(&hosts, count);
        let seconds = world.random.between(seconds.0, seconds.1);
        let start = world.moment(seconds);
        let port = world.random.pick(&SWEPT_PORTS);
        for (place, host) in (0..).zip(&hosts) {
            let at = start + seconds * place / i64::try_from(hosts.len()).unwrap();
            if protocol == UDP {
                udp_probe(world, at, (client, 44_000), (*host, 161));
            } else {
                let reply = behind_rules(world);
                world.tcp(at, client, *host, port, reply);
            }
        }
        world.label(("host_sweep", variant), &[client], &hosts, (start, start + seconds));
    }
}

fn accepted_and_icmp_sweeps(world: &mut World) {
    let client = world.outside();
    let hosts = world.web.clone();
    let start = world.moment(30);
    for host in &hosts {
        let at = start + world.random.between(0, 20);
        world.tcp(at, client, *host, 443, Reply::Bare);
    }
    world.label(("host_sweep", "web_accept"), &[client], &hosts, (start, start + 20));

    for client in [world.outside(), world.desktops[1]] {
        let hosts = all_hosts(world);
        let count = usize::try_from(world.random.between(30, 70)).unwrap();
        let hosts = world.random.some(&hosts, count);
        let (start, seconds) = (world.moment(200), world.random.between(1, 200));
        for (place, host) in (0..).zip(&hosts) {
            let at = start + seconds * place / i64::try_from(hosts.len()).unwrap();
            let ends = ((client, 0), (*host, 0));
            if world.random.percent(70) {
                let (packets, bytes, flags) = (1, 84, 0);
                let (src, dst, protocol) = (ends.0, ends.1, ICMP);
                let leg = Leg { at, seconds: 0, src, dst, protocol, packets, bytes, flags };
                world.leg(leg, Fate::RejectIn);
            } else {
                world.ask(at, ends, ICMP, 84, Some(84));
            }
        }
        world.label(("host_sweep", "icmp"), &[client], &hosts, (start, start + seconds));
    }
}

fn shared_scans(world: &mut World) {
    let server = world.web[7];
    let count = world.random.between(8, 20);
    let clients: Vec<Ip> = (0..count).map(|_| world.outside()).collect();
    let (start, seconds) = (world.moment(1_000), world.random.between(20, 900));
    let each = world.random.between(14, 40);
    for (place, client) in (0..).zip(&clients) {
        for number in 0..each {
            let port = u16::try_from(1 + place + number * count).unwrap();
            let at = start + seconds * number / each;
            let reply = behind_rules(world);
            world.connect(at, (*client, 60_606), (server, port), reply);
        }
    }
    let span = (start, start + seconds);
    world.label(("distributed_scan", "vertical"), &clients, &[server], span);

    let count = world.random.between(10, 18);
    let clients: Vec<Ip> = (0..count).map(|_| world.outside()).collect();
    let hosts = all_hosts(world);
    let hosts = world.random.some(&hosts, 72);
    let port = world.random.pick(&SWEPT_PORTS);
    let (start, seconds) = (world.moment(1_000), world.random.between(20, 900));
    for (place, host) in hosts.iter().enumerate() {
        let client = clients[place % clients.len()];
        let at = start + world.random.between(0, seconds);
        let reply = behind_rules(world);
        world.tcp(at, client, *host, port, reply);
    }
    let span = (start, start + seconds);
    world.label(("distributed_scan", "horizontal"), &clients, &hosts, span);
}

/// A failed login over SSH or RDP.
fn guess(world: &mut World, port: u16) -> Reply {
    let packets = world.random.between(7, if port == 22 { 26 } else { 12 });
    let bytes = packets * world.random.between(80, 150);
    Reply::Talk([packets, bytes, packets, bytes + 600, world.random.between(0, 4)])
}

fn guesses(world: &mut World) {
    for (kind, variant, port, inside) in [
        ("ssh_bruteforce", "fast", 22, false),
        ("ssh_bruteforce", "internal", 22, true),
        ("ssh_bruteforce", "reuse", 22, false),
        ("rdp_bruteforce", "fast", 3389, false),
        ("rdp_bruteforce", "internal", 3389, true),
    ] {
        let client =
            if inside { world.desktops[usize::from(port % 5) + 2] } else { world.outside() };
        let server = world.random.pick(&world.app.clone());
        let count = if variant == "reuse" {
            world.random.between(10, 18)
        } else {
            world.random.between(40, 200)
        };
        let seconds = world.random.between(30, 300);
        let start = world.moment(seconds + 1_000);
        for number in 0..count {
            let reply = guess(world, port);
            world.tcp(start + seconds * number / count, client, server, port, reply);
        }
        let span = (start, start + seconds);
        world.label((kind, variant), &[client], &[server], span);
        if variant == "fast" {
            // One of them worked.
            let at = start + seconds + world.random.between(20, 600);
            let packets = world.random.between(150, 900);
            let talk = [packets, packets * 90, packets, packets * 200, 240];
            world.tcp(at, client, server, port, Reply::Talk(talk));
            let span = (at, at + 240);
            world.label(("login_after_bruteforce", variant), &[client], &[server], span);
        }
    }
    let client = world.outside();
    let count = usize::try_from(world.random.between(4, 8)).unwrap();
    let servers = world.random.some(&world.app.clone(), count);
    let (start, seconds) = (world.moment(300), world.random.between(60, 300));
    for number in 0..world.random.between(80, 200) {
        let reply = guess(world, 22);
        let server = servers[usize::try_from(number).unwrap() % count];
        world.tcp(start + seconds * number / 200, client, server, 22, reply);
    }
    let span = (start, start + seconds);
    world.label(("ssh_bruteforce", "spray"), &[client], &servers, span).also = &["host_sweep"];
}

fn slow_guesses(world: &mut World) {
    for (kind, port) in [("ssh_bruteforce", 22), ("rdp_bruteforce", 3389)] {
        let (client, server) = (world.outside(), world.random.pick(&world.app.clone()));
        let count = world.random.between(60, 110);
        let seconds = world.random.between(4_000, 7_000);
        let start = world.moment(seconds);
        for number in 0..count {
            let reply = guess(world, port);
            world.tcp(start + seconds * number / count, client, server, port, reply);
        }
        world.label((kind, "slow"), &[client], &[server], (start, start + seconds));
    }
}

fn misconfigurations(world: &mut World) {
    let client = world.special();
    let servers: Vec<Ip> = (0..3).map(|_| world.special()).collect();
    let port = world.random.pick(&[8443, 9443, 443, 5432, 12_345]);
    let every = world.random.between(40, 200);
    for (place, at) in (world.start..world.start + SPAN_SECONDS - 300)
        .step_by(usize::try_from(every).unwrap())
        .enumerate()
    {
        let syn = Leg {
            at,
            seconds: 1,
            src: (client, world.random.port()),
            dst: (servers[place % 3], port),
            protocol: TCP,
            packets: 2,
            bytes: 120,
            flags: SYN,
        };
        world.leg(syn, Fate::Pass);
        let (src, dst) = (syn.dst, syn.src);
        world.leg(Leg { src, dst, flags: SYN_ACK, ..syn }, Fate::RejectOut);
    }
    let span = (world.start, world.start + SPAN_SECONDS);
    world.label(("sg_nacl_misconfig", "nacl_return_blocked"), &servers, &[client], span);

    for variant in ["sg_rule_missing", "sg_egress_missing"] {
        let (client, server) = (world.special(), world.random.pick(&world.db.clone()));
        let port = world.random.pick(&[5432, 3306, 6379, 8500]);
        let every = world.random.between(50, 400);
        for at in (world.start + 30..world.start + SPAN_SECONDS - 300)
            .step_by(usize::try_from(every).unwrap())
        {
            let syn = Leg {
                at,
                seconds: 1,
                src: (client, world.random.port()),
                dst: (server, port),
                protocol: TCP,
                packets: 2,
                bytes: 120,
                flags: SYN,
            };
            let is_egress = variant == "sg_egress_missing";
            world.leg(syn, if is_egress { Fate::RejectOut } else { Fate::RejectIn });
        }
        world.label(("sg_nacl_misconfig", variant), &[client], &[server], span);
    }
}

fn volumes(world: &mut World) {
    for (variant, protocol) in [("syn", TCP), ("udp", UDP)] {
        let (client, server) = (world.outside(), world.random.pick(&world.web.clone()));
        let start = world.moment(60);
        let count = world.random.between(3_000, 5_000);
        for number in 0..count {
            let leg = Leg {
                at: start + number * 20 / count,
                seconds: 0,
                src: (client, u16::try_from(1_024 + number).unwrap()),
                dst: (server, 80),
                protocol,
                packets: 1,
                bytes: if protocol == TCP { 40 } else { 900 },
                flags: if protocol == TCP { SYN } else { 0 },
            };
            world.leg(leg, Fate::Pass);
        }
        world.label(("dos_flood", variant), &[client], &[server], (start, start + 20));
    }
    for (variant, seconds, pieces) in [("bulk", 30, 1), ("drip", 4_500, 100)] {
        let (client, server) = (world.desktops[7], world.outside());
        let start = world.moment(seconds);
        let bytes = world.random.between(40_000_000, 90_000_000) / pieces;
        for piece in 0..pieces {
            let talk = [bytes / 1_450, bytes, bytes / 4_000, bytes / 80, 3];
            let at = start + seconds * piece / pieces;
            world.tcp(at, client, server, 443, Reply::Talk(talk));
        }
        let span = (start, start + seconds);
        world.label(("exfiltration", variant), &[client], &[server], span);
    }
    for (variant, port) in [("dns", 53), ("ntp", 123)] {
        let (client, server) = (world.outside(), world.special());
        let start = world.moment(30);
        let packets = world.random.between(900, 2_500);
        let leg = Leg {
            at: start,
            seconds: 25,
            src: (client, 40_001),
            dst: (server, port),
            protocol: UDP,
            packets,
            bytes: packets * 65,
            flags: 0,
        };
        world.leg(leg, Fate::Pass);
        let (src, dst, bytes) = (leg.dst, leg.src, packets * world.random.between(900, 1_400));
        world.leg(Leg { src, dst, bytes, ..leg }, Fate::Pass);
        world.label(("amplification", variant), &[client], &[server], (start, start + 25));
    }
}

fn beacons(world: &mut World) {
    for (variant, jitter) in [("jitter10", 10), ("jitter30", 30)] {
        let (client, server) = (world.desktops[8], world.outside());
        let every = world.random.between(60, 150);
        let start = world.start + 400;
        let mut at = start;
        while at < world.start + SPAN_SECONDS - 600 {
            let talk = [8, 900, 7, 1_200, 1];
            world.tcp(at, client, server, 443, Reply::Talk(talk));
            at += every + world.random.between(-jitter, jitter) * every / 100;
        }
        world.label(("beacon", variant), &[client], &[server], (start, at));
    }
}

fn services(world: &mut World) {
    let listed = world.threat_list.clone();
    let (server, start) = (world.web[1], world.moment(600));
    for number in 0..20 {
        let talk = [9, 1_100, 10, 9_000, 1];
        world.tcp(start + number * 20, listed[0], server, 443, Reply::Talk(talk));
    }
    let span = (start, start + 400);
    world.label(("suspicious_ip", "listed_client"), &listed[..1], &[server], span);
    let (client, start) = (world.desktops[3], world.moment(600));
    for number in 0..8 {
        world.tcp(start + number * 60, client, listed[1], 443, Reply::Talk([9, 800, 9, 900, 1]));
    }
    let label = world.label(
        ("suspicious_ip", "callback"),
        &[client, listed[1]],
        &listed[1..],
        (start, start + 500),
    );
    label.targets.push(client);

    let (client, server, start) = (world.outside(), world.app[5], world.moment(400));
    for number in 0..10 {
        world.tcp(start + number * 20, client, server, 23, Reply::Talk([12, 700, 10, 900, 2]));
    }
    world.label(("unauthorized_protocol", "telnet"), &[client], &[server], (start, start + 200));
    let (client, server, start) = (world.outside(), world.app[6], world.moment(100));
    world.ask(start, ((client, 0), (server, 0)), 47, 500, Some(400));
    world.label(("unauthorized_protocol", "gre"), &[client], &[server], (start, start + 1));
}
