//! What rises and falls, what must not, and the rule against a naive model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::aggregate::{ContactRow, ContactTable, Vantage};
use crate::detect::{DetectSettings, DetectorSet};
use crate::record::Action;

const PANE_SECONDS: i64 = 60;
const MB: u64 = 1_000_000;

/// Bytes from a host to another one in a pane.
fn row(pane: i64, from: u16, to: u16, bytes: u64) -> ContactRow<'static> {
    let at = UnixSeconds(pane * PANE_SECONDS + 5);
    ContactRow {
        src: host(from),
        dst: host(to),
        src_port: 40_000 + from,
        dst_port: 443,
        protocol: 6,
        packets: bytes / 1000 + 1,
        bytes,
        start: at,
        end: at,
        action: Action::Accept,
        tcp_flags: Some(3),
        vantage: Vantage::Egress,
        interface_id: Some(b"eni-1"),
        account_id: None,
        vpc_id: None,
        subnet_id: None,
    }
}

fn host(number: u16) -> Addr {
    Addr::v4(0x0a14_0100 + u32::from(number))
}

fn network() -> Network {
    Network {
        inside: vec!["10.20.0.0/16".parse().unwrap()],
        allowlisted: Vec::new(),
        nat_gateways: vec!["10.20.1.200".parse().unwrap()],
        ..Network::default()
    }
}

fn findings(settings: TopTalkerChangeSettings, rows: &[ContactRow<'_>]) -> Vec<Finding> {
    let mut all = DetectSettings { top_talker_change: settings, ..DetectSettings::default() };
    all.port_scan.enabled = false;
    all.host_sweep.enabled = false;
    let mut table = ContactTable::new(PANE_SECONDS, 1, usize::MAX);
    rows.iter().for_each(|row| table.add_row(row));
    let mut detectors = DetectorSet::new(&all, network(), PANE_SECONDS);
    let mut out = Vec::new();
    for pane in table.close_all() {
        detectors.on_pane(pane.pane, vec![pane], &mut out);
    }
    detectors.on_end(&mut out);
    out.retain(|finding| finding.kind == FindingKind::TopTalkerChange);
    out
}

/// The usual traffic of three hours: eight hosts that send as much, and what `more` says of a pane.
fn day(more: impl Fn(i64) -> Vec<(u16, u64)>) -> Vec<ContactRow<'static>> {
    let mut rows = Vec::new();
    for pane in 0..180 {
        rows.extend((1..=8).map(|from| row(pane, from, 100, 10 * MB)));
        rows.extend(more(pane).into_iter().map(|(from, bytes)| row(pane, from, 101, bytes)));
    }
    rows
}

