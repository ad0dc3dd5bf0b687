//! A little of a source: read for a limited time and a limited number of bytes, unwrapped, not yet judged.
//!
//! Nothing is told to a service, and no position is kept: to whoever reads the source for good, nothing has
//! happened.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::cli::failure::Failure;
use crate::framing::{
    Chunk, ChunkEvent, Deframer, Framed, InputFault, InputId, InputInfo, LayoutScope, Limits,
    Payload, RecordFault, wrappings,
};
use crate::record::TextSlice;
use crate::simd::Isa;
use crate::source::{Source, SourceError, StopFlag};

/// Records of a stream whose wrapping is looked at.
const WRAPPED_RECORDS_MAX: u64 = 256;
/// Unwrapped text that one input may give beyond the limit of bytes read.
const INFLATION_MAX: u64 = 8;

/// How much is read at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleLimits {
    pub(super) time: Duration,
    pub(super) bytes: u64,
}

/// What was read of a source.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) inputs: Vec<InputSample>,
    /// Ways of wrapping, outermost first, with how many payloads were so.
    pub(super) wrappings: BTreeMap<Vec<&'static str>, u64>,
    pub(super) bytes_read: u64,
    pub(super) control_count: u64,
    /// Records that could not be unwrapped.
    pub(super) faults: Vec<RecordFault>,
    /// When the newest record came to its service, Unix milliseconds.
    pub(super) newest_arrival_ms: Option<i64>,
    /// Whether the limit of bytes left something out.
    pub(super) is_cut: bool,
    /// What ended inputs early.
    pub(super) input_faults: Vec<(Arc<str>, InputFault)>,
    /// What the source as a whole was refused.
    pub(super) refusal: Option<SourceError>,
}

/// What was read of one input.
#[derive(Debug)]
pub(super) struct InputSample {
    pub(super) info: InputInfo,
    pub(super) parts: Vec<Lines>,
}

/// Unwrapped lines and the layouts that their runs are bound to.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) text: TextSlice,
    pub(super) runs: Vec<(Range<usize>, LayoutScope)>,
}

impl Sample {
    /// Reads a little of some sources, one after the other.
    pub(super) fn take(
        sources: Vec<Box<dyn Source>>,
        limits: SampleLimits,
        stop: &StopFlag,
    ) -> Result<Self, Failure> {
        let mut sample = Self::default();
        for source in sources {
            if stop.is_requested() {
                break;
            }
            Taker::new(&mut sample, limits).run(source, stop)?;
        }
        Ok(sample)
    }

    /// Counts how a payload is wrapped.
    pub(super) fn see_wrapping(&mut self, start: &[u8]) {
        *self.wrappings.entry(wrappings(start)).or_default() += 1;
    }
}

/// Reads one source into a sample.
struct Taker<'a> {
    sample: &'a mut Sample,
    limits: SampleLimits,
    deframer: Deframer,
    places: HashMap<InputId, usize>,
    bytes_read: u64,
    bytes_unwrapped: u64,
    records_seen: u64,
}

impl<'a> Taker<'a> {
    fn new(sample: &'a mut Sample, limits: SampleLimits) -> Self {
        Self {
            sample,
            limits,
            deframer: Deframer::new(Isa::detect(), &Limits::default()),
            places: HashMap::new(),
            bytes_read: 0,
            bytes_unwrapped: 0,
            records_seen: 0,
        }
    }

    fn run(mut self, source: Box<dyn Source>, stop: &StopFlag) -> Result<(), Failure> {
        // The source's own flag: a time that is over for one is not over for the next.
        let (ended, alarm_ends) = bounded::<()>(0);
        let over = StopFlag::default();
        let (rings, asked, time) = (over.clone(), stop.clone(), self.limits.time);
        let alarm = std::thread::Builder::new()
            .name("doctor-alarm".to_owned())
            .spawn(move || ring_after(time, &alarm_ends, &asked, &rings))
            .map_err(|error| {
                Failure::running(anyhow::Error::new(error).context("cannot start a thread"))
            })?;
        let outcome = source.run(&over, &mut |chunk| self.see(chunk));
        drop(ended);
        alarm.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.sample.bytes_read += self.bytes_read;
        if let Err(refusal) = outcome {
            self.sample.refusal = Some(refusal);
        }
        Ok(())
    }

