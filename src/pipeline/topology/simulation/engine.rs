//! The stages of a run with queues for channels, moved one step at a time by whoever holds the dice.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::{Stages, stages_of};
use super::inputs::Input;
use super::random::Random;
use crate::aggregate::{TopAnswer, TopSet};
use crate::clock::Clock as _;
use crate::clock::ManualClock;
use crate::framing::{
    Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Payload, Position, Positions, ResumePoint,
};
use crate::metrics::Stopwatch;
use crate::pipeline::deliver::Delivery;
use crate::pipeline::job::{Job, RunError};
use crate::pipeline::judge::{Judge, Judged};
use crate::pipeline::layout_guess::LayoutGuess;
use crate::pipeline::message::{
    Ending, Epoch, Parsed, SavedPart, SnapshotFate, ToDeliver, ToJudge, ToShard,
};
use crate::pipeline::parse_stage::ParseStage;
use crate::pipeline::sequence::InputReport;
use crate::pipeline::sequence_stage::{SequenceStage, Sequenced};
use crate::pipeline::snapshot::SnapshotStage;
use crate::pipeline::state::{FromShard, StateShard};
use crate::record::{FormatChoice, Layout};
use crate::source::{Emit, Receipt, Settled, Source, SourceError, StopFlag};

/// Something that can move.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Source(usize),
    Parser(usize),
    Sequencer,
    Shard(usize),
    Judge,
    Deliverer,
    SnapshotWriter,
    /// News of a snapshot to the sequencer and the deliverer.
    Messenger,
}

/// What a run had to say.
pub(super) struct Outcome {
    pub(super) inputs: InputReport,
    pub(super) answers: Vec<TopAnswer>,
}

struct SimSource {
    input: Input,
    id: InputId,
    resume: Option<ResumePoint>,
    guess: LayoutGuess,
    sequence: u64,
    /// Lines handed on.
    lines_read: usize,
    /// Lines handed on up to the end of each event.
    lines_until: Vec<usize>,
    receipt: Receipt,
    stage: SourceStage,
}

#[derive(PartialEq, Eq)]
enum SourceStage {
    Closed,
    Open,
    Ended,
}

/// Lines of inputs that their sources were told are safe.
pub(super) type SafeLines = BTreeMap<Arc<str>, usize>;

/// Gives away the place where sources are told what is safe.
struct Probe(Arc<Mutex<Option<Arc<Settled>>>>);

impl Source for Probe {
    fn settled_by(&mut self, settled: Arc<Settled>) {
        *self.0.lock().unwrap() = Some(settled);
    }

    fn run(self: Box<Self>, _: &StopFlag, _: &mut Emit<'_>) -> Result<(), SourceError> {
        unreachable!("the engine reads inputs by itself")
    }
}

/// A shard with what is on its way to it.
type SimShard = (StateShard, VecDeque<ToShard>, Stopwatch);

/// A run of the stages.
pub(super) struct Engine {
    capacity: usize,
    clock: Arc<ManualClock>,
    sources: Vec<SimSource>,
    work: VecDeque<(Chunk, Arc<Layout>, Duration)>,
    parsers: Vec<(ParseStage, VecDeque<Parsed>)>,
    parsed: VecDeque<Parsed>,
    sequence: Option<SequenceStage>,
    report: Option<InputReport>,
    shards: Vec<SimShard>,
    to_judge: VecDeque<ToJudge>,
    judge: Judge,
    to_deliver: VecDeque<ToDeliver>,
    delivery: Delivery,
    saved: VecDeque<SavedPart>,
    snapshots: Option<SnapshotStage>,
    /// From where this life went on.
    positions: Positions,
    settled: VecDeque<(Epoch, bool)>,
    /// Whether inputs can be read again after their end.
    is_rereadable: bool,
    /// Whether sources were told to stop.
    is_stopping: bool,
}

