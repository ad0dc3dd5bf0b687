//! An answer to GetRecords, and the payload of an event: the body taken from the SDK unread, and read here.
//!
//! The SDK signs, sends, and reads what went wrong. Its reader of JSON takes most of a core for 100 MB a
//! second; here strings are found by vector search and base64 is decoded by vectors, about a mebibyte of
//! records into one buffer, 1.7 GB a second and core with all that the network costs. Any form of JSON is read, known
//! fields in any order, unknown ones left out.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::operation::get_records::builders::GetRecordsFluentBuilder;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use base64_simd::STANDARD;
use bytes::Bytes;
use memchr::memchr2;
use serde::Deserialize;

use crate::causes::with_causes;
use crate::framing::SourceRecord;

use super::discovery::hash_keys_of;
use super::feed::CHUNK_BYTES_MAX;
use super::lineage::Shard;
use super::polling::CALL_TIME_MAX;
use super::retry::{Failure, FailureKind};

/// Most bytes of a body: four times what an answer of 10 MiB takes as base64 and as JSON.
const BODY_BYTES_MAX: usize = 64 << 20;
/// How deep values may lie in each other, beyond what any answer has.
const DEPTH_MAX: u32 = 32;

/// What one read of a shard brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In order.
    pub(super) records: Vec<SourceRecord>,
    /// Payload bytes of the records.
    pub(super) bytes: u64,
    /// How far the last record is from the tip.
    pub(super) behind_ms: u64,
    /// Where to go on; `None` at the end of the shard.
    pub(super) next_shard_iterator: Option<String>,
    /// Named at the end of a shard.
    pub(super) child_shards: Vec<Shard>,
}

