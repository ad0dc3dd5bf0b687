//! Writing records to an Amazon Kinesis data stream: PutRecords in calls of full size.
//!
//! For a plain thread that has records and wants them in the stream; each call waits until Kinesis
//! has taken all of them. A record that is refused for the moment is put again, behind others, so the
//! order within a shard is not that of the call; a call whose answer is lost is made again, so a
//! record may be there twice.

use std::collections::VecDeque;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::runtime::Runtime;

use crate::aws::{AwsAccess, AwsAccessError};
use crate::causes::with_causes;

/// Most records in one PutRecords call.
const CALL_RECORDS_MAX: usize = 500;
/// Most payload and partition keys in one PutRecords call.
const CALL_BYTES_MAX: usize = 5 << 20;
/// Calls in a row that may bring nothing forward before the writer gives up: about a minute.
const FRUITLESS_CALLS_MAX: u32 = 12;
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Which stream to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamTarget {
    /// The stream's name.
    pub stream: String,
    /// Its region; the standard chain's if absent.
    pub region: Option<String>,
    /// A URL in place of the region's endpoint.
    pub endpoint: Option<String>,
}

/// Why records could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StreamWriteError {
    /// No thread or socket to be had.
    #[error("cannot start the writer for stream `{stream}`")]
    Runtime {
        /// The stream.
        stream: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// No region or no credentials.
    #[error("cannot write to stream `{stream}`")]
    Access {
        /// The stream.
        stream: String,
        /// What is missing.
        #[source]
        source: AwsAccessError,
    },
    /// Kinesis refused for good.
    #[error("stream `{stream}` refused records: {message}; {advice}")]
    Refused {
        /// The stream.
        stream: String,
        /// What it said.
        message: String,
        /// What to do.
        advice: &'static str,
    },
    /// Kinesis took nothing for too long.
    #[error(
        "stream `{stream}` took no record in {calls} calls, {records_left} are not written: {message}; add shards or write more slowly"
    )]
    Stalled {
        /// The stream.
        stream: String,
        /// Calls in a row without any success.
        calls: u32,
        /// Records that are not in the stream.
        records_left: usize,
        /// What it said last.
        message: String,
    },
}

/// Writes records to one stream, from one thread.
#[derive(Debug)]
pub struct StreamWriter {
    stream: String,
    client: Client,
    runtime: Runtime,
}

impl StreamWriter {
    /// A writer with credentials from the standard chain. Whether the stream exists shows at the first
    /// [`put`](Self::put).
    ///
    /// # Errors
    /// If there is no region or there are no credentials.
    pub fn connect(target: &StreamTarget) -> Result<Self, StreamWriteError> {
        let access = AwsAccess {
            region: target.region.clone(),
            endpoint: target.endpoint.clone(),
            ..AwsAccess::default()
        };
        Self::with_access(target.stream.clone(), &access)
    }

    /// A writer that reaches AWS as `access` says.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn with_access(stream: String, access: &AwsAccess) -> Result<Self, StreamWriteError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("kinesis-write")
            .enable_all()
            .build()
            .map_err(|source| StreamWriteError::Runtime { stream: stream.clone(), source })?;
        let config = runtime
            .block_on(access.load())
            .map_err(|source| StreamWriteError::Access { stream: stream.clone(), source })?;
        // Refused records come back inside of good answers, which the SDK would not repeat; so all
        // repeating is done here, with one limit.
        let config = aws_sdk_kinesis::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Self { stream, client: Client::from_conf(config), runtime })
    }

    /// Puts records, each with its partition key, and returns when the stream holds them all.
    ///
    /// # Errors
    /// If the stream refuses for good, or takes nothing for about a minute.
    pub fn put(&mut self, records: Vec<(String, Vec<u8>)>) -> Result<(), StreamWriteError> {
        let mut waiting: VecDeque<Entry> = records
            .into_iter()
            .map(|(partition_key, data)| Entry { partition_key, data: Blob::new(data) })
            .collect();
        let mut fruitless_calls = 0;
        while !waiting.is_empty() {
            let call: Vec<Entry> = waiting.drain(..call_length(&waiting)).collect();
            let sent = call.len();
            let outcome = self.runtime.block_on(self.put_call(call))?;
            if outcome.refused.is_empty() {
                fruitless_calls = 0;
                continue;
            }
            fruitless_calls = if outcome.refused.len() < sent { 0 } else { fruitless_calls + 1 };
            // Behind the rest, which may belong to shards that have room.
            waiting.extend(outcome.refused);
            if fruitless_calls >= FRUITLESS_CALLS_MAX {
                return Err(StreamWriteError::Stalled {
                    stream: self.stream.clone(),
                    calls: fruitless_calls,
                    records_left: waiting.len(),
                    message: outcome.last_message,
                });
            }
            let delay = DELAY_FIRST.saturating_mul(1 << fruitless_calls).min(DELAY_MAX);
            self.runtime.block_on(tokio::time::sleep(delay));
        }
        Ok(())
    }

    async fn put_call(&self, entries: Vec<Entry>) -> Result<CallOutcome, StreamWriteError> {
        let request = entries.iter().map(Entry::request).collect();
        let answer = self
            .client
            .put_records()
            .stream_name(&self.stream)
            .set_records(Some(request))
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let results = answer.records;
                if results.len() != entries.len() {
                    return Err(self.refused(
                        format!("{} results for {} records", results.len(), entries.len()),
                        "the endpoint does not speak PutRecords correctly",
                    ));
                }
                let mut outcome = CallOutcome::default();
                for (entry, result) in entries.into_iter().zip(results) {
                    if let Some(code) = result.error_code {
                        let message = result.error_message.unwrap_or_default();
                        outcome.last_message = format!("{code}: {message}");
                        outcome.refused.push(entry);
                    }
                }
                Ok(outcome)
            }
            Err(error) => {
                let message = match (error.code(), error.message()) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (Some(code), None) => code.to_owned(),
                    (None, _) => with_causes(&error),
                };
                match error.code().and_then(advice_if_final) {
                    Some(advice) => Err(self.refused(message, advice)),
                    None => Ok(CallOutcome { refused: entries, last_message: message }),
                }
            }
        }
    }

    fn refused(&self, message: String, advice: &'static str) -> StreamWriteError {
        StreamWriteError::Refused { stream: self.stream.clone(), message, advice }
    }
}

