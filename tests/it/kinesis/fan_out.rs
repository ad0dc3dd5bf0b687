//! Enhanced fan-out: records that are pushed, each once, whatever happens to subscriptions and shards.

use std::collections::BTreeMap;
use std::time::Duration;

use flowgauge::source::kinesis::{
    ConsumerAddress, FanOut, KinesisSettings, Moment, ReadMode, StartPosition,
};

use super::emulator::{Emulator, Stream, settings};
use super::reading::{Reading, payloads, positions};
use super::scripted::{Push, Script, ScriptedKinesis};
use super::{aggregate, check_lineage, direct, envelope, quarter, shard_name};

const CONSUMER: &str = "gauge";

/// Settings that read through a consumer.
fn pushed(endpoint: &str) -> KinesisSettings {
    let consumer = ConsumerAddress::Name(CONSUMER.into());
    KinesisSettings { mode: ReadMode::FanOut(FanOut::of(consumer)), ..settings(endpoint, "flow") }
}

fn deregistered(endpoint: &str) -> KinesisSettings {
    let consumer = ConsumerAddress::Name(CONSUMER.into());
    let fan_out = FanOut { deregister: true, ..FanOut::of(consumer) };
    KinesisSettings { mode: ReadMode::FanOut(fan_out), ..settings(endpoint, "flow") }
}

#[test]
fn every_record_of_four_shards_is_pushed_once() {
    let emulator = Emulator::ministack();
    let stream = Stream::create(&emulator, "flow", 4);
    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut put = |stream: &Stream, numbers: std::ops::Range<usize>| {
        let mut records = Vec::new();
        for number in numbers {
            let data = match number % 3 {
                0 => envelope(number),
                1 => direct(number),
                _ => aggregate(number),
            };
            let shard = number / 3 % 4;
            expected.entry(shard_name("flow", shard)).or_default().push(data.clone());
            records.push((quarter(shard) + 5, data));
        }
        stream.put(&records);
    };
    put(&stream, 0..120);
    let mut reading = Reading::start(pushed(&emulator.endpoint));
    reading.until("every record", |reading| reading.record_count() == 120);
    put(&stream, 120..240);
    reading.until("what came later", |reading| reading.record_count() == 240);
    assert_eq!(reading.counters.subscriptions.get(), 4, "one stream each brought all of it");
    assert_eq!(reading.counters.behind(9).len(), 4);
    let inputs = reading.stop();
    assert_eq!(payloads(&inputs), expected);
    assert_eq!(stream.consumers(), [CONSUMER], "it is kept");

    // Found again by the next run, which goes on after what was read; taken off at its end.
    let mut again = Reading::resume(deregistered(&emulator.endpoint), positions(&inputs));
    stream.put(&[(0, direct(1_000))]);
    again.until("the new record", |reading| reading.record_count() == 1);
    assert_eq!(payloads(&again.stop())[&shard_name("flow", 0)], [direct(1_000)]);
    assert_eq!(stream.consumers(), Vec::<String>::new());
}

#[test]
fn the_start_position_is_kept_by_subscriptions() {
    let emulator = Emulator::ministack();
    let stream = Stream::create(&emulator, "flow", 1);
    stream.put(&[(0, direct(1))]);
    let mut latest = pushed(&emulator.endpoint);
    latest.start = StartPosition::Latest;
    let mut latest = Reading::start(latest);
    latest.until("a subscription", |reading| reading.counters.subscriptions.get() > 0);
    stream.put(&[(0, direct(2))]);
    latest.until("the new record", |reading| reading.record_count() > 0);
    assert_eq!(payloads(&latest.stop())[&shard_name("flow", 0)], [direct(2)]);

    let mut since = deregistered(&emulator.endpoint);
    since.start = StartPosition::AtTimestamp(Moment { unix_ms: 1_600_000_000_000 });
    let mut since = Reading::start(since);
    since.until("both records", |reading| reading.record_count() == 2);
    assert_eq!(payloads(&since.stop())[&shard_name("flow", 0)], [direct(1), direct(2)]);
}

