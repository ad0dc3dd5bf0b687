//! `run` as an operator sees it: a stream of four shards, findings while it flows, a drain on a signal.
#![cfg(feature = "kinesis")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::kinesis::emulator::{Emulator, Stream};
use crate::program::{flowgauge, run_with_input};

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_mins(2);

/// The program while it runs, its standard output line by line.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = flowgauge()
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let (send, lines) = channel();
        std::thread::Builder::new()
            .spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            })
            .expect("a thread for the output");
        Self { child, lines }
    }

    fn next_line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line before the deadline")
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill").args(["-INT", &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// The remaining lines, the exit code and what was said on standard error.
    fn finish(mut self) -> (Vec<String>, Option<i32>, String) {
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("it was piped");
        pipe.read_to_string(&mut stderr).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        (self.lines.iter().collect(), status.code(), stderr)
    }
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a temporary file");
    file
}

const CREDENTIALS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

#[test]
fn a_stream_of_four_shards_is_read_once_and_drained() {
    let emulator = Emulator::ministack();
    let _stream = Stream::create(&emulator, "flow", 4);
    // Gzip envelopes, direct records, plain lines and KPL aggregates, over all shards.
    let generated = flowgauge()
        .args(["generate", "--records", "60k", "--form", "mixed", "--attacks", "all=2"])
        .args(["--rate", "40", "--stream", "flow", "--region", "us-east-1"])
        .args(["--endpoint", &emulator.endpoint])
        .envs(CREDENTIALS)
        .output()
        .expect("the program starts");
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
    let config = config(&format!(
        "[engine]\nlateness = '2m'\n[sources.prod]\ntype = 'kinesis'\nstream = 'flow'\n\
         region = 'us-east-1'\nendpoint = '{}'\n[sinks.out]\ntype = 'stdout'\n",
        emulator.endpoint
    ));
    let path = config.path().to_str().expect("UTF-8");
    let running = Running::start(&["run", "-c", path, "--output", "json"], &CREDENTIALS);
    let mut lines = vec![running.next_line()];
    running.interrupt();
    let (rest, code, stderr) = running.finish();
    lines.extend(rest);
    assert_eq!(code, Some(0), "{stderr}");
    let mut documents: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect();
    let summary = documents.pop().expect("the summary comes last");
    assert_eq!(summary["schema"], "flowgauge.summary/v1");
    assert_eq!(summary["input"]["files"], 4);
    assert_eq!(summary["records"]["malformed"], 0, "{summary}");
    assert!(summary["records"]["total"].as_u64() <= Some(60_000), "none twice: {summary}");
    let mut seen = BTreeSet::new();
    for finding in &documents {
        assert_eq!(finding["schema"], "flowgauge.finding/v1");
        let identity = (finding["id"].to_string(), finding["revision"].to_string());
        assert!(seen.insert(identity), "{finding} came twice");
    }

    // Once more, with time to read everything.
    let findings = tempfile::NamedTempFile::new().expect("a temporary file");
    let more = std::fs::read_to_string(config.path()).expect("the configuration")
        + &format!("[sinks.file]\ntype = 'file'\npath = '{}'\n", findings.path().display());
    std::fs::write(config.path(), more).expect("a temporary file");
    let running = Running::start(&["run", "-c", path, "--output", "json"], &CREDENTIALS);
    let mut kinds = BTreeSet::new();
    let wanted = ["port_scan", "host_sweep", "ssh_bruteforce", "rdp_bruteforce"];
    while !wanted.iter().all(|kind| kinds.contains(*kind)) {
        let finding: Value = serde_json::from_str(&running.next_line()).expect("JSON");
        kinds.insert(finding["kind"].as_str().expect("a kind").to_owned());
    }
    // Some records come after the last finding: silence says that they were read.
    while running.lines.recv_timeout(Duration::from_secs(5)).is_ok() {}
    running.interrupt();
    let (rest, code, stderr) = running.finish();
    assert_eq!(code, Some(0), "{stderr}");
    let summary: Value =
        serde_json::from_str(rest.last().expect("the summary")).expect("a line of JSON");
    assert_eq!(summary["records"]["total"], 60_000, "each record once: {summary}");
    assert_eq!(summary["records"]["malformed"], 0, "{summary}");
    let filed = std::fs::read_to_string(findings.path()).expect("the file sink's findings");
    assert!(wanted.iter().all(|kind| filed.contains(kind)));
}

#[test]
fn the_demo_finds_what_was_planted_and_drains() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = flowgauge();
    command.current_dir(folder.path()).arg("run").stdin(Stdio::null());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    stdout.read_line(&mut first).expect("a finding");
    let finding: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(finding["schema"], "flowgauge.finding/v1");
    let pid = child.id().to_string();
    let status = std::process::Command::new("kill").args(["-TERM", &pid]).status();
    assert!(status.expect("kill is there").success());
    let (mut rest, mut stderr) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("UTF-8");
    child.stderr.take().expect("it was piped").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{stderr}");
    assert!(stderr.contains("Records "), "a summary for people: {stderr}");
}

#[test]
fn faulty_configurations_start_nothing() {
    for (text, said) in [
        ("[sources.a]\ntype = 'kinesis'\nstreem = 'x'\n", "did you mean `stream`"),
        ("[engine]\npane = 0\n[sources.a]\ntype = 'demo'\n", ":2:1: field `engine.pane`"),
        ("[sources.a]\ntype = 'file'\npaths = ['/no/such/file']\n", "no such file"),
    ] {
        let config = config(text);
        let path = config.path().to_str().expect("UTF-8");
        for command in ["run", "validate"] {
            let output = run_with_input(&[command, "-c", path], b"");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} {text}: {stderr}");
            assert!(stderr.contains(said), "{command}: {stderr}");
        }
    }
}

#[test]
fn a_missing_stream_is_a_clear_failure() {
    let emulator = Emulator::ministack();
    let config = config(&format!(
        "[sources.prod]\ntype = 'kinesis'\nstream = 'nowhere'\nregion = 'us-east-1'\nendpoint = '{}'\n",
        emulator.endpoint
    ));
    let path = config.path().to_str().expect("UTF-8");
    let (_, code, stderr) = Running::start(&["run", "-c", path], &CREDENTIALS).finish();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("source `prod`") && stderr.contains("nowhere"), "{stderr}");
}

#[test]
fn standard_input_is_a_live_source() {
    let config = config("[sources.pipe]\ntype = 'stdin'\nformat = 'srcaddr bytes'\n");
    let path = config.path().to_str().expect("UTF-8");
    let output =
        run_with_input(&["run", "-c", path, "--output", "json"], b"10.0.0.1 5\n10.0.0.2 6\n");
    assert_eq!(output.status.code(), Some(0));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["bytes"], 11);
}
