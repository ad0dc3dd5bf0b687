//! Interfaces that receive or send far more or less than at the same hour of the days before.
//!
//! Bytes, packets and flows of each direction have a seasonal baseline ([`Baseline`]); what is smoothed is
//! compared with it by the robust z score, .6745 (x − median) / median deviation. A rise must also be far from
//! the usual in itself, above everything of the eight days before, and last; so neither a quiet
//! interface that does a little more, nor the backup of every night or Sunday is raised. A drop must be below
//! half of the lowest of these days, which have to include a weekend. Nothing is raised before enough days
//! were seen. Drops are not told after SKIPDATA, and panes without any record of an interface, NODATA included,
//! say nothing: they are gaps (`capture_gap`), not quiet.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::baseline::{Baseline, DAYS, Now, SERIES, SPREAD_MIN, Usual};
use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::interfaces::{InterfaceDraft, InterfacePane, finding, load_place, save_place};
use super::pane::PaneView;
use super::report::confidence;
use super::saved::Saved;
use super::settings::{SettingsError, check_range};
use crate::aggregate::{FlowCounts, Place};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// What makes the median deviation one of a normal distribution's standard deviations.
const TO_Z: f64 = 0.6745;

/// How many times the highest of the days before a rise has to reach.
const ABOVE_PEAK: f64 = 1.25;

/// To which part of the lowest of the days before a drop has to fall.
const BELOW_LOWEST: f64 = 0.5;

/// Days that must have been seen before drops are told: with fewer there was no weekend.
const DROP_DAYS_MIN: u32 = 7;

/// How long after SKIPDATA drops are not told, in seconds: what was not logged is smoothed away by then.
const AFTER_SKIPDATA_SECONDS: i64 = 3600;

/// How long an unusual time has to be over before the next one is another.
const QUIET_SECONDS: u32 = 3600;

/// Bytes that an interface takes beside its texts and its past.
const METER_BYTES: usize = 256;

/// `[detectors.traffic_anomaly]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrafficAnomalySettings {
    /// Whether to look for unusual traffic.
    pub enabled: bool,
    /// Days before with the same hour that must have been seen, 2 to 8.
    pub days_min: u32,
    /// Robust z score, 3 to 1000.
    pub z_min: u32,
    /// How long it must last, 60 to 3600.
    pub lasting_seconds: u32,
    /// How many bytes a minute it must be away from the usual, 1000 to 1000000000000.
    pub bytes_per_minute_min: u64,
    /// The same for packets, 10 to 1000000000.
    pub packets_per_minute_min: u64,
    /// The same for flows, 10 to 1000000000.
    pub flows_per_minute_min: u64,
    /// Interfaces kept, 1000 to 1000000000; 300 to 9000 bytes each.
    pub tracked_max: u32,
}

impl Default for TrafficAnomalySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            days_min: 3,
            z_min: 6,
            lasting_seconds: 300,
            bytes_per_minute_min: 30_000_000,
            packets_per_minute_min: 30_000,
            flows_per_minute_min: 600,
            tracked_max: 100_000,
        }
    }
}

impl TrafficAnomalySettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        check_range("days_min", self.days_min, 2..=DAYS, usual.days_min)?;
        check_range("z_min", self.z_min, 3..=1000, usual.z_min)?;
        check_range("lasting_seconds", self.lasting_seconds, 60..=3600, usual.lasting_seconds)?;
        for (field, value, least, most, usual) in [
            (
                "bytes_per_minute_min",
                self.bytes_per_minute_min,
                1000,
                1_000_000_000_000,
                usual.bytes_per_minute_min,
            ),
            (
                "packets_per_minute_min",
                self.packets_per_minute_min,
                10,
                1_000_000_000,
                usual.packets_per_minute_min,
            ),
            (
                "flows_per_minute_min",
                self.flows_per_minute_min,
                10,
                1_000_000_000,
                usual.flows_per_minute_min,
            ),
        ] {
            check_range(field, signed(value), least..=most, signed(usual))?;
        }
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }

    /// How far each series must be from the usual.
    fn floors(&self) -> [f64; SERIES] {
        let floors =
            [self.bytes_per_minute_min, self.packets_per_minute_min, self.flows_per_minute_min];
        std::array::from_fn(|series| floors[series % METRICS.len()] as f64)
    }
}

/// The series of a direction.
const METRICS: [&str; 3] = ["bytes", "packets", "flows"];

/// What can be unusual of an interface: a direction, and which way.
const WAYS: usize = 4;

/// Which of [`WAYS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    is_sent: bool,
    is_drop: bool,
}