impl Engine {
    /// The engine of a job, which has no sources: `inputs` are read by its own.
    pub(super) fn new(
        mut job: Job,
        inputs: &[Input],
        capacity: usize,
        clock: Arc<ManualClock>,
    ) -> Result<Self, RunError> {
        let is_rereadable = job.time.idle_after.is_none();
        let settled = Arc::default();
        job.sources = vec![Box::new(Probe(Arc::clone(&settled)))];
        let (_, stages) = stages_of(job)?;
        let settled = settled.lock().unwrap().take().expect("a source is told");
        let Stages { parse, new_parser, sequence, shards, judge, delivery, snapshots, .. } = stages;
        let positions = sequence.sequencer().positions();
        let sources = (0..).zip(inputs).filter(|(_, input)| !positions.is_finished(&input.name));
        let sources = sources.map(|(id, input)| SimSource {
            lines_read: positions.point(&input.name).map_or(0, |point| {
                let lines = point.position.as_generated().expect("positions are lines");
                usize::try_from(lines).expect("few lines")
            }),
            input: input.clone(),
            id: InputId(id),
            resume: positions.point(&input.name).cloned(),
            guess: LayoutGuess::default(),
            sequence: 0,
            lines_until: Vec::new(),
            receipt: settled.watch(InputId(id)),
            stage: SourceStage::Closed,
        });
        let sources = sources.collect();
        let parser = || (ParseStage::new(parse.clone(), new_parser()), VecDeque::new());
        let watch = || Stopwatch::start(clock.clone());
        Ok(Self {
            capacity,
            sources,
            work: VecDeque::new(),
            parsers: vec![parser(), parser()],
            parsed: VecDeque::new(),
            sequence: Some(sequence),
            report: None,
            shards: shards.into_iter().map(|shard| (shard, VecDeque::new(), watch())).collect(),
            to_judge: VecDeque::new(),
            judge,
            to_deliver: VecDeque::new(),
            delivery,
            saved: VecDeque::new(),
            snapshots,
            positions,
            settled: VecDeque::new(),
            is_rereadable,
            is_stopping: false,
            clock,
        })
    }

    /// Lines that sources were told are safe.
    pub(super) fn safe_lines(&self) -> SafeLines {
        let safe = self.sources.iter().filter_map(|source| {
            let event_count = usize::try_from(source.receipt.event_count()).expect("few events");
            let last = event_count.checked_sub(1)?;
            Some((Arc::clone(&source.input.name), source.lines_until[last]))
        });
        safe.collect()
    }

    /// Fails if this life reads any of these lines again.
    pub(super) fn check_safe(&self, safe: &SafeLines) {
        for (name, lines) in safe.iter().filter(|(_, lines)| **lines > 0) {
            let point = self.positions.point(name);
            let known = point.and_then(|point| point.position.as_generated());
            let is_known = known.is_some_and(|known| known >= *lines as u64);
            assert!(
                is_known || self.positions.is_finished(name),
                "{lines} lines of {name} were said to be safe, and {known:?} are"
            );
        }
    }

    /// Asks sources to stop, as a signal does.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Moves one thing that can move; false if nothing can.
    pub(super) fn step(&mut self, random: &mut Random) -> bool {
        let actors = self.able();
        if actors.is_empty() {
            return false;
        }
        let actor = actors[random.below(actors.len())];
        self.act(actor);
        true
    }

    /// Whether everything was read to its end, and is where it belongs.
    pub(super) fn is_done(&self) -> bool {
        !self.is_stopping && self.able().is_empty() && !self.delivery.is_waiting()
    }

    /// What came out.
    pub(super) fn outcome(self) -> Outcome {
        assert!(self.sequence.is_none(), "the stream ended");
        let tops: Vec<TopSet> =
            self.shards.into_iter().map(|(shard, _, _)| shard.into_tops().0).collect();
        let report = self.delivery.finish();
        assert!(report.failure.is_none() && report.unwritten == 0, "{report:?}");
        Outcome { inputs: self.report.expect("it ended"), answers: TopSet::answers(&tops) }
    }