/// A record on its way; a request carries a copy, because the service may refuse it.
#[derive(Debug)]
struct Entry {
    partition_key: String,
    data: Blob,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.partition_key.len() + self.data.as_ref().len()
    }

    fn request(&self) -> PutRecordsRequestEntry {
        PutRecordsRequestEntry::builder()
            .partition_key(&self.partition_key)
            .data(self.data.clone())
            .build()
            .expect("key and data are set")
    }
}

#[derive(Default)]
struct CallOutcome {
    refused: Vec<Entry>,
    last_message: String,
}

/// How many of the first records fit into one call; at least one, so that a record beyond the limit
/// is refused by the service, which knows the stream's own limit.
fn call_length(entries: &VecDeque<Entry>) -> usize {
    let mut bytes = 0;
    let fitting = entries
        .iter()
        .take(CALL_RECORDS_MAX)
        .take_while(|entry| {
            bytes += entry.bytes();
            bytes <= CALL_BYTES_MAX
        })
        .count();
    fitting.max(1)
}

/// What to do about a refusal that no repeat can change.
fn advice_if_final(code: &str) -> Option<&'static str> {
    match code {
        "ResourceNotFoundException" => Some("create the stream, or check its name and region"),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException" => {
            Some("check the credentials, and allow `kinesis:PutRecords` on the stream")
        }
        "InvalidArgumentException" | "ValidationException" | "SerializationException" => {
            Some("make the records smaller than the stream's record limit")
        }
        code if code.starts_with("KMS") && code != "KMSThrottlingException" => {
            Some("check the stream's encryption key and the permission to use it")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(sizes: &[usize]) -> VecDeque<Entry> {
        sizes
            .iter()
            .map(|size| Entry { partition_key: "key".into(), data: Blob::new(vec![0; *size]) })
            .collect()
    }

    fn check(sizes: &[usize], expected: usize) {
        assert_eq!(call_length(&entries(sizes)), expected);
    }

    #[test]
    fn a_call_is_full_by_records_or_by_bytes() {
        check(&[10; 3], 3);
        check(&[10; 501], 500);
        check(&[2 << 20; 3], 2);
        check(&[6 << 20, 10], 1);
    }

    #[test]
    fn only_what_no_repeat_changes_is_final() {
        assert!(advice_if_final("ResourceNotFoundException").is_some());
        assert!(advice_if_final("KMSDisabledException").is_some());
        assert!(advice_if_final("KMSThrottlingException").is_none());
        assert!(advice_if_final("ProvisionedThroughputExceededException").is_none());
        assert!(advice_if_final("InternalFailure").is_none());
    }

    proptest! {
        #[test]
        fn calls_stay_within_their_limits(sizes in prop::collection::vec(0_usize..2_000_000, 1..20)) {
            let entries = entries(&sizes);
            let length = call_length(&entries);
            prop_assert!((1..=entries.len()).contains(&length));
            let bytes: usize = entries.range(..length).map(Entry::bytes).sum();
            prop_assert!(length == 1 || bytes <= CALL_BYTES_MAX);
            if let Some(next) = entries.get(length) {
                prop_assert!(bytes + next.bytes() > CALL_BYTES_MAX);
            }
        }
    }
}
