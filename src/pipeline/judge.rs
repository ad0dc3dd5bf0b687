//! The judge: puts the shards' panes together, asks the detectors, and makes the tops of windows.
//!
//! Every shard reports how far it has closed its panes. A pane is judged when all shards have closed it,
//! in pane order, so that findings depend neither on the number of shards nor on who was faster. At a
//! barrier the judge waits for all shards' too, and holds back what a shard sends after its own; so what it
//! saves has seen exactly what their saved states have sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::assembly::DetectorMaker;
use super::job::{Detectors, TalkersReport};
use super::message::{Ending, Epoch, PartName, SavedPart, ShardPanes, ToDeliver, ToJudge};
use super::partial::PartialExport;
use crate::aggregate::{PaneContacts, PaneTalkers, TalkerWindow, TalkerWindows};
use crate::checkpoint::CheckpointError;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::detect::{DetectorSet, Suppressed, TrialOutcome};
use crate::finding::Finding;
use crate::units::{PaneIndex, UnixSeconds};

/// What the judge gives.
pub(super) enum Judged {
    ToDeliver(ToDeliver),
    Saved(SavedPart),
}

/// What becomes of complete panes.
pub(super) enum Panes {
    /// Nobody asked for findings.
    Dropped,
    Judged(Box<DetectorSet>),
    /// They are put together with those of other processes, and judged then.
    Exported(PartialExport),
}

/// Aligns shards and runs detectors.
pub(super) struct Judge {
    panes: Panes,
    maker: DetectorMaker,
    /// Why panes could not be exported.
    failure: Option<CheckpointError>,
    /// How far each shard has come.
    watermarks: Vec<UnixSeconds>,
    waiting: BTreeMap<PaneIndex, WaitingPane>,
    /// Makes windows of panes, if somebody asks for their tops.
    talkers: Option<TalkerWindows>,
    /// When the chunk came in that moved the last watermark.
    arrived: Option<Duration>,
    /// The barrier that some shards have sent.
    barrier: Option<Alignment>,
    ended_shards: usize,
    /// Segments that the last save took.
    saved_segments: usize,
}

/// What the shards that have closed a pane have sent of it.
#[derive(Default)]
struct WaitingPane {
    contacts: Vec<PaneContacts>,
    talkers: Vec<PaneTalkers>,
}

/// What complete panes gave.
#[derive(Default)]
pub(super) struct Given {
    pub(super) findings: Vec<Finding>,
    pub(super) windows: Vec<TalkerWindow>,
}

/// A barrier on its way through the shards.
struct Alignment {
    epoch: Epoch,
    has_sent: Vec<bool>,
    /// What came after it.
    held: VecDeque<ToJudge>,
}

impl ToJudge {
    const fn shard_index(&self) -> Option<usize> {
        match self {
            Self::Panes(panes) => Some(panes.shard_index),
            Self::Barrier { shard_index, .. } => Some(*shard_index),
            Self::Detectors(_) => Some(0),
            Self::End(_) => None,
        }
    }
}

impl Judge {
    pub(super) fn new(
        panes: Panes,
        talkers: Option<TalkerWindows>,
        maker: DetectorMaker,
        shard_count: usize,
    ) -> Self {
        Self {
            panes,
            maker,
            failure: None,
            watermarks: vec![UnixSeconds::MIN; shard_count],
            waiting: BTreeMap::new(),
            talkers,
            arrived: None,
            barrier: None,
            ended_shards: 0,
            saved_segments: 0,
        }
    }

    /// Writes panes instead of judging them.
    pub(super) fn export(&mut self, partial: PartialExport) {
        self.panes = Panes::Exported(partial);
    }

    /// Takes a message of a shard. `spares` gives memory for what is saved at a barrier.
    pub(super) fn take(
        &mut self,
        message: ToJudge,
        spares: &mut dyn FnMut(usize) -> Vec<Vec<u8>>,
        out: &mut dyn FnMut(Judged),
    ) {
        let mut messages = VecDeque::from([message]);
        while let Some(message) = messages.pop_front() {
            if let Some(barrier) = &mut self.barrier
                && message.shard_index().is_none_or(|index| barrier.has_sent[index])
            {
                barrier.held.push_back(message);
                continue;
            }
            match message {
                ToJudge::Panes(panes) => self.panes(panes, out),
                ToJudge::Barrier { shard_index, epoch } => {
                    if let Some(held) = self.barrier_of(shard_index, epoch, spares, out) {
                        messages.extend(held);
                    }
                }
                ToJudge::Detectors(detectors) => self.change(&detectors),
                ToJudge::End(ending) => self.end(ending, out),
            }
        }
    }