/// Makes the call and reads its answer; aggregates of the records have to lie in `range`.
pub(super) async fn get_records(
    request: GetRecordsFluentBuilder,
    range: Option<(u128, u128)>,
) -> Result<Answer, Failure> {
    let taken = Taken::default();
    let interceptor = taken.interceptor(r#"{"Records":[]}"#);
    request.customize().interceptor(interceptor).send().await?;
    let body = taken.take().ok_or_else(|| passing("an answer without a body".to_owned()))?;
    let read = tokio::time::timeout(CALL_TIME_MAX, read_whole(body)).await;
    let body = read.map_err(|_| passing("an answer took longer than 30 seconds".to_owned()))??;
    let (answer, _) = parse(&body, range).map_err(|fault| fault.of("an answer to GetRecords"))?;
    Ok(answer)
}

/// The payload of an event of a subscription: what an answer has, and after what to go on, `None` at the
/// end of the shard.
pub(super) fn parse_event(
    payload: &[u8],
    range: Option<(u128, u128)>,
) -> Result<(Answer, Option<String>), Failure> {
    parse(payload, range).map_err(|fault| fault.of("an event of a subscription"))
}

/// A failure that makes sense to try again.
pub(super) fn passing(message: String) -> Failure {
    Failure { kind: FailureKind::Transient, message }
}

async fn read_whole(body: SdkBody) -> Result<Vec<u8>, Failure> {
    let expected = body.content_length().and_then(|length| usize::try_from(length).ok());
    let mut whole = Vec::with_capacity(expected.unwrap_or(0).min(BODY_BYTES_MAX));
    let mut stream = ByteStream::new(body);
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| passing(with_causes(&error)))?;
        if whole.len() + part.len() > BODY_BYTES_MAX {
            return Err(passing(format!("an answer of more than {BODY_BYTES_MAX} bytes")));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// The body of a good answer, on its way past the SDK.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<Mutex<Option<SdkBody>>>);

impl Taken {
    /// What takes the body of a good answer, and leaves `instead`.
    pub(super) fn interceptor(&self, instead: &'static str) -> impl Intercept + 'static {
        TakeBody { taken: self.clone(), instead }
    }

    /// The body, if there was a good answer.
    pub(super) fn take(&self) -> Option<SdkBody> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
struct TakeBody {
    taken: Taken,
    instead: &'static str,
}

impl Intercept for TakeBody {
    fn name(&self) -> &'static str {
        "TakeBody"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if response.status().is_success() {
            let body = std::mem::replace(response.body_mut(), SdkBody::from(self.instead));
            *self.taken.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
        Ok(())
    }
}

/// Where a body is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    what: &'static str,
    at: usize,
}

impl Fault {
    fn of(self, document: &str) -> Failure {
        passing(format!("{document} that cannot be read: {} at byte {}", self.what, self.at))
    }
}

/// A record before its payload is decoded.
struct Encoded<'a> {
    data: Cow<'a, [u8]>,
    sequence_number: Arc<str>,
    arrival_ms: i64,
}

/// An answer or an event, and the continuation number of the latter.
fn parse(body: &[u8], range: Option<(u128, u128)>) -> Result<(Answer, Option<String>), Fault> {
    let mut json = Json { bytes: body, at: 0 };
    let mut answer = Answer::default();
    let mut encoded = Vec::new();
    let mut continuation = None;
    json.object(|json, key| {
        match key {
            b"Records" => json.array(|json| {
                encoded.push(record(json)?);
                Ok(())
            })?,
            b"NextShardIterator" => {
                answer.next_shard_iterator = json.optional_text()?.map(str_of).transpose()?;
            }
            b"ContinuationSequenceNumber" => {
                continuation = json.optional_text()?.map(str_of).transpose()?;
            }
            b"MillisBehindLatest" => {
                let behind_ms = json.optional_number()?.unwrap_or_default();
                // Held at the limits of the type.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let behind_ms = behind_ms as u64;
                answer.behind_ms = behind_ms;
            }
            b"ChildShards" => {
                let at = json.at;
                json.skip(DEPTH_MAX)?;
                let children: Option<Vec<Child>> = serde_json::from_slice(&body[at..json.at])
                    .map_err(|_| Fault { what: "child shards of another form", at })?;
                answer.child_shards =
                    children.unwrap_or_default().into_iter().map(Shard::from).collect();
            }
            _ => json.skip(DEPTH_MAX)?,
        }
        Ok(())
    })?;
    json.blanks();
    if json.at < body.len() {
        return Err(json.fault("more than one document"));
    }
    (answer.records, answer.bytes) = decode(encoded, range)?;
    Ok((answer, continuation))
}

fn record<'a>(json: &mut Json<'a>) -> Result<Encoded<'a>, Fault> {
    let mut data = None;
    let mut sequence_number = None;
    let mut arrival_ms = 0;
    json.object(|json, key| {
        match key {
            b"Data" => data = json.optional_text()?,
            b"SequenceNumber" => {
                sequence_number = json.optional_text()?.map(str_of).transpose()?;
            }
            b"ApproximateArrivalTimestamp" => {
                let seconds = json.optional_number()?.unwrap_or_default();
                // A moment beyond what fits does not come from a clock; it ends at the limit.
                #[expect(clippy::cast_possible_truncation)]
                let ms = (seconds * 1000.0).round() as i64;
                arrival_ms = ms;
            }
            _ => json.skip(DEPTH_MAX)?,
        }
        Ok(())
    })?;
    let sequence_number =
        sequence_number.ok_or(json.fault("a record without a sequence number"))?;
    let data = data.ok_or(json.fault("a record without data"))?;
    Ok(Encoded { data, sequence_number: sequence_number.into(), arrival_ms })
}

fn str_of(text: Cow<'_, [u8]>) -> Result<String, Fault> {
    String::from_utf8(text.into_owned())
        .map_err(|_| Fault { what: "text that is not UTF-8", at: 0 })
}

