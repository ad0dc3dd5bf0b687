//! Detectors: contacts on event-time windows in, findings out.
//!
//! ```text
//! PaneContacts of every shard ─► pane (merge) ─► outcome (judge, one pane behind) ─► detectors ─► Finding
//!                                                 └─ all contacts, judged or not ─► those that watch
//! ```
//!
//! One [`DetectorSet`] sees all shards' panes in order. A pane is judged when the one after it has been
//! merged, because an answer may come in the next pane. Every detector keeps its own sliding windows in
//! bounded tables, walks the contacts in the order of their keys, and knows no time but the records'; so
//! findings depend neither on the number of shards nor on the order of records within a pane. The
//! findings of a pane come detector by detector, in the order of `all`, and those of a detector in the
//! order of their actors.

mod amplification;
mod baseline;
mod beacon;
mod beacon_pair;
mod bruteforce;
mod capture_gap;
mod detector;
mod distinct;
mod distributed_scan;
mod doorkeeper;
mod dos_flood;
mod episode;
mod exfiltration;
mod flood_group;
mod host_sweep;
mod hourly;
#[cfg(test)]
mod interface_tests;
mod interfaces;
mod key_index;
mod known;
mod logger;
mod login_after_bruteforce;
mod network;
mod noise;
mod once;
mod once_list;
mod order;
mod outcome;
mod pairs;
mod pane;
mod population;
mod port_scan;
mod protocol_policy;
mod recent_tries;
mod regularity;
mod remote_access;
mod report;
mod saved;
#[cfg(test)]
mod scenarios;
mod seen_once;
mod settings;
mod sg_nacl_misconfig;
#[cfg(test)]
mod state_tests;
mod suppress;
mod suspicious_ip;
mod table_limits;
mod top_talker_change;
mod tracker;
mod traffic_anomaly;
mod trials;
mod unauthorized_protocol;

pub use amplification::AmplificationSettings;
pub use beacon::BeaconSettings;
pub use bruteforce::BruteforceSettings;
pub use capture_gap::CaptureGapSettings;
pub use distributed_scan::DistributedScanSettings;
pub use dos_flood::DosFloodSettings;
pub use exfiltration::ExfiltrationSettings;
pub use host_sweep::HostSweepSettings;
pub use login_after_bruteforce::LoginAfterBruteforceSettings;
pub use network::Network;
pub use noise::{KindNoise, NoiseSettings};
pub use port_scan::PortScanSettings;
pub use protocol_policy::{ProtocolPolicy, ProtocolRule, TooManyRules};
pub use remote_access::RemoteAccessSettings;
pub use settings::{DetectSettings, SettingsError};
pub use sg_nacl_misconfig::SgNaclMisconfigSettings;
pub use suppress::Suppressed;
pub use suspicious_ip::SuspiciousIpSettings;
pub use top_talker_change::TopTalkerChangeSettings;
pub use traffic_anomaly::TrafficAnomalySettings;
pub use trials::{TrialOutcome, TrialPlan};
pub use unauthorized_protocol::UnauthorizedProtocolSettings;

use crate::aggregate::PaneContacts;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Finding, FindingKind};
use crate::units::{PaneIndex, UnixSeconds};
use amplification::Amplification;
use beacon::Beacon;
use bruteforce::{Bruteforce, Login};
use capture_gap::CaptureGap;
use detector::Detector;
use distributed_scan::DistributedScan;
use dos_flood::DosFlood;
use exfiltration::Exfiltration;
use host_sweep::HostSweep;
use known::Known;
use login_after_bruteforce::LoginAfterBruteforce;
use outcome::Verdicts;
use pane::{Detail, MergedPane, PaneView};
use port_scan::PortScan;
use remote_access::RemoteAccess;
use sg_nacl_misconfig::SgNaclMisconfig;
use suppress::Suppressor;
use suspicious_ip::SuspiciousIp;
use top_talker_change::TopTalkerChange;
use traffic_anomaly::TrafficAnomaly;
use trials::Trials;
use unauthorized_protocol::UnauthorizedProtocol;

/// The detectors that state of the first form was saved of, in their order.
const FORM_1: [&str; 5] =
    ["port_scan", "host_sweep", "ssh_bruteforce", "rdp_bruteforce", "remote_access_attempt"];

