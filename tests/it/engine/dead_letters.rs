//! What cannot be read, put aside for somebody to look at while the stream goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::journal;
use crate::program::{run, run_with_input};

const LINE: &str = "2 123456789012 eni-0a1b2c3d 10.0.1.5 10.0.2.7 44321 443 6 10 840 1767225600 1767225660 ACCEPT OK\n";

/// Good and bad lines, a gzip file whose second member is damaged, and documents that are none.
fn poison(directory: &Path) -> Vec<PathBuf> {
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let lines = format!("{LINE}not a record\n{LINE}{}{LINE}", LINE.replace("443", "70000"));
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(LINE.repeat(50).as_bytes()).expect("memory");
    let member = packed.finish().expect("memory");
    let mut members = member.clone();
    members.extend(&member[..member.len() - 12]);
    members.extend([0xff; 12]);
    let documents = format!("{{\"message\":\"{}\"}}\n{{\"x\":1}}\n", LINE.trim_end());
    vec![
        write("lines.log", lines.as_bytes()),
        write("members.log.gz", &members),
        write("documents.json", documents.as_bytes()),
    ]
}

fn config(directory: &Path, files: &[PathBuf], engine: &str) -> String {
    let path = directory.join("flowgauge.toml");
    let text = format!(
        "{engine}\n[sources.files]\ntype = 'file'\npaths = {files:?}\n\
         [sinks.out]\ntype = 'file'\npath = '/dev/null'\n"
    );
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// A run over inputs of which some end with a fault.
fn run_over_poison(config: &str) -> Value {
    let output = run(&["run", "-c", config, "--output", "json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "an input is incomplete: {stderr}");
    assert!(stderr.contains("what could not be read was put aside"), "{stderr}");
    summary(&output)
}

fn summary(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().expect("a summary")).expect("JSON")
}

fn letters(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What a letter says: input without its directory, position, reason, payload, how long it was.
fn told(letter: &Value) -> (String, String, String, String, u64) {
    assert_eq!(letter["schema"], "flowgauge.dead_letter/v1");
    assert!(letter["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    let text = |name: &str| letter[name].as_str().expect("text").to_owned();
    let payload = base64_simd::STANDARD.decode_to_vec(text("payload_base64")).expect("base64");
    let input = text("input").rsplit('/').next().expect("a name").to_owned();
    let payload = String::from_utf8(payload).expect("UTF-8");
    let length = letter["payload_bytes"].as_u64().expect("a length");
    (input, text("position"), text("reason"), payload, length)
}

fn check_poison(letters: &[Value]) {
    let mut told: Vec<_> = letters.iter().map(told).collect();
    told.sort();
    let [document, bad_line, bad_port, member] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*document.0, &*document.1), ("documents.json", "2"));
    assert_eq!((&*document.3, document.4), ("{\"x\":1}", 7));
    assert_eq!((&*bad_line.0, &*bad_line.1, &*bad_line.3), ("lines.log", "2", "not a record"));
    assert_eq!((&*bad_port.0, &*bad_port.1), ("lines.log", "4"));
    assert_eq!(bad_port.3, LINE.replace("443", "70000").trim_end());
    assert_eq!((&*member.0, &*member.3), ("members.log.gz", ""));
    assert!(member.2.contains("gzip data is damaged"), "{}", member.2);
}

#[test]
fn poison_lies_in_the_state_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = poison(directory.path());
    let state = directory.path().join("state");
    let engine = format!("[engine]\nstate_dir = '{}'", state.display());
    let config = config(directory.path(), &files, &engine);
    let summary = run_over_poison(&config);
    assert_eq!(summary["records"]["malformed"], 3, "{summary}");
    let path = state.join("dead-letter-00000001.ndjson");
    check_poison(&letters(&path));
    assert!(journal(&state).is_empty());
    // What so short a run has read is read again, and put aside again.
    run(&["run", "-c", &config]);
    let twice = letters(&path);
    let (first, again) = twice.split_at(twice.len() / 2);
    check_poison(first);
    check_poison(again);
}

#[test]
fn poison_goes_to_its_file_without_a_state_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = poison(directory.path());
    let path = directory.path().join("poison.ndjson");
    for threads in [1, 3] {
        let engine = format!(
            "[engine]\nthreads = {threads}\n[engine.dead_letters]\npath = '{}'",
            path.display()
        );
        run_over_poison(&config(directory.path(), &files, &engine));
        check_poison(&letters(&path));
        std::fs::remove_file(&path).expect("it is there");
    }
    std::fs::write(&path, "somebody's notes\n").expect("a file");
    let engine = format!("[engine.dead_letters]\npath = '{}'", path.display());
    let output = run(&["run", "-c", &config(directory.path(), &files, &engine)]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("holds something else than dead letters"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&path).expect("UTF-8"), "somebody's notes\n");
}

#[test]
fn a_flood_of_poison_stays_within_its_limit() {
    const RECORDS: usize = 40_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("poison.ndjson");
    // Documents of which none holds a record, each near to what is kept of one.
    let document = format!("{{\"x\":\"{}\"}}\n", "poison ".repeat(100));
    let file = directory.path().join("flood.json");
    let good = format!("{{\"message\":\"{}\"}}\n", LINE.trim_end());
    let flood = document.repeat(RECORDS) + &good;
    std::fs::write(&file, flood).expect("a file");
    let engine = format!("[engine.dead_letters]\nbytes_max = '1MiB'\npath = '{}'", path.display());
    let config = config(directory.path(), &[file], &engine);
    let output =
        run_with_input(&["run", "-c", &config, "--output", "json", "--log-format", "json"], b"");
    let summary = summary(&output);
    assert_eq!(summary["records"]["malformed"], RECORDS, "counts are exact");
    assert_eq!(summary["records"]["ok"], 1);
    let length = std::fs::metadata(&path).expect("a file").len();
    assert!((900 << 10..=1 << 20).contains(&length), "{length}");
    let written = letters(&path).len();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let end = stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let end = end.filter(|event| event["message"] == "what could not be read was put aside");
    let end: Vec<Value> = end.collect();
    assert_eq!(end.len(), 1, "{stderr}");
    assert_eq!(end[0]["written"], written);
    let dropped = end[0]["dropped"].as_u64().expect("a count");
    assert_eq!(written as u64 + dropped, RECORDS as u64, "{}", end[0]);
    assert!(stderr.contains("there is no room for more dead letters"), "{stderr}");
}
