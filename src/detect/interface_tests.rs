//! What the detectors of interfaces say to streams of some days, against naive models, and that neither
//! shards, order nor restarts show.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::scenarios::network;
use super::*;
use crate::aggregate::{
    CONTACT_BYTES_DEFAULT, ContactRow, ContactTable, Silence, SilenceRow, Vantage, pair_hash,
};
use crate::finding::{Evidence, FindingKind};
use crate::net::Addr;
use crate::record::Action;

const PANE_SECONDS: i64 = 60;

const NAMES: [&[u8]; 8] =
    [b"eni-0", b"eni-1", b"eni-2", b"eni-3", b"eni-4", b"eni-5", b"eni-6", b"eni-7"];

/// What an interface logs in a minute.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// So many bytes received, and a tenth sent, in records of two peers.
    Traffic(u64),
    /// The same without `flow-direction`.
    Undirected(u64),
    NoData,
    SkipData,
}

/// Minute, interface, and what it logs.
type Event = (i64, usize, Log);

fn own(interface: usize) -> Addr {
    Addr::v4(0x0a14_0100 + u32::try_from(interface).unwrap())
}

fn add(event: &Event, tables: &mut [ContactTable]) {
    let (minute, interface, log) = *event;
    let (start, end) = (UnixSeconds(minute * 60 + 3), UnixSeconds(minute * 60 + 58));
    let [interface_id, account_id] = [Some(NAMES[interface]), Some(&b"1"[..])];
    let (bytes, is_directed) = match log {
        Log::Traffic(bytes) => (bytes, true),
        Log::Undirected(bytes) => (bytes, false),
        Log::NoData | Log::SkipData => {
            let silence =
                if matches!(log, Log::NoData) { Silence::NoData } else { Silence::SkipData };
            let (vpc_id, subnet_id) = (None, None);
            let row =
                SilenceRow { silence, start, end, interface_id, account_id, vpc_id, subnet_id };
            return tables[interface % tables.len()].add_silence(&row);
        }
    };
    for peer in 0..2_u32 {
        let received = ContactRow {
            src: Addr::v4(0xcb00_7101 + peer),
            dst: own(interface),
            src_port: 50_000,
            dst_port: 443,
            protocol: 6,
            packets: bytes / 2000,
            bytes: bytes / 2,
            start,
            end,
            action: Action::Accept,
            tcp_flags: None,
            vantage: if is_directed { Vantage::Ingress } else { Vantage::Unknown },
            interface_id,
            account_id,
            vpc_id: None,
            subnet_id: None,
        };
        let sent = ContactRow {
            src: received.dst,
            dst: received.src,
            src_port: 443,
            dst_port: 50_000,
            bytes: bytes / 20,
            packets: bytes / 20_000,
            vantage: if is_directed { Vantage::Egress } else { Vantage::Unknown },
            ..received
        };
        let shard = pair_hash(received.src, received.dst, 3) % tables.len() as u64;
        for row in [received, sent] {
            tables[usize::try_from(shard).unwrap()].add_row(&row);
        }
    }
}

type Panes = BTreeMap<PaneIndex, VecDeque<PaneContacts>>;

fn panes(events: &[Event], shard_count: usize) -> Panes {
    let new = |seed| ContactTable::new(PANE_SECONDS, seed, CONTACT_BYTES_DEFAULT);
    let mut tables: Vec<_> = (0..shard_count as u64).map(new).collect();
    let mut panes = Panes::new();
    for of_minute in events.chunk_by(|one, other| one.0 == other.0) {
        of_minute.iter().for_each(|event| add(event, &mut tables));
        for shard in tables.iter_mut().flat_map(ContactTable::close_all) {
            panes.entry(shard.pane).or_default().push_back(shard);
        }
    }
    panes
}

/// Detectors of interfaces alone.
fn settings() -> DetectSettings {
    let mut settings = DetectSettings::default();
    settings.port_scan.enabled = false;
    settings.host_sweep.enabled = false;
    settings.ssh_bruteforce.enabled = false;
    settings.rdp_bruteforce.enabled = false;
    settings.remote_access_attempt.enabled = false;
    settings
}

