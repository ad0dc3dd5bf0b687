//! What detectors say to small hand-made streams, and that neither shards nor the order of records
//! within a pane show.

use proptest::prelude::*;

use super::*;
use crate::aggregate::{CONTACT_BYTES_DEFAULT, ContactRow, ContactTable, Vantage, pair_hash};
use crate::finding::{Evidence, Status};
use crate::net::Addr;
use crate::record::Action;

const OUTSIDE: &str = "203.0.113.9";
const PANE_SECONDS: i64 = 60;

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

pub(super) fn host(number: u16) -> Addr {
    Addr::v4(0x0a14_0100 + u32::from(number))
}

/// A SYN of one packet at a second of the stream.
pub(super) fn syn(at: i64, src: &str, dst: Addr, dst_port: u16) -> ContactRow<'static> {
    ContactRow {
        src: addr(src),
        dst,
        src_port: 50_000,
        dst_port,
        protocol: 6,
        packets: 1,
        bytes: 44,
        start: UnixSeconds(at),
        end: UnixSeconds(at),
        action: Action::Accept,
        tcp_flags: Some(2),
        vantage: Vantage::Ingress,
        interface_id: Some(b"eni-1"),
        account_id: Some(b"012345678910"),
        vpc_id: None,
        subnet_id: None,
    }
}

pub(super) fn rejected(row: ContactRow<'static>) -> ContactRow<'static> {
    ContactRow { action: Action::Reject, ..row }
}

/// The request with payload and its answer, `delay_seconds` later.
fn answered(row: ContactRow<'static>, delay_seconds: i64) -> [ContactRow<'static>; 2] {
    let request =
        ContactRow { packets: 8, bytes: 1200, tcp_flags: row.tcp_flags.map(|_| 3), ..row };
    [request, reply(request, delay_seconds, 6, 2000, 19)]
}

fn reply(
    to: ContactRow<'static>,
    delay_seconds: i64,
    packets: u64,
    bytes: u64,
    flags: u8,
) -> ContactRow<'static> {
    ContactRow {
        src: to.dst,
        dst: to.src,
        src_port: to.dst_port,
        dst_port: to.src_port,
        packets,
        bytes,
        start: to.start.saturating_add(delay_seconds),
        end: to.end.saturating_add(delay_seconds),
        tcp_flags: to.tcp_flags.map(|_| flags),
        vantage: Vantage::Egress,
        ..to
    }
}

pub(super) fn network() -> Network {
    Network {
        inside: vec!["10.20.0.0/16".parse().unwrap()],
        allowlisted: vec!["10.20.5.99".parse().unwrap()],
        nat_gateways: vec!["10.20.0.100".parse().unwrap()],
        ..Network::default()
    }
}

