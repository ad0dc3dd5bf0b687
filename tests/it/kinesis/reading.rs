//! A Kinesis source at work: what it emits, checked for order while it comes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;

use flowgauge::clock::{Clock, SystemClock};
use flowgauge::framing::{
    Chunk, ChunkEvent, InputId, Payload, Positions, ReadUntil, ResumePoint, SourceRecord,
};
use flowgauge::record::FormatChoice;
use flowgauge::source::kinesis::{KinesisCounters, KinesisSettings, KinesisSource};
use flowgauge::source::{InputIds, Source, SourceError, StopFlag};

use crate::servers::DEADLINE;

/// What one input has brought so far.
#[derive(Debug)]
pub(crate) struct Input {
    /// `stream/shardId-…`.
    pub(crate) name: String,
    /// Its records in order.
    pub(crate) records: Vec<SourceRecord>,
    next_sequence: u64,
    /// Places in the order of all chunks.
    pub(crate) opened_at: usize,
    pub(crate) first_data_at: Option<usize>,
    pub(crate) closed_at: Option<usize>,
    /// The fault in its close event.
    pub(crate) fault: Option<String>,
    /// Where it goes on.
    pub(crate) point: ResumePoint,
    /// Whether it was read to its end.
    pub(crate) is_finished: bool,
}

/// How far an input was read.
pub(crate) fn read_until(input: &Input) -> ReadUntil {
    if input.is_finished { ReadUntil::End } else { ReadUntil::Point(input.point.clone()) }
}

/// How far inputs were read.
pub(crate) fn positions(inputs: &BTreeMap<InputId, Input>) -> Positions {
    inputs.values().map(|input| (Arc::from(&*input.name), read_until(input))).collect()
}

/// A source on a thread of its own and everything that it emitted.
pub(crate) struct Reading {
    pub(crate) counters: Arc<KinesisCounters>,
    pub(crate) stop: StopFlag,
    pub(crate) inputs: BTreeMap<InputId, Input>,
    chunks: Receiver<Chunk>,
    chunk_count: usize,
    thread: JoinHandle<Result<(), SourceError>>,
}

impl Reading {
    /// Starts to read.
    pub(crate) fn start(settings: KinesisSettings) -> Self {
        Self::resume(settings, Positions::default())
    }

    /// Starts to read with another clock.
    pub(crate) fn start_by(settings: KinesisSettings, clock: Arc<dyn Clock>) -> Self {
        Self::begin(settings, Positions::default(), clock)
    }

    /// Starts to read where another left off.
    pub(crate) fn resume(settings: KinesisSettings, positions: Positions) -> Self {
        Self::begin(settings, positions, Arc::new(SystemClock::new()))
    }

    fn begin(settings: KinesisSettings, positions: Positions, clock: Arc<dyn Clock>) -> Self {
        let mut source = Box::new(KinesisSource::new(
            "prod".into(),
            settings,
            FormatChoice::Auto,
            Arc::new(InputIds::default()),
            clock,
        ));
        source.resume(Arc::new(positions));
        let counters = source.counters();
        let stop = StopFlag::default();
        // Nothing waits in between: a chunk that is not asked for holds the source back.
        let (to, chunks) = sync_channel(0);
        let its_stop = stop.clone();
        let thread = std::thread::Builder::new()
            .name("source".into())
            .spawn(move || {
                source.run(&its_stop, &mut |chunk| match to.send(chunk) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                })
            })
            .unwrap();
        Self { counters, stop, inputs: BTreeMap::new(), chunks, chunk_count: 0, thread }
    }

    /// Takes chunks until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let clock = SystemClock::new();
        while !done(self) {
            let left = DEADLINE.saturating_sub(clock.monotonic());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.take(chunk),
                Err(RecvTimeoutError::Timeout) => panic!("{what} did not happen: {self:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended before {what}: {self:?}"),
            }
        }
    }

    /// Asks the source to stop, takes what it still has, and checks that every input was closed.
    pub(crate) fn stop(self) -> BTreeMap<InputId, Input> {
        self.stop.request();
        let (inputs, outcome) = self.end();
        outcome.unwrap();
        inputs
    }

    /// Takes what comes until the source ends by itself.
    pub(crate) fn end(mut self) -> (BTreeMap<InputId, Input>, Result<(), SourceError>) {
        let clock = SystemClock::new();
        loop {
            let left = DEADLINE.saturating_sub(clock.monotonic());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.take(chunk),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {self:?}"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let outcome = self.thread.join().unwrap();
        for input in self.inputs.values() {
            assert!(input.closed_at.is_some(), "{} is left open", input.name);
        }
        (self.inputs, outcome)
    }

    /// Goes away without taking anything more; what the source then said.
    pub(crate) fn hang_up(self) -> Result<(), SourceError> {
        drop(self.chunks);
        self.thread.join().unwrap()
    }

    /// Records so far.
    pub(crate) fn record_count(&self) -> usize {
        self.inputs.values().map(|input| input.records.len()).sum()
    }

    fn take(&mut self, chunk: Chunk) {
        let at = self.chunk_count;
        self.chunk_count += 1;
        if let ChunkEvent::Open(info) = chunk.event {
            assert_eq!(chunk.sequence, 0);
            let input = Input {
                name: info.name.to_string(),
                records: Vec::new(),
                next_sequence: 1,
                opened_at: at,
                first_data_at: None,
                closed_at: None,
                fault: None,
                point: info.resume.expect("a shard is always read from somewhere"),
                is_finished: false,
            };
            assert!(self.inputs.insert(chunk.input, input).is_none(), "opened once");
            return;
        }
        let input = self.inputs.get_mut(&chunk.input).expect("opened first");
        assert_eq!(chunk.sequence, input.next_sequence, "{} has a gap", input.name);
        assert_eq!(input.closed_at, None, "{} goes on after its end", input.name);
        input.next_sequence += 1;
        match chunk.event {
            ChunkEvent::Data(data) => {
                let Payload::Records(records) = data.payload else { panic!("not records") };
                let bytes: usize = records.iter().map(|record| record.data.len()).sum();
                assert_eq!(data.bytes_read, bytes as u64);
                assert!(records.len() == 1 || bytes <= 1 << 20);
                input.first_data_at.get_or_insert(at);
                input.records.extend(records);
                input.point.position = data.position.expect("every record has its number");
            }
            ChunkEvent::Idle => {}
            ChunkEvent::Stop => input.closed_at = Some(at),
            ChunkEvent::Close(fault) => {
                input.closed_at = Some(at);
                input.is_finished = true;
                input.fault = fault.map(|fault| fault.to_string());
            }
            ChunkEvent::Open(_) => unreachable!("taken above"),
        }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inputs: Vec<_> = self
            .inputs
            .values()
            .map(|input| (&input.name, input.records.len(), input.closed_at))
            .collect();
        write!(f, "{inputs:?} {:?}", self.counters)
    }
}

/// Payloads per input name, in order.
pub(crate) fn payloads(inputs: &BTreeMap<InputId, Input>) -> BTreeMap<String, Vec<Vec<u8>>> {
    inputs
        .values()
        .map(|input| {
            let payloads = input.records.iter().map(|record| record.data.to_vec()).collect();
            (input.name.clone(), payloads)
        })
        .collect()
}
