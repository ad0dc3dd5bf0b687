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
mod copies;
mod inline;
#[cfg(test)]
mod simulation;
mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::assembly::{Assembled, Assembly, DetectorMaker, RunHeader};
use super::copying::CopyStage;
use super::dead_letters::LetterBox;
use super::deliver::{Delivery, DeliveryReport, DurableFindings};
use super::job::{Control, Job, JobState, Latencies, RunError, RunReport, TalkersReport};
use super::judge::Judge;
use super::live::Live;
use super::message::Epoch;
use super::parse_stage::{ParseSettings, UsedBatch};
use super::partial::{PartialExport, PartialJob};
use super::receipts::Receipts;
use super::sequence::InputReport;
use super::sequence_stage::{Pacing, SequenceStage};
use super::snapshot::{SnapshotReport, SnapshotStage};
use super::state::StateShard;
use crate::aggregate::{FlowSizes, TalkerPlan, TopAnswer, TopSet, TopSpec};
use crate::checkpoint::{CheckpointError, Cursors, Journal, Remote, Snapshots};
use crate::clock::Clock;
use crate::detect::Suppressed;
use crate::metrics::Profile;
use crate::record::Parser;
use crate::source::{Settled, Source, StopFlag};

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
    new_parser: Arc<dyn Fn() -> Parser + Send + Sync>,
    sequence: SequenceStage,
    shards: Vec<StateShard>,
    judge: Judge,
    delivery: Delivery,
    snapshots: Option<SnapshotStage>,
    copies: Option<CopyStage>,
    tops: Arc<[TopSpec]>,
    /// Set if what was seen is exported.
    partial_job: Option<PartialJob>,
    used_out: Sender<UsedBatch>,
    progress: Box<dyn FnMut(u64) + Send>,
    control: Receiver<Control>,
    live: Arc<Live>,
    merge_pool: Arc<ThreadPool>,
}

fn stages_of(job: Job) -> Result<(Vec<Box<dyn Source>>, Stages), RunError> {
    let wanted = job.columns();
    let tops: Arc<[_]> = job.tops.into();
    let talkers =
        (!job.talkers.is_empty()).then(|| Arc::new(TalkerPlan::new(job.talkers, job.pane_seconds)));
    let memory = if talkers.is_some() { job.memory.with_talkers() } else { job.memory };
    let (isa, mut limits, thread_count) = (job.isa, job.limits, job.thread_count);
    limits.kept_text_bytes_max = limits.kept_text_bytes_max.min(job.memory.kept_text_bytes);
    let filter = job.filter.map(Arc::new);
    let (used_out, used_batches) = bounded(USED_BATCHES_PER_WORKER * thread_count);
    let merge_pool = ThreadPoolBuilder::new()
        .num_threads(thread_count)
        .thread_name(|index| format!("merge-{index}"))
        .build()
        .expect("the system can start as many threads as there are cores");
    let merge_pool = Arc::new(merge_pool);
    let pool = (thread_count > 1).then(|| Arc::clone(&merge_pool));
    let clock = Arc::clone(&job.clock);
    let new_parse = move |router| ParseSettings {
        isa,
        limits: limits.clone(),
        filter: filter.clone(),
        router,
        used_batches: used_batches.clone(),
        clock: Arc::clone(&clock),
        pool: pool.clone(),
    };
    let assembly = Assembly {
        tops: Arc::clone(&tops),
        talkers,
        maker: DetectorMaker {
            pane_seconds: job.pane_seconds,
            bytes_max: memory.detectors_bytes,
            counts_only: job.sinks.is_empty() && job.state.is_none(),
        },
        detectors: job.detectors,
        memory,
        time: job.time,
        expected_inputs: job.expected_inputs,
        now: job.clock.monotonic(),
        new_parse: Box::new(new_parse),
        new_parser: Arc::new(move || Parser::new(isa, wanted.clone())),
    };
    let header = RunHeader { seed: job.seed, shard_count: thread_count };
    let (assembled, saving) = match job.state {
        None => (assembly.fresh(header), None),
        Some(state) => {
            let (assembled, saving) = restore(&assembly, header, state, (&job.clock, &job.stop))?;
            (assembled, Some(saving))
        }
    };
    let Assembled { header, parse, mut sequencer, shards, mut judge, counts, .. } = assembled;
    let letters = job.dead_letters.map(|letters| {
        sequencer.put_letters_aside();
        LetterBox::new(letters, Arc::clone(&job.clock))
    });
    let partial_job = job.partials.map(|writer| {
        judge.export(PartialExport::new(writer, Arc::clone(&job.clock)));
        assembly.partial_job()
    });
    let mut sources = job.sources;
    let positions = Arc::new(sequencer.positions());
    let settled = Arc::new(Settled::default());
    for source in &mut sources {
        source.resume(Arc::clone(&positions));
        source.settled_by(Arc::clone(&settled));
    }
    job.live.set_intakes(sources.iter().filter_map(|source| source.meter()).collect());
    let (snapshots, copies, pacing, durable) = match saving {
        Some(Saving { snapshots, copies, pacing, durable }) => {
            let snapshots = SnapshotStage::new(snapshots, header.shard_count, pacing.interval());
            (Some(snapshots), copies.map(CopyStage::new), Some((header, pacing)), Some(durable))
        }
        None => (None, None, None, None),
    };
    let need_rows = !tops.is_empty() || assembly.detectors.is_some() || assembly.talkers.is_some();
    let stages = Stages {
        thread_count,
        is_bounded: job.time.idle_after.is_none(),
        queue_depth: job.queue_depth,
        stop: job.stop,
        clock: job.clock,
        sequence: SequenceStage::new(sequencer, need_rows, pacing, Receipts::new(settled)),
        shards,
        judge,
        delivery: Delivery::new(job.sinks, job.talker_sinks, durable, letters, counts)?,
        snapshots,
        copies,
        new_parser: assembly.new_parser,
        parse,
        tops,
        partial_job,
        used_out,
        progress: job.progress,
        control: job.control,
        live: job.live,
        merge_pool,
    };
    Ok((sources, stages))
}

