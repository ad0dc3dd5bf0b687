//! A Kinesis stream read by one process after the other: whatever ends them, each record counts once.
#![cfg(feature = "kinesis")]

use std::path::{Path, PathBuf};

use super::journal;
use crate::job::{self, Job, figures};
use crate::kinesis::emulator::Stream;
use crate::program::{flowgauge, summary};
use crate::servers::{CREDENTIALS, Emulator};

/// Records of one stretch of the stream.
pub(crate) const RECORDS: u64 = 2_400;

/// A stretch of records, put into a stream and into a file.
pub(crate) fn produce(emulator: &Emulator, stream: &str, directory: &Path, number: u64) -> PathBuf {
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
        stream,
        "--region",
        "us-east-1",
        "--endpoint",
        &emulator.endpoint,
    ]);
    file
}

fn shard(number: usize) -> String {
    format!("shardId-{number:012}")
}

#[test]
fn each_record_counts_once_over_kills_drains_and_reshards() {
    check("kills-and-reshards", "poll_interval = '200ms'\nrecords_per_call_max = 40");
}

#[test]
fn each_record_counts_once_over_kills_drains_and_reshards_by_fan_out() {
    // Held, so that there is a middle in which it can be killed.
    check(
        "kills-and-reshards-pushed",
        "consumer = 'gauge'\nlist_interval = '1s'\nrate_limit = '100kB/s'",
    );
}

/// Reads a stream of this name with these settings of its source, while it is resharded and processes end.
fn check(stream_name: &str, settings: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let emulator = Emulator::shared_kinesis_local();
    let stream = Stream::create(emulator, stream_name, 2);
    let source = format!(
        "[sources.prod]\ntype = 'kinesis'\nstream = '{stream_name}'\nregion = 'us-east-1'\n\
         endpoint = '{}'\n{settings}",
        emulator.endpoint,
    );
    let config = job::config(directory.path(), &source);

    // Killed in the middle of two shards.
    let mut files = vec![produce(emulator, stream_name, directory.path(), 0)];
    let mut job = Job::start(&config);
    job.read_until(RECORDS / 3);
    assert!(job.records < RECORDS, "in the middle");
    job.kill();

    // The first shard is split while nobody reads; drained among its children.
    stream.split(&shard(0), 1 << 126);
    files.push(produce(emulator, stream_name, directory.path(), 1));
    let mut job = Job::start(&config);
    job.read_until(RECORDS + RECORDS / 3);
    let drained = job.drain();
    let read = drained["records"]["total"].as_u64().expect("a count");
    // What was pushed before a drain is let through.
    assert!(settings.contains("consumer") || read < 2 * RECORDS, "{read}: in the middle");

    // Two neighbours are merged, and a process is killed at once.
    stream.merge(&shard(3), &shard(1));
    files.push(produce(emulator, stream_name, directory.path(), 2));
    let mut job = Job::start(&config);
    job.next_stats();
    job.kill();

    let mut job = Job::start(&config);
    job.read_until(3 * RECORDS);
    // Whatever came twice would come within a second.
    assert_eq!((0..5).map(|_| job.next_stats()).sum::<u64>(), 0, "nothing is left");
    let summary_of_all = job.drain();
    let mut arguments: Vec<&str> = Vec::new();
    arguments.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    assert_eq!(figures(&summary_of_all), figures(&summary(&arguments)));
    assert_eq!(summary_of_all["records"]["total"], 3 * RECORDS);
    assert!(!journal(&directory.path().join("state")).is_empty(), "attacks were planted");
}
