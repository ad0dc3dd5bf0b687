//! A queue that tells of objects: each counts once, its message goes when it is safe, and bad messages go to the
//! dead-letter queue.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use serde_json::json;

use super::bucket::{
    Bucket, Object, Queue, RECORDS_PER_OBJECT, event, eventbridge, generated, gzip_at, objects,
    parquet_of, sample_parquet,
};
use crate::job::{self, Job, figures};
use crate::program::summary;
use crate::servers::wait_for;

/// A configuration that reads the queue.
fn configuration(directory: &Path, bucket: &Bucket, queue: &Queue, more: &str) -> PathBuf {
    let source = format!(
        "[sources.bucket]\ntype = 's3'\nqueue_url = '{}'\nregion = 'us-east-1'\nendpoint = '{}'\n\
         visibility = '30s'\n{more}",
        queue.url, bucket.emulator.endpoint,
    );
    job::config(directory, &source)
}

fn files(objects: &[Object]) -> Vec<&Path> {
    objects.iter().map(|object| &*object.file).collect()
}

#[test]
fn objects_count_once_over_kills() {
    const NAME: &str = "queue-kills";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    queue.watch(&bucket);
    let objects = objects(directory.path(), 24);
    let config =
        configuration(directory.path(), &bucket, &queue, "parallel = 2\nrate_limit = '100KiB/s'");
    for object in &objects[..16] {
        bucket.put(&object.key, object.bytes.clone());
    }
    // Killed in the middle, twice, with messages that are not deleted.
    let mut job = Job::start(&config);
    job.read_until(5 * RECORDS_PER_OBJECT);
    assert!(job.total("bucket", "objects") > 0 && job.total("bucket", "messages") > 0);
    job.kill();
    let mut job = Job::start(&config);
    job.next_stats();
    job.kill();
    for object in &objects[16..] {
        bucket.put(&object.key, object.bytes.clone());
    }
    // What the killed processes had received comes again when its visibility ends.
    let config = configuration(directory.path(), &bucket, &queue, "");
    let mut job = Job::start(&config);
    job.read_until(24 * RECORDS_PER_OBJECT);
    queue.wait_until_empty();
    assert_eq!(queue.dead_count(), 0);
    let counted = job.drain();
    assert_eq!(counted["records"]["total"], 24 * RECORDS_PER_OBJECT);
    assert_eq!(figures(&counted), figures(&summary(&files(&objects))));
}

#[test]
fn objects_are_known_in_every_wrapping() {
    const NAME: &str = "queue-wrappings";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    let objects = objects(directory.path(), 6);
    let metas: Vec<_> =
        objects.iter().map(|object| bucket.put(&object.key, object.bytes.clone())).collect();
    let metas: Vec<_> = metas.iter().collect();
    queue.send(&json!({"Service": "Amazon S3", "Event": "s3:TestEvent"}).to_string());
    queue.send(&event(NAME, &metas[..2]).to_string());
    queue.send(&eventbridge(NAME, metas[2]).to_string());
    let notification =
        |inner: String| json!({"Type": "Notification", "Message": inner}).to_string();
    queue.send(&notification(event(NAME, &metas[3..5]).to_string()));
    queue.send(&notification(eventbridge(NAME, metas[5]).to_string()));
    // All of them again, in other wrappings.
    queue.send(&notification(event(NAME, &metas).to_string()));
    metas.iter().for_each(|meta| queue.send(&eventbridge(NAME, meta).to_string()));
    let config = configuration(directory.path(), &bucket, &queue, "");
    let mut job = Job::start(&config);
    job.read_until(6 * RECORDS_PER_OBJECT);
    queue.wait_until_empty();
    // A key that is written anew is another object; the same bytes are the same.
    let again = bucket.put(&objects[0].key, objects[0].bytes.clone());
    let anew = bucket.put(&objects[1].key, sample_parquet());
    queue.send(&event(NAME, &[&again, &anew]).to_string());
    let sample = directory.path().join("sample.parquet");
    std::fs::write(&sample, sample_parquet()).unwrap();
    let sample_records = summary(&[&sample])["records"]["total"].as_u64().unwrap();
    job.read_until(6 * RECORDS_PER_OBJECT + sample_records);
    queue.wait_until_empty();
    let counted = job.drain();
    let all: Vec<&Path> = files(&objects).into_iter().chain([&*sample]).collect();
    assert_eq!(figures(&counted), figures(&summary(&all)));
}

#[test]
fn a_slow_object_stays_with_its_reader() {
    const NAME: &str = "queue-slow";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    queue.watch(&bucket);
    let objects = objects(directory.path(), 3);
    objects.iter().for_each(|object| drop(bucket.put(&object.key, object.bytes.clone())));
    // Three quarters of a minute, over a visibility of half a minute: delivered twice, it would go to the dead.
    let bytes: usize = objects.iter().map(|object| object.bytes.len()).sum();
    let rate = format!("rate_limit = '{}B/s'", bytes / 45);
    let config = configuration(directory.path(), &bucket, &queue, &rate);
    let mut job = Job::start(&config);
    job.read_until(3 * RECORDS_PER_OBJECT);
    queue.wait_until_empty();
    assert_eq!(queue.dead_count(), 0);
    assert_eq!(job.drain()["records"]["total"], 3 * RECORDS_PER_OBJECT);
}