fn findings_of(settings: &DetectSettings, panes: Panes) -> Vec<Finding> {
    let mut detectors = DetectorSet::new(settings, network(), PANE_SECONDS);
    let mut out = Vec::new();
    for (pane, shards) in panes {
        detectors.on_pane(pane, shards.into(), &mut out);
    }
    detectors.on_end(&mut out);
    out
}

/// Findings as `minute of detection, variant, interfaces`.
fn said(findings: &[Finding]) -> Vec<(i64, String, Vec<String>)> {
    let said = findings.iter().map(|finding| {
        let Some(Evidence::Word(variant)) = finding.evidence.get("variant") else {
            panic!("every finding has a variant")
        };
        let minute = finding.last_seen.0.div_euclid(60);
        (minute, format!("{variant} {}", finding.revision), finding.context.interface_ids.clone())
    });
    said.collect()
}

fn check(events: &[Event], expected: &[(i64, &str, &[&str])]) {
    let found = findings_of(&settings(), panes(events, 2));
    let expected: Vec<_> = expected
        .iter()
        .map(|(minute, what, names)| {
            (*minute, (*what).to_owned(), names.iter().map(|name| (*name).to_owned()).collect())
        })
        .collect();
    assert_eq!(said(&found), expected);
    for finding in &found {
        assert!(finding.first_seen <= finding.last_seen && !finding.title.is_empty());
    }
}

/// Minutes of an interface with the same log.
fn minutes(
    minutes: std::ops::Range<i64>,
    interface: usize,
    log: Log,
) -> impl Iterator<Item = Event> {
    minutes.map(move |minute| (minute, interface, log))
}

fn in_order(events: impl Iterator<Item = Event>) -> Vec<Event> {
    let mut events: Vec<_> = events.collect();
    events.sort_by_key(|(minute, ..)| *minute);
    events
}

#[test]
fn an_interface_that_stops_while_others_log_on_is_told_once_and_when_it_comes_back() {
    let some = Log::Traffic(1000);
    let events = in_order(
        minutes(0..700, 0, some)
            .chain(minutes(0..400, 1, Log::NoData))
            .chain(minutes(500..700, 1, some))
            // Has not logged for long enough.
            .chain(minutes(0..300, 2, some))
            // Its breaks are usual.
            .chain((0..14).map(|part| (part * 25, 3, some)).chain([(699, 3, some)])),
    );
    check(
        &events,
        &[(431, "interface_silent 0", &["eni-1"]), (500, "interface_silent 1", &["eni-1"])],
    );
}

#[test]
fn many_that_stop_together_are_one_finding() {
    let some = Log::Traffic(1000);
    let events =
        in_order((0..6).flat_map(|interface| minutes(0..400, interface, some)).chain(minutes(
            0..500,
            7,
            some,
        )));
    let names = ["eni-0", "eni-1", "eni-2", "eni-3", "eni-4", "eni-5"];
    check(&events, &[(431, "interfaces_silent 0", &names)]);
}

#[test]
fn a_stream_that_stands_still_is_told_when_it_goes_on_and_says_nothing_of_interfaces() {
    let some = Log::Traffic(1000);
    let both = |range: std::ops::Range<i64>| {
        minutes(range.clone(), 0, some).chain(minutes(range, 1, some))
    };
    check(&in_order(both(0..400).chain(both(420..600))), &[]);
    check(&in_order(both(0..400).chain(both(480..600))), &[(480, "all_silent 0", &[])]);
    check(&in_order(both(0..20).chain(both(480..600))), &[]);
}

#[test]
fn skipdata_is_told_once_an_hour() {
    let events = in_order(
        minutes(0..200, 0, Log::NoData)
            .chain([(20, 1, Log::SkipData), (150, 1, Log::SkipData)])
            .chain([(151, 1, Log::SkipData), (152, 1, Log::SkipData), (153, 1, Log::SkipData)]),
    );
    check(
        &events,
        &[
            (20, "skipdata 0", &["eni-1"]),
            (150, "skipdata 0", &["eni-1"]),
            (151, "skipdata 1", &["eni-1"]),
            (153, "skipdata 2", &["eni-1"]),
        ],
    );
}

