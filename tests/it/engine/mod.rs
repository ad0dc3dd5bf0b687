//! The engine as an operator relies on it: killed, flooded, poisoned, split over processes, replayed.

mod dead_letters;
mod flood;
mod kill;
mod lost;
mod panic;
mod partials;
mod replay;
mod soak;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::run;

/// A number from the environment, for longer runs than a test's: how to is in CONTRIBUTING.md.
fn asked(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Made-up flow logs with planted attacks.
fn generated(directory: &Path, records: u64, attacks: &str) -> PathBuf {
    let path = directory.join("flow.log");
    let records = records.to_string();
    let target = path.to_str().expect("UTF-8");
    let output = run(&[
        "generate",
        "--records",
        &records,
        "--attacks",
        attacks,
        "--rate",
        "1000",
        "-o",
        target,
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// The findings of a journal by id and revision, each of which must stand there once.
fn journal(state: &Path) -> BTreeMap<(String, u64), Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(state)
        .expect("a state directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("journal-"))
        })
        .collect();
    files.sort();
    let mut findings = BTreeMap::new();
    for file in files {
        for line in std::fs::read_to_string(file).expect("UTF-8").lines() {
            let mut finding: Value = serde_json::from_str(line).expect("a line of JSON");
            let members = finding.as_object_mut().expect("an object");
            members.remove("seq").expect("lines are numbered");
            members.remove("crc32").expect("lines are under a checksum");
            let id = finding["id"].as_str().expect("an id").to_owned();
            let key = (id, finding["revision"].as_u64().expect("a revision"));
            let earlier = findings.insert(key, finding);
            assert!(earlier.is_none(), "twice in the journal: {earlier:?}");
        }
    }
    findings
}
