//! Noise control against a model that keeps everything in plain lists.

use proptest::prelude::*;

use super::super::noise::KindNoise;
use super::*;

const KINDS: [FindingKind; 2] = [FindingKind::PortScan, FindingKind::RemoteAccessAttempt];

/// A finding of one of a few actors.
fn finding(kind: FindingKind, severity: Severity, actor: u32, revision: u32) -> Finding {
    let actor = crate::net::Addr::v4(actor);
    Finding {
        severity,
        actor: Party::of(actor),
        id: FindingId::new(kind, &[actor], &[], &[], UnixSeconds(0)),
        title: "told".to_owned(),
        ..Finding::counted(kind, Status::Open, revision)
    }
}

fn any_finding() -> impl Strategy<Value = Finding> {
    let kinds = prop::sample::select(KINDS.to_vec());
    let severities = prop::sample::select(Severity::ALL.to_vec());
    (kinds, severities, 0_u32..5, 0_u32..3)
        .prop_map(|(kind, severity, actor, revision)| finding(kind, severity, actor, revision))
}

/// Findings of panes, in the order of kinds, by the minute in which a pane begins.
fn any_panes() -> impl Strategy<Value = BTreeMap<i64, Vec<Finding>>> {
    let findings = prop::collection::vec(any_finding(), 0..12).prop_map(|mut findings| {
        findings.sort_by_key(|finding| finding.kind);
        findings
    });
    prop::collection::btree_map(0_i64..240, findings, 1..12)
}

fn any_settings() -> impl Strategy<Value = NoiseSettings> {
    let severity = || prop::sample::select(Severity::ALL.to_vec());
    let of_kind = (prop::option::of(severity()), prop::option::of(0_u32..4));
    (severity(), 0_u32..6, prop::option::of(of_kind)).prop_map(|(min, most, of_kind)| {
        let of_kind = of_kind.map(|(severity, findings_per_hour_max)| {
            let noise = KindNoise { severity, findings_per_hour_max, suppress_seconds: None };
            (FindingKind::PortScan, noise)
        });
        NoiseSettings {
            min_severity: min,
            findings_per_hour_max: most,
            kinds: of_kind.into_iter().collect(),
            ..NoiseSettings::default()
        }
    })
}

fn allowances() -> Vec<Allowance> {
    let of = |label: &str, source: &str, kind| Allowance {
        label: label.to_owned(),
        sources: vec![source.parse().unwrap()],
        kinds: vec![kind],
        ..Allowance::default()
    };
    vec![
        of("scanner", "0.0.0.1", FindingKind::PortScan),
        of("scanner too", "0.0.0.0/31", FindingKind::PortScan),
        of("office", "0.0.0.2", FindingKind::RemoteAccessAttempt),
    ]
}

/// What is told of each pane and, last, at the end; and what is not, by reason.
type Outcome = (Vec<Vec<String>>, BTreeMap<String, u64>);

fn told_of(finding: &Finding) -> String {
    let Finding { kind, severity, id, revision, evidence, .. } = finding;
    let held = evidence.get("held_back");
    format!("{} {} {id} {revision} {held:?}", kind.name(), severity.name())
}

