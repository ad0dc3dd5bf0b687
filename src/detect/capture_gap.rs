//! Traffic that was not logged: SKIPDATA records, interfaces that log no more, and times without any record.
//!
//! An interface is silent by event time only, and only while others log on: its silence is counted in panes
//! in which others logged, so that a stream that stands still says nothing of its interfaces. How long an
//! interface may be silent is learned from it: four times its longest silence so far, and never less than
//! three of the longest aggregation intervals. Interfaces that have not logged for long, such as those of
//! short tasks, are not expected to go on. Many that stop together are one finding: somebody deleted a flow
//! log. NODATA records are records: an interface that says that it had no traffic is not silent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::interfaces::{InterfaceDraft, InterfacePane, finding};
use super::logger::{Logger, Rhythm, Told};
use super::pane::PaneView;
use super::report::spelled;
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::units::{PaneIndex, UnixSeconds};

/// How long an interface without SKIPDATA ends an episode of them.
const SKIPDATA_QUIET_SECONDS: u32 = 3600;

/// In place of a serial number: many interfaces together.
const MANY: u64 = u64::MAX;

/// `[detectors.capture_gap]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureGapSettings {
    /// Whether to look for gaps.
    pub enabled: bool,
    /// The shortest silence that is reported, 300 to 86400.
    pub silent_seconds: u32,
    /// How long an interface must have logged before its silence is reported, 600 to 604800.
    pub known_seconds: u32,
    /// This many interfaces that stop in one pane are one finding, 2 to 65536.
    pub group_interfaces_min: u32,
    /// SKIPDATA records of an interface, no hour without any between them, 1 to 100000.
    pub skipdata_records_min: u32,
    /// Interfaces kept, 1000 to 1000000000; about 400 bytes each.
    pub tracked_max: u32,
}

impl Default for CaptureGapSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            silent_seconds: 1800,
            known_seconds: 21_600,
            group_interfaces_min: 5,
            skipdata_records_min: 1,
            tracked_max: 100_000,
        }
    }
}

