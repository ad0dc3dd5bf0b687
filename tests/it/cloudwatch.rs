//! Log groups of CloudWatch Logs: every event once, whatever happens to calls, tokens and processes.
#![cfg(all(feature = "kinesis", feature = "cloudwatch"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod scripted;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use flowgauge::clock::{Clock, SystemClock};
use flowgauge::codec::{Decoder, Encoder};
use flowgauge::framing::{
    Chunk, ChunkEvent, Payload, Positions, ReadUntil, ResumePoint, SourceRecord,
};
use flowgauge::record::{FormatChoice, Layout};
use flowgauge::source::cloudwatch::{
    CloudWatchCounters, CloudWatchSettings, CloudWatchSource, LogGroup,
};
use flowgauge::source::{InputIds, Source, SourceError, StopFlag};
use flowgauge::units::Moment;

use crate::program::{flowgauge, without_throughput};
use crate::servers::{CREDENTIALS, DEADLINE, Emulator, Sdk, access};
use scripted::{Event, Script, ScriptedLogs};

const GROUP: &str = "/vpc/flow-logs";
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;

/// A record that begins at `start`.
pub(crate) fn line(start: i64) -> String {
    format!(
        "2 123456789012 eni-0a1b2c3d 10.0.1.5 10.0.2.7 44321 443 6 10 840 {start} {} ACCEPT OK",
        start + 60
    )
}

fn settings(endpoint: &str) -> CloudWatchSettings {
    CloudWatchSettings {
        access: access(endpoint),
        start: Some(Moment { unix_ms: START * 1000 }),
        end: Some(Moment { unix_ms: (START + 3_600) * 1000 }),
        poll_interval: Duration::from_millis(50),
        calls_per_second_max: 500,
        ..CloudWatchSettings::of(vec![LogGroup::Name(GROUP.into())])
    }
}

/// A source on a thread of its own.
struct Reading {
    counters: Arc<CloudWatchCounters>,
    stop: StopFlag,
    chunks: Receiver<Chunk>,
    thread: JoinHandle<Result<(), SourceError>>,
    /// What came so far.
    records: Vec<SourceRecord>,
    name: Option<Arc<str>>,
    point: Option<ResumePoint>,
    /// Whether the input was closed for good.
    is_closed: bool,
    /// By which fault.
    fault: Option<String>,
    next_sequence: u64,
}

impl Reading {
    fn start(settings: CloudWatchSettings) -> Self {
        Self::resume(settings, Positions::default())
    }