    fn able(&self) -> Vec<Actor> {
        let mut able = Vec::new();
        let has_room = |queued: usize| queued < self.capacity;
        let reads = |source: &SimSource| match source.stage {
            SourceStage::Ended => false,
            SourceStage::Closed => !self.is_stopping,
            SourceStage::Open => true,
        };
        if has_room(self.work.len()) {
            let reading = self.sources.iter().enumerate().filter(|(_, source)| reads(source));
            able.extend(reading.map(|(index, _)| Actor::Source(index)));
        }
        for (index, (_, done)) in self.parsers.iter().enumerate() {
            let can_give = !done.is_empty() && has_room(self.parsed.len());
            if can_give || done.is_empty() && !self.work.is_empty() {
                able.push(Actor::Parser(index));
            }
        }
        let nothing_comes = !self.sources.iter().any(reads)
            && self.work.is_empty()
            && self.parsers.iter().all(|(_, done)| done.is_empty());
        if self.sequence.is_some()
            && (!self.parsed.is_empty() || nothing_comes)
            && self.shards.iter().all(|(_, rows, _)| has_room(rows.len()))
            && has_room(self.to_deliver.len())
        {
            able.push(Actor::Sequencer);
        }
        for (index, (_, rows, _)) in self.shards.iter().enumerate() {
            if !rows.is_empty() && has_room(self.to_judge.len()) {
                able.push(Actor::Shard(index));
            }
        }
        if !self.to_judge.is_empty() && has_room(self.to_deliver.len()) {
            able.push(Actor::Judge);
        }
        if !self.to_deliver.is_empty() && !self.delivery.is_full() || self.delivery.is_waiting() {
            able.push(Actor::Deliverer);
        }
        if !self.saved.is_empty() {
            able.push(Actor::SnapshotWriter);
        }
        if !self.settled.is_empty() {
            able.push(Actor::Messenger);
        }
        able
    }

    fn act(&mut self, actor: Actor) {
        let now = self.clock.monotonic();
        match actor {
            Actor::Source(index) => self.read(index, now),
            Actor::Parser(index) => self.parse(index),
            Actor::Sequencer => self.put_in_order(now),
            Actor::Shard(index) => self.keep(index),
            Actor::Judge => {
                let Some(message) = self.to_judge.pop_front() else { return };
                let Self { judge, to_deliver, saved, .. } = self;
                judge.take(message, &mut |_| Vec::new(), &mut |judged| match judged {
                    Judged::ToDeliver(message) => to_deliver.push_back(message),
                    Judged::Saved(part) => saved.push_back(part),
                });
            }
            Actor::Deliverer => {
                let Self { delivery, saved, .. } = self;
                let save = &mut |part| saved.push_back(part);
                if delivery.is_full() {
                    delivery.work(now, save);
                } else {
                    match self.to_deliver.pop_front() {
                        Some(message) => delivery.take(message, now, save),
                        None => delivery.work(now, save),
                    }
                }
            }
            Actor::SnapshotWriter => {
                let Some(part) = self.saved.pop_front() else { return };
                let writer = self.snapshots.as_mut().expect("parts are saved for it");
                if let Some(settled) = writer.take(part, self.clock.now()) {
                    self.settled.push_back((settled.epoch, settled.is_durable));
                }
            }
            Actor::Messenger => {
                let Some((epoch, is_durable)) = self.settled.pop_front() else { return };
                if let Some(sequence) = &mut self.sequence {
                    let fate = if is_durable { SnapshotFate::Safe } else { SnapshotFate::Unsafe };
                    sequence.settled(epoch, fate);
                }
                if is_durable {
                    self.delivery.durable(epoch);
                }
            }
        }
    }

