//! A stream without end at full rate, with windows sliding and snapshots: memory stops growing once the
//! tables have their size.
//!
//! `FLOWGAUGE_SOAK_SECONDS=1800` runs the long form, which prints how long findings took.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{asked, journal};
use crate::program::flowgauge;

/// After so many records tables have their size, however slow the machine is.
const RECORDS_MIN: u64 = 15_000_000;

/// More than this is growth, beside a tenth.
const SLACK_BYTES: u64 = 48 << 20;

#[test]
fn memory_stops_growing() {
    let seconds = asked("FLOWGAUGE_SOAK_SECONDS", 8);
    let directory = tempfile::tempdir().expect("a directory");
    let (config, state) = (directory.path().join("soak.toml"), directory.path().join("state"));
    let text = format!(
        "[engine]\nmemory_max = '1GiB'\nthreads = 2\nstate_dir = '{}'\n\
         [engine.checkpoint]\ninterval = '1s'\n\
         [log]\nlevel = 'info'\nformat = 'json'\nstats_interval = '500ms'\n\
         [sources.demo]\ntype = 'demo'\nrecords = 0\nspeed = 0\nrecords_per_second = 2000\n\
         external_addresses = 100000\n[sinks.out]\ntype = 'stdout'\n",
        state.display()
    );
    std::fs::write(&config, text).expect("a file");
    let mut child = flowgauge()
        .args(["run", "-c", config.to_str().expect("UTF-8")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stderr.take().expect("it was piped")).lines();
    let mut stats: Vec<Value> = Vec::new();
    let wanted = usize::try_from(2 * seconds).expect("small");
    let mut records: Vec<u64> = Vec::new();
    for line in lines.map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).expect("lines of JSON");
        if let Some(sample) = line.get("stats") {
            let before = records.last().copied().unwrap_or(0);
            records.push(before + sample["records"].as_u64().expect("a count"));
            stats.push(sample.clone());
        }
        if stats.len() >= wanted && records.last() >= Some(&RECORDS_MIN) {
            break;
        }
    }
    let pid = child.id().to_string();
    let status = std::process::Command::new("kill").args(["-TERM", &pid]).status();
    assert!(status.expect("kill is there").success());
    assert!(child.wait().expect("it ends").success());

    let last = stats.last().expect("statistics");
    println!("records a second: {}", last["records_per_second"]);
    println!(
        "findings after the chunk that completed their pane: {}",
        last["latencies"]["finding"]
    );
    let most = |samples: &[Value]| {
        samples.iter().filter_map(|sample| sample["resident_bytes"].as_u64()).max()
    };
    let all = records.last().expect("statistics");
    let [third, two] = [1, 2].map(|part| records.partition_point(|count| *count < all / 3 * part));
    let (settled, end) = (most(&stats[third..two]), most(&stats[two..]));
    let (settled, end) = (settled.expect("memory"), end.expect("memory"));
    println!("memory: {} MiB, then {} MiB", settled >> 20, end >> 20);
    assert!(end <= settled + settled / 10 + SLACK_BYTES, "{settled} bytes, then {end}");
    assert!(last["snapshot_age_seconds"].is_number(), "snapshots were written: {last}");
    assert!(!journal(&state).is_empty(), "attacks were planted");
}
