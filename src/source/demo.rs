//! A stream that needs no cloud: generated flow logs with planted attacks, at a chosen pace.
//!
//! The lines of a [`Generator`] are split among pretended shards by interface, as a stream would by
//! partition key, and handed on as they fall due by wall time. Event time comes from the settings, so
//! that one seed gives the same findings whenever it runs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Emit, InputIds, Source, SourceError, StopFlag};
use crate::clock::Clock;
use crate::framing::{
    Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Payload, Position, Positions, ResumePoint,
};
use crate::generate::{AttackKind, GenerateSettings, Generator, SettingsError};
use crate::record::{FormatChoice, Layout};

/// Settings of a demo source.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemoSettings {
    /// Seed of everything random. Default 1.
    pub seed: u64,
    /// Records to make; 0 for a stream without end. Default 0.
    pub records: u64,
    /// Records per second of event time, 1 to 1,000,000. Default 200.
    pub records_per_second: u64,
    /// Seconds of event time per second of wall time, 0 (as fast as the pipeline takes them) to 10,000.
    /// Default 60.
    pub speed: u32,
    /// Pretended shards, 1 to 64. Default 4.
    pub shards: u32,
    /// Network interfaces, 64 to 1,000,000. Default 500.
    pub interfaces: u32,
    /// Internet addresses of ordinary traffic, 16 to 100,000,000. Default 20,000.
    pub external_addresses: u32,
    /// Attacks of each kind per period. Default one of each kind.
    pub attacks: BTreeMap<AttackKind, u32>,
    /// Seconds of event time in which the attacks are planted once, 60 to 86,400. Default 300.
    pub attack_period_seconds: u32,
    /// Unix second at which event time begins. Default 1767225600 (2026-01-01).
    pub start: i64,
}

impl Default for DemoSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            records: 0,
            records_per_second: 200,
            speed: 60,
            shards: 4,
            interfaces: 500,
            external_addresses: 20_000,
            attacks: AttackKind::ALL.into_iter().map(|kind| (kind, 1)).collect(),
            attack_period_seconds: 300,
            start: GenerateSettings::default().start,
        }
    }
}

impl DemoSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let range = |name, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let (low, high) = (low.into(), high.into());
            Err(SettingsError::Range { name, value: value.to_string(), low, high })
        };
        range("speed", self.speed, 0, 10_000)?;
        range("shards", self.shards, 1, 64)?;
        range("interfaces", self.interfaces, 64, 1_000_000)?;
        let rate = u32::try_from(self.records_per_second).unwrap_or(u32::MAX);
        range("records_per_second", rate, 1, 1_000_000)?;
        self.generate_settings(Layout::default_v2()).check()
    }

    fn generate_settings(&self, format: Arc<Layout>) -> GenerateSettings {
        GenerateSettings {
            records: self.records,
            seed: self.seed,
            format,
            interfaces: self.interfaces,
            external_addresses: self.external_addresses,
            records_per_second: self.records_per_second,
            start: self.start,
            attacks: self.attacks.clone(),
            attack_period_seconds: self.attack_period_seconds,
            ..GenerateSettings::default()
        }
    }
}

/// Most lines that are made before they are handed on.
const BATCH_LINES_MAX: usize = 8_192;
/// Between two looks at the clock and the stop flag.
const TICK: Duration = Duration::from_millis(20);
/// After a wait longer than this, the stream goes on from where it is instead of making up for it.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Generated flow logs as a source.
pub struct DemoSource {
    generator: Generator,
    speed: u32,
    shards: Vec<Shard>,
    clock: Arc<dyn Clock>,
    /// Records made so far.
    made_count: u64,
    /// Records that all shards have; they are made again and not handed on, as fast as that goes.
    passed_count: u64,
}

struct Shard {
    input: InputId,
    name: Arc<str>,
    sequence: u64,
    lines: Vec<u8>,
    /// Where it goes on: records up to here were handed on before.
    resume: Option<ResumePoint>,
    /// As many records, of all shards together, are behind its lines.
    passed_count: u64,
    /// Whether all of it was handed on before.
    is_finished: bool,
}

impl Shard {
    fn chunk(&mut self, event: ChunkEvent) -> Chunk {
        let sequence = self.sequence;
        self.sequence += 1;
        Chunk { input: self.input, sequence, event }
    }
}

impl DemoSource {
    /// The source `name` in the configuration, with lines in `format`.
    ///
    /// # Panics
    /// If [`DemoSettings::check`] finds a fault.
    #[must_use]
    pub fn new(
        name: &str,
        settings: &DemoSettings,
        format: Arc<Layout>,
        inputs: &InputIds,
        clock: Arc<dyn Clock>,
    ) -> Self {
        if let Err(fault) = settings.check() {
            panic!("settings must be checked before they are used: {fault}");
        }
        let shards = (0..settings.shards).map(|index| Shard {
            input: inputs.next(),
            name: format!("{name}/shard-{index}").into(),
            sequence: 0,
            lines: Vec::new(),
            resume: None,
            passed_count: 0,
            is_finished: false,
        });
        Self {
            generator: Generator::new(&settings.generate_settings(format)),
            speed: settings.speed,
            shards: shards.collect(),
            clock,
            made_count: 0,
            passed_count: 0,
        }
    }