impl Way {
    const ALL: [Self; WAYS] = [
        Self { is_sent: false, is_drop: false },
        Self { is_sent: false, is_drop: true },
        Self { is_sent: true, is_drop: false },
        Self { is_sent: true, is_drop: true },
    ];

    const fn number(self) -> u8 {
        self.is_sent as u8 * 2 + self.is_drop as u8
    }

    /// The direction's series.
    const fn series(self) -> std::ops::Range<usize> {
        if self.is_sent { 3..6 } else { 0..3 }
    }

    const fn variant(self) -> &'static str {
        match (self.is_sent, self.is_drop) {
            (false, false) => "received_rise",
            (false, true) => "received_drop",
            (true, false) => "sent_rise",
            (true, true) => "sent_drop",
        }
    }
}

/// A series that is unusual.
#[derive(Clone, Copy, Debug)]
struct Odd {
    series: usize,
    z: f64,
    per_minute: f64,
    usual: f64,
}

/// How unusual a series is, if it is.
fn odd(way: Way, series: usize, now: &Now, usual: &Usual, floor: f64, z_min: f64) -> Option<Odd> {
    let (smoothed, plain) = (now.smoothed[series], now.plain[series]);
    let (middle, spread) =
        if way.is_drop { (usual.low, usual.low_spread) } else { (usual.high, usual.high_spread) };
    let spread = spread.max(SPREAD_MIN * middle).max(1.0);
    let away = |value: f64| if way.is_drop { middle - value } else { value - middle };
    let z = TO_Z * away(smoothed) / spread;
    let is_extreme = if way.is_drop {
        smoothed.max(plain) < BELOW_LOWEST * usual.lowest
    } else {
        smoothed > ABOVE_PEAK * usual.peak
    };
    let is_odd = z > z_min && is_extreme && away(smoothed) > floor && away(plain) > floor;
    is_odd.then_some(Odd { series, z, per_minute: smoothed, usual: middle })
}

/// An interface and its past.
#[derive(Debug)]
struct Meter {
    serial: u64,
    place: Place,
    own: Option<Addr>,
    last_pane: PaneIndex,
    last_skip: UnixSeconds,
    /// For how many panes each way has been unusual, and since when.
    lasting: [(u32, UnixSeconds); WAYS],
    past: Baseline,
}

impl Meter {
    fn new(serial: u64, interface: &InterfacePane, pane: PaneIndex) -> Self {
        Self {
            serial,
            place: interface.place.clone(),
            own: None,
            last_pane: pane,
            last_skip: UnixSeconds::MIN,
            lasting: [(0, UnixSeconds::MIN); WAYS],
            past: Baseline::default(),
        }
    }

    fn bytes(&self, name: &str) -> usize {
        let Place { interface_id, account_id, vpc_id, subnet_id } = &self.place;
        let texts = [interface_id, account_id, vpc_id, subnet_id];
        let texts = texts.into_iter().flatten().map(String::len);
        METER_BYTES + self.past.bytes() + name.len() + texts.sum::<usize>()
    }
}

impl Saved for Meter {
    const BYTES_MIN: usize = 29 + 12 * WAYS + Baseline::BYTES_MIN;

