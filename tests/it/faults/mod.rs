//! Sources in front of which calls go wrong: nothing is lost, nothing counts twice, whatever the seed.
//!
//! `FLOWGAUGE_FAULT_SEEDS=0..200` runs the long form; a failure names its seed.
#![cfg(feature = "kinesis")]
#![expect(clippy::print_stdout, reason = "a failure names its seed")]

mod fan_out;
mod firehose;
mod kinesis;
mod s3;
mod totals;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::proxy::FaultKind;

/// From how many seeds on every kind of fault has to show.
const SEEDS_FOR_EVERY_KIND: u64 = 20;

/// The seeds that were asked for, or some few.
fn seeds(few: u64) -> Range<u64> {
    let Ok(text) = std::env::var("FLOWGAUGE_FAULT_SEEDS") else { return 0..few };
    let range =
        text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.expect("FLOWGAUGE_FAULT_SEEDS is a range like 0..200")
}

/// Runs `check` for every seed, some at a time; it returns which faults there were.
fn over_seeds(
    name: &str,
    seeds: &Range<u64>,
    at_a_time: usize,
    kinds: &[FaultKind],
    check: impl Fn(u64) -> BTreeMap<FaultKind, u64> + Sync,
) {
    let next = AtomicU64::new(seeds.start);
    let faults: Mutex<BTreeMap<FaultKind, u64>> = Mutex::default();
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= seeds.end {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| check(seed))) {
            Ok(done) => {
                let mut faults = faults.lock().expect("nothing panics with it");
                for (kind, count) in done {
                    *faults.entry(kind).or_default() += count;
                }
            }
            Err(_) => failed.lock().expect("nothing panics with it").push(seed),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            std::thread::Builder::new().spawn_scoped(scope, work).expect("a thread");
        }
    });
    let (faults, failed) =
        (faults.into_inner().expect("ended"), failed.into_inner().expect("ended"));
    println!("{name}: seeds {seeds:?}, faults {faults:?}");
    assert!(failed.is_empty(), "{name}: FLOWGAUGE_FAULT_SEEDS=N..N+1 for each N of {failed:?}");
    assert!(!faults.is_empty(), "{name}: nothing went wrong");
    if seeds.end - seeds.start >= SEEDS_FOR_EVERY_KIND {
        let missing: Vec<_> = kinds.iter().filter(|kind| !faults.contains_key(kind)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?} did not come up");
    }
}
