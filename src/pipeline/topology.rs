//! The one place where threads and channels are made: how the stages of a run are wired.
//!
//! ```text
//! source × n ─chunks─► parse × j ─parsed─► sequence ─routed─► shard × j ─panes─► judge ─findings─► deliver
//! ```
//!
//! Every arrow is a bounded channel: full means wait, back to the source. The judge merges large panes
//! on a rayon pool of the run's own. All threads are named and joined;
//! a panic in one ends the run. With one thread the same stages run in a loop on the calling thread,
//! without channels.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::deliver::{Delivery, DeliveryReport};
use super::job::{Job, Latencies, RunError, RunReport};
use super::judge::{Judge, ShardPanes};
use super::layout_guess::LayoutGuess;
use super::parse_stage::{ParseSettings, ParseStage, ParsedChunk};
use super::sequence::{InputReport, Sequencer};
use super::state::StateShard;
use crate::aggregate::{ContactTable, RoutedBatch, Router, TopAnswer, merge_answers};
use crate::clock::Clock;
use crate::detect::DetectorSet;
use crate::finding::Finding;
use crate::framing::Chunk;
use crate::metrics::LatencyHistogram;
use crate::record::{Layout, Parser};
use crate::source::{Source, SourceError, StopFlag};
use crate::units::UnixSeconds;

/// How often a live pipeline looks at the wall clock when nothing arrives.
const TICK: Duration = Duration::from_millis(500);

