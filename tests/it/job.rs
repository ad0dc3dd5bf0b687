//! The stream job while it runs: started from a configuration, watched by its statistics, killed or
//! drained.
#![cfg(feature = "kinesis")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::program::flowgauge;
use crate::proxy::Dice;
use crate::servers::CREDENTIALS;

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_mins(2);

/// The program while it reads. Its configuration has `[log] stats_interval`, the shorter the better.
pub(crate) struct Job {
    child: Child,
    /// Records that it says it has read, those of the processes before it among them.
    pub(crate) records: u64,
    /// How its sources stood in the last line of statistics.
    sources: Value,
    log: Receiver<String>,
    /// Whether it may log errors.
    is_tolerant: bool,
}

impl Job {
    /// Starts it where it is to log errors.
    pub(crate) fn start_tolerant(config: &Path) -> Self {
        let mut job = Self::start(config);
        job.is_tolerant = true;
        job
    }

    /// Starts it.
    pub(crate) fn start(config: &Path) -> Self {
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
        Self { child, records: 0, sources: Value::Null, log, is_tolerant: false }
    }

    /// The next event that it logs.
    pub(crate) fn next_event(&mut self) -> Value {
        let line = self.log.recv_timeout(DEADLINE).expect("it goes on");
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(self.is_tolerant || event["level"] != "ERROR", "{event}");
        if let Some(records) = event["stats"]["records"].as_u64() {
            self.records += records;
            self.sources = event["stats"]["sources"].clone();
        }
        event
    }

    /// The records of the next line of statistics.
    pub(crate) fn next_stats(&mut self) -> u64 {
        loop {
            if let Some(records) = self.next_event()["stats"]["records"].as_u64() {
                return records;
            }
        }
    }

    /// Waits until so many records were read.
    pub(crate) fn read_until(&mut self, records: u64) {
        while self.records < records {
            self.next_stats();
        }
    }

    /// What a source has counted, as the last line of statistics says.
    pub(crate) fn total(&self, source: &str, name: &str) -> u64 {
        let total = self.sources[source]["totals"][name].as_u64();
        total.unwrap_or_else(|| panic!("no `{name}` of `{source}` in {}", self.sources))
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is alive");
        self.child.wait().expect("it ends");
    }

    /// Ends it with a signal; its summary.
    pub(crate) fn drain(mut self) -> Value {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("kill is there").success());
        let mut stdout = String::new();
        let pipe = self.child.stdout.as_mut().expect("it was piped");
        BufReader::new(pipe).read_to_string(&mut stdout).expect("UTF-8");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{:?}", self.log.try_iter().collect::<Vec<_>>());
        serde_json::from_str(stdout.lines().last().expect("a summary")).expect("JSON")
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A test that fails in the middle leaves nothing behind; one that has ended has ended.
        let _ended = self.child.kill().is_ok();
        let _status = self.child.wait().is_ok();
    }
}

/// Writes the configuration of a job with this source: it saves its state often, and says often how it stands.
pub(crate) fn config(directory: &Path, source: &str) -> PathBuf {
    let path = directory.join("flowgauge.toml");
    let text = format!(
        "[engine]\nlateness = '2m'\nidle_after = '2s'\nstate_dir = '{}'\n\
         [engine.checkpoint]\ninterval = '100ms'\n[log]\nstats_interval = '200ms'\n\
         {source}\n[sinks.out]\ntype = 'file'\npath = '/dev/null'\n",
        directory.join("state").display(),
    );
    std::fs::write(&path, text).expect("a file");
    path
}

/// Reads all of `records` records, killed up to twice on the way; the summary.
pub(crate) fn count_over_kills(config: &Path, dice: &mut Dice, records: u64) -> Value {
    for _ in 0..dice.below(3) {
        let mut job = Job::start(config);
        job.read_until(1 + dice.below(records - 1));
        job.kill();
    }
    let mut job = Job::start(config);
    job.read_until(records);
    // Whatever came twice would come within a second.
    for _ in 0..5 {
        job.next_stats();
    }
    assert_eq!(job.records, records);
    job.drain()
}

/// What of a summary does not depend on how the records came.
pub(crate) fn figures(summary: &Value) -> Value {
    let mut figures = summary.clone();
    let records = figures["records"].as_object_mut().expect("an object");
    for name in ["late", "control", "headers"] {
        records.remove(name);
    }
    let kept = ["records", "action", "bytes", "packets", "time", "by_protocol", "top"];
    figures.as_object_mut().expect("an object").retain(|name, _| kept.contains(&name.as_str()));
    figures
}
