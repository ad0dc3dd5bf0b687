//! Records that are pushed: each of each shard once and in order, over faults, stops and kills.

use std::time::Duration;

use flowgauge::source::kinesis::{ConsumerAddress, FanOut, KinesisSettings, ReadMode};

use super::kinesis::{AT_A_TIME, History, KINDS, check, deep, wide};
use super::{over_seeds, seeds};

/// Empty events come every second or every five, so that this is longer than a healthy silence.
const SILENT_AFTER: Duration = Duration::from_secs(8);

fn consumer(seed: u64) -> String {
    format!("seed-{seed}")
}

fn pushed(seed: u64, settings: &mut KinesisSettings) {
    let consumer = ConsumerAddress::Name(consumer(seed));
    let fan_out = FanOut { silent_after: SILENT_AFTER, ..FanOut::of(consumer) };
    settings.mode = ReadMode::FanOut(fan_out);
    // The emulator does not end subscriptions of closed shards: a listing shows that they are closed.
    settings.list_interval = Duration::from_secs(1);
}

fn over_history(name: &str, history: &History) {
    over_seeds(name, &seeds(2), AT_A_TIME, KINDS, |seed| {
        let faults = check(seed, history, |settings| pushed(seed, settings));
        // A stream takes twenty consumers.
        history.stream.deregister(&consumer(seed));
        faults
    });
}

#[test]
fn fan_out_neither_loses_nor_doubles() {
    over_history("fan-out", &wide("faults-pushed"));
}

#[test]
fn fan_out_neither_loses_nor_doubles_over_splits_and_merges() {
    over_history("fan-out, resharded", &deep("faults-pushed-lineage"));
}
