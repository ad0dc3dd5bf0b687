//! A stream dealt out over several processes, whose partials are put together in any order, comes to what
//! one process says of it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::generated;
use crate::program::{run, without_throughput};

fn analyze(input: &Path, more: &[&str]) -> Value {
    let mut arguments = vec!["analyze", "--output", "json"];
    arguments.extend(more);
    arguments.push(input.to_str().expect("UTF-8"));
    json(&arguments)
}

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    without_throughput(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Deals out lines at random.
fn dealt(input: &Path, directory: &Path, count: usize) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(input).expect("UTF-8");
    let mut parts = vec![String::new(); count];
    let mut bits = 7_u64;
    for line in text.lines() {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = &mut parts[usize::try_from(bits >> 33).expect("small") % count];
        part.push_str(line);
        part.push('\n');
    }
    (0..)
        .zip(parts)
        .map(|(index, part): (usize, _)| {
            let path = directory.join(format!("part-{count}-{index}.log"));
            std::fs::write(&path, part).expect("a file");
            path
        })
        .collect()
}

fn check(question: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let input = generated(directory.path(), 60_000, "all=2");
    let whole_findings = directory.path().join("whole.ndjson");
    let with_findings = !question.contains(&"--no-detect");
    let mut more = question.to_vec();
    if with_findings {
        more.extend(["--findings", whole_findings.to_str().expect("UTF-8")]);
    }
    let mut whole = analyze(&input, &more);
    let expected = std::fs::read(&whole_findings).unwrap_or_default();
    for count in [1, 2, 7] {
        let mut partials: Vec<String> = Vec::new();
        for (index, part) in dealt(&input, directory.path(), count).iter().enumerate() {
            let partial = directory.path().join(format!("partial-{count}-{index}"));
            let partial = partial.to_str().expect("UTF-8").to_owned();
            let mut more = question.to_vec();
            more.extend(["--partials", &partial, "-j", if index % 2 == 0 { "1" } else { "3" }]);
            analyze(part, &more);
            partials.push(partial);
        }
        partials.reverse();
        partials.swap(0, count / 2);
        let merged_findings = directory.path().join(format!("merged-{count}.ndjson"));
        let mut arguments = vec!["merge", "--output", "json", "--findings"];
        arguments.push(merged_findings.to_str().expect("UTF-8"));
        arguments.extend(partials.iter().map(String::as_str));
        let mut merged = json(&arguments);
        for summary in [&mut whole, &mut merged] {
            summary.as_object_mut().expect("an object").remove("input");
        }
        assert_eq!(merged, whole, "{count} processes");
        let found = std::fs::read(&merged_findings).expect("findings");
        assert!(found == expected, "findings of {count} processes");
    }
    assert_eq!(with_findings, !expected.is_empty(), "attacks were planted");
}

#[test]
fn partials_come_to_what_one_process_says() {
    check(&[]);
    check(&["--by", "srcaddr", "--metric", "distinct:dstport", "--no-detect"]);
}

#[test]
fn partials_of_different_questions_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = generated(directory.path(), 2_000, "none");
    let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
    let [one, other] = [one.to_str().expect("UTF-8"), other.to_str().expect("UTF-8")];
    analyze(&input, &["--partials", one]);
    analyze(&input, &["--partials", other, "--by", "dstport"]);
    let output = run(&["merge", one, other]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("different questions"), "{stderr}");
    let output = run(&["analyze", "--partials", one, input.to_str().expect("UTF-8")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("has partials already"), "{stderr}");
}