#[test]
fn skipdata_of_many_is_one_finding() {
    let events = in_order(
        minutes(0..100, 0, Log::NoData)
            .chain((1..7).map(|interface| (20, interface, Log::SkipData)))
            .chain((1..8).map(|interface| (21, interface, Log::SkipData)))
            .chain([(22, 3, Log::SkipData)]),
    );
    let names = ["eni-1", "eni-2", "eni-3", "eni-4", "eni-5", "eni-6"];
    check(&events, &[(20, "skipdata_many 0", &names), (22, "skipdata 0", &["eni-3"])]);
}

/// Traffic with the course of a day: less by night, and at the weekend (the third and fourth of these days).
fn usual(minute: i64) -> u64 {
    let (day, hour) = (minute / 1440, minute / 60 % 24);
    let by_day: u64 = if (8..20).contains(&hour) { 400_000_000 } else { 100_000_000 };
    let noise = u64::try_from(minute * 7919 % 41).unwrap() * 2_000_000;
    (if day % 7 == 2 || day % 7 == 3 { by_day / 2 } else { by_day }) + noise
}

fn days(days: i64, log: impl Fn(i64) -> Log) -> Vec<Event> {
    (0..days * 1440).map(|minute| (minute, 0, log(minute))).collect()
}

#[test]
fn traffic_of_every_day_is_no_anomaly() {
    check(&days(11, |minute| Log::Traffic(usual(minute))), &[]);
    // A backup at another hour of each night, from the first night on.
    let backup = |minute: i64| {
        let begins = 60 + minute / 1440 * 97 % 300;
        (begins..begins + 40).contains(&(minute % 1440))
    };
    let busy = |minute| if backup(minute) { 9_000_000_000 } else { 20_000_000 };
    check(&days(11, |minute| Log::Traffic(busy(minute))), &[]);
    // A tenth of a second's outlier, and a flood while nothing is known yet.
    let flood = |minute| if minute == 9000 || minute < 600 { 5_000_000_000 } else { usual(minute) };
    check(&days(8, |minute| Log::Traffic(flood(minute))), &[]);
}

#[test]
fn rises_and_drops_are_told() {
    let rise = 7 * 1440 + 600;
    let flood = |minute| {
        if (rise..rise + 30).contains(&minute) { 20 * usual(minute) } else { usual(minute) }
    };
    let received: &[&str] = &["eni-0"];
    for log in [Log::Traffic, Log::Undirected] {
        let found = findings_of(&settings(), panes(&days(8, |minute| log(flood(minute))), 2));
        let told: Vec<_> = said(&found);
        assert_eq!(told[0], (rise + 4, "received_rise 0".to_owned(), vec!["eni-0".to_owned()]));
        assert_eq!(told[1], (rise + 4, "sent_rise 0".to_owned(), vec!["eni-0".to_owned()]));
        assert!(told[2..].iter().all(|(minute, ..)| *minute < rise + 60), "{told:?}");
        assert_eq!(found[0].target.addrs, [own(0)]);
        assert_eq!(found[1].actor.addrs, [own(0)]);
    }
    let drop = 8 * 1440 + 600;
    let standstill = |minute| {
        let is_still = (drop..drop + 60).contains(&minute);
        if is_still { Log::NoData } else { Log::Traffic(usual(minute)) }
    };
    let found = findings_of(&settings(), panes(&days(9, standstill), 2));
    let told = said(&found);
    assert_eq!(told.iter().filter(|(_, what, _)| what == "received_drop 0").count(), 1, "{told:?}");
    assert!(told.iter().all(|(_, what, _)| what.contains("_drop ")), "{told:?}");
    let skips = |minute| {
        let log = standstill(minute);
        if minute == drop || minute == drop + 30 { Log::SkipData } else { log }
    };
    let told = said(&findings_of(&settings(), panes(&days(9, skips), 2)));
    assert!(told.iter().all(|(_, what, _)| what.starts_with("skipdata")), "{told:?}");
    assert!(told.iter().all(|(.., names)| names == received));
}

/// Which of some interfaces log in which of many minutes.
fn any_presence() -> impl Strategy<Value = Vec<BTreeSet<i64>>> {
    let runs = prop::collection::vec((1_i64..70, 0_i64..45), 1..12);
    prop::collection::vec(runs, 1..5).prop_map(|interfaces| {
        let minutes = |runs: Vec<(i64, i64)>| {
            let mut minute = 0;
            let mut logged = BTreeSet::new();
            for (length, pause) in runs {
                logged.extend(minute..minute + length);
                minute += length + pause;
            }
            logged
        };
        interfaces.into_iter().map(minutes).collect()
    })
}

