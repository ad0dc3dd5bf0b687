//! `s3://` on the command line: a report over objects is the report over the same files.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::bucket::{Bucket, Object, objects};
use crate::program::{flowgauge, summary, without_throughput};
use crate::servers::CREDENTIALS;

fn flowgauge_of(bucket: &Bucket, arguments: &[&str]) -> Output {
    let mut command = flowgauge();
    command.envs(CREDENTIALS).env("AWS_REGION", "us-east-1");
    command.env("AWS_ENDPOINT_URL", &bucket.emulator.endpoint);
    command.args(arguments).output().expect("the program starts")
}

fn analyze(bucket: &Bucket, arguments: &[&str]) -> Value {
    let output = flowgauge_of(bucket, &[&["analyze", "--output", "json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

fn filled(name: &str, directory: &Path, count: u64) -> (Bucket, Vec<Object>) {
    let bucket = Bucket::create(name);
    let objects = objects(directory, count);
    for object in &objects {
        bucket.put(&object.key, object.bytes.clone());
    }
    (bucket, objects)
}

#[test]
fn a_report_over_objects_is_that_over_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bucket, objects) = filled("urls-report", directory.path(), 10);
    // A folder of the console, and a key that only begins like a folder.
    bucket.put("AWSLogs/empty", Vec::new());
    let files: Vec<&Path> = objects.iter().map(|object| &*object.file).collect();
    let of_files = without_throughput(summary(&files));
    for key in ["AWSLogs/", "AWSLogs", "", "**/*.log*", "AWSL"] {
        let of_objects = without_throughput(analyze(&bucket, &[&bucket.url(key)]));
        assert_eq!(of_objects, of_files, "{key}");
    }
    let one = analyze(&bucket, &[&bucket.url(&objects[5].key)]);
    assert_eq!(without_throughput(one), without_throughput(summary(&[&objects[5].file])));
    let both = analyze(
        &bucket,
        &[&bucket.url("AWSLogs/000000000000/"), files[1].to_str().expect("UTF-8")],
    );
    assert_eq!(both["input"]["files"], 6);
    let slow = analyze(&bucket, &["--rate-limit", "10MiB/s", &bucket.url("AWSLogs/")]);
    assert_eq!(without_throughput(slow), of_files);
}

#[test]
fn replay_finds_in_objects_what_it_finds_in_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bucket, objects) = filled("urls-replay", directory.path(), 6);
    let of_objects = flowgauge_of(&bucket, &["replay", "-q", &bucket.url("AWSLogs/")]);
    let files = objects.iter().map(|object| object.file.to_str().expect("UTF-8"));
    let arguments: Vec<&str> = ["replay", "-q"].into_iter().chain(files).collect();
    let of_files = flowgauge_of(&bucket, &arguments);
    assert!(of_objects.status.success() && of_files.status.success());
    assert!(!of_files.stdout.is_empty() && of_objects.stdout == of_files.stdout);
}

#[test]
fn days_outside_of_the_range_are_not_fetched() {
    let directory = tempfile::tempdir().expect("a directory");
    let bucket = Bucket::create("urls-days");
    let object = super::bucket::object(directory.path(), 0);
    for day in ["05", "10", "15"] {
        bucket.put(&format!("x/2026/01/{day}/a.log.gz"), object.bytes.clone());
    }
    let url = bucket.url("x/");
    let some = analyze(&bucket, &["--since", "2026-01-10", "--until", "2026-01-12", &url]);
    assert_eq!(some["input"]["files"], 1);
    let none = flowgauge_of(&bucket, &["analyze", "--since", "2026-02-01", &url]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn what_is_not_there_is_said() {
    let bucket = Bucket::create("urls-faults");
    let check = |url: &str, expected: &str| {
        let output = flowgauge_of(&bucket, &["analyze", url]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    check(&bucket.url("absent/"), "no object is at or below");
    check("s3://no-such-bucket-here/a", "no such bucket");
    check("s3://X/a", "names no bucket");
    check(&bucket.url("a["), "is not a pattern");
}