/// What keeps the state of a run.
struct Saving {
    snapshots: Snapshots,
    copies: Option<Remote>,
    pacing: Pacing,
    durable: DurableFindings,
}

/// The stages as the newest usable snapshot has them, or fresh ones where there is none.
fn restore(
    assembly: &Assembly,
    header: RunHeader,
    state: JobState,
    (clock, stop): (&Arc<dyn Clock>, &StopFlag),
) -> Result<(Assembled, Saving), CheckpointError> {
    let JobState { directory, journal, encode, interval, remote } = state;
    let job = assembly.fingerprint();
    let is_stopped = || stop.is_requested();
    let claim = |settings| Remote::claim(settings, &directory, job, clock, &is_stopped);
    let mut copies = remote.map(claim).transpose()?;
    let mut snapshots = Snapshots::open(Arc::clone(&directory), job)?;
    let restored = snapshots
        .restore_with(copies.as_mut(), |snapshot| assembly.restored(snapshot, header.shard_count));
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            give_up(copies);
            return Err(error);
        }
    };
    copies.iter().for_each(|copies| snapshots.continue_after(copies));
    for refusal in &restored.refused {
        tracing::error!(
            error = refusal as &dyn std::error::Error,
            "a snapshot cannot be used; an older one is taken"
        );
    }
    let assembled = match restored.state {
        Some((head, assembled)) => {
            tracing::info!(epoch = head.epoch, written_at = %head.written_at, "goes on from a snapshot");
            assembled
        }
        None => assembly.fresh(header),
    };
    let journal =
        Journal::open(Arc::clone(&directory), journal, encode, assembled.journal_mark.as_ref())?;
    let (cursors, refused) = Cursors::open(directory)?;
    if let Some(refusal) = refused {
        tracing::error!(
            error = &refusal as &dyn std::error::Error,
            "how far sinks have got is not known; they go on with what is found from now on"
        );
    }
    let next_epoch = Epoch(snapshots.next_epoch());
    let pacing = Pacing::new(interval, next_epoch, clock.monotonic());
    let durable = DurableFindings { journal, cursors };
    Ok((assembled, Saving { snapshots, copies, pacing, durable }))
}

/// Leaves the copies to the next process: this one does not start.
fn give_up(copies: Option<Remote>) {
    if let Some(Err(error)) = copies.map(Remote::release) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the copies were not given up; the next process waits before it takes over"
        );
    }
}

/// Completes partials, if that is what the run is for.
fn export(
    judge: Judge,
    job: Option<&PartialJob>,
    (tops, sizes): (&[TopSet], Option<&FlowSizes>),
    inputs: &InputReport,
) -> Result<(), CheckpointError> {
    match (judge.into_export()?, job) {
        (Some(partial), Some(job)) => partial.finish(job, tops, sizes, inputs),
        _ => Ok(()),
    }
}

/// The sizes that all shards have counted.
fn all_sizes(shards: impl IntoIterator<Item = FlowSizes>) -> Option<FlowSizes> {
    shards.into_iter().reduce(|mut all, sizes| {
        all += &sizes;
        all
    })
}

fn finish(
    inputs: InputReport,
    tops: &[TopSpec],
    answers: Vec<TopAnswer>,
    (flow_sizes, talkers): (Option<FlowSizes>, TalkersReport),
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
        flow_sizes,
        talkers,
        findings_by_kind,
        suppressed: Suppressed::default(),
        trials: Vec::new(),
        latencies,
        profile,
        elapsed: Duration::ZERO,
        journal: delivered.journal,
        dead_letters: delivered.dead_letters,
        snapshots: SnapshotReport::default(),
        back_pressure: BTreeMap::new(),
    })
}