#[test]
fn parents_are_drained_before_their_children_by_subscriptions_too() {
    let emulator = Emulator::kinesis_local();
    let stream = Stream::create(&emulator, "flow", 1);
    let (low, high) = (0, u128::MAX - 1);
    let some = |first: usize| -> Vec<(u128, Vec<u8>)> {
        (first..first + 20).map(|n| (if n % 2 == 0 { low } else { high }, direct(n))).collect()
    };
    stream.put(&some(0));
    // This server does not tell the end of a shard in a subscription, as the service does: that is seen by
    // listings, and the end is then polled.
    let listed =
        || KinesisSettings { list_interval: Duration::from_secs(1), ..pushed(&emulator.endpoint) };
    let mut live = Reading::start(listed());
    live.until("the first records", |reading| reading.record_count() == 20);
    stream.split("shardId-000000000000", 1 << 127);
    stream.put(&some(20));
    live.until("the children's records", |reading| reading.record_count() == 40);
    stream.merge("shardId-000000000001", "shardId-000000000002");
    stream.put(&some(40));
    live.until("the merged shard's records", |reading| reading.record_count() == 60);
    check_lineage(&live.stop());

    // The same when the whole history is there from the start; and by polling afterwards.
    let mut later = Reading::start(listed());
    later.until("every record", |reading| reading.record_count() == 60);
    let later = later.stop();
    check_lineage(&later);
    stream.put(&some(60));
    let mut polled = Reading::resume(settings(&emulator.endpoint, "flow"), positions(&later));
    polled.until("the rest", |reading| reading.record_count() == 20);
    let rest: Vec<Vec<u8>> = (60..80).map(direct).collect();
    assert_eq!(payloads(&polled.stop())[&shard_name("flow", 3)], rest);
}

/// One shard of 20 records, four an event.
fn script(shard: usize, pushes: &[Push]) -> Script {
    Script {
        records: (0..20).map(|n| direct(shard * 100 + n)).collect(),
        answer_records: 4,
        pushes: pushes.iter().copied().enumerate().collect(),
        closed: shard.is_multiple_of(2),
        ..Script::default()
    }
}

#[test]
fn faults_of_subscriptions_neither_lose_nor_double() {
    let faults: [&[Push]; 7] = [
        &[Push::Expire, Push::Truncate],
        &[Push::Truncate, Push::Corrupt],
        &[Push::Corrupt, Push::Expire],
        &[Push::Exception("InternalFailureException"), Push::Silence],
        &[Push::Error(400, "ResourceInUseException"), Push::Expire],
        &[Push::Error(500, "InternalFailure"), Push::Error(400, "LimitExceededException")],
        &[Push::Silence],
    ];
    let scripts: Vec<Script> =
        faults.iter().enumerate().map(|(shard, pushes)| script(shard, pushes)).collect();
    let expected: BTreeMap<String, Vec<Vec<u8>>> = scripts
        .iter()
        .enumerate()
        .map(|(shard, script)| (shard_name("flow", shard), script.records.clone()))
        .collect();
    let server = ScriptedKinesis::start(scripts, 3);
    let mut fast = pushed(&server.endpoint);
    if let ReadMode::FanOut(fan_out) = &mut fast.mode {
        // Long, so that no other subscription counts as silent where the machine is busy.
        fan_out.silent_after = Duration::from_secs(15);
    }
    let mut reading = Reading::start(fast);
    reading.until("every record", |reading| reading.record_count() == 140);
    reading.until("every end", |reading| {
        reading.inputs.values().filter(|input| input.is_finished).count() == 4
    });
    let counters = std::sync::Arc::clone(&reading.counters);
    assert_eq!(payloads(&reading.stop()), expected);
    assert_eq!(counters.records.get(), 140);
    assert_eq!(counters.subscriptions_in_use.get(), 1);
    assert_eq!(counters.throttled.get(), 1);
    assert_eq!(counters.losses.get(), 0);
    // Two cut, two corrupt, one exception; two silent. And a call that failed.
    assert_eq!(counters.subscriptions_broken.get(), 7);
    assert_eq!(counters.retried.get(), 6);
    assert_eq!(server.consumers(), [CONSUMER]);
    // After a fault it goes on after the last event, never from the start.
    let calls: Vec<_> = server.calls.try_iter().filter(|call| call.shard == 0).collect();
    let asked: Vec<Option<&str>> = calls.iter().map(|call| call.after.as_deref()).collect();
    assert_eq!(asked, [None, Some("4"), Some("8")]);
}

#[test]
fn a_subscription_at_the_tip_does_not_skip_what_came_since() {
    let server = ScriptedKinesis::start(vec![script(1, &[Push::Expire])], 10);
    let mut latest = pushed(&server.endpoint);
    latest.start = StartPosition::Latest;
    let mut reading = Reading::start(latest);
    reading.until("a second subscription", |reading| reading.counters.subscriptions.get() == 2);
    reading.stop();
    let asked: Vec<_> =
        server.calls.try_iter().map(|call| (call.iterator_type, call.after)).collect();
    let types: Vec<&str> = asked.iter().filter_map(|(asked, _)| asked.as_deref()).collect();
    assert_eq!(types, ["LATEST", "AT_TIMESTAMP"], "there was no event yet");
}

