//! Admin ports reached from outside: each pair of hosts once per hour.
//!
//! One attempt is enough; what became of it sets the severity, and a better success within the hour is
//! reported as an update. Ports are those over which a machine can be taken: SSH, Telnet, RDP, VNC,
//! WinRM and remote Docker and Kubernetes interfaces.
//!
//! A flood from addresses that are made up is one happening, not millions: of the pairs of a pane, those that
//! came furthest are told one by one, as many as memory is for; the rest in one finding for each target, or in one for all.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::Deserialize;

use super::detector::Detector;
use super::episode::Report;
use super::noise::NoiseSettings;
use super::outcome::{Outcome, TCP};
use super::pane::{PaneView, Tried};
use super::report::{CONTEXT_CONTACTS_MAX, Draft, finding_of};
use super::saved::Saved;
use super::settings::{SettingsError, check_range};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity, Status};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Pairs that are told one by one in a pane: at least, and at most.
const PAIRS_TOLD: RangeInclusive<usize> = 1000..=100_000;

/// Bytes that a finding takes until it is delivered, about.
const FINDING_BYTES: usize = 1536;

/// Targets in a pane with a finding for all of their other pairs.
const CROWDED_TARGETS_MAX: usize = 100;

/// Bytes that a pair takes at most: half of the table may be free, and while it grows there are two.
const PAIR_BYTES: usize = 3 * (size_of::<((Addr, Addr), Reported)>() + 1);

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
    /// Whether there was a finding of its own, or only one of a crowd.
    is_told: bool,
}

/// A pair of a pane that is to be reported.
#[derive(Clone, Copy)]
struct Due<'a> {
    attempts: &'a [&'a Tried],
    reach: Reach,
    report: Report,
}