#[test]
fn a_drain_gives_messages_back() {
    const NAME: &str = "queue-drain";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    queue.watch(&bucket);
    let objects = objects(directory.path(), 16);
    objects.iter().for_each(|object| drop(bucket.put(&object.key, object.bytes.clone())));
    let config =
        configuration(directory.path(), &bucket, &queue, "parallel = 1\nrate_limit = '60KiB/s'");
    let mut job = Job::start(&config);
    job.read_until(2 * RECORDS_PER_OBJECT);
    let drained = job.drain();
    assert!(drained["records"]["total"].as_u64().unwrap() < 16 * RECORDS_PER_OBJECT);
    // At once, not after their visibility.
    let config = configuration(directory.path(), &bucket, &queue, "");
    let mut job = Job::start(&config);
    job.read_until(16 * RECORDS_PER_OBJECT);
    queue.wait_until_empty();
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&files(&objects))));
}

#[test]
fn large_objects_are_read_in_parts() {
    const NAME: &str = "queue-large";
    const RECORDS: u64 = 400_000;
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    queue.watch(&bucket);
    let text = |number| generated(directory.path(), number, RECORDS);
    let objects = [
        ("a.log", text(0)),
        // Stored as it is, so that it is large.
        ("b.log.gz", gzip_at(&text(1), Compression::none())),
        ("c.log.parquet", parquet_of(&text(2), 20_000)),
    ];
    let mut files = Vec::new();
    for (key, bytes) in objects {
        assert!(bytes.len() > 32 << 20, "{key} is read in parts: {}", bytes.len());
        let file = directory.path().join(key);
        std::fs::write(&file, &bytes).unwrap();
        files.push(file);
        bucket.put(key, bytes);
    }
    let more = "read_ahead_max = '64MiB'\nrate_limit = '30MiB/s'";
    let config = configuration(directory.path(), &bucket, &queue, more);
    let mut job = Job::start(&config);
    job.read_until(RECORDS / 2);
    job.kill();
    let mut job = Job::start(&config);
    job.read_until(3 * RECORDS);
    queue.wait_until_empty();
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&files)));
}

#[test]
fn bad_messages_go_to_the_dead_letter_queue() {
    const NAME: &str = "queue-bad";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    let objects = objects(directory.path(), 2);
    let metas: Vec<_> =
        objects.iter().map(|object| bucket.put(&object.key, object.bytes.clone())).collect();
    let gone = bucket.put("gone.log.gz", objects[0].bytes.clone());
    bucket.remove("gone.log.gz");
    let config = configuration(directory.path(), &bucket, &queue, "");
    let mut job = Job::start_tolerant(&config);
    queue.send("not JSON");
    queue.send(&event(NAME, &[&metas[0], &gone]).to_string());
    queue.send(&event(NAME, &[&metas[1]]).to_string());
    job.read_until(2 * RECORDS_PER_OBJECT);
    wait_for("two dead letters", || (queue.dead_count() == 2).then_some(()));
    queue.wait_until_empty();
    let counted = job.drain();
    assert_eq!(figures(&counted), figures(&summary(&files(&objects))));
}

#[test]
fn a_queue_that_is_not_there_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create("queue-absent");
    let queue = Queue::create("queue-absent");
    let config = configuration(directory.path(), &bucket, &queue, "");
    let text =
        std::fs::read_to_string(&config).unwrap().replace("/queue-absent'", "/no-such-queue'");
    std::fs::write(&config, text).unwrap();
    let mut command = crate::program::flowgauge();
    command.args(["run", "-c"]).arg(&config).envs(crate::servers::CREDENTIALS);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("check `queue_url` and `region`"), "{said}");
}

/// How long nothing more may come.
const QUIET: Duration = Duration::from_secs(1);

#[test]
fn without_a_state_directory_messages_go_too() {
    const NAME: &str = "queue-stateless";
    let directory = tempfile::tempdir().unwrap();
    let (bucket, queue) = (Bucket::create(NAME), Queue::create(NAME));
    queue.watch(&bucket);
    let objects = objects(directory.path(), 4);
    objects.iter().for_each(|object| drop(bucket.put(&object.key, object.bytes.clone())));
    let config = configuration(directory.path(), &bucket, &queue, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("state_dir"));
    let text = lines.collect::<Vec<_>>().join(
        "
",
    );
    std::fs::write(&config, text).unwrap();
    let mut job = Job::start(&config);
    job.read_until(4 * RECORDS_PER_OBJECT);
    queue.wait_until_empty();
    let looks = QUIET.as_millis() / 200;
    assert_eq!((0..looks).map(|_| job.next_stats()).sum::<u64>(), 0, "nothing is read again");
    assert_eq!(job.drain()["records"]["total"], 4 * RECORDS_PER_OBJECT);
}
