//! The program with an endpoint, on a free port of this machine.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowgauge::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::program::flowgauge;

/// How long anything may take; the machine may be busy.
pub(super) const DEADLINE: Duration = Duration::from_mins(2);

/// The key that the endpoint is given.
pub(super) const KEY: &str = "a-secret-of-the-test";

/// A second one, for a time of rotation.
pub(super) const NEXT_KEY: &str = "another-secret-of-the-test";

/// A running program.
pub(super) struct Endpoint {
    child: Child,
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// A port that nobody has, for an endpoint that is started again and again.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until something is so.
pub(super) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !is_so() {
        assert!(clock.monotonic() < DEADLINE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a configuration into a directory; `source` are further lines of the source.
pub(super) fn config(directory: &Path, has_state: bool, source: &str) -> PathBuf {
    let state = if has_state {
        format!("state_dir = '{}'\n", directory.join("state").display())
    } else {
        String::new()
    };
    let text = format!(
        "[engine]\nthreads = 2\n{state}[engine.checkpoint]\ninterval = '100ms'\n\
         [sources.edge]\ntype = 'firehose_http'\n{source}\n\
         [sinks.out]\ntype = 'file'\npath = '{}'\n",
        directory.join("findings.ndjson").display()
    );
    let path = directory.join("flowgauge.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The lines of a source without TLS that wants one of two keys.
pub(super) fn plain(address: SocketAddr) -> String {
    format!("listen = '{address}'\naccess_keys = {{ current = '{KEY}', next = '{NEXT_KEY}' }}\n")
}

impl Endpoint {
    /// Starts the program, and waits until it listens.
    pub(super) fn start(config: &Path) -> Self {
        let mut child = flowgauge()
            .args(["run", "-v", "--log-format", "json", "--output", "json", "-c"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&log);
        std::thread::Builder::new()
            .spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    to.lock().unwrap().push(line);
                }
            })
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut endpoint = Self { child, address, log };
        wait_for("listening", || {
            assert!(endpoint.child.try_wait().unwrap().is_none(), "{}", endpoint.log());
            endpoint.address_in_log().is_some()
        });
        endpoint.address = endpoint.address_in_log().unwrap();
        endpoint
    }

    fn address_in_log(&self) -> Option<SocketAddr> {
        let log = self.log.lock().unwrap();
        let line = log.iter().find(|line| line.contains("listens for deliveries"))?;
        serde_json::from_str::<Value>(line).ok()?["address"].as_str()?.parse().ok()
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The most memory that it had, bytes.
    pub(super) fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Ends it as a power cut would, as far as a process can.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has it drain; its summary.
    pub(super) fn stop(mut self) -> Value {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        wait_for("the end", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let mut out = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut out).unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It has ended, but for a test that failed.
        let _is_killed = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}
