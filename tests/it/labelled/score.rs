//! The rules by which findings are scored against labels.
//!
//! A finding of a label's kind, or of a kind that is right as well, hits it if it names one of its actors (or, for
//! a shared scan, one of its targets) at its time. One that names an actor of some attack at that time, with
//! another kind, is a side hit; anything else is a false alert. Findings of one kind, actor and target within an
//! hour are one alert. Precision is hits among hits and false alerts; recall is labels that were hit among all
//! that are not optional.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flowgauge::finding::Finding;

use super::world::{Benign, Ip, Label, Traffic, text};

/// How long after its end an attack may still be told of.
const SLACK_SECONDS: i64 = 900;
const MERGE_SECONDS: i64 = 3_600;
/// Kinds that are taken as one in the figure of the scan family.
const SCANS: [&str; 3] = ["port_scan", "host_sweep", "distributed_scan"];

/// The figures of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindScore {
    pub(crate) labels: usize,
    pub(crate) found: usize,
    pub(crate) hits: usize,
    pub(crate) false_alerts: usize,
    pub(crate) side_hits: usize,
    pub(crate) missed: Vec<&'static str>,
}

impl KindScore {
    pub(crate) fn precision(&self) -> f64 {
        share(self.hits, self.hits + self.false_alerts)
    }

    pub(crate) fn recall(&self) -> f64 {
        share(self.found, self.labels)
    }

    pub(crate) fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE)
    }

    /// Adds the figures of other traffic.
    pub(crate) fn add(&mut self, other: &Self) {
        self.labels += other.labels;
        self.found += other.found;
        self.hits += other.hits;
        self.false_alerts += other.false_alerts;
        self.side_hits += other.side_hits;
        self.missed.extend(&other.missed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// The figures of some traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scores {
    pub(crate) kinds: BTreeMap<&'static str, KindScore>,
    pub(crate) scan_family: KindScore,
    /// Kind and name of look-alikes that were taken for attacks.
    pub(crate) lookalikes: Vec<(&'static str, &'static str)>,
    pub(crate) hours: f64,
}

impl Scores {
    /// Adds the figures of other traffic.
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, score) in &other.kinds {
            self.kinds.entry(kind).or_default().add(score);
        }
        self.scan_family.add(&other.scan_family);
        self.lookalikes.extend(&other.lookalikes);
        self.hours += other.hours;
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| kind | precision | recall | F1 | found | hits | false | false/h | side | missed |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        let kinds = self.kinds.iter().map(|(kind, score)| (*kind, score));
        for (kind, score) in kinds.chain([("scan family", &self.scan_family)]) {
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let false_per_hour = score.false_alerts as f64 / self.hours;
            writeln!(
                f,
                "| {kind} | {:.2} | {:.2} | {:.2} | {}/{} | {} | {} | {false_per_hour:.2} | {} | {} |",
                score.precision(),
                score.recall(),
                score.f1(),
                score.found,
                score.labels,
                score.hits,
                score.false_alerts,
                score.side_hits,
                score.missed.join(" ")
            )?;
        }
        Ok(())
    }
}

/// Findings of one kind, actor and target within an hour.
struct Alert {
    kind: &'static str,
    actors: BTreeSet<String>,
    targets: BTreeSet<String>,
    detected_at: i64,
    first_seen: i64,
    last_seen: i64,
}

impl Alert {
    fn of(finding: &Finding) -> Self {
        let texts =
            |addrs: &[flowgauge::net::Addr]| addrs.iter().map(ToString::to_string).collect();
        Self {
            kind: finding.kind.name(),
            actors: texts(&finding.actor.addrs),
            targets: texts(&finding.target.addrs),
            detected_at: finding.detected_at.0,
            first_seen: finding.first_seen.0,
            last_seen: finding.last_seen.0,
        }
    }

