//! The sequencer with the pace of time: parsed chunks in, rows, watermarks and barriers out.
//!
//! Barriers begin here, because here every input is in order: what was handed on before one is exactly
//! what the positions in its snapshot stand for. What is still with the sources and parse workers is in neither, and
//! is read again after a restart.

use std::sync::Arc;
use std::time::Duration;

use super::assembly::RunHeader;
use super::dead_letters::Letter;
use super::job::Control;
use super::message::{Ending, Epoch, Parsed, PartName, SavedPart, SnapshotFate, ToShard};
use super::receipts::Receipts;
use super::sequence::{InputReport, Sequencer};
use crate::aggregate::RoutedBatch;
use crate::codec::Encoder;
use crate::units::UnixSeconds;

/// Reading of so long is done again sooner than its state is written.
const REREAD_MAX: Duration = Duration::from_secs(10);

/// What the stage gives.
pub(super) enum Sequenced {
    /// To every shard.
    ToShards(ToShard),
    /// Batches that nobody reads, because only totals were asked for.
    Unread(Vec<RoutedBatch>),
    Saved(SavedPart),
    /// To the deliverer: what could not be read of what was handed on before.
    Letters(Vec<Letter>),
}

/// When barriers are sent.
#[derive(Debug)]
pub(super) struct Pacing {
    interval: Duration,
    /// When the last one was sent, by the monotonic clock.
    last_at: Duration,
    next_epoch: Epoch,
    /// The one whose snapshot is not written yet: there is no other until it is.
    in_flight: Option<Epoch>,
}

impl Pacing {
    /// Barriers every `interval` from `now` on.
    pub(super) const fn new(interval: Duration, next_epoch: Epoch, now: Duration) -> Self {
        Self { interval, last_at: now, next_epoch, in_flight: None }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    fn is_due(&self, now: Duration) -> bool {
        self.in_flight.is_none() && now.saturating_sub(self.last_at) >= self.interval
    }

    fn begin(&mut self, now: Duration) -> Epoch {
        let epoch = self.next_epoch;
        self.next_epoch = Epoch(epoch.0 + 1);
        self.in_flight = Some(epoch);
        self.last_at = now;
        epoch
    }
}

/// The stage without its thread.
pub(super) struct SequenceStage {
    sequencer: Sequencer,
    /// Whether shards do anything with rows.
    need_rows: bool,
    watermark_given: UnixSeconds,
    pacing: Option<(RunHeader, Pacing)>,
    receipts: Receipts,
}

impl SequenceStage {
    pub(super) fn new(
        sequencer: Sequencer,
        need_rows: bool,
        pacing: Option<(RunHeader, Pacing)>,
        receipts: Receipts,
    ) -> Self {
        Self { sequencer, need_rows, watermark_given: UnixSeconds::MIN, pacing, receipts }
    }

    /// Takes parts of a chunk.
    pub(super) fn accept(&mut self, parsed: Parsed, now: Duration, out: &mut dyn FnMut(Sequenced)) {
        let Parsed { arrived, parts } = parsed;
        let mut batches = Vec::new();
        let input = parts.last().map(|part| part.input);
        for part in parts {
            self.sequencer.accept(part, now, &mut |routed| batches.push(routed));
        }
        self.receipts.note_ended(self.sequencer.take_ended());
        // Before any barrier: they are with the deliverer when the barrier comes to it.
        let letters = self.sequencer.take_letters();
        if !letters.is_empty() {
            out(Sequenced::Letters(letters));
        }
        if !self.need_rows {
            out(Sequenced::Unread(batches));
        } else if !batches.is_empty() {
            out(Sequenced::ToShards(ToShard::Rows(Arc::new(batches))));
        }
        if self.pacing.is_none() {
            let handed_on = |input| Some((input, self.sequencer.event_count(input)?));
            self.receipts.handed_on(input.and_then(handed_on));
        }
        self.advance(arrived, now, out);
    }

    /// Looks at the time when nothing arrives.
    pub(super) fn tick(&mut self, now: Duration, out: &mut dyn FnMut(Sequenced)) {
        self.advance(now, now, out);
    }

    /// Takes a change of settings.
    pub(super) fn control(&mut self, control: Control, out: &mut dyn FnMut(Sequenced)) {
        match control {
            Control::Detectors(detectors) => {
                out(Sequenced::ToShards(ToShard::Detectors(Arc::new(*detectors))));
            }
            Control::CheckpointInterval(interval) => {
                if let Some((_, pacing)) = &mut self.pacing {
                    pacing.interval = interval;
                }
            }
        }
    }

    /// The snapshot of this barrier is written, or has failed; if it is copied, that is told later.
    pub(super) fn settled(&mut self, epoch: Epoch, fate: SnapshotFate) {
        if let Some((_, pacing)) = &mut self.pacing
            && pacing.in_flight == Some(epoch)
        {
            pacing.in_flight = None;
        }
        self.receipts.snapshot_settled(epoch, fate);
    }

    /// Ends the stream, after a last barrier if there are any. Inputs that ended by themselves and can be read again
    /// (`is_rereadable`) need none when the last one is only [`REREAD_MAX`] ago: the next run reads again what
    /// came since, as after a kill, and the journal knows what it finds.
    pub(super) fn end(
        mut self,
        ending: Ending,
        is_rereadable: bool,
        now: Duration,
        out: &mut dyn FnMut(Sequenced),
    ) -> InputReport {
        let last_at = self.pacing.as_ref().map_or(now, |(_, pacing)| pacing.last_at);
        let is_long_ago = now.saturating_sub(last_at) >= REREAD_MAX;
        if ending == Ending::Keep || !is_rereadable || is_long_ago {
            self.barrier(now, out);
        }
        out(Sequenced::ToShards(ToShard::End(ending)));
        self.sequencer.finish()
    }

    pub(super) const fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    fn advance(&mut self, arrived: Duration, now: Duration, out: &mut dyn FnMut(Sequenced)) {
        let watermark = self.sequencer.watermark(now);
        if watermark != self.watermark_given {
            self.watermark_given = watermark;
            out(Sequenced::ToShards(ToShard::Watermark { watermark, arrived }));
        }
        if self.pacing.as_ref().is_some_and(|(_, pacing)| pacing.is_due(now)) {
            self.barrier(now, out);
        }
    }

    fn barrier(&mut self, now: Duration, out: &mut dyn FnMut(Sequenced)) {
        let Some((header, pacing)) = &mut self.pacing else { return };
        let epoch = pacing.begin(now);
        self.receipts.cut(epoch, self.sequencer.event_counts());
        let mut saved = Encoder::default();
        header.save(&mut saved);
        self.sequencer.save(&mut saved);
        let part = SavedPart::new(epoch, PartName::Inputs, saved);
        out(Sequenced::Saved(part));
        out(Sequenced::ToShards(ToShard::Barrier(epoch)));
    }
}
