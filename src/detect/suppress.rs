//! Noise control: what of the detectors' findings is told, between them and whoever delivers findings.
//!
//! In this order: the operator's severity for the kind takes the place of the detector's; what an entry of the
//! allow lists covers is left out; so is what matters less than asked for; and beyond so many findings of a kind
//! and severity within an hour of the stream, further ones are held back and one finding says how many. Critical
//! ones never are. Whatever is left out is counted. Ids and revisions are the detectors' own, and who has seen
//! revision 0 of a finding may not see the next, or the other way round.
//!
//! State is what this hour has told and what was left out so far: a few numbers a kind and severity.

use std::collections::BTreeMap;

use super::noise::NoiseSettings;
use super::report::LISTED_MAX;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{
    Allowance, Context, Evidence, Finding, FindingId, FindingKind, Party, Severity, Status,
};
use crate::units::UnixSeconds;

const HOUR_SECONDS: i64 = 3600;

/// Under which findings are counted that were left out by entries which are no longer listed.
const FORMER_ENTRIES: &str = "former entries";

/// What was left out, each revision of a finding counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressed {
    /// What is wanted, by the entry of the allow lists that says so.
    pub allowed: BTreeMap<String, u64>,
    /// What matters less than asked for.
    pub below_severity: BTreeMap<FindingKind, u64>,
    /// What was too much for an hour; a finding says so for each.
    pub held_back: BTreeMap<FindingKind, u64>,
    /// Attempts that no detector of scans and logins judged, by why their sources are exempt.
    pub unjudged_attempts: BTreeMap<&'static str, u64>,
}

impl Suppressed {
    /// Revisions of findings that were left out, for whatever reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { allowed, below_severity, held_back, unjudged_attempts: _ } = self;
        let by_kind = below_severity.values().chain(held_back.values());
        allowed.values().chain(by_kind).sum()
    }
}

/// What an hour of a kind and severity has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    passed: u32,
    held: u64,
    /// How many were held when it was last told.
    held_before: u64,
    /// Revision of the next finding that tells it.
    revision: u32,
}

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Tell,
    Allowed(usize),
    BelowSeverity,
    HeldBack,
}

/// Decides which findings are told.
#[derive(Debug)]
pub(super) struct Suppressor {
    settings: NoiseSettings,
    allowances: Vec<Allowance>,
    /// The hour of the pane that is judged, since 1970.
    hour: i64,
    told: BTreeMap<(FindingKind, Severity), Told>,
    counts: Suppressed,
}

impl Suppressor {
    /// Without memory.
    pub(super) fn new(settings: NoiseSettings, allowances: Vec<Allowance>) -> Self {
        let (told, counts) = (BTreeMap::new(), Suppressed::default());
        Self { settings, allowances, hour: i64::MIN, told, counts }
    }

    /// What was left out so far.
    pub(super) const fn counts(&self) -> &Suppressed {
        &self.counts
    }

    /// Notes attempts that were not judged.
    pub(super) fn note_unjudged(&mut self, why: &'static str, attempts: u64) {
        *self.counts.unjudged_attempts.entry(why).or_default() += attempts;
    }

    /// Whether it matters what a finding says beyond its kind and severity: it may be told, or be allowed.
    pub(super) fn may_be_told(&self, kind: FindingKind, severity: Severity) -> bool {
        let severity = self.settings.severity(kind, severity);
        let told = self.told.get(&(kind, severity));
        self.depends_on_details(kind)
            || severity >= self.settings.min_severity
                && told.is_none_or(|told| told.passed < self.settings.per_hour_max(kind, severity))
    }

    /// Whether who it was decides about findings of the kind.
    pub(super) fn depends_on_details(&self, kind: FindingKind) -> bool {
        self.allowances.iter().any(|allowance| allowance.kinds.contains(&kind))
    }

    /// Begins the pane that starts at `start`, and gives what the hour before has left to tell.
    pub(super) fn begin_pane(
        &mut self,
        start: UnixSeconds,
        detected_at: UnixSeconds,
    ) -> Vec<Finding> {
        let mut told = Vec::new();
        let hour = start.0.div_euclid(HOUR_SECONDS);
        if hour > self.hour {
            self.tell_held(detected_at, &mut told);
            self.told.clear();
            self.hour = hour;
        }
        told
    }

