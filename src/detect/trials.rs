//! One detector several times, with other settings each, side by side over the same panes: what `tune` asks.
//!
//! Panes are put together and judged once. Nothing is told: findings are counted after noise control, without a
//! limit an hour, and so are those who did it. Detectors that tell others what they know run beside the trials once.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::detector::Detector;
use super::known::Known;
use super::pane::PaneView;
use super::suppress::Suppressor;
use super::{DetectSettings, Network, paced};
use crate::finding::{Finding, FindingKind};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Addresses that are told apart among the actors of a trial.
const ACTORS_MAX: usize = 10_000;

/// What is to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialPlan {
    /// Of which detector.
    pub kind: FindingKind,
    /// Under which settings, in which its detector is on.
    pub settings: Vec<DetectSettings>,
}

/// What a trial would have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialOutcome {
    /// Findings.
    pub findings: u64,
    /// Further revisions of them.
    pub updates: u64,
    /// Who did it: distinct addresses, `None` if they are more than are told apart.
    pub actors: Option<u64>,
    /// What noise control left out.
    pub suppressed: u64,
    /// Entries that left tables because those were full: then it may be too few.
    pub evictions: u64,
}

#[derive(Debug)]
struct Trial {
    suppressor: Suppressor,
    findings: u64,
    updates: u64,
    actors: BTreeSet<Addr>,
    found: Vec<Finding>,
}

/// Trials of as many detectors.
#[derive(Debug)]
pub(super) struct Trials {
    list: Vec<Trial>,
    /// The other detectors that tell each other what they know of a pane, which all trials are told.
    telling: Vec<Box<dyn Detector>>,
    known: Known,
    /// What those say, which is not told.
    untold: Vec<Finding>,
}

/// The detectors that others hear of ([`Detector::prepare`]).
const TELLING: [FindingKind; 3] =
    [FindingKind::DistributedScan, FindingKind::SshBruteforce, FindingKind::RdpBruteforce];

impl TrialPlan {
    /// A detector for each trial, whose tables take at most `bytes_max` together, and where their findings go.
    pub(super) fn build(
        &self,
        network: &Network,
        bytes_max: usize,
    ) -> (Vec<Box<dyn Detector>>, Trials) {
        let share = bytes_max / (self.settings.len() + 1);
        let detector = |settings: &DetectSettings| {
            let mut detectors = paced(settings, share).into_iter();
            let detector = detectors.find(|detector| detector.name() == self.kind.name());
            detector.expect("every kind that can be tried has a detector of its name")
        };
        let trial = |settings: &DetectSettings| {
            let mut noise = settings.noise.clone();
            noise.findings_per_hour_max = 0;
            noise.kinds.values_mut().for_each(|of_kind| of_kind.findings_per_hour_max = None);
            Trial {
                suppressor: Suppressor::new(noise, network.allowances.clone()),
                findings: 0,
                updates: 0,
                actors: BTreeSet::new(),
                found: Vec::new(),
            }
        };
        let list = self.settings.iter().map(trial).collect();
        let mut telling = Vec::new();
        if let Some(settings) = self.settings.first() {
            let others = || TELLING.iter().filter(|kind| **kind != self.kind);
            telling = paced(settings, share);
            telling.retain(|detector| {
                detector.is_on() && others().any(|kind| kind.name() == detector.name())
            });
        }
        let (known, untold) = (Known::default(), Vec::new());
        (self.settings.iter().map(detector).collect(), Trials { list, telling, known, untold })
    }
}

impl Trials {
    /// Lets every detector judge a pane, and counts what each says.
    pub(super) fn on_pane(
        &mut self,
        detectors: &mut [&mut Box<dyn Detector>],
        view: &PaneView<'_>,
        start: UnixSeconds,
    ) {
        let Self { list, telling, known, untold } = self;
        assert_eq!(detectors.len(), list.len(), "a detector a trial, and all of them on");
        known.clear();
        telling.iter_mut().for_each(|detector| detector.prepare(view, known));
        list.par_iter_mut().zip(detectors).for_each(|(trial, detector)| {
            let mut known = known.clone();
            detector.prepare(view, &mut known);
            known.sort();
            let view = &PaneView { known: &known, ..*view };
            detector.on_pane(view, &mut trial.found);
            trial.count(start, view.detected_at);
        });
        telling.iter_mut().for_each(|detector| detector.on_pane(view, untold));
        untold.clear();
    }

    /// What each trial has told so far.
    pub(super) fn outcomes(&self, detectors: &[Box<dyn Detector>]) -> Vec<TrialOutcome> {
        let outcome = |trial: &Trial, detector: &dyn Detector| TrialOutcome {
            findings: trial.findings,
            updates: trial.updates,
            actors: Some(trial.actors.len() as u64).filter(|count| *count <= ACTORS_MAX as u64),
            suppressed: trial.suppressor.counts().total(),
            evictions: detector.evictions(),
        };
        let pairs = self.list.iter().zip(detectors);
        pairs.map(|(trial, detector)| outcome(trial, &**detector)).collect()
    }
}

impl Trial {
    fn count(&mut self, start: UnixSeconds, detected_at: UnixSeconds) {
        let told = self.suppressor.begin_pane(start, detected_at);
        self.suppressor.pass(&mut self.found, told, detected_at);
        for finding in self.found.drain(..) {
            if finding.revision == 0 {
                self.findings += 1;
            } else {
                self.updates += 1;
            }
            // One more than are told apart says that there are more.
            let room = (ACTORS_MAX + 1).saturating_sub(self.actors.len());
            self.actors.extend(finding.actor.addrs.into_iter().take(room));
        }
    }
}
