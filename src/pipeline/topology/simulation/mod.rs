//! The engine in one thread from a seed: inputs that stall and end, channels that are full, barriers in
//! between, a disk that fails, processes that are killed. What comes out in the end must be what a model
//! works out line by line, and what a run without any of this finds.
//!
//! Some seeds give tables so little memory that entries leave all the time: then totals are still exact and tops
//! within their bounds. Others let inputs fall silent for so long that time goes on without them: then
//! what comes late is no part of findings, but no record is lost. No finding is in the journal twice, ever, and no line is read again that its
//! source was told is safe.
//!
//! `FLOWGAUGE_SIMULATION_SEEDS=A..B` runs other seeds; a failure names its seed.

mod engine;
mod inputs;
mod model;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::engine::{Engine, Outcome, SafeLines};
use self::inputs::{Input, LATENESS_SECONDS, START};
use self::model::Model;
use self::random::Random;
use crate::aggregate::{Lateness, Metric, TimeSettings, TopAnswer, TopSpec};
use crate::checkpoint::disk::memory::{Fault, FaultRates, Loss};
use crate::checkpoint::disk::{Disk as _, MemoryDisk};
use crate::checkpoint::{DeadLetterSettings, DeadLetters, JournalSettings, StateDirectory};
use crate::clock::ManualClock;
use crate::detect::{DetectSettings, Network};
use crate::finding::Finding;
use crate::framing::Limits;
use crate::pipeline::job::{Detectors, Job, JobState};
use crate::pipeline::memory::MemoryPlan;
use crate::record::{FieldId, Slot};
use crate::simd::Isa;
use crate::sink::{Sink, SinkError, encode};
use crate::source::StopFlag;
use crate::units::UnixSeconds;

/// Seeds that are run without being asked for others.
const SEEDS: std::ops::Range<u64> = 0..1000;

const STATE: &str = "/state";

/// A receiver in another process: it keeps what it was given, whoever is killed.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<Vec<u8>>>>);

impl Sink for Receiver {
    fn name(&self) -> &'static str {
        "receiver"
    }

    fn write(&mut self, findings: &[Finding], lines: &[u8]) -> Result<(), SinkError> {
        let encoded = findings.iter().map(|finding| {
            let mut line = Vec::new();
            encode::ndjson::encode(finding, &mut line);
            line
        });
        let encoded: Vec<Vec<u8>> = encoded.collect();
        assert_eq!(encoded.concat(), lines, "lines are those of the findings");
        self.0.lock().unwrap().extend(encoded);
        Ok(())
    }

    fn write_again(&mut self, lines: &[Vec<u8>]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What a run is short of.
#[derive(Clone, Copy, Debug)]
enum Trial {
    /// Nothing.
    Plain,
    /// Memory.
    Short(MemoryPlan),
    /// Time: inputs that are silent for so long are not waited for.
    Silent(Duration),
}

impl Trial {
    fn of(seed: u64, random: &mut Random) -> Self {
        match seed % 5 {
            3 => Self::Short(MemoryPlan {
                tops_bytes: random.below(100_000),
                detectors_bytes: if random.one_in(2) { usize::MAX } else { random.below(20_000) },
                ..MemoryPlan::UNLIMITED
            }),
            4 => Self::Silent(Duration::from_millis(20 + random.bits() % 500)),
            _ => Self::Plain,
        }
    }

    /// Whether findings are those of a run without faults.
    const fn finds_the_same(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Short(memory) => memory.detectors_bytes == usize::MAX,
            Self::Silent(_) => false,
        }
    }
}

fn job(seed: u64, threads: usize, receiver: &Receiver, clock: &Arc<ManualClock>) -> Job {
    let by = |field| vec![Slot::Known(field)];
    let spec = |by| TopSpec {
        by,
        metric: Metric::Bytes,
        rows_max: 1000,
        metric_min: 0,
        window_seconds: None,
    };
    Job {
        sources: Vec::new(),
        expected_inputs: 0,
        thread_count: threads,
        queue_depth: 1,
        limits: Limits::default(),
        pane_seconds: 20,
        time: TimeSettings {
            lateness: Lateness::Fixed(LATENESS_SECONDS),
            idle_after: None,
            latest_plausible_end: UnixSeconds(START + 1_000_000),
        },
        filter: None,
        tops: vec![
            spec(by(FieldId::SrcAddr)),
            spec(vec![Slot::Known(FieldId::SrcAddr), Slot::Known(FieldId::DstAddr)]),
        ],
        talkers: Vec::new(),
        talker_sinks: Vec::new(),
        detectors: Some(Detectors {
            settings: DetectSettings::default(),
            network: Network::default(),
            trials: None,
        }),
        sinks: vec![Box::new(receiver.clone())],
        isa: Isa::detect(),
        seed,
        clock: Arc::clone(clock) as _,
        stop: StopFlag::default(),
        progress: Box::new(|_| {}),
        memory: MemoryPlan::UNLIMITED,
        control: crossbeam_channel::never(),
        live: Arc::default(),
        partials: None,
        dead_letters: None,
        state: None,
    }
}

