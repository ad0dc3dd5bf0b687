//! The stages on threads of their own, with a bounded channel between any two.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::{Stages, Time, finish};
use crate::aggregate::{RoutedBatch, TopSet};
use crate::finding::Finding;
use crate::framing::Chunk;
use crate::metrics::{LatencyHistogram, Profile, Stage, Stopwatch};
use crate::pipeline::deliver::{Delivery, DeliveryReport};
use crate::pipeline::job::{Latencies, RunError, RunReport};
use crate::pipeline::judge::{Judge, ShardPanes};
use crate::pipeline::layout_guess::LayoutGuess;
use crate::pipeline::parse_stage::{ParseStage, ParsedChunk, UsedBatch};
use crate::pipeline::sequence::{InputReport, Sequencer};
use crate::pipeline::state::StateShard;
use crate::record::Layout;
use crate::source::{Source, SourceError, StopFlag};
use crate::units::UnixSeconds;

/// How often a live pipeline looks at the wall clock when nothing arrives.
const TICK: Duration = Duration::from_millis(500);

/// Parts of a large chunk that a parse worker sends on together: fewer wake a thread less often, more leave
/// the cache before their turn.
const PARTS_SENT_AT_ONCE: usize = 4;

/// A chunk with the layout that its lines are likely to have.
type Work = (Chunk, Arc<Layout>);

enum ToShard {
    Rows(Arc<Vec<RoutedBatch>>),
    Watermark(UnixSeconds),
}

/// The ways to the shards.
struct ShardsOut {
    senders: Vec<Sender<ToShard>>,
    /// Whether shards do anything with rows; where only totals are asked for, they don't.
    need_rows: bool,
    used_out: Sender<UsedBatch>,
}

/// What a shard takes and gives.
struct ShardWays {
    rows_in: Receiver<ToShard>,
    panes_out: Sender<ShardPanes>,
    used_out: Sender<UsedBatch>,
}

