//! A bucket, and a queue that it tells of its objects, in an emulator.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge::aws::s3::{Retries, bucket};
use flowgauge::clock::SystemClock;
use object_store::aws::AmazonS3;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use serde_json::{Value, json};

use crate::program::{dataset, run};
use crate::servers::{Emulator, Sdk, wait_for};

/// A bucket of the shared emulator.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) emulator: &'static Emulator,
    sdk: Sdk,
    store: AmazonS3,
}

impl Bucket {
    pub(crate) fn create(name: &str) -> Self {
        let emulator = Emulator::shared_ministack();
        let sdk = Sdk::new(&emulator.endpoint);
        put(emulator, &format!("/{name}"), "");
        let clock = Arc::new(SystemClock::new());
        let store = bucket(&sdk.config, name, Retries::ByStore, clock).unwrap();
        Self { name: name.to_owned(), emulator, sdk, store }
    }

    pub(crate) fn put(&self, key: &str, bytes: Vec<u8>) -> ObjectMeta {
        let key = Key::parse(key).unwrap();
        self.sdk.runtime.block_on(async {
            self.store.put(&key, bytes.into()).await.unwrap();
            self.store.head(&key).await.unwrap()
        })
    }

    pub(crate) fn remove(&self, key: &str) {
        let key = Key::parse(key).unwrap();
        self.sdk.runtime.block_on(self.store.delete(&key)).unwrap();
    }

    pub(crate) fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }
}

/// A queue with a dead-letter queue behind it.
pub(crate) struct Queue {
    pub(crate) url: String,
    dead: String,
    sdk: Sdk,
    client: Client,
}

impl Queue {
    /// A queue that gives a message up after two deliveries.
    pub(crate) fn create(name: &str) -> Self {
        let sdk = Sdk::new(&Emulator::shared_ministack().endpoint);
        let client = Client::new(&sdk.config);
        let (url, dead) = sdk.runtime.block_on(async {
            let dead = client.create_queue().queue_name(format!("{name}-dead")).send().await.unwrap();
            let policy = json!({"deadLetterTargetArn": arn(&format!("{name}-dead")), "maxReceiveCount": "2"});
            let queue = client.create_queue().queue_name(name);
            let queue = queue.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
            (queue.send().await.unwrap().queue_url.unwrap(), dead.queue_url.unwrap())
        });
        Self { url, dead, sdk, client }
    }

    /// Has the bucket tell of each new object from now on.
    pub(crate) fn watch(&self, bucket: &Bucket) {
        let configuration = format!(
            "<NotificationConfiguration><QueueConfiguration><Id>all</Id><Queue>{}</Queue>\
             <Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>",
            arn(self.url.rsplit('/').next().unwrap())
        );
        put(bucket.emulator, &format!("/{}?notification", bucket.name), &configuration);
    }

    pub(crate) fn send(&self, body: &str) {
        let message = self.client.send_message().queue_url(&self.url).message_body(body);
        self.sdk.runtime.block_on(message.send()).unwrap();
    }

    /// Messages in the queue, visible and not.
    pub(crate) fn message_count(&self) -> u64 {
        self.count(&self.url)
    }

    /// Messages that the queue gave up.
    pub(crate) fn dead_count(&self) -> u64 {
        self.count(&self.dead)
    }

    pub(crate) fn wait_until_empty(&self) {
        wait_for("an empty queue", || (self.message_count() == 0).then_some(()));
    }

    fn count(&self, url: &str) -> u64 {
        use QueueAttributeName::{
            ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible,
        };
        let call = self.client.get_queue_attributes().queue_url(url);
        let call = call.attribute_names(QueueAttributeName::All);
        let attributes = self.sdk.runtime.block_on(call.send()).unwrap().attributes.unwrap();
        [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible]
            .iter()
            .map(|name| attributes[name].parse::<u64>().unwrap())
            .sum()
    }
}

fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:us-east-1:000000000000:{queue}")
}

