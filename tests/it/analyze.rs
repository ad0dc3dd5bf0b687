//! `analyze`: equal to the plain reference, whatever the threads and the cuts; its contract.

use std::process::Command;

use serde_json::{Value, json};

use crate::program::{dataset, run, run_with_input, shared, summary, without_throughput};

/// Records of the generated files; enough for many blocks, panes and threads.
const RECORDS: &str = "200k";

fn generated(format: &str, extra: &[&str]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("temporary paths are UTF-8");
    let mut arguments =
        vec!["generate", "--records", RECORDS, "--format", format, "--header", "--output", path];
    arguments.extend(extra);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// Compares the summary with the reference's, total by total and row by row.
fn check_against_oracle(path: &str) {
    let Some(oracle) = shared("tools/oracle.py") else { return };
    for threads in ["1", "2", "5"] {
        let summary = summary(&["-j", threads, "--no-detect", path]);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), summary.to_string()).expect("a temporary file");
        let output = Command::new("python3")
            .arg(&oracle)
            .arg("--check")
            .args([file.path().to_str().expect("UTF-8"), path])
            .output()
            .expect("Python 3 is installed");
        let differences = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "-j {threads} {path}: {differences}");
    }
}

#[test]
fn totals_and_tops_equal_the_reference_on_every_layout() {
    for format in ["v2", "v5", "v11"] {
        check_against_oracle(generated(format, &[]).path().to_str().expect("UTF-8"));
    }
}

#[test]
fn totals_and_tops_equal_the_reference_on_labelled_traffic() {
    let Some(folder) = shared("data/labelled") else { return };
    for name in ["flow-v2.log.gz", "flow-v5.log.gz"] {
        check_against_oracle(folder.join(name).to_str().expect("UTF-8"));
    }
}

