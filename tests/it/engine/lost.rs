//! A stream whose machine is lost goes on elsewhere from its copies in S3, and two machines are never at it both.

#![cfg(all(feature = "s3", feature = "kinesis"))]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::{asked, generated, journal};
use crate::kinesis::emulator::{Emulator, wait_for};
use crate::program::{flowgauge, without_throughput};

const BUCKET: &str = "snapshots";

/// How long the input is read at the rate of the tests, in seconds.
const READS_TO_THE_END: u64 = 8;

/// Snapshots that are longer go in parts.
const PART_BYTES: u64 = 8 << 20;

/// A bucket, an input, and machines that come and go.
struct Cloud {
    server: Emulator,
    directory: tempfile::TempDir,
    input: PathBuf,
    rate: u64,
}

impl Cloud {
    fn new(records: u64) -> Self {
        let server = Emulator::ministack();
        let directory = tempfile::tempdir().expect("a directory");
        let input = generated(directory.path(), records, "all=2");
        let rate = std::fs::metadata(&input).expect("a file").len() / READS_TO_THE_END;
        let cloud = Self { server, directory, input, rate };
        assert!(cloud.request("PUT", BUCKET).starts_with("HTTP/1.1 200"));
        cloud
    }

    fn request(&self, method: &str, path: &str) -> String {
        let address = self.server.endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("the server is there");
        let head = format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The list of the copies, `None` before there is one.
    fn list(&self) -> Option<Value> {
        let answer = self.request("GET", &format!("{BUCKET}/job/manifest.json"));
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let list: Value = serde_json::from_str(body.trim()).ok()?;
        head.starts_with("HTTP/1.1 200").then(|| list["content"].clone())
    }

    /// The epoch of the newest copy.
    fn newest(&self) -> Option<u64> {
        self.list()?["snapshots"].as_array()?.last()?["epoch"].as_u64()
    }

    fn state(&self, machine: &str) -> PathBuf {
        self.directory.path().join(machine)
    }

    fn sink(&self, machine: &str) -> PathBuf {
        self.directory.path().join(format!("{machine}.ndjson"))
    }

    /// The stream job on a machine that has an empty disk.
    fn start(&self, machine: &str, remote: &str, is_held: bool) -> Child {
        let path = self.directory.path().join(format!("{machine}.toml"));
        let rate =
            if is_held { format!("rate_limit = '{}B/s'\n", self.rate) } else { String::new() };
        let text = format!(
            "[engine]\nstate_dir = '{}'\nthreads = 2\n[engine.checkpoint]\ninterval = '100ms'\n{remote}\
             [sources.file]\ntype = 'file'\npaths = ['{}']\n{rate}\
             [sinks.out]\ntype = 'file'\npath = '{}'\n",
            self.state(machine).display(),
            self.input.display(),
            self.sink(machine).display(),
        );
        std::fs::write(&path, text).expect("a file");
        flowgauge()
            .args(["run", "-c", path.to_str().expect("UTF-8"), "--output", "json"])
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    fn copies(&self, takeover_after: &str) -> String {
        format!(
            "remote = 's3://{BUCKET}/job'\nregion = 'us-east-1'\nendpoint = '{}'\n\
             takeover_after = '{takeover_after}'\n",
            self.server.endpoint
        )
    }
}

fn outcome(child: Child) -> (Output, String) {
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

fn summary(child: Child) -> Value {
    let (output, stderr) = outcome(child);
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().expect("a summary");
    without_throughput(serde_json::from_str(last).expect("JSON"))
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// What a sink was given, by id and revision.
fn given(path: &Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A kill may cut the last line.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .map(|line| {
            let id = line["id"].as_str().expect("an id").to_owned();
            (id, line["revision"].as_u64().expect("a revision"))
        })
        .collect()
}

#[test]
fn a_lost_machine_changes_nothing() {
    let cloud = Cloud::new(asked("FLOWGAUGE_KILL_RECORDS", 200_000));
    let quiet = summary(cloud.start("quiet", "", false));
    let remote = cloud.copies("1s");
    let losses = 3;
    let mut longest = 0;
    for loss in 0..losses {
        let before = cloud.newest();
        let machine = format!("lost-{loss}");
        let mut child = cloud.start(&machine, &remote, true);
        wait_for("a few copies", || {
            let newest = cloud.newest().filter(|newest| *newest >= before.unwrap_or(0) + 3);
            newest.or_else(|| child.try_wait().expect("a child").map(|_| 0))
        });
        assert!(child.try_wait().expect("a child").is_none(), "it is alive to be killed");
        let list = cloud.list().expect("a list");
        let lengths = list["snapshots"].as_array().expect("copies").iter();
        longest = lengths.filter_map(|copied| copied["bytes"].as_u64()).fold(longest, u64::max);
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        std::fs::remove_dir_all(cloud.state(&machine)).expect("the disk is lost too");
    }
    let last = summary(cloud.start("last", &remote, false));
    assert_eq!(last, quiet, "totals, tops and counts of findings");
    assert!(longest > PART_BYTES, "some went in parts: {longest} bytes");
    // Sinks may have got findings twice, and miss none.
    let expected = journal(&cloud.state("quiet"));
    let machines = (0..losses).map(|loss| format!("lost-{loss}")).chain(["last".to_owned()]);
    let sent: std::collections::BTreeSet<_> =
        machines.flat_map(|machine| given(&cloud.sink(&machine))).collect();
    assert!(!expected.is_empty() && sent.iter().eq(expected.keys()), "what sinks were given");
    let list = cloud.list().expect("a list");
    assert!(list["owner"].is_null(), "it was given up: {list}");
    assert_eq!(list["snapshots"].as_array().map(Vec::len), Some(2), "{list}");
    let uploads = cloud.request("GET", &format!("{BUCKET}?uploads"));
    assert!(!uploads.contains("<Upload>"), "parts are left: {uploads}");
}

#[test]
fn a_second_process_is_refused() {
    let cloud = Cloud::new(100_000);
    let remote = cloud.copies("3s");
    let owner = cloud.start("owner", &remote, true);
    wait_for("a copy", || cloud.newest());
    let (output, stderr) = outcome(cloud.start("second", &remote, true));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let reason = format!(
        "another process keeps its snapshots in `s3://{BUCKET}/job` (process {}",
        owner.id()
    );
    assert!(stderr.contains(&reason), "{stderr}");
    signal(&owner, "-TERM");
    let first = summary(owner);
    assert!(first["records"]["total"].as_u64() < Some(100_000), "it was drained: {first}");
    let quiet = summary(cloud.start("quiet", "", false));
    assert_eq!(summary(cloud.start("third", &remote, false)), quiet);
}

#[test]
fn a_process_that_was_taken_for_gone_stops() {
    let cloud = Cloud::new(100_000);
    let remote = cloud.copies("1s");
    let paused = cloud.start("paused", &remote, true);
    wait_for("a copy", || cloud.newest());
    signal(&paused, "-STOP");
    let next = cloud.start("next", &remote, false);
    let quiet = summary(cloud.start("quiet", "", false));
    assert_eq!(summary(next), quiet);
    let listed = cloud.list();
    signal(&paused, "-CONT");
    let (output, stderr) = outcome(paused);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("another process has taken over `s3://{BUCKET}/job`")),
        "{stderr}"
    );
    assert_eq!(cloud.list(), listed, "it has changed nothing");
    // Started again, it goes on from what the other one has left.
    assert_eq!(summary(cloud.start("paused", &remote, false)), quiet);
    let names = std::fs::read_dir(cloud.state("paused")).expect("a directory");
    let names: Vec<String> =
        names.filter_map(|entry| entry.expect("an entry").file_name().into_string().ok()).collect();
    assert!(names.iter().any(|name| name.starts_with("overtaken-")), "{names:?}");
}
