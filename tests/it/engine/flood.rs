//! Millions of spoofed sources beside a slow scanner, in little memory: the process stays within its limit,
//! the scanner is found, and what the report says of its own errors is true.
//!
//! `FLOWGAUGE_FLOOD_RECORDS=100000000 FLOWGAUGE_FLOOD_MEMORY_MIB=512` runs the long form.

use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::process::Stdio;

use serde_json::Value;

use super::asked;
use crate::program::flowgauge;

/// Seconds of event time that the flood takes.
const SECONDS: u64 = 2000;

/// One probe of the scanner in this many seconds.
const PROBE_SECONDS: u64 = 30;

const START: u64 = 1_767_225_600;
const SCANNER: &str = "192.0.2.77";

/// Sources with traffic worth reporting.
const HEAVY: u32 = 20;

/// A number below 2^32 that differs for every index below it.
fn spoofed(index: u32) -> u32 {
    let mut bits = index.wrapping_mul(0x9e37_79b1);
    bits ^= bits >> 15;
    bits = bits.wrapping_mul(0x85eb_ca77);
    bits ^= bits >> 13;
    bits
}

fn addr(bits: u32) -> String {
    let [a, b, c, d] = bits.to_be_bytes();
    format!("{a}.{b}.{c}.{d}")
}

/// Writes the flood; exact bytes by the addresses that matter.
fn write(records: u64, out: &mut impl std::io::Write) -> std::io::Result<HashMap<String, u64>> {
    let mut exact = HashMap::new();
    let mut probes = 0;
    let mut bits = 1_u64;
    for number in 0..records {
        let now = START + number * SECONDS / records;
        if (now - START) / PROBE_SECONDS >= probes {
            writeln!(
                out,
                "2 123456789012 eni-1 {SCANNER} 10.0.0.9 50000 {} 6 1 44 {now} {now} REJECT OK",
                1000 + probes
            )?;
            probes += 1;
        }
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = u32::try_from(bits >> 33).expect("31 bits");
        if chance.is_multiple_of(64) {
            // Large transfers of few.
            let heavy = chance / 64 % HEAVY;
            let bytes = 100_000 + u64::from(heavy) * 50_000;
            let source = format!("198.51.100.{heavy}");
            writeln!(
                out,
                "2 123456789012 eni-1 {source} 10.0.0.5 40000 443 6 100 {bytes} {now} {now} ACCEPT OK"
            )?;
            *exact.entry(source).or_default() += bytes;
            continue;
        }
        // Each spoofed source twice, at moments that have nothing to do with each other.
        let index = if number % 2 == 0 { number / 2 } else { u64::from(chance) % (number / 2 + 1) };
        let source = addr(spoofed(u32::try_from(index).expect("below 2^32")));
        writeln!(
            out,
            "2 123456789012 eni-1 {source} 10.0.0.5 {} 443 6 1 40 {now} {now} ACCEPT OK",
            1024 + chance % 60_000
        )?;
    }
    Ok(exact)
}

/// The most memory that a process ever had, in bytes.
fn most_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[test]
fn a_flood_hides_no_scanner_and_takes_no_more_memory() {
    let records = asked("FLOWGAUGE_FLOOD_RECORDS", 2_000_000);
    let memory_mib = asked("FLOWGAUGE_FLOOD_MEMORY_MIB", 200);
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("flood.toml");
    let text = format!(
        "[engine]\nmemory_max = '{memory_mib}MiB'\nthreads = 2\nstate_dir = '{}'\n\
         [engine.checkpoint]\ninterval = '1s'\n\
         [sources.flood]\ntype = 'stdin'\nformat = 'v2'\n[sinks.out]\ntype = 'stdout'\n",
        directory.path().join("state").display()
    );
    std::fs::write(&config, text).expect("a file");
    let mut child = flowgauge()
        .args(["run", "-c", config.to_str().expect("UTF-8"), "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program starts");
    let pid = child.id();
    let stdin = child.stdin.take().expect("it was piped");
    let writer = std::thread::Builder::new()
        .spawn(move || {
            let mut out = BufWriter::with_capacity(1 << 20, stdin);
            let exact = write(records, &mut out).expect("the program reads");
            let most = most_memory(pid);
            out.flush().expect("the program reads");
            (exact, most)
        })
        .expect("a thread");
    let watcher = std::thread::Builder::new()
        .spawn(move || {
            let mut most = 0;
            while let Some(now) = most_memory(pid) {
                most = most.max(now);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            most
        })
        .expect("a thread");
    let output = child.wait_with_output().expect("it ends");
    let (exact, _) = writer.join().expect("the writer ends");
    let most = watcher.join().expect("the watcher ends");
    assert!(output.status.success(), "{:?}", output.status);
    assert!(most <= memory_mib << 20, "{} MiB of {memory_mib}", most >> 20);

    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (summary, findings) = lines.split_last().expect("a summary");
    assert!(summary["records"]["total"].as_u64() >= Some(records));
    let is_found = findings
        .iter()
        .any(|finding| finding["kind"] == "port_scan" && finding["actor"]["ip"] == SCANNER);
    assert!(is_found, "the scanner: {} findings", findings.len());

    let tops = summary["top"].as_array().expect("tops");
    let by_source = tops.iter().find(|top| top["by"] == serde_json::json!(["srcaddr"]));
    let by_source = by_source.expect("sources");
    assert_eq!(by_source["exact"], false, "so many do not fit: {by_source}");
    let bound = by_source["error_bound"].as_u64().expect("a bound");
    let rows = by_source["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 10);
    for row in rows {
        let key = row["key"][0].as_str().expect("a key");
        let (said, exact) = (row["bytes"].as_u64().expect("bytes"), exact.get(key));
        let exact = *exact.unwrap_or_else(|| panic!("{key} is not among the largest"));
        assert!(said <= exact && exact - said <= bound, "{key}: {said} of {exact}, bound {bound}");
    }
}