#[test]
fn findings_do_not_depend_on_threads() {
    let file = generated("v5", &["--attacks", "all=2"]);
    let path = file.path().to_str().expect("UTF-8");
    let findings = |threads: &str| {
        let output = run(&["analyze", "-j", threads, "--findings", "-", "--top", "0", path]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect::<Vec<_>>()
    };
    let alone = findings("1");
    assert!(!alone.is_empty(), "the planted attacks are found");
    assert_eq!(alone, findings("2"));
    assert_eq!(alone, findings("7"));
}

#[test]
fn a_pipe_gives_what_the_file_gives() {
    let path = dataset("v2-header.log");
    let text = std::fs::read(&path).expect("a dataset");
    let from_file = summary(&[path.to_str().expect("UTF-8")]);
    let output = run_with_input(&["analyze", "--output", "json", "-"], &text);
    let from_pipe: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(without_throughput(from_pipe), without_throughput(from_file));
}

#[test]
fn sums_beyond_64_bits_are_exact() {
    let line = "2 123456789012 eni-1 10.0.0.1 10.0.0.2 1 2 6 \
                18446744073709551615 18446744073709551615 1 2 ACCEPT OK\n";
    let output = run_with_input(&["analyze", "--output", "json", "-"], line.repeat(3).as_bytes());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let sum = (3 * u128::from(u64::MAX)).to_string();
    assert_eq!(text.matches(&sum).count(), 2 + 2 + 5 * 2, "totals, protocol, five tops: {text}");
}

#[test]
fn tops_answer_what_was_asked() {
    let lines = "\
        2 1 eni-1 10.0.0.1 10.0.0.9 1 80 6 1 10 100 110 ACCEPT OK\n\
        2 1 eni-1 10.0.0.1 10.0.0.9 1 81 6 1 10 100 400 ACCEPT OK\n\
        2 1 eni-1 10.0.0.1 10.0.0.9 1 81 6 1 10 100 410 ACCEPT OK\n\
        2 1 eni-1 10.0.0.2 10.0.0.9 1 80 6 9 50 100 110 ACCEPT OK\n";
    let rows = |arguments: &[&str]| {
        let mut all = vec!["analyze", "--output", "json", "--no-detect", "-"];
        all.extend(arguments);
        let output = run_with_input(&all, lines.as_bytes());
        let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        summary["top"][0].clone()
    };
    let top = rows(&["--by", "srcaddr,dstaddr", "--metric", "distinct:dstport", "--min", "2"]);
    assert_eq!(top["keys"], 1);
    assert_eq!(top["metric"], "distinct:dstport");
    assert_eq!(
        top["rows"],
        json!([{"key": ["10.0.0.1", "10.0.0.9"], "bytes": 30, "packets": 3, "flows": 3, "distinct": 2}])
    );
    let top = rows(&["--by", "srcaddr", "--metric", "flows", "--top", "1"]);
    assert_eq!(top["rows"], json!([{"key": ["10.0.0.1"], "bytes": 30, "packets": 3, "flows": 3}]));
    let top = rows(&["--by", "srcaddr", "--window", "5m", "--where", "srcaddr = 10.0.0.1"]);
    assert_eq!(top["rows"][0]["window_start"], "1970-01-01T00:05:00Z");
    assert_eq!(top["rows"][0]["bytes"], 20);
}

#[test]
fn filters_leave_out_what_they_say() {
    let path = dataset("v2-header.log");
    let path = path.to_str().expect("UTF-8");
    let all = summary(&[path]);
    let rejected = summary(&["--where", "action = REJECT", path]);
    assert_eq!(rejected["action"]["reject"], all["action"]["reject"]);
    assert_eq!(rejected["action"]["accept"], 0);
    let total = |summary: &Value| summary["records"]["total"].as_u64().expect("a count");
    let filtered = rejected["records"]["filtered"].as_u64().expect("a count");
    assert_eq!(total(&rejected) + filtered, total(&all));
    let nothing = summary(&["--until", "1970-01-02", path]);
    assert_eq!(nothing["records"]["ok"], 0);
}

#[test]
fn usage_errors_start_nothing_and_exit_2() {
    for (arguments, said) in [
        (vec!["analyze", "no-such-file.log"], "no such file"),
        (vec!["analyze", "s3://"], "names no bucket"),
        (vec!["analyze", "--format", "srcAddr", "-"], "did you mean `srcaddr`"),
        (vec!["analyze", "--by", "nonsense_field", "-"], "is not a field name"),
        (vec!["analyze", "--metric", "speed", "-"], "distinct:FIELD"),
        (vec!["analyze", "--where", "dstport = ssh", "-"], "expected a number"),
        (vec!["analyze", "--context", "no-such-context.json", "-"], "no-such-context.json"),
        (vec!["analyze"], "Usage"),
        (vec!["nonsense"], "unrecognized subcommand"),
        (vec!["validate", "-c", "no-such-config.toml"], "no-such-config.toml"),
    ] {
        let output = run(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_field_that_no_record_has_is_told() {
    let path = dataset("v2-header.log");
    let output = run(&["analyze", "--by", "srcadr", path.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("srcadr"));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = crate::program::flowgauge()
        .args(["generate", "--records", "1m"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn threat_lists_are_read_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let write = |name: &str, text: &str| {
        std::fs::write(path(name), text).expect("the folder can be written");
        path(name)
    };
    let log = write(
        "flow.log",
        "2 1 eni-1 10.0.0.5 198.51.100.7 50000 443 6 9 900 1700000000 1700000030 ACCEPT OK\n\
         2 1 eni-1 198.51.100.7 10.0.0.5 443 50000 6 9 9000 1700000000 1700000030 ACCEPT OK\n",
    );
    let plain = write("drop.txt", "; a list\n198.51.100.0/24 ; SBL1\nnot.an.address\n");
    let csv = write("feed.csv", "id,ip_address\n1,198.51.100.7\n");
    let arguments = ["analyze", "--findings", "-", "--top", "0", "--threat-list", &plain];
    let output = run(&[&arguments[..], &["--threat-list", &csv, &log]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let finding: Value =
        serde_json::from_str(stdout.lines().next().expect("a finding")).expect("JSON");
    assert_eq!(finding["kind"], "suspicious_ip");
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["evidence"]["list"], "drop.txt, feed.csv");
    assert_eq!(finding["evidence"]["entry"], "198.51.100.7");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("line 3: `not.an.address` is no address or CIDR block"), "{stderr}");

    let none = write("none.txt", "not.an.address\n");
    let output = run(&["analyze", "--threat-list", &none, &log]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("there is no address in it; line 1: `not.an.address`"), "{stderr}");
}
