//! The sequencer: puts the chunks of each input back in order, and does what needs order.
//!
//! Parse workers finish in any order. Here the layout that a chunk was parsed with is compared with the
//! one that its predecessor left (and the chunk parsed again in the rare case that a header changed
//! it in between), line numbers become those of the input, late records are told from the others, and
//! the totals are summed. Not in the way of parallelism: a few instructions per chunk, one comparison per record.

mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::dead_letters::Letter;
use super::parse_stage::{LineSample, ParseStage, ParsedChunk, ParsedData, ParsedEvent};
use crate::aggregate::{RoutedBatch, TimeSettings, Totals, Watermarks};
use crate::causes::with_causes;
use crate::framing::{
    FileStart, FinishedInputs, InputFault, InputId, InputInfo, InputKind, Position,
};
use crate::record::{FaultKind, FieldId, FormatChoice, Layout, SAMPLE_BYTES_MAX};
use crate::units::UnixSeconds;

/// Samples of malformed records that a report shows.
pub const MALFORMED_SAMPLES_MAX: usize = 20;

/// Inputs that a report names because they failed, and as many because they had late records: those that were
/// opened first, or come first by name. A stream of objects has no end.
const NAMED_INPUTS_MAX: usize = 1000;

/// Unknown fields that are warned of, each once; who writes headers could make up any number.
const UNKNOWN_NAMES_MAX: usize = 1000;

/// A line is logged for the first finished input that had to be forgotten, and then for every so many.
const FORGOTTEN_PER_LINE: u64 = 1 << 20;

/// A malformed record as reports show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedSample {
    /// `file:line`, or `stream/shard:sequence number`.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
    /// The field at fault, from 1; 0 if it is the line as a whole.
    pub column: u16,
    /// The first bytes, as text.
    pub text: String,
}

/// An input that ended with a fault.
#[derive(Debug)]
pub struct FailedInput {
    /// The input's name.
    pub name: Arc<str>,
    /// What ended it, with its causes.
    pub message: String,
}

/// Everything that was counted about a run's inputs.
#[derive(Debug, Default)]
pub struct InputReport {
    /// Inputs opened.
    pub input_count: u64,
    /// Bytes read from outside.
    pub bytes_read: u64,
    /// Bytes of flow log text after decompression and unwrapping of files and records.
    pub bytes_decoded: u64,
    /// Lines by what they were.
    pub totals: Totals,
    /// The first malformed records of each input, in input order.
    pub malformed_samples: Vec<MalformedSample>,
    /// Inputs that could not be read to their end.
    pub failed: Vec<FailedInput>,
    /// How many more there are than are named.
    pub failed_unnamed: u64,
    /// Inputs that had late records, and how many; the first thousand by name.
    pub late_by_input: BTreeMap<Arc<str>, u64>,
}

/// Which comes first in a report: the number that an input had in the run that first opened it, then
/// its name, because a later run numbers its own inputs.
type Rank = (InputId, Arc<str>);

struct InputState {
    rank: Rank,
    is_auto: bool,
    layout: Arc<Layout>,
    file_start: Option<FileStart>,
    /// Where the input goes on after the last part that was forwarded; `None` if it can't.
    position: Option<Position>,
    /// Number of the next chunk and of its next part.
    next: (u64, u32),
    waiting: BTreeMap<(u64, u32), ParsedChunk>,
    /// What ended the input early, with its causes.
    fault: Option<String>,
    line_count: u64,
    header_count: u64,
    good_count: u64,
    miscounted: u64,
    late_count: u64,
    samples: Vec<MalformedSample>,
}

/// The order-keeping stage of a run.
pub(super) struct Sequencer {
    reparser: ParseStage,
    inputs: BTreeMap<InputId, InputState>,
    /// Inputs of an earlier run that are not open again yet.
    earlier: BTreeMap<Arc<str>, InputState>,
    /// The inputs that are done with, and the events of those that ended since this was last asked.
    finished: FinishedInputs,
    ended: Vec<(InputId, u64)>,
    /// How many were to be forgotten before that is told again.
    forgotten_told: u64,
    watermarks: Watermarks,
    report: InputReport,
    /// Samples and faults of closed inputs, in order, because inputs close in any.
    samples: BTreeMap<Rank, Vec<MalformedSample>>,
    /// What could not be read since this was last asked for; none if nobody asks.
    letters: Option<Vec<Letter>>,
    failed: BTreeMap<Rank, String>,
    unknown_names: BTreeSet<String>,
    /// Chunks all of whose parts had their turn in this run.
    chunk_count: u64,
}