/// The rule by plain lists: every finding with what became of it.
fn model(panes: &BTreeMap<i64, Vec<Finding>>, settings: &NoiseSettings) -> Outcome {
    let mut told: Vec<Vec<String>> = Vec::new();
    let mut left_out = BTreeMap::new();
    let mut past: Vec<(i64, FindingKind, Severity, bool)> = Vec::new();
    let mut notices: Vec<(i64, FindingKind, Severity, u64)> = Vec::new();
    let hours: Vec<i64> = panes.keys().map(|minute| minute / 60).chain([i64::MAX]).collect();
    let empty = Vec::new();
    for (position, hour) in hours.iter().copied().enumerate() {
        let findings = panes.values().nth(position).unwrap_or(&empty);
        let mut of_pane: Vec<(FindingKind, bool, String)> = Vec::new();
        let held_of = |past: &[(i64, FindingKind, Severity, bool)], hour, kind, severity| {
            let is_held = |entry: &&(i64, FindingKind, Severity, bool)| {
                **entry == (hour, kind, severity, false)
            };
            past.iter().filter(is_held).count() as u64
        };
        let notice = |hour: i64,
                      kind: FindingKind,
                      severity: Severity,
                      revision: u32,
                      held: u64| {
            let id =
                FindingId::new(kind, &[], &[], &[0, 0, severity as u16], UnixSeconds(hour * 3600));
            let held = Some(&Evidence::Count(held));
            let told = format!("{} {} {id} {revision} {held:?}", kind.name(), severity.name());
            (kind, false, told)
        };
        notices.sort_unstable();
        for (of_hour, kind, severity, told_count) in &mut notices {
            let held = held_of(&past, *of_hour, *kind, *severity);
            if *of_hour < hour && held > *told_count {
                of_pane.push(notice(*of_hour, *kind, *severity, 1, held));
                *told_count = held;
            }
        }
        for finding in findings {
            let kind = finding.kind;
            let of_kind = settings.kinds.get(&kind).copied().unwrap_or_default();
            let severity = of_kind.severity.unwrap_or(finding.severity);
            let most = of_kind.findings_per_hour_max.unwrap_or(settings.findings_per_hour_max);
            let actor = finding.actor.addrs[0].bits() & 0xff;
            let label = match (kind, actor) {
                (FindingKind::PortScan, 1) => Some("scanner"),
                (FindingKind::PortScan, 0) => Some("scanner too"),
                (FindingKind::RemoteAccessAttempt, 2) => Some("office"),
                _ => None,
            };
            let is_told = |entry: &&(i64, FindingKind, Severity, bool)| {
                **entry == (hour, kind, severity, true)
            };
            let told_before = past.iter().filter(is_told).count();
            if let Some(label) = label {
                *left_out.entry(label.to_owned()).or_default() += 1;
            } else if severity < settings.min_severity {
                *left_out.entry(format!("low {}", kind.name())).or_default() += 1;
            } else if severity < Severity::Critical && most > 0 && told_before >= most as usize {
                *left_out.entry(format!("held {}", kind.name())).or_default() += 1;
                past.push((hour, kind, severity, false));
            } else {
                past.push((hour, kind, severity, true));
                let told = Finding { severity, ..finding.clone() };
                of_pane.push((kind, true, told_of(&told)));
            }
        }
        for kind in KINDS {
            for severity in Severity::ALL {
                let held = held_of(&past, hour, kind, severity);
                let is_known = |entry: &&(i64, FindingKind, Severity, u64)| {
                    (entry.0, entry.1, entry.2) == (hour, kind, severity)
                };
                if held > 0 && notices.iter().find(is_known).is_none() {
                    notices.push((hour, kind, severity, held));
                    of_pane.push(notice(hour, kind, severity, 0, held));
                }
            }
        }
        of_pane.sort_by_key(|(kind, is_finding, _)| (*kind, *is_finding));
        told.push(of_pane.into_iter().map(|(_, _, told)| told).collect());
    }
    (told, left_out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn what_is_told_is_what_the_rule_says(
        panes in any_panes(),
        settings in any_settings(),
        restarts in prop::collection::btree_set(0_usize..12, 0..4),
    ) {
        let empty = || Suppressor::new(settings.clone(), allowances());
        let mut suppressor = empty();
        let mut told = Vec::new();
        for (number, (minute, findings)) in panes.iter().enumerate() {
            let (start, mut findings) = (UnixSeconds(minute * 60), findings.clone());
            let before = suppressor.begin_pane(start, start);
            suppressor.pass(&mut findings, before, start);
            for finding in &findings {
                prop_assert!(finding.first_seen <= finding.last_seen);
            }
            told.push(findings.iter().map(told_of).collect::<Vec<_>>());
            if restarts.contains(&number) {
                let mut saved = Encoder::default();
                suppressor.save(&mut saved);
                suppressor = empty();
                suppressor.load(&mut Decoder::new(&saved.into_bytes())).unwrap();
            }
        }
        let mut last = Vec::new();
        suppressor.on_end(UnixSeconds(240 * 60), &mut last);
        told.push(last.iter().map(told_of).collect());
        let Suppressed { allowed, below_severity, held_back, .. } = suppressor.counts().clone();
        let mut left_out = allowed;
        left_out.extend(below_severity.iter().map(|(kind, count)| (format!("low {}", kind.name()), *count)));
        left_out.extend(held_back.iter().map(|(kind, count)| (format!("held {}", kind.name()), *count)));
        let total: u64 = left_out.values().sum();
        prop_assert_eq!(suppressor.counts().total(), total);
        prop_assert_eq!((told, left_out), model(&panes, &settings));
    }
}

#[test]
fn a_flood_hides_neither_what_matters_more_nor_critical_findings() {
    let settings = NoiseSettings { findings_per_hour_max: 10, ..NoiseSettings::default() };
    let mut suppressor = Suppressor::new(settings, Vec::new());
    let kind = FindingKind::RemoteAccessAttempt;
    let mut findings: Vec<Finding> =
        (0..1000).map(|actor| finding(kind, Severity::Low, actor, 0)).collect();
    findings.push(finding(kind, Severity::Medium, 7, 0));
    findings.extend((0..50).map(|actor| finding(kind, Severity::Critical, actor, 0)));
    let told = suppressor.begin_pane(UnixSeconds(0), UnixSeconds(60));
    suppressor.pass(&mut findings, told, UnixSeconds(60));
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    assert_eq!(Severity::ALL.map(count), [11, 1, 0, 50]);
    assert_eq!(
        findings[0].title,
        "990 more findings of remote_access_attempt with low severity were held back in the hour from \
         1970-01-01T00:00:00Z: it had more than 10"
    );
    assert!(!suppressor.may_be_told(kind, Severity::Low), "no need to draft more of them");
    assert!(suppressor.may_be_told(kind, Severity::Critical));
}

#[test]
fn entries_that_are_gone_leave_their_counts() {
    let mut suppressor = Suppressor::new(NoiseSettings::default(), allowances());
    let mut findings = vec![finding(FindingKind::PortScan, Severity::Low, 1, 0)];
    let told = suppressor.begin_pane(UnixSeconds(0), UnixSeconds(60));
    suppressor.pass(&mut findings, told, UnixSeconds(60));
    suppressor.note_unjudged("scanners", 7);
    assert!(findings.is_empty());
    let mut saved = Encoder::default();
    suppressor.save(&mut saved);
    let bytes = saved.into_bytes();
    let mut later = Suppressor::new(NoiseSettings::default(), Vec::new());
    later.load(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(later.counts().allowed, [(FORMER_ENTRIES.to_owned(), 1)].into());
    assert_eq!(later.counts().unjudged_attempts, [("scanners", 7)].into());
    for length in 0..bytes.len() {
        let mut cut = Suppressor::new(NoiseSettings::default(), Vec::new());
        assert!(cut.load(&mut Decoder::new(&bytes[..length])).is_err(), "{length}");
    }
}