#[test]
fn a_later_run_subscribes_after_what_was_read() {
    let scripts = || -> Vec<Script> { (0..3).map(|shard| script(shard, &[])).collect() };
    let expected: BTreeMap<String, Vec<Vec<u8>>> = scripts()
        .into_iter()
        .enumerate()
        .map(|(shard, script)| (shard_name("flow", shard), script.records))
        .collect();
    for cut in [0, 4, 13, 60] {
        let server = ScriptedKinesis::start(scripts(), 10);
        let mut before = Reading::start(pushed(&server.endpoint));
        before.until("some records", |reading| {
            reading.inputs.len() == 3 && reading.record_count() >= cut
        });
        let before = before.stop();
        let server = ScriptedKinesis::start(scripts(), 10);
        let mut after = Reading::resume(pushed(&server.endpoint), positions(&before));
        let read: usize = before.values().map(|input| input.records.len()).sum();
        after.until("the rest", |reading| read + reading.record_count() == 60);
        let mut whole = payloads(&before);
        for (name, rest) in payloads(&after.stop()) {
            whole.entry(name).or_default().extend(rest);
        }
        assert!(whole == expected, "cut after {cut}");
    }
}

#[test]
fn a_full_pipeline_stops_what_is_pushed() {
    const SHARDS: usize = 24;
    const RECORD_BYTES: usize = 512 << 10;
    const LIMIT_BYTES: u64 = 16 << 20;
    let scripts = (0..SHARDS)
        .map(|_| Script {
            records: vec![vec![b'x'; RECORD_BYTES]; 8],
            answer_records: 2,
            closed: true,
            ..Script::default()
        })
        .collect();
    let server = ScriptedKinesis::start(scripts, 100);
    let mut small = pushed(&server.endpoint);
    small.read_ahead_bytes_max = LIMIT_BYTES;
    let mut reading = Reading::start(small);
    reading.until("all inputs", |reading| reading.inputs.len() == SHARDS);
    // Nothing is taken now: events come in until the limit, and then none.
    let counters = std::sync::Arc::clone(&reading.counters);
    assert_eq!(reading.record_count(), 0);
    let mut events = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let so_far = counters.answers.get();
        if so_far == events && events > 0 {
            break;
        }
        events = so_far;
    }
    // Events of a mebibyte as far as the budget goes, one more for each thread of the runtime, and the
    // ends of shards that were read to their ends by then.
    let budget_events = LIMIT_BYTES / (2 * RECORD_BYTES as u64);
    assert!((budget_events - 1..budget_events + 10).contains(&events), "{events} events");
    reading.until("every end", |reading| reading.inputs.values().all(|input| input.is_finished));
    assert_eq!(reading.record_count(), SHARDS * 8);
    assert_eq!(reading.counters.subscriptions_broken.get(), 0);
    reading.stop();
}

#[test]
fn what_is_not_allowed_is_said() {
    let check = |denied: &'static str, expected: &[&str]| {
        let server = ScriptedKinesis::start(vec![script(1, &[])], 10);
        server.deny(&[denied]);
        let (_, outcome) = Reading::start(pushed(&server.endpoint)).end();
        let message = outcome.unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    };
    check("ListShards", &["allow `kinesis:ListShards`"]);
    check("DescribeStreamSummary", &["allow `kinesis:DescribeStreamSummary`", "`stream_arn`"]);
    check("DescribeStreamConsumer", &["allow `kinesis:DescribeStreamConsumer`"]);
    check("RegisterStreamConsumer", &["allow `kinesis:RegisterStreamConsumer`", "`gauge`"]);
    check("SubscribeToShard", &["allow `kinesis:SubscribeToShard` on the consumer's ARN"]);
}

#[test]
fn a_consumer_by_arn_must_be_registered() {
    let server = ScriptedKinesis::start(vec![script(1, &[])], 10);
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/flow/consumer/other:1767225600";
    let settings = KinesisSettings {
        mode: ReadMode::FanOut(FanOut::of(ConsumerAddress::Arn(arn.into()))),
        ..settings(&server.endpoint, "flow")
    };
    let (_, outcome) = Reading::start(settings).end();
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("there is no consumer `arn:"), "{message}");
}