/// Runs a job to its end: until its sources have no more, or were told to stop.
///
/// # Errors
/// If a source or a sink failed as a whole. Faults of single inputs are in the report.
pub fn run(job: Job) -> Result<RunReport, RunError> {
    let clock = Arc::clone(&job.clock);
    let started = clock.monotonic();
    let (sources, stages) = stages_of(job);
    let outcome = if stages.thread_count == 1 && stages.is_bounded {
        run_inline(sources, stages)
    } else {
        run_threaded(sources, stages)
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
    tops: Arc<[crate::aggregate::TopSpec]>,
    progress: Box<dyn FnMut(u64) + Send>,
    merge_pool: ThreadPool,
}

fn stages_of(job: Job) -> (Vec<Box<dyn Source>>, Stages) {
    let wanted = job.columns();
    let shard_count = job.thread_count;
    let with_contacts = job.detectors.is_some();
    let tops: Arc<[_]> = job.tops.into();
    let router = Router::new(Arc::clone(&tops), with_contacts, shard_count, job.seed);
    let parse = ParseSettings { limits: job.limits, filter: job.filter.map(Arc::new), router };
    let isa = job.isa;
    let new_parser = move || Parser::new(isa, wanted.clone());
    let reparser = ParseStage::new(parse.clone(), new_parser());
    let shards = (0..shard_count).map(|index| {
        let contacts = with_contacts.then(|| ContactTable::new(job.pane_seconds, job.seed));
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
        progress: job.progress,
        merge_pool: ThreadPoolBuilder::new()
            .num_threads(job.thread_count)
            .thread_name(|index| format!("merge-{index}"))
            .build()
            .expect("the system can start as many threads as there are cores"),
    };
    (job.sources, stages)
}

fn run_inline(sources: Vec<Box<dyn Source>>, stages: Stages) -> Result<RunReport, RunError> {
    let Stages { stop, clock, parse, new_parser, mut sequencer, mut shards, tops, .. } = stages;
    let merge_pool = stages.merge_pool;
    let mut latencies = Latencies::default();
    let (mut judge, mut delivery, mut progress) = (stages.judge, stages.delivery, stages.progress);
    let mut parser = ParseStage::new(parse, new_parser());
    let shard = &mut shards[0];
    let unknown_layout = Layout::default_v2();
    let mut watermark_given = UnixSeconds::MIN;
    let mut emit = |chunk: Chunk| {
        let layout = sequencer.layout_of(chunk.input).unwrap_or_else(|| unknown_layout.clone());
        let began = clock.monotonic();
        let parsed = parser.process(chunk, &layout);
        let now = clock.monotonic();
        latencies.parse.record(now.saturating_sub(began));
        sequencer.accept(parsed, now, &mut |routed| shard.add(&routed));
        progress(sequencer.bytes_read());
        let watermark = sequencer.watermark(now);
        if watermark == watermark_given {
            return ControlFlow::Continue(());
        }
        watermark_given = watermark;
        let panes = shard.close_until(watermark);
        let mut findings = Vec::new();
        if let Some(judge) = &mut judge {
            let panes = ShardPanes { shard_index: 0, watermark, panes };
            latencies.judge.time(&*clock, || {
                merge_pool.install(|| judge.accept(panes, &mut findings));
            });
        }
        if delivery.deliver(&findings) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    for source in sources {
        source.run(&stop, &mut emit)?;
    }
    let panes = shard.close_all();
    let mut findings = Vec::new();
    if let Some(mut judge) = judge {
        let panes = ShardPanes { shard_index: 0, watermark: UnixSeconds::MAX, panes };
        latencies.judge.time(&*clock, || {
            merge_pool.install(|| {
                judge.accept(panes, &mut findings);
                judge.finish(&mut findings);
            });
        });
    }
    // A failed sink is in the delivery's report.
    let _all_delivered = delivery.deliver(&findings);
    let answers = vec![shard.answers()];
    finish(sequencer.finish(), &tops, answers, delivery.finish(), latencies)
}

fn finish(
    inputs: InputReport,
    tops: &[crate::aggregate::TopSpec],
    shard_answers: Vec<Vec<TopAnswer>>,
    delivered: DeliveryReport,
    latencies: Latencies,
) -> Result<RunReport, RunError> {
    let mut by_top: Vec<Vec<TopAnswer>> = tops.iter().map(|_| Vec::new()).collect();
    for answers in shard_answers {
        by_top.iter_mut().zip(answers).for_each(|(shards, answer)| shards.push(answer));
    }
    let answers =
        tops.iter().zip(by_top).map(|(spec, shards)| merge_answers(spec, shards)).collect();
    if let Some(failure) = delivered.failure {
        return Err(RunError::Sink(failure));
    }
    let tops = tops.to_vec();
    let findings_by_kind = delivered.by_kind;
    let elapsed = Duration::ZERO;
    Ok(RunReport { inputs, tops, answers, findings_by_kind, latencies, elapsed })
}

/// A chunk with the layout that its lines are likely to have.
type Work = (Chunk, Arc<Layout>);

enum ToShard {
    Rows(Arc<RoutedBatch>),
    Watermark(UnixSeconds),
}

fn run_threaded(sources: Vec<Box<dyn Source>>, stages: Stages) -> Result<RunReport, RunError> {
    let Stages { clock, parse, new_parser, sequencer, shards, tops, queue_depth, .. } = stages;
    let (judge, delivery, stop, thread_count) =
        (stages.judge, stages.delivery, &stages.stop, stages.thread_count);
    thread::scope(|scope| {
        let (work_out, work_in) = bounded::<Work>(queue_depth);
        let (parsed_out, parsed_in) = bounded::<ParsedChunk>(queue_depth * thread_count);
        let (panes_out, panes_in) = bounded::<ShardPanes>(queue_depth * thread_count);
        let (findings_out, findings_in) = bounded::<Vec<Finding>>(queue_depth);

        let deliverer =
            spawn(scope, "deliver", stop, move || deliver(delivery, &findings_in, stop));
        let (merge_pool, judge_clock) = (stages.merge_pool, Arc::clone(&clock));
        let judger = spawn(scope, "judge", stop, move || {
            judge_panes(judge, &panes_in, &findings_out, &merge_pool, &*judge_clock)
        });
        let mut shards_out = Vec::new();
        let mut shard_threads = Vec::new();
        for (index, shard) in shards.into_iter().enumerate() {
            let (rows_out, rows_in) = bounded::<ToShard>(queue_depth);
            let panes_out = panes_out.clone();
            shards_out.push(rows_out);
            shard_threads.push(spawn(scope, &format!("shard-{index}"), stop, move || {
                keep_state(index, shard, &rows_in, &panes_out)
            }));
        }
        drop(panes_out);
        let parse_clock = Arc::clone(&clock);
        let tick = (!stages.is_bounded).then_some(TICK);
        let progress = stages.progress;
        let sequencer_thread = spawn(scope, "sequence", stop, move || {
            sequence(sequencer, &parsed_in, &shards_out, &*clock, tick, progress)
        });
        let mut parse_threads = Vec::new();
        for index in 0..thread_count {
            let (work_in, parsed_out) = (work_in.clone(), parsed_out.clone());
            let clock = Arc::clone(&parse_clock);
            let mut parser = ParseStage::new(parse.clone(), new_parser());
            parse_threads.push(spawn(scope, &format!("parse-{index}"), stop, move || {
                let mut latency = LatencyHistogram::new();
                for (chunk, layout) in work_in {
                    let parsed = latency.time(&*clock, || parser.process(chunk, &layout));
                    if parsed_out.send(parsed).is_err() {
                        break;
                    }
                }
                latency
            }));
        }
        drop((work_in, parsed_out));
        let source_threads: Vec<_> = sources
            .into_iter()
            .enumerate()
            .map(|(index, source)| {
                let work_out = work_out.clone();
                spawn(scope, &format!("source-{index}"), stop, move || {
                    read(source, &work_out, stop)
                })
            })
            .collect();
        drop(work_out);

        let mut source_result = Ok(());
        for source in source_threads {
            let result = join(source);
            if result.is_err() {
                stop.request();
            }
            source_result = source_result.and(result);
        }
        let inputs = join(sequencer_thread);
        let answers = shard_threads.into_iter().map(join).collect();
        let mut latencies = Latencies { judge: join(judger), ..Latencies::default() };
        for thread in parse_threads {
            latencies.parse.merge(&join(thread));
        }
        let delivered = join(deliverer);
        source_result?;
        finish(inputs, &tops, answers, delivered, latencies)
    })
}

fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    stop: &'scope StopFlag,
    work: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let guarded = move || {
        let _guard = StopOnPanic(stop);
        work()
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, guarded)
        .expect("the system can start as many threads as there are cores")
}

/// Ends the run when its thread panics: a live source would otherwise read on into nothing.
struct StopOnPanic<'a>(&'a StopFlag);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.request();
        }
    }
}

