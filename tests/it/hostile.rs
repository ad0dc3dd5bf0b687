//! Hostile inputs: each is counted as it is, none stops or shifts what follows.

use std::io::Write as _;

use serde_json::Value;

use crate::program::{run, run_with_input};

const GOOD: &str = "2 123456789012 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 100 160 ACCEPT OK";

/// What the summary says of one line between two good ones: (ok, malformed, reason).
fn judge(line: &[u8]) -> (u64, u64, Option<String>) {
    let mut input = format!("{GOOD}\n").into_bytes();
    input.extend_from_slice(line);
    input.extend_from_slice(format!("\n{GOOD}\n").as_bytes());
    let output = run_with_input(&["analyze", "--output", "json", "-"], &input);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(line));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = |name: &str| summary["records"][name].as_u64().expect("a count");
    let others = count("nodata") + count("skipdata");
    assert_eq!(count("total"), count("ok") + others + count("malformed"));
    if count("malformed") > 0 {
        assert_eq!(summary["malformed_samples"][0]["origin"], "stdin:2");
    }
    let reasons = summary["malformed_by_reason"].as_object().expect("an object");
    (count("ok") - 2, count("malformed"), reasons.keys().next().cloned())
}

fn check_malformed(line: &str, reason: &str) {
    assert_eq!(judge(line.as_bytes()), (0, 1, Some(reason.to_owned())), "{line}");
}

fn check_good(line: &str) {
    assert_eq!(judge(line.as_bytes()), (1, 0, None), "{line}");
}

/// The good line with one token replaced.
fn with(position: usize, token: &str) -> String {
    let mut tokens: Vec<&str> = GOOD.split(' ').collect();
    tokens[position] = token;
    tokens.join(" ")
}

#[test]
fn token_counts() {
    check_malformed("2 123456789012", "field_count");
    check_malformed(&format!("{GOOD} extra"), "field_count");
    check_malformed(GOOD.rsplit_once(' ').expect("tokens").0, "field_count");
    check_good(&GOOD.replace(' ', "  "));
    check_good(&format!("  {GOOD} \r"));
    check_good(&format!("{GOOD}\0\0\0"));
}

#[test]
fn ranges() {
    for (position, highest, beyond) in [
        (0, "2147483647", "2147483648"),
        (5, "65535", "65536"),
        (7, "255", "256"),
        (8, "18446744073709551615", "18446744073709551616"),
        (9, "18446744073709551615", "99999999999999999999999999"),
        (10, "9223372036854775807", "9223372036854775808"),
    ] {
        check_good(&with(position, highest));
        check_good(&with(position, "-"));
        check_good(&with(position, "0001"));
        check_malformed(&with(position, beyond), "range");
        for text in ["-1", "+1", "1.5", "1e3", "0x10", "abc", "1\u{0661}", "\0"] {
            check_malformed(&with(position, text), "number");
        }
    }
}

#[test]
fn addresses() {
    for good in
        ["0.0.0.0", "255.255.255.255", "::", "2001:DB8::1", "::ffff:10.0.0.1", "1:2:3:4:5:6:7:8"]
    {
        check_good(&with(3, good));
    }
    for bad in [
        "256.0.0.1",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4/32",
        "1..2.3",
        ":::",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "g::1",
        "10.0.0.\0",
        "fe80::1%eth0",
        "1.2.3.4.",
        ".1.2.3.4",
    ] {
        check_malformed(&with(3, bad), "address");
    }
}

#[test]
fn words() {
    check_malformed(&with(12, "accept"), "action");
    check_malformed(&with(12, "DENY"), "action");
    check_malformed(&with(13, "ok"), "log_status");
    check_good(&with(12, "-"));
    check_good(&with(13, "-"));
    check_good(&with(2, "eni-\u{0441}"));
    assert_eq!(judge(b"2 1 eni-\xff\xfe 10.0.0.1 10.0.0.2 1 2 6 1 1 1 2 ACCEPT OK"), (1, 0, None));
}

#[test]
fn very_long_lines() {
    check_malformed(&"x".repeat(3 << 20), "field_count");
    check_malformed(&"7 ".repeat(3 << 19), "field_count");
    check_good(&with(1, &"9".repeat(3 << 20)));
    check_malformed(&"y".repeat(20 << 20), "line_too_long");
}

#[test]
fn blank_lines_are_not_lines() {
    assert_eq!(judge(b"\n\r\n   \n"), (0, 0, None));
}

#[test]
fn truncated_gzip_gives_what_came_before_it_and_exits_1() {
    let text = format!("{GOOD}\n").repeat(50_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    let mut packed = encoder.finish().expect("memory");
    packed.truncate(packed.len() / 2);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &packed).expect("a temporary file");
    let output = run(&["analyze", "--output", "json", file.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gzip data is damaged"));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ok = summary["records"]["ok"].as_u64().expect("a count");
    assert!(ok > 1_000 && ok < 50_000, "{ok}");
    assert_eq!(summary["records"]["malformed"], 0);
    assert_eq!(summary["bytes"].as_u64(), Some(40 * ok));
}

#[test]
fn an_unknown_layout_says_what_to_pass() {
    let output = run_with_input(&["analyze", "-"], b"10.0.0.1 10.0.0.2 443\n");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("3 fields") && stderr.contains("--format"), "{stderr}");
    let output = run_with_input(
        &["analyze", "--output", "json", "--format", "${srcaddr} ${dstaddr} ${dstport}", "-"],
        b"10.0.0.1 10.0.0.2 443\n",
    );
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["records"]["ok"], 1);
}

#[test]
fn headers_may_repeat_and_change_the_layout() {
    let text = "srcaddr dstaddr bytes\n10.0.0.1 10.0.0.2 5\nsrcaddr dstaddr bytes\n10.0.0.1 10.0.0.2 5\n\
                bytes srcaddr new-field\n7 10.0.0.1 x\n";
    let output = run_with_input(&["analyze", "--output", "json", "-"], text.as_bytes());
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["records"]["headers"], 3);
    assert_eq!(summary["records"]["ok"], 3);
    assert_eq!(summary["bytes"], 17);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("new-field").count(), 1, "{stderr}");
}