fn quick() -> DetectSettings {
    let mut settings = settings();
    settings.capture_gap.silent_seconds = 300;
    settings.capture_gap.known_seconds = 600;
    settings.capture_gap.group_interfaces_min = 3;
    settings
}

fn events_of(presence: &[BTreeSet<i64>]) -> Vec<Event> {
    let events = presence.iter().enumerate().flat_map(|(interface, minutes)| {
        minutes.iter().map(move |minute| {
            let log = match minute % 17 {
                3 => Log::SkipData,
                5 | 6 => Log::NoData,
                _ => Log::Traffic(1000),
            };
            (*minute, interface, log)
        })
    });
    in_order(events)
}

/// When an interface is told to be silent, by plain lists of its minutes and of those of all.
fn silences(presence: &[BTreeSet<i64>]) -> BTreeSet<(i64, usize)> {
    let all: Vec<i64> =
        presence.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut silences = BTreeSet::new();
    for (interface, minutes) in presence.iter().enumerate() {
        let minutes: Vec<i64> = minutes.iter().copied().collect();
        let mut longest = 0;
        for (place, last) in minutes.iter().enumerate() {
            let next = minutes.get(place + 1).copied().unwrap_or(i64::MAX);
            let others: Vec<i64> =
                all.iter().copied().filter(|minute| minute > last && *minute < next).collect();
            let limit = usize::max(5, 4 * longest);
            let is_known = place + 1 >= 30 && (last - minutes[0]) * 60 + 55 >= 600;
            let is_told = is_known && others.len() > limit;
            if is_told {
                silences.insert((others[limit], interface));
            }
            longest = longest.max(if is_told { others.len() / 2 } else { others.len() });
        }
    }
    silences
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn silences_are_what_plain_lists_say(presence in any_presence()) {
        let mut settings = quick();
        settings.capture_gap.group_interfaces_min = 1000;
        let found = findings_of(&settings, panes(&events_of(&presence), 2));
        let told: BTreeSet<(i64, usize)> = said(&found)
            .into_iter()
            .filter(|(_, what, _)| what == "interface_silent 0")
            .map(|(minute, _, names)| {
                let place = NAMES.iter().position(|name| *name == names[0].as_bytes());
                // The end of the pane is the first second of the next minute.
                (minute - 1, place.unwrap())
            })
            .collect();
        prop_assert_eq!(told, silences(&presence));
    }

    #[test]
    fn neither_shards_nor_restarts_nor_limits_make_them_differ(
        presence in any_presence(),
        restarts in prop::collection::btree_set(0_usize..200, 0..6),
        is_cramped: bool,
    ) {
        let mut settings = quick();
        if is_cramped {
            settings.capture_gap.tracked_max = 2;
            settings.traffic_anomaly.tracked_max = 2;
        }
        let events = events_of(&presence);
        let expected = findings_of(&settings, panes(&events, 1));
        let reversed: Vec<_> = events
            .chunk_by(|one, other| one.0 == other.0)
            .flat_map(|minute| minute.iter().rev().copied())
            .collect();
        let empty = || DetectorSet::new(&settings, network(), PANE_SECONDS);
        let (mut detectors, mut found) = (empty(), Vec::new());
        for (number, (pane, shards)) in panes(&reversed, 3).into_iter().enumerate() {
            detectors.on_pane(pane, shards.into(), &mut found);
            if restarts.contains(&number) {
                let mut saved = Encoder::default();
                detectors.save(&mut saved, PaneContacts::save);
                let saved = saved.into_bytes();
                let mut from = Decoder::new(&saved);
                detectors = empty().load(&mut from, PaneContacts::load).unwrap();
                from.finish().unwrap();
            }
        }
        detectors.on_end(&mut found);
        prop_assert_eq!(&found, &expected);
        let ids: BTreeSet<_> = found.iter().map(|finding| (finding.id, finding.revision)).collect();
        prop_assert_eq!(ids.len(), found.len());
        for finding in &found {
            prop_assert!(finding.kind == FindingKind::CaptureGap && finding.exact);
        }
        if is_cramped && presence.iter().filter(|minutes| !minutes.is_empty()).count() > 2 {
            prop_assert!(detectors.evictions() > 0);
        }
    }
}