/// All detectors, without memory, whose tables take at most `bytes_max` together. The first one costs most.
fn all(settings: &DetectSettings, bytes_max: usize) -> Vec<Box<dyn Detector>> {
    let share = |of_64: usize| bytes_max / 64 * of_64;
    let DetectSettings {
        port_scan,
        host_sweep,
        distributed_scan,
        ssh_bruteforce,
        rdp_bruteforce,
        login_after_bruteforce,
        remote_access_attempt,
        dos_flood,
        exfiltration,
        beacon,
        suspicious_ip,
        unauthorized_protocol,
        amplification,
        top_talker_change,
        sg_nacl_misconfig,
        traffic_anomaly,
        capture_gap,
        noise: _,
    } = settings.clone();
    vec![
        Box::new(PortScan::new(port_scan, share(18))),
        Box::new(HostSweep::new(host_sweep, share(18))),
        Box::new(DistributedScan::new(distributed_scan, share(3))),
        Box::new(Bruteforce::new(Login::Ssh, ssh_bruteforce, share(2))),
        Box::new(Bruteforce::new(Login::Rdp, rdp_bruteforce, share(2))),
        Box::new(LoginAfterBruteforce::new(login_after_bruteforce, share(1))),
        Box::new(RemoteAccess::new(remote_access_attempt, share(4))),
        Box::new(DosFlood::new(dos_flood, share(2))),
        Box::new(Exfiltration::new(exfiltration, share(2))),
        Box::new(Beacon::new(beacon, share(7) / 2)),
        Box::new(SuspiciousIp::new(suspicious_ip, share(2))),
        Box::new(UnauthorizedProtocol::new(unauthorized_protocol, share(1))),
        Box::new(Amplification::new(amplification, share(1))),
        Box::new(TopTalkerChange::new(top_talker_change, share(1))),
        Box::new(SgNaclMisconfig::new(sg_nacl_misconfig, share(1))),
        Box::new(TrafficAnomaly::new(traffic_anomaly, share(2))),
        Box::new(CaptureGap::new(capture_gap, share(1) / 2)),
    ]
}

/// All detectors, each with the pace at which it renews findings.
fn paced(settings: &DetectSettings, bytes_max: usize) -> Vec<Box<dyn Detector>> {
    let mut detectors = all(settings, bytes_max);
    for detector in &mut detectors {
        if let Some(kind) = FindingKind::from_name(detector.name()) {
            detector.renew_every(settings.noise.suppress_seconds(kind));
        }
    }
    detectors
}

impl DetectSettings {
    /// The names of the detectors that are on, in the order in which they find.
    #[must_use]
    pub fn enabled(&self) -> Vec<&'static str> {
        let detectors = all(self, 0);
        detectors
            .iter()
            .filter(|detector| detector.is_on())
            .map(|detector| detector.name())
            .collect()
    }
}

/// All detectors and the pane that waits for its successor.
#[derive(Debug)]
pub struct DetectorSet {
    settings: DetectSettings,
    pane_seconds: i64,
    network: Network,
    detectors: Vec<Box<dyn Detector>>,
    suppressor: Suppressor,
    /// Set if the detectors are all of one kind and nothing is told.
    trials: Option<Trials>,
    bytes_max: usize,
    waiting: Option<MergedPane>,
    verdicts: Verdicts,
    known: Known,
    /// Findings of a pane before they are put in order; kept for the memory, which costs more to get anew at each
    /// pane than the findings.
    later: Vec<Finding>,
    detail: Detail,
    newest_end: UnixSeconds,
    /// Up to this pane, windows may hold panes whose contact tables were full.
    inexact_until: PaneIndex,
}

