//! Readers that stand still or panic, and ends that are none: read on, each record once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flowgauge::clock::{Clock, SystemClock};
use flowgauge::source::kinesis::{KinesisSettings, StartPosition};
use flowgauge::units::UnixSeconds;

use super::emulator::settings;
use super::reading::{Reading, payloads, positions};
use super::scripted::{Fault, Script, ScriptedKinesis};
use super::{aggregate, direct, shard_name};

/// Four shards of 20 records.
fn scripts(change: impl Fn(usize, &mut Script)) -> (Vec<Script>, BTreeMap<String, Vec<Vec<u8>>>) {
    let script = |shard: usize| {
        let mut script = Script {
            records: (0..20).map(|n| direct(shard * 100 + n)).collect(),
            answer_records: 4,
            ..Script::default()
        };
        change(shard, &mut script);
        script
    };
    let scripts: Vec<Script> = (0..4).map(script).collect();
    let expected = scripts
        .iter()
        .enumerate()
        .map(|(shard, script)| (shard_name("flow", shard), script.records.clone()))
        .collect();
    (scripts, expected)
}

fn impatient(endpoint: &str) -> KinesisSettings {
    KinesisSettings { stalled_after: Duration::from_secs(1), ..settings(endpoint, "flow") }
}

#[test]
fn a_reader_that_stands_still_is_started_again_from_its_position() {
    let (scripts, expected) = scripts(|shard, script| {
        if shard != 3 {
            script.faults.insert(shard, Fault::Silence);
        }
    });
    let server = ScriptedKinesis::start(scripts, 10);
    let mut reading = Reading::start(impatient(&server.endpoint));
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(reading.counters.readers_retaken.get(), 3);
    assert_eq!(payloads(&reading.stop()), expected);
    // The first call of shard 1 was answered: its second reader begins after that.
    let asked: Vec<Option<String>> = server
        .calls
        .try_iter()
        .filter(|call| call.shard == 1 && call.iterator_type.is_some())
        .map(|call| call.after)
        .collect();
    assert_eq!(asked, [None, Some("4".to_owned())]);
}

#[test]
fn a_reader_that_the_pipeline_holds_back_does_not_stand_still() {
    // More chunks than the channel holds.
    let (scripts, expected) = scripts(|_, script| script.answer_records = 1);
    let server = ScriptedKinesis::start(scripts, 10);
    let mut reading = Reading::start(impatient(&server.endpoint));
    reading.until("some records", |reading| reading.record_count() > 0);
    // Longer than it would take to be called stalled, nobody asks for anything.
    let silence = Duration::from_secs(5);
    while server.calls.recv_timeout(silence).is_ok() {}
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(reading.counters.readers_retaken.get(), 0);
    assert_eq!(payloads(&reading.stop()), expected);
}

/// A clock that panics twice while tasks of the source ask it, after all of them began.
struct Faulty {
    clock: SystemClock,
    asked: AtomicUsize,
}

impl Clock for Faulty {
    fn now(&self) -> UnixSeconds {
        let is_task = std::thread::current().name() == Some("kinesis-read");
        let count = if is_task { self.asked.fetch_add(1, Ordering::SeqCst) } else { 0 };
        // The supervisor asks once for each of four shards that it opens, each reader once to begin.
        assert!(!matches!(count, 9 | 12), "a fault of the reader");
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[test]
fn a_reader_that_panics_is_started_again_from_its_position() {
    let (scripts, expected) = scripts(|_, script| {
        // Another iterator, and with it another look at the clock, after each answer.
        let expired = Fault::Error(400, "ExpiredIteratorException");
        script.faults = (1..6).map(|call| (call * 2, expired)).collect();
    });
    let server = ScriptedKinesis::start(scripts, 10);
    let clock = Faulty { clock: SystemClock::new(), asked: AtomicUsize::new(0) };
    let mut reading = Reading::start_by(settings(&server.endpoint, "flow"), Arc::new(clock));
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(reading.counters.readers_retaken.get(), 2);
    assert_eq!(payloads(&reading.stop()), expected);
}

#[test]
fn an_end_that_the_listing_does_not_confirm_is_none() {
    let (scripts, expected) = scripts(|shard, script| script.false_ends = shard % 2);
    let server = ScriptedKinesis::start(scripts, 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(reading.counters.readers_retaken.get(), 2);
    assert_eq!(reading.counters.shards_ended.get(), 0);
    assert_eq!(payloads(&reading.stop()), expected);
}

#[test]
fn a_shard_that_is_denied_once_but_listed_is_read_on() {
    let (scripts, expected) = scripts(|shard, script| {
        if shard == 2 {
            script.faults.insert(1, Fault::Error(400, "ResourceNotFoundException"));
        }
    });
    let server = ScriptedKinesis::start(scripts, 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(reading.counters.losses.get(), 0);
    assert_eq!(payloads(&reading.stop()), expected);
}

#[test]
fn a_restart_neither_cuts_nor_repeats_what_was_aggregated() {
    let (scripts, expected) = scripts(|_, script| {
        script.records = (0..20).map(aggregate).collect();
        script.answer_records = 3;
    });
    let mut whole: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut place = flowgauge::framing::Positions::default();
    let server = ScriptedKinesis::start(scripts, 10);
    // A run after the other, each ended as soon as it has brought something.
    while whole.values().map(Vec::len).sum::<usize>() < 80 {
        let mut reading = Reading::resume(settings(&server.endpoint, "flow"), place.clone());
        reading.until("a record", |reading| reading.record_count() > 0);
        let inputs = reading.stop();
        for (name, records) in payloads(&inputs) {
            whole.entry(name).or_default().extend(records);
        }
        place = positions(&inputs);
    }
    assert_eq!(whole, expected);
}

#[test]
fn a_record_of_ten_mebibytes_is_read() {
    let record = vec![b'x'; 10 << 20];
    let script =
        Script { records: vec![record.clone(), direct(1)], answer_records: 1, ..Script::default() };
    let server = ScriptedKinesis::start(vec![script], 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("both records", |reading| reading.record_count() == 2);
    assert!(payloads(&reading.stop())[&shard_name("flow", 0)] == [record, direct(1)]);
}

#[test]
fn a_wrong_clock_is_made_up_for() {
    let (scripts, expected) = scripts(|_, _| {});
    let server = ScriptedKinesis::start(scripts, 10);
    server.skew();
    let mut oldest = settings(&server.endpoint, "flow");
    oldest.start = StartPosition::TrimHorizon;
    let mut reading = Reading::start(oldest);
    reading.until("every record", |reading| reading.record_count() == 80);
    assert_eq!(payloads(&reading.stop()), expected);
}
