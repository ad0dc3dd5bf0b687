//! Records that the Kinesis Producer Library packed into one: `F3 89 9A C2`, a protobuf message, and the
//! message's MD5.
//!
//! The Kinesis Client Library takes bytes that miss any of this for an ordinary record. Bytes with
//! that magic are never flow log text, so here they are a fault of that record instead of noise
//! split into lines.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

use super::sniff::KPL_MAGIC;

const DIGEST_BYTES: usize = 16;

// Declared with optional members throughout: prost fills in defaults for missing required ones, but in
// proto2 a message without them is not one. Keys are bytes because proto2 does not check UTF-8.
#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    partition_key_table: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    explicit_hash_key_table: Vec<Bytes>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<PackedRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedRecord {
    #[prost(uint64, optional, tag = "1")]
    partition_key_index: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
struct Tag {
    #[prost(bytes = "bytes", optional, tag = "1")]
    key: Option<Bytes>,
}

/// What an aggregate is for the shard that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// Its records, in order; they share the outer sequence number.
    Records(Vec<Bytes>),
    /// At least one of its records hashes outside the shard. The client library then drops the whole
    /// aggregate, because after a reshard the shard that owns it delivers it as well.
    Elsewhere,
}

/// Unpacks an aggregate that begins with the magic.
///
/// # Errors
/// What is wrong with it.
pub(super) fn unpack(
    data: &Bytes,
    hash_key_range: Option<(u128, u128)>,
) -> Result<Aggregate, &'static str> {
    debug_assert!(data.starts_with(&KPL_MAGIC));
    let body = data.slice(KPL_MAGIC.len()..);
    if body.len() <= DIGEST_BYTES {
        return Err("it is shorter than its digest");
    }
    let (message, digest) =
        (body.slice(..body.len() - DIGEST_BYTES), body.slice(body.len() - DIGEST_BYTES..));
    if Md5::digest(&message)[..] != digest[..] {
        return Err("its digest is wrong");
    }
    let aggregate =
        AggregatedRecord::decode(message).map_err(|_| "its protobuf structure is wrong")?;
    let mut records = Vec::with_capacity(aggregate.records.len());
    for packed in &aggregate.records {
        let key = key_of(packed, &aggregate)?;
        if hash_key_range.is_some_and(|(low, high)| !(low..=high).contains(&key.hash())) {
            return Ok(Aggregate::Elsewhere);
        }
        if packed.tags.iter().any(|tag| tag.key.is_none()) {
            return Err("a tag has no key");
        }
        records.push(packed.data.clone().ok_or("a record has no data")?);
    }
    Ok(Aggregate::Records(records))
}

/// What says to which shard a record belongs.
enum Key<'a> {
    Explicit(u128),
    Partition(&'a Bytes),
}

impl Key<'_> {
    /// The explicit hash key, else the MD5 of the partition key, as Kinesis maps records to shards.
    fn hash(&self) -> u128 {
        match self {
            Self::Explicit(hash_key) => *hash_key,
            Self::Partition(key) => u128::from_be_bytes(Md5::digest(key).into()),
        }
    }
}

fn key_of<'a>(
    packed: &PackedRecord,
    aggregate: &'a AggregatedRecord,
) -> Result<Key<'a>, &'static str> {
    let index = packed.partition_key_index.ok_or("a record has no partition key")?;
    let partition_key = entry(&aggregate.partition_key_table, index)?;
    match packed.explicit_hash_key_index {
        None => Ok(Key::Partition(partition_key)),
        Some(index) => std::str::from_utf8(entry(&aggregate.explicit_hash_key_table, index)?)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .map(Key::Explicit)
            .ok_or("an explicit hash key is not a number of 128 bits"),
    }
}