/// A request that object stores have no call for.
fn put(emulator: &Emulator, path: &str, body: &str) {
    let mut connection = TcpStream::connect(emulator.address()).unwrap();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        emulator.address(),
        body.len()
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What EventBridge says of an object.
pub(crate) fn eventbridge(bucket: &str, meta: &ObjectMeta) -> Value {
    json!({"version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3",
           "account": "000000000000", "region": "us-east-1",
           "detail": {"version": "0", "bucket": {"name": bucket},
                      "object": {"key": meta.location.as_ref(), "size": meta.size,
                                 "etag": etag(meta), "sequencer": "00"}, "reason": "PutObject"}})
}

/// What S3 itself says of objects, their keys as it encodes them.
pub(crate) fn event(bucket: &str, metas: &[&ObjectMeta]) -> Value {
    let record = |meta: &&ObjectMeta| {
        let mut key = String::new();
        for byte in meta.location.as_ref().bytes() {
            match byte {
                b' ' => key.push('+'),
                b'/' | b'-' | b'_' | b'.' => key.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => key.push(char::from(byte)),
                byte => write!(key, "%{byte:02X}").unwrap(),
            }
        }
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
               "s3": {"bucket": {"name": bucket},
                      "object": {"key": key, "size": meta.size, "eTag": etag(meta)}}})
    };
    json!({"Records": metas.iter().map(record).collect::<Vec<_>>()})
}

fn etag(meta: &ObjectMeta) -> String {
    meta.e_tag.as_ref().unwrap().trim_matches('"').to_owned()
}

/// An object of a test: its key, its bytes, and the same bytes in a file.
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) file: PathBuf,
}

/// Records in each of them.
pub(crate) const RECORDS_PER_OBJECT: u64 = 1_000;

/// Objects as flow logs deliver them, in both layouts by turns: gzip, plain text and Parquet.
pub(crate) fn objects(directory: &Path, count: u64) -> Vec<Object> {
    (0..count).map(|number| object(directory, number)).collect()
}

/// One object of records that no other has.
pub(crate) fn object(directory: &Path, number: u64) -> Object {
    let day = format!("{:02}", 1 + number / 288);
    let name = format!(
        "000000000000_vpcflowlogs_us-east-1_fl-0a_202601{day}T{:02}{:02}Z_{number:08x}",
        number / 12 % 24,
        number % 12 * 5
    );
    let folders = if number.is_multiple_of(2) {
        format!("AWSLogs/000000000000/vpcflowlogs/us-east-1/2026/01/{day}")
    } else {
        format!(
            "AWSLogs/aws-account-id=000000000000/aws-service=vpcflowlogs/aws-region=us-east-1/year=2026/month=01/day={day}"
        )
    };
    let (ending, bytes) = match number % 8 {
        3 => ("log", text(directory, number)),
        5 => ("log.parquet", parquet(&text(directory, number))),
        _ => ("log.gz", gzip(&text(directory, number))),
    };
    let file = directory.join(format!("{name}.{ending}"));
    std::fs::write(&file, &bytes).unwrap();
    Object { key: format!("{folders}/{name}.{ending}"), bytes, file }
}

/// Lines of flow logs that no other number has.
fn text(directory: &Path, number: u64) -> Vec<u8> {
    generated(directory, number, RECORDS_PER_OBJECT)
}

pub(crate) fn generated(directory: &Path, number: u64, records: u64) -> Vec<u8> {
    let path = directory.join("text");
    let (seed, start) = (number.to_string(), (1_767_225_600 + number * 300).to_string());
    let records = records.to_string();
    let target = path.to_str().unwrap();
    let output = run(&[
        "generate",
        "--records",
        &records,
        "--rate",
        "4",
        "--header",
        "--attacks",
        "port_scan=1",
        "--seed",
        &seed,
        "--start",
        &start,
        "-o",
        target,
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(&path).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_at(bytes, Compression::default())
}

pub(crate) fn gzip_at(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), compression);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parquet(text: &[u8]) -> Vec<u8> {
    parquet_of(text, 300)
}

/// The same records as columns, in groups of so many rows.
pub(crate) fn parquet_of(text: &[u8], group_rows: usize) -> Vec<u8> {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    let text = std::str::from_utf8(text).unwrap();
    let (header, lines) = text.split_once('\n').unwrap();
    let columns = header.split(' ').enumerate().map(|(index, name)| {
        let values = lines.lines().map(|line| line.split(' ').nth(index));
        let array: ArrayRef = Arc::new(values.collect::<StringArray>());
        (name.replace('-', "_"), array)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// The project's own sample of Parquet.
pub(crate) fn sample_parquet() -> Vec<u8> {
    std::fs::read(dataset("v2.parquet")).unwrap()
}
