//! Polling a stream: each record of each shard once and in order, over faults, stops and kills.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowgauge::framing::{InputId, Positions, ReadUntil};
use flowgauge::source::kinesis::KinesisSettings;

use super::{over_seeds, seeds};
use crate::kinesis::emulator::{Stream, settings};
use crate::kinesis::reading::{Input, Reading, payloads, read_until};
use crate::proxy::{Dice, FaultKind, FaultPlan, FaultProxy};
use crate::servers::Emulator;

/// Payloads of each input, in order.
type Records = BTreeMap<String, Vec<Vec<u8>>>;

/// Runs at one time. They wait most of the time: for pauses between calls and after failures.
pub(super) const AT_A_TIME: usize = 16;

/// How long a half-open connection stays so for every twentieth seed: longer than a call may take.
const HALF_OPEN: Duration = Duration::from_secs(40);

/// A stream that is complete, and is only read.
pub(super) struct History {
    emulator: &'static Emulator,
    name: &'static str,
    pub(super) stream: Stream,
    expected: Records,
    /// Child and parent.
    lineage: Vec<(String, String)>,
}

fn record(number: usize) -> Vec<u8> {
    format!("{{\"message\":\"record {number}\"}}").into_bytes()
}

fn shard(stream: &str, number: usize) -> String {
    format!("{stream}/shardId-{number:012}")
}

/// Four shards.
pub(super) fn wide(name: &'static str) -> History {
    let emulator = Emulator::shared_ministack();
    let stream = Stream::create(emulator, name, 4);
    let mut expected = Records::new();
    let mut records = Vec::new();
    for number in 0..160 {
        expected.entry(shard(name, number % 4)).or_default().push(record(number));
        records.push(((number as u128 % 4) << 126, record(number)));
    }
    stream.put(&records);
    History { emulator, name, stream, expected, lineage: Vec::new() }
}

/// Shard 0 was split into 1 and 2, those were merged into 3.
pub(super) fn deep(name: &'static str) -> History {
    let emulator = Emulator::shared_kinesis_local();
    let stream = Stream::create(emulator, name, 1);
    let mut expected = Records::new();
    let mut put = |numbers: std::ops::Range<usize>, low: usize, high: usize| {
        let mut records = Vec::new();
        for number in numbers {
            let (shard_number, key) =
                if number % 2 == 0 { (low, 0) } else { (high, u128::MAX - 1) };
            expected.entry(shard(name, shard_number)).or_default().push(record(number));
            records.push((key, record(number)));
        }
        stream.put(&records);
    };
    put(0..40, 0, 0);
    stream.split("shardId-000000000000", 1 << 127);
    put(40..80, 1, 2);
    stream.merge("shardId-000000000001", "shardId-000000000002");
    put(80..120, 3, 3);
    let lineage = [(1, 0), (2, 0), (3, 1), (3, 2)];
    let lineage = lineage.map(|(child, parent)| (shard(name, child), shard(name, parent)));
    History { emulator, name, stream, expected, lineage: lineage.into() }
}

/// What a process left behind in its last snapshot.
#[derive(Default)]
struct Snapshot {
    until: BTreeMap<String, ReadUntil>,
    records: Records,
}

impl Snapshot {
    fn add(&mut self, inputs: &BTreeMap<InputId, Input>) {
        for (name, records) in payloads(inputs) {
            self.records.entry(name).or_default().extend(records);
        }
        let until = inputs.values().map(|input| (input.name.clone(), read_until(input)));
        self.until.extend(until);
    }

    fn record_count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    fn positions(&self) -> Positions {
        self.until.iter().map(|(name, until)| (Arc::from(name.as_str()), until.clone())).collect()
    }
}

/// Reads a history through a proxy, with some restarts; what the faults were.
pub(super) fn check(
    seed: u64,
    history: &History,
    adapt: impl Fn(&mut KinesisSettings),
) -> BTreeMap<FaultKind, u64> {
    let mut dice = Dice::new(seed);
    let mut plan = FaultPlan::everything(seed);
    if seed % 20 == 19 {
        plan.half_open = HALF_OPEN;
    }
    let proxy = FaultProxy::start(history.emulator.address(), plan);
    let mut settings = settings(&proxy.endpoint, history.name);
    settings.records_per_call_max = u16::try_from(4 + dice.below(17)).expect("a small number");
    adapt(&mut settings);
    let total: usize = history.expected.values().map(Vec::len).sum();

    let mut snapshot = Snapshot::default();
    for _ in 0..dice.below(3) {
        let left = total - snapshot.record_count();
        let mut reading = Reading::resume(settings.clone(), snapshot.positions());
        let enough = dice.place(left.max(1));
        reading.until("some records", |reading| reading.record_count() >= enough);
        if dice.below(2) == 0 {
            let inputs = reading.stop();
            check_order(&inputs, history);
            snapshot.add(&inputs);
        } else {
            // A kill: what came after the last snapshot comes again.
            snapshot.add(&reading.inputs);
            let more = dice.place(20).min(total - snapshot.record_count());
            reading.until("some more", |reading| reading.record_count() >= enough + more);
            reading.hang_up().expect("a hang-up is no error");
        }
    }
    let left = total - snapshot.record_count();
    let mut reading = Reading::resume(settings, snapshot.positions());
    reading.until("every record", |reading| reading.record_count() >= left);
    // What comes twice would come with the next answers.
    let answers = reading.counters.answers.get() + 3;
    reading.until("more answers", |reading| reading.counters.answers.get() >= answers);
    assert_eq!(reading.counters.losses.get(), 0, "seed {seed}");
    let inputs = reading.stop();
    check_order(&inputs, history);
    snapshot.add(&inputs);
    snapshot.records.retain(|_, records| !records.is_empty());
    assert!(snapshot.records == history.expected, "seed {seed}: {:?}", snapshot.records);
    proxy.faults()
}

/// No child before its parents.
fn check_order(inputs: &BTreeMap<InputId, Input>, history: &History) {
    let find = |name: &str| inputs.values().find(|input| input.name == name);
    for (child, parent) in &history.lineage {
        let (Some(child), Some(parent)) = (find(child), find(parent)) else { continue };
        if let Some(first) = child.first_data_at {
            let closed = parent.closed_at.expect("closed before its child is read");
            assert!(closed < first, "{child:?} {parent:?}");
        }
    }
}

pub(super) const KINDS: &[FaultKind] = &[
    FaultKind::Delay,
    FaultKind::Reset,
    FaultKind::HalfOpen,
    FaultKind::Throttled,
    FaultKind::Internal,
    FaultKind::Unavailable,
    FaultKind::IteratorExpired,
    FaultKind::Lost,
    FaultKind::CutHead,
    FaultKind::CutBody,
    FaultKind::Drip,
];

#[test]
fn polling_neither_loses_nor_doubles() {
    let history = wide("faults");
    over_seeds("polling", &seeds(4), AT_A_TIME, KINDS, |seed| check(seed, &history, |_| {}));
}

#[test]
fn polling_neither_loses_nor_doubles_over_splits_and_merges() {
    let history = deep("faults-lineage");
    let check = |seed| check(seed, &history, |_| {});
    over_seeds("polling, resharded", &seeds(4), AT_A_TIME, KINDS, check);
}
