//! The stages of a run: made anew, or as a snapshot has them.
//!
//! A snapshot says with which seed its tables hash, which a run that goes on from it takes over, and how many
//! shards it has. If there are to be more or fewer, each new shard takes those keys out of all saved ones
//! that it owns now. All of it is read before anything starts, so that a snapshot that turns out to be of no
//! use leaves the choice of the one before.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::deliver::FindingCounts;
use super::job::Detectors;
use super::judge::{Judge, Panes};
use super::memory::MemoryPlan;
use super::message::PartName;
use super::parse_stage::{ParseSettings, ParseStage};
use super::partial::PartialJob;
use super::sequence::Sequencer;
use super::state::{StateShard, Tables};
use crate::aggregate::{
    ContactTable, FlowSizes, Heir, PaneContacts, Router, ShardTalkers, TalkerPlan, TalkerWindows,
    TimeSettings, TopSet, TopSpec, pair_owner,
};
use crate::checkpoint::{JournalMark, RefusalReason, Snapshot};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::detect::DetectorSet;
use crate::record::{Parser, Slot};

/// What must be known before any table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunHeader {
    /// Of every hash table and of the routing of rows.
    pub(super) seed: u64,
    pub(super) shard_count: usize,
}

impl RunHeader {
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.seed);
        out.u64(self.shard_count as u64);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("run", 1..=1)?;
        let seed = from.u64()?;
        let shard_count = usize::try_from(from.u64()?).unwrap_or(usize::MAX);
        if (1..=super::SHARDS_MAX).contains(&shard_count) {
            Ok(Self { seed, shard_count })
        } else {
            Err(DecodeError::Invalid("number of shards"))
        }
    }
}

/// What detectors of a run have in common, whatever they look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct DetectorMaker {
    pub(super) pane_seconds: i64,
    /// Limit of their memory.
    pub(super) bytes_max: usize,
    /// Whether findings are only counted.
    pub(super) counts_only: bool,
}

impl DetectorMaker {
    /// Detectors without memory.
    pub(super) fn make(&self, detectors: &Detectors) -> DetectorSet {
        let Detectors { settings, network, trials } = detectors;
        let detectors = DetectorSet::new(settings, network.clone(), self.pane_seconds);
        let is_counted = self.counts_only && trials.is_none();
        let detectors = if is_counted { detectors.for_counts() } else { detectors };
        match trials {
            None => detectors.with_bytes_max(self.bytes_max),
            Some(trials) => detectors.trying(trials, self.bytes_max),
        }
    }
}

/// What the stages of a run are made of.
pub(super) struct Assembly {
    pub(super) tops: Arc<[TopSpec]>,
    /// Of windows; if there are any.
    pub(super) talkers: Option<Arc<TalkerPlan>>,
    pub(super) detectors: Option<Detectors>,
    pub(super) maker: DetectorMaker,
    pub(super) memory: MemoryPlan,
    pub(super) time: TimeSettings,
    pub(super) expected_inputs: usize,
    /// By the monotonic clock.
    pub(super) now: Duration,
    /// Parse settings but for the router.
    pub(super) new_parse: Box<dyn Fn(Router) -> ParseSettings>,
    pub(super) new_parser: Arc<dyn Fn() -> Parser + Send + Sync>,
}

/// The stages that have state.
pub(super) struct Assembled {
    pub(super) header: RunHeader,
    pub(super) parse: ParseSettings,
    pub(super) sequencer: Sequencer,
    pub(super) shards: Vec<StateShard>,
    pub(super) judge: Judge,
    pub(super) counts: FindingCounts,
    pub(super) journal_mark: Option<JournalMark>,
}

impl Assembly {
    /// Stages without a past.
    pub(super) fn fresh(&self, header: RunHeader) -> Assembled {
        let RunHeader { seed, shard_count } = header;
        let router = Router::new(&self.tops, self.detectors.is_some(), shard_count, seed);
        let parse = (self.new_parse)(router);
        let reparser = ParseStage::new(parse.clone(), (self.new_parser)());
        let memory = self.memory.per_shard(shard_count);
        let has_detectors = self.detectors.is_some();
        let talkers = || self.talkers.as_ref().map(Arc::clone);
        let shard = |index| {
            let new_contacts =
                || ContactTable::new(self.maker.pane_seconds, seed, memory.contacts_bytes);
            let tables = Tables {
                tops: TopSet::new(&self.tops, seed, memory.tops_bytes),
                contacts: has_detectors.then(new_contacts),
                talkers: talkers().map(|plan| ShardTalkers::new(plan, seed, memory.talkers_bytes)),
                sizes: (has_detectors || !self.tops.is_empty()).then(FlowSizes::default),
            };
            StateShard::new(index, tables)
        };
        Assembled {
            header,
            parse,
            sequencer: Sequencer::new(reparser, self.time, self.expected_inputs),
            shards: (0..shard_count).map(shard).collect(),
            judge: Judge::new(
                self.detectors.as_ref().map_or(Panes::Dropped, |detectors| {
                    Panes::Judged(Box::new(self.maker.make(detectors)))
                }),
                talkers().map(|plan| TalkerWindows::new(plan, seed, self.memory.talkers_bytes)),
                self.maker,
                shard_count,
            ),
            counts: FindingCounts::default(),
            journal_mark: None,
        }
    }

