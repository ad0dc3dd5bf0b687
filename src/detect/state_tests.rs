//! That detectors which were saved and loaded go on as if nothing had happened, that they keep to their
//! limits, and that no finding is given twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::scenarios::{any_row, host, network, rejected, syn};
use super::*;
use crate::aggregate::{ContactRow, ContactTable, pair_hash};
use crate::finding::{FindingKind, Status};
use crate::net::Addr;

const PANE_SECONDS: i64 = 60;

type Panes = BTreeMap<PaneIndex, Vec<PaneContacts>>;

/// The panes of some rows; the same however often they are asked for.
fn panes_of(rows: &[ContactRow<'_>], shard_count: u64) -> Panes {
    let mut tables: Vec<_> =
        (0..shard_count).map(|seed| ContactTable::new(PANE_SECONDS, seed, usize::MAX)).collect();
    for row in rows {
        let shard = pair_hash(row.src, row.dst, 3) % shard_count;
        tables[usize::try_from(shard).unwrap()].add_row(row);
    }
    let mut panes = Panes::new();
    for shard in tables.iter_mut().flat_map(ContactTable::close_all) {
        panes.entry(shard.pane).or_default().push(shard);
    }
    panes
}

/// Stands for the bytes of a shard's contacts: which pane they are of.
fn save_shard(shard: &PaneContacts, out: &mut Encoder) {
    out.i64(shard.pane.0);
}

fn saved(detectors: &DetectorSet) -> Vec<u8> {
    let mut out = Encoder::default();
    detectors.save(&mut out, save_shard);
    out.into_bytes()
}

/// What was saved, in `empty`; the waiting pane's contacts are taken from `rows` again.
fn loaded(
    bytes: &[u8],
    empty: DetectorSet,
    rows: &[ContactRow<'_>],
    shard_count: u64,
) -> Result<DetectorSet, DecodeError> {
    let panes: BTreeMap<_, VecDeque<_>> =
        panes_of(rows, shard_count).into_iter().map(|(pane, list)| (pane, list.into())).collect();
    let panes = std::cell::RefCell::new(panes);
    let load_shard = |from: &mut Decoder<'_>| {
        let pane = PaneIndex(from.i64()?);
        let mut panes = panes.borrow_mut();
        let shard = panes.get_mut(&pane).and_then(VecDeque::pop_front);
        shard.ok_or(DecodeError::Invalid("shard"))
    };
    let mut from = Decoder::new(bytes);
    let loaded = empty.load(&mut from, load_shard)?;
    from.finish()?;
    Ok(loaded)
}

/// Settings under which small histories already find and evict.
fn eager() -> DetectSettings {
    let mut settings = DetectSettings::default();
    settings.port_scan.ports_min = 3;
    settings.host_sweep.hosts_min = 3;
    settings.ssh_bruteforce.sessions_min = 2;
    settings.port_scan.window_seconds = 60;
    settings.port_scan.medium_window_seconds = 120;
    settings.port_scan.slow_window_seconds = 240;
    settings.host_sweep.window_seconds = 60;
    settings.host_sweep.medium_window_seconds = 120;
    settings.host_sweep.slow_window_seconds = 240;
    settings.ssh_bruteforce.window_seconds = 60;
    settings.ssh_bruteforce.slow_window_seconds = 240;
    settings.dos_flood.flows_per_second_min = 0;
    settings.dos_flood.icmp_packets_per_second_min = 0;
    settings.exfiltration.bytes_min = 10_000;
    settings.exfiltration.window_seconds = 240;
    settings.exfiltration.out_per_in_min = 1;
    settings.exfiltration.known_after_seconds = 600;
    settings.beacon.contacts_min = 2;
    settings.beacon.duration_min_seconds = 60;
    settings.beacon.score_min_percent = 1;
    settings.beacon.window_seconds = 600;
    settings.amplification.ports = vec![22, 445, 7001, 7002];
    settings.amplification.bytes_per_minute_min = 500;
    settings.noise.suppress_seconds = 120;
    settings.top_talker_change.share_min_percent = 10;
    settings.top_talker_change.bytes_min = 0;
    settings.top_talker_change.factor_min = 2;
    settings.top_talker_change.window_seconds = 120;
    settings.top_talker_change.warm_up_seconds = 60;
    settings.top_talker_change.baseline_seconds = 600;
    settings.distributed_scan.ports_min = 2;
    settings.distributed_scan.port_sources_min = 2;
    settings.distributed_scan.hosts_min = 2;
    settings.distributed_scan.host_sources_min = 2;
    settings.distributed_scan.decoys_min = 2;
    settings.distributed_scan.window_seconds = 120;
    settings.login_after_bruteforce.session_packets_min = 5;
    settings.login_after_bruteforce.session_seconds_min = 60;
    settings.sg_nacl_misconfig.windows_min = 2;
    settings.sg_nacl_misconfig.answers_min = 2;
    settings.sg_nacl_misconfig.window_seconds = 240;
    settings
}

/// The same, with room for a few entries only.
fn cramped() -> DetectSettings {
    let mut settings = eager();
    settings.port_scan.tracked_max = 20;
    settings.host_sweep.tracked_max = 20;
    settings.ssh_bruteforce.tracked_max = 3;
    settings.remote_access_attempt.tracked_max = 3;
    settings.dos_flood.tracked_max = 3;
    settings.exfiltration.tracked_max = 3;
    settings.beacon.tracked_max = 3;
    settings.suspicious_ip.tracked_max = 2;
    settings.unauthorized_protocol.tracked_max = 2;
    settings.amplification.tracked_max = 3;
    settings.top_talker_change.tracked_max = 10;
    settings.distributed_scan.tracked_max = 8;
    settings.login_after_bruteforce.tracked_max = 2;
    settings.sg_nacl_misconfig.tracked_max = 3;
    settings.traffic_anomaly.tracked_max = 2;
    settings.capture_gap.tracked_max = 2;
    settings
}

fn set_of(settings: &DetectSettings) -> DetectorSet {
    DetectorSet::new(settings, network(), PANE_SECONDS)
}

fn findings(settings: &DetectSettings, rows: &[ContactRow<'_>]) -> Vec<Finding> {
    let (mut detectors, mut out) = (set_of(settings), Vec::new());
    for (pane, shards) in panes_of(rows, 2) {
        detectors.on_pane(pane, shards, &mut out);
    }
    detectors.on_end(&mut out);
    out
}

/// Rows of a longer history than [`any_row`]'s.
fn any_rows() -> impl Strategy<Value = Vec<ContactRow<'static>>> {
    prop::collection::vec((any_row(), 0_i64..4), 100..500).prop_map(|rows| {
        let later = |(row, part): (ContactRow<'static>, i64)| ContactRow {
            start: row.start.saturating_add(part * 400),
            end: row.end.saturating_add(part * 400),
            ..row
        };
        rows.into_iter().map(later).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_restart_does_not_show(
        rows in any_rows(),
        is_cramped: bool,
        per_hour_max in 0_u32..5,
        bytes_max in prop::sample::select(vec![1_usize << 14, 1 << 20, usize::MAX]),
        restarts in prop::collection::btree_set(0_usize..28, 1..6),
    ) {
        let mut settings = if is_cramped { cramped() } else { eager() };
        settings.noise.findings_per_hour_max = per_hour_max;
        let empty = || set_of(&settings).with_bytes_max(bytes_max);
        let (mut whole, mut restarted) = (empty(), empty());
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        let twins = panes_of(&rows, 2).into_iter().zip(panes_of(&rows, 2));
        for (number, ((pane, shards), (_, twin_shards))) in twins.enumerate() {
            whole.on_pane(pane, shards, &mut expected);
            restarted.on_pane(pane, twin_shards, &mut found);
            if restarts.contains(&number) {
                let bytes = saved(&restarted);
                restarted = loaded(&bytes, empty(), &rows, 2).unwrap();
                prop_assert_eq!(restarted.waiting_pane(), Some(pane));
            }
        }
        whole.on_end(&mut expected);
        restarted.on_end(&mut found);
        prop_assert_eq!(format!("{expected:?}"), format!("{found:?}"));
        prop_assert_eq!(whole.evictions(), restarted.evictions());
    }

    #[test]
    fn no_revision_is_given_twice(rows in any_rows(), is_cramped: bool) {
        let settings = if is_cramped { cramped() } else { eager() };
        let mut given = BTreeSet::new();
        for finding in findings(&settings, &rows) {
            prop_assert!(given.insert((finding.id, finding.revision)), "{finding:?}");
            let before = finding.revision.checked_sub(1);
            let is_next = before.is_none_or(|before| given.contains(&(finding.id, before)));
            prop_assert!(is_next, "{finding:?}");
            let status = if finding.revision == 0 { Status::Open } else { Status::Update };
            prop_assert_eq!(finding.status, status);
            prop_assert!(finding.first_seen <= finding.last_seen);
        }
    }

    #[test]
    fn findings_of_a_pane_have_an_order(rows in any_rows(), per_hour_max in 0_u32..5) {
        let mut settings = eager();
        settings.noise.findings_per_hour_max = per_hour_max;
        let mut detectors = set_of(&settings);
        for (pane, shards) in panes_of(&rows, 2) {
            let mut found = Vec::new();
            detectors.on_pane(pane, shards, &mut found);
            let order = found.iter().map(|finding| (finding.kind, &finding.actor.addrs));
            prop_assert!(order.is_sorted(), "{found:?}");
        }
    }
}

/// Detectors with something of everything.
fn busy(rows: &[ContactRow<'_>]) -> DetectorSet {
    busy_with(&eager(), rows)
}

fn busy_with(settings: &DetectSettings, rows: &[ContactRow<'_>]) -> DetectorSet {
    let (mut detectors, mut out) = (set_of(settings), Vec::new());
    for (pane, shards) in panes_of(rows, 2) {
        detectors.on_pane(pane, shards, &mut out);
    }
    detectors
}

fn busy_rows() -> Vec<ContactRow<'static>> {
    let outside = "203.0.113.9";
    let mut rows: Vec<_> =
        (0..6).map(|port| rejected(syn(10, outside, host(5), 7000 + port))).collect();
    rows.extend((0..5).map(|number| rejected(syn(70, outside, host(number), 445))));
    rows.extend((0..2).map(|number| rejected(syn(70, "10.20.1.1", host(number), 8301))));
    for number in 0..4 {
        rows.extend((0..4).map(|port| rejected(syn(80, "203.0.113.7", host(number), 80 + port))));
    }
    rows.extend(scenarios::sessions(3, 10, "10.20.7.7", host(5), 22));
    for minute in 0..4 {
        rows.extend(scenarios::upload(minute * 61, "10.20.7.7", "198.51.100.7", 9000));
        rows.extend(scenarios::upload(minute * 61, "10.20.7.8", "198.51.100.7", 9000));
    }
    rows.extend([syn(200, outside, host(9), 23), syn(200, "203.0.113.10", host(9), 443)]);
    let udp =
        |port| ContactRow { protocol: 17, tcp_flags: None, ..syn(200, outside, host(8), port) };
    rows.extend([7001, 7003].into_iter().flat_map(|port| scenarios::answered(udp(port), 0)));
    rows
}

#[test]
fn other_bytes_are_refused_or_harmless() {
    let rows = busy_rows();
    let bytes = saved(&busy(&rows));
    for length in 0..bytes.len() {
        assert!(loaded(&bytes[..length], set_of(&eager()), &rows, 2).is_err(), "{length}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut detectors) = loaded(&bytes, set_of(&eager()), &rows, 2) else { continue };
        let mut out = Vec::new();
        for (mut pane, mut shards) in panes_of(&rows, 1) {
            pane.0 += 10;
            shards.iter_mut().for_each(|shard| shard.pane = pane);
            detectors.on_pane(pane, shards, &mut out);
        }
        detectors.on_end(&mut out);
        assert!(out.iter().all(|finding| !finding.title.is_empty()));
    }
}

#[test]
fn other_settings_apply_to_what_is_remembered() {
    let rows = busy_rows();
    let bytes = saved(&busy(&rows));
    let mut settings = cramped();
    settings.host_sweep.enabled = false;
    let detectors = loaded(&bytes, set_of(&settings), &rows, 2).unwrap();
    assert!(detectors.evictions() > 0);
    let sweeps = detectors.detectors.iter().find(|detector| detector.name() == "host_sweep");
    assert_eq!(sweeps.unwrap().bytes(), 0);
    let mut out = Vec::new();
    let mut again = loaded(&saved(&detectors), set_of(&eager()), &rows, 2).unwrap();
    again.on_end(&mut out);
    assert!(!out.iter().any(|finding| finding.kind == FindingKind::HostSweep));
    let error = DetectorSet::new(&eager(), network(), 300)
        .load(&mut Decoder::new(&bytes), |_| Err(DecodeError::Truncated));
    assert!(error.is_err(), "panes of another length");
}

#[test]
fn another_network_is_in_force_at_once_and_nothing_is_forgotten() {
    let rows = busy_rows();
    let (mut detectors, mut expected) = (busy(&rows), busy(&rows));
    let state = saved(&detectors);
    let listed = network();
    detectors.set_network(Network { threats: std::sync::Arc::default(), ..network() });
    assert_eq!(saved(&detectors), state);
    let (mut found, mut all) = (Vec::new(), Vec::new());
    detectors.on_end(&mut found);
    expected.set_network(listed);
    expected.on_end(&mut all);
    let is_listed = |finding: &Finding| finding.kind == FindingKind::SuspiciousIp;
    assert!(all.iter().any(is_listed) && !found.iter().any(is_listed));
    all.retain(|finding| !is_listed(finding));
    assert_eq!(found, all);
}

#[test]
fn the_first_form_is_read() {
    let rows = busy_rows();
    let mut detectors = busy(&rows);
    // It had no noise control, and so says nothing of it.
    detectors.suppressor = Suppressor::new(NoiseSettings::default(), Vec::new());
    let mut out = Encoder::default();
    out.version(1);
    for number in [detectors.pane_seconds, detectors.newest_end.0, detectors.inexact_until.0] {
        out.i64(number);
    }
    for name in FORM_1 {
        let mut listed = detectors.detectors.iter();
        let detector = listed.find(|detector| detector.name() == name);
        out.option(detector, |out, detector| detector.save(out));
    }
    out.option(detectors.waiting.as_ref(), |out, waiting| waiting.save(out, save_shard));
    let loaded = loaded(&out.into_bytes(), set_of(&eager()), &rows, 2).unwrap();
    // Those that came later have nothing there.
    let of_form_1 = |set: &DetectorSet| {
        FORM_1.map(|name| {
            let detector = set.detectors.iter().find(|detector| detector.name() == name);
            let mut out = Encoder::default();
            detector.expect("it is one of all").save(&mut out);
            out.into_bytes()
        })
    };
    assert_eq!(of_form_1(&loaded), of_form_1(&detectors));
}

/// A flood of sources that are seen once, and two slow scanners that come back once a minute.
#[test]
fn a_flood_hides_no_slow_scanner() {
    let mut settings = DetectSettings::default();
    settings.port_scan.tracked_max = 10_000;
    settings.host_sweep.tracked_max = 10_000;
    settings.distributed_scan.tracked_max = 10_000;
    let mut detectors = set_of(&settings);
    let mut out = Vec::new();
    for minute in 0..25_u16 {
        let at = i64::from(minute) * 60 + 30;
        let mut table = ContactTable::new(PANE_SECONDS, 1, usize::MAX);
        for number in 0..40_000_u32 {
            let source = Addr::v4(0x0b00_0000 + u32::from(minute) * 40_000 + number);
            let row = ContactRow {
                src: source,
                ..syn(at, "203.0.113.1", host((number % 200) as u16), (number % 999) as u16)
            };
            table.add_row(&row);
        }
        table.add_row(&syn(at, "203.0.113.9", host(5), 7000 + minute));
        table.add_row(&syn(at, "203.0.113.8", host(minute), 8081));
        for shard in table.close_all() {
            detectors.on_pane(shard.pane, vec![shard], &mut out);
        }
        assert!(detectors.bytes() < 8 << 20, "{}", detectors.bytes());
    }
    detectors.on_end(&mut out);
    let found: BTreeSet<_> = out
        .iter()
        .filter(|finding| finding.kind != FindingKind::RemoteAccessAttempt)
        .map(|finding| (finding.kind, finding.actor.addrs[0], finding.exact))
        .collect();
    let by = |text: &str| text.parse::<Addr>().unwrap();
    let expected = [
        (FindingKind::PortScan, by("203.0.113.9"), false),
        (FindingKind::HostSweep, by("203.0.113.8"), false),
    ];
    assert_eq!(found, BTreeSet::from(expected));
}

/// What is only counted is decided as what is told.
#[test]
fn counts_are_of_what_is_told() {
    let rows = busy_rows();
    for per_hour_max in [0, 1, 2, 5] {
        let mut settings = eager();
        settings.noise.findings_per_hour_max = per_hour_max;
        settings.noise.min_severity = crate::finding::Severity::Medium;
        let mut network = network();
        network.allowances = vec![crate::finding::Allowance {
            label: "scanner".to_owned(),
            sources: vec!["203.0.113.9".parse().unwrap()],
            kinds: vec![FindingKind::PortScan],
            ..crate::finding::Allowance::default()
        }];
        let told = [false, true].map(|is_counted| {
            let set = DetectorSet::new(&settings, network.clone(), PANE_SECONDS);
            let mut detectors = if is_counted { set.for_counts() } else { set };
            let mut out = Vec::new();
            for (pane, shards) in panes_of(&rows, 2) {
                detectors.on_pane(pane, shards, &mut out);
            }
            detectors.on_end(&mut out);
            let told = out.iter().map(|found| (found.kind, found.severity, found.revision));
            (told.collect::<Vec<_>>(), detectors.suppressed().clone())
        });
        assert_eq!(told[0], told[1], "{per_hour_max}");
        assert!(told[0].1.allowed.contains_key("scanner"), "{:?}", told[0].1);
    }
}