    fn is_near(&self, label: &Label) -> bool {
        let names = |these: &BTreeSet<String>, those: &[Ip]| {
            those.iter().any(|ip| these.contains(&text(*ip)))
        };
        let is_shared = self.kind == "distributed_scan" && label.kind == "distributed_scan";
        self.first_seen <= label.end + SLACK_SECONDS
            && self.last_seen >= label.start - 60
            && (names(&self.actors, &label.actors)
                || is_shared && names(&self.targets, &label.targets))
    }
}

fn is_right(kind: &str, label: &Label) -> bool {
    kind == label.kind || label.also.contains(&kind)
}

fn merged(findings: &[Finding], kinds: &BTreeSet<&str>, wanted_scanner: &str) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = findings.iter().map(Alert::of).collect();
    alerts.retain(|alert| kinds.contains(alert.kind) && !alert.actors.contains(wanted_scanner));
    alerts.sort_by_key(|alert| alert.detected_at);
    let mut merged: Vec<Alert> = Vec::new();
    for alert in alerts {
        let same = merged.iter_mut().rev().find(|known| {
            let is_same = known.kind == alert.kind && known.actors == alert.actors;
            is_same && (alert.targets.len() != 1 || known.targets == alert.targets)
        });
        match same {
            Some(known) if alert.detected_at <= known.detected_at + MERGE_SECONDS => {
                known.last_seen = known.last_seen.max(alert.last_seen);
            }
            _ => merged.push(alert),
        }
    }
    merged
}

/// Scores what was found in some traffic, of the kinds that it has labels of.
pub(crate) fn score(traffic: &Traffic, findings: &[Finding]) -> Scores {
    let labels = &traffic.labels;
    let kinds: BTreeSet<&str> = labels.iter().map(|label| label.kind).collect();
    let mut scores = Scores { hours: traffic.hours, ..Scores::default() };
    let mut is_found = vec![false; labels.len()];
    let mut is_family_found = vec![false; labels.len()];
    let is_scan = |label: &Label| SCANS.iter().any(|kind| is_right(kind, label));
    for alert in merged(findings, &kinds, &text(traffic.wanted_scanner)) {
        let near: Vec<usize> =
            (0..labels.len()).filter(|place| alert.is_near(&labels[*place])).collect();
        let right = near.iter().filter(|place| is_right(alert.kind, &labels[**place]));
        let right: Vec<usize> = right.copied().collect();
        right.iter().for_each(|place| is_found[*place] = true);
        if SCANS.contains(&alert.kind) {
            let family: Vec<usize> =
                near.iter().copied().filter(|place| is_scan(&labels[*place])).collect();
            family.iter().for_each(|place| is_family_found[*place] = true);
            scores.scan_family.hits += usize::from(!family.is_empty());
            scores.scan_family.false_alerts += usize::from(near.is_empty());
        }
        let score = scores.kinds.entry(alert.kind).or_default();
        if !right.is_empty() {
            score.hits += 1;
        } else if !near.is_empty() {
            score.side_hits += 1;
        } else {
            score.false_alerts += 1;
            let is_mistaken = |benign: &&Benign| {
                let named = |ip: &Ip| {
                    let ip = text(*ip);
                    alert.actors.contains(&ip) || alert.targets.contains(&ip)
                };
                benign.must_not.contains(&alert.kind) && benign.actors.iter().any(named)
            };
            let name =
                traffic.benign.iter().find(is_mistaken).map_or("other", |benign| benign.name);
            scores.lookalikes.push((alert.kind, name));
        }
    }
    for (place, label) in labels.iter().enumerate().filter(|(_, label)| !label.is_optional) {
        let score = scores.kinds.entry(label.kind).or_default();
        score.labels += 1;
        score.found += usize::from(is_found[place]);
        if !is_found[place] {
            score.missed.push(label.variant);
        }
        if SCANS.contains(&label.kind) {
            scores.scan_family.labels += 1;
            scores.scan_family.found += usize::from(is_family_found[place]);
            if !is_family_found[place] {
                scores.scan_family.missed.push(label.variant);
            }
        }
    }
    scores
}
