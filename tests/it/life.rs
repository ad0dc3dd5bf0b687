//! The life of a stream job: logs, signals, a configuration that is read again, secrets that stay hidden.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use flowgauge::clock::{Clock as _, SystemClock};

use crate::program::{flowgauge, run};

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_mins(1);

/// A stream without end whose findings nobody need read, and that runs at the pace of a stream.
const STREAM: &str =
    "[sources.demo]\ntype = 'demo'\nspeed = 1\n[sinks.void]\ntype = 'file'\npath = '/dev/null'\n";

/// A stream job with its configuration and what it logs, as JSON.
struct Job {
    child: Child,
    config: PathBuf,
    log: BufReader<std::process::ChildStderr>,
    _folder: tempfile::TempDir,
}

impl Job {
    fn start(config: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("flowgauge.toml");
        std::fs::write(&path, config).expect("the folder can be written");
        let mut child = flowgauge()
            .args(["run", "--log-format", "json", "--output", "json", "-c"])
            .arg(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("it was piped"));
        Self { child, config: path, log, _folder: folder }
    }

    /// The next line of the log that says `message`; those before it are left out.
    fn logged(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).expect("UTF-8");
            assert!(length > 0, "the log ended before `{message}`");
            let event: Value = serde_json::from_str(&line).expect("each line is an object");
            assert!(event["timestamp"].as_str().is_some_and(|text| text.ends_with('Z')), "{event}");
            if event["message"] == message {
                return event;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Waits for the end without reading what it says.
    fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        let has_ended = wait_until(|| {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        if !has_ended {
            self.child.kill().expect("it can be killed");
        }
        status.expect("it ends").code()
    }
}

/// Waits until `holds` does; `false` if it took too long.
fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let clock = SystemClock::new();
    while clock.monotonic() < DEADLINE {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_hangup_reads_the_configuration_again() {
    let mut job = Job::start(&format!("{STREAM}[log]\nlevel = 'info'\n"), &[]);
    job.logged("started");
    let write =
        |config: &Path, text: &str| std::fs::write(config, text).expect("it can be written");
    write(
        &job.config,
        &format!("{STREAM}[log]\nlevel = 'info'\nrate_limit = 99\n[engine.shutdown]\nlimit = 7\n"),
    );
    job.signal("-HUP");
    let event = job.logged("the configuration was read again");
    assert_eq!(event["changed"], "log, engine.shutdown.limit");
    assert_eq!(event["level"], "INFO");

    write(&job.config, &format!("{STREAM}[log]\nlevel = 'loud'\n[engine]\npane = 0\n"));
    job.signal("-HUP");
    for (fault, line) in [("field `log.level`", 8), ("field `engine.pane`", 10)] {
        let event = job.logged("the configuration is faulty");
        let said = event["fault"].as_str().expect("text");
        assert!(said.contains(&format!(":{line}:1: {fault}")), "{said}");
    }
    job.logged("the configuration in force is kept");

    write(&job.config, &format!("{STREAM}[engine]\nthreads = 7\n[log]\nlevel = 'info'\n"));
    job.signal("-HUP");
    let event = job.logged("the configuration cannot be put in force");
    assert_eq!(
        event["fault"],
        "`engine.threads` is `0`, and the file says `7`; this needs a restart"
    );
    job.logged("the configuration in force is kept");

    // A level that leaves nothing to say, and the end that every stream has.
    write(&job.config, &format!("{STREAM}[log]\nlevel = 'error'\n"));
    job.signal("-HUP");
    std::fs::remove_file(&job.config).expect("it is there");
    job.signal("-TERM");
    assert_eq!(job.exit_code(), Some(0));
    let mut summary = String::new();
    let mut stdout = job.child.stdout.take().expect("it was piped");
    stdout.read_to_string(&mut summary).expect("UTF-8");
    let summary: Value = serde_json::from_str(&summary).expect("a line of JSON");
    assert_eq!(summary["schema"], "flowgauge.summary/v1");
}

#[test]
fn a_hangup_reads_threat_lists_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = folder.path().join("drop.txt");
    let write = |text: &str| std::fs::write(&list, text).expect("the folder can be written");
    write("203.0.113.1\n");
    let lists = format!("[detectors.suspicious_ip]\nlists = ['{}']\n", list.display());
    let mut job = Job::start(&format!("{STREAM}{lists}[log]\nlevel = 'info'\n"), &[]);
    assert_eq!(job.logged("threat lists were read")["entries"], 1);
    job.logged("started");
    write("203.0.113.1\n203.0.113.0/28\n");
    job.signal("-HUP");
    assert_eq!(job.logged("threat lists were read")["entries"], 2);
    job.logged("the configuration was read again");
    write("nothing that is an address\n");
    job.signal("-HUP");
    let event = job.logged("the configuration cannot be put in force");
    let reason = event["reason"].as_str().expect("text");
    assert!(
        reason.contains("drop.txt") && reason.contains("there is no address in it"),
        "{reason}"
    );
    job.logged("the configuration in force is kept");
    job.signal("-TERM");
    assert_eq!(job.exit_code(), Some(0));
}

#[cfg(target_os = "linux")]
/// A stream whose findings nobody reads, so that it is stuck as soon as the pipe is full.
fn stuck(arguments: &[&str]) -> Job {
    let stream = "[engine]\nqueue_depth = 1\n[sources.demo]\ntype = 'demo'\nspeed = 0\n\
                  attack_period_seconds = 60\n[log]\nlevel = 'info'\n";
    let mut job = Job::start(stream, arguments);
    job.logged("started");
    // It is stuck when it makes no more progress: its processor time stands still for a second.
    let clock = SystemClock::new();
    let (mut last, mut still_since) = (processor_time(job.child.id()), clock.monotonic());
    assert!(wait_until(|| {
        let now = processor_time(job.child.id());
        if now != last {
            (last, still_since) = (now, clock.monotonic());
        }
        clock.monotonic().saturating_sub(still_since) > Duration::from_secs(1)
    }));
    job
}

#[cfg(target_os = "linux")]
/// Clock ticks that a process has used.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
    let ticks = fields.split(' ').skip(11).take(2).map(|text| text.parse::<u64>().expect("ticks"));
    ticks.sum()
}

#[cfg(target_os = "linux")]
#[test]
fn a_drain_has_a_limit() {
    let mut job = stuck(&["--graceful-shutdown-limit", "1s"]);
    job.signal("-TERM");
    let event = job.logged("the drain took too long; ended with what is saved");
    assert_eq!((event["level"].as_str(), event["limit"].as_str()), (Some("ERROR"), Some("1s")));
    assert!(event["unfinished"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(job.exit_code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_signal_ends_at_once() {
    let mut job = stuck(&["--graceful-shutdown-limit", "1h"]);
    job.signal("-INT");
    // The second must not be handled while the first one is.
    assert!(wait_until(|| {
        let status = format!("/proc/{}/status", job.child.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        status.lines().any(|line| line == "ShdPnd:\t0000000000000000")
    }));
    job.signal("-TERM");
    assert_eq!(job.exit_code(), Some(130));
}

#[test]
fn what_the_command_line_says_of_a_drain_is_checked() {
    let output = run(&["run", "--graceful-shutdown-limit", "soon"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("seconds, or a number with a unit"), "{said}");
}

#[test]
fn secrets_are_in_nothing_that_is_shown() {
    const SECRET: &str = "hunter2-hunter2";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(path("secret"), format!("{SECRET}\n")).expect("it can be written");
    let good = format!(
        "[engine]\nstate_dir = {{ env = 'STATE_NAME' }}\n[sources.a]\ntype = 'stdin'\n\
         [sinks.a]\ntype = 'file'\npath = {{ file = '{}' }}\n",
        path("secret")
    );
    let bad = format!(
        "{good}inputs = [{{ env = 'SECRET_NAME' }}]\n[log]\nlevel = {{ env = 'SECRET_NAME' }}\n\
         [sources.b]\ntype = 'demo'\nattacks = {{ env = 'SECRET_NAME' }}\nseed = {{ file = '{}' }}\n\
         [enrich]\ncontext = [{{ env = 'SECRET_NAME' }}]\n",
        path("secret")
    );
    // The sink's file is the state directory: an error that would name it.
    let clash = good.replace("STATE_NAME", "SECRET_NAME");
    for (text, codes) in [(good, [0, 0]), (bad, [2, 2]), (clash, [2, 2])] {
        std::fs::write(path("f.toml"), text).expect("it can be written");
        for (command, code) in ["validate", "run"].into_iter().zip(codes) {
            let output = flowgauge()
                .current_dir(folder.path())
                .env("SECRET_NAME", SECRET)
                .env("STATE_NAME", "state")
                .args(["-vv", command, "-c", &path("f.toml")])
                .stdin(Stdio::null())
                .output()
                .expect("the program starts");
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(output.status.code(), Some(code), "{command}: {said}");
            assert!(!said.contains(SECRET), "{command}: {said}");
            if command == "validate" {
                assert!(said.contains("_NAME"), "it says where it comes from: {said}");
            }
        }
    }
}