    fn resume(settings: CloudWatchSettings, positions: Positions) -> Self {
        let mut source = Box::new(CloudWatchSource::new(
            "groups".into(),
            settings,
            FormatChoice::Auto,
            Arc::new(InputIds::default()),
            Arc::new(SystemClock::new()),
        ));
        source.resume(Arc::new(positions));
        let (counters, stop) = (source.counters(), StopFlag::default());
        let (to, chunks) = sync_channel(0);
        let its_stop = stop.clone();
        let run = move || {
            source.run(&its_stop, &mut |chunk| match to.send(chunk) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        };
        let thread = std::thread::Builder::new().name("source".into()).spawn(run).unwrap();
        Self {
            counters,
            stop,
            chunks,
            thread,
            records: Vec::new(),
            name: None,
            point: None,
            is_closed: false,
            fault: None,
            next_sequence: 0,
        }
    }

    /// Takes the next chunk; `false` if there is none any more.
    fn step(&mut self) -> bool {
        let Ok(chunk) = self.chunks.recv_timeout(DEADLINE) else { return false };
        assert_eq!(chunk.sequence, self.next_sequence);
        self.next_sequence += 1;
        match chunk.event {
            ChunkEvent::Open(info) => self.name = Some(info.name),
            ChunkEvent::Data(data) => {
                let Payload::Records(records) = data.payload else { panic!("records") };
                self.records.extend(records);
                let (layout, file_start) = (Layout::default_v2(), None);
                let point = ResumePoint { position: data.position.unwrap(), layout, file_start };
                self.point = Some(saved_and_loaded(&point));
            }
            ChunkEvent::Close(fault) => {
                self.is_closed = true;
                self.fault = fault.map(|fault| fault.to_string());
            }
            ChunkEvent::Idle | ChunkEvent::Stop => {}
        }
        true
    }

    fn until(&mut self, count: usize) {
        while self.records.len() < count {
            assert!(self.step(), "{} of {count} came", self.records.len());
        }
    }

    fn until_it_ends(mut self) -> (Vec<SourceRecord>, Option<String>, Result<(), SourceError>) {
        while self.step() {}
        let outcome = self.thread.join().unwrap();
        assert!(self.is_closed || self.stop.is_requested());
        (self.records, self.fault, outcome)
    }

    /// Hangs up without a word, as a process that is killed.
    fn kill(self) -> (Vec<SourceRecord>, Positions) {
        drop(self.chunks);
        self.thread.join().unwrap().unwrap();
        let point = self.point.map(|point| (self.name.unwrap(), ReadUntil::Point(point)));
        (self.records, point.into_iter().collect())
    }
}

/// A point as a snapshot keeps it.
fn saved_and_loaded(point: &ResumePoint) -> ResumePoint {
    let mut out = Encoder::default();
    point.save(&mut out);
    let bytes = out.into_bytes();
    ResumePoint::load(&mut Decoder::new(&bytes)).unwrap()
}

/// `count` events, several of each second, in no order.
fn events(count: usize) -> Vec<Event> {
    (0..count)
        .map(|index| {
            let second = i64::try_from(index * 7 % 600).unwrap();
            Event { timestamp_ms: (START + second) * 1000, id: format!("3700{index:052}") }
        })
        .collect()
}

#[track_caller]
fn check_each_once(records: &[SourceRecord], expected: usize) {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for record in records {
        *counts.entry(&record.sequence_number).or_default() += 1;
    }
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(counts.len(), expected);
}

#[test]
fn every_event_comes_once_whatever_fails() {
    let faults = [
        (1, (400, "ThrottlingException")),
        (2, (503, "ServiceUnavailableException")),
        // With a token this says that the token has expired.
        (6, (400, "InvalidParameterException")),
        (9, (500, "InternalFailure")),
        (14, (400, "InvalidParameterException")),
    ];
    let server = ScriptedLogs::start(Script {
        events: events(1_000),
        page_events: 90,
        faults: faults.into_iter().collect(),
        repeats_at_borders: true,
        has_empty_pages: true,
    });
    let reading = Reading::start(settings(&server.endpoint));
    let counters = Arc::clone(&reading.counters);
    let (records, fault, outcome) = reading.until_it_ends();
    outcome.unwrap();
    assert_eq!(fault, None);
    check_each_once(&records, 1_000);
    assert_eq!(counters.throttled.get(), 1);
    assert!(counters.tokens_replaced.get() >= 1 && counters.repeated.get() > 0);
    assert_eq!(counters.events.get(), 1_000);
    assert!(records.iter().all(|record| record.arrival_ms > START * 1000));
}

#[test]
fn a_restart_goes_on_exactly_wherever_it_stopped() {
    let script = || Script {
        events: events(1_000),
        page_events: 40,
        has_empty_pages: true,
        ..Script::default()
    };
    for first in [1, 41, 500, 960, 1_000] {
        let server = ScriptedLogs::start(script());
        let mut reading = Reading::start(settings(&server.endpoint));
        reading.until(first);
        let (mut records, positions) = reading.kill();
        let (rest, fault, outcome) =
            Reading::resume(settings(&server.endpoint), positions).until_it_ends();
        outcome.unwrap();
        assert_eq!(fault, None);
        records.extend(rest);
        check_each_once(&records, 1_000);
    }
}

#[test]
fn late_events_are_found_and_nothing_comes_twice() {
    let now_ms = SystemClock::new().now_ms();
    let event = |age_seconds: i64, id: &str| Event {
        timestamp_ms: (now_ms / 1000 - age_seconds) * 1000,
        id: id.to_owned(),
    };
    let server = ScriptedLogs::start(Script {
        events: vec![event(300, "a"), event(10, "b")],
        page_events: 1,
        ..Script::default()
    });
    let follow = CloudWatchSettings { start: None, end: None, ..settings(&server.endpoint) };
    let mut reading = Reading::start(follow.clone());
    reading.until(2);
    server.add(event(1_200, "late"));
    server.add(event(0, "new"));
    reading.until(4);
    // Looks go on, and bring nothing again.
    let calls = server.call_count();
    while server.call_count() < calls + 8 {
        assert!(reading.step());
    }
    check_each_once(&reading.records, 4);
    let (mut records, positions) = reading.kill();
    server.add(event(600, "later"));
    let mut again = Reading::resume(follow, positions);
    again.until(1);
    again.stop.request();
    let (rest, _, outcome) = again.until_it_ends();
    outcome.unwrap();
    records.extend(rest);
    check_each_once(&records, 5);
}

#[test]
fn an_end_that_is_near_waits_for_late_events() {
    let now = SystemClock::new().now().0;
    let event = |age: i64, id: &str| Event { timestamp_ms: (now - age) * 1000, id: id.to_owned() };
    let server = ScriptedLogs::start(Script {
        events: vec![event(9, "a")],
        page_events: 9,
        ..Script::default()
    });
    let near = CloudWatchSettings {
        start: Some(Moment { unix_ms: (now - 10) * 1000 }),
        end: Some(Moment { unix_ms: now * 1000 }),
        lookback: Duration::from_secs(2),
        ..settings(&server.endpoint)
    };
    let mut reading = Reading::start(near);
    reading.until(1);
    server.add(event(1, "late"));
    let (records, fault, outcome) = reading.until_it_ends();
    outcome.unwrap();
    assert_eq!(fault, None);
    check_each_once(&records, 2);
}

#[test]
fn refusals_say_what_to_do() {
    let check = |fault: (u16, &'static str), expected: &str| {
        let server = ScriptedLogs::start(Script {
            page_events: 1,
            faults: [(0, fault)].into_iter().collect(),
            ..Script::default()
        });
        let (_, closed, outcome) = Reading::start(settings(&server.endpoint)).until_it_ends();
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(closed.is_some());
    };
    check(
        (400, "AccessDeniedException"),
        "allow `logs:FilterLogEvents` on log group `/vpc/flow-logs`",
    );
    check((400, "ResourceNotFoundException"), "there is no log group `/vpc/flow-logs`");
    check((400, "InvalidParameterException"), "check `stream_prefix` and `filter_pattern`");
}

/// A log group of a real server.
pub(crate) struct Group {
    sdk: Sdk,
    client: Client,
    name: String,
}

impl Group {
    pub(crate) fn create(server: &Emulator, name: &str, streams: &[&str]) -> Self {
        let sdk = Sdk::new(&server.endpoint);
        let client = Client::new(&sdk.config);
        let group = client.create_log_group().log_group_name(name);
        sdk.runtime.block_on(group.send()).unwrap();
        for stream in streams {
            let stream = client.create_log_stream().log_group_name(name).log_stream_name(*stream);
            sdk.runtime.block_on(stream.send()).unwrap();
        }
        Self { sdk, client, name: name.to_owned() }
    }

