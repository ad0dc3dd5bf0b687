//! Keys that are listed: late ones are read, and none twice, over kills and drains.

use std::path::{Path, PathBuf};

use super::bucket::{Bucket, Object, RECORDS_PER_OBJECT, object, objects};
use crate::job::{self, Job, figures};
use crate::program::summary;

fn configuration(directory: &Path, bucket: &Bucket, more: &str) -> PathBuf {
    let source = format!(
        "[sources.bucket]\ntype = 's3'\nbucket = '{}'\nregion = 'us-east-1'\nendpoint = '{}'\n\
         poll_interval = '1s'\n{more}",
        bucket.name, bucket.emulator.endpoint,
    );
    job::config(directory, &source)
}

/// Today's folders, because only the last days are looked at again.
fn today() -> String {
    use flowgauge::clock::{Clock as _, SystemClock};
    let now = SystemClock::new().now().to_string();
    now[..10].replace('-', "/")
}

#[test]
fn each_key_counts_once_over_kills_and_drains() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create("listing-kills");
    let objects = objects(directory.path(), 20);
    let put = |object: &Object| drop(bucket.put(&object.key, object.bytes.clone()));
    objects.iter().for_each(put);
    let config = configuration(directory.path(), &bucket, "parallel = 2\nrate_limit = '100KiB/s'");
    let mut job = Job::start(&config);
    job.read_until(4 * RECORDS_PER_OBJECT);
    job.kill();
    let mut job = Job::start(&config);
    job.read_until(7 * RECORDS_PER_OBJECT);
    let drained = job.drain();
    assert!(drained["records"]["total"].as_u64().unwrap() < 20 * RECORDS_PER_OBJECT);
    let config = configuration(directory.path(), &bucket, "late_days = 2");
    let mut job = Job::start(&config);
    job.read_until(20 * RECORDS_PER_OBJECT);

    // Keys of today, the second of which sorts before the first.
    let mut today_objects = Vec::new();
    for (number, name) in [(20, "b.log.gz"), (22, "a.log.gz")] {
        let object = object(directory.path(), number);
        let key = format!("AWSLogs/000000000000/vpcflowlogs/us-east-1/{}/{name}", today());
        bucket.put(&key, object.bytes.clone());
        today_objects.push(object);
        job.read_until((20 + today_objects.len() as u64) * RECORDS_PER_OBJECT);
    }
    job.kill();
    let mut job = Job::start(&config);
    // Whatever came twice would come with the next two listings.
    let again: u64 = (0..10).map(|_| job.next_stats()).sum();
    assert_eq!(job.records, 22 * RECORDS_PER_OBJECT, "{again}");
    let counted = job.drain();
    let all = objects.iter().chain(&today_objects).map(|object| &*object.file);
    assert_eq!(figures(&counted), figures(&summary(&all.collect::<Vec<_>>())));
}

#[test]
fn keys_without_days_are_read_too_and_other_services_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create("listing-undated");
    let first = object(directory.path(), 0);
    bucket.put("exports/first.log.gz", first.bytes.clone());
    bucket.put("AWSLogs/000000000000/CloudTrail/us-east-1/2026/01/01/x.json.gz", b"{}".to_vec());
    let config = configuration(directory.path(), &bucket, "");
    let mut job = Job::start(&config);
    job.read_until(RECORDS_PER_OBJECT);
    let second = object(directory.path(), 2);
    bucket.put("exports/a/second.log.gz", second.bytes.clone());
    job.read_until(2 * RECORDS_PER_OBJECT);
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&[&first.file, &second.file])));
}