impl CaptureGapSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range(
            "silent_seconds",
            self.silent_seconds,
            300..=WINDOW_SECONDS_MAX,
            usual.silent_seconds,
        )?;
        check_range("known_seconds", self.known_seconds, 600..=604_800, usual.known_seconds)?;
        check_range(
            "group_interfaces_min",
            self.group_interfaces_min,
            2..=65_536,
            usual.group_interfaces_min,
        )?;
        check_range(
            "skipdata_records_min",
            self.skipdata_records_min,
            1..=100_000,
            usual.skipdata_records_min,
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct CaptureGap {
    settings: CaptureGapSettings,
    loggers: BTreeMap<String, Logger>,
    loggers_bytes: usize,
    bytes_max: usize,
    next_serial: u64,
    /// All interfaces together.
    all: Rhythm,
    last_pane: Option<PaneIndex>,
    /// Episodes of SKIPDATA, by the interface's serial number.
    skips: Episodes<u64>,
    evictions: u64,
}

impl CaptureGap {
    /// A detector without memory, whose tables take at most `bytes_max` between panes.
    pub(super) fn new(settings: CaptureGapSettings, bytes_max: usize) -> Self {
        let skips_max =
            (settings.tracked_max as usize).min(bytes_max / 4 / Episodes::<u64>::entry_bytes());
        Self {
            loggers: BTreeMap::new(),
            loggers_bytes: 0,
            bytes_max: bytes_max / 4 * 3,
            next_serial: 0,
            all: Rhythm::NONE,
            last_pane: None,
            skips: Episodes::new(SKIPDATA_QUIET_SECONDS, skips_max),
            evictions: 0,
            settings,
        }
    }

    /// How many panes had records, up to now.
    const fn tick(&self) -> u64 {
        self.all.logged_panes
    }

    /// Times without any record, noticed when there are records again.
    fn on_any(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let times = view.interfaces.iter().map(|interface| &interface.tally);
        let first_start = times.clone().map(|tally| tally.first_start).min();
        let last_end = times.map(|tally| tally.last_end).max();
        let (Some(first_start), Some(last_end)) = (first_start, last_end) else { return };
        if let Some(last_pane) = self.last_pane {
            let panes = view.index().0.saturating_sub(last_pane.0).saturating_sub(1);
            let panes = u64::try_from(panes).unwrap_or(0);
            let Self { settings, all, .. } = self;
            if all.is_unusual(panes, settings.silent_seconds, view.pane_seconds) {
                let (from, to) = (all.last_end, first_start.max(all.last_end));
                out.push(finding(FindingKind::CaptureGap, 0, view, || InterfaceDraft {
                    variant: "all_silent",
                    severity: Severity::High,
                    confidence: 0.9,
                    title: format!("no interface logged anything for {}", lasting(from, to)),
                    identity: Vec::new(),
                    interfaces: Vec::new(),
                    start: from,
                    actor: None,
                    target: None,
                    first_seen: from,
                    last_seen: to,
                    window_seconds: settings.silent_seconds,
                    evidence: gap_evidence(from, Some(to), all, view),
                    exact: true,
                }));
                all.longest_panes = all.longest_panes.max(panes / 2);
            } else {
                all.longest_panes = all.longest_panes.max(panes);
            }
        }
        self.all.log(first_start, last_end);
        self.last_pane = Some(view.index());
    }

    fn on_interface(
        &mut self,
        interface: &InterfacePane,
        view: &PaneView<'_>,
        out: &mut Vec<Finding>,
    ) {
        let tick = self.tick();
        let logger = match self.loggers.get_mut(&interface.name) {
            Some(logger) => logger,
            None => {
                let logger = Logger::new(self.next_serial, interface, tick);
                self.next_serial = self.next_serial.saturating_add(1);
                self.loggers_bytes += logger.bytes(&interface.name);
                self.loggers.entry(interface.name.clone()).or_insert(logger)
            }
        };
        let tally = &interface.tally;
        let silent = tick.saturating_sub(logger.last_tick).saturating_sub(1);
        let from = logger.rhythm.last_end;
        if logger.told == Told::Nothing {
            logger.rhythm.longest_panes = logger.rhythm.longest_panes.max(silent);
        } else {
            // What comes back by itself is not that unusual; but a gap must not hide one like it.
            logger.rhythm.longest_panes = logger.rhythm.longest_panes.max(silent / 2);
        }
        if logger.told == Told::Alone {
            let to = tally.first_start.max(from);
            let settings = &self.settings;
            out.push(finding(FindingKind::CaptureGap, 1, view, || InterfaceDraft {
                title: format!(
                    "{} logs again, after nothing for {}",
                    interface.name,
                    lasting(from, to)
                ),
                last_seen: to,
                evidence: gap_evidence(from, Some(to), &logger.rhythm, view),
                ..silence_of(&interface.name, logger, settings, view)
            }));
        }
        logger.told = Told::Nothing;
        logger.last_tick = tick;
        logger.own = interface.own.or(logger.own);
        logger.rhythm.log(tally.first_start, tally.last_end);
        if let Some(skipped) = tally.skipped {
            logger.skip(skipped, tally.skipdata_records, SKIPDATA_QUIET_SECONDS);
        }
    }

    /// SKIPDATA records: a finding for each interface, or one for all if there are many.
    fn on_skipdata(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let skipped = view.interfaces.iter().filter(|interface| interface.tally.skipped.is_some());
        let skipped: Vec<&InterfacePane> = skipped
            .filter(|interface| {
                let logger = self.loggers.get(&interface.name);
                let records = logger.map_or(0, |logger| logger.skipped);
                records >= u64::from(self.settings.skipdata_records_min)
            })
            .collect();
        if skipped.len() >= self.settings.group_interfaces_min as usize {
            out.extend(self.skipdata_of("skipdata_many", MANY, &skipped, view));
            return;
        }
        for interface in skipped {
            let serial = self.loggers.get(&interface.name).map_or(MANY, |logger| logger.serial);
            out.extend(self.skipdata_of("skipdata", serial, &[interface], view));
        }
    }

    fn skipdata_of(
        &mut self,
        variant: &'static str,
        serial: u64,
        skipped: &[&InterfacePane],
        view: &PaneView<'_>,
    ) -> Option<Finding> {
        let times = skipped.iter().filter_map(|interface| interface.tally.skipped);
        let from = times.clone().map(|(from, _)| from).min()?;
        let to = times.map(|(_, to)| to).max()?;
        let records = match skipped {
            [only] => self.loggers.get(&only.name).map_or(0, |logger| logger.skipped),
            _ => skipped.iter().map(|interface| u64::from(interface.tally.skipdata_records)).sum(),
        };
        let sighting = Sighting { first_seen: from, last_seen: to, size: records };
        let report = self.skips.note(serial, sighting)?;
        let whose = match skipped {
            [only] => only.name.clone(),
            _ => format!("{} interfaces", skipped.len()),
        };
        let logged: u64 =
            skipped.iter().map(|interface| u64::from(interface.tally.traffic().flows)).sum();
        let draft = || InterfaceDraft {
            variant,
            severity: Severity::Low,
            confidence: 1.0,
            title: format!("AWS lost records of {whose} between {from} and {to} (SKIPDATA)"),
            identity: if let [only] = skipped { vec![&only.name] } else { Vec::new() },
            interfaces: skipped
                .iter()
                .map(|interface| (interface.name.as_str(), &interface.place))
                .collect(),
            start: report.start,
            actor: None,
            target: if let [only] = skipped { only.own } else { None },
            first_seen: report.start,
            last_seen: to,
            window_seconds: SKIPDATA_QUIET_SECONDS,
            evidence: BTreeMap::from([
                ("gap_start", Evidence::Text(from.to_string())),
                ("gap_end", Evidence::Text(to.to_string())),
                ("interfaces", Evidence::Count(skipped.len() as u64)),
                ("skipdata_records", Evidence::Count(records)),
                ("logged_records", Evidence::Count(logged)),
            ]),
            exact: true,
        };
        Some(finding(FindingKind::CaptureGap, report.revision, view, draft))
    }

    /// Interfaces that have become silent.
    fn on_silence(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let tick = self.tick();
        let settings = &self.settings;
        let is_news = |logger: &Logger| {
            let Rhythm { first_start, last_end, .. } = logger.rhythm;
            let silent = tick.saturating_sub(logger.last_tick);
            logger.told == Told::Nothing
                && silent > 0
                && last_end.0.saturating_sub(first_start.0) >= settings.known_seconds.into()
                && logger.rhythm.is_unusual(silent, settings.silent_seconds, view.pane_seconds)
        };
        let mut news: Vec<(&String, &mut Logger)> =
            self.loggers.iter_mut().filter(|(_, logger)| is_news(logger)).collect();
        let is_group = news.len() >= settings.group_interfaces_min as usize;
        for (name, logger) in &mut news {
            logger.told = if is_group { Told::Together } else { Told::Alone };
            if !is_group {
                let draft = || silence_of(name, logger, settings, view);
                out.push(finding(FindingKind::CaptureGap, 0, view, draft));
            }
        }
        if is_group {
            let lasts = news.iter().map(|(_, logger)| logger.rhythm.last_end);
            let from = lasts.clone().min().expect("there are some");
            let draft = || group_silence(&news, from, lasts.max().unwrap_or(from), settings, view);
            out.push(finding(FindingKind::CaptureGap, 0, view, draft));
        }
    }

    /// Forgets the interfaces that are silent for longest if there are too many; of those that are alike the
    /// newest.
    fn forget(&mut self) {
        let entries_max = self.settings.tracked_max as usize;
        if self.loggers.len() <= entries_max && self.loggers_bytes <= self.bytes_max {
            return;
        }
        let mut by_quiet: Vec<(u64, std::cmp::Reverse<u64>, String)> = self
            .loggers
            .iter()
            .map(|(name, logger)| {
                (logger.last_tick, std::cmp::Reverse(logger.serial), name.clone())
            })
            .collect();
        by_quiet.sort_unstable();
        for (_, _, name) in by_quiet {
            if self.loggers.len() <= entries_max && self.loggers_bytes <= self.bytes_max {
                break;
            }
            let logger = self.loggers.remove(&name).expect("listed from the table");
            self.loggers_bytes -= logger.bytes(&name);
            self.evictions = self.evictions.saturating_add(1);
        }
    }
}

/// What is to be said of an interface that has become silent.
fn silence_of<'a>(
    name: &'a str,
    logger: &'a Logger,
    settings: &CaptureGapSettings,
    view: &PaneView<'_>,
) -> InterfaceDraft<'a> {
    let (from, to) = (logger.rhythm.last_end, view.end().max(logger.rhythm.last_end));
    InterfaceDraft {
        variant: "interface_silent",
        severity: Severity::Medium,
        confidence: 0.7,
        title: format!("{name} has logged nothing for {}, while others log on", lasting(from, to)),
        identity: vec![name],
        interfaces: vec![(name, &logger.place)],
        start: from,
        actor: None,
        target: logger.own,
        first_seen: from,
        last_seen: to,
        window_seconds: settings.silent_seconds,
        evidence: gap_evidence(from, None, &logger.rhythm, view),
        exact: true,
    }
}