impl Sequencer {
    pub(super) fn new(reparser: ParseStage, time: TimeSettings, expected_inputs: usize) -> Self {
        Self {
            reparser,
            inputs: BTreeMap::new(),
            earlier: BTreeMap::new(),
            finished: FinishedInputs::new(expected_inputs),
            ended: Vec::new(),
            forgotten_told: 0,
            watermarks: Watermarks::new(time, expected_inputs),
            report: InputReport::default(),
            samples: BTreeMap::new(),
            letters: None,
            failed: BTreeMap::new(),
            unknown_names: BTreeSet::new(),
            chunk_count: 0,
        }
    }

    /// From now on puts aside what could not be read.
    pub(super) fn put_letters_aside(&mut self) {
        self.letters = Some(Vec::new());
    }

    /// What was put aside since this was last called.
    pub(super) fn take_letters(&mut self) -> Vec<Letter> {
        self.letters.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Inputs that ended since this was last called, with the number of their events.
    pub(super) fn take_ended(&mut self) -> Vec<(InputId, u64)> {
        std::mem::take(&mut self.ended)
    }

    /// How many events of an open input were handed on whole.
    pub(super) fn event_count(&self, input: InputId) -> Option<u64> {
        self.inputs.get(&input).map(|state| state.next.0)
    }

    /// How many events of each open input were handed on whole.
    pub(super) fn event_counts(&self) -> impl Iterator<Item = (InputId, u64)> {
        self.inputs.iter().map(|(input, state)| (*input, state.next.0))
    }

    /// Takes a chunk and hands on every batch that is next in its input's order.
    pub(super) fn accept(
        &mut self,
        chunk: ParsedChunk,
        now: Duration,
        forward: &mut dyn FnMut(RoutedBatch),
    ) {
        let input = chunk.input;
        let number = (chunk.sequence, chunk.part);
        let state = self.inputs.entry(input).or_insert_with(InputState::unopened);
        assert!(number >= state.next, "a source numbers its events once each");
        state.waiting.insert(number, chunk);
        while let Some(state) = self.inputs.get_mut(&input) {
            let Some(chunk) = state.waiting.remove(&state.next) else { break };
            let (sequence, part) = state.next;
            self.chunk_count += u64::from(chunk.is_last);
            state.next = if chunk.is_last { (sequence + 1, 0) } else { (sequence, part + 1) };
            match chunk.event {
                ParsedEvent::Open(info) => self.open(input, info, now),
                ParsedEvent::Data(data) => self.data(input, *data, now, forward),
                // What is stopped goes on in a later run: it is not done with, and holds time back.
                ParsedEvent::Idle | ParsedEvent::Stop => {}
                ParsedEvent::Close(fault) => self.close(input, fault),
            }
        }
    }

    /// The moment up to which every pane is complete.
    pub(super) fn watermark(&mut self, now: Duration) -> UnixSeconds {
        self.watermarks.advance(now)
    }

    /// The layout that the next chunk of an input will find, if all before it were accepted.
    pub(super) fn layout_of(&self, input: InputId) -> Option<Arc<Layout>> {
        self.inputs.get(&input).map(|state| Arc::clone(&state.layout))
    }

    /// Chunks all of whose parts had their turn in this run.
    pub(super) const fn chunk_count(&self) -> u64 {
        self.chunk_count
    }

    /// What was counted so far.
    pub(super) const fn report(&self) -> &InputReport {
        &self.report
    }

    /// The open inputs whose newest `end` is oldest, at most `count` of them, the slowest first.
    pub(super) fn slowest_inputs(&self, count: usize) -> Vec<(Arc<str>, UnixSeconds)> {
        let end = |(input, state): (&InputId, &InputState)| {
            Some((Arc::clone(&state.rank.1), self.watermarks.latest_end(*input)?))
        };
        let mut inputs: Vec<_> = self.inputs.iter().filter_map(end).collect();
        inputs.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        inputs.truncate(count);
        inputs
    }

    /// Bytes read so far, for progress.
    pub(super) const fn bytes_read(&self) -> u64 {
        self.report.bytes_read
    }

    /// What was counted.
    pub(super) fn finish(mut self) -> InputReport {
        let unclosed: Vec<InputId> = self.inputs.keys().copied().collect();
        for input in unclosed {
            self.close(input, None);
        }
        for state in std::mem::take(&mut self.earlier).into_values() {
            self.settle(state, None);
        }
        let samples = self.samples.into_values().flatten();
        self.report.malformed_samples = samples.take(MALFORMED_SAMPLES_MAX).collect();
        let failed = self.failed.into_iter();
        self.report.failed =
            failed.map(|((_, name), message)| FailedInput { name, message }).collect();
        self.report
    }

    fn open(&mut self, input: InputId, info: InputInfo, now: Duration) {
        self.watermarks.reopen(&info.name, input, now);
        let earlier = self.earlier.remove(&info.name).filter(|_| info.resume.is_some());
        let state = self.inputs.get_mut(&input).expect("accept made it");
        if let Some(earlier) = earlier {
            let waiting = std::mem::take(&mut state.waiting);
            *state = InputState { next: state.next, waiting, ..earlier };
            return;
        }
        self.report.input_count += 1;
        state.layout = info.first_layout();
        state.rank = (input, info.name);
        state.is_auto = info.format == FormatChoice::Auto;
        state.file_start = info.file_start;
        state.position = info.resume.map(|point| point.position);
        warn_of_unknown_names(&mut self.unknown_names, &state.layout, &state.rank.1);
    }

    fn data(
        &mut self,
        input: InputId,
        data: ParsedData,
        now: Duration,
        forward: &mut dyn FnMut(RoutedBatch),
    ) {
        let state = self.inputs.get_mut(&input).expect("accept made it");
        if state.fault.is_some() {
            // What comes after a fault was read beside it and is not known to be the input's.
            return;
        }
        let is_stale = |data: &ParsedData| {
            data.continued.as_ref().is_some_and(|lines| lines.layout_before != state.layout)
        };
        let mut data =
            if is_stale(&data) { self.reparser.process_again(data, &state.layout) } else { data };
        if let Some(lines) = data.continued.take() {
            if lines.layout_after != state.layout {
                let names = &mut self.unknown_names;
                warn_of_unknown_names(names, &lines.layout_after, &state.rank.1);
            }
            state.layout = lines.layout_after;
        }
        for routed in &mut data.batches {
            let late_rows = late_rows(&mut self.watermarks, input, now, routed);
            data.totals.late += late_rows.len() as u64;
            state.late_count += late_rows.len() as u64;
            routed.set_late_rows(late_rows);
        }
        if let Some(letters) = &mut self.letters {
            let input = &state.rank.1;
            letters
                .extend(data.samples.iter().map(|s| Letter::of_sample(input, state.line_count, s)));
            letters.extend(data.input_fault.as_ref().and_then(|fault| {
                Letter::of_fault(input, data.position.as_ref().or(state.position.as_ref()), fault)
            }));
        }
        state.fault = data.input_fault.map(|fault| with_causes(&fault));
        if data.position.is_some() {
            state.position = data.position;
        }
        let totals = &data.totals;
        state.header_count += totals.headers;
        state.good_count += totals.ok + totals.nodata + totals.skipdata + totals.filtered;
        state.miscounted += totals.faults.count(FaultKind::FieldCount);
        state.keep_samples(data.samples);
        state.line_count += data.line_count;
        self.report.bytes_read += data.bytes_read;
        self.report.bytes_decoded += data.bytes_decoded;
        self.report.totals.merge(totals);
        data.batches.into_iter().for_each(forward);
    }

    fn close(&mut self, input: InputId, fault: Option<InputFault>) {
        self.watermarks.finish(input);
        let Some(state) = self.inputs.remove(&input) else { return };
        self.ended.push((input, state.next.0));
        if let (Some(letters), Some(fault), None) = (&mut self.letters, &fault, &state.fault) {
            letters.extend(Letter::of_fault(&state.rank.1, state.position.as_ref(), fault));
        }
        self.settle(state, fault);
    }

    /// Takes what an input that is done with leaves for the report.
    fn settle(&mut self, mut state: InputState, fault: Option<InputFault>) {
        let (name, kind) = (Arc::clone(&state.rank.1), state.kind());
        let fault = state.fault.take().or_else(|| fault.map(|fault| with_causes(&fault)));
        if let Some(message) = fault {
            tracing::error!(input = %name, error = %message, "input ended with a fault");
            self.keep_failed(state.rank.clone(), message);
        } else if let Some(message) = state.unreadable() {
            tracing::error!(input = %name, error = %message, "no record could be read");
            self.keep_failed(state.rank.clone(), message);
        }
        if state.late_count > 0 {
            let records = state.late_count;
            tracing::warn!(
                input = %name,
                records,
                "records came too late for their windows; they count in totals only"
            );
            *self.report.late_by_input.entry(Arc::clone(&name)).or_default() += records;
            keep_first(&mut self.report.late_by_input, NAMED_INPUTS_MAX);
        }
        if !state.samples.is_empty() {
            // Each has one sample at least: a report shows none of others.
            self.samples.insert(state.rank, state.samples);
            keep_first(&mut self.samples, MALFORMED_SAMPLES_MAX);
        }
        let forgotten = self.finished.insert(&name, kind);
        if forgotten > self.forgotten_told {
            self.forgotten_told = forgotten + FORGOTTEN_PER_LINE;
            tracing::info!(
                forgotten,
                "the oldest finished inputs are no longer remembered; one that came again would be read again"
            );
        }
    }

    fn keep_failed(&mut self, rank: Rank, message: String) {
        self.failed.insert(rank, message);
        self.report.failed_unnamed += keep_first(&mut self.failed, NAMED_INPUTS_MAX);
    }
}

/// Takes the last entry away if there are more than so many; how many went.
fn keep_first<K: Ord, V>(map: &mut BTreeMap<K, V>, count_max: usize) -> u64 {
    let is_over = map.len() > count_max;
    if is_over {
        map.pop_last();
    }
    is_over.into()
}

fn late_rows(
    watermarks: &mut Watermarks,
    input: InputId,
    now: Duration,
    routed: &RoutedBatch,
) -> Vec<u32> {
    let Some(ends) = routed.batch.seconds(FieldId::End) else { return Vec::new() };
    let starts = routed.batch.seconds(FieldId::Start);
    watermarks.observe(input, now, (starts, &ends), routed.kept_rows())
}

fn warn_of_unknown_names(warned: &mut BTreeSet<String>, layout: &Layout, input: &str) {
    for name in layout.unknown_names() {
        if warned.len() < UNKNOWN_NAMES_MAX && warned.insert(name.to_owned()) {
            tracing::warn!(
                field = name,
                input,
                "a field that this version doesn't know; it is carried as text"
            );
        }
    }
}

impl InputState {
    fn unopened() -> Self {
        Self {
            rank: (InputId(0), Arc::from("")),
            is_auto: true,
            layout: Layout::default_v2(),
            file_start: None,
            position: None,
            next: (0, 0),
            waiting: BTreeMap::new(),
            fault: None,
            line_count: 0,
            header_count: 0,
            good_count: 0,
            miscounted: 0,
            late_count: 0,
            samples: Vec::new(),
        }
    }