/// The findings of a run without faults, by id and revision.
fn undisturbed(inputs: &[Input], random: &mut Random) -> BTreeSet<Vec<u8>> {
    let (receiver, clock) = (Receiver::default(), Arc::new(ManualClock::default()));
    let job = job(random.bits(), 1, &receiver, &clock);
    let job = Job { expected_inputs: inputs.len(), ..job };
    let mut engine = Engine::new(job, inputs, usize::MAX, clock).unwrap();
    while engine.step(random) {}
    engine.outcome();
    let lines = receiver.0.lock().unwrap().clone();
    let count = lines.len();
    let set: BTreeSet<Vec<u8>> = lines.into_iter().collect();
    assert_eq!(set.len(), count, "no finding comes twice");
    set
}

/// One process after the other over the same disk until one reads everything; how many there were, and whether the
/// disk refused nothing but in a crash.
fn disturbed(
    trial: Trial,
    inputs: &[Input],
    receiver: &Receiver,
    disk: &MemoryDisk,
    random: &mut Random,
) -> (Outcome, usize, bool) {
    let is_sound = random.one_in(3);
    let capacity = 1 + random.below(3);
    let mut lives_left = random.below(6);
    let crash_chance = 50 + random.below(600);
    let interval = Duration::from_millis(1 + random.bits() % 300);
    let mut safe = SafeLines::new();
    for life in 1.. {
        let clock = Arc::new(ManualClock::default());
        let directory = StateDirectory::open(Arc::new(disk.clone()), Path::new(STATE)).unwrap();
        let letters = DeadLetters::open(Arc::clone(&directory), DeadLetterSettings::default());
        let state = JobState {
            remote: None,
            directory,
            journal: JournalSettings::default(),
            encode: encode::ndjson::encode,
            interval,
        };
        let job = job(random.bits(), 1 + random.below(4), receiver, &clock);
        let mut job = Job {
            expected_inputs: inputs.len(),
            state: Some(state),
            dead_letters: Some(letters.unwrap()),
            ..job
        };
        match trial {
            Trial::Plain => {}
            Trial::Short(memory) => job.memory = memory,
            Trial::Silent(idle_after) => job.time.idle_after = Some(idle_after),
        }
        let mut engine = Engine::new(job, inputs, capacity, Arc::clone(&clock)).unwrap();
        engine.check_safe(&safe);
        loop {
            clock.advance(Duration::from_millis(random.bits() % 20));
            if let Trial::Silent(idle_after) = trial
                && random.one_in(100)
            {
                clock.advance(idle_after * 2 + Duration::from_secs(random.bits() % 100));
                engine.tick();
            }
            let dies = lives_left > 0 && random.one_in(crash_chance);
            if dies || disk.has_crashed() {
                break;
            }
            match random.below(400) {
                0 if !is_sound => disk.set_rates(FaultRates {
                    no_space_per_mille: 300,
                    io_per_mille: 100,
                    short_reads_per_mille: 200,
                }),
                1..=20 => disk.set_rates(FaultRates::default()),
                21 if lives_left > 0 => engine.stop(),
                22 if lives_left > 0 => disk.fail_at(random.bits() % 30, Fault::Crash),
                _ => {}
            }
            if !engine.step(random) {
                break;
            }
            if engine.is_done() && !disk.has_crashed() {
                disk.set_rates(FaultRates::default());
                let outcome = engine.outcome();
                // The last breath may meet a planned crash; all findings are written by then.
                disk.restart(Loss::Process);
                return (outcome, life, is_sound);
            }
        }
        lives_left = lives_left.saturating_sub(1);
        for (name, lines) in engine.safe_lines() {
            let known = safe.entry(name).or_default();
            *known = lines.max(*known);
        }
        drop(engine);
        disk.restart(if random.one_in(2) { Loss::Power } else { Loss::Process });
    }
    unreachable!("the last life ends with the stream")
}

fn simulate(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let trial = Trial::of(seed, &mut random);
    let inputs = inputs::inputs(&mut random);
    let model = Model::of(&inputs);
    let expected = undisturbed(&inputs, &mut random);
    let (receiver, disk) = (Receiver::default(), MemoryDisk::new(random.bits()));
    let (outcome, lives, is_sound) = disturbed(trial, &inputs, &receiver, &disk, &mut random);
    check_counts(trial, &outcome, &model);
    let got: BTreeSet<Vec<u8>> = receiver.0.lock().unwrap().iter().cloned().collect();
    let in_journal = journal(&disk);
    if trial.finds_the_same() {
        check_same("what the receiver was given", &texts(&got), &texts(&expected));
        let value = |line: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(line).unwrap();
        let expected = expected.iter().map(|line| value(line).to_string()).collect();
        check_same("what the journal holds", &in_journal, &expected);
    }
    check_letters(&disk, &model::unreadable(&inputs), is_sound);
    (expected.len(), lives)
}

