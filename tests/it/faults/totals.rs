//! The program itself in front of faults, killed in between: its totals are those of the records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{over_seeds, seeds};
use crate::engine::stream::{RECORDS, produce};
use crate::job::{self, figures};
use crate::kinesis::emulator::Stream;
use crate::program::summary;
use crate::proxy::{Dice, FaultKind, FaultPlan, FaultProxy};
use crate::servers::Emulator;

const STREAM: &str = "faults-totals";
/// Runs at one time: two cores can do no more.
const AT_A_TIME: usize = 4;

/// Reads the stream to its tip through a proxy, killed up to twice on the way.
fn check(seed: u64, emulator: &Emulator, expected: &Value) -> BTreeMap<FaultKind, u64> {
    let proxy = FaultProxy::start(emulator.address(), FaultPlan::everything(seed));
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path(), &proxy.endpoint);
    let counted = job::count_over_kills(&config, &mut Dice::new(seed), RECORDS);
    assert_eq!(figures(&counted), *expected, "seed {seed}");
    proxy.faults()
}

fn config(directory: &Path, endpoint: &str) -> PathBuf {
    let source = format!(
        "[sources.prod]\ntype = 'kinesis'\nstream = '{STREAM}'\nregion = 'us-east-1'\n\
         endpoint = '{endpoint}'\npoll_interval = '200ms'\nrecords_per_call_max = 20",
    );
    job::config(directory, &source)
}

#[test]
fn totals_are_those_of_the_records_over_faults_and_kills() {
    let emulator = Emulator::shared_ministack();
    let _stream = Stream::create(emulator, STREAM, 3);
    let directory = tempfile::tempdir().expect("a directory");
    let file = produce(emulator, STREAM, directory.path(), 0);
    let expected = figures(&summary(&[file]));
    over_seeds("totals", &seeds(2), AT_A_TIME, &[], |seed| check(seed, emulator, &expected));
}
