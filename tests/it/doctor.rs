//! `doctor`: what it says of files, streams, log groups and flow logs, and of what is wrong with them.
#![cfg(all(feature = "kinesis", feature = "cloudwatch"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::cloudwatch::scripted::{Script, ScriptedLogs};
use crate::cloudwatch::{Group, line};
use crate::golden;
use crate::kinesis::emulator::Stream;
use crate::program::{flowgauge, run, run_with_input};
use crate::servers::{CREDENTIALS, Emulator};

const V5: &str = "5 123456789012 eni-1235b8ca123456789 10.0.0.71 52.95.128.179 34210 80 6 7 471 1616729292 1616729349 ACCEPT OK vpc-abcdefab012345678 subnet-aaaaaaaa012345678 i-0c50d5961bcb2d47b 3 IPv4 10.0.0.71 52.95.128.179 ap-southeast-2 apse2-az3 - - - S3 egress 8\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn doctor(arguments: &[&str]) -> Output {
    let mut command = flowgauge();
    command.arg("doctor").args(arguments).envs(CREDENTIALS).stdin(Stdio::null());
    command.output().expect("the program starts")
}

/// The report of arguments as JSON, and the exit code.
fn report(arguments: &[&str]) -> (Value, i32) {
    let output = doctor(&[arguments, &["--output", "json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    (report, output.status.code().unwrap())
}

/// The text report of `bytes` in a file, without what depends on the clock, against its golden file.
fn check(name: &str, bytes: &[u8], arguments: &[&str], expected_code: i32) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    let output = doctor(&[&[path], arguments].concat());
    assert_eq!(
        output.status.code(),
        Some(expected_code),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(directory.path().to_str().unwrap(), "DIRECTORY");
    let timeless: String =
        text.split_inclusive('\n').filter(|line| !line.starts_with("  lag ")).collect();
    golden::check(&format!("doctor/{name}.txt"), &timeless);
}

fn lines(starts: impl Iterator<Item = i64>) -> String {
    starts.map(|start| line(start) + "\n").collect()
}

#[test]
fn files_are_told() {
    let start = 1_767_225_600;
    let default = lines((0..100).map(|index| start + index * 10));
    check("default.log", default.as_bytes(), &[], 0);
    let nodata = "2 123456789012 eni-0a1b2c3e - - - - - - - 1767225600 1767225660 - NODATA\n\
                  2 123456789012 eni-0a1b2c3f - - - - - - - 1767225600 1767226190 - SKIPDATA\n";
    check("gaps.log.gz", &gzip(&(default.clone() + nodata + &line(start) + "\n")), &[], 0);
    let header = "version srcaddr dstaddr end action\n2 10.0.0.1 10.0.0.2 1767225600 ACCEPT\n";
    check("header.log.gz", &gzip(header), &[], 0);
    let exported = default.lines().map(|line| format!("2026-01-01T00:00:00.000Z {line}"));
    let export = exported.collect::<Vec<String>>().join("\n");
    check("000000.gz", &gzip(&export), &[], 0);
    check("without-header.log", V5.repeat(3).as_bytes(), &[], 0);
    check("given.log", V5.as_bytes(), &["--format", "v5"], 0);
}

#[test]
fn nothing_that_could_be_read_is_an_error() {
    check("foreign.log", b"one two three\nfour five six\n", &[], 1);
    check("archive.zip", b"PK\x03\x04 and so on", &[], 1);
    check("empty.log", b"", &[], 0);
}

#[test]
fn a_configuration_is_no_flow_log() {
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), "# mine\n\n[sources.in]\ntype = 'demo'\n");
    let output = doctor(&[&config]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("looks like a flowgauge configuration"), "{stderr}");
    assert!(stderr.contains(&format!("`flowgauge doctor -c {config}`")), "{stderr}");
}

#[test]
fn standard_input_is_told() {
    let output = run_with_input(&["doctor", "-", "--output", "json"], V5.repeat(2).as_bytes());
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let source = &report["sources"][0];
    assert_eq!(report["schema"], "flowgauge.doctor/v1");
    assert_eq!(source["format"]["preset"], "v5");
    assert_eq!(source["format"]["origin"], "guessed");
    assert_eq!(source["records"]["repeated"], 1);
    assert_eq!(source["missing"], serde_json::json!([]));
    assert_eq!(source["config"], "[sources.stdin]\ntype = \"stdin\"\nformat = \"v5\"\n");
}

fn write_config(directory: &Path, text: &str) -> String {
    let path = directory.join("f.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_stream_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let server = Emulator::shared_ministack();
    let stream = Stream::create(server, "doctored", 1);
    let now = SystemClock::new().now().0;
    let record = |index: i64| (0_u128, format!("{{\"message\":\"{}\"}}", line(now - 300 + index)));
    let records: Vec<(u128, Vec<u8>)> =
        (0..50).map(record).map(|(key, text)| (key, text.into_bytes())).collect();
    stream.put(&records);
    let config = write_config(
        directory.path(),
        &format!(
            "[sources.prod]\ntype = 'kinesis'\nstream = 'doctored'\nregion = 'us-east-1'\nendpoint = '{0}'\n\
             [sources.gone]\ntype = 'kinesis'\nstream = 'absent'\nregion = 'us-east-1'\nendpoint = '{0}'\n",
            server.endpoint
        ),
    );
    let (report, code) = report(&["-c", &config, "--source", "prod", "--time", "3s"]);
    let source = &report["sources"][0];
    assert_eq!(code, 0, "{report}");
    assert_eq!(source["records"]["ok"], 50, "{report}");
    assert_eq!(source["wrappings"][0]["layers"], serde_json::json!(["Firehose record"]));
    let lag = source["time"]["lag_seconds"].as_i64().unwrap();
    assert!((190..400).contains(&lag), "{lag}");
    assert_eq!(source["aggregation_interval_seconds"], 60);

    let output = doctor(&["-c", &config, "--source", "gone", "--time", "3s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("error: source `gone`"));
    let output = doctor(&["-c", &config, "--source", "none"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_log_group_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let server = Emulator::ministack();
    let group = Group::create(&server, "/vpc/flow-logs", &["eni-0a1b2c3d-all"]);
    let now = SystemClock::new().now().0;
    group.put("eni-0a1b2c3d-all", &(0..40).map(|index| now - 600 + index).collect::<Vec<i64>>());
    let config = write_config(
        directory.path(),
        &format!(
            "[sources.groups]\ntype = 'cloudwatch_logs'\nlog_groups = ['/vpc/flow-logs']\n\
             region = 'us-east-1'\nendpoint = '{}'\ncalls_per_second_max = 25\n",
            server.endpoint
        ),
    );
    let (report, code) = report(&["-c", &config, "--time", "3s"]);
    let source = &report["sources"][0];
    assert_eq!((code, source["records"]["ok"].as_u64()), (0, Some(40)), "{report}");
    assert_eq!(source["wrappings"][0]["layers"], serde_json::json!(["text"]));
    assert!(source["time"]["delivery_seconds"].as_i64().unwrap() > 400);
}

#[test]
fn a_missing_permission_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let faults = BTreeMap::from([(0, (400, "AccessDeniedException"))]);
    let server = ScriptedLogs::start(Script { faults, ..Script::default() });
    let config = write_config(
        directory.path(),
        &format!(
            "[sources.groups]\ntype = 'cloudwatch_logs'\nlog_groups = ['/vpc/flow-logs']\n\
             region = 'us-east-1'\nendpoint = '{}'\n",
            server.endpoint
        ),
    );
    let (report, code) = report(&["-c", &config]);
    assert_eq!(code, 1);
    assert_eq!(report["sources"][0]["denied_action"], "logs:FilterLogEvents", "{report}");
}

/// One call of EC2, as the tests need it: neither server looks at the signature.
fn ec2(endpoint: &str, form: &str) -> String {
    let address = endpoint.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0\r\n\
         content-length: {}\r\n\r\n{form}",
        form.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0
}

/// A VPC with a flow log; the ids of both.
fn flow_log(server: &Emulator, format: &str) -> (String, String) {
    let answer =
        ec2(&server.endpoint, "Action=CreateVpc&Version=2016-11-15&CidrBlock=10.0.0.0%2F16");
    let vpc = between(&answer, "<vpcId>", "</vpcId>").to_owned();
    let answer = ec2(
        &server.endpoint,
        &format!(
            "Action=CreateFlowLogs&Version=2016-11-15&ResourceType=VPC&ResourceId.1={vpc}&TrafficType=ALL\
             &LogGroupName=flow&DeliverLogsPermissionArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fr\
             &MaxAggregationInterval=60&LogFormat={format}"
        ),
    );
    (vpc, between(&answer, "<item>", "</item>").to_owned())
}

#[test]
fn flow_logs_say_their_format() {
    let server = Emulator::moto(None);
    let (vpc, id) = flow_log(&server, "%24%7Bsrcaddr%7D+%24%7Bdstaddr%7D+%24%7Bend%7D");
    let access = ["--region", "us-east-1", "--endpoint", &server.endpoint];
    let (report, code) = report(&[&["--vpc", &vpc], &access[..]].concat());
    assert_eq!(code, 0);
    let log = &report["flow_logs"][0];
    assert_eq!(log["format"], "${srcaddr} ${dstaddr} ${end}", "{report}");
    assert_eq!(log["aggregation_interval_seconds"], 60);
    assert_eq!(log["resource"], vpc.as_str());
    // The group that it writes to does not exist.
    assert_eq!(log["failure"], "Access error");

    // Its records are read by its format.
    let arguments = [&["doctor", "-", "--output", "json", "--flow-log", &id], &access[..]].concat();
    let mut command = flowgauge();
    let mut child = command
        .args(arguments)
        .envs(CREDENTIALS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"10.0.0.1 10.0.0.2 1767225600\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sources"][0]["records"]["ok"], 1, "{report}");
    assert_eq!(
        report["sources"][0]["config"],
        "[sources.stdin]\ntype = \"stdin\"\nformat = \"${srcaddr} ${dstaddr} ${end}\"\n"
    );

    let output = doctor(&[&["--vpc", "vpc-0"], &access[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no flow log of `vpc-0`"));
}

#[test]
fn a_format_that_nobody_says_is_told() {
    let server = Emulator::shared_ministack();
    let (vpc, id) = flow_log(server, "%24%7Bsrcaddr%7D");
    let access = ["--region", "us-east-1", "--endpoint", &server.endpoint];
    let output = doctor(&[&["--vpc", &vpc], &access[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("the service did not say its format"), "{text}");
    let output = doctor(&[&["--flow-log", &id, "x.log"], &access[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("give it by --format"));
}

#[test]
fn usage_is_checked() {
    for wrong in [&["doctor"][..], &["doctor", "--source", "a"], &["doctor", "x", "--time", "0s"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(doctor(&["/absent"]).status.code(), Some(2));
}
