//! Ordinary traffic, much of which looks like an attack.

use super::world::{End, ICMP, Ip, Leg, Reply, SPAN_SECONDS, TCP, UDP, World};

const SCANS: &[&str] = &["port_scan", "host_sweep", "distributed_scan"];
const CALM: &[&str] = &["port_scan", "host_sweep", "distributed_scan", "beacon", "exfiltration"];

pub(crate) fn plant(world: &mut World) {
    web(world);
    inner_services(world);
    monitoring(world);
    outbound(world);
    administration(world);
    failing_programs(world);
    names_and_time(world);
    noise(world);
}

/// The times of something that happens again and again.
fn times(world: &mut World, every: i64) -> Vec<i64> {
    let mut times = Vec::new();
    let mut at = world.start + world.random.between(0, every);
    while at < world.start + SPAN_SECONDS - 200 {
        times.push(at);
        at += every + world.random.between(-every / 5, every / 5);
    }
    times
}

fn talk(world: &mut World, bytes: i64) -> Reply {
    let size = world.random.between(bytes / 2, bytes * 2);
    Reply::Talk([8, 1_100, 6 + size / 1_400, size, world.random.between(0, 5)])
}

fn web(world: &mut World) {
    for at in times(world, 20) {
        let (client, server) = (world.outside(), world.random.pick(&world.web.clone()));
        for _ in 0..world.random.between(1, 4) {
            let reply = talk(world, 20_000);
            world.tcp(at, client, server, 443, reply);
        }
    }
    let servers = world.web.clone();
    world.benign("web_servers", &servers, CALM);
    let crawlers = [world.outside(), world.outside()];
    for crawler in crawlers {
        for at in times(world, 3_000) {
            for server in &servers {
                let reply = talk(world, 40_000);
                let at = at + world.random.between(0, 50);
                world.tcp(at, crawler, *server, 443, reply);
            }
        }
    }
    world.benign("crawler_in", &crawlers, SCANS);
}

fn inner_services(world: &mut World) {
    let (web, app, db) = (world.web.clone(), world.app.clone(), world.db.clone());
    for at in times(world, 20) {
        let client = world.random.pick(&web);
        let server = world.random.pick(&app);
        let reply = talk(world, 3_000);
        world.tcp(at, client, server, 8080, reply);
        let (client, server) = (world.random.pick(&app), world.random.pick(&db));
        let reply = talk(world, 6_000);
        world.tcp(at + 1, client, server, 5432, reply);
    }
    // Members of a cluster, of whom some may not speak with some.
    let members = &app[..app.len() / 2];
    for at in times(world, 20) {
        let (one, other) = (world.random.pick(members), world.random.pick(members));
        if one != other {
            world.ask(at, ((one, 8301), (other, 8301)), UDP, 118, Some(90));
        }
    }
    world.benign("gossip", members, CALM);
    let (from, to) = (db[0], world.special());
    for at in times(world, 3_600) {
        let bytes = 400_000_000;
        world.tcp(at, from, to, 873, Reply::Talk([bytes / 1_450, bytes, 9_000, 500_000, 200]));
    }
    world.benign("backup", &[from, to], &["exfiltration", "dos_flood"]);
    let (client, server) = (world.special(), app[1]);
    for at in times(world, 40) {
        let port = u16::try_from(world.random.between(40_000, 48_000)).unwrap();
        let reply = talk(world, 30_000);
        world.tcp(at, client, server, port, reply);
    }
    world.benign("ftp_passive", &[client, server], SCANS);
}

fn monitoring(world: &mut World) {
    let (poller, hosts) = (world.special(), [&world.web[..], &world.app].concat());
    let rejecting = world.random.some(&hosts, 6);
    for at in times(world, 600) {
        for host in &hosts {
            let reply = if rejecting.contains(host) { Reply::Rejected } else { talk(world, 9_000) };
            let at = at + world.random.between(0, 40);
            world.tcp(at, poller, *host, 9100, reply);
        }
    }
    world.benign("prometheus", &[poller], SCANS);
    maybe_lacks_rule(world, poller, &rejecting);

    let (balancer, targets) = (world.special(), world.web.clone());
    for at in times(world, 400) {
        for (place, target) in targets.iter().enumerate() {
            let reply = if place < 2 { Reply::Refused } else { Reply::Bare };
            world.tcp(at, balancer, *target, 80, reply);
        }
    }
    world.benign("lb_health", &[balancer], CALM);
}

fn maybe_lacks_rule(world: &mut World, client: Ip, servers: &[Ip]) {
    let span = (world.start, world.start + SPAN_SECONDS);
    let label = world.label(("sg_nacl_misconfig", "sg_rule_missing"), &[client], servers, span);
    label.is_optional = true;
}

fn outbound(world: &mut World) {
    let clients: Vec<Ip> = (0..12).map(|_| world.special()).collect();
    let sites: Vec<Ip> = (0..300).map(|_| world.outside()).collect();
    for at in times(world, 15) {
        let (client, site) = (world.random.pick(&clients), world.random.pick(&sites));
        let size = world.random.between(2_000, 90_000);
        world.through_nat(at, client, site, size);
    }
    world.benign("nat_clients", &clients, SCANS);
    let nat = world.nat;
    world.benign("nat_gateway", &[nat], CALM);

    for (name, every, dead) in [("crawler_out", 10, 12), ("egress_proxy", 8, 2)] {
        let client = world.special();
        let sites: Vec<Ip> = (0..500).map(|_| world.outside()).collect();
        for at in times(world, every) {
            let place = world.random.between(0, 499);
            let site = sites[usize::try_from(place).unwrap()];
            let reply = if place * 100 < dead * 500 { Reply::Silent } else { talk(world, 30_000) };
            world.tcp(at, client, site, 443, reply);
        }
        world.benign(name, &[client], CALM);
    }
    let client = world.special();
    for at in times(world, 10) {
        let peer = world.outside();
        let port = u16::try_from(world.random.between(1_025, 65_000)).unwrap();
        let answer = world.random.percent(60).then_some(400);
        world.ask(at, ((client, 51_413), (peer, port)), UDP, 130, answer);
        let reply = if world.random.percent(50) { talk(world, 50_000) } else { Reply::Silent };
        world.tcp(at, client, peer, port, reply);
    }
    world.benign("p2p", &[client], SCANS);
}