/// Gives batches back that nobody reads any more. If the way back is full, enough are on it.
fn give_back(batches: Vec<RoutedBatch>, used_out: &Sender<UsedBatch>) {
    for routed in batches {
        match used_out.try_send(routed.into_parts()) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Runs the stages on threads.
pub(super) fn run(sources: Vec<Box<dyn Source>>, stages: Stages) -> Result<RunReport, RunError> {
    let Stages { clock, parse, new_parser, sequencer, shards, tops, queue_depth, .. } = stages;
    let (judge, delivery, stop, thread_count) =
        (stages.judge, stages.delivery, &stages.stop, stages.thread_count);
    let used_out = stages.used_out;
    let shards_need_rows = !tops.is_empty() || judge.is_some();
    thread::scope(|scope| {
        let (work_out, work_in) = bounded::<Work>(queue_depth);
        let (parsed_out, parsed_in) = bounded::<Vec<ParsedChunk>>(queue_depth * thread_count);
        let (panes_out, panes_in) = bounded::<ShardPanes>(queue_depth * thread_count);
        let (findings_out, findings_in) = bounded::<Vec<Finding>>(queue_depth);

        let watch = Stopwatch::start(Arc::clone(&clock));
        let deliverer =
            spawn(scope, "deliver", stop, move || deliver(delivery, &findings_in, stop, watch));
        let watch = Stopwatch::start(Arc::clone(&clock));
        let judger = spawn(scope, "judge", stop, move || {
            judge_panes(judge, &panes_in, &findings_out, watch)
        });
        let mut shards_out = Vec::new();
        let mut shard_threads = Vec::new();
        for (index, shard) in shards.into_iter().enumerate() {
            let (rows_out, rows_in) = bounded::<ToShard>(queue_depth);
            let ways =
                ShardWays { rows_in, panes_out: panes_out.clone(), used_out: used_out.clone() };
            shards_out.push(rows_out);
            let watch = Stopwatch::start(Arc::clone(&clock));
            shard_threads.push(spawn(scope, &format!("shard-{index}"), stop, move || {
                keep_state(index, shard, &ways, watch)
            }));
        }
        drop(panes_out);
        let parse_clock = Arc::clone(&clock);
        let tick = (!stages.is_bounded).then_some(TICK);
        let progress = stages.progress;
        let sequencer_thread = spawn(scope, "sequence", stop, move || {
            let shards = ShardsOut { senders: shards_out, need_rows: shards_need_rows, used_out };
            let watch = Stopwatch::start(Arc::clone(&clock));
            sequence(sequencer, &parsed_in, &shards, watch, tick, progress)
        });
        let mut parse_threads = Vec::new();
        for index in 0..thread_count {
            let (work_in, parsed_out) = (work_in.clone(), parsed_out.clone());
            let clock = Arc::clone(&parse_clock);
            let mut parser = ParseStage::new(parse.clone(), new_parser());
            parse_threads.push(spawn(scope, &format!("parse-{index}"), stop, move || {
                let mut latency = LatencyHistogram::new();
                for (chunk, layout) in work_in {
                    let mut began = clock.monotonic();
                    let mut parts = Vec::new();
                    let end = parser.process(chunk, &layout, &mut |parsed| {
                        latency.record(clock.monotonic().saturating_sub(began));
                        let is_due = parsed.is_last || parts.len() + 1 == PARTS_SENT_AT_ONCE;
                        parts.push(parsed);
                        if is_due && parsed_out.send(std::mem::take(&mut parts)).is_err() {
                            return ControlFlow::Break(());
                        }
                        began = clock.monotonic();
                        ControlFlow::Continue(())
                    });
                    if end.is_break() {
                        break;
                    }
                }
                Time { latency, profile: parser.take_profile() }
            }));
        }
        drop((work_in, parsed_out, parse));
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
        let (inputs, mut profile) = join(sequencer_thread);
        let mut tops_of_shards = Vec::new();
        for (tops_of_shard, busy) in shard_threads.into_iter().map(join) {
            tops_of_shards.push(tops_of_shard);
            profile.merge(&busy);
        }
        let judged = join(judger);
        profile.merge(&judged.profile);
        let mut parsed = LatencyHistogram::new();
        for time in parse_threads.into_iter().map(join) {
            parsed.merge(&time.latency);
            profile.merge(&time.profile);
        }
        let (delivered, busy) = join(deliverer);
        profile.merge(&busy);
        source_result?;
        let latencies = Latencies { parse: parsed, judge: judged.latency };
        let mut watch = Stopwatch::start(parse_clock);
        let answers = stages.merge_pool.install(|| TopSet::answers(&tops_of_shards));
        watch.lap(Stage::Answer, 0);
        profile.merge(&watch.take_profile());
        finish(inputs, &tops, answers, delivered, (latencies, profile))
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
    parsed_in: &Receiver<Vec<ParsedChunk>>,
    shards: &ShardsOut,
    mut watch: Stopwatch,
    tick: Option<Duration>,
    mut progress: impl FnMut(u64),
) -> (InputReport, Profile) {
    let mut watermark_given = UnixSeconds::MIN;
    let mut shards_gone = false;
    loop {
        let received = match tick {
            Some(tick) => parsed_in.recv_timeout(tick),
            None => parsed_in.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        watch.skip();
        let now = watch.last();
        match received {
            Ok(parts) => {
                let mut batches = Vec::new();
                for parsed in parts {
                    sequencer.accept(parsed, now, &mut |routed| batches.push(routed));
                }
                watch.lap(Stage::Sequence, 0);
                if !shards.need_rows {
                    give_back(batches, &shards.used_out);
                } else if !batches.is_empty() {
                    let batches = Arc::new(batches);
                    for shard in &shards.senders {
                        shards_gone |= shard.send(ToShard::Rows(Arc::clone(&batches))).is_err();
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress(sequencer.bytes_read());
        let watermark = sequencer.watermark(now);
        if watermark != watermark_given {
            watermark_given = watermark;
            for shard in &shards.senders {
                shards_gone |= shard.send(ToShard::Watermark(watermark)).is_err();
            }
        }
        if shards_gone {
            break;
        }
    }
    (sequencer.finish(), watch.take_profile())
}

fn keep_state(
    shard_index: usize,
    mut shard: StateShard,
    ways: &ShardWays,
    mut watch: Stopwatch,
) -> (TopSet, Profile) {
    for message in &ways.rows_in {
        watch.skip();
        match message {
            ToShard::Rows(batches) => {
                batches.iter().for_each(|routed| shard.add(routed, &mut watch));
                if let Some(batches) = Arc::into_inner(batches) {
                    give_back(batches, &ways.used_out);
                }
            }
            ToShard::Watermark(watermark) => {
                let panes = shard.close_until(watermark);
                watch.lap(Stage::Contacts, 0);
                if ways.panes_out.send(ShardPanes { shard_index, watermark, panes }).is_err() {
                    break;
                }
            }
        }
    }
    watch.skip();
    let (watermark, panes) = (UnixSeconds::MAX, shard.close_all());
    watch.lap(Stage::Contacts, 0);
    // A judge that is gone has panicked, which its join reports.
    let _judge_gone = ways.panes_out.send(ShardPanes { shard_index, watermark, panes }).is_err();
    (shard.into_tops(), watch.take_profile())
}

fn judge_panes(
    judge: Option<Judge>,
    panes_in: &Receiver<ShardPanes>,
    findings_out: &Sender<Vec<Finding>>,
    mut watch: Stopwatch,
) -> Time {
    let mut latency = LatencyHistogram::new();
    let Some(mut judge) = judge else {
        panes_in.iter().for_each(drop);
        return Time { latency, profile: Profile::default() };
    };
    let mut findings = Vec::new();
    for panes in panes_in {
        watch.skip();
        judge.accept(panes, &mut findings);
        latency.record(watch.lap(Stage::Judge, 0));
        if !findings.is_empty() && findings_out.send(std::mem::take(&mut findings)).is_err() {
            return Time { latency, profile: watch.take_profile() };
        }
    }
    watch.skip();
    judge.finish(&mut findings);
    watch.lap(Stage::Judge, 0);
    // The deliverer stays until this sender is gone.
    let _deliverer_gone = findings_out.send(findings).is_err();
    Time { latency, profile: watch.take_profile() }
}

fn deliver(
    mut delivery: Delivery,
    findings_in: &Receiver<Vec<Finding>>,
    stop: &StopFlag,
    mut watch: Stopwatch,
) -> (DeliveryReport, Profile) {
    for findings in findings_in {
        watch.skip();
        if !delivery.deliver(&findings) {
            // The rest is drained so that no stage waits; the failure is in the report.
            stop.request();
        }
        watch.lap(Stage::Deliver, 0);
    }
    (delivery.finish(), watch.take_profile())
}