fn findings(rows: &[ContactRow<'_>], shard_count: u64) -> Vec<Finding> {
    findings_within(usize::MAX, rows, shard_count)
}

fn findings_within(bytes_max: usize, rows: &[ContactRow<'_>], shard_count: u64) -> Vec<Finding> {
    let mut tables: Vec<_> = (0..shard_count)
        .map(|seed| ContactTable::new(PANE_SECONDS, seed, CONTACT_BYTES_DEFAULT))
        .collect();
    for row in rows {
        let shard = pair_hash(row.src, row.dst, 3) % shard_count;
        tables[usize::try_from(shard).unwrap()].add_row(row);
    }
    let mut panes: std::collections::BTreeMap<PaneIndex, Vec<PaneContacts>> =
        std::collections::BTreeMap::new();
    for shard in tables.iter_mut().flat_map(ContactTable::close_all) {
        panes.entry(shard.pane).or_default().push(shard);
    }
    let mut out = Vec::new();
    let detectors = DetectorSet::new(&DetectSettings::default(), network(), PANE_SECONDS);
    let mut detectors = detectors.with_bytes_max(bytes_max);
    for (pane, shards) in panes {
        detectors.on_pane(pane, shards, &mut out);
    }
    detectors.on_end(&mut out);
    out
}

/// Kind, variant or outcome, and status of everything found.
fn check(rows: &[ContactRow<'_>], expected: &[(&str, &str, Status)]) {
    let found: Vec<_> = findings(rows, 2)
        .iter()
        .map(|finding| {
            let word = ["variant", "outcome"].iter().find_map(|name| finding.evidence.get(name));
            let Some(Evidence::Word(word)) = word else { panic!("no word in {finding:?}") };
            (finding.kind.name(), *word, finding.status)
        })
        .collect();
    assert_eq!(found, expected);
}

fn scan(ports: std::ops::Range<u16>) -> Vec<ContactRow<'static>> {
    ports.map(|port| rejected(syn(10, OUTSIDE, host(5), port))).collect()
}

#[test]
fn a_port_scan_begins_at_its_threshold() {
    check(&scan(7000..7009), &[]);
    check(&scan(7000..7010), &[("port_scan", "fast", Status::Open)]);
    let windows: Vec<u32> = [10, 12, 15]
        .into_iter()
        .map(|ports| findings(&scan(7000..7000 + ports), 1)[0].window_seconds)
        .collect();
    assert_eq!(windows, [14_400, 3600, 300]);
}

#[test]
fn a_client_that_is_answered_as_often_is_no_scanner() {
    let mut rows = scan(7000..7015);
    rows.extend((8000..8008).flat_map(|port| answered(syn(11, OUTSIDE, host(5), port), 0)));
    check(&rows, &[]);
}

#[test]
fn answers_may_come_in_the_next_pane() {
    let late = |delay| -> Vec<_> {
        (7000..7015).flat_map(|port| answered(syn(59, OUTSIDE, host(5), port), delay)).collect()
    };
    check(&late(30), &[]);
    let probes = |delay| -> Vec<_> {
        let pairs = (7000..7015).map(|port| syn(59, OUTSIDE, host(5), port));
        pairs.flat_map(|row| [row, reply(row, delay, 1, 44, 18)]).collect()
    };
    check(&probes(30), &[]);
    check(&probes(90), &[("port_scan", "fast", Status::Open)]);
}

#[test]
fn resets_and_silence_are_failures_with_and_without_flags() {
    for flags in [None, Some(2)] {
        let rows: Vec<_> = (7000..7020)
            .map(|port| ContactRow { tcp_flags: flags, ..syn(10, OUTSIDE, host(5), port) })
            .flat_map(|row| [row, reply(row, 0, 1, 40, 4)])
            .collect();
        check(&rows, &[("port_scan", "fast", Status::Open)]);
    }
}

#[test]
fn a_slow_scan_is_found_over_hours_and_goes_on_as_one_episode() {
    let rows: Vec<_> = (0..20_u16)
        .map(|i| rejected(syn(i64::from(i) * 900, OUTSIDE, host(5), 7000 + i)))
        .collect();
    let slow = |status| ("port_scan", "slow", status);
    check(&rows, &[slow(Status::Open), slow(Status::Update), slow(Status::Update)]);
    let ids: std::collections::BTreeSet<_> =
        findings(&rows, 1).iter().map(|finding| finding.id).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn scans_of_several_hosts_are_one_block() {
    let rows: Vec<_> = (1..=4)
        .flat_map(|number| {
            (7000..7011).map(move |port| rejected(syn(10, OUTSIDE, host(number), port)))
        })
        .chain((1..=4).flat_map(|number| {
            (7011..7020).map(move |port| rejected(syn(10, OUTSIDE, host(number), port)))
        }))
        .collect();
    check(&rows, &[("port_scan", "block", Status::Open)]);
}

#[test]
fn traceroute_backscatter_and_blocked_replies_are_no_scans() {
    let udp =
        |port| ContactRow { protocol: 17, tcp_flags: None, ..syn(10, OUTSIDE, host(5), port) };
    check(&(33_434..33_500).map(udp).collect::<Vec<_>>(), &[]);
    let backscatter =
        |port| ContactRow { src_port: 80, tcp_flags: Some(18), ..syn(10, OUTSIDE, host(5), port) };
    check(&(1000..1060).map(backscatter).collect::<Vec<_>>(), &[]);
    let blocked = |port| ContactRow {
        src_port: 443,
        tcp_flags: None,
        vantage: Vantage::Egress,
        dst: addr(OUTSIDE),
        ..rejected(syn(10, "10.20.1.5", addr(OUTSIDE), port))
    };
    check(&(40_000..40_060).map(blocked).collect::<Vec<_>>(), &[]);
}

#[test]
fn wanted_scanners_and_gateways_are_left_alone() {
    for actor in ["10.20.5.99", "10.20.0.100"] {
        let rows: Vec<_> = (0..40)
            .flat_map(|number| {
                let port = rejected(syn(10, actor, host(5), 7000 + number));
                [port, rejected(syn(10, actor, host(number), 445))]
            })
            .collect();
        check(&rows, &[]);
    }
}

#[test]
fn sweeps_of_closed_and_of_open_ports() {
    let closed: Vec<_> =
        (0..12).map(|number| rejected(syn(10, OUTSIDE, host(number), 445))).collect();
    check(&closed, &[("host_sweep", "fast", Status::Open)]);
    let probe = |row| {
        [ContactRow { packets: 3, bytes: 164, tcp_flags: Some(6), ..row }, reply(row, 0, 1, 60, 18)]
    };
    let open: Vec<_> =
        (0..12).flat_map(|number| probe(syn(10, OUTSIDE, host(number), 443))).collect();
    check(&open, &[("host_sweep", "accepted", Status::Open)]);
    let crawled: Vec<_> =
        (0..40).flat_map(|number| answered(syn(10, OUTSIDE, host(number), 443), 0)).collect();
    check(&crawled, &[]);
    let health: Vec<_> =
        (0..40).flat_map(|number| probe(syn(10, "10.20.5.20", host(number), 443))).collect();
    check(&health, &[]);
}

#[test]
fn many_inside_hosts_that_fail_alike_lack_a_rule() {
    let from = |source: u16, port| {
        (0..12).map(move |number| ContactRow {
            src: host(100 + source),
            ..rejected(syn(10, OUTSIDE, host(number), port))
        })
    };
    check(&(0..7).flat_map(|source| from(source, 8301)).collect::<Vec<_>>(), &[]);
    let six: Vec<_> = (0..6).flat_map(|source| from(source, 8301)).collect();
    check(&six, &[("host_sweep", "fast", Status::Open); 6]);
    let low: Vec<_> = (0..7).flat_map(|source| from(source, 445)).collect();
    check(&low, &[("host_sweep", "fast", Status::Open); 7]);
}

#[test]
fn pings_are_told_from_their_errors() {
    let icmp = |src: &str, dst: Addr| ContactRow {
        protocol: 1,
        src_port: 0,
        tcp_flags: None,
        ..syn(10, src, dst, 0)
    };
    let pings: Vec<_> = (0..14).map(|number| icmp("10.20.9.9", host(number))).collect();
    check(&pings, &[("host_sweep", "icmp", Status::Open)]);
    let echoed: Vec<_> = pings.iter().flat_map(|row| [*row, reply(*row, 0, 1, 84, 0)]).collect();
    check(&echoed, &[]);
    let errors: Vec<_> = (0..14)
        .flat_map(|number| {
            let question = ContactRow { protocol: 17, ..icmp(OUTSIDE, host(number)) };
            let question = ContactRow { dst_port: 5000 + number, src_port: 40_000, ..question };
            let error = ContactRow { src: host(number), ..icmp(OUTSIDE, addr(OUTSIDE)) };
            [question, error]
        })
        .collect();
    check(&errors, &[]);
}

pub(super) fn sessions(
    count: u16,
    every_seconds: i64,
    src: &str,
    dst: Addr,
    port: u16,
) -> Vec<ContactRow<'static>> {
    (0..count)
        .flat_map(|i| {
            let opened = syn(i64::from(i) * every_seconds, src, dst, port);
            answered(ContactRow { src_port: 50_000 + i, ..opened }, 0)
        })
        .collect()
}

#[test]
fn guessed_logins_are_counted_by_session() {
    const INSIDE: &str = "10.20.7.7";
    check(&sessions(7, 10, INSIDE, host(5), 22), &[]);
    check(&sessions(8, 10, INSIDE, host(5), 22), &[("ssh_bruteforce", "fast", Status::Open)]);
    check(&sessions(8, 10, INSIDE, host(5), 3389), &[("rdp_bruteforce", "fast", Status::Open)]);
    check(&sessions(40, 100, INSIDE, host(5), 22), &[("ssh_bruteforce", "slow", Status::Open)]);
    let tunnel: Vec<_> = (0..60)
        .flat_map(|minute| {
            sessions(6, 1, INSIDE, host(5), 22).into_iter().map(move |row| ContactRow {
                start: row.start.saturating_add(minute * 60),
                end: row.end.saturating_add(minute * 60),
                ..row
            })
        })
        .collect();
    check(&tunnel, &[]);
}

#[test]
fn a_spray_is_one_finding_and_management_hosts_are_none() {
    let spray: Vec<_> =
        (0..5).flat_map(|number| sessions(9, 10, "10.20.7.7", host(number), 22)).collect();
    check(&spray[..], &[("ssh_bruteforce", "spray", Status::Open)]);
    let managed: Vec<_> =
        (0..20).flat_map(|number| sessions(45, 300, "10.20.7.7", host(number), 22)).collect();
    check(&managed, &[]);
}

#[test]
fn remote_access_is_reported_once_an_hour_and_when_it_gets_further() {
    let attempt = |at| syn(at, OUTSIDE, host(5), 23);
    let mut rows = vec![rejected(attempt(0)), rejected(attempt(70)), rejected(attempt(3700))];
    rows.extend(answered(attempt(600), 0));
    rows.push(rejected(syn(0, "10.20.7.7", host(5), 23)));
    check(
        &rows,
        &[
            ("remote_access_attempt", "rejected", Status::Open),
            ("remote_access_attempt", "answered", Status::Update),
            ("remote_access_attempt", "rejected", Status::Open),
        ],
    );
}

#[test]
fn a_flood_on_an_admin_port_is_told_as_one() {
    let probe = |at, source: u32| {
        let row = rejected(syn(at, OUTSIDE, host(5), 22));
        ContactRow { src: Addr::v4(0x0900_0000 + source), ..row }
    };
    let mut rows: Vec<_> = (0..3000).map(|source| probe(1, source)).collect();
    // The last one comes further at once, one of the crowd later.
    rows.extend(answered(ContactRow { action: Action::Accept, ..probe(2, 2999) }, 0));
    rows.extend((0..3000).map(|source| probe(61, source)));
    rows.extend(answered(ContactRow { action: Action::Accept, ..probe(130, 2500) }, 0));
    let bytes_max = 8 << 20;
    let found = findings_within(bytes_max, &rows, 2);
    let ids: std::collections::BTreeSet<_> = found.iter().map(|finding| finding.id).collect();
    assert_eq!((found.len(), ids.len()), (1002, 1002));
    let evidence = |finding: &Finding, name| finding.evidence.get(name).cloned();
    let told = |source: u32| {
        let actor = Addr::v4(0x0900_0000 + source);
        found.iter().filter(move |finding| finding.actor.addrs == [actor])
    };
    assert_eq!(told(998).count(), 1);
    assert_eq!(told(999).count(), 0);
    for source in [2999, 2500] {
        let told: Vec<_> = told(source).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(evidence(told[0], "outcome"), Some(Evidence::Word("answered")));
        assert_eq!((told[0].status, told[0].revision), (Status::Open, 0));
    }
    let crowd = &found[1000];
    assert_eq!(evidence(crowd, "distinct_sources"), Some(Evidence::Count(2000)));
    assert_eq!(evidence(crowd, "rejected"), Some(Evidence::Count(2000)));
    assert_eq!((crowd.actor.addrs.len(), &crowd.target.addrs[..]), (50, &[host(5)][..]));
    assert_eq!(crowd.title, "2000 more addresses from outside tried admin ports of 10.20.1.5");
    // From one source to many hosts: one for all.
    let sweep = |number| rejected(syn(1, OUTSIDE, host(number), 22));
    let swept: Vec<_> = (0..3000).map(sweep).collect();
    let is_attempt = |finding: &&Finding| finding.kind.name() == "remote_access_attempt";
    let swept = findings_within(bytes_max, &swept, 2);
    assert_eq!(swept.iter().filter(is_attempt).count(), 1001);
}

pub(super) fn any_row() -> impl Strategy<Value = ContactRow<'static>> {
    let sources = ["203.0.113.9", "203.0.113.10", "10.20.7.7", "10.20.1.5"];
    let flags = prop::sample::select(vec![None, Some(0), Some(2), Some(18), Some(4), Some(3)]);
    (0_usize..4, 0_u16..20, 0_u16..30, 0_u16..3, 0_i64..400, 0_u8..8, flags).prop_map(
        move |(src, dst, port, service, at, bits, tcp_flags)| {
            let dst_port = match service {
                0 => 22,
                1 => 445,
                _ => 7000 + port,
            };
            let protocol = [6, 6, 6, 17, 1][usize::from(bits % 5)];
            let forward = ContactRow {
                protocol,
                src_port: if protocol == 1 { 0 } else { 50_000 + port },
                dst_port: if protocol == 1 { 0 } else { dst_port },
                tcp_flags: tcp_flags.filter(|_| protocol == 6),
                action: if bits & 1 == 0 { Action::Reject } else { Action::Accept },
                vantage: if bits & 2 == 0 { Vantage::Ingress } else { Vantage::Egress },
                interface_id: Some([b"eni-1", b"eni-2", b"eni-3"][usize::from(bits % 3)]),
                ..syn(at, sources[src], host(dst), dst_port)
            };
            if bits & 4 == 0 { forward } else { reply(forward, 0, 6, 900, 19) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn neither_order_nor_shards_show(
        (rows, shuffled) in prop::collection::vec(any_row(), 200..800)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
    ) {
        let found = findings(&rows, 1);
        prop_assert_eq!(&found, &findings(&shuffled, 1));
        prop_assert_eq!(&found, &findings(&shuffled, 5));
    }
}
