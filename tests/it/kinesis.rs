//! Kinesis streams: every record once, whatever happens to calls, iterators and shards.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod credentials;
pub(crate) mod emulator;
mod fan_out;
pub(crate) mod reading;
mod retaking;
pub(crate) mod scripted;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge::framing::InputId;
use flowgauge::sink::kinesis::{StreamWriteError, StreamWriter};
use flowgauge::source::kinesis::{Moment, StartPosition};
use md5::{Digest, Md5};
use prost::Message;

use emulator::{Emulator, Stream, access, settings};
use reading::{Input, Reading, payloads, positions};
use scripted::{Fault, Script, ScriptedKinesis};

const LINE: &str = "2 123456789012 eni-0a1b2c3d 10.0.1.5 10.0.2.7 44321 443 6 10 840 1767225600 1767225660 ACCEPT OK";

/// A CloudWatch Logs envelope as a subscription delivers it.
fn envelope(number: usize) -> Vec<u8> {
    let document = serde_json::json!({
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "flow",
        "logStream": "eni-0a1b2c3d-all",
        "subscriptionFilters": ["all"],
        "logEvents": [{"id": number.to_string(), "timestamp": 1_767_225_660_000_u64, "message": LINE}],
    });
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(document.to_string().as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A record as a flow log delivers it directly.
fn direct(number: usize) -> Vec<u8> {
    format!("{{\"message\":\"{LINE} {number}\"}}").into_bytes()
}

#[derive(Message)]
struct Aggregate {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<AggregateRecord>,
}

#[derive(Message)]
struct AggregateRecord {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(bytes = "vec", required, tag = "3")]
    data: Vec<u8>,
}

/// Several records in one, as the Kinesis Producer Library packs them.
fn aggregate(number: usize) -> Vec<u8> {
    let record =
        |part| AggregateRecord { partition_key_index: 0, data: direct(number * 10 + part) };
    let message =
        Aggregate { partition_keys: vec!["key".into()], records: (0..3).map(record).collect() };
    let body = message.encode_to_vec();
    let digest = Md5::digest(&body);
    [&[0xf3, 0x89, 0x9a, 0xc2], &body[..], &digest[..]].concat()
}

/// The first hash key of a quarter of the key space.
fn quarter(shard: usize) -> u128 {
    (1 << 126) * u128::try_from(shard).unwrap()
}

fn shard_name(stream: &str, shard: usize) -> String {
    format!("{stream}/shardId-{shard:012}")
}

#[test]
fn every_record_of_four_shards_arrives_once() {
    let emulator = Emulator::shared_ministack();
    let stream = Stream::create(emulator, "four-shards", 4);
    let mut records = Vec::new();
    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for number in 0..120 {
        let data = match number % 3 {
            0 => envelope(number),
            1 => direct(number),
            _ => aggregate(number),
        };
        let shard = number / 3 % 4;
        expected.entry(shard_name("four-shards", shard)).or_default().push(data.clone());
        records.push((quarter(shard) + 5, data));
    }
    stream.put(&records);

    let mut reading = Reading::start(settings(&emulator.endpoint, "four-shards"));
    reading.until("every record", |reading| reading.record_count() == records.len());
    let counters = Arc::clone(&reading.counters);
    let inputs = reading.stop();
    assert_eq!(payloads(&inputs), expected);
    assert_eq!(counters.records.get(), 120);
    for (index, input) in inputs.values().enumerate() {
        assert_eq!(input.opened_at, index, "all are opened before any is read");
        assert!(input.records.iter().all(|record| record.hash_key_range.is_none()), "no parents");
        assert!(input.records.iter().all(|record| record.arrival_ms > 1_600_000_000_000));
        assert!(input.records.is_sorted_by_key(|record| record.sequence_number.clone()));
        assert_eq!(input.fault, None);
    }
}

#[test]
fn the_start_position_is_kept() {
    let emulator = Emulator::shared_ministack();
    let stream = Stream::create(emulator, "start-position", 1);
    stream.put(&[(0, direct(1))]);

    let mut latest = settings(&emulator.endpoint, "start-position");
    latest.start = StartPosition::Latest;
    let mut latest = Reading::start(latest);
    // An answer shows that the position was taken.
    latest.until("an answer", |reading| reading.counters.answers.get() > 0);
    stream.put(&[(0, direct(2))]);
    latest.until("the new record", |reading| reading.record_count() > 0);
    assert_eq!(payloads(&latest.stop())[&shard_name("start-position", 0)], [direct(2)]);

    let mut since = settings(&emulator.endpoint, "start-position");
    since.start = StartPosition::AtTimestamp(Moment { unix_ms: 1_600_000_000_000 });
    let mut since = Reading::start(since);
    since.until("both records", |reading| reading.record_count() == 2);
    assert_eq!(payloads(&since.stop())[&shard_name("start-position", 0)], [direct(1), direct(2)]);
}

#[test]
fn a_stream_that_does_not_exist_is_an_error_that_says_so() {
    let emulator = Emulator::shared_ministack();
    let (inputs, outcome) = Reading::start(settings(&emulator.endpoint, "flwo")).end();
    assert!(inputs.is_empty());
    let message = outcome.unwrap_err().to_string();
    assert!(message.starts_with("source `prod`: there is no stream `flwo`"), "{message}");

    let mut writer = StreamWriter::with_access("flwo".into(), &access(&emulator.endpoint)).unwrap();
    let error = writer.put(vec![("key".into(), direct(1))]).unwrap_err();
    assert!(matches!(error, StreamWriteError::Refused { .. }), "{error}");
}

#[test]
fn what_is_written_is_read() {
    let emulator = Emulator::shared_ministack();
    let _stream = Stream::create(emulator, "written", 2);
    let records: Vec<Vec<u8>> = (0..1203).map(direct).collect();
    let mut writer =
        StreamWriter::with_access("written".into(), &access(&emulator.endpoint)).unwrap();
    let keyed = records.iter().enumerate().map(|(n, data)| (n.to_string(), data.clone()));
    writer.put(keyed.collect()).unwrap();

    let mut reading = Reading::start(settings(&emulator.endpoint, "written"));
    reading.until("every record", |reading| reading.record_count() == records.len());
    let mut read: Vec<Vec<u8>> = payloads(&reading.stop()).into_values().flatten().collect();
    read.sort_unstable();
    let mut written = records;
    written.sort_unstable();
    assert!(read == written);
}

#[test]
fn parents_are_drained_before_their_children() {
    let emulator = Emulator::shared_kinesis_local();
    let stream = Stream::create(emulator, "lineage", 1);
    let low = 0;
    let high = u128::MAX - 1;
    let some = |first: usize| -> Vec<(u128, Vec<u8>)> {
        (first..first + 20).map(|n| (if n % 2 == 0 { low } else { high }, direct(n))).collect()
    };

    stream.put(&some(0));
    let mut live = Reading::start(settings(&emulator.endpoint, "lineage"));
    live.until("the first records", |reading| reading.record_count() == 20);
    stream.split("shardId-000000000000", 1 << 127);
    stream.put(&some(20));
    live.until("the children's records", |reading| reading.record_count() == 40);
    stream.merge("shardId-000000000001", "shardId-000000000002");
    stream.put(&some(40));
    live.until("the merged shard's records", |reading| reading.record_count() == 60);
    check_lineage(&live.stop());

    // The same when the whole history is there from the start.
    let mut later = Reading::start(settings(&emulator.endpoint, "lineage"));
    later.until("every record", |reading| reading.record_count() == 60);
    check_lineage(&later.stop());
}

/// Shard 0 was split into 1 and 2, those were merged into 3; 20 records in each generation.
fn check_lineage(inputs: &BTreeMap<InputId, Input>) {
    let by_name: BTreeMap<&str, &Input> =
        inputs.values().map(|input| (input.name.as_str(), input)).collect();
    let shards: Vec<&Input> = by_name.into_values().collect();
    assert_eq!(shards.len(), 4);
    for (parent, child) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        assert!(shards[parent].closed_at < shards[child].first_data_at, "{parent} {child}");
    }
    for (last_parent, child) in [(0, 1), (0, 2)] {
        assert!(Some(shards[child].opened_at) < shards[last_parent].closed_at);
    }
    assert!(shards[1].closed_at.max(shards[2].closed_at) > Some(shards[3].opened_at));
    let numbers = |from: usize, step: usize, count: usize| -> Vec<Vec<u8>> {
        (from..).step_by(step).take(count).map(direct).collect()
    };
    let expected = [numbers(0, 1, 20), numbers(20, 2, 10), numbers(21, 2, 10), numbers(40, 1, 20)];
    let read = payloads(inputs);
    for ((name, read), expected) in read.iter().zip(expected) {
        assert!(*read == expected, "{name}");
    }
}