    /// Emits everything until the end of the stream or a request to stop; the inputs stay open.
    fn stream(&mut self, stop: &StopFlag, emit: &mut Emit<'_>) -> ControlFlow<()> {
        let format = FormatChoice::Fixed(Arc::clone(&self.generator.settings().format));
        for shard in self.shards.iter_mut().filter(|shard| !shard.is_finished) {
            let layout = format.initial_layout();
            let begin =
                || ResumePoint { position: Position::generated(0), layout, file_start: None };
            let mut info = InputInfo::new(Arc::clone(&shard.name), format.clone());
            info.resume = Some(shard.resume.take().unwrap_or_else(begin));
            emit(shard.chunk(ChunkEvent::Open(info)))?;
        }
        while self.made_count < self.passed_count && !stop.is_requested() {
            self.make_batch(None, self.passed_count);
            self.hand_on(emit)?;
        }
        let mut due = self.elapsed();
        let mut seen = self.clock.monotonic();
        while !stop.is_requested() && self.shards.iter().any(|shard| !shard.is_finished) {
            if self.speed > 0 {
                let now = self.clock.monotonic();
                due += now.saturating_sub(seen).min(CATCH_UP_MAX) * self.speed;
                seen = now;
            }
            let goes_on = self.make_batch((self.speed > 0).then_some(due), u64::MAX);
            self.hand_on(emit)?;
            if !goes_on {
                break;
            }
            if self.speed > 0 && self.elapsed() >= due {
                std::thread::sleep(TICK);
            }
        }
        ControlFlow::Continue(())
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.generator.elapsed_ms())
    }

    /// Makes the lines that are due, at most a batch and up to a number; false after the last.
    fn make_batch(&mut self, due: Option<Duration>, made_max: u64) -> bool {
        let shard_count = u32::try_from(self.shards.len()).expect("settings allow 64");
        for _ in 0..BATCH_LINES_MAX {
            if self.made_count == made_max || due.is_some_and(|due| self.elapsed() >= due) {
                return true;
            }
            let Some(line) = self.generator.next_line() else { return false };
            self.made_count += 1;
            let shard = &mut self.shards[(line.interface.0 % shard_count) as usize];
            if self.made_count > shard.passed_count && !shard.is_finished {
                shard.lines.extend_from_slice(line.text);
            }
        }
        true
    }

    fn hand_on(&mut self, emit: &mut Emit<'_>) -> ControlFlow<()> {
        for shard in self.shards.iter_mut().filter(|shard| !shard.lines.is_empty()) {
            let lines = std::mem::take(&mut shard.lines);
            let bytes_read = lines.len() as u64;
            let payload = Payload::Lines(lines.into());
            let position = Some(Position::generated(self.made_count));
            emit(shard.chunk(ChunkEvent::Data(ChunkData { payload, bytes_read, position })))?;
        }
        ControlFlow::Continue(())
    }
}

