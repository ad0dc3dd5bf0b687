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
use super::pane::PaneView;
use super::report::spelled;
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::aggregate::Place;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// How many times its longest silence so far an interface has to be silent.
const LONGER_THAN_USUAL: u64 = 4;

/// In how many panes something must have logged before its silences are known.
const LOGGED_PANES_MIN: u64 = 30;

/// How long an interface without SKIPDATA ends an episode of them.
const SKIPDATA_QUIET_SECONDS: u32 = 3600;

/// Bytes that an interface takes beside its texts.
const LOGGER_BYTES: usize = 320;

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

/// How an interface's silence was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It logs, or is not silent for long.
    Nothing,
    /// In a finding of its own.
    Alone,
    /// In one with others.
    Together,
}

/// An interface, or all of them together, as one that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rhythm {
    first_start: UnixSeconds,
    last_end: UnixSeconds,
    /// Panes with records of it.
    logged_panes: u64,
    /// The longest silence that ended, in panes.
    longest_panes: u64,
}

impl Rhythm {
    const NONE: Self = Self {
        first_start: UnixSeconds::MAX,
        last_end: UnixSeconds::MIN,
        logged_panes: 0,
        longest_panes: 0,
    };

    /// Whether a silence of so many panes is longer than any that is usual.
    fn is_unusual(&self, silent_panes: u64, silent_seconds: u32, pane_seconds: i64) -> bool {
        let shortest = u64::from(silent_seconds).div_ceil(pane_seconds.unsigned_abs().max(1));
        let usual = self.longest_panes.saturating_mul(LONGER_THAN_USUAL);
        self.logged_panes >= LOGGED_PANES_MIN && silent_panes > usual.max(shortest)
    }

    fn log(&mut self, first_start: UnixSeconds, last_end: UnixSeconds) {
        self.first_start = self.first_start.min(first_start);
        self.last_end = self.last_end.max(last_end);
        self.logged_panes = self.logged_panes.saturating_add(1);
    }
}

impl Saved for Rhythm {
    const BYTES_MIN: usize = 32;

    fn save(&self, out: &mut Encoder) {
        self.first_start.save(out);
        self.last_end.save(out);
        out.u64(self.logged_panes);
        out.u64(self.longest_panes);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            first_start: UnixSeconds::load(from)?,
            last_end: UnixSeconds::load(from)?,
            logged_panes: from.u64()?,
            longest_panes: from.u64()?,
        })
    }
}

/// An interface that logged.
#[derive(Debug)]
struct Logger {
    /// Which interface it is of all that ever were in the table.
    serial: u64,
    place: Place,
    own: Option<Addr>,
    rhythm: Rhythm,
    /// How many panes had records of any interface when it logged last.
    last_tick: u64,
    told: Told,
    /// SKIPDATA records of the episode.
    skipped: u64,
    /// Latest `end` of one.
    last_skip: UnixSeconds,
}

impl Logger {
    fn new(serial: u64, interface: &InterfacePane, tick: u64) -> Self {
        Self {
            serial,
            place: interface.place.clone(),
            own: None,
            rhythm: Rhythm::NONE,
            last_tick: tick,
            told: Told::Nothing,
            skipped: 0,
            last_skip: UnixSeconds::MIN,
        }
    }

    fn bytes(&self, name: &str) -> usize {
        let Place { interface_id, account_id, vpc_id, subnet_id } = &self.place;
        let texts = [interface_id, account_id, vpc_id, subnet_id];
        let texts = texts.into_iter().flatten().map(String::len);
        LOGGER_BYTES + name.len() + texts.sum::<usize>()
    }
}

impl Saved for Logger {
    const BYTES_MIN: usize = 70;