    fn kind(&self) -> InputKind {
        match self.position.as_ref().and_then(Position::as_shard) {
            Some(_) => InputKind::Shard,
            None => InputKind::Other,
        }
    }

    /// Whether its first event came: other events may overtake it on their way here.
    const fn is_open(&self) -> bool {
        self.next.0 > 0 || self.position.is_some()
    }

    fn keep_samples(&mut self, samples: Vec<LineSample>) {
        let room = MALFORMED_SAMPLES_MAX - self.samples.len();
        for sample in samples.into_iter().take(room) {
            let name = &self.rank.1;
            let origin = match (&sample.record, sample.line) {
                (Some(sequence_number), _) => format!("{name}:{sequence_number}"),
                (None, Some(line)) => format!("{name}:{}", self.line_count + line + 1),
                (None, None) => name.to_string(),
            };
            let text = &sample.text[..sample.text.len().min(SAMPLE_BYTES_MAX)];
            let text = String::from_utf8_lossy(text).into_owned();
            let LineSample { column, reason, .. } = sample;
            self.samples.push(MalformedSample { origin, reason, column, text });
        }
    }

    /// Says what to do if every line had the wrong number of fields and nobody said the format.
    fn unreadable(&self) -> Option<String> {
        let hopeless =
            self.is_auto && self.header_count == 0 && self.good_count == 0 && self.miscounted > 0;
        let sample = self.samples.first().filter(|_| hopeless)?;
        Some(format!(
            "0 of {} lines are flow log records: there is no header, and the first line has {} \
             (default format: 14); pass the flow log's LogFormat with `--format '${{version}} …'`, \
             or `--format v5` and the like",
            self.miscounted, sample.reason
        ))
    }
}