fn administration(world: &mut World) {
    let (bastion, hosts) = (world.special(), [&world.app[..], &world.db].concat());
    for at in times(world, 1_800) {
        for host in &hosts {
            for _ in 0..world.random.between(1, 3) {
                let packets = world.random.between(15, 60);
                let talk = [packets, packets * 110, packets, packets * 120, 4];
                let at = at + world.random.between(0, 90);
                world.tcp(at, bastion, *host, 22, Reply::Talk(talk));
            }
        }
    }
    let must_not = &[
        "port_scan",
        "host_sweep",
        "distributed_scan",
        "ssh_bruteforce",
        "login_after_bruteforce",
    ];
    world.benign("bastion", &[bastion], must_not);
    // An admin from outside: some sessions, long ones and short ones.
    let (admin, host) = (world.outside(), hosts[0]);
    for at in times(world, 2_400) {
        world.tcp(at, admin, host, 22, Reply::Talk([300, 24_000, 280, 90_000, 150]));
        world.tcp(at + 200, admin, host, 22, Reply::Talk([18, 2_500, 17, 3_000, 2]));
    }
    let must_not = &["ssh_bruteforce", "login_after_bruteforce"];
    world.benign("admin", &[admin], must_not);
    let scanner = world.wanted_scanner;
    let start = world.moment(400);
    for (place, host) in (0..).zip(&hosts) {
        for port in
            [21, 22, 23, 80, 443, 445, 1433, 3306, 3389, 5432, 5900, 6379, 8080, 8443, 9200, 11_211]
        {
            world.tcp(start + place * 3, scanner, *host, port, Reply::Rejected);
        }
    }
    world.benign("auth_scanner", &[scanner], SCANS);
}

fn failing_programs(world: &mut World) {
    let (client, server) = (world.special(), world.db[3]);
    for at in times(world, 100) {
        world.tcp(at, client, server, 5433, Reply::Rejected);
    }
    world.benign("retry_client", &[client], SCANS);
    maybe_lacks_rule(world, client, &[server]);

    let client = world.special();
    let members = world.random.some(&world.app.clone(), 8);
    for at in times(world, 200) {
        for member in &members {
            world.tcp(at, client, *member, 9443, Reply::Rejected);
        }
    }
    world.benign("stale_discovery", &[client], SCANS);
    maybe_lacks_rule(world, client, &members);

    // Late packets of sessions that worked, rejected on their way back.
    let servers = world.web.clone();
    for at in times(world, 300) {
        let (client, server) =
            ((world.outside(), world.random.port()), world.random.pick(&servers));
        let reply = talk(world, 20_000);
        world.connect(at, client, (server, 443), reply);
        late_packets(world, at + 130, (server, 443), client);
    }
}

fn late_packets(world: &mut World, at: i64, src: End, dst: End) {
    let leg = Leg { at, seconds: 1, src, dst, protocol: TCP, packets: 2, bytes: 80, flags: 1 };
    world.leg(leg, super::world::Fate::RejectOut);
}

fn names_and_time(world: &mut World) {
    let (resolver, clock) = (world.special(), world.special());
    let clients = [&world.web[..], &world.db].concat();
    for at in times(world, 10) {
        let client_port = world.random.port();
        let client = world.random.pick(&clients);
        world.ask(at, ((client, client_port), (resolver, 53)), UDP, 70, Some(220));
        let (server, port) = (world.outside(), world.random.port());
        let answer = world.random.percent(95).then_some(300);
        world.ask(at, ((resolver, port), (server, 53)), UDP, 70, answer);
    }
    let must_not = &["port_scan", "host_sweep", "distributed_scan", "amplification", "dos_flood"];
    world.benign("dns_resolver", &[resolver], must_not);
    for client in &clients {
        for at in times(world, 1_200) {
            world.ask(at, ((*client, 123), (clock, 123)), UDP, 76, Some(76));
        }
    }
    world.benign("ntp_dns_clients", &clients, CALM);
}

/// What reaches every public address all day: single probes of many sources.
fn noise(world: &mut World) {
    let hosts = [&world.web[..], &world.app].concat();
    for at in times(world, 20) {
        let (source, host) = (world.outside(), world.random.pick(&hosts));
        let port = world.random.pick(&[22, 23, 80, 445, 1433, 3389, 5060, 6379, 8080]);
        for again in 0..world.random.between(1, 2) {
            let reply = if world.random.percent(90) { Reply::Rejected } else { Reply::Silent };
            world.tcp(at + again * 40, source, host, port, reply);
        }
    }
    for at in times(world, 200) {
        let (source, host) = (world.outside(), world.random.pick(&hosts));
        world.ask(at, ((source, 0), (host, 0)), ICMP, 84, Some(84));
    }
}
