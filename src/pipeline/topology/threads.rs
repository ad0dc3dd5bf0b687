//! The stages on threads of their own, with a bounded channel between any two.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rayon::ThreadPool;

use super::channel::{Permits, Way, Ways};
use super::copies::{CopiesOut, CopyWays, copy_snapshots};
use super::{Stages, all_sizes, export, finish};
use crate::aggregate::{FlowSizes, RoutedBatch, TopSet};
use crate::clock::Clock;
use crate::codec::{SEGMENT_BYTES, touched_segment};
use crate::framing::Chunk;
use crate::metrics::{Profile, Stage, Stopwatch};
use crate::pipeline::deliver::{Delivery, DeliveryReport};
use crate::pipeline::job::{Control, RunError, RunReport};
use crate::pipeline::judge::{Judge, Judged};
use crate::pipeline::layout_guess::LayoutGuess;
use crate::pipeline::live::Live;
use crate::pipeline::message::{
    Ending, Epoch, Parsed, SavedPart, SnapshotFate, ToDeliver, ToJudge, ToShard,
};
use crate::pipeline::parse_stage::{ParseStage, UsedBatch};
use crate::pipeline::sequence::InputReport;
use crate::pipeline::sequence_stage::{SequenceStage, Sequenced};
use crate::pipeline::snapshot::{SnapshotReport, SnapshotStage};
use crate::pipeline::state::{FromShard, StateShard};
use crate::record::Layout;
use crate::source::{Source, SourceError, StopFlag};

/// How often a live pipeline looks at the wall clock when nothing arrives.
const TICK: Duration = Duration::from_millis(500);

/// Inputs whose lag is told, the slowest ones.
const LAGS_MAX: usize = 20;

/// How long delivery waits before it tries a journal again that could not be written.
const JOURNAL_RETRY: Duration = Duration::from_millis(500);

/// How often it does so at the end of a run.
const LAST_JOURNAL_TRIES: u32 = 10;

/// Parts of a large chunk that a parse worker sends on together: fewer wake a thread less often, more leave
/// the cache before their turn.
const PARTS_SENT_AT_ONCE: usize = 4;

/// Saved parts on their way to be written: those of two barriers, whatever the number of shards.
const SAVED_PARTS_MAX: usize = 64;

/// How often the checkpoint thread looks whether there is memory for the next snapshot.
const PREPARE_EVERY: Duration = Duration::from_millis(50);

/// Segments that it makes at once at most: parts of a barrier may be on their way meanwhile.
const PREPARED_AT_ONCE: usize = 16;

/// Segments of saved state on their way back to the shards.
const SPARE_SEGMENTS_MAX: usize = 1 << 14;

/// Chunks between a source and the end of their wait for earlier ones, for each place in the channels on that
/// way. A parse worker that the system puts to sleep must not let the others run far ahead.
const CHUNKS_PER_PLACE: usize = 2;

/// A chunk with the layout that its lines are likely to have, and when it came in.
type Work = (Chunk, Arc<Layout>, Duration);

/// What the sequencer takes and gives.
struct SequenceWays {
    parsed: Receiver<Parsed>,
    /// How often it looks at the clock when nothing arrives, if at all.
    tick: Option<Duration>,
    /// Whether all inputs are files.
    is_rereadable: bool,
    shards: Vec<Way<ToShard>>,
    deliver: Way<ToDeliver>,
    saved: Way<SavedPart>,
    used: Sender<UsedBatch>,
    /// What became of the snapshots of barriers.
    settled: Receiver<(Epoch, SnapshotFate)>,
    control: Receiver<Control>,
    /// One for each chunk that is not under way any more.
    permits: Sender<()>,
}