    /// Puts records by when they begin.
    pub(crate) fn put(&self, stream: &str, starts: &[i64]) {
        for call in starts.chunks(5_000) {
            let events = call.iter().map(|start| {
                let event = InputLogEvent::builder().timestamp(start * 1000).message(line(*start));
                event.build().unwrap()
            });
            let put = self.client.put_log_events().log_group_name(&self.name);
            let put = put.log_stream_name(stream).set_log_events(Some(events.collect()));
            self.sdk.runtime.block_on(put.send()).unwrap();
        }
    }
}

const STREAMS: [&str; 2] = ["eni-0a1b2c3d-all", "eni-0a1b2c3e-all"];

/// Seconds of an hour that ended three hours ago, `count` of them.
fn past(count: i64) -> (i64, Vec<i64>) {
    let begin = (SystemClock::new().now().0 - 4 * 3_600) / 3_600 * 3_600;
    (begin, (0..count).map(|index| begin + index * 3_599 / count).collect())
}

fn config(directory: &Path, endpoint: &str, begin: i64, calls_per_second: u32) -> PathBuf {
    let path = directory.join("flowgauge.toml");
    let moment = |unix: i64| Moment { unix_ms: unix * 1000 }.text();
    let text = format!(
        "[engine]\nstate_dir = '{}'\n[engine.checkpoint]\ninterval = '100ms'\n\
         [sources.groups]\ntype = 'cloudwatch_logs'\nlog_groups = ['{GROUP}']\nregion = 'us-east-1'\n\
         endpoint = '{endpoint}'\nstart = '{}'\nend = '{}'\ncalls_per_second_max = {calls_per_second}\n\
         [sinks.out]\ntype = 'file'\npath = '/dev/null'\n",
        directory.join("state").display(),
        moment(begin),
        moment(begin + 3_600),
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn backfill(config: &Path) -> std::process::Command {
    let mut command = flowgauge();
    command.arg("run").arg("-c").arg(config).args(["--output", "json"]).envs(CREDENTIALS);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_backfill_is_exact_over_pages_and_kills() {
    const COUNT: i64 = 30_000;
    let directory = tempfile::tempdir().unwrap();
    let moto = Emulator::moto(None);
    let group = Group::create(&moto, GROUP, &STREAMS);
    let (begin, starts) = past(COUNT);
    let (left, right) = starts.split_at(starts.len() / 2);
    group.put(STREAMS[0], left);
    group.put(STREAMS[1], right);
    // Outside of what is asked for.
    group.put(STREAMS[0], &[begin - 1, begin + 3_600]);

    let config = config(directory.path(), &moto.endpoint, begin, 8);
    let mut kills = 0;
    for life_ms in [900, 1_300, 700] {
        let mut child = backfill(&config).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(life_ms));
        kills += u32::from(child.try_wait().unwrap().is_none());
        drop(child.kill());
        child.wait().unwrap();
    }
    assert!(kills > 0, "none was alive to be killed");
    let output = backfill(&config).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary = without_throughput(summary);
    assert_eq!(summary["records"]["total"], COUNT, "{summary}");
    assert_eq!(summary["records"]["ok"], COUNT);
    assert_eq!(summary["bytes"], COUNT * 840);
    assert_eq!(summary["time"]["first_start"], begin);
    assert_eq!(summary["records"]["late"], 0);
}

#[test]
fn a_group_without_pages_is_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let ministack = Emulator::ministack();
    let group = Group::create(&ministack, GROUP, &STREAMS);
    let (begin, starts) = past(900);
    group.put(STREAMS[0], &starts);
    let config = config(directory.path(), &ministack.endpoint, begin, 25);
    let output = backfill(&config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["records"]["ok"], 900);
}
