//! Flow logs as Amazon's services deliver them, from the service's own API to totals: what was put in is
//! what was counted.
#![cfg(all(feature = "kinesis", feature = "cloudwatch", feature = "firehose"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod firehose;
mod subscription;

use std::path::{Path, PathBuf};

use crate::program::run;

/// Records of a test.
const RECORDS: usize = 3_000;

/// Made-up flow logs.
fn generated(directory: &Path) -> PathBuf {
    let path = directory.join("flow.log");
    let records = RECORDS.to_string();
    let target = path.to_str().unwrap();
    let output = run(&["generate", "--records", &records, "--rate", "20", "-o", target]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}