/// What a shard takes and gives.
struct ShardWays {
    rows: Receiver<ToShard>,
    judge: Way<ToJudge>,
    saved: Way<SavedPart>,
    used: Sender<UsedBatch>,
    spares: Receiver<Vec<u8>>,
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
    let Stages { clock, parse, new_parser, sequence, shards, tops, queue_depth, .. } = stages;
    let (judge, delivery, stop, thread_count) =
        (stages.judge, stages.delivery, &stages.stop, stages.thread_count);
    let (snapshots, copies, used_out) = (stages.snapshots, stages.copies, stages.used_out);
    let has_state = snapshots.is_some();
    thread::scope(|scope| {
        let mut ways = Ways::new(Arc::clone(&clock));
        let (work_out, work_in) = ways.one::<Work>("source→parse", queue_depth);
        let (parsed_out, parsed_in) =
            ways.one::<Parsed>("parse→sequence", queue_depth * thread_count);
        let chunks_max = CHUNKS_PER_PLACE * queue_depth * (thread_count + 1);
        let (permits_out, permits_in) = ways.permits("chunks under way", chunks_max);
        let shard_ways = ways.several::<ToShard>("sequence→shard", queue_depth, shards.len());
        let (judge_out, judge_in) = ways.one::<ToJudge>("shard→judge", queue_depth * shards.len());
        let (deliver_out, deliver_in) = ways.one::<ToDeliver>("judge→deliver", queue_depth);
        let (saved_out, saved_in) = ways.one::<SavedPart>("checkpoint", SAVED_PARTS_MAX);
        let (settled_out, settled_in) = bounded::<(Epoch, SnapshotFate)>(SAVED_PARTS_MAX);
        let (durable_out, durable_in) = bounded::<Epoch>(SAVED_PARTS_MAX);
        let (spares_out, spares_in) = bounded::<Vec<u8>>(SPARE_SEGMENTS_MAX);
        let watch = || Stopwatch::start(Arc::clone(&clock));
        let live = &*stages.live;
        live.set_meters(ways.meters().clone());

        let mut copies_out = CopiesOut::default();
        let copier = copies.map(|copies| {
            let snapshots = copies_out.open();
            let (ways, clock) =
                (CopyWays { snapshots, settled: settled_out.clone() }, Arc::clone(&clock));
            spawn(scope, "copy", stop, move || copy_snapshots(copies, &ways, stop, live, &*clock))
        });
        let snapshot_clock = Arc::clone(&clock);
        let snapshot_writer = spawn(scope, "checkpoint", stop, move || {
            snapshots.map_or_else(SnapshotReport::default, |snapshots| {
                let ways =
                    SnapshotWays { saved_in, settled_out, durable_out, spares_out, copies_out };
                write_snapshots(snapshots, &ways, live, &*snapshot_clock)
            })
        });
        let deliverer = {
            let (saved, watch, clock) = (saved_out.clone(), watch(), Arc::clone(&clock));
            spawn(scope, "deliver", stop, move || {
                let ways = DeliverWays { deliver_in, durable_in, saved_out: saved };
                deliver(delivery, &ways, stop, live, &*clock, watch)
            })
        };
        let judger = {
            let (saved, watch, pool) = (saved_out.clone(), watch(), &stages.merge_pool);
            let spares = spares_in.clone();
            let deliver_out = deliver_out.clone();
            spawn(scope, "judge", stop, move || {
                let ways = JudgeWays { judge_in, deliver_out, saved_out: saved, spares };
                judge_panes(judge, &ways, pool, stop, live, watch)
            })
        };
        let mut shards_out = Vec::new();
        let mut shard_threads = Vec::new();
        for ((index, shard), (out, rows)) in shards.into_iter().enumerate().zip(shard_ways) {
            let ways = ShardWays {
                rows,
                judge: judge_out.clone(),
                saved: saved_out.clone(),
                used: used_out.clone(),
                spares: spares_in.clone(),
            };
            shards_out.push(out);
            let watch = watch();
            shard_threads.push(spawn(scope, &format!("shard-{index}"), stop, move || {
                keep_state(shard, &ways, live, watch)
            }));
        }
        drop(judge_out);
        let tick = (!stages.is_bounded || has_state).then_some(TICK);
        let progress = stages.progress;
        let sequencer_thread = {
            let ways = SequenceWays {
                parsed: parsed_in,
                tick,
                is_rereadable: stages.is_bounded,
                shards: shards_out,
                deliver: deliver_out,
                saved: saved_out,
                used: used_out,
                settled: settled_in,
                control: stages.control,
                permits: permits_out,
            };
            let watch = watch();
            spawn(scope, "sequence", stop, move || {
                let goes_on = || stop.is_requested() && has_state;
                let ending = || if goes_on() { Ending::Keep } else { Ending::Close };
                keep_order(sequence, &ways, live, watch, ending, progress)
            })
        };
        let mut parse_threads = Vec::new();
        for index in 0..thread_count {
            let (work_in, parsed_out) = (work_in.clone(), parsed_out.clone());
            let clock = Arc::clone(&clock);
            let mut parser = ParseStage::new(parse.clone(), new_parser());
            parse_threads.push(spawn(scope, &format!("parse-{index}"), stop, move || {
                for (chunk, layout, arrived) in work_in {
                    let mut began = clock.monotonic();
                    let mut parts = Vec::new();
                    let end = parser.process(chunk, &layout, &mut |parsed| {
                        let took = clock.monotonic().saturating_sub(began);
                        live.record(|latencies| &mut latencies.parse, took);
                        let is_due = parsed.is_last || parts.len() + 1 == PARTS_SENT_AT_ONCE;
                        parts.push(parsed);
                        if is_due {
                            let parts = std::mem::take(&mut parts);
                            if parsed_out.send(Parsed { arrived, parts }).is_err() {
                                return ControlFlow::Break(());
                            }
                        }
                        began = clock.monotonic();
                        ControlFlow::Continue(())
                    });
                    if end.is_break() {
                        break;
                    }
                }
                parser.take_profile()
            }));
        }
        drop((work_in, parsed_out, parse));
        let source_threads: Vec<_> = sources
            .into_iter()
            .enumerate()
            .map(|(index, source)| {
                let (work_out, clock) = (work_out.clone(), Arc::clone(&clock));
                let permits = permits_in.clone();
                spawn(scope, &format!("source-{index}"), stop, move || {
                    read(source, &permits, &work_out, stop, &*clock)
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
        let mut sizes_of_shards = Vec::new();
        for (tops_of_shard, sizes, busy) in shard_threads.into_iter().map(join) {
            tops_of_shards.push(tops_of_shard);
            sizes_of_shards.extend(sizes);
            profile.merge(&busy);
        }
        let (judge, busy) = join(judger);
        let (suppressed, trials) = judge.left_out();
        profile.merge(&busy);
        for busy in parse_threads.into_iter().map(join) {
            profile.merge(&busy);
        }
        let (delivered, busy) = join(deliverer);
        profile.merge(&busy);
        let mut snapshots = join(snapshot_writer);
        let copied = copier.map(join).transpose();
        source_result?;
        snapshots.copies = copied?;
        let latencies = live.latencies();
        let sizes = all_sizes(sizes_of_shards);
        let talkers = judge.talkers();
        let counted = (tops_of_shards.as_slice(), sizes.as_ref());
        export(judge, stages.partial_job.as_ref(), counted, &inputs)?;
        let mut watch = watch();
        let answers = stages.merge_pool.install(|| TopSet::answers(&tops_of_shards));
        watch.lap(Stage::Answer, 0);
        profile.merge(&watch.take_profile());
        let report =
            finish(inputs, &tops, answers, (sizes, talkers), delivered, (latencies, profile))?;
        let back_pressure = ways.meters().read();
        Ok(RunReport { suppressed, trials, snapshots, back_pressure, ..report })
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
    permits: &Permits,
    work_out: &Way<Work>,
    stop: &StopFlag,
    clock: &dyn Clock,
) -> Result<(), SourceError> {
    let mut guess = LayoutGuess::default();
    source.run(stop, &mut |chunk| {
        if permits.take().is_err() {
            return ControlFlow::Break(());
        }
        let layout = guess.layout_for(&chunk);
        match work_out.send((chunk, layout, clock.monotonic())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
}

fn keep_order(
    mut stage: SequenceStage,
    ways: &SequenceWays,
    live: &Live,
    mut watch: Stopwatch,
    ending: impl FnOnce() -> Ending,
    mut progress: impl FnMut(u64),
) -> (InputReport, Profile) {
    // Threads behind that are gone have panicked, which their join reports.
    let is_cut_off = Cell::new(false);
    let mut forward = |sequenced: Sequenced| match sequenced {
        Sequenced::Unread(batches) => give_back(batches, &ways.used),
        Sequenced::Saved(part) => {
            is_cut_off.set(is_cut_off.get() | ways.saved.send(part).is_err());
        }
        Sequenced::Letters(letters) => {
            let sent = ways.deliver.send(ToDeliver::Letters(letters));
            is_cut_off.set(is_cut_off.get() | sent.is_err());
        }
        Sequenced::ToShards(message) => {
            for shard in &ways.shards {
                is_cut_off.set(is_cut_off.get() | shard.send(message.clone()).is_err());
            }
        }
    };
    let mut lags_at = Duration::ZERO;
    let mut permits_given = 0;
    loop {
        let received = match ways.tick {
            Some(tick) => ways.parsed.recv_timeout(tick),
            None => ways.parsed.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        ways.settled.try_iter().for_each(|(epoch, fate)| stage.settled(epoch, fate));
        ways.control.try_iter().for_each(|control| stage.control(control, &mut forward));
        watch.skip();
        let now = watch.last();
        match received {
            Ok(parsed) => stage.accept(parsed, now, &mut forward),
            Err(RecvTimeoutError::Timeout) => stage.tick(now, &mut forward),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        watch.lap(Stage::Sequence, 0);
        while permits_given < stage.sequencer().chunk_count() {
            // Sources may be gone.
            let _given = ways.permits.try_send(());
            permits_given += 1;
        }
        let report = stage.sequencer().report();
        live.note_inputs(report);
        progress(report.bytes_read);
        if now.saturating_sub(lags_at) >= TICK {
            lags_at = now;
            live.note_lags(stage.sequencer().slowest_inputs(LAGS_MAX));
        }
        if is_cut_off.get() {
            break;
        }
    }
    watch.skip();
    let now = watch.last();
    let report = stage.end(ending(), ways.is_rereadable, now, &mut forward);
    (report, watch.take_profile())
}

fn keep_state(
    mut shard: StateShard,
    ways: &ShardWays,
    live: &Live,
    mut watch: Stopwatch,
) -> (TopSet, Option<FlowSizes>, Profile) {
    let mut spares = |count: usize| ways.spares.try_iter().take(count).collect();
    let (mut is_cut_off, mut saved_bytes) = (false, 0);
    for message in &ways.rows {
        watch.skip();
        if matches!(message, ToShard::Watermark { .. }) {
            let now = shard.saved_bytes();
            live.note_saved_bytes(std::mem::replace(&mut saved_bytes, now), now);
        }
        shard.take(message, &mut watch, &mut spares, &mut |given| match given {
            FromShard::ToJudge(message) => is_cut_off |= ways.judge.send(message).is_err(),
            FromShard::Saved { part, took } => {
                live.record(|latencies| &mut latencies.save, took);
                is_cut_off |= ways.saved.send(part).is_err();
            }
            FromShard::Used(batches) => give_back(batches, &ways.used),
        });
        if is_cut_off {
            break;
        }
    }
    let (tops, sizes) = shard.into_tops();
    (tops, sizes, watch.take_profile())
}

/// What the judge takes and gives.
struct JudgeWays {
    judge_in: Receiver<ToJudge>,
    deliver_out: Way<ToDeliver>,
    saved_out: Way<SavedPart>,
    spares: Receiver<Vec<u8>>,
}

fn judge_panes(
    mut judge: Judge,
    ways: &JudgeWays,
    merge_pool: &ThreadPool,
    stop: &StopFlag,
    live: &Live,
    mut watch: Stopwatch,
) -> (Judge, Profile) {
    let mut spares = |count: usize| ways.spares.try_iter().take(count).collect();
    let mut is_cut_off = false;
    for message in &ways.judge_in {
        watch.skip();
        let mut given = Vec::new();
        merge_pool.install(|| judge.take(message, &mut spares, &mut |judged| given.push(judged)));
        live.record(|latencies| &mut latencies.judge, watch.lap(Stage::Judge, 0));
        live.note_suppressed(judge.suppressed_count());
        for judged in given {
            is_cut_off |= match judged {
                Judged::ToDeliver(message) => ways.deliver_out.send(message).is_err(),
                Judged::Saved(part) => ways.saved_out.send(part).is_err(),
            };
        }
        if judge.has_failed() {
            // The rest is drained so that no stage waits; the failure is told at the end.
            stop.request();
        }
        if is_cut_off {
            break;
        }
    }
    (judge, watch.take_profile())
}

/// What the deliverer takes and gives.
struct DeliverWays {
    deliver_in: Receiver<ToDeliver>,
    durable_in: Receiver<Epoch>,
    saved_out: Way<SavedPart>,
}

fn deliver(
    mut delivery: Delivery,
    ways: &DeliverWays,
    stop: &StopFlag,
    live: &Live,
    clock: &dyn Clock,
    mut watch: Stopwatch,
) -> (DeliveryReport, Profile) {
    // A checkpoint thread that is gone has panicked, which its join reports.
    let mut saved = |part| drop(ways.saved_out.send(part));
    let mut last_tries = LAST_JOURNAL_TRIES;
    loop {
        let received = if delivery.is_full() {
            thread::sleep(JOURNAL_RETRY);
            Err(RecvTimeoutError::Timeout)
        } else if delivery.is_waiting() {
            ways.deliver_in.recv_timeout(JOURNAL_RETRY)
        } else {
            ways.deliver_in.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        ways.durable_in.try_iter().for_each(|epoch| delivery.durable(epoch));
        watch.skip();
        match received {
            Ok(message) => {
                if let ToDeliver::Findings { findings, .. } = &message {
                    live.note_findings(findings.len());
                }
                delivery.take(message, clock.monotonic(), &mut saved);
                live.replace(|latencies| &mut latencies.finding, delivery.latency());
            }
            Err(RecvTimeoutError::Timeout) => delivery.work(clock.monotonic(), &mut saved),
            Err(RecvTimeoutError::Disconnected) if delivery.is_waiting() && last_tries > 0 => {
                last_tries -= 1;
                thread::sleep(JOURNAL_RETRY);
                delivery.work(clock.monotonic(), &mut saved);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if delivery.has_failed() {
            // The rest is drained so that no stage waits; the failure is in the report.
            stop.request();
        }
        watch.lap(Stage::Deliver, 0);
    }
    (delivery.finish(), watch.take_profile())
}

/// What the snapshot writer takes and gives.
struct SnapshotWays {
    saved_in: Receiver<SavedPart>,
    settled_out: Sender<(Epoch, SnapshotFate)>,
    durable_out: Sender<Epoch>,
    spares_out: Sender<Vec<u8>>,
    copies_out: CopiesOut,
}

fn write_snapshots(
    mut stage: SnapshotStage,
    ways: &SnapshotWays,
    live: &Live,
    clock: &dyn Clock,
) -> SnapshotReport {
    let mut last_at = clock.monotonic();
    loop {
        let part = match ways.saved_in.recv_timeout(PREPARE_EVERY) {
            Ok(part) => part,
            Err(RecvTimeoutError::Timeout) => {
                if clock.monotonic().saturating_sub(last_at) >= stage.prepare_after() {
                    prepare(&ways.spares_out, live.saved_bytes());
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let Some(mut settled) = stage.take(part, clock.now()) else { continue };
        last_at = clock.monotonic();
        // What this snapshot took is enough for the next. First segments are small and made anew.
        let mut segments = std::mem::take(&mut settled.segments);
        segments.retain(|segment| segment.capacity() >= SEGMENT_BYTES);
        let spares_max = segments.len();
        for segment in segments {
            if ways.spares_out.len() >= spares_max || ways.spares_out.try_send(segment).is_err() {
                break;
            }
        }
        if settled.is_durable {
            live.note_snapshot(clock.monotonic());
            // It may be gone when the run ends.
            let _told_deliverer = ways.durable_out.try_send(settled.epoch);
        }
        ways.copies_out.pass_on(&stage, &settled, &ways.settled_out, live);
    }
    stage.finish()
}

/// Keeps as much memory ready as the tables are going to be copied into, so that shards stand still for copying
/// alone.
fn prepare(spares_out: &Sender<Vec<u8>>, saved_bytes: u64) {
    let wanted = usize::try_from(saved_bytes).unwrap_or(usize::MAX) / SEGMENT_BYTES;
    let missing = wanted.saturating_sub(spares_out.len()).min(PREPARED_AT_ONCE);
    for _ in 0..missing {
        if spares_out.try_send(touched_segment()).is_err() {
            return;
        }
    }
}
