//! What is told of what is found: allow lists, limits, and the commands `tune` and `explain`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::golden;
use crate::program::{run, run_with_input};

/// Scanners from outside, of which the one with the number `n` tries 5, 10, 20, 40 … ports of one host in vain,
/// all within five minutes of an hour.
fn scans(scanner_count: u32, hour: i64) -> String {
    let mut text = String::new();
    for scanner in 0..scanner_count {
        for port in 0..5 << scanner.min(4) {
            let start = 1_780_000_000 / 3600 * 3600 + hour * 3600 + i64::from(port % 200);
            writeln!(
                text,
                "2 123456789012 eni-0a 198.51.{}.{} 10.0.0.7 50000 {} 6 1 44 {start} {} REJECT OK",
                scanner / 200,
                scanner % 200 + 1,
                1000 + port,
                start + 1
            )
            .expect("a string takes all");
        }
    }
    text
}

fn stdout(arguments: &[&str], input: &str) -> String {
    let output = run_with_input(arguments, input.as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// What the stream job finds under a configuration's tables.
fn replayed(folder: &Path, tables: &str, threads: &str, input: &str) -> Vec<Value> {
    let config = file(folder, "f.toml", &format!("[sources.s]\ntype = 'stdin'\n{tables}"));
    lines(&stdout(&["replay", "-c", &config, "-j", threads, "-"], input))
}

#[test]
fn tune_counts_what_each_threshold_finds() {
    let input = scans(5, 0);
    golden::check("tune/port_scan.txt", &stdout(&["tune", "port_scan", "-"], &input));
    let folder = tempfile::tempdir().expect("a folder");
    let json = stdout(&["tune", "port_scan", "-o", "json", "--setting", "ports_min", "-"], &input);
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["schema"], "flowgauge.tune/v1");
    let rows = answer.pointer("/settings/0/rows").and_then(Value::as_array).expect("rows");
    assert_eq!(rows.len(), 7, "{json}");
    for row in rows {
        let tables = format!("[detectors.port_scan]\nports_min = {}\n", row["value"]);
        let found = replayed(folder.path(), &tables, "1", &input);
        let is_new = |finding: &&Value| finding["kind"] == "port_scan" && finding["revision"] == 0;
        let count = found.iter().filter(is_new).count();
        assert_eq!(row["findings"], count, "{row}: what the stream job says");
    }
}

#[test]
fn tune_takes_what_is_configured_and_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[sources.s]\ntype = 'stdin'\n[detectors.port_scan]\nports_min = 40\n";
    let config = file(folder.path(), "f.toml", config);
    let context =
        r#"{"allow": [{"purpose": "test", "sources": ["198.51.0.5"], "kinds": ["port_scan"]}]}"#;
    let context = file(folder.path(), "c.json", context);
    let arguments = ["tune", "port_scan", "-c", &config, "--context", &context, "-o", "json", "-"];
    let answer: Value = serde_json::from_str(&stdout(&arguments, &scans(5, 0))).expect("JSON");
    assert_eq!(answer.pointer("/settings/0/in_force"), Some(&40.into()));
    assert_eq!(answer.pointer("/in_force/findings"), Some(&1.into()), "{answer}");
    assert!(answer.pointer("/in_force/suppressed").and_then(Value::as_u64) > Some(0), "{answer}");
}

/// Exit code and last message.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_questions_are_told() {
    assert!(refused(&["tune", "portscan", "x"]).contains("did you mean `port_scan`?"));
    assert!(refused(&["explain", "portscan"]).contains("did you mean `port_scan`?"));
    let wrong = refused(&["tune", "port_scan", "--setting", "port_min", "-"]);
    assert!(wrong.contains("has no number `port_min`; did you mean `ports_min`?"), "{wrong}");
    let wrong = refused(&["tune", "port_scan", "--setting", "ports_min", "--values", "1", "-"]);
    assert!(wrong.contains("it must be 2 to 65536"), "{wrong}");
}

#[test]
fn explain_lists_kinds_and_shows_pages() {
    let list = stdout(&["explain"], "");
    assert!(list.lines().any(|line| line.starts_with("port_scan ")), "{list}");
    let page = stdout(&["explain", "port_scan"], "");
    for heading in ["Meaning", "Evidence", "False positives", "What to do", "Settings"] {
        assert!(page.contains(&format!("## {heading}\n")), "{heading}");
    }
}

