//! Which shards a stream has: ListShards, page by page.

use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{HashKeyRange, Shard as ListedShard};

use tokio::time::sleep;

use super::lineage::Shard;
use super::reader::SIGNATURE_TRIES_MAX;
use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::settings::StreamAddress;
use super::shared::Shared;
use crate::source::StopFlag;

/// Shards per page: the most that Kinesis gives.
const PAGE_SHARDS: i32 = 10_000;
/// Tries of the first listing: about half a minute, in which a stream may finish being created.
const FIRST_LISTING_TRIES_MAX: u32 = 10;

/// The listing with which a source begins, tried for a while; `None` if a stop was requested meanwhile.
///
/// # Errors
/// What to tell, if the stream can't be listed.
pub(super) async fn first_listing(
    shared: &Shared,
    stop: &StopFlag,
) -> Result<Option<Vec<Shard>>, String> {
    let stream = &shared.settings.stream;
    let mut backoff = Backoff::default();
    loop {
        let listing = list_shards(shared.clients.polling(), stream);
        let Some(listed) = stop.unless_requested(listing).await else { return Ok(None) };
        let failure = match listed {
            Ok(shards) => return Ok(Some(shards)),
            Err(failure) => failure,
        };
        let delay = backoff.delay(failure.kind, jitter());
        let tries = backoff.failures_in_a_row();
        let may_pass = failure.kind == FailureKind::Signature && tries < SIGNATURE_TRIES_MAX;
        if let Some(refusal) = refusal(stream, &failure).filter(|_| !may_pass) {
            return Err(refusal);
        }
        if tries >= FIRST_LISTING_TRIES_MAX {
            return Err(format!(
                "cannot list the shards of stream `{}` after {tries} tries: {}; check the network, `region` and `endpoint`",
                stream.stream_name(),
                failure.message
            ));
        }
        tracing::warn!(
            source = &*shared.source_name,
            tries,
            error = failure.message,
            "cannot list the stream's shards yet"
        );
        if stop.unless_requested(sleep(delay)).await.is_none() {
            return Ok(None);
        }
    }
}

/// What to tell if a failed listing shows that the source is useless.
pub(super) fn refusal(stream: &StreamAddress, failure: &Failure) -> Option<String> {
    let name = stream.stream_name();
    match failure.kind {
        FailureKind::NotFound => Some(format!(
            "there is no stream `{name}` ({}); check `stream`, `region` and the account of the credentials",
            failure.message
        )),
        FailureKind::Denied | FailureKind::Signature => Some(format!(
            "no access to stream `{name}` ({}); check the credentials, and allow `kinesis:ListShards`, `kinesis:GetShardIterator` and `kinesis:GetRecords` on it",
            failure.message
        )),
        FailureKind::Argument => Some(format!(
            "stream `{name}` was refused ({}); check `stream` or `stream_arn`",
            failure.message
        )),
        _ => None,
    }
}

/// Every shard of the stream, open ones and those that still hold records.
pub(super) async fn list_shards(
    client: &Client,
    stream: &StreamAddress,
) -> Result<Vec<Shard>, Failure> {
    let mut shards = Vec::new();
    let mut next_token: Option<String> = None;
    loop {
        // A token stands for the stream and the page size as well; beside them it is refused.
        let request = match &next_token {
            Some(token) => client.list_shards().next_token(token),
            None => client
                .list_shards()
                .set_stream_name(stream.request_name())
                .set_stream_arn(stream.request_arn())
                .max_results(PAGE_SHARDS),
        };
        match request.send().await.map_err(Failure::from) {
            Ok(page) => {
                shards.extend(page.shards.unwrap_or_default().into_iter().map(listed));
                next_token = page.next_token;
            }
            Err(failure) if failure.kind == FailureKind::PageExpired => {
                shards.clear();
                next_token = None;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        if next_token.is_none() {
            return Ok(shards);
        }
    }
}

fn listed(shard: ListedShard) -> Shard {
    Shard {
        id: shard.shard_id.into(),
        parents: [shard.parent_shard_id, shard.adjacent_parent_shard_id]
            .into_iter()
            .flatten()
            .map(Arc::from)
            .collect(),
        hash_key_range: shard.hash_key_range.as_ref().and_then(hash_keys),
        closed: shard
            .sequence_number_range
            .is_some_and(|range| range.ending_sequence_number.is_some()),
    }
}

/// A range that is not two 128-bit numbers counts as unknown: only KPL aggregates look at it, and
/// they are then taken whole.
fn hash_keys(range: &HashKeyRange) -> Option<(u128, u128)> {
    hash_keys_of(&range.starting_hash_key, &range.ending_hash_key)
}

/// Both ends of a range as the service writes them.
pub(super) fn hash_keys_of(starting: &str, ending: &str) -> Option<(u128, u128)> {
    Some((starting.parse().ok()?, ending.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::types::SequenceNumberRange;

    use super::*;

    #[test]
    fn a_listed_shard_keeps_parents_range_and_end() {
        let listing = ListedShard::builder()
            .shard_id("shardId-000000000002")
            .parent_shard_id("shardId-000000000000")
            .adjacent_parent_shard_id("shardId-000000000001")
            .hash_key_range(
                HashKeyRange::builder()
                    .starting_hash_key("0")
                    .ending_hash_key(u128::MAX.to_string())
                    .build()
                    .unwrap(),
            )
            .sequence_number_range(
                SequenceNumberRange::builder()
                    .starting_sequence_number("1")
                    .ending_sequence_number("2")
                    .build()
                    .unwrap(),
            )
            .build()
            .unwrap();
        let expected = Shard {
            id: "shardId-000000000002".into(),
            parents: vec!["shardId-000000000000".into(), "shardId-000000000001".into()],
            hash_key_range: Some((0, u128::MAX)),
            closed: true,
        };
        assert_eq!(listed(listing), expected);
    }
}