#[test]
fn faults_of_calls_neither_lose_nor_double() {
    const THROTTLE: Fault = Fault::Error(400, "ProvisionedThroughputExceededException");
    const EXPIRED: Fault = Fault::Error(400, "ExpiredIteratorException");
    const INTERNAL: Fault = Fault::Error(500, "InternalFailure");
    let faults: [&[Fault]; 4] = [
        &[THROTTLE, EXPIRED, INTERNAL, Fault::Reset],
        &[Fault::HalfAnswer, EXPIRED, EXPIRED, Fault::Empty],
        &[Fault::Error(400, "InvalidArgumentException"), Fault::Reset, Fault::HalfAnswer],
        &[INTERNAL, Fault::Error(503, "ServiceUnavailable"), Fault::Empty, Fault::Empty],
    ];
    let scripts: Vec<Script> = faults
        .iter()
        .enumerate()
        .map(|(shard, faults)| Script {
            records: (0..20).map(|n| direct(shard * 100 + n)).collect(),
            answer_records: 4,
            // After the first answer, so that there is a position to go back to.
            faults: faults.iter().enumerate().map(|(call, fault)| (call + 1, *fault)).collect(),
            iterator_faults: BTreeMap::from([(0, INTERNAL), (1, THROTTLE)]),
            closed: shard == 3,
            ..Script::default()
        })
        .collect();
    let expected: BTreeMap<String, Vec<Vec<u8>>> = scripts
        .iter()
        .enumerate()
        .map(|(shard, script)| (shard_name("flow", shard), script.records.clone()))
        .collect();
    let server = ScriptedKinesis::start(scripts, 3);

    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("every record", |reading| reading.record_count() == 80);
    reading.until("the end of a shard", |reading| {
        reading.inputs.values().any(|input| input.closed_at.is_some())
    });
    let counters = Arc::clone(&reading.counters);
    assert_eq!(payloads(&reading.stop()), expected);
    assert_eq!(counters.records.get(), 80);
    assert_eq!(counters.throttled.get(), 5);
    assert_eq!(counters.iterators_replaced.get(), 4);
    assert_eq!(counters.retried.get(), 11);
    assert_eq!(counters.losses.get(), 0);
    assert_eq!(counters.shards_ended.get(), 1);
}