fn check_counts(trial: Trial, outcome: &Outcome, model: &Model) {
    let totals = &outcome.inputs.totals;
    let mut counted = Model {
        ok: totals.ok,
        nodata: totals.nodata,
        malformed: totals.faults.total(),
        headers: totals.headers,
        late: totals.late,
        bytes: totals.bytes,
        bytes_by_source: outcome.answers[0]
            .rows
            .iter()
            .map(|row| (row.key[0].clone(), row.sums.bytes))
            .collect(),
    };
    match trial {
        Trial::Plain => {}
        Trial::Short(_) => {
            check_bounds(&outcome.answers[0], &model.bytes_by_source);
            counted.bytes_by_source.clone_from(&model.bytes_by_source);
        }
        Trial::Silent(_) => {
            assert!(counted.late <= counted.ok + counted.nodata);
            counted.late = model.late;
        }
    }
    assert_eq!(&counted, model);
}

/// No sum is more than the truth, nor less by more than it says; what has no row may not have had much.
fn check_bounds(answer: &TopAnswer, truth: &BTreeMap<String, u128>) {
    let mut unseen = truth.clone();
    for row in &answer.rows {
        let (said, exact) = (row.sums.bytes, unseen.remove(&row.key[0]).expect("a source"));
        assert!(said <= exact && exact <= said + row.error_bound, "{row:?} is {exact}");
        assert!(row.error_bound <= answer.error_bound);
    }
    let greatest = unseen.values().copied().max().unwrap_or(0);
    assert!(greatest <= answer.error_bound, "{greatest}, {}", answer.error_bound);
    assert!(answer.evicted > 0 || answer.error_bound == 0);
}

/// What was put aside could not be read, and on a disk that refuses nothing it is all there, some of it twice.
fn check_letters(disk: &MemoryDisk, expected: &BTreeSet<(String, String, String)>, is_sound: bool) {
    let mut letters = BTreeSet::new();
    for line in lines_of(disk, "dead-letter-") {
        let Ok(letter) = serde_json::from_slice::<serde_json::Value>(&line) else { continue };
        let text = |name: &str| letter[name].as_str().unwrap().to_owned();
        let payload = base64_simd::STANDARD.decode_to_vec(text("payload_base64")).unwrap();
        letters.insert((text("input"), text("position"), String::from_utf8(payload).unwrap()));
    }
    assert!(letters.is_subset(expected), "{:?}", letters.difference(expected).next());
    assert!(!is_sound || letters == *expected, "{:?}", expected.difference(&letters).next());
}

fn lines_of(disk: &MemoryDisk, prefix: &str) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for name in disk.list(Path::new(STATE)).unwrap() {
        if name.starts_with(prefix) {
            let text = disk.content(&Path::new(STATE).join(name)).unwrap();
            lines.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// The findings in the journal, each of which stands there once.
fn journal(disk: &MemoryDisk) -> BTreeSet<String> {
    let mut lines = BTreeMap::new();
    for line in lines_of(disk, "journal-") {
        // A line that the disk garbled is passed over by every reader, and its finding stands in another.
        let Ok(mut line) = serde_json::from_slice::<serde_json::Value>(&line) else { continue };
        let members = line.as_object_mut().unwrap();
        members.remove("seq").unwrap();
        members.remove("crc32").unwrap();
        let key = (members["id"].to_string(), members["revision"].to_string());
        let twice = lines.insert(key, line);
        assert!(twice.is_none(), "{twice:?} is in the journal twice");
    }
    lines.into_values().map(|line| line.to_string()).collect()
}

fn texts(lines: &BTreeSet<Vec<u8>>) -> BTreeSet<String> {
    lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect()
}

/// Fails with one line too few or too many.
fn check_same(what: &str, got: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let missing = expected.difference(got).next();
    let surplus = got.difference(expected).next();
    assert!(
        missing.is_none() && surplus.is_none(),
        "{what}: missing {missing:?}, surplus {surplus:?}"
    );
}

#[test]
fn whatever_happens_the_outcome_is_that_of_a_quiet_run() {
    let seeds = match std::env::var("FLOWGAUGE_SIMULATION_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("a range A..B");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => SEEDS,
    };
    let (mut findings, mut lives) = (0, 0);
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(|| simulate(seed));
        let (found, lived) = run.unwrap_or_else(|panic| {
            eprintln!("the simulation with seed {seed} failed");
            std::panic::resume_unwind(panic)
        });
        findings += found;
        lives += lived;
    }
    let count = usize::try_from(seeds.end - seeds.start).unwrap();
    assert!(count < 50 || findings > count / 4, "{findings} findings show little");
    assert!(count < 50 || lives > count * 2, "{lives} lives show little");
}
