//! The one place where threads and channels are made: how the stages of a run are wired.
//!
//! ```text
//! source × n ─chunks─► parse × j ─parsed─► sequence ─routed─► shard × j ─panes─► judge ─findings─► deliver
//!                                              └──────── saved parts at a barrier ─┴───────────────┴─────► checkpoint
//! ```
//!
//! Every arrow is a bounded channel: full means wait, back to the source. A rayon pool of the
//! run's own has the answers of tops, the two detectors that cost most, and the members of large gzip files. All threads are named and joined;
//! a panic in one ends the run (`threads`). With one thread the same stages run in a loop on the calling
//! thread (`inline`). Batches that were read by all go back to the parse workers, whose
//! memory is used again.

mod channel;
mod inline;
mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::deliver::{Delivery, DeliveryReport};
use super::job::{Job, JobState, Latencies, RunError, RunReport};
use super::judge::Judge;
use super::memory::MemoryPlan;
use super::parse_stage::{ParseSettings, ParseStage, UsedBatch};
use super::restore::{Restored, RunHeader};
use super::sequence::{InputReport, Sequencer};
use super::sequence_stage::{Pacing, SequenceStage};
use super::snapshot::{SnapshotReport, Snapshots};
use super::state::StateShard;
use crate::aggregate::{ContactTable, Router, TopAnswer, TopSet, TopSpec};
use crate::checkpoint::Epoch;
use crate::clock::Clock;
use crate::codec::{DecodeError, Decoder};
use crate::metrics::{LatencyHistogram, Profile};
use crate::record::Parser;
use crate::source::{Source, StopFlag};

/// Batches on their way back to parse workers, per worker.
const USED_BATCHES_PER_WORKER: usize = 64;

/// Runs a job to its end: until its sources have no more, or were told to stop.
///
/// # Errors
/// If a source or a sink failed as a whole. Faults of single inputs are in the report.
pub fn run(job: Job) -> Result<RunReport, RunError> {
    let clock = Arc::clone(&job.clock);
    let started = clock.monotonic();
    let (sources, stages) = stages_of(job)?;
    let is_simple = stages.is_bounded && stages.snapshots.is_none();
    let outcome = if stages.thread_count == 1 && is_simple {
        inline::run(sources, stages)
    } else {
        threads::run(sources, stages)
    };
    let elapsed = clock.monotonic().saturating_sub(started);
    outcome.map(|report| RunReport { elapsed, ..report })
}

/// The parts of a job that the wiring needs, made from its settings.
struct Stages {
    thread_count: usize,
    is_bounded: bool,
    queue_depth: usize,
    stop: StopFlag,
    clock: Arc<dyn Clock>,
    parse: ParseSettings,
    new_parser: Box<dyn Fn() -> Parser + Send + Sync>,
    sequence: SequenceStage,
    shards: Vec<StateShard>,
    judge: Judge,
    delivery: Delivery,
    snapshots: Option<Snapshots>,
    tops: Arc<[TopSpec]>,
    used_out: Sender<UsedBatch>,
    progress: Box<dyn FnMut(u64) + Send>,
    merge_pool: Arc<ThreadPool>,
}