fn entry(table: &[Bytes], index: u64) -> Result<&Bytes, &'static str> {
    usize::try_from(index)
        .ok()
        .and_then(|index| table.get(index))
        .ok_or("a key index points outside its table")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(index: u64, data: &str) -> PackedRecord {
        PackedRecord {
            partition_key_index: Some(index),
            data: Some(Bytes::copy_from_slice(data.as_bytes())),
            ..PackedRecord::default()
        }
    }

    fn aggregate(records: Vec<PackedRecord>) -> AggregatedRecord {
        AggregatedRecord {
            partition_key_table: vec![Bytes::from_static(b"a")],
            explicit_hash_key_table: vec![Bytes::from_static(b"7"), Bytes::from_static(b"x")],
            records,
        }
    }

    fn encoded(message: &AggregatedRecord) -> Vec<u8> {
        let body = message.encode_to_vec();
        [&KPL_MAGIC[..], &body, &Md5::digest(&body)].concat()
    }

    type Expected<'a> = Result<Option<&'a [&'a str]>, &'static str>;

    fn check(data: Vec<u8>, range: Option<(u128, u128)>, expected: Expected<'_>) {
        let got = unpack(&Bytes::from(data), range).map(|aggregate| match aggregate {
            Aggregate::Elsewhere => None,
            Aggregate::Records(records) => Some(records),
        });
        let expected = expected.map(|records| {
            records.map(|texts| {
                texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
            })
        });
        assert_eq!(got, expected);
    }

    #[test]
    fn records_come_out_in_order() {
        let data = encoded(&aggregate(vec![packed(0, "one"), packed(0, "two")]));
        check(data, None, Ok(Some(&["one", "two"])));
        check(
            encoded(&AggregatedRecord {
                partition_key_table: vec![Bytes::new()],
                ..Default::default()
            }),
            None,
            Ok(Some(&[])),
        );
    }

    #[test]
    fn damage_is_named() {
        let whole = encoded(&aggregate(vec![packed(0, "one")]));
        check(whole[..4].to_vec(), None, Err("it is shorter than its digest"));
        check(whole[..20].to_vec(), None, Err("it is shorter than its digest"));
        check(whole[..whole.len() - 1].to_vec(), None, Err("its digest is wrong"));
        let body = b"\x1a\xff";
        let garbage = [&KPL_MAGIC[..], body, &Md5::digest(body)].concat();
        check(garbage, None, Err("its protobuf structure is wrong"));
    }

    #[test]
    fn proto2_and_the_tables_are_checked() {
        let case = |record: PackedRecord, reason| {
            check(encoded(&aggregate(vec![record])), None, Err(reason));
        };
        case(packed(1, "x"), "a key index points outside its table");
        case(packed(u64::MAX, "x"), "a key index points outside its table");
        case(PackedRecord { data: None, ..packed(0, "") }, "a record has no data");
        case(
            PackedRecord { partition_key_index: None, ..packed(0, "x") },
            "a record has no partition key",
        );
        case(
            PackedRecord { explicit_hash_key_index: Some(1), ..packed(0, "x") },
            "an explicit hash key is not a number of 128 bits",
        );
        case(PackedRecord { tags: vec![Tag { key: None }], ..packed(0, "x") }, "a tag has no key");
    }

    #[test]
    fn an_aggregate_of_another_shard_is_left_to_it() {
        let by_key = encoded(&aggregate(vec![packed(0, "one")]));
        // MD5 of `a` is 0cc175b9….
        let hash = 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661_u128;
        check(by_key.clone(), Some((hash, hash)), Ok(Some(&["one"])));
        check(by_key.clone(), Some((0, hash - 1)), Ok(None));
        check(by_key, Some((hash + 1, u128::MAX)), Ok(None));
        let explicit = PackedRecord { explicit_hash_key_index: Some(0), ..packed(0, "two") };
        let mixed = encoded(&aggregate(vec![packed(0, "one"), explicit]));
        check(mixed.clone(), Some((7, hash)), Ok(Some(&["one", "two"])));
        check(mixed, Some((8, hash)), Ok(None));
    }
}
