//! A Kinesis stream read by one process after the other: whatever ends them, each record counts once.
#![cfg(feature = "kinesis")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::journal;
use crate::kinesis::emulator::{Emulator, Stream};
use crate::program::{flowgauge, summary};

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_mins(2);

const STREAM: &str = "flow";

/// Records of one stretch of the stream.
const RECORDS: u64 = 4_000;

const CREDENTIALS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A stretch of records, put into the stream and into a file.
fn produce(emulator: &Emulator, directory: &Path, number: u64) -> PathBuf {
    let records = RECORDS.to_string();
    let (seed, start) = ((number + 1).to_string(), (1_767_225_600 + number * 500).to_string());
    let same = ["--records", &records, "--attacks", "all=1", "--rate", "10", "--seed", &seed];
    let generate = |more: &[&str]| {
        let mut command = flowgauge();
        command.arg("generate").args(same).args(["--start", &start]).args(more);
        let output = command.envs(CREDENTIALS).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let file = directory.join(format!("stretch-{number}.log"));
    generate(&["-o", file.to_str().expect("UTF-8")]);
    generate(&[
        "--form",
        "mixed",
        "--stream",
        STREAM,
        "--region",
        "us-east-1",
        "--endpoint",
        &emulator.endpoint,
    ]);
    file
}

/// The program while it reads.
struct Reader {
    child: Child,
    /// Records that it says it has read, those of the processes before it among them.
    records: u64,
    log: Receiver<String>,
}

impl Reader {
    fn start(config: &Path) -> Self {
        let mut child = flowgauge()
            .args(["run", "-v", "--log-format", "json", "--output", "json", "-c"])
            .arg(config)
            .envs(CREDENTIALS)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        let (send, log) = channel();
        std::thread::Builder::new()
            .spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            })
            .expect("a thread for the log");
        Self { child, records: 0, log }
    }

    /// The records of the next line of statistics.
    fn next_stats(&mut self) -> u64 {
        loop {
            let line = self.log.recv_timeout(DEADLINE).expect("it goes on");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            assert_ne!(event["level"], "ERROR", "{event}");
            if let Some(records) = event["stats"]["records"].as_u64() {
                let source = &event["stats"]["sources"]["prod"];
                let is_told = source["inputs"].is_u64() && source["totals"]["records"].is_u64();
                assert!(is_told || records == 0, "{event}");
                self.records += records;
                return records;
            }
        }
    }

    fn read_until(&mut self, records: u64) {
        while self.records < records {
            self.next_stats();
        }
    }

    fn kill(mut self) {
        self.child.kill().expect("it is alive");
        self.child.wait().expect("it ends");
    }

    /// Ends it with a signal; its summary.
    fn drain(mut self) -> Value {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("kill is there").success());
        let mut stdout = String::new();
        let pipe = self.child.stdout.take().expect("it was piped");
        BufReader::new(pipe).read_to_string(&mut stdout).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{:?}", self.log.try_iter().collect::<Vec<_>>());
        serde_json::from_str(stdout.lines().last().expect("a summary")).expect("JSON")
    }
}

/// What of a summary does not depend on how the stream came.
fn figures(summary: &Value) -> Value {
    let mut figures = summary.clone();
    let records = figures["records"].as_object_mut().expect("an object");
    for name in ["late", "control", "headers"] {
        records.remove(name);
    }
    let kept = ["records", "action", "bytes", "packets", "time", "by_protocol", "top"];
    figures.as_object_mut().expect("an object").retain(|name, _| kept.contains(&name.as_str()));
    figures
}

fn shard(number: usize) -> String {
    format!("shardId-{number:012}")
}

#[test]
fn each_record_counts_once_over_kills_drains_and_reshards() {
    check("poll_interval = '200ms'\nrecords_per_call_max = 40");
}

#[test]
fn each_record_counts_once_over_kills_drains_and_reshards_by_fan_out() {
    // Held, so that there is a middle in which it can be killed.
    check("consumer = 'gauge'\nlist_interval = '1s'\nrate_limit = '100kB/s'");
}

/// Reads a stream with these settings of its source, while it is resharded and processes end.
fn check(settings: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let emulator = Emulator::kinesis_local();
    let stream = Stream::create(&emulator, STREAM, 2);
    let state = directory.path().join("state");
    let config = directory.path().join("flowgauge.toml");
    let text = format!(
        "[engine]\nlateness = '2m'\nidle_after = '2s'\nstate_dir = '{}'\n\
         [engine.checkpoint]\ninterval = '100ms'\n[log]\nstats_interval = '200ms'\n\
         [sources.prod]\ntype = 'kinesis'\nstream = '{STREAM}'\nregion = 'us-east-1'\n\
         endpoint = '{}'\n{settings}\n\
         [sinks.out]\ntype = 'file'\npath = '/dev/null'\n",
        state.display(),
        emulator.endpoint,
    );
    std::fs::write(&config, text).expect("a file");

    // Killed in the middle of two shards.
    let mut files = vec![produce(&emulator, directory.path(), 0)];
    let mut reader = Reader::start(&config);
    reader.read_until(RECORDS / 3);
    assert!(reader.records < RECORDS, "in the middle");
    reader.kill();

    // The first shard is split while nobody reads; drained among its children.
    stream.split(&shard(0), 1 << 126);
    files.push(produce(&emulator, directory.path(), 1));
    let mut reader = Reader::start(&config);
    reader.read_until(RECORDS + RECORDS / 3);
    let drained = reader.drain();
    let read = drained["records"]["total"].as_u64().expect("a count");
    // What was pushed before a drain is let through.
    assert!(settings.contains("consumer") || read < 2 * RECORDS, "{read}: in the middle");

    // Two neighbours are merged, and a process is killed at once.
    stream.merge(&shard(3), &shard(1));
    files.push(produce(&emulator, directory.path(), 2));
    let mut reader = Reader::start(&config);
    reader.next_stats();
    reader.kill();

    let mut reader = Reader::start(&config);
    reader.read_until(3 * RECORDS);
    // Whatever came twice would come within a second.
    assert_eq!((0..5).map(|_| reader.next_stats()).sum::<u64>(), 0, "nothing is left");
    let summary_of_all = reader.drain();
    let mut arguments: Vec<&str> = Vec::new();
    arguments.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    assert_eq!(figures(&summary_of_all), figures(&summary(&arguments)));
    assert_eq!(summary_of_all["records"]["total"], 3 * RECORDS);
    assert!(!journal(&state).is_empty(), "attacks were planted");
}
