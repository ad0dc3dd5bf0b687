//! Objects that a queue tells of, over faults of both services, redelivery and kills: totals are those of
//! the records.
#![cfg(feature = "s3")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_sdk_sqs::Client;
use serde_json::Value;

use super::{over_seeds, seeds};
use crate::job::{self, Job, figures};
use crate::program::summary;
use crate::proxy::{Dice, FaultKind, FaultPlan, FaultProxy};
use crate::s3::bucket::{Bucket, Object, RECORDS_PER_OBJECT, event, objects};
use crate::servers::{Emulator, Sdk};

const BUCKET: &str = "faults";
const OBJECTS: u64 = 12;
const RECORDS: u64 = OBJECTS * RECORDS_PER_OBJECT;
/// Runs at one time: two cores can do no more.
const AT_A_TIME: usize = 4;
/// Lines of statistics without records after which S3 tells of its objects again. It may, and a message
/// whose delivery was lost comes back by itself only after its visibility, half a minute.
const SILENT_LINES: u32 = 15;

/// A queue of one run.
struct Queue {
    sdk: Sdk,
    client: Client,
    url: String,
}

impl Queue {
    fn create(seed: u64) -> Self {
        let sdk = Sdk::new(&Emulator::shared_ministack().endpoint);
        let client = Client::new(&sdk.config);
        let create = client.create_queue().queue_name(format!("faults-{seed}"));
        let url = sdk.runtime.block_on(create.send()).unwrap().queue_url.unwrap();
        Self { sdk, client, url }
    }

    /// Tells of all objects, one to three in a message, some of them twice.
    fn tell(&self, metas: &[object_store::ObjectMeta], dice: &mut Dice) {
        let mut rest = metas;
        while !rest.is_empty() {
            let (some, others) = rest.split_at((1 + dice.place(3)).min(rest.len()));
            for _ in 0..=dice.below(2) {
                let body = event(BUCKET, &some.iter().collect::<Vec<_>>()).to_string();
                let send = self.client.send_message().queue_url(&self.url).message_body(body);
                self.sdk.runtime.block_on(send.send()).unwrap();
            }
            rest = others;
        }
    }
}

/// Objects that every run reads.
struct Shelf {
    metas: Vec<object_store::ObjectMeta>,
    expected: Value,
}

fn check(seed: u64, shelf: &Shelf) -> BTreeMap<FaultKind, u64> {
    let proxy =
        FaultProxy::start(Emulator::shared_ministack().address(), FaultPlan::everything(seed));
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::create(seed);
    let config = config(directory.path(), &proxy.endpoint, &queue.url);
    let mut dice = Dice::new(seed);
    queue.tell(&shelf.metas, &mut dice);
    for _ in 0..dice.below(3) {
        let mut job = Job::start(&config);
        read_until(&mut job, 1 + dice.below(RECORDS / 2), || queue.tell(&shelf.metas, &mut dice));
        job.kill();
    }
    let mut job = Job::start(&config);
    read_until(&mut job, RECORDS, || queue.tell(&shelf.metas, &mut dice));
    // Whatever came twice would come within a second.
    for _ in 0..5 {
        job.next_stats();
    }
    assert_eq!(figures(&job.drain()), shelf.expected, "seed {seed}");
    proxy.faults()
}

/// Reads on; `again` is called when nothing comes any more.
fn read_until(job: &mut Job, records: u64, mut again: impl FnMut()) {
    let mut silent_lines = 0;
    while job.records < records {
        silent_lines = if job.next_stats() == 0 { silent_lines + 1 } else { 0 };
        if silent_lines == SILENT_LINES {
            again();
            silent_lines = 0;
        }
    }
}

fn config(directory: &Path, endpoint: &str, queue_url: &str) -> PathBuf {
    let (_, queue) = queue_url.split_once("://").unwrap();
    let (_, queue) = queue.split_once('/').unwrap();
    let source = format!(
        "[sources.objects]\ntype = 's3'\nqueue_url = '{endpoint}/{queue}'\nregion = 'us-east-1'\n\
         endpoint = '{endpoint}'\nvisibility = '30s'\nparallel = 3",
    );
    job::config(directory, &source)
}

#[test]
fn objects_count_once_over_faults_redelivery_and_kills() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::create(BUCKET);
    let objects = objects(directory.path(), OBJECTS);
    let put = |object: &Object| bucket.put(&object.key, object.bytes.clone());
    let metas = objects.iter().map(put).collect();
    let files: Vec<&Path> = objects.iter().map(|object| object.file.as_path()).collect();
    let shelf = Shelf { metas, expected: figures(&summary(&files)) };
    over_seeds("objects", &seeds(2), AT_A_TIME, &[], |seed| check(seed, &shelf));
}