    fn see(&mut self, chunk: Chunk) -> ControlFlow<()> {
        match chunk.event {
            ChunkEvent::Open(info) => {
                self.places.insert(chunk.input, self.sample.inputs.len());
                self.sample.inputs.push(InputSample { info, parts: Vec::new() });
            }
            ChunkEvent::Data(data) => {
                self.bytes_read += data.bytes_read;
                let place = self.places[&chunk.input];
                self.see_payload(place, &data.payload);
                return self.unwrap(place, data.payload);
            }
            ChunkEvent::Close(Some(fault)) => self.note_fault(self.places[&chunk.input], fault),
            ChunkEvent::Idle | ChunkEvent::Stop | ChunkEvent::Close(None) => {}
        }
        ControlFlow::Continue(())
    }

    fn see_payload(&mut self, place: usize, payload: &Payload) {
        // Of files the caller looks at the first bytes.
        let is_file = self.sample.inputs[place].info.file_start.is_some();
        match payload {
            Payload::Records(records) => {
                for record in records {
                    let newest = &mut self.sample.newest_arrival_ms;
                    *newest = (*newest).max((record.arrival_ms > 0).then_some(record.arrival_ms));
                    self.records_seen += 1;
                    if self.records_seen <= WRAPPED_RECORDS_MAX {
                        self.sample.see_wrapping(&record.data);
                    }
                }
            }
            Payload::Lines(text) | Payload::Documents(text)
                if !is_file && self.records_seen == 0 && !text.is_empty() =>
            {
                self.records_seen += 1;
                self.sample.see_wrapping(text);
            }
            _ => {}
        }
    }

    fn unwrap(&mut self, place: usize, payload: Payload) -> ControlFlow<()> {
        let Self { deframer, sample, limits, bytes_read, bytes_unwrapped, .. } = self;
        deframer.deframe(payload, &mut |framed| {
            *bytes_read += framed.bytes_read;
            *bytes_unwrapped += framed.lines.len() as u64;
            let is_full = *bytes_read >= limits.bytes
                || *bytes_unwrapped >= limits.bytes.saturating_mul(INFLATION_MAX);
            keep(sample, place, framed);
            if is_full {
                sample.is_cut = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
    }

    fn note_fault(&mut self, place: usize, fault: InputFault) {
        let name = Arc::clone(&self.sample.inputs[place].info.name);
        self.sample.input_faults.push((name, fault));
    }
}

fn keep(sample: &mut Sample, place: usize, framed: Framed) {
    sample.control_count += framed.control;
    let runs = framed.runs().map(|run| (run.bytes.clone(), run.scope.clone())).collect();
    sample.faults.extend(framed.faults);
    let input = &mut sample.inputs[place];
    if let Some(fault) = framed.input_fault {
        sample.input_faults.push((Arc::clone(&input.info.name), fault));
    }
    input.parts.push(Lines { text: framed.lines, runs });
}

/// Requests the end when the time is over or somebody asks for it.
fn ring_after(
    time: Duration,
    alarm_ends: &crossbeam_channel::Receiver<()>,
    asked: &StopFlag,
    rings: &StopFlag,
) {
    const LOOK_INTERVAL: Duration = Duration::from_millis(50);
    let mut left = time;
    while !left.is_zero() && !asked.is_requested() {
        let step = left.min(LOOK_INTERVAL);
        match alarm_ends.recv_timeout(step) {
            Err(RecvTimeoutError::Timeout) => left -= step,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    rings.request();
}