    fn save(&self, out: &mut Encoder) {
        out.u64(self.serial);
        save_place(&self.place, out);
        self.own.save(out);
        self.rhythm.save(out);
        out.u64(self.last_tick);
        out.u8(match self.told {
            Told::Nothing => 0,
            Told::Alone => 1,
            Told::Together => 2,
        });
        out.u64(self.skipped);
        self.last_skip.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            serial: from.u64()?,
            place: load_place(from)?,
            own: Option::load(from)?,
            rhythm: Rhythm::load(from)?,
            last_tick: from.u64()?,
            told: match from.u8()? {
                0 => Told::Nothing,
                1 => Told::Alone,
                2 => Told::Together,
                _ => return Err(DecodeError::Invalid("what was told of an interface")),
            },
            skipped: from.u64()?,
            last_skip: UnixSeconds::load(from)?,
        })
    }
}

/// Writes a place.
pub(super) fn save_place(place: &Place, out: &mut Encoder) {
    let Place { interface_id, account_id, vpc_id, subnet_id } = place;
    for text in [interface_id, account_id, vpc_id, subnet_id] {
        out.option(text.as_ref(), |out, text| out.text(text));
    }
}

/// Reads what [`save_place`] wrote.
pub(super) fn load_place(from: &mut Decoder<'_>) -> Result<Place, DecodeError> {
    let mut text = || from.option(|from| from.text().map(str::to_owned));
    let (interface_id, account_id) = (text()?, text()?);
    Ok(Place { interface_id, account_id, vpc_id: text()?, subnet_id: text()? })
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
        let skips_max = (settings.tracked_max as usize)
            .min(bytes_max / 4 / Episodes::<u64>::entry_bytes());
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
        if !self.loggers.contains_key(&interface.name) {
            let logger = Logger::new(self.next_serial, interface, tick);
            self.next_serial = self.next_serial.saturating_add(1);
            self.loggers_bytes += logger.bytes(&interface.name);
            self.loggers.insert(interface.name.clone(), logger);
        }
        let logger = self.loggers.get_mut(&interface.name).expect("it was just added");
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
            self.on_skipdata(interface, skipped, view, out);
        }
    }

    fn on_skipdata(
        &mut self,
        interface: &InterfacePane,
        (from, to): (UnixSeconds, UnixSeconds),
        view: &PaneView<'_>,
        out: &mut Vec<Finding>,
    ) {
        let logger = self.loggers.get_mut(&interface.name).expect("it logged in this pane");
        let records = u64::from(interface.tally.skipdata_records);
        let quiet_seconds = to.0.saturating_sub(logger.last_skip.0);
        let is_new = quiet_seconds > SKIPDATA_QUIET_SECONDS.into();
        logger.skipped = if is_new { records } else { logger.skipped.saturating_add(records) };
        logger.last_skip = logger.last_skip.max(to);
        if logger.skipped < u64::from(self.settings.skipdata_records_min) {
            return;
        }
        let sighting = Sighting { first_seen: from, last_seen: to, size: logger.skipped };
        let Some(report) = self.skips.note(logger.serial, sighting) else { return };
        out.push(finding(FindingKind::CaptureGap, report.revision, view, || InterfaceDraft {
            variant: "skipdata",
            severity: Severity::Low,
            confidence: 1.0,
            title: format!(
                "AWS lost records of {} between {from} and {to} (SKIPDATA)",
                interface.name
            ),
            interfaces: vec![(&interface.name, &interface.place)],
            start: report.start,
            actor: None,
            target: interface.own.or(logger.own),
            first_seen: report.start,
            last_seen: to,
            window_seconds: SKIPDATA_QUIET_SECONDS,
            evidence: BTreeMap::from([
                ("gap_start", Evidence::Text(from.to_string())),
                ("gap_end", Evidence::Text(to.to_string())),
                ("skipdata_records", Evidence::Count(logger.skipped)),
                ("logged_records", Evidence::Count(interface.tally.traffic().flows.into())),
            ]),
            exact: true,
        }));
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

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        if view.interfaces.is_empty() {
            return;
        }
        self.on_any(view, out);
        for interface in view.interfaces {
            self.on_interface(interface, view, out);
        }
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