impl Source for DemoSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        for shard in &mut self.shards {
            let point = positions.point(&shard.name).cloned();
            let passed = point.as_ref().and_then(|point| point.position.as_generated());
            shard.passed_count = passed.unwrap_or(0);
            shard.resume = point;
            shard.is_finished = positions.is_finished(&shard.name);
        }
        let open = self.shards.iter().filter(|shard| !shard.is_finished);
        self.passed_count = open.map(|shard| shard.passed_count).max().unwrap_or(0);
    }

    fn run(mut self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        if self.stream(stop, emit).is_break() {
            return Ok(());
        }
        for shard in self.shards.iter_mut().filter(|shard| !shard.is_finished) {
            let event =
                if stop.is_requested() { ChunkEvent::Stop } else { ChunkEvent::Close(None) };
            if emit(shard.chunk(event)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::framing::ReadUntil;

    fn source(settings: &DemoSettings, clock: Arc<dyn Clock>) -> Box<DemoSource> {
        let inputs = InputIds::default();
        Box::new(DemoSource::new("demo", settings, Layout::default_v2(), &inputs, clock))
    }

    #[test]
    fn every_line_goes_to_one_shard_in_order() {
        let settings = DemoSettings { records: 20_000, speed: 0, ..DemoSettings::default() };
        let mut next = BTreeMap::new();
        let mut lines = Vec::new();
        let mut closed = 0;
        let run = source(&settings, Arc::new(ManualClock::default())).run(
            &StopFlag::default(),
            &mut |chunk| {
                let sequence = next.entry(chunk.input).or_insert(0);
                assert_eq!(chunk.sequence, *sequence);
                *sequence += 1;
                match chunk.event {
                    ChunkEvent::Open(info) => {
                        assert_eq!(chunk.sequence, 0);
                        assert_eq!(&*info.name, format!("demo/shard-{}", chunk.input.0));
                    }
                    ChunkEvent::Data(data) => {
                        let Payload::Lines(text) = data.payload else { panic!("lines expected") };
                        assert_eq!(data.bytes_read, text.len() as u64);
                        assert_eq!(text.last(), Some(&b'\n'));
                        lines.extend(text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec));
                    }
                    ChunkEvent::Idle | ChunkEvent::Stop => {}
                    ChunkEvent::Close(fault) => {
                        assert!(fault.is_none());
                        closed += 1;
                    }
                }
                ControlFlow::Continue(())
            },
        );
        run.unwrap();
        assert_eq!((next.len(), closed), (4, 4));
        let mut text = Vec::new();
        Generator::new(&settings.generate_settings(Layout::default_v2())).fill(&mut text, 20_000);
        let mut expected: Vec<_> =
            text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        expected.sort();
        lines.sort();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_stop_closes_the_inputs() {
        let stop = StopFlag::default();
        let settings = DemoSettings { speed: 0, ..DemoSettings::default() };
        let (mut data, mut closed) = (0, 0);
        let clock = Arc::new(SystemClock::new());
        let run = source(&settings, clock).run(&stop, &mut |chunk| {
            match chunk.event {
                ChunkEvent::Data(_) => data += 1,
                ChunkEvent::Stop => closed += 1,
                _ => {}
            }
            if data == 10 {
                stop.request();
            }
            ControlFlow::Continue(())
        });
        run.unwrap();
        assert!((10..14).contains(&data));
        assert_eq!(closed, 4);
    }

    /// Lines of each shard in order, up to so many chunks of data, and how far each was then.
    fn lines_until(
        mut source: Box<DemoSource>,
        positions: Positions,
        chunks_max: usize,
    ) -> (BTreeMap<Arc<str>, Vec<u8>>, Positions) {
        source.resume(Arc::new(positions));
        let (mut names, mut lines, mut points) =
            (BTreeMap::new(), BTreeMap::<Arc<str>, Vec<u8>>::new(), BTreeMap::new());
        let mut left = chunks_max;
        let run = source.run(&StopFlag::default(), &mut |chunk| {
            match chunk.event {
                ChunkEvent::Open(info) => {
                    points.insert(Arc::clone(&info.name), info.resume.unwrap());
                    names.insert(chunk.input, info.name);
                }
                ChunkEvent::Data(data) => {
                    if left == 0 {
                        return ControlFlow::Break(());
                    }
                    left -= 1;
                    let name = &names[&chunk.input];
                    points.get_mut(name).unwrap().position = data.position.unwrap();
                    let Payload::Lines(text) = data.payload else { panic!("lines expected") };
                    lines.entry(Arc::clone(name)).or_default().extend_from_slice(&text);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        run.unwrap();
        let until = |(name, point)| (name, ReadUntil::Point(point));
        (lines, points.into_iter().map(until).collect())
    }

    #[test]
    fn a_stream_goes_on_where_it_was() {
        let settings = DemoSettings { records: 60_000, speed: 0, ..DemoSettings::default() };
        let new = || source(&settings, Arc::new(ManualClock::default()));
        let (whole, _) = lines_until(new(), Positions::default(), usize::MAX);
        for cut in [0, 1, 5, 13, 27] {
            let (mut lines, positions) = lines_until(new(), Positions::default(), cut);
            let (rest, _) = lines_until(new(), positions, usize::MAX);
            for (name, rest) in rest {
                lines.entry(name).or_default().extend(rest);
            }
            assert!(lines == whole, "cut after {cut} chunks");
        }
    }

    #[test]
    fn wall_time_sets_the_pace() {
        let clock = Arc::new(ManualClock::default());
        let mut source = source(&DemoSettings::default(), clock);
        assert!(source.make_batch(Some(Duration::from_secs(6)), u64::MAX));
        assert_eq!(source.generator.elapsed_ms(), 6_000);
        let lines: usize =
            source.shards.iter().map(|shard| shard.lines.split(|b| *b == b'\n').count() - 1).sum();
        assert_eq!(lines, 1_200);
    }

    #[test]
    fn settings_name_the_fault() {
        let check = |settings: DemoSettings, expected: &str| {
            assert_eq!(settings.check().unwrap_err().to_string(), expected);
        };
        assert!(DemoSettings::default().check().is_ok());
        let shards = DemoSettings { shards: 0, ..DemoSettings::default() };
        check(shards, "`shards` is 0; it must be 1 to 64");
        let speed = DemoSettings { speed: 10_001, ..DemoSettings::default() };
        check(speed, "`speed` is 10001; it must be 0 to 10000");
    }
}
