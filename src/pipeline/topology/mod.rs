//! The one place where threads and channels are made: how the stages of a run are wired.
//!
//! ```text
//! source × n ─chunks─► parse × j ─parsed─► sequence ─routed─► shard × j ─panes─► judge ─findings─► deliver
//! ```
//!
//! Every arrow is a bounded channel: full means wait, back to the source. A rayon pool of the
//! run's own has the answers of tops, the two detectors that cost most, and the members of large gzip files. All threads are named and joined;
//! a panic in one ends the run (`threads`). With one thread the same stages run in a loop on the calling
//! thread (`inline`). Batches that were read by all go back to the parse workers, whose
//! memory is used again.

mod inline;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::deliver::{Delivery, DeliveryReport};
use super::job::{Job, Latencies, RunError, RunReport};
use super::judge::Judge;
use super::parse_stage::{ParseSettings, ParseStage, UsedBatch};
use super::sequence::{InputReport, Sequencer};
use super::state::StateShard;
use crate::aggregate::{CONTACT_BYTES_DEFAULT, ContactTable, Router, TopAnswer, TopSpec};
use crate::clock::Clock;
use crate::detect::DetectorSet;
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
    let (sources, stages) = stages_of(job);
    let outcome = if stages.thread_count == 1 && stages.is_bounded {
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
    sequencer: Sequencer,
    shards: Vec<StateShard>,
    judge: Option<Judge>,
    delivery: Delivery,
    tops: Arc<[TopSpec]>,
    used_out: Sender<UsedBatch>,
    progress: Box<dyn FnMut(u64) + Send>,
    merge_pool: Arc<ThreadPool>,
}

fn stages_of(job: Job) -> (Vec<Box<dyn Source>>, Stages) {
    let wanted = job.columns();
    let shard_count = job.thread_count;
    let with_contacts = job.detectors.is_some();
    let tops: Arc<[_]> = job.tops.into();
    let router = Router::new(&tops, with_contacts, shard_count, job.seed);
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
    let shards = (0..shard_count).map(|index| {
        let contacts = with_contacts
            .then(|| ContactTable::new(job.pane_seconds, job.seed, CONTACT_BYTES_DEFAULT));
        StateShard::new(index, &tops, contacts, job.seed)
    });
    let without_sinks = job.sinks.is_empty();
    let judge = |detectors: DetectorSet| {
        let detectors = if without_sinks { detectors.for_counts() } else { detectors };
        Judge::new(detectors, job.pane_seconds, shard_count)
    };
    let stages = Stages {
        thread_count: job.thread_count,
        is_bounded: job.time.idle_after.is_none(),
        queue_depth: job.queue_depth,
        stop: job.stop,
        clock: job.clock,
        sequencer: Sequencer::new(reparser, job.time, job.expected_inputs),
        shards: shards.collect(),
        judge: job.detectors.map(judge),
        delivery: Delivery::new(job.sinks),
        new_parser: Box::new(new_parser),
        parse,
        tops,
        used_out,
        progress: job.progress,
        merge_pool,
    };
    (job.sources, stages)
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
    let elapsed = Duration::ZERO;
    Ok(RunReport { inputs, tops, answers, findings_by_kind, latencies, profile, elapsed })
}