#[test]
fn what_is_allowed_is_counted_and_not_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let context = r#"{"allow": [{"purpose": "penetration test", "sources": ["198.51.0.0/30"],
        "targets": ["10.0.0.0/24"], "kinds": ["port_scan"], "until": "2030-01-01"}]}"#;
    let context = file(folder.path(), "c.json", context);
    let input = scans(5, 0);
    let findings = folder.path().join("found.ndjson");
    let findings = findings.to_str().expect("UTF-8");
    let base = ["analyze", "--top", "0", "-o", "json", "--context", &context];
    let summaries = [&["--findings", findings, "-"][..], &["-"]].map(|more| {
        let summary = stdout(&[&base, more].concat(), &input);
        let summary: Value = serde_json::from_str(&summary).expect("JSON");
        (summary["findings"].clone(), summary["suppressed"].clone())
    });
    assert_eq!(summaries[0], summaries[1], "with findings written and without");
    let (_, suppressed) = &summaries[0];
    let label = "penetration test from 198.51.0.0/30 to 10.0.0.0/24";
    assert!(suppressed["allowed"][label].as_u64() >= Some(2), "{suppressed}");
    let told = lines(&std::fs::read_to_string(findings).expect("findings"));
    let actors: Vec<&str> =
        told.iter().filter_map(|finding| finding.pointer("/actor/ip")?.as_str()).collect();
    assert!(actors.contains(&"198.51.0.5") && !actors.contains(&"198.51.0.3"), "{actors:?}");
    let text = stdout(&["analyze", "--top", "0", "--context", &context, "-"], &input);
    assert!(text.contains("Not told") && text.contains(label), "{text}");
}

#[test]
fn an_hour_tells_so_many_and_how_many_more_there_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = format!("{}{}", scans(60, 0), scans(30, 1));
    // Many scanners of one network at once are one distributed scan otherwise.
    let one_by_one = "[detectors.distributed_scan]\nenabled = false\n[noise]\n";
    let tables = &format!("{one_by_one}findings_per_hour_max = 20\n");
    let found = replayed(folder.path(), tables, "1", &input);
    assert_eq!(found, replayed(folder.path(), tables, "3", &input), "any number of threads");
    let unlimited = format!("{one_by_one}findings_per_hour_max = 0\n");
    let all = replayed(folder.path(), &unlimited, "1", &input);
    let is_notice = |finding: &&Value| finding["evidence"]["variant"] == "held_back";
    let (notices, told): (Vec<&Value>, Vec<&Value>) = found.iter().partition(is_notice);
    assert!(told.iter().all(|finding| all.contains(finding)), "ids and revisions are the same");
    assert!(!notices.is_empty() && !all.iter().any(|finding| is_notice(&finding)));
    let mut held = std::collections::BTreeMap::new();
    for notice in &notices {
        let count = notice["evidence"]["held_back"].as_u64().expect("a count");
        held.insert(notice["id"].to_string(), count);
    }
    let left_out = (all.len() - told.len()) as u64;
    assert_eq!(held.values().sum::<u64>(), left_out, "{notices:?}");
}

#[test]
fn severities_are_the_operators() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = "[noise]\nmin_severity = 'high'\n[noise.kinds.port_scan]\nseverity = 'critical'\n";
    let found = replayed(folder.path(), tables, "2", &scans(5, 0));
    assert!(!found.is_empty());
    for finding in &found {
        assert_eq!(
            (&finding["kind"], &finding["severity"]),
            (&"port_scan".into(), &"critical".into())
        );
    }
}

#[test]
fn aws_ranges_are_a_context() {
    let folder = tempfile::tempdir().expect("a folder");
    let ranges = r#"{"syncToken": "1", "createDate": "2026-01-01-00-00-00", "prefixes": [
        {"ip_prefix": "198.51.0.0/24", "region": "GLOBAL", "service": "ROUTE53_HEALTHCHECKS"}],
        "ipv6_prefixes": []}"#;
    let ranges = file(folder.path(), "ip-ranges.json", ranges);
    let arguments = ["replay", "--context", &ranges, "-"];
    assert_eq!(lines(&stdout(&arguments, &scans(5, 0))), Vec::<Value>::new());
}