impl Due<'_> {
    fn pair(&self) -> (Addr, Addr) {
        (self.attempts[0].client, self.attempts[0].server)
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct RemoteAccess {
    settings: RemoteAccessSettings,
    /// How long a pair is not reported again that came no further.
    repeat_seconds: u32,
    /// Its order never shows.
    reported: HashMap<(Addr, Addr), Reported, FixedState>,
    reported_max: usize,
    /// Pairs that are told one by one in a pane.
    told_max: usize,
    evictions: u64,
    /// No report starts at or before it any more: the latest start of those that left early; see
    /// [`Episodes`](super::episode::Episodes).
    started_until: UnixSeconds,
}

impl RemoteAccess {
    /// A detector without memory, whose table takes at most `bytes_max`.
    pub(super) fn new(settings: RemoteAccessSettings, bytes_max: usize) -> Self {
        let reported_max = (settings.tracked_max as usize).min(bytes_max / PAIR_BYTES);
        let told_max = (bytes_max / FINDING_BYTES).clamp(*PAIRS_TOLD.start(), *PAIRS_TOLD.end());
        let started_until = UnixSeconds::MIN;
        Self {
            settings,
            repeat_seconds: NoiseSettings::SUPPRESS_SECONDS,
            reported: HashMap::default(),
            reported_max,
            told_max,
            evictions: 0,
            started_until,
        }
    }

    fn is_attempt(&self, view: &PaneView<'_>, tried: &Tried) -> bool {
        tried.protocol == TCP
            && self.settings.ports.contains(&tried.port)
            && view.network.is_inside(tried.server)
            && !view.network.is_inside(tried.client)
            && !view.network.is_exempt_actor(tried.client)
    }

    fn on_pair<'a>(&mut self, attempts: &'a [&'a Tried]) -> Option<Due<'a>> {
        let pair = (attempts[0].client, attempts[0].server);
        let reach = attempts.iter().filter_map(|tried| Reach::of(tried.outcome)).max()?;
        let first_seen = attempts.iter().map(|tried| tried.first_start).min()?;
        let last_seen = attempts.iter().map(|tried| tried.last_end).max()?;
        let report = self.note(pair, reach, first_seen, last_seen)?;
        Some(Due { attempts, reach, report })
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
            && last_seen.0.saturating_sub(reported.start.0) < i64::from(self.repeat_seconds)
        {
            if reach <= reported.reach {
                return None;
            }
            reported.reach = reach;
            let start = reported.start;
            if !reported.is_told {
                reported.is_told = true;
                return Some(Report { status: Status::Open, revision: 0, start });
            }
            reported.revision = reported.revision.saturating_add(1);
            return Some(Report { status: Status::Update, revision: reported.revision, start });
        }
        if self.reported.len() >= self.reported_max.max(1) {
            self.evict();
        }
        // Later than any report of the pair before, so that the identity is another one: that one began an
        // hour before this was last seen, or earlier.
        let start = first_seen
            .max(last_seen.saturating_add(1 - i64::from(self.repeat_seconds)))
            .max(self.started_until.saturating_add(1));
        self.reported.insert(pair, Reported { start, reach, revision: 0, is_told: true });
        Some(Report { status: Status::Open, revision: 0, start })
    }

    fn forget(&mut self, view: &PaneView<'_>) {
        let since =
            view.index().start(view.pane_seconds).saturating_add(-i64::from(self.repeat_seconds));
        self.reported.retain(|_, reported| reported.start > since);
        if self.reported.len() > self.reported_max.max(1) {
            self.evict();
        }
    }

    /// Forgets the pairs that were reported longest ago, a tenth of all.
    fn evict(&mut self) {
        let excess = self.reported.len() - (self.reported_max - self.reported_max / 10);
        let mut by_age: Vec<_> =
            self.reported.iter().map(|(pair, reported)| (reported.start, *pair)).collect();
        let excess = excess.clamp(1, by_age.len());
        if excess < by_age.len() {
            by_age.select_nth_unstable(excess);
        }
        for (start, pair) in &by_age[..excess] {
            self.reported.remove(pair);
            self.started_until = self.started_until.max(*start);
            self.evictions += 1;
        }
    }
}

impl Detector for RemoteAccess {
    fn name(&self) -> &'static str {
        "remote_access_attempt"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.repeat_seconds = seconds;
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let attempts: Vec<&Tried> =
            view.tried.iter().filter(|tried| self.is_attempt(view, tried)).collect();
        let pair_of = |tried: &Tried| (tried.client, tried.server);
        let pairs = attempts.chunk_by(|one, other| pair_of(one) == pair_of(other));
        let mut due: Vec<Due<'_>> = pairs.filter_map(|pair| self.on_pair(pair)).collect();
        let crowd = split_off_crowd(&mut due, self.told_max);
        out.extend(due.iter().map(|due| pair_finding(due, view)));
        for due in &crowd {
            if let Some(reported) = self.reported.get_mut(&due.pair()) {
                reported.is_told = false;
            }
        }
        crowd_findings(crowd, view, out);
        self.forget(view);
    }

    fn evictions(&self) -> u64 {
        self.evictions
    }

    fn bytes(&self) -> usize {
        self.reported.allocation_size()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.started_until.save(out);
        out.count(self.reported.len());
        for (pair, reported) in &self.reported {
            pair.save(out);
            reported.start.save(out);
            out.u8(reported.reach as u8);
            out.u32(reported.revision);
            out.bool(reported.is_told);
        }
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("remote access", 1..=1)?;
        let evictions = from.u64()?;
        let started_until = UnixSeconds::load(from)?;
        let count = from.count(46)?;
        let mut reported = HashMap::with_capacity_and_hasher(count, FixedState::default());
        for _ in 0..count {
            let pair = Saved::load(from)?;
            let start = UnixSeconds::load(from)?;
            let reach = match from.u8()? {
                0 => Reach::Rejected,
                1 => Reach::Passed,
                2 => Reach::Answered,
                _ => return Err(DecodeError::Invalid("reach of an attempt")),
            };
            let (revision, is_told) = (from.u32()?, from.bool()?);
            if reported.insert(pair, Reported { start, reach, revision, is_told }).is_some() {
                return Err(DecodeError::Invalid("set of pairs"));
            }
        }
        self.reported = reported;
        self.evictions = evictions;
        self.started_until = started_until;
        Ok(())
    }
}

/// Keeps the pairs that are told one by one, `told_max` of them, and returns the rest, both in order.
fn split_off_crowd<'a>(due: &mut Vec<Due<'a>>, told_max: usize) -> Vec<Due<'a>> {
    if due.len() <= told_max {
        return Vec::new();
    }
    let count_of = |reach| due.iter().filter(|due| due.reach == reach).count();
    let mut room = told_max;
    // Of each reach so many, the furthest first.
    let mut rooms = [Reach::Answered, Reach::Passed, Reach::Rejected].map(|reach| {
        let taken = count_of(reach).min(room);
        room -= taken;
        (reach, taken)
    });
    let mut crowd = Vec::with_capacity(due.len() - told_max);
    due.retain(|due| {
        let room = rooms.iter_mut().find(|(reach, _)| *reach == due.reach);
        let (_, room) = room.expect("every reach has one");
        let is_told = *room > 0;
        if is_told {
            *room -= 1;
        } else {
            crowd.push(*due);
        }
        is_told
    });
    crowd
}