impl DetectorSet {
    /// Detectors without memory, for panes of `pane_seconds`.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub fn new(settings: &DetectSettings, network: Network, pane_seconds: i64) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        Self {
            settings: settings.clone(),
            pane_seconds,
            suppressor: Suppressor::new(settings.noise.clone(), network.allowances.clone()),
            network,
            detectors: paced(settings, usize::MAX),
            trials: None,
            bytes_max: usize::MAX,
            waiting: None,
            verdicts: Verdicts::default(),
            known: Known::default(),
            later: Vec::new(),
            detail: Detail::Full,
            newest_end: UnixSeconds::MIN,
            inexact_until: PaneIndex(i64::MIN),
        }
    }

    /// The same detectors, whose findings will only be counted: they say their kind and revision, no more.
    #[must_use]
    pub const fn for_counts(mut self) -> Self {
        self.detail = Detail::Counts;
        self
    }

    /// The same detectors, without memory yet, whose tables take at most `bytes_max` together. `tracked_max`
    /// of the settings still bounds the entries of each.
    ///
    /// The contacts of the pane that waits for its successor are not counted, nor is what judging one takes
    /// ([`Self::scratch_bytes`]); both follow the limit of contacts.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { detectors: paced(&self.settings, bytes_max), bytes_max, ..self }
    }

    /// Detectors of one kind in place of all, which tell nothing and count; see [`Self::trial_outcomes`]. Their
    /// tables take at most `bytes_max` together. They can't be saved.
    #[must_use]
    pub fn trying(self, plan: &TrialPlan, bytes_max: usize) -> Self {
        let (detectors, trials) = plan.build(&self.network, bytes_max);
        Self { detectors, trials: Some(trials), bytes_max, ..self }
    }

    /// What would have been told under the settings of each trial; nothing without trials.
    #[must_use]
    pub fn trial_outcomes(&self) -> Vec<TrialOutcome> {
        self.trials.as_ref().map_or_else(Vec::new, |trials| trials.outcomes(&self.detectors))
    }

    /// Memory that the detectors' tables hold, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.detectors.iter().map(|detector| detector.bytes()).sum()
    }

    /// Memory kept for judging the next pane, in bytes: some 250 for each contact of the largest pane.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        let detectors = self.detectors.iter().map(|detector| detector.scratch_bytes());
        self.verdicts.bytes() + detectors.sum::<usize>()
    }

    /// What is looked for.
    #[must_use]
    pub const fn settings(&self) -> &DetectSettings {
        &self.settings
    }

    /// Goes on with what is known of the network now; costs nothing, whatever is remembered.
    pub fn set_network(&mut self, network: Network) {
        self.network = network;
    }

    /// The pane that waits for its successor.
    #[must_use]
    pub fn waiting_pane(&self) -> Option<PaneIndex> {
        self.waiting.as_ref().map(|waiting| waiting.pane)
    }

    /// Saves what the detectors remember, and the waiting pane, whose shards `save_shard` writes. Detectors
    /// that are off have nothing to save.
    pub fn save(&self, out: &mut Encoder, save_shard: impl Fn(&PaneContacts, &mut Encoder)) {
        out.version(3);
        out.i64(self.pane_seconds);
        out.i64(self.newest_end.0);
        out.i64(self.inexact_until.0);
        let on = || self.detectors.iter().filter(|detector| detector.is_on());
        out.count(on().count());
        for detector in on() {
            out.text(detector.name());
            detector.save(out);
        }
        self.suppressor.save(out);
        out.option(self.waiting.as_ref(), |out, waiting| waiting.save(out, save_shard));
    }

    /// Loads what [`Self::save`] wrote into detectors without memory, which may have other settings: what
    /// there is no room for any more leaves by the usual rules, thresholds apply to what is remembered, and
    /// detectors that were off then or are off now start empty. A shard of the waiting pane is read by
    /// `load_shard`.
    ///
    /// # Errors
    /// If the bytes are no such state, or panes had another length.
    pub fn load(
        mut self,
        from: &mut Decoder<'_>,
        load_shard: impl Fn(&mut Decoder<'_>) -> Result<PaneContacts, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let form = from.version("detectors", 1..=3)?;
        if from.i64()? != self.pane_seconds {
            return Err(DecodeError::Invalid("pane length, which must be that of the settings"));
        }
        self.newest_end = UnixSeconds(from.i64()?);
        self.inexact_until = PaneIndex(from.i64()?);
        if form == 1 {
            for name in FORM_1 {
                if from.bool()? {
                    self.load_detector(name, from)?;
                }
            }
        } else {
            for _ in 0..from.count(1)? {
                let name = from.text()?;
                self.load_detector(name, from)?;
            }
        }
        let empty = paced(&self.settings, self.bytes_max);
        for (detector, empty) in self.detectors.iter_mut().zip(empty) {
            if !detector.is_on() {
                *detector = empty;
            }
        }
        if form >= 3 {
            self.suppressor.load(from)?;
        }
        self.waiting = from.option(|from| MergedPane::load(self.pane_seconds, from, load_shard))?;
        Ok(self)
    }

    fn load_detector(&mut self, name: &str, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        let mut detectors = self.detectors.iter_mut();
        let detector = detectors.find(|detector| detector.name() == name);
        detector.ok_or(DecodeError::Invalid("name of a detector"))?.load(from)
    }

    /// Takes what all shards have of a pane (none is fine) and judges the pane before it.
    ///
    /// # Panics
    /// If panes come out of order, or with another length than promised.
    pub fn on_pane(&mut self, pane: PaneIndex, shards: Vec<PaneContacts>, out: &mut Vec<Finding>) {
        for shard in &shards {
            assert_eq!((shard.pane, shard.pane_seconds), (pane, self.pane_seconds));
        }
        let merged = MergedPane::merge(pane, shards);
        if let Some(newest_end) = merged.newest_end {
            self.newest_end = self.newest_end.max(newest_end);
        }
        if let Some(waiting) = self.waiting.take() {
            assert!(waiting.pane < pane, "panes come in order, each once");
            let next = (Some(pane.0) == waiting.pane.0.checked_add(1)).then_some(&merged);
            self.judge(&waiting, next, out);
        }
        self.waiting = Some(merged);
    }

    /// Judges the last pane: no more will come.
    pub fn on_end(&mut self, out: &mut Vec<Finding>) {
        if let Some(waiting) = self.waiting.take() {
            self.judge(&waiting, None, out);
        }
        self.suppressor.on_end(self.newest_end, out);
    }

    /// What noise control left out so far.
    #[must_use]
    pub const fn suppressed(&self) -> &Suppressed {
        self.suppressor.counts()
    }

    /// Entries that left tables because those were full, over all detectors.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.detectors.iter().map(|detector| detector.evictions()).sum()
    }

    fn judge(&mut self, pane: &MergedPane, next: Option<&MergedPane>, out: &mut Vec<Finding>) {
        if pane.refused_rows > 0 {
            let longest = settings::WINDOW_SECONDS_MAX / self.pane_seconds;
            self.inexact_until = PaneIndex(pane.pane.0.saturating_add(longest));
        }
        let start = pane.pane.start(self.pane_seconds);
        let told = self.suppressor.begin_pane(start, self.newest_end);
        let Self { detectors, network, known, trials, .. } = self;
        let mut detectors: Vec<&mut Box<dyn Detector>> =
            detectors.iter_mut().filter(|detector| detector.is_on()).collect();
        self.verdicts.judge(pane, next, |met| {
            for detector in detectors.iter_mut().filter(|detector| detector.watches()) {
                detector.watch(met, network);
            }
        });
        for (why, attempts) in network.exempt_attempts(&self.verdicts.tried) {
            self.suppressor.note_unjudged(why, attempts);
        }
        let interfaces = interfaces::interfaces(pane, network);
        let view = PaneView {
            interfaces: &interfaces,
            untallied_rows: pane.untallied_rows(),
            pane,
            tried: &self.verdicts.tried,
            pane_seconds: self.pane_seconds,
            detected_at: self.newest_end,
            network,
            known: &Known::default(),
            exact: pane.pane > self.inexact_until,
            detail: self.detail,
            suppressor: &self.suppressor,
        };
        if let Some(trials) = trials {
            trials.on_pane(&mut detectors, &view, start);
            return;
        }
        known.clear();
        for detector in &mut detectors {
            detector.prepare(&view, known);
        }
        known.sort();
        let view = PaneView { known, ..view };
        // The one that costs most beside the rest, where the caller's pool has threads; findings stay in order.
        let first_count = 1.min(detectors.len());
        let (first, others) = detectors.split_at_mut(first_count);
        let (mut found, rest) = (Vec::new(), &mut self.later);
        rayon::join(
            || first.iter_mut().for_each(|detector| detector.on_pane(&view, &mut found)),
            || others.iter_mut().for_each(|detector| detector.on_pane(&view, rest)),
        );
        found.append(rest);
        self.suppressor.pass(&mut found, told, self.newest_end);
        out.append(&mut found);
    }
}