/// The thread's result; its panic goes on in the joining thread.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read(
    source: Box<dyn Source>,
    work_out: &Sender<Work>,
    stop: &StopFlag,
) -> Result<(), SourceError> {
    let mut guess = LayoutGuess::default();
    source.run(stop, &mut |chunk| {
        let layout = guess.layout_for(&chunk);
        match work_out.send((chunk, layout)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
}

fn sequence(
    mut sequencer: Sequencer,
    parsed_in: &Receiver<ParsedChunk>,
    shards_out: &[Sender<ToShard>],
    clock: &dyn Clock,
    tick: Option<Duration>,
    mut progress: impl FnMut(u64),
) -> InputReport {
    let mut watermark_given = UnixSeconds::MIN;
    let mut shards_gone = false;
    loop {
        let received = match tick {
            Some(tick) => parsed_in.recv_timeout(tick),
            None => parsed_in.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = clock.monotonic();
        match received {
            Ok(parsed) => sequencer.accept(parsed, now, &mut |routed| {
                let routed = Arc::new(routed);
                for shard in shards_out {
                    shards_gone |= shard.send(ToShard::Rows(Arc::clone(&routed))).is_err();
                }
            }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress(sequencer.bytes_read());
        let watermark = sequencer.watermark(now);
        if watermark != watermark_given {
            watermark_given = watermark;
            for shard in shards_out {
                shards_gone |= shard.send(ToShard::Watermark(watermark)).is_err();
            }
        }
        if shards_gone {
            break;
        }
    }
    sequencer.finish()
}

fn keep_state(
    shard_index: usize,
    mut shard: StateShard,
    rows_in: &Receiver<ToShard>,
    panes_out: &Sender<ShardPanes>,
) -> Vec<TopAnswer> {
    for message in rows_in {
        match message {
            ToShard::Rows(routed) => shard.add(&routed),
            ToShard::Watermark(watermark) => {
                let panes = shard.close_until(watermark);
                if panes_out.send(ShardPanes { shard_index, watermark, panes }).is_err() {
                    break;
                }
            }
        }
    }
    let (watermark, panes) = (UnixSeconds::MAX, shard.close_all());
    // A judge that is gone has panicked, which its join reports.
    let _judge_gone = panes_out.send(ShardPanes { shard_index, watermark, panes }).is_err();
    shard.answers()
}

fn judge_panes(
    judge: Option<Judge>,
    panes_in: &Receiver<ShardPanes>,
    findings_out: &Sender<Vec<Finding>>,
    merge_pool: &ThreadPool,
    clock: &dyn Clock,
) -> LatencyHistogram {
    let mut latency = LatencyHistogram::new();
    let Some(mut judge) = judge else {
        panes_in.iter().for_each(drop);
        return latency;
    };
    let mut findings = Vec::new();
    for panes in panes_in {
        latency.time(clock, || merge_pool.install(|| judge.accept(panes, &mut findings)));
        if !findings.is_empty() && findings_out.send(std::mem::take(&mut findings)).is_err() {
            return latency;
        }
    }
    merge_pool.install(|| judge.finish(&mut findings));
    // The deliverer stays until this sender is gone.
    let _deliverer_gone = findings_out.send(findings).is_err();
    latency
}

fn deliver(
    mut delivery: Delivery,
    findings_in: &Receiver<Vec<Finding>>,
    stop: &StopFlag,
) -> DeliveryReport {
    for findings in findings_in {
        if !delivery.deliver(&findings) {
            // The rest is drained so that no stage waits; the failure is in the report.
            stop.request();
        }
    }
    delivery.finish()
}