/// What is to be said of many that have become silent together.
fn group_silence<'a>(
    list: &'a [(&'a String, &'a mut Logger)],
    from: UnixSeconds,
    last: UnixSeconds,
    settings: &CaptureGapSettings,
    view: &PaneView<'_>,
) -> InterfaceDraft<'a> {
    let to = view.end().max(last);
    InterfaceDraft {
        variant: "interfaces_silent",
        severity: Severity::High,
        confidence: 0.9,
        title: format!(
            "{} interfaces have logged nothing for {}, while others log on",
            list.len(),
            lasting(last, to)
        ),
        identity: list.iter().map(|(name, _)| name.as_str()).collect(),
        interfaces: list.iter().map(|(name, logger)| (name.as_str(), &logger.place)).collect(),
        start: to,
        actor: None,
        target: None,
        first_seen: from,
        last_seen: to,
        window_seconds: settings.silent_seconds,
        evidence: BTreeMap::from([
            ("gap_start", Evidence::Text(from.to_string())),
            ("interfaces", Evidence::Count(list.len() as u64)),
            ("others_logging", Evidence::Count(view.interfaces.len() as u64)),
        ]),
        exact: true,
    }
}

/// What a silence is judged by.
fn gap_evidence(
    from: UnixSeconds,
    to: Option<UnixSeconds>,
    rhythm: &Rhythm,
    view: &PaneView<'_>,
) -> BTreeMap<&'static str, Evidence> {
    let pane_seconds = view.pane_seconds.unsigned_abs();
    let longest = rhythm.longest_panes.saturating_mul(pane_seconds);
    let mut evidence = BTreeMap::from([
        ("gap_start", Evidence::Text(from.to_string())),
        ("longest_silence_before_seconds", Evidence::Count(longest)),
        ("logged_windows_before", Evidence::Count(rhythm.logged_panes)),
        ("others_logging", Evidence::Count(view.interfaces.len() as u64)),
    ]);
    if let Some(to) = to {
        let seconds = u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0);
        evidence.insert("gap_end", Evidence::Text(to.to_string()));
        evidence.insert("missing_windows", Evidence::Count(seconds / pane_seconds.max(1)));
    }
    evidence
}