    /// Keeps of `findings`, those of one pane in their order, what is to be told, and adds before each kind's
    /// what was `told` of it when the pane began, and that some were held back.
    pub(super) fn pass(
        &mut self,
        findings: &mut Vec<Finding>,
        mut told: Vec<Finding>,
        detected_at: UnixSeconds,
    ) {
        findings.retain_mut(|finding| {
            finding.severity = self.settings.severity(finding.kind, finding.severity);
            let verdict = self.verdict(finding);
            let count = match verdict {
                Verdict::Tell => {
                    finding.actor.addrs.truncate(LISTED_MAX);
                    finding.target.addrs.truncate(LISTED_MAX);
                    finding.target.ports.truncate(LISTED_MAX);
                    return true;
                }
                Verdict::Allowed(number) => {
                    let label = &self.allowances[number].label;
                    match self.counts.allowed.get_mut(label) {
                        Some(count) => count,
                        None => self.counts.allowed.entry(label.clone()).or_default(),
                    }
                }
                Verdict::BelowSeverity => {
                    self.counts.below_severity.entry(finding.kind).or_default()
                }
                Verdict::HeldBack => self.counts.held_back.entry(finding.kind).or_default(),
            };
            *count += 1;
            false
        });
        self.tell_first_held(detected_at, &mut told);
        if !told.is_empty() {
            told.append(findings);
            // Stable: what tells of others goes before those of its kind.
            told.sort_by_key(|finding| finding.kind);
            *findings = told;
        }
    }

    /// Appends what this hour has left to tell: no more will come.
    pub(super) fn on_end(&mut self, detected_at: UnixSeconds, out: &mut Vec<Finding>) {
        self.tell_held(detected_at, out);
    }

    fn verdict(&mut self, finding: &Finding) -> Verdict {
        let Finding { kind, severity, .. } = *finding;
        if let Some(number) = self.allowances.iter().position(|entry| entry.covers(finding)) {
            return Verdict::Allowed(number);
        }
        if severity < self.settings.min_severity {
            return Verdict::BelowSeverity;
        }
        let per_hour_max = self.settings.per_hour_max(kind, severity);
        let told = self.told.entry((kind, severity)).or_default();
        if told.passed < per_hour_max {
            told.passed += 1;
            return Verdict::Tell;
        }
        told.held += 1;
        Verdict::HeldBack
    }

    /// Tells of kinds and severities of which some were held back for the first time in this hour.
    fn tell_first_held(&mut self, detected_at: UnixSeconds, out: &mut Vec<Finding>) {
        self.tell(detected_at, out, |told| told.held_before == 0);
    }

    /// Tells how many were held back in this hour, where that was not told.
    fn tell_held(&mut self, detected_at: UnixSeconds, out: &mut Vec<Finding>) {
        self.tell(detected_at, out, |_| true);
    }

    fn tell(
        &mut self,
        detected_at: UnixSeconds,
        out: &mut Vec<Finding>,
        is_due: impl Fn(&Told) -> bool,
    ) {
        let hour_start = UnixSeconds(self.hour.saturating_mul(HOUR_SECONDS));
        for ((kind, severity), told) in &mut self.told {
            if told.held > told.held_before && is_due(told) {
                let per_hour_max = self.settings.per_hour_max(*kind, *severity);
                out.push(held_back(
                    (*kind, *severity),
                    told,
                    per_hour_max,
                    (hour_start, detected_at),
                ));
                told.held_before = told.held;
                told.revision += 1;
            }
        }
    }

