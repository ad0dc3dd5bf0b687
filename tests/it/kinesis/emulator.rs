//! Kinesis streams on real servers, as their producers and their owner see them.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use flowgauge::source::kinesis::{KinesisSettings, StreamAddress};

pub(crate) use crate::servers::{Emulator, access, wait_for};

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

    /// The stream's ARN.
    pub(crate) fn arn(&self) -> String {
        let describe = self.client.describe_stream_summary().stream_name(&self.name);
        let summary = self.runtime.block_on(describe.send()).unwrap();
        summary.stream_description_summary.unwrap().stream_arn
    }

    /// Takes a consumer off the stream, unless a run has done so itself.
    pub(crate) fn deregister(&self, consumer: &str) {
        let call = self.client.deregister_stream_consumer().stream_arn(self.arn());
        // There is none of this name, or it goes.
        let _gone = self.runtime.block_on(call.consumer_name(consumer).send()).is_ok();
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