    /// Takes panes of a shard and appends what every pane gives that this completes.
    pub(super) fn accept(&mut self, shard: ShardPanes, given: &mut Given) {
        if matches!(self.panes, Panes::Dropped) && self.talkers.is_none() {
            return;
        }
        for contacts in shard.panes {
            self.waiting.entry(contacts.pane).or_default().contacts.push(contacts);
        }
        for talkers in shard.talkers {
            self.waiting.entry(talkers.pane).or_default().talkers.push(talkers);
        }
        self.watermarks[shard.shard_index] = shard.watermark;
        let complete_until = self.watermarks.iter().copied().min().expect("there is a shard");
        while let Some(entry) = self.waiting.first_entry() {
            let pane = *entry.key();
            if pane.end(self.maker.pane_seconds) > complete_until {
                break;
            }
            let WaitingPane { contacts, talkers } = entry.remove();
            if let Some(windows) = &mut self.talkers {
                windows.on_pane(talkers, &mut given.windows);
            }
            match &mut self.panes {
                Panes::Judged(detectors) if !contacts.is_empty() => {
                    detectors.on_pane(pane, contacts, &mut given.findings);
                }
                Panes::Exported(partial) if self.failure.is_none() => {
                    self.failure = partial.pane(pane, &contacts).err();
                }
                Panes::Dropped | Panes::Exported(_) | Panes::Judged(_) => {}
            }
        }
    }

    /// Appends what the detectors have left to say at the end of the stream.
    pub(super) fn finish(&mut self, findings: &mut Vec<Finding>) {
        assert!(self.waiting.is_empty(), "every shard closed all its panes");
        if let Panes::Judged(detectors) = &mut self.panes {
            detectors.on_end(findings);
        }
    }