    /// Saves what this hour has told and what was left out.
    pub(super) fn save(&self, out: &mut Encoder) {
        let Self { settings: _, allowances: _, hour, told, counts } = self;
        out.version(1);
        out.i64(*hour);
        out.count(told.len());
        for ((kind, severity), told) in told {
            out.text(kind.name());
            out.u8(*severity as u8);
            out.u32(told.passed);
            out.u64(told.held);
            out.u64(told.held_before);
            out.u32(told.revision);
        }
        out.count(counts.allowed.len());
        for (label, count) in &counts.allowed {
            out.text(label);
            out.u64(*count);
        }
        for by_kind in [&counts.below_severity, &counts.held_back] {
            out.count(by_kind.len());
            for (kind, count) in by_kind {
                out.text(kind.name());
                out.u64(*count);
            }
        }
        out.count(counts.unjudged_attempts.len());
        for (why, count) in &counts.unjudged_attempts {
            out.text(why);
            out.u64(*count);
        }
    }

    /// Loads what [`Self::save`] wrote, with the settings and entries of `self`.
    pub(super) fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("noise control", 1..=1)?;
        let hour = from.i64()?;
        let mut told = BTreeMap::new();
        for _ in 0..from.count(33)? {
            let kind = load_kind(from)?;
            let severity = Severity::ALL.get(usize::from(from.u8()?));
            let severity = *severity.ok_or(DecodeError::Invalid("severity"))?;
            let of_hour = Told {
                passed: from.u32()?,
                held: from.counted()?,
                held_before: from.counted()?,
                revision: from.u32()?,
            };
            if of_hour.held_before > of_hour.held || of_hour.revision > 2 {
                return Err(DecodeError::Invalid("findings held back"));
            }
            told.insert((kind, severity), of_hour);
        }
        let mut counts = Suppressed::default();
        for _ in 0..from.count(16)? {
            let label = from.text()?;
            let is_listed = self.allowances.iter().any(|allowance| allowance.label == label);
            let label = if is_listed { label } else { FORMER_ENTRIES };
            let count = counts.allowed.entry(label.to_owned()).or_default();
            *count += from.counted()?;
        }
        for by_kind in [&mut counts.below_severity, &mut counts.held_back] {
            for _ in 0..from.count(16)? {
                by_kind.insert(load_kind(from)?, from.counted()?);
            }
        }
        for _ in 0..from.count(16)? {
            let why =
                super::network::EXEMPTIONS.into_iter().find(|why| Ok(*why) == from.clone().text());
            from.text()?;
            let why = why.ok_or(DecodeError::Invalid("reason not to judge"))?;
            counts.unjudged_attempts.insert(why, from.counted()?);
        }
        (self.hour, self.told, self.counts) = (hour, told, counts);
        Ok(())
    }
}

fn load_kind(from: &mut Decoder<'_>) -> Result<FindingKind, DecodeError> {
    FindingKind::from_name(from.text()?).ok_or(DecodeError::Invalid("finding kind"))
}

/// The finding that stands for those of a kind and severity that were held back within an hour.
fn held_back(
    (kind, severity): (FindingKind, Severity),
    told: &Told,
    per_hour_max: u32,
    (hour_start, detected_at): (UnixSeconds, UnixSeconds),
) -> Finding {
    let (name, level) = (kind.name(), severity.name());
    Finding {
        // No detector's finding has such ports and nobody who did it.
        id: FindingId::new(kind, &[], &[], &[0, 0, severity as u16], hour_start),
        revision: told.revision,
        status: if told.revision == 0 { Status::Open } else { Status::Update },
        kind,
        severity,
        confidence: 1.0,
        title: format!(
            "{} more findings of {name} with {level} severity were held back in the hour from {hour_start}: \
             it had more than {per_hour_max}",
            told.held
        ),
        actor: Party::default(),
        target: Party::default(),
        first_seen: hour_start,
        last_seen: hour_start.max(detected_at.min(hour_start.saturating_add(HOUR_SECONDS))),
        detected_at,
        window_seconds: 3600,
        evidence: BTreeMap::from([
            ("variant", Evidence::Word("held_back")),
            ("held_back", Evidence::Count(told.held)),
            ("findings_per_hour_max", Evidence::Count(per_hour_max.into())),
        ]),
        context: Context::default(),
        exact: true,
    }
}

#[cfg(test)]
#[path = "suppress_tests.rs"]
mod tests;
