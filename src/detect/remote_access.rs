//! Admin ports reached from outside: each pair of hosts once per hour.
//!
//! One attempt is enough; what became of it sets the severity, and a better success within the hour is
//! reported as an update. Ports are those over which a machine can be taken: SSH, Telnet, RDP, VNC,
//! WinRM and remote Docker and Kubernetes interfaces.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::Deserialize;

use super::episode::Report;
use super::outcome::{Outcome, TCP};
use super::pane::{PaneView, Tried};
use super::report::{Draft, finding};
use super::settings::{SettingsError, check_range};
use crate::finding::{Evidence, Finding, FindingKind, Severity, Status};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// How long a pair of hosts is not reported again.
const REPEAT_SECONDS: u32 = 3600;

/// `[detectors.remote_access_attempt]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteAccessSettings {
    /// Whether to report attempts.
    pub enabled: bool,
    /// TCP ports that give control of a machine.
    pub ports: Vec<u16>,
    /// Pairs of hosts kept, 1000 to 1000000000; a pair takes about 80 bytes.
    pub tracked_max: u32,
}

impl Default for RemoteAccessSettings {
    fn default() -> Self {
        let ports = vec![22, 23, 2375, 2376, 3389, 5900, 5901, 5985, 5986, 6443, 10250];
        Self { enabled: true, ports, tracked_max: 1_000_000 }
    }
}

impl RemoteAccessSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.ports.is_empty() {
            return Err(SettingsError::Empty { field: "ports" });
        }
        let usual = Self::default();
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Rejected,
    /// No rule stopped it, but no session came about.
    Passed,
    Answered,
}

impl Reach {
    const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Rejected => Some(Self::Rejected),
            Outcome::Unanswered | Outcome::Refused | Outcome::Bare => Some(Self::Passed),
            Outcome::Answered => Some(Self::Answered),
            Outcome::NotTried => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Passed => "passed",
            Self::Answered => "answered",
        }
    }

    /// Not high even if answered: an admin's own session looks the same.
    const fn severity(self) -> Severity {
        match self {
            Self::Rejected => Severity::Low,
            Self::Passed | Self::Answered => Severity::Medium,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    start: UnixSeconds,
    reach: Reach,
    revision: u32,
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct RemoteAccess {
    settings: RemoteAccessSettings,
    /// Its order never shows.
    reported: HashMap<(Addr, Addr), Reported, FixedState>,
    evictions: u64,
}

impl RemoteAccess {
    pub(super) fn new(settings: RemoteAccessSettings) -> Self {
        Self { settings, reported: HashMap::default(), evictions: 0 }
    }

    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        if !self.settings.enabled {
            return;
        }
        let attempts: Vec<&Tried> =
            view.tried.iter().filter(|tried| self.is_attempt(view, tried)).collect();
        let pair_of = |tried: &Tried| (tried.client, tried.server);
        for of_pair in attempts.chunk_by(|one, other| pair_of(one) == pair_of(other)) {
            out.extend(self.on_pair(of_pair, view));
        }
        self.forget(view);
    }

    fn is_attempt(&self, view: &PaneView<'_>, tried: &Tried) -> bool {
        tried.protocol == TCP
            && self.settings.ports.contains(&tried.port)
            && view.network.is_inside(tried.server)
            && !view.network.is_inside(tried.client)
            && !view.network.is_exempt_actor(tried.client)
    }

    fn on_pair(&mut self, attempts: &[&Tried], view: &PaneView<'_>) -> Option<Finding> {
        let (client, server) = (attempts[0].client, attempts[0].server);
        let reach = attempts.iter().filter_map(|tried| Reach::of(tried.outcome)).max()?;
        let first_seen = attempts.iter().map(|tried| tried.first_start).min()?;
        let last_seen = attempts.iter().map(|tried| tried.last_end).max()?;
        let report = self.note((client, server), reach, first_seen, last_seen)?;
        let sum = |part: fn(&Tried) -> u32| -> Evidence {
            Evidence::Count(attempts.iter().map(|tried| u64::from(part(tried))).sum())
        };
        let draft = || {
            let ports: Vec<u16> = attempts.iter().map(|tried| tried.port).collect();
            let listed = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            Draft {
                severity: reach.severity(),
                confidence: 0.9,
                title: format!("{client} from outside tried admin port {listed} of {server}"),
                actor: client,
                identity: (vec![server], Vec::new()),
                targets: vec![server],
                ports,
                last_seen,
                window_seconds: REPEAT_SECONDS,
                evidence: BTreeMap::from([
                    ("outcome", Evidence::Word(reach.name())),
                    ("flows", sum(|tried| tried.flows)),
                    ("rejected", sum(|tried| tried.rejected)),
                ]),
                context: view.context(attempts.iter().copied()),
                exact: true,
            }
        };
        Some(finding(FindingKind::RemoteAccessAttempt, report, view, draft))
    }

    /// Whether the pair is to be reported: for the first time in an hour, or because it came further.
    fn note(
        &mut self,
        pair: (Addr, Addr),
        reach: Reach,
        first_seen: UnixSeconds,
        last_seen: UnixSeconds,
    ) -> Option<Report> {
        if let Some(reported) = self.reported.get_mut(&pair)
            && last_seen.0 - reported.start.0 < i64::from(REPEAT_SECONDS)
        {
            if reach <= reported.reach {
                return None;
            }
            reported.reach = reach;
            reported.revision += 1;
            let (revision, start) = (reported.revision, reported.start);
            return Some(Report { status: Status::Update, revision, start });
        }
        self.reported.insert(pair, Reported { start: first_seen, reach, revision: 0 });
        Some(Report { status: Status::Open, revision: 0, start: first_seen })
    }

    fn forget(&mut self, view: &PaneView<'_>) {
        let since =
            view.index().start(view.pane_seconds).saturating_add(-i64::from(REPEAT_SECONDS));
        self.reported.retain(|_, reported| reported.start > since);
        let tracked_max = self.settings.tracked_max as usize;
        if self.reported.len() <= tracked_max {
            return;
        }
        let excess = self.reported.len() - (tracked_max - tracked_max / 10);
        let mut by_age: Vec<_> =
            self.reported.iter().map(|(pair, reported)| (reported.start, *pair)).collect();
        by_age.sort_unstable();
        for (_, pair) in &by_age[..excess] {
            self.reported.remove(pair);
            self.evictions += 1;
        }
    }
}