/// How long a gap is, in minutes at least.
fn lasting(from: UnixSeconds, to: UnixSeconds) -> String {
    let seconds = u32::try_from(to.0.saturating_sub(from.0).max(0)).unwrap_or(u32::MAX);
    spelled((seconds / 60).saturating_mul(60).max(60))
}

impl Detector for CaptureGap {
    fn name(&self) -> &'static str {
        "capture_gap"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.skips.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        if view.interfaces.is_empty() {
            return;
        }
        self.on_any(view, out);
        for interface in view.interfaces {
            self.on_interface(interface, view, out);
        }
        self.on_skipdata(view, out);
        self.on_silence(view, out);
        self.skips.end_pane(view.end());
        self.forget();
    }

    fn evictions(&self) -> u64 {
        self.evictions.saturating_add(self.skips.evictions())
    }

    fn bytes(&self) -> usize {
        self.loggers_bytes + self.skips.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.next_serial);
        out.u64(self.evictions);
        self.all.save(out);
        self.last_pane.save(out);
        self.loggers.save(out);
        self.skips.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("capture gaps", 1..=1)?;
        self.next_serial = from.u64()?;
        self.evictions = from.u64()?;
        self.all = Rhythm::load(from)?;
        self.last_pane = Option::load(from)?;
        self.loggers = BTreeMap::load(from)?;
        self.loggers_bytes = self.loggers.iter().map(|(name, logger)| logger.bytes(name)).sum();
        self.skips = self.skips.load(from)?;
        Ok(())
    }
}