fn stages_of(job: Job) -> Result<(Vec<Box<dyn Source>>, Stages), RunError> {
    let wanted = job.columns();
    let (restored, state) = match job.state {
        Some(mut state) => (state.restored.take(), Some(state)),
        None => (None, None),
    };
    let (seed, shard_count) = restored
        .as_ref()
        .map_or((job.seed, job.thread_count), |restored| (restored.seed, restored.shards.len()));
    let with_contacts = job.detectors.is_some();
    let tops: Arc<[_]> = job.tops.into();
    let router = Router::new(&tops, with_contacts, shard_count, seed);
    let isa = job.isa;
    let (limits, filter) = (job.limits, job.filter.map(Arc::new));
    let (used_out, used_batches) = bounded(USED_BATCHES_PER_WORKER * job.thread_count);
    let clock = Arc::clone(&job.clock);
    let merge_pool = ThreadPoolBuilder::new()
        .num_threads(job.thread_count)
        .thread_name(|index| format!("merge-{index}"))
        .build()
        .expect("the system can start as many threads as there are cores");
    let merge_pool = Arc::new(merge_pool);
    let pool = (job.thread_count > 1).then(|| Arc::clone(&merge_pool));
    let parse = ParseSettings { isa, limits, filter, router, used_batches, clock, pool };
    let new_parser = move || Parser::new(isa, wanted.clone());
    let reparser = ParseStage::new(parse.clone(), new_parser());
    let mut sequencer = Sequencer::new(reparser, job.time, job.expected_inputs);
    let new = New { tops: &tops, with_contacts, pane_seconds: job.pane_seconds, memory: job.memory };
    let shards = match &restored {
        Some(restored) => new.restored_shards(restored)?,
        None => new.shards(shard_count, seed),
    };
    let detectors = job.detectors.map(|detectors| {
        let has_readers = state.is_some() || !job.sinks.is_empty();
        let detectors = if has_readers { detectors } else { detectors.for_counts() };
        detectors.with_bytes_max(job.memory.detectors_bytes)
    });
    let mut judge = Judge::new(detectors, job.pane_seconds, shard_count);
    let (journal, snapshots, pacing) = match state {
        Some(JobState { store, journal, interval, .. }) => {
            let next = restored.as_ref().map_or(Epoch::FIRST, |restored| restored.epoch.next());
            let pacing = Pacing::new(interval, next, job.clock.monotonic());
            (Some(journal), Some(Snapshots::new(store, shard_count)), Some(pacing))
        }
        None => (None, None, None),
    };
    let mut delivery = Delivery::new(job.sinks, journal);
    if let Some(restored) = &restored {
        restored.load_inputs(&mut sequencer)?;
        restored.load_judge(&mut judge)?;
        restored.load_delivery(&mut delivery)?;
    }
    let need_rows = !tops.is_empty() || with_contacts;
    let header = RunHeader { seed, shard_count };
    let stages = Stages {
        thread_count: job.thread_count,
        is_bounded: job.time.idle_after.is_none(),
        queue_depth: job.queue_depth,
        stop: job.stop,
        clock: job.clock,
        sequence: SequenceStage::new(sequencer, need_rows, pacing.map(|pacing| (header, pacing))),
        shards,
        judge,
        delivery,
        snapshots,
        new_parser: Box::new(new_parser),
        parse,
        tops,
        used_out,
        progress: job.progress,
        merge_pool,
    };
    Ok((job.sources, stages))
}

/// What shards are made of.
struct New<'a> {
    tops: &'a [TopSpec],
    with_contacts: bool,
    pane_seconds: i64,
    memory: MemoryPlan,
}

impl New<'_> {
    fn shards(&self, shard_count: usize, seed: u64) -> Vec<StateShard> {
        let memory = self.memory.per_shard(shard_count);
        let shard = |index| {
            let contacts = self
                .with_contacts
                .then(|| ContactTable::new_b(self.pane_seconds, seed, memory.contacts_bytes));
            StateShard::new(index, TopSet::new_b(self.tops, seed, memory.tops_bytes), contacts)
        };
        (0..shard_count).map(shard).collect()
    }

    fn restored_shards(&self, restored: &Restored) -> Result<Vec<StateShard>, DecodeError> {
        let memory = self.memory.per_shard(restored.shards.len());
        let shard = |(index, bytes): (usize, &Vec<u8>)| {
            let mut from = Decoder::new(bytes);
            let tops = TopSet::load(self.tops, memory.tops_bytes, &mut from)?;
            let contacts = from.option(|from| {
                ContactTable::load(self.pane_seconds, memory.contacts_bytes, from)
            })?;
            from.finish()?;
            if contacts.is_some() != self.with_contacts {
                return Err(DecodeError::Invalid("contacts"));
            }
            Ok(StateShard::new(index, tops, contacts))
        };
        restored.shards.iter().enumerate().map(shard).collect()
    }
}

/// How long a thread was busy, and per piece of its work.
struct Time {
    latency: LatencyHistogram,
    profile: Profile,
}

fn finish(
    inputs: InputReport,
    tops: &[TopSpec],
    answers: Vec<TopAnswer>,
    delivered: DeliveryReport,
    (latencies, profile): (Latencies, Profile),
) -> Result<RunReport, RunError> {
    if let Some(failure) = delivered.failure {
        return Err(RunError::Sink(failure));
    }
    let tops = tops.to_vec();
    let findings_by_kind = delivered.by_kind;
    Ok(RunReport {
        inputs,
        tops,
        answers,
        findings_by_kind,
        latencies,
        profile,
        elapsed: Duration::ZERO,
        snapshots: SnapshotReport::default(),
        back_pressure: BTreeMap::new(),
    })
}