    /// Takes up the state as it was saved, with the detectors that were saved before it.
    ///
    /// # Errors
    /// If the bytes are not a judge's.
    pub(super) fn load(
        &mut self,
        detectors: Option<DetectorSet>,
        from: &mut Decoder<'_>,
    ) -> Result<(), DecodeError> {
        self.panes = match (&self.panes, detectors) {
            (Panes::Dropped, None) => Panes::Dropped,
            (Panes::Judged(_), Some(detectors)) => Panes::Judged(Box::new(detectors)),
            _ => return Err(DecodeError::Invalid("detectors")),
        };
        let form = from.version("judge", 1..=2)?;
        // At a barrier all shards have closed the same panes; there may be more or fewer of them now.
        let watermarks = from.plain::<i64>()?;
        let watermark = watermarks.iter().copied().min();
        let watermark = watermark.ok_or(DecodeError::Invalid("number of shards"))?;
        self.watermarks.fill(UnixSeconds(watermark));
        for _ in 0..from.count(1)? {
            let contacts = PaneContacts::load(from)?;
            self.waiting.entry(contacts.pane).or_default().contacts.push(contacts);
        }
        let Some(windows) = self.talkers.take() else {
            return match form {
                1 => Ok(()),
                _ => from.option(|_| Err(DecodeError::Invalid("talkers"))).map(|_: Option<()>| ()),
            };
        };
        let (plan, seed, bytes_max) = windows.parts();
        let load = |from: &mut Decoder<'_>| {
            for _ in 0..from.count(1)? {
                let talkers = PaneTalkers::load(&plan, bytes_max, from)?;
                self.waiting.entry(talkers.pane).or_default().talkers.push(talkers);
            }
            TalkerWindows::load(Arc::clone(&plan), seed, bytes_max, from)
        };
        let loaded = if form == 1 { None } else { from.option(load)? };
        self.talkers = Some(loaded.ok_or(DecodeError::Invalid("talkers"))?);
        Ok(())
    }

    /// What detectors found and was not told, and what trials would have told.
    pub(super) fn left_out(&self) -> (Suppressed, Vec<TrialOutcome>) {
        match &self.panes {
            Panes::Judged(detectors) => {
                (detectors.suppressed().clone(), detectors.trial_outcomes())
            }
            Panes::Dropped | Panes::Exported(_) => Default::default(),
        }
    }

    /// How many revisions of findings were not told.
    pub(super) fn suppressed_count(&self) -> u64 {
        match &self.panes {
            Panes::Judged(detectors) => detectors.suppressed().total(),
            Panes::Dropped | Panes::Exported(_) => 0,
        }
    }

    /// What was to be exported, or why it could not be.
    ///
    /// # Errors
    /// If a pane could not be written.
    pub(super) fn into_export(self) -> Result<Option<PartialExport>, CheckpointError> {
        match (self.failure, self.panes) {
            (Some(failure), _) => Err(failure),
            (None, Panes::Exported(partial)) => Ok(Some(partial)),
            (None, Panes::Dropped | Panes::Judged(_)) => Ok(None),
        }
    }

    /// The windows that were given so far and the last ones.
    pub(super) fn talkers(&self) -> TalkersReport {
        let mut last = Vec::new();
        let given = self.talkers.as_ref().map_or(0, |talkers| {
            talkers.windows(&mut last);
            talkers.given()
        });
        TalkersReport { windows: given, last }
    }

    /// Whether panes cannot be exported, after which the run must stop.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    fn save(&self, epoch: Epoch, spares: Vec<Vec<u8>>) -> SavedPart {
        let mut saved = Encoder::with_spares(spares);
        let detectors = match &self.panes {
            Panes::Judged(detectors) => Some(detectors),
            Panes::Dropped | Panes::Exported(_) => None,
        };
        saved.option(detectors, |saved, detectors| {
            detectors.save(saved, PaneContacts::save);
        });
        saved.version(2);
        let watermarks: Vec<i64> = self.watermarks.iter().map(|watermark| watermark.0).collect();
        saved.plain(&watermarks);
        let contacts = || self.waiting.values().flat_map(|waiting| &waiting.contacts);
        saved.count(contacts().count());
        contacts().for_each(|contacts| contacts.save(&mut saved));
        saved.option(self.talkers.as_ref(), |saved, windows| {
            let talkers = || self.waiting.values().flat_map(|waiting| &waiting.talkers);
            saved.count(talkers().count());
            talkers().for_each(|talkers| talkers.save(saved));
            windows.save(saved);
        });
        SavedPart::new(epoch, PartName::Judge, saved)
    }

    /// Goes on with other settings; what is remembered stays.
    fn change(&mut self, detectors: &Detectors) {
        let Panes::Judged(old) = &mut self.panes else { return };
        if *old.settings() == detectors.settings {
            old.set_network(detectors.network.clone());
            return;
        }
        let mut saved = Encoder::default();
        old.save(&mut saved, PaneContacts::save);
        let saved = saved.into_bytes();
        let new = self.maker.make(detectors);
        match new.load(&mut Decoder::new(&saved), PaneContacts::load) {
            Ok(new) => **old = new,
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "detectors keep their settings"
            ),
        }
    }

    fn panes(&mut self, panes: ShardPanes, out: &mut dyn FnMut(Judged)) {
        self.arrived = panes.arrived.or(self.arrived);
        let mut given = Given::default();
        self.accept(panes, &mut given);
        if !given.windows.is_empty() {
            out(Judged::ToDeliver(ToDeliver::Talkers(given.windows)));
        }
        self.give(given.findings, out);
    }

    fn give(&self, findings: Vec<Finding>, out: &mut dyn FnMut(Judged)) {
        if !findings.is_empty() {
            let arrived = self.arrived;
            out(Judged::ToDeliver(ToDeliver::Findings { findings, arrived }));
        }
    }

    /// Notes a shard's barrier; what was held back, if it was the last one.
    fn barrier_of(
        &mut self,
        shard_index: usize,
        epoch: Epoch,
        spares: &mut dyn FnMut(usize) -> Vec<Vec<u8>>,
        out: &mut dyn FnMut(Judged),
    ) -> Option<VecDeque<ToJudge>> {
        let shard_count = self.watermarks.len();
        let barrier = self.barrier.get_or_insert_with(|| Alignment {
            epoch,
            has_sent: vec![false; shard_count],
            held: VecDeque::new(),
        });
        assert_eq!(barrier.epoch, epoch, "barriers keep their order in every channel");
        barrier.has_sent[shard_index] = true;
        if barrier.has_sent.contains(&false) {
            return None;
        }
        let held = self.barrier.take().map(|barrier| barrier.held);
        let saved = self.save(epoch, spares(self.saved_segments));
        self.saved_segments = saved.segments.len();
        out(Judged::Saved(saved));
        out(Judged::ToDeliver(ToDeliver::Barrier(epoch)));
        held
    }

    fn end(&mut self, ending: Ending, out: &mut dyn FnMut(Judged)) {
        self.ended_shards += 1;
        if ending == Ending::Close && self.ended_shards == self.watermarks.len() {
            let mut findings = Vec::new();
            self.finish(&mut findings);
            self.give(findings, out);
        }
    }
}
