//! From evidence to the finding form: what all detectors write alike.

use std::collections::BTreeMap;

use super::episode::Report;
use super::pane::PaneView;
use crate::finding::{Context, Evidence, Finding, FindingId, FindingKind, Party, Severity};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// How many addresses or ports a finding lists; noise control cuts the lists when it has seen all of them.
pub(super) const LISTED_MAX: usize = 50;

/// Contacts that the context of a finding is taken from.
pub(super) const CONTEXT_CONTACTS_MAX: usize = 1000;

/// What a detector knows beyond the episode and the pane.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) severity: Severity,
    pub(super) confidence: f64,
    pub(super) title: String,
    pub(super) actor: Addr,
    /// Targets and numbers that tell this episode from others of the actor.
    pub(super) identity: (Vec<Addr>, Vec<u16>),
    /// In order and all of them; of those that are told, the first ones are listed.
    pub(super) targets: Vec<Addr>,
    /// In order and all of them; of those that are told, the first ones are listed.
    pub(super) ports: Vec<u16>,
    pub(super) last_seen: UnixSeconds,
    pub(super) window_seconds: u32,
    pub(super) evidence: BTreeMap<&'static str, Evidence>,
    pub(super) context: Context,
    pub(super) exact: bool,
}

/// The finding of `kind`, as `report` of its episode says.
pub(super) fn finding(
    kind: FindingKind,
    report: Report,
    view: &PaneView<'_>,
    draft: impl FnOnce() -> Draft,
) -> Finding {
    draft().finding(kind, report, view)
}

/// The same where the severity is known before the rest: where that alone decides, nothing is drafted.
pub(super) fn finding_of(
    (kind, severity): (FindingKind, Severity),
    report: Report,
    view: &PaneView<'_>,
    draft: impl FnOnce() -> Draft,
) -> Finding {
    if view.wants_details(kind, severity) {
        finding(kind, report, view, || Draft { severity, ..draft() })
    } else {
        Finding { severity, ..Finding::counted(kind, report.status, report.revision) }
    }
}

impl Draft {
    fn finding(self, kind: FindingKind, report: Report, view: &PaneView<'_>) -> Finding {
        let (id_targets, id_ports) = self.identity;
        Finding {
            id: FindingId::new(kind, &[self.actor], &id_targets, &id_ports, report.start),
            revision: report.revision,
            status: report.status,
            kind,
            severity: self.severity,
            confidence: self.confidence,
            title: self.title,
            actor: Party::of(self.actor),
            target: Party { addrs: self.targets, ports: self.ports },
            // Episodes may begin in name after what they are evidence of; see `Episodes`.
            first_seen: report.start.min(self.last_seen),
            last_seen: self.last_seen,
            detected_at: view.detected_at,
            window_seconds: self.window_seconds,
            evidence: self.evidence,
            context: self.context,
            exact: self.exact && view.exact,
        }
    }
}

/// Confidence from how far a count is over its threshold: 0.6 at it, 0.96 at ten times as much.
pub(super) fn confidence(count: u64, threshold: u64) -> f64 {
    debug_assert!(count >= threshold);
    1.0 - 0.4 * threshold as f64 / count.max(1) as f64
}

/// A span of time for a title: `5 minutes`, `4 hours`.
pub(super) fn spelled(seconds: u32) -> String {
    let (count, unit) = match seconds {
        seconds if seconds.is_multiple_of(3600) => (seconds / 3600, "hour"),
        seconds if seconds.is_multiple_of(60) => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}