/// Who rose or fell, as first reported.
fn check(more: impl Fn(i64) -> Vec<(u16, u64)>, expected: &[(u16, &'static str)]) {
    let found = findings(TopTalkerChangeSettings::default(), &day(more));
    let opened: Vec<(Addr, Evidence)> = found
        .iter()
        .filter(|finding| finding.revision == 0)
        .map(|finding| (finding.actor.addrs[0], finding.evidence["variant"].clone()))
        .collect();
    let word = |(from, variant): &(u16, &'static str)| (host(*from), Evidence::Word(variant));
    assert_eq!(opened, expected.iter().map(word).collect::<Vec<_>>(), "{found:?}");
}

fn from(first: i64, sender: u16, bytes: u64) -> impl Fn(i64) -> Vec<(u16, u64)> {
    move |pane| if pane >= first { vec![(sender, bytes)] } else { Vec::new() }
}

#[test]
fn who_becomes_heavy_is_found_once() {
    check(from(120, 50, 60 * MB), &[(50, "rise")]);
}

#[test]
fn who_was_heavy_and_is_gone_is_found_once() {
    check(|pane| if pane < 120 { vec![(50, 60 * MB)] } else { Vec::new() }, &[(50, "fall")]);
}

#[test]
fn one_may_take_the_place_of_another() {
    let more = |pane| vec![(if pane < 120 { 50 } else { 51 }, 60 * MB)];
    check(more, &[(51, "rise"), (50, "fall")]);
}

#[test]
fn usual_traffic_is_no_change() {
    check(|_| Vec::new(), &[]);
    // Always heavy.
    check(from(0, 50, 60 * MB), &[]);
    // A pane or two of heavy traffic.
    check(|pane| if pane / 2 == 60 { vec![(50, 900 * MB)] } else { Vec::new() }, &[]);
    // Heavy for half of every hour, such as a backup: new once, before the first hour is over.
    check(|pane| if pane % 60 >= 30 { vec![(50, 60 * MB)] } else { Vec::new() }, &[]);
    // Not yet known what is usual.
    check(from(40, 50, 60 * MB), &[]);
    // More than before, but no top talker.
    check(from(120, 50, 15 * MB), &[]);
    // As heavy as it was, among less.
    check(|pane| if pane == 150 { vec![] } else { vec![(50, 25 * MB)] }, &[]);
    // A gateway, behind which many hide.
    check(from(120, 200, 60 * MB), &[]);
}

#[test]
fn small_networks_are_left_alone() {
    let rows: Vec<_> =
        (0..180).map(|pane| row(pane, if pane < 120 { 1 } else { 2 }, 3, 1000)).collect();
    assert_eq!(findings(TopTalkerChangeSettings::default(), &rows), []);
}

#[test]
fn an_outage_of_all_is_no_fall() {
    let rows = |quiet: &[i64]| -> Vec<_> {
        let rows = day(from(0, 50, 60 * MB)).into_iter();
        rows.filter(|row| !quiet.contains(&row.end.pane(PANE_SECONDS).0)).collect()
    };
    let quiet: Vec<i64> = (120..150).collect();
    assert_eq!(findings(TopTalkerChangeSettings::default(), &rows(&quiet)), []);
}

#[test]
fn a_rise_is_explained() {
    let found = findings(TopTalkerChangeSettings::default(), &day(from(120, 50, 60 * MB)));
    let first = &found[0];
    assert_eq!(first.target.addrs, [host(101)]);
    assert_eq!(first.target.ports, [443]);
    assert_eq!(first.severity, Severity::Medium);
    assert_eq!(first.evidence["baseline_share_percent"], Evidence::Number(0.0));
    assert_eq!(first.evidence["heavy_panes"], Evidence::Count(5));
    assert_eq!(first.evidence["bytes"], Evidence::Count(300 * MB));
    assert!(first.exact && first.confidence > 0.9, "{first:?}");
    assert!(
        first.title.starts_with("10.20.1.50 became a top talker: it sent 300 MB, 27.3 % of all")
    );
}

/// Opened changes by the most obvious means: lists of what was sent, looked through for every pane.
fn model(
    settings: &TopTalkerChangeSettings,
    rows: &[ContactRow<'_>],
) -> Vec<(i64, Addr, &'static str)> {
    let percent = u128::from(settings.share_min_percent);
    let panes: BTreeSet<i64> = rows.iter().map(|row| row.end.pane(PANE_SECONDS).0).collect();
    let in_pane = |pane: i64| rows.iter().filter(move |row| row.end.pane(PANE_SECONDS).0 == pane);
    let total = |pane: i64| in_pane(pane).map(|row| u128::from(row.bytes)).sum::<u128>();
    let sent = |pane: i64, addr: Addr| {
        let of_sender = in_pane(pane).filter(|row| row.src == addr);
        let bytes: u128 = of_sender.map(|row| u128::from(row.bytes)).sum();
        if bytes * 4 * 100 >= total(pane) * percent { bytes } else { 0 }
    };
    let is_heavy = |pane: i64, addr: Addr| {
        let bytes = sent(pane, addr);
        bytes > 0 && bytes * 100 >= total(pane) * percent
    };
    let length = |seconds: u32| i64::from(seconds) / PANE_SECONDS;
    let (width, warm_up) = (length(settings.window_seconds), length(settings.warm_up_seconds));
    let baseline = length(settings.baseline_seconds);
    let half = |count: i64| usize::try_from((count + 1) / 2).unwrap();
    let factor = u128::from(settings.factor_min);
    let mut found = Vec::new();
    for now in &panes {
        let window: Vec<i64> =
            panes.iter().copied().filter(|p| *p > now - width && p <= now).collect();
        let before: Vec<i64> = panes
            .iter()
            .copied()
            .filter(|p| *p <= now - width && *p > now - width - baseline)
            .collect();
        let is_warm = before.len() >= half(warm_up)
            && before.first().is_some_and(|first| now - width - first + 1 >= warm_up);
        if !is_warm || window.len() < half(width) {
            continue;
        }
        let senders: BTreeSet<Addr> = rows.iter().map(|row| row.src).collect();
        for addr in senders {
            let bytes = |panes: &[i64]| panes.iter().map(|pane| sent(*pane, addr)).sum::<u128>();
            let all = |panes: &[i64]| panes.iter().map(|pane| total(*pane)).sum::<u128>().max(1);
            let heavy = |panes: &[i64]| panes.iter().filter(|pane| is_heavy(**pane, addr)).count();
            let (here, there) = (bytes(&window), bytes(&before));
            let (all_here, all_there) = (all(&window), all(&before));
            if sent(*now, addr) > 0
                && here >= u128::from(settings.bytes_min)
                && here * 100 >= all_here * percent
                && heavy(&window) >= half(width)
                && here * all_there >= there * all_here * factor
                && heavy(&before) < half(width)
            {
                found.push((*now, addr, "rise"));
            }
            let (n_here, n_there) = (window.len() as u128, before.len() as u128);
            if before.last().is_some_and(|last| sent(*last, addr) > 0)
                && there * n_here >= u128::from(settings.bytes_min) * n_there
                && there * 100 >= all_there * percent
                && heavy(&before) * 10 >= before.len() * 9
                && there * all_here >= here * all_there * factor
                && (all_here - here) * n_there * 2 >= (all_there - there) * n_here
            {
                found.push((*now, addr, "fall"));
            }
        }
    }
    // One that goes on is reported once.
    let mut open = BTreeSet::new();
    found.retain(|(_, addr, variant)| open.insert((*addr, *variant)));
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn changes_equal_the_naive_model(
        flows in prop::collection::vec((0_i64..24, 1_u16..5, prop::sample::select(vec![1_u64, 50, 1000])), 20..160),
        steady in 0_i64..24,
        share_min_percent in prop::sample::select(vec![10_u32, 25, 60]),
        factor_min in 2_u32..4,
        window_panes in 1_u32..5,
    ) {
        let settings = TopTalkerChangeSettings {
            share_min_percent,
            bytes_min: 100,
            factor_min,
            window_seconds: window_panes * 60,
            warm_up_seconds: 240,
            baseline_seconds: 1200,
            ..TopTalkerChangeSettings::default()
        };
        let mut rows: Vec<_> =
            flows.into_iter().map(|(pane, from, bytes)| row(pane, from, 100, bytes)).collect();
        // One that is heavy until it goes, or from when it comes.
        rows.extend((0..24).map(|pane| row(pane, if pane < steady { 20 } else { 21 }, 100, 3000)));
        let opened: Vec<_> = findings(settings.clone(), &rows)
            .into_iter()
            .filter(|finding| finding.revision == 0)
            .map(|finding| {
                let pane = finding.last_seen.pane(PANE_SECONDS).0;
                let Evidence::Word(variant) = finding.evidence["variant"] else { panic!("{finding:?}") };
                (pane, finding.actor.addrs[0], variant)
            })
            .collect();
        prop_assert_eq!(opened, model(&settings, &rows));
    }
}

#[test]
fn settings_keep_their_ranges() {
    let usual = TopTalkerChangeSettings::default;
    assert_eq!(usual().check(), Ok(()));
    let wrong = [
        TopTalkerChangeSettings { share_min_percent: 0, ..usual() },
        TopTalkerChangeSettings { bytes_min: u64::MAX, ..usual() },
        TopTalkerChangeSettings { factor_min: 1, ..usual() },
        TopTalkerChangeSettings { window_seconds: 59, ..usual() },
        TopTalkerChangeSettings { warm_up_seconds: 7200, baseline_seconds: 3600, ..usual() },
        TopTalkerChangeSettings { tracked_max: 1, ..usual() },
    ];
    wrong.iter().for_each(|settings| assert!(settings.check().is_err(), "{settings:?}"));
}
