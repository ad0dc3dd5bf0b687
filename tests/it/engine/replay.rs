//! The findings of a stream job, found again in its history.

use std::path::{Path, PathBuf};

use super::generated;
use crate::program::run;

/// The findings of `run` over files.
fn streamed(directory: &Path, files: &[PathBuf], more: &str) -> (PathBuf, Vec<u8>) {
    let config = directory.join("flowgauge.toml");
    let out = directory.join("streamed.ndjson");
    // A sink appends, and each run is one of its own.
    if out.exists() {
        std::fs::remove_file(&out).expect("it can be removed");
    }
    let text = format!(
        "[sources.files]\ntype = 'file'\npaths = {files:?}\n\
         [sinks.out]\ntype = 'file'\npath = '{}'\n{more}",
        out.display(),
    );
    std::fs::write(&config, text).expect("a file");
    let output = run(&["run", "-c", config.to_str().expect("UTF-8")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    (config, std::fs::read(&out).expect("findings"))
}

/// The findings of `replay`.
fn replayed(arguments: &[&str], files: &[PathBuf]) -> Vec<u8> {
    let mut all = vec!["replay"];
    all.extend(arguments);
    all.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    let output = run(&all);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("Records "), "{stderr}");
    assert!(!stderr.contains(" late"), "{stderr}");
    output.stdout
}

fn end_of(line: &str) -> i64 {
    line.split(' ').nth(11).and_then(|field| field.parse().ok()).expect("an end")
}

fn lines_of(findings: &[u8]) -> usize {
    std::str::from_utf8(findings).expect("UTF-8").lines().count()
}

#[test]
fn replay_finds_what_the_stream_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = generated(directory.path(), 60_000, "all=3");
    let text = std::fs::read_to_string(&input).expect("UTF-8");
    // Three files that overlap in time, and all records in the order of their ends.
    let mut parts = vec![String::new(); 3];
    for (number, line) in text.lines().enumerate() {
        let part = &mut parts[number % 3];
        part.push_str(line);
        part.push('\n');
    }
    let mut files = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        files.push(directory.path().join(format!("part-{number}.log")));
        std::fs::write(&files[number], part).expect("a file");
    }
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| end_of(line));
    let sorted = directory.path().join("sorted.log");
    std::fs::write(&sorted, lines.join("\n")).expect("a file");

    let (_, expected) = streamed(directory.path(), &files, "");
    assert!(lines_of(&expected) > 10, "attacks were planted");
    for threads in ["1", "2", "5"] {
        assert!(replayed(&["-j", threads], &files) == expected, "-j {threads}");
        assert!(replayed(&["-j", threads], std::slice::from_ref(&sorted)) == expected, "sorted");
    }
    let reversed: Vec<PathBuf> = files.iter().rev().cloned().collect();
    assert!(replayed(&[], &reversed) == expected, "the files in another order");

    let out = directory.path().join("replayed.ndjson");
    assert!(replayed(&["--findings", out.to_str().expect("UTF-8")], &files).is_empty());
    assert!(std::fs::read(&out).expect("findings") == expected);

    let ends: Vec<String> = lines.iter().map(|line| end_of(line).to_string()).collect();
    let (first, last) = (&ends[0], &ends[ends.len() - 1]);
    assert!(replayed(&["--since", first], &files) == expected);
    assert!(replayed(&["--until", first], &files).is_empty());
    let some = replayed(&["--since", &ends[ends.len() / 2], "--until", last], &files);
    assert!((1..lines_of(&expected)).contains(&lines_of(&some)));
}

#[test]
fn replay_takes_detectors_context_and_pace_of_a_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = [generated(directory.path(), 60_000, "all=3")];
    let plain = replayed(&[], &files);
    let context = directory.path().join("network.json");
    std::fs::write(&context, "{\"vpc_cidrs\": [\"10.0.0.0/8\"]}").expect("a file");
    let state = directory.path().join("state");
    let more = format!(
        "[engine]\npane = '30s'\nlateness = '5m'\nstate_dir = '{}'\n\
         [detectors.port_scan]\nports_min = 40\n[detectors.ssh_bruteforce]\nenabled = false\n\
         [enrich]\ncontext = ['{}']\n",
        state.display(),
        context.display(),
    );
    let (config, expected) = streamed(directory.path(), &files, &more);
    assert!(expected != plain && lines_of(&expected) > 3);
    std::fs::remove_dir_all(&state).expect("it is there");
    let config = config.to_str().expect("UTF-8");
    assert!(replayed(&["-c", config], &files) == expected);
    assert!(!state.exists(), "a replay keeps no state");
    // What the command line says comes on top.
    let more = directory.path().join("more.json");
    std::fs::write(&more, "{\"allowlisted_scanners\": [\"0.0.0.0/0\", \"::/0\"]}").expect("a file");
    let quieter = replayed(&["-c", config, "--context", more.to_str().expect("UTF-8")], &files);
    assert!(lines_of(&quieter) < lines_of(&expected));
}

#[test]
fn a_replay_that_cannot_begin_says_why() {
    for (arguments, said) in [
        (&["replay", "no/such/file"][..], "no such file"),
        (&["replay", "-c", "no/such.toml", "datasets"], "no/such.toml"),
        (&["replay", "s3://B/"], "names no bucket"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}