/// Decodes about a mebibyte of records into one buffer, as pieces are cut afterwards.
fn decode(
    encoded: Vec<Encoded<'_>>,
    hash_key_range: Option<(u128, u128)>,
) -> Result<(Vec<SourceRecord>, u64), Fault> {
    let mut records = Vec::with_capacity(encoded.len());
    let mut total = 0;
    let mut rest = encoded.into_iter().peekable();
    while rest.peek().is_some() {
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(next) = rest.next_if(|next| {
            group_bytes == 0 || (group_bytes + next.data.len()) as u64 <= CHUNK_BYTES_MAX
        }) {
            group_bytes += next.data.len();
            group.push(next);
        }
        let mut decoded = Vec::with_capacity(group_bytes / 4 * 3 + 3);
        let mut ends = Vec::with_capacity(group.len());
        for record in &group {
            STANDARD
                .decode_append(&record.data, &mut decoded)
                .map_err(|_| Fault { what: "data that is not base64", at: 0 })?;
            ends.push(decoded.len());
        }
        total += decoded.len() as u64;
        let decoded = Bytes::from(decoded);
        let mut start = 0;
        for (record, end) in group.into_iter().zip(ends) {
            records.push(SourceRecord {
                data: decoded.slice(start..end),
                sequence_number: record.sequence_number,
                arrival_ms: record.arrival_ms,
                hash_key_range,
            });
            start = end;
        }
    }
    Ok((records, total))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Child {
    shard_id: String,
    #[serde(default)]
    parent_shards: Vec<String>,
    hash_key_range: Option<Keys>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    starting_hash_key: String,
    ending_hash_key: String,
}

impl From<Child> for Shard {
    fn from(child: Child) -> Self {
        let range = child.hash_key_range;
        Self {
            id: child.shard_id.into(),
            parents: child.parent_shards.into_iter().map(Arc::from).collect(),
            hash_key_range: range
                .and_then(|keys| hash_keys_of(&keys.starting_hash_key, &keys.ending_hash_key)),
            closed: false,
        }
    }
}

/// A walk over a JSON text, value by value.
struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.at }
    }

    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The first byte of what comes next.
    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn require(&mut self, byte: u8, what: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(what)) }
    }

    /// Calls `member` with each key, at its value.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.require(b'{', "no object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.text()?;
            self.require(b':', "a key without a value")?;
            self.blanks();
            member(self, &key)?;
            if !self.take(b',') {
                return self.require(b'}', "an object without its end");
            }
        }
    }

    /// Calls `item` at each item; `null` is an empty list.
    fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.null() {
            return Ok(());
        }
        self.require(b'[', "no list")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.take(b',') {
                return self.require(b']', "a list without its end");
            }
        }
    }

    fn null(&mut self) -> bool {
        self.blanks();
        let is_next = self.bytes[self.at..].starts_with(b"null");
        self.at += if is_next { 4 } else { 0 };
        is_next
    }

    /// A string without its escapes.
    fn text(&mut self) -> Result<Cow<'a, [u8]>, Fault> {
        self.require(b'"', "no text")?;
        let start = self.at;
        let mut is_escaped = false;
        loop {
            let Some(length) = memchr2(b'"', b'\\', &self.bytes[self.at..]) else {
                return Err(self.fault("a text without its end"));
            };
            self.at += length;
            if self.bytes[self.at] == b'"' {
                break;
            }
            is_escaped = true;
            self.at = (self.at + 2).min(self.bytes.len());
        }
        let inside = &self.bytes[start..self.at];
        self.at += 1;
        if !is_escaped {
            return Ok(Cow::Borrowed(inside));
        }
        let whole = &self.bytes[start - 1..self.at];
        let unescaped: String = serde_json::from_slice(whole)
            .map_err(|_| Fault { what: "a text with a wrong escape", at: start })?;
        Ok(Cow::Owned(unescaped.into_bytes()))
    }

    fn optional_text(&mut self) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        if self.null() { Ok(None) } else { self.text().map(Some) }
    }

    fn optional_number(&mut self) -> Result<Option<f64>, Fault> {
        if self.null() {
            return Ok(None);
        }
        let start = self.at;
        let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.bytes[start..].iter().take_while(|byte| is_number(byte)).count();
        self.at += length;
        let number = std::str::from_utf8(&self.bytes[start..self.at]).ok();
        let number = number.and_then(|number| number.parse().ok());
        number.map(Some).ok_or(Fault { what: "no number", at: start })
    }

    /// Passes over a value of any kind.
    fn skip(&mut self, depth_left: u32) -> Result<(), Fault> {
        if depth_left == 0 {
            return Err(self.fault("values too deep in each other"));
        }
        match self.peek() {
            Some(b'{') => self.object(|json, _| json.skip(depth_left - 1)),
            Some(b'[') => self.array(|json| json.skip(depth_left - 1)),
            Some(b'"') => self.text().map(drop),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            _ => self.optional_number().map(drop),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let is_next = self.bytes[self.at..].starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        if is_next { Ok(()) } else { Err(self.fault("no value")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn check(body: &str, expected: Result<Answer, &str>) {
        let parsed = parse(body.as_bytes(), None).map(|(answer, _)| answer);
        let parsed = parsed.map_err(|fault| fault.what.to_owned());
        assert_eq!(parsed, expected.map_err(str::to_owned), "{body}");
    }

    fn answer(payloads: &[&[u8]]) -> Answer {
        let record = |(number, payload): (usize, &&[u8])| SourceRecord {
            data: Bytes::copy_from_slice(payload),
            sequence_number: number.to_string().into(),
            arrival_ms: 1_767_225_600_500,
            hash_key_range: None,
        };
        Answer {
            records: payloads.iter().enumerate().map(record).collect(),
            bytes: payloads.iter().map(|payload| payload.len() as u64).sum(),
            ..Answer::default()
        }
    }

    fn document(payloads: &[&[u8]]) -> Value {
        let record = |(number, payload): (usize, &&[u8])| {
            json!({
                "SequenceNumber": number.to_string(),
                "ApproximateArrivalTimestamp": 1_767_225_600.5,
                "Data": STANDARD.encode_to_string(payload),
                "PartitionKey": "a \"key\" \u{e9}",
                "EncryptionType": "NONE",
            })
        };
        json!({ "Records": payloads.iter().enumerate().map(record).collect::<Vec<_>>() })
    }

    #[test]
    fn fields_come_in_any_order_and_form() {
        check(r#"{"Records":[]}"#, Ok(Answer::default()));
        check(
            r#" { "Other" : [1.5e3, {"a":[true,false,null]}, "\\"] , "Records" : null, "NextShardIterator":"a\/b", "MillisBehindLatest" : 12 } "#,
            Ok(Answer {
                behind_ms: 12,
                next_shard_iterator: Some("a/b".into()),
                ..Answer::default()
            }),
        );
        check(
            r#"{"NextShardIterator":null,"ChildShards":[{"ShardId":"c","ParentShards":["p"],"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"7"}}]}"#,
            Ok(Answer {
                child_shards: vec![Shard {
                    id: "c".into(),
                    parents: vec!["p".into()],
                    hash_key_range: Some((0, 7)),
                    closed: false,
                }],
                ..Answer::default()
            }),
        );
        let moment = r#"{"Records":[{"Data":"","ApproximateArrivalTimestamp":1.7672256005E9,"SequenceNumber":"0"}]}"#;
        check(moment, Ok(answer(&[b""])));
    }

    #[test]
    fn records_of_any_size_are_decoded() {
        let sizes = [0, 1, 2, 3, 100, 700_000, 700_000, 10 << 20, 5];
        let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        check(&document(&payloads).to_string(), Ok(answer(&payloads)));
        check(&format!("{:#}", document(&payloads[..5])), Ok(answer(&payloads[..5])));
    }

    #[test]
    fn what_is_no_answer_is_a_fault() {
        check("", Err("no object"));
        check("<html>", Err("no object"));
        check(r#"{"Records":[]"#, Err("an object without its end"));
        check(r#"{"Records":[]}{"#, Err("more than one document"));
        check(
            r#"{"Records":[{"Data":"????","SequenceNumber":"1"}]}"#,
            Err("data that is not base64"),
        );
        check(r#"{"Records":[{"Data":"AAAA"}]}"#, Err("a record without a sequence number"));
        check(r#"{"Records":[{"SequenceNumber":"1"}]}"#, Err("a record without data"));
        check(r#"{"NextShardIterator":"a"#, Err("a text without its end"));
        check(&format!(r#"{{"x":{}"#, "[".repeat(100)), Err("values too deep in each other"));
    }

    proptest! {
        #[test]
        fn every_cut_and_change_is_a_fault_or_an_answer(
            at in 0_usize..400,
            byte: u8,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let whole = document(&[&payload, b"next"]).to_string();
            let (parsed, _) = parse(whole.as_bytes(), None).unwrap();
            prop_assert_eq!(parsed, answer(&[&payload, b"next"]));
            let mut changed = whole.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            let _answer_or_fault = parse(&changed, None).is_ok();
            prop_assert!(parse(&whole.as_bytes()[..at], None).is_err());
        }
    }
}