fn count(attempts: impl Iterator<Item = u32>) -> Evidence {
    Evidence::Count(attempts.map(u64::from).sum())
}

fn pair_finding(due: &Due<'_>, view: &PaneView<'_>) -> Finding {
    let Due { attempts, reach, report } = *due;
    let (client, server) = due.pair();
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
            last_seen: attempts.iter().map(|tried| tried.last_end).max().unwrap_or(report.start),
            window_seconds: NoiseSettings::SUPPRESS_SECONDS,
            evidence: BTreeMap::from([
                ("outcome", Evidence::Word(reach.name())),
                ("flows", count(attempts.iter().map(|tried| tried.flows))),
                ("rejected", count(attempts.iter().map(|tried| tried.rejected))),
            ]),
            context: view.context(attempts.iter().copied()),
            exact: true,
        }
    };
    finding_of((FindingKind::RemoteAccessAttempt, reach.severity()), report, view, draft)
}

/// A finding for each target, in order, or one for all.
fn crowd_findings(mut crowd: Vec<Due<'_>>, view: &PaneView<'_>, out: &mut Vec<Finding>) {
    let target = |due: &Due<'_>| due.pair().1;
    crowd.sort_by_key(target);
    let of_targets = crowd.chunk_by(|one, other| target(one) == target(other));
    if of_targets.clone().nth(CROWDED_TARGETS_MAX).is_none() {
        out.extend(of_targets.map(|pairs| crowd_finding(pairs, view)));
    } else {
        out.push(crowd_finding(&crowd, view));
    }
}

/// The finding of pairs in the order of their targets.
fn crowd_finding(crowd: &[Due<'_>], view: &PaneView<'_>) -> Finding {
    let (client, server) = crowd[0].pair();
    // It belongs to this pane alone, and no other of the pane has the same first pair.
    let start = view.index().start(view.pane_seconds);
    let report = Report { status: Status::Open, revision: 0, start };
    let mut clients: Vec<Addr> = crowd.iter().map(|due| due.pair().0).collect();
    clients.sort_unstable();
    clients.dedup();
    let reach = crowd.iter().map(|due| due.reach).max().unwrap_or(Reach::Rejected);
    let draft = || {
        let attempts = || crowd.iter().flat_map(|due| due.attempts).copied();
        let mut targets: Vec<Addr> = crowd.iter().map(|due| due.pair().1).collect();
        targets.dedup();
        let mut ports: Vec<u16> = attempts().map(|tried| tried.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let (client_count, target_count) = (clients.len(), targets.len());
        let at = match target_count {
            1 => server.to_string(),
            count => format!("{count} hosts"),
        };
        Draft {
            severity: reach.severity(),
            confidence: 0.9,
            title: format!("{client_count} more addresses from outside tried admin ports of {at}"),
            actor: client,
            // A pair's has no ports.
            identity: (vec![server], ports.clone()),
            targets,
            ports,
            last_seen: attempts().map(|tried| tried.last_end).max().unwrap_or(report.start),
            window_seconds: NoiseSettings::SUPPRESS_SECONDS,
            evidence: BTreeMap::from([
                ("outcome", Evidence::Word(reach.name())),
                ("distinct_sources", Evidence::Count(client_count as u64)),
                ("distinct_hosts", Evidence::Count(target_count as u64)),
                ("pairs", Evidence::Count(crowd.len() as u64)),
                ("flows", count(attempts().map(|tried| tried.flows))),
                ("rejected", count(attempts().map(|tried| tried.rejected))),
            ]),
            context: view.context(attempts().take(CONTEXT_CONTACTS_MAX)),
            exact: true,
        }
    };
    let kind = FindingKind::RemoteAccessAttempt;
    let mut finding = finding_of((kind, reach.severity()), report, view, draft);
    if !finding.is_counted() {
        finding.actor = Party { addrs: clients, ports: Vec::new() };
    }
    finding
}