#[test]
fn a_position_that_the_stream_no_longer_holds_is_a_loss_and_nothing_comes_twice() {
    let script = Script {
        records: (0..12).map(direct).collect(),
        answer_records: 4,
        faults: BTreeMap::from([(1, Fault::Error(400, "ExpiredIteratorException"))]),
        iterator_faults: BTreeMap::from([(1, Fault::Error(400, "InvalidArgumentException"))]),
        ..Script::default()
    };
    let expected = script.records.clone();
    let server = ScriptedKinesis::start(vec![script], 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("every record", |reading| reading.record_count() == 12);
    assert_eq!(reading.counters.losses.get(), 1);
    assert_eq!(payloads(&reading.stop())[&shard_name("flow", 0)], expected);
    let types: Vec<String> =
        server.calls.try_iter().filter_map(|call| call.iterator_type).collect();
    assert_eq!(types, ["TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON"]);
}

/// Three shards of 12 records, the first closed.
fn three_shards() -> Vec<Script> {
    let script = |shard: usize| Script {
        records: (0..12).map(|n| direct(shard * 100 + n)).collect(),
        answer_records: 4,
        closed: shard == 0,
        ..Script::default()
    };
    (0..3).map(script).collect()
}

#[test]
fn a_later_run_goes_on_after_what_was_read() {
    let expected: BTreeMap<String, Vec<Vec<u8>>> = three_shards()
        .into_iter()
        .enumerate()
        .map(|(shard, script)| (shard_name("flow", shard), script.records))
        .collect();
    for cut in [0, 4, 13, 36] {
        let server = ScriptedKinesis::start(three_shards(), 10);
        let mut before = Reading::start(settings(&server.endpoint, "flow"));
        before.until("some records", |reading| {
            reading.inputs.len() == 3 && reading.record_count() >= cut
        });
        let before = before.stop();
        let server = ScriptedKinesis::start(three_shards(), 10);
        let mut after = Reading::resume(settings(&server.endpoint, "flow"), positions(&before));
        let read: usize = before.values().map(|input| input.records.len()).sum();
        after.until("the rest", |reading| read + reading.record_count() == 36);
        let after = after.stop();
        let mut whole = payloads(&before);
        for (name, rest) in payloads(&after) {
            whole.entry(name).or_default().extend(rest);
        }
        assert!(whole == expected, "cut after {cut}");
        for input in before.values().filter(|input| input.is_finished) {
            assert!(after.values().all(|later| later.name != input.name), "{}", input.name);
        }
    }
}

#[test]
fn what_the_stream_lost_between_two_runs_is_told() {
    let server = ScriptedKinesis::start(three_shards(), 10);
    let mut before = Reading::start(settings(&server.endpoint, "flow"));
    before.until("every record", |reading| reading.record_count() == 36);
    let before = before.stop();
    let mut scripts = three_shards();
    scripts.truncate(2);
    scripts[1].iterator_faults =
        BTreeMap::from([(0, Fault::Error(400, "InvalidArgumentException"))]);
    scripts[1].records.push(direct(112));
    let server = ScriptedKinesis::start(scripts, 10);
    let mut after = Reading::resume(settings(&server.endpoint, "flow"), positions(&before));
    after.until("the new record", |reading| reading.record_count() == 1);
    assert_eq!(after.counters.losses.get(), 2, "a position and a shard");
    let after = after.stop();
    assert_eq!(payloads(&after)[&shard_name("flow", 1)], [direct(112)]);
    let gone = after.values().find(|input| input.name == shard_name("flow", 2)).unwrap();
    assert!(gone.fault.as_ref().unwrap().contains("no longer has the shard"), "{gone:?}");
}

#[test]
fn a_lost_iterator_at_the_tip_does_not_skip_what_came_since() {
    let script = Script {
        answer_records: 4,
        faults: BTreeMap::from([(0, Fault::Error(400, "ExpiredIteratorException"))]),
        ..Script::default()
    };
    let server = ScriptedKinesis::start(vec![script], 10);
    let mut latest = settings(&server.endpoint, "flow");
    latest.start = StartPosition::Latest;
    let mut reading = Reading::start(latest);
    reading.until("an answer", |reading| reading.counters.answers.get() > 0);
    reading.stop();
    let types: Vec<String> =
        server.calls.try_iter().filter_map(|call| call.iterator_type).collect();
    assert_eq!(types, ["LATEST", "AT_TIMESTAMP"]);
}

#[test]
fn reading_ahead_stops_at_its_limit() {
    const SHARDS: usize = 24;
    const RECORD_BYTES: usize = 512 << 10;
    const LIMIT_BYTES: usize = 16 << 20;
    let scripts = (0..SHARDS)
        .map(|_| Script {
            records: vec![vec![b'x'; RECORD_BYTES]; 4],
            answer_records: 4,
            closed: true,
            ..Script::default()
        })
        .collect();
    let server = ScriptedKinesis::start(scripts, 100);
    let mut small = settings(&server.endpoint, "flow");
    small.read_ahead_bytes_max = LIMIT_BYTES as u64;
    let mut reading = Reading::start(small);
    reading.until("all inputs", |reading| reading.inputs.len() == SHARDS);

    // Nothing is taken now: answers come until the limit, and then silence.
    let mut answers = 0;
    loop {
        match server.calls.recv_timeout(Duration::from_secs(1)) {
            Ok(call) => answers += usize::from(call.iterator_type.is_none()),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => panic!("the server is gone"),
        }
    }
    let answer_bytes = 4 * RECORD_BYTES;
    assert!(answers >= 3, "{answers} answers");
    assert!((answers - 1) * answer_bytes <= LIMIT_BYTES, "{answers} answers");

    reading.until("every end", |reading| {
        reading.inputs.values().all(|input| input.closed_at.is_some())
    });
    assert_eq!(reading.record_count(), SHARDS * 4);
    let inputs = reading.stop();
    assert_eq!(inputs.len(), SHARDS);
}

#[test]
fn a_stop_hands_on_the_answer_in_hand_and_closes() {
    let script = Script {
        records: (0..1000).map(direct).collect(),
        answer_records: 10,
        ..Script::default()
    };
    let all = script.records.clone();
    let server = ScriptedKinesis::start(vec![script], 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("some records", |reading| reading.record_count() > 0);
    let read = payloads(&reading.stop()).remove(&shard_name("flow", 0)).unwrap();
    assert!(read.len() < all.len() && read.len().is_multiple_of(10), "{} records", read.len());
    assert!(all.starts_with(&read));
}

#[test]
fn a_thousand_shards_are_read_side_by_side() {
    const SHARDS: usize = 1000;
    let scripts = (0..SHARDS)
        .map(|shard| Script {
            records: vec![direct(shard), direct(shard + SHARDS)],
            answer_records: 1,
            closed: shard % 2 == 0,
            ..Script::default()
        })
        .collect();
    let server = ScriptedKinesis::start(scripts, 300);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("every record", |reading| reading.record_count() == 2 * SHARDS);
    let inputs = reading.stop();
    for (shard, read) in payloads(&inputs).into_values().enumerate() {
        assert_eq!(read, [direct(shard), direct(shard + SHARDS)]);
    }
    let last_opened = inputs.values().map(|input| input.opened_at).max();
    let first_data = inputs.values().filter_map(|input| input.first_data_at).min();
    assert!(last_opened < first_data);
}

#[test]
fn a_pipeline_that_takes_no_more_ends_the_source() {
    let script =
        Script { records: (0..100).map(direct).collect(), answer_records: 10, ..Script::default() };
    let server = ScriptedKinesis::start(vec![script], 10);
    let mut reading = Reading::start(settings(&server.endpoint, "flow"));
    reading.until("some records", |reading| reading.record_count() > 0);
    reading.hang_up().unwrap();
}

#[test]
fn reads_that_are_not_allowed_end_the_source_with_advice() {
    let script = Script {
        faults: BTreeMap::from([(0, Fault::Error(400, "AccessDeniedException"))]),
        ..Script::default()
    };
    let server = ScriptedKinesis::start(vec![script], 10);
    let (inputs, outcome) = Reading::start(settings(&server.endpoint, "flow")).end();
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("allow `kinesis:GetShardIterator`"), "{message}");
    assert!(inputs.values().all(|input| input.fault.is_some()));
}