    /// The stages as a snapshot has them, with `shard_count` shards.
    ///
    /// # Errors
    /// If a part is missing or is not what its stage can be made of.
    pub(super) fn restored(
        &self,
        snapshot: &Snapshot,
        shard_count: usize,
    ) -> Result<Assembled, RefusalReason> {
        let name = PartName::Inputs.text();
        let inputs = snapshot.bytes(&name)?;
        let mut from = Decoder::new(&inputs);
        let unusable = |error| RefusalReason::Part { name: name.clone(), error };
        let saved = RunHeader::load(&mut from).map_err(unusable)?;
        let mut stages = self.fresh(RunHeader { shard_count, ..saved });
        let reparser = ParseStage::new(stages.parse.clone(), (self.new_parser)());
        stages.sequencer =
            Sequencer::load(reparser, self.time, self.expected_inputs, self.now, &mut from)
                .and_then(|sequencer| from.finish().map(|()| sequencer))
                .map_err(unusable)?;
        let mut open_from = None;
        for index in 0..saved.shard_count {
            let tables = self.saved_shard(snapshot, index, saved)?;
            let of_this = tables.contacts.as_ref().map(ContactTable::open_from);
            if *open_from.get_or_insert(of_this) != of_this {
                let name = PartName::Shard(index).text();
                return Err(RefusalReason::Part {
                    name,
                    error: DecodeError::Invalid("open panes"),
                });
            }
            if shard_count == saved.shard_count {
                stages.shards[index] = StateShard::new(index, tables);
            } else {
                deal_out(tables, saved.seed, &mut stages.shards);
            }
        }
        snapshot.decode(&PartName::Judge.text(), |from| {
            let detectors = from.option(|from| {
                let detectors = self.detectors.as_ref();
                let detectors = detectors.ok_or(DecodeError::Invalid("detectors"))?;
                self.maker.make(detectors).load(from, PaneContacts::load)
            })?;
            stages.judge.load(detectors, from)
        })?;
        (stages.counts, stages.journal_mark) = snapshot
            .decode(&PartName::Delivery.text(), |from| {
                Ok((FindingCounts::load(from)?, Some(JournalMark::load(from)?)))
            })?;
        Ok(stages)
    }

    /// The tables of a shard as they were saved.
    fn saved_shard(
        &self,
        snapshot: &Snapshot,
        index: usize,
        header: RunHeader,
    ) -> Result<Tables, RefusalReason> {
        let memory = self.memory.per_shard(header.shard_count);
        let pane_seconds = self.maker.pane_seconds;
        snapshot.decode(&PartName::Shard(index).text(), |from| {
            let tops = TopSet::load(&self.tops, memory.tops_bytes, from)?;
            let load = |from: &mut _| ContactTable::load(pane_seconds, memory.contacts_bytes, from);
            let contacts = from.option(load)?;
            let has_seed = contacts.as_ref().is_none_or(|contacts| contacts.seed() == header.seed);
            if contacts.is_some() != self.detectors.is_some() || !has_seed {
                return Err(DecodeError::Invalid("contacts"));
            }
            let new = |plan: &Arc<TalkerPlan>| {
                ShardTalkers::new(Arc::clone(plan), header.seed, memory.talkers_bytes)
            };
            let sizes =
                (self.detectors.is_some() || !self.tops.is_empty()).then(FlowSizes::default);
            let talkers = self.talkers.as_ref().map(new);
            let mut tables = Tables { tops, contacts, talkers, sizes };
            tables.load_rest(from, |from| {
                let plan = self.talkers.as_ref().ok_or(DecodeError::Invalid("talkers"))?;
                ShardTalkers::load(Arc::clone(plan), header.seed, memory.talkers_bytes, from)
            })?;
            Ok(tables)
        })
    }

    /// What partials of this job say about it.
    pub(super) fn partial_job(&self) -> PartialJob {
        PartialJob {
            pane_seconds: self.maker.pane_seconds,
            with_contacts: self.detectors.is_some(),
            tops: self.tops.to_vec(),
        }
    }

    /// What tells this job from others whose state would not fit: the questions, the length of panes, and whether
    /// there are detectors. Thresholds may change between two runs.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        };
        part("flowgauge job 1");
        part(&format!("{} {}", self.maker.pane_seconds, self.detectors.is_some()));
        for top in self.tops.iter() {
            let by: Vec<&str> = top.by.iter().map(Slot::name).collect();
            part(&format!("{} {} {:?}", by.join(","), top.metric.name(), top.window_seconds));
        }
        for talkers in self.talkers.iter().flat_map(|plan| plan.specs()) {
            let by: Vec<&str> = talkers.top.by.iter().map(Slot::name).collect();
            let metric = talkers.top.metric.name();
            part(&format!("talkers {} {metric} {}", by.join(","), talkers.window_seconds));
        }
        let digest = hash.finalize();
        u128::from_le_bytes(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// Deals the keys of a shard of another division out to those that own them now.
fn deal_out(tables: Tables, router_seed: u64, shards: &mut [StateShard]) {
    let Tables { tops, contacts, talkers, sizes } = tables;
    let shard_count = shards.len();
    let panes = contacts.map(|contacts| (contacts.open_from(), contacts.into_open_panes()));
    for (index, shard) in shards.iter_mut().enumerate() {
        let is_first = index == 0;
        let heir = Heir { shard: index, shard_count, router_seed, takes_shared: is_first };
        let own = shard.tables_mut();
        own.tops.absorb_owned(&tops, &heir);
        if is_first {
            // Any shard may have their keys.
            own.talkers.iter_mut().zip(&talkers).for_each(|(own, saved)| own.absorb(saved));
            own.sizes.iter_mut().zip(&sizes).for_each(|(own, saved)| *own += saved);
        }
        let own_contacts = own.contacts.as_mut();
        let (Some(own), Some((open_from, panes))) = (own_contacts, &panes) else { continue };
        own.open_only_from(*open_from);
        for pane in panes {
            own.absorb(pane, is_first, |key| {
                pair_owner(key.client, key.server, shard_count, router_seed) == index
            });
        }
    }
}
