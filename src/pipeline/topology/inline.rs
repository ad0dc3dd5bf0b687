//! The stages in one loop on the calling thread, for one thread and inputs that end.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Stages, finish};
use crate::aggregate::TopSet;
use crate::finding::Finding;
use crate::framing::Chunk;
use crate::metrics::{Stage, Stopwatch};
use crate::pipeline::deliver::{Delivery, DeliveryReport};
use crate::pipeline::job::{Latencies, RunError, RunReport};
use crate::pipeline::judge::ShardPanes;
use crate::pipeline::parse_stage::ParseStage;
use crate::pipeline::state::StateShard;
use crate::record::Layout;
use crate::source::Source;
use crate::units::UnixSeconds;

/// Runs the stages one after the other, chunk by chunk.
pub(super) fn run(sources: Vec<Box<dyn Source>>, stages: Stages) -> Result<RunReport, RunError> {
    let Stages { stop, clock, parse, new_parser, mut sequencer, mut shards, tops, .. } = stages;
    let (mut delivery, mut progress, used_out) =
        (stages.delivery, stages.progress, stages.used_out);
    let mut latencies = Latencies::default();
    let mut judge = stages.judge;
    let mut parser = ParseStage::new(parse, new_parser());
    let shard = &mut shards[0];
    let unknown_layout = Layout::default_v2();
    let mut watermark_given = UnixSeconds::MIN;
    // Kept from pane to pane for its memory.
    let mut findings = Vec::new();
    let mut watch = Stopwatch::start(Arc::clone(&clock));
    let mut emit = |chunk: Chunk| {
        let layout = sequencer.layout_of(chunk.input).unwrap_or_else(|| unknown_layout.clone());
        let mut began = clock.monotonic();
        parser.process(chunk, &layout, &mut |parsed| {
            watch.skip();
            let now = watch.last();
            latencies.parse.record(now.saturating_sub(began));
            sequencer.accept(parsed, now, &mut |routed| {
                watch.lap(Stage::Sequence, 0);
                shard.add(&routed, &mut watch);
                // If the way back is full, enough batches are on it.
                let _is_full = used_out.try_send(routed.into_parts()).is_err();
            });
            progress(sequencer.bytes_read());
            let watermark = sequencer.watermark(now);
            watch.lap(Stage::Sequence, 0);
            let mut goes_on = true;
            if watermark != watermark_given {
                watermark_given = watermark;
                let panes = shard.close_until(watermark);
                watch.lap(Stage::Contacts, 0);
                if let Some(judge) = &mut judge {
                    judge.accept(ShardPanes { shard_index: 0, watermark, panes }, &mut findings);
                }
                latencies.judge.record(watch.lap(Stage::Judge, 0));
                goes_on = delivery.deliver(&findings);
                findings.clear();
                watch.lap(Stage::Deliver, 0);
            }
            began = watch.last();
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    };
    for source in sources {
        source.run(&stop, &mut emit)?;
    }
    watch.skip();
    let panes = shard.close_all();
    watch.lap(Stage::Contacts, 0);
    if let Some(mut judge) = judge {
        let watermark = UnixSeconds::MAX;
        judge.accept(ShardPanes { shard_index: 0, watermark, panes }, &mut findings);
        judge.finish(&mut findings);
    }
    latencies.judge.record(watch.lap(Stage::Judge, 0));
    let delivered = deliver_rest(delivery, &findings);
    watch.lap(Stage::Deliver, 0);
    let tops_of_shards: Vec<TopSet> = shards.into_iter().map(StateShard::into_tops).collect();
    let answers = stages.merge_pool.install(|| TopSet::answers(&tops_of_shards));
    watch.lap(Stage::Answer, 0);
    let mut profile = parser.take_profile();
    profile.merge(&watch.take_profile());
    finish(sequencer.finish(), &tops, answers, delivered, (latencies, profile))
}

fn deliver_rest(mut delivery: Delivery, findings: &[Finding]) -> DeliveryReport {
    // A failed sink is in the delivery's report.
    let _all_delivered = delivery.deliver(findings);
    delivery.finish()
}