    fn save(&self, out: &mut Encoder) {
        out.u64(self.serial);
        save_place(&self.place, out);
        self.own.save(out);
        self.last_pane.save(out);
        self.last_skip.save(out);
        for (count, since) in &self.lasting {
            out.u32(*count);
            since.save(out);
        }
        self.past.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (serial, place, own) = (from.u64()?, load_place(from)?, Option::load(from)?);
        let (last_pane, last_skip) = (PaneIndex::load(from)?, UnixSeconds::load(from)?);
        let mut lasting = [(0, UnixSeconds::MIN); WAYS];
        for way in &mut lasting {
            *way = (from.u32()?, UnixSeconds::load(from)?);
        }
        let past = Baseline::load(from)?;
        Ok(Self { serial, place, own, last_pane, last_skip, lasting, past })
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct TrafficAnomaly {
    settings: TrafficAnomalySettings,
    meters: BTreeMap<String, Meter>,
    meters_bytes: usize,
    bytes_max: usize,
    next_serial: u64,
    /// By serial number of the interface, and way.
    episodes: Episodes<(u64, u8)>,
    evictions: u64,
}

impl TrafficAnomaly {
    /// A detector without memory, whose tables take at most `bytes_max` between panes.
    pub(super) fn new(settings: TrafficAnomalySettings, bytes_max: usize) -> Self {
        let entry_bytes = Episodes::<(u64, u8)>::entry_bytes();
        let open_max = (settings.tracked_max as usize).min(bytes_max / 8 / entry_bytes);
        Self {
            meters: BTreeMap::new(),
            meters_bytes: 0,
            bytes_max: bytes_max / 8 * 7,
            next_serial: 0,
            episodes: Episodes::new(QUIET_SECONDS, open_max),
            evictions: 0,
            settings,
        }
    }

    fn on_interface(
        &mut self,
        interface: &InterfacePane,
        view: &PaneView<'_>,
        out: &mut Vec<Finding>,
    ) {
        let meter = match self.meters.get_mut(&interface.name) {
            Some(meter) => meter,
            None => {
                let meter = Meter::new(self.next_serial, interface, view.index());
                self.next_serial = self.next_serial.saturating_add(1);
                self.meters_bytes += meter.bytes(&interface.name);
                self.meters.entry(interface.name.clone()).or_insert(meter)
            }
        };
        let floors = self.settings.floors();
        meter.last_pane = view.index();
        if let Some((_, skipped_until)) = interface.tally.skipped {
            // What was logged beside SKIPDATA is a part, and a rise would follow that never was.
            meter.last_skip = meter.last_skip.max(skipped_until);
            meter.lasting = [(0, UnixSeconds::MIN); WAYS];
            return;
        }
        meter.own = interface.own.or(meter.own);
        let Some(directions) = interface.directions(meter.own) else { return };
        let plain = per_minute(&directions, interface.tally.span_seconds, view.pane_seconds);
        let start = view.index().start(view.pane_seconds).0;
        self.meters_bytes -= meter.past.bytes();
        let now = meter.past.take(start, view.pane_seconds, plain, &floors.map(|f| f / 8.0));
        self.meters_bytes += meter.past.bytes();
        let lasting_seconds = i64::from(self.settings.lasting_seconds);
        let panes_min = (lasting_seconds - 1).div_euclid(view.pane_seconds) + 1;
        for way in Way::ALL {
            let odds = odds(&self.settings, meter, way, &now, &floors, view);
            let lasting = &mut meter.lasting[usize::from(way.number())];
            if odds.is_empty() {
                *lasting = (0, UnixSeconds::MIN);
                continue;
            }
            if lasting.0 == 0 {
                lasting.1 = interface.tally.first_start;
            }
            lasting.0 = lasting.0.saturating_add(1);
            if i64::from(lasting.0) >= panes_min {
                out.extend(report(
                    &mut self.episodes,
                    &self.settings,
                    meter,
                    way,
                    &odds,
                    interface,
                    view,
                ));
            }
        }
    }

    /// Forgets the interfaces that have been away for longer than is remembered, and the ones that are away
    /// for longest if there are too many; of those that are alike the newest.
    fn forget(&mut self, view: &PaneView<'_>) {
        let expired = view.index().0.saturating_sub(DAYS * 86_400 / view.pane_seconds);
        // Once an hour is soon enough for what is days old.
        if view.end().0.rem_euclid(3600) < view.pane_seconds {
            let bytes = &mut self.meters_bytes;
            self.meters.retain(|name, meter| {
                let stays = meter.last_pane.0 > expired;
                *bytes -= if stays { 0 } else { meter.bytes(name) };
                stays
            });
        }
        let entries_max = self.settings.tracked_max as usize;
        if self.meters.len() <= entries_max && self.meters_bytes <= self.bytes_max {
            return;
        }
        let mut by_quiet: Vec<(PaneIndex, std::cmp::Reverse<u64>, String)> = self
            .meters
            .iter()
            .map(|(name, meter)| (meter.last_pane, std::cmp::Reverse(meter.serial), name.clone()))
            .collect();
        by_quiet.sort_unstable();
        for (_, _, name) in by_quiet {
            if self.meters.len() <= entries_max && self.meters_bytes <= self.bytes_max {
                break;
            }
            let meter = self.meters.remove(&name).expect("listed from the table");
            self.meters_bytes -= meter.bytes(&name);
            self.evictions = self.evictions.saturating_add(1);
        }
    }
}

/// Counts per minute, in the order of the series. Records of a longer interval than a pane stand for all of it.
fn per_minute(
    [received, sent]: &[FlowCounts; 2],
    span_seconds: u32,
    pane_seconds: i64,
) -> [f64; SERIES] {
    let seconds = i64::from(span_seconds.min(600)).max(pane_seconds) as f64;
    let of = |counts: &FlowCounts| {
        [counts.bytes as f64, counts.packets as f64, f64::from(counts.flows)]
            .map(|count| count * 60.0 / seconds)
    };
    let sides = [of(received), of(sent)];
    std::array::from_fn(|series| sides[series / METRICS.len()][series % METRICS.len()])
}

/// The series of a direction that are unusual, if enough is known of the days before.
fn odds(
    settings: &TrafficAnomalySettings,
    meter: &Meter,
    way: Way,
    now: &Now,
    floors: &[f64; SERIES],
    view: &PaneView<'_>,
) -> Vec<Odd> {
    let (days, usual) = meter.past.usual();
    let days_min =
        if way.is_drop { DROP_DAYS_MIN.max(settings.days_min) } else { settings.days_min };
    let since_skip = view.end().0.saturating_sub(meter.last_skip.0);
    if days < days_min || (way.is_drop && since_skip <= AFTER_SKIPDATA_SECONDS) {
        return Vec::new();
    }
    let z_min = f64::from(settings.z_min);
    way.series()
        .filter_map(|series| odd(way, series, now, &usual[series], floors[series], z_min))
        .collect()
}

fn report(
    episodes: &mut Episodes<(u64, u8)>,
    settings: &TrafficAnomalySettings,
    meter: &Meter,
    way: Way,
    odds: &[Odd],
    interface: &InterfacePane,
    view: &PaneView<'_>,
) -> Option<Finding> {
    let most = odds.iter().copied().max_by(|one, other| one.z.total_cmp(&other.z))?;
    let since = meter.lasting[usize::from(way.number())].1;
    let last_seen = interface.tally.last_end.max(since);
    // Rises are reported again when they have doubled; a drop has a floor.
    let size = if way.is_drop { 1 } else { whole(most.per_minute.max(1.0)) };
    let sighting = Sighting { first_seen: since, last_seen, size };
    let report = episodes.note((meter.serial, way.number()), sighting)?;
    let name = &interface.name;
    let draft = || {
        let unit = METRICS[most.series % METRICS.len()];
        let verb = if way.is_sent { "sent" } else { "received" };
        let tenths = |z: f64| whole(z.clamp(0.0, 1e9) * 10.0);
        let mut evidence = BTreeMap::from([
            ("metric", Evidence::Word(unit)),
            ("robust_z", Evidence::Number(rounded(most.z))),
            ("z_min", Evidence::Count(settings.z_min.into())),
            ("days", Evidence::Count(meter.past.usual().0.into())),
        ]);
        const NAMES: [[&str; 2]; 3] = [
            ["bytes_per_minute", "usual_bytes_per_minute"],
            ["packets_per_minute", "usual_packets_per_minute"],
            ["flows_per_minute", "usual_flows_per_minute"],
        ];
        for odd in odds {
            let [now, usual] = NAMES[odd.series % METRICS.len()];
            evidence.insert(now, Evidence::Number(rounded(odd.per_minute)));
            evidence.insert(usual, Evidence::Number(rounded(odd.usual)));
        }
        InterfaceDraft {
            variant: way.variant(),
            severity: if way.is_drop { Severity::Low } else { Severity::Medium },
            confidence: confidence(
                tenths(most.z).max(u64::from(settings.z_min) * 10),
                u64::from(settings.z_min) * 10,
            ),
            title: format!(
                "{name} {verb} {:.0} {unit} a minute, where {:.0} are usual at this hour",
                most.per_minute, most.usual
            ),
            identity: vec![name],
            interfaces: vec![(name, &interface.place)],
            start: report.start,
            actor: meter.own.filter(|_| way.is_sent),
            target: meter.own.filter(|_| !way.is_sent),
            first_seen: report.start,
            last_seen,
            window_seconds: settings.lasting_seconds,
            evidence,
            exact: true,
        }
    };
    Some(finding(FindingKind::TrafficAnomaly, report.revision, view, draft))
}

/// A number that isn't negative, without what is behind the point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of such a number goes to the nearest that there is"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Detector for TrafficAnomaly {
    fn name(&self) -> &'static str {
        "traffic_anomaly"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let first = out.len();
        for interface in view.interfaces {
            self.on_interface(interface, view, out);
        }
        out[first..].sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
        self.episodes.end_pane(view.end());
        self.forget(view);
    }

    fn evictions(&self) -> u64 {
        self.evictions.saturating_add(self.episodes.evictions())
    }

    fn bytes(&self) -> usize {
        self.meters_bytes + self.episodes.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.next_serial);
        out.u64(self.evictions);
        self.meters.save(out);
        self.episodes.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("unusual traffic", 1..=1)?;
        self.next_serial = from.u64()?;
        self.evictions = from.u64()?;
        self.meters = BTreeMap::load(from)?;
        self.meters_bytes = self.meters.iter().map(|(name, meter)| meter.bytes(name)).sum();
        self.episodes = self.episodes.load(from)?;
        Ok(())
    }
}
