//! The stages in one loop on the calling thread, for one thread, inputs that end and no state to save.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rayon::ThreadPool;

use super::{Stages, export, finish};
use crate::aggregate::TopSet;
use crate::framing::Chunk;
use crate::metrics::{Stage, Stopwatch};
use crate::pipeline::deliver::Delivery;
use crate::pipeline::job::{Latencies, RunError, RunReport};
use crate::pipeline::judge::{Judge, Judged};
use crate::pipeline::message::{Ending, Parsed, ToDeliver, ToJudge};
use crate::pipeline::parse_stage::{ParseStage, UsedBatch};
use crate::pipeline::sequence_stage::Sequenced;
use crate::pipeline::state::{FromShard, StateShard};
use crate::record::Layout;
use crate::source::Source;

/// Runs the stages one after the other, chunk by chunk.
pub(super) fn run(sources: Vec<Box<dyn Source>>, stages: Stages) -> Result<RunReport, RunError> {
    let Stages { stop, clock, parse, new_parser, mut sequence, mut shards, tops, .. } = stages;
    let mut progress = stages.progress;
    let mut latencies = Latencies::default();
    let mut parser = ParseStage::new(parse, new_parser());
    let mut behind = Behind {
        shard: shards.pop().expect("there is a shard"),
        judge: stages.judge,
        delivery: stages.delivery,
        merge_pool: stages.merge_pool,
        used_out: stages.used_out,
        watch: Stopwatch::start(Arc::clone(&clock)),
    };
    let unknown_layout = Layout::default_v2();
    let mut emit = |chunk: Chunk| {
        let layout = sequence.sequencer().layout_of(chunk.input);
        let layout = layout.unwrap_or_else(|| unknown_layout.clone());
        let arrived = clock.monotonic();
        let mut began = arrived;
        parser.process(chunk, &layout, &mut |parsed| {
            behind.watch.skip();
            let now = behind.watch.last();
            latencies.parse.record(now.saturating_sub(began));
            let parsed = Parsed { arrived, parts: vec![parsed] };
            sequence.accept(parsed, now, &mut |sequenced| behind.take(sequenced, &mut latencies));
            behind.watch.lap(Stage::Sequence, 0);
            progress(sequence.sequencer().bytes_read());
            began = behind.watch.last();
            if behind.delivery.has_failed() || behind.judge.has_failed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    for source in sources {
        source.run(&stop, &mut emit)?;
    }
    behind.watch.skip();
    let now = behind.watch.last();
    let inputs = sequence.end(Ending::Close, true, now, &mut |sequenced| {
        behind.take(sequenced, &mut latencies);
    });
    let Behind { shard, judge, delivery, merge_pool, mut watch, .. } = behind;
    let delivered = delivery.finish();
    latencies.finding = delivered.latency.clone();
    let (tops_of_shard, sizes) = shard.into_tops();
    let tops_of_shards = [tops_of_shard];
    let (suppressed, trials) = judge.left_out();
    let talkers = judge.talkers();
    export(judge, stages.partial_job.as_ref(), (&tops_of_shards, sizes.as_ref()), &inputs)?;
    let answers = merge_pool.install(|| TopSet::answers(&tops_of_shards));
    watch.lap(Stage::Answer, 0);
    let mut profile = parser.take_profile();
    profile.merge(&watch.take_profile());
    let report = finish(inputs, &tops, answers, (sizes, talkers), delivered, (latencies, profile))?;
    Ok(RunReport { suppressed, trials, ..report })
}

/// The stages behind the sequencer.
struct Behind {
    shard: StateShard,
    judge: Judge,
    delivery: Delivery,
    merge_pool: Arc<ThreadPool>,
    used_out: Sender<UsedBatch>,
    watch: Stopwatch,
}

impl Behind {
    fn take(&mut self, sequenced: Sequenced, latencies: &mut Latencies) {
        self.watch.lap(Stage::Sequence, 0);
        let Self { shard, judge, delivery, merge_pool, used_out, watch } = self;
        // If the way back is full, enough batches are on it.
        let give_back = |batches: Vec<crate::aggregate::RoutedBatch>| {
            for routed in batches {
                let _is_full = used_out.try_send(routed.into_parts()).is_err();
            }
        };
        let message = match sequenced {
            Sequenced::Unread(batches) => return give_back(batches),
            Sequenced::Saved(_) => unreachable!("nothing is saved here"),
            Sequenced::Letters(letters) => {
                let message = ToDeliver::Letters(letters);
                let not_saved = &mut |_| unreachable!("nothing is saved here");
                return delivery.take(message, watch.last(), not_saved);
            }
            Sequenced::ToShards(message) => message,
        };
        let mut to_judge = Vec::new();
        shard.take(message, watch, &mut |_| Vec::new(), &mut |given| match given {
            FromShard::ToJudge(message) => to_judge.push(message),
            FromShard::Used(batches) => give_back(batches),
            FromShard::Saved { .. } => unreachable!("nothing is saved here"),
        });
        for message in to_judge {
            let busy = judge_one(judge, delivery, merge_pool, watch, message);
            latencies.judge.record(busy);
        }
    }
}

/// Judges and delivers; how long judging took.
fn judge_one(
    judge: &mut Judge,
    delivery: &mut Delivery,
    merge_pool: &ThreadPool,
    watch: &mut Stopwatch,
    message: ToJudge,
) -> Duration {
    let mut findings = Vec::new();
    merge_pool.install(|| {
        judge.take(message, &mut |_| Vec::new(), &mut |judged| match judged {
            Judged::ToDeliver(message) => findings.push(message),
            Judged::Saved(_) => unreachable!("nothing is saved here"),
        });
    });
    let busy = watch.lap(Stage::Judge, 0);
    for message in findings {
        delivery.take(message, watch.last(), &mut |_| unreachable!("nothing is saved here"));
    }
    watch.lap(Stage::Deliver, 0);
    busy
}
