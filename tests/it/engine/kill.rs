//! A stream whose process is killed again and again comes to the same end as one that is left alone.
//!
//! `FLOWGAUGE_KILL_RECORDS=5000000 FLOWGAUGE_KILLS=30 FLOWGAUGE_KILL_SEED=N` runs the long form.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{asked, generated, journal};
use crate::program::{flowgauge, without_throughput};

/// What the records of one second of reading are, so that kills fall everywhere.
const READS_TO_THE_END: u64 = 12;

fn config(directory: &Path, input: &Path, state: &str, rate: Option<u64>) -> String {
    let path = directory.join(format!("{state}.toml"));
    let limit = rate.map_or(String::new(), |rate| format!("rate_limit = '{rate}B/s'\n"));
    let text = format!(
        "[engine]\nstate_dir = '{state}'\nthreads = 2\n\
         [engine.checkpoint]\ninterval = '100ms'\n\
         [sources.file]\ntype = 'file'\npaths = ['{}']\n{limit}\
         [sinks.out]\ntype = 'file'\npath = '{findings}'\n",
        input.display(),
        state = directory.join(state).display(),
        findings = directory.join(format!("{state}.ndjson")).display(),
    );
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn start(config: &str) -> Child {
    flowgauge()
        .args(["run", "-c", config, "--output", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn summary(child: Child) -> Value {
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().expect("a summary");
    without_throughput(serde_json::from_str(last).expect("JSON"))
}

/// Waits until a snapshot is being written, or for a second.
fn wait_for_snapshot(state: &Path) {
    for _ in 0..1000 {
        let is_writing = std::fs::read_dir(state).is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "tmp"))
            })
        });
        if is_writing {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SplitMix64.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *seed;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[test]
fn kills_change_nothing() {
    let (records, kills) = (asked("FLOWGAUGE_KILL_RECORDS", 200_000), asked("FLOWGAUGE_KILLS", 6));
    let mut seed = asked("FLOWGAUGE_KILL_SEED", u64::from(std::process::id()));
    println!("FLOWGAUGE_KILL_SEED={seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let input = generated(directory.path(), records, "all=2");
    let quiet = summary(start(&config(directory.path(), &input, "quiet", None)));
    assert_eq!(quiet["records"]["total"], records);

    let length = std::fs::metadata(&input).expect("a file").len();
    let rate = length / READS_TO_THE_END;
    let killed = config(directory.path(), &input, "killed", Some(rate));
    let state = directory.path().join("killed");
    let mut done = 0;
    for kill in 0..kills {
        let mut child = start(&killed);
        let life_ms = 100 + next(&mut seed) % (READS_TO_THE_END * 1400 / kills.max(1));
        std::thread::sleep(Duration::from_millis(life_ms));
        if kill % 2 == 1 {
            wait_for_snapshot(&state);
        }
        done += u64::from(child.try_wait().expect("a child").is_none());
        // One that has ended already cannot be killed.
        let _killed = child.kill().is_ok();
        child.wait().expect("it ends");
    }
    assert!(done * 10 >= kills * 9, "{done} of {kills} were alive to be killed");
    let last = summary(start(&killed));
    assert_eq!(last, quiet, "totals, tops and counts of findings");
    let (expected, found) = (journal(&directory.path().join("quiet")), journal(&state));
    assert!(!expected.is_empty(), "attacks were planted");
    assert_eq!(found, expected, "the journals");
    // The sink may have got findings twice, and misses none.
    let sink = std::fs::read_to_string(directory.path().join("killed.ndjson")).expect("UTF-8");
    let sent: std::collections::BTreeSet<(String, u64)> = sink
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| {
            let id = line["id"].as_str().expect("an id").to_owned();
            (id, line["revision"].as_u64().expect("a revision"))
        })
        .collect();
    assert!(sent.iter().eq(expected.keys()), "what the sink was given");
}

#[test]
fn a_drain_keeps_open_panes_for_the_next_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = generated(directory.path(), 100_000, "all=2");
    let quiet = summary(start(&config(directory.path(), &input, "quiet", None)));
    let length = std::fs::metadata(&input).expect("a file").len();
    let drained = config(directory.path(), &input, "drained", Some(length / 3));
    let child = start(&drained);
    std::thread::sleep(Duration::from_millis(1200));
    let pid = child.id().to_string();
    let status = std::process::Command::new("kill").args(["-TERM", &pid]).status();
    assert!(status.expect("kill is there").success());
    let first = summary(child);
    let (read, all) = (&first["records"]["total"], &quiet["records"]["total"]);
    assert!(read.as_u64() < all.as_u64(), "it was drained in the middle: {read} of {all}");
    let second = summary(start(&drained));
    assert_eq!(second, quiet);
    let (expected, found) =
        (journal(&directory.path().join("quiet")), journal(&directory.path().join("drained")));
    assert_eq!(found, expected);
    // Once more: there is nothing left to read, and nothing changes.
    assert_eq!(summary(start(&drained)), quiet);
    assert_eq!(journal(&directory.path().join("drained")), expected);
}