    fn read(&mut self, index: usize, now: Duration) {
        let source = &mut self.sources[index];
        let at_end = source.lines_read == source.input.lines.len();
        let event = match source.stage {
            SourceStage::Closed => {
                source.stage = SourceStage::Open;
                let name = Arc::clone(&source.input.name);
                let mut info = InputInfo::new(name, FormatChoice::Auto);
                info.resume = source.resume.take();
                ChunkEvent::Open(info)
            }
            SourceStage::Open if self.is_stopping => {
                source.stage = SourceStage::Ended;
                ChunkEvent::Stop
            }
            SourceStage::Open if at_end => {
                source.stage = SourceStage::Ended;
                ChunkEvent::Close(None)
            }
            SourceStage::Open => {
                let ends = &source.input.chunk_ends;
                let end = ends.iter().copied().find(|end| *end > source.lines_read);
                let end = end.expect("the last chunk ends with the lines");
                let mut text = source.input.lines[source.lines_read..end].join("\n");
                text.push('\n');
                source.lines_read = end;
                let bytes_read = text.len() as u64;
                ChunkEvent::Data(ChunkData {
                    payload: Payload::Lines(text.into_bytes().into()),
                    bytes_read,
                    position: Some(Position::generated(end as u64)),
                })
            }
            SourceStage::Ended => return,
        };
        let chunk = Chunk { input: source.id, sequence: source.sequence, event };
        source.sequence += 1;
        source.lines_until.push(source.lines_read);
        let layout = source.guess.layout_for(&chunk);
        self.work.push_back((chunk, layout, now));
    }

    fn parse(&mut self, index: usize) {
        let (parser, done) = &mut self.parsers[index];
        if let Some(parsed) = done.pop_front() {
            self.parsed.push_back(parsed);
        } else if let Some((chunk, layout, arrived)) = self.work.pop_front() {
            let end = parser.process(chunk, &layout, &mut |part| {
                done.push_back(Parsed { arrived, parts: vec![part] });
                ControlFlow::Continue(())
            });
            assert!(end.is_continue());
        }
    }

    /// Has the sequencer look at the time.
    pub(super) fn tick(&mut self) {
        let now = self.clock.monotonic();
        let Self { sequence, shards, to_deliver, saved, .. } = self;
        if let Some(sequence) = sequence {
            sequence.tick(now, &mut |sequenced| forward(sequenced, shards, to_deliver, saved));
        }
    }

    fn put_in_order(&mut self, now: Duration) {
        let Self { parsed, sequence, shards, to_deliver, saved, .. } = self;
        let mut forward = |sequenced| forward(sequenced, shards, to_deliver, saved);
        if let Some(parsed) = parsed.pop_front() {
            sequence.as_mut().expect("it was asked").accept(parsed, now, &mut forward);
        } else if let Some(sequence) = sequence.take() {
            let has_state = self.snapshots.is_some();
            let keeps = self.is_stopping && has_state;
            let ending = if keeps { Ending::Keep } else { Ending::Close };
            self.report = Some(sequence.end(ending, self.is_rereadable, now, &mut forward));
        }
    }

    fn keep(&mut self, index: usize) {
        let Self { shards, to_judge, saved, .. } = self;
        let (shard, rows, watch) = &mut shards[index];
        let Some(message) = rows.pop_front() else { return };
        shard.take(message, watch, &mut |_| Vec::new(), &mut |given| match given {
            FromShard::ToJudge(message) => to_judge.push_back(message),
            FromShard::Saved { part, .. } => saved.push_back(part),
            FromShard::Used(_) => {}
        });
    }
}

fn forward(
    sequenced: Sequenced,
    shards: &mut [SimShard],
    to_deliver: &mut VecDeque<ToDeliver>,
    saved: &mut VecDeque<SavedPart>,
) {
    match sequenced {
        Sequenced::Unread(_) => {}
        Sequenced::Letters(letters) => to_deliver.push_back(ToDeliver::Letters(letters)),
        Sequenced::Saved(part) => saved.push_back(part),
        Sequenced::ToShards(message) => {
            shards.iter_mut().for_each(|(_, rows, _)| rows.push_back(message.clone()));
        }
    }
}
