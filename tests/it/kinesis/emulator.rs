//! Real servers that speak Kinesis, started from `.testenv` on a free loopback port.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Credentials;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use flowgauge::aws::AwsAccess;
use flowgauge::clock::{Clock, SystemClock};
use flowgauge::source::kinesis::{KinesisSettings, StreamAddress};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// Time between two looks at a condition that nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    while clock.monotonic() < DEADLINE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    panic!("{what} did not happen within {DEADLINE:?}");
}

/// A server process; ended when dropped.
pub(crate) struct Emulator {
    child: Child,
    pub(crate) endpoint: String,
    _log: tempfile::TempDir,
}

impl Emulator {
    /// ministack: fast, without resharding.
    pub(crate) fn ministack() -> Self {
        Self::start("ministack", |port| {
            let mut command = Command::new(test_environment("python/bin/ministack"));
            command.env("GATEWAY_PORT", port.to_string()).env("BIND_HOST", "127.0.0.1");
            command
        })
    }

    /// kinesis-local: slow, with resharding as the service does it.
    pub(crate) fn kinesis_local() -> Self {
        Self::start("kinesis-local", |port| {
            let package = test_environment("node/node_modules/kinesis-local");
            let mut command = Command::new("node");
            command
                .arg(package.join("main.js"))
                .env("KINESIS_MOCK_CERT_PATH", package.join("server.json"))
                .env("KINESIS_MOCK_PLAIN_PORT", port.to_string())
                .env("KINESIS_MOCK_TLS_PORT", free_port().to_string())
                .env("CREATE_STREAM_DURATION", "50ms")
                .env("SPLIT_SHARD_DURATION", "50ms")
                .env("MERGE_SHARDS_DURATION", "50ms")
                .env("LOG_LEVEL", "WARN");
            command
        })
    }

    fn start(name: &str, command: impl Fn(u16) -> Command) -> Self {
        let log = tempfile::tempdir().unwrap();
        let port = free_port();
        let output = File::create(log.path().join("log")).unwrap();
        let mut child = command(port)
            .current_dir(log.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}; run scripts/setup"));
        wait_for(&format!("a connection to {name}"), || {
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(log.path().join("log")).unwrap();
                panic!("{name} ended with {status}: {said}");
            }
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()
        });
        Self { child, endpoint: format!("http://127.0.0.1:{port}"), _log: log }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn test_environment(part: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".testenv").join(part);
    assert!(path.exists(), "{} is missing; run scripts/setup", path.display());
    path
}

/// Access to a server on loopback, which takes any credentials.
pub(crate) fn access(endpoint: &str) -> AwsAccess {
    AwsAccess {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        profile: None,
        credentials: Some(Credentials::new("test", "test", None, None, "test")),
    }
}

/// Default settings for a stream on such a server, at the highest rate.
pub(crate) fn settings(endpoint: &str, stream: &str) -> KinesisSettings {
    KinesisSettings {
        access: access(endpoint),
        poll_interval: flowgauge::source::kinesis::POLL_INTERVAL_MIN,
        ..KinesisSettings::of(StreamAddress::Name(stream.into()))
    }
}

/// A stream as its producers and its owner see it.
pub(crate) struct Stream {
    name: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Stream {
    /// Makes a stream and waits until it can be used.
    pub(crate) fn create(emulator: &Emulator, name: &str, shards: i32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = runtime.block_on(access(&emulator.endpoint).load()).unwrap();
        let stream = Self { name: name.into(), client: Client::new(&config), runtime };
        let create = stream.client.create_stream().stream_name(name).shard_count(shards);
        stream.runtime.block_on(create.send()).unwrap();
        stream.wait_until_active();
        stream
    }

    /// Puts records, each with the hash key that decides on its shard.
    pub(crate) fn put(&self, records: &[(u128, Vec<u8>)]) {
        for call in records.chunks(500) {
            let entries = call.iter().map(|(hash_key, data)| {
                PutRecordsRequestEntry::builder()
                    .partition_key("key")
                    .explicit_hash_key(hash_key.to_string())
                    .data(Blob::new(data.clone()))
                    .build()
                    .unwrap()
            });
            let put = self.client.put_records().stream_name(&self.name);
            let answer = self.runtime.block_on(put.set_records(Some(entries.collect())).send());
            assert_eq!(answer.unwrap().failed_record_count.unwrap_or(0), 0);
        }
    }

    /// The names of the consumers that are registered.
    pub(crate) fn consumers(&self) -> Vec<String> {
        let describe = self.client.describe_stream_summary().stream_name(&self.name);
        let summary = self.runtime.block_on(describe.send()).unwrap();
        let arn = summary.stream_description_summary.unwrap().stream_arn;
        let list = self.client.list_stream_consumers().stream_arn(arn);
        let listed = self.runtime.block_on(list.send()).unwrap();
        let names = listed.consumers.unwrap_or_default().into_iter();
        names.map(|consumer| consumer.consumer_name).collect()
    }

    /// Splits a shard in two at a hash key.
    pub(crate) fn split(&self, shard: &str, at: u128) {
        let split = self.client.split_shard().stream_name(&self.name);
        let split = split.shard_to_split(shard).new_starting_hash_key(at.to_string());
        self.runtime.block_on(split.send()).unwrap();
        self.wait_until_active();
    }

    /// Merges two neighbours.
    pub(crate) fn merge(&self, left: &str, right: &str) {
        let merge = self.client.merge_shards().stream_name(&self.name);
        let merge = merge.shard_to_merge(left).adjacent_shard_to_merge(right);
        self.runtime.block_on(merge.send()).unwrap();
        self.wait_until_active();
    }

    fn wait_until_active(&self) {
        wait_for("an active stream", || {
            let describe = self.client.describe_stream_summary().stream_name(&self.name);
            let summary = self.runtime.block_on(describe.send()).ok()?;
            let status = summary.stream_description_summary?.stream_status;
            (status == StreamStatus::Active).then_some(())
        });
    }
}
