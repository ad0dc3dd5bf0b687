//! Tops of sliding windows as users get them: from files, from the stream job, over a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::program::{run, summary};

const START: i64 = 1_767_225_600;

/// Records of some minutes: a sender that grows and one that stays.
fn log(minutes: std::ops::Range<i64>) -> String {
    let mut lines = String::new();
    for minute in minutes {
        for index in 0..20 {
            let (sender, bytes) = if index % 2 == 0 { (1, 1000) } else { (2, 100 * minute) };
            let end = START + minute * 60 + index;
            let start = end - 30;
            writeln!(
                lines,
                "2 123456789012 eni-1 10.0.0.{sender} 10.0.1.{index} 40000 443 6 10 {bytes} {start} {end} ACCEPT OK"
            )
            .expect("a String takes everything");
        }
    }
    lines
}

/// What is said of windows, by name and end; of the same one, what was said last.
fn windows(path: &Path) -> BTreeMap<(String, String), Value> {
    let text = std::fs::read_to_string(path).expect("the sink's file");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    lines.map(|line| ((text(&line["name"]), text(&line["window_end"])), line)).collect()
}

#[test]
fn files_have_windows_and_sizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flow.log");
    std::fs::write(&file, log(0..30)).expect("it is ours");
    let mut all = Vec::new();
    for threads in ["1", "3"] {
        let out = folder.path().join(format!("tops-{threads}.ndjson"));
        let (file, out_text) = (file.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        let summary = summary(&[
            "-j",
            threads,
            "--by",
            "srcaddr",
            "--talkers",
            out_text,
            "--talkers-window",
            "3m",
            file,
        ]);
        assert_eq!(summary["talkers"]["windows"], 30);
        assert_eq!(summary["flow_bytes"]["max"], 2900);
        assert_eq!(summary["flow_bytes"]["p50"], 1000);
        all.push(windows(&out));
    }
    assert_eq!(all[0], all[1], "the number of threads does not show");
    let rows = |end: &str| all[0][&("srcaddr".to_owned(), end.to_owned())]["rows"].clone();
    // Minutes 3 to 5: ten records each of 1000, and of 300, 400 and 500.
    let early = rows("2026-01-01T00:06:00Z");
    assert_eq!((&early[0]["key"][0], &early[0]["bytes"]), (&"10.0.0.1".into(), &30_000.into()));
    assert_eq!((&early[1]["bytes"], &early[1]["share"]), (&12_000.into(), &0.285_714.into()));
    assert_eq!(rows("2026-01-01T00:20:00Z")[0]["key"][0], "10.0.0.2");
}

#[test]
fn a_restart_does_not_show_in_windows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a.log"), log(0..12)).expect("it is ours");
    std::fs::write(path("b.log"), log(12..30)).expect("it is ours");
    std::fs::create_dir(path("state")).expect("it is ours");
    let job = |name: &str, files: &[&str], state: &str, threads: u32| {
        let files: Vec<String> = files.iter().map(|file| path(file)).collect();
        let (config, findings, tops) = (path("run.toml"), path("findings"), path(name));
        let text = format!(
            "[engine]\nthreads = {threads}\nlateness = '1m'\n{state}\n\
             [sources.logs]\ntype = 'file'\npaths = {files:?}\n\
             [talkers.pairs]\nby = ['srcaddr', 'dstaddr']\nmetric = 'flows'\nrows_max = 100\nwindow_seconds = 600\n\
             [talkers.ports]\nby = ['srcaddr']\nmetric = 'distinct:dstaddr'\n\
             [sinks.f]\ntype = 'file'\npath = '{findings}'\n\
             [sinks.t]\ntype = 'file'\npath = '{tops}'\ninputs = ['talkers']\n"
        );
        std::fs::write(&config, text).expect("it is ours");
        let output = run(&["run", "-c", &config, "--output", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        windows(Path::new(&tops))
    };
    let state = format!("state_dir = '{}'", path("state"));
    job("twice", &["a.log"], &state, 2);
    let twice = job("twice", &["a.log", "b.log"], &state, 3);
    let once = job("once", &["a.log", "b.log"], "", 1);
    assert_eq!(once.len(), 60);
    assert_eq!(twice, once);
}
