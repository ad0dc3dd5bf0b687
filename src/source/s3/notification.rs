//! What a message of a queue says of new objects: S3's own events, EventBridge's, and either within SNS's.
//!
//! A pure function over strangers' bytes. What is not of new objects is nothing to do; what can't be understood is
//! a fault, and the message is left to the queue.

use serde::Deserialize;

use super::object::S3Object;

/// An SNS notification may hold an event, and not another SNS notification.
const NESTING_MAX: u32 = 2;
/// The most that a queue's message holds is 1 MiB; nothing longer is read.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// A fault shows so much of the message.
const EXCERPT_BYTES: usize = 200;

/// What a message tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// New objects, in the message's order.
    pub objects: Vec<S3Object>,
    /// Why some of it could not be understood; the rest of it was.
    pub fault: Option<String>,
}

/// Reads the body of a message.
#[must_use]
pub fn read_notification(body: &str) -> Told {
    let mut told = Told::default();
    if let Err(fault) = read_nested(body, NESTING_MAX, &mut told) {
        told.fault = Some(fault);
    }
    told
}

/// All forms at once; which one it is, its fields tell.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    /// `s3:TestEvent`, when notifications are set up.
    #[serde(rename = "Event")]
    event: Option<String>,
    /// SNS: `Notification`.
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Message")]
    inner: Option<String>,
    /// EventBridge: `Object Created`.
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    source: Option<String>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: Option<String>,
    s3: Option<Entity>,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Option<Bucket>,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
    #[serde(rename = "eTag", alias = "etag")]
    etag: Option<String>,
    #[serde(rename = "versionId", alias = "version-id")]
    version: Option<String>,
}

fn read_nested(body: &str, nesting: u32, told: &mut Told) -> Result<(), String> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(format!("it has {} bytes, more than any notification", body.len()));
    }
    let message: Message =
        serde_json::from_str(body).map_err(|error| not_understood(body, &error.to_string()))?;
    if let Some(records) = message.records {
        for record in records {
            read_record(record, told);
        }
        return Ok(());
    }
    if message.event.as_deref() == Some("s3:TestEvent") {
        return Ok(());
    }
    if message.source.as_deref() == Some("aws.s3") {
        return read_event(message.detail_type.as_deref(), message.detail, told);
    }
    match (message.kind.as_deref(), message.inner) {
        (Some("Notification"), Some(inner)) if nesting > 1 => {
            read_nested(&inner, nesting - 1, told)
        }
        _ => Err(not_understood(body, "it is no event of S3, EventBridge or SNS")),
    }
}

fn not_understood(body: &str, why: &str) -> String {
    let excerpt: String = body.chars().take(EXCERPT_BYTES).collect();
    format!("{why}; it begins with `{}`", excerpt.escape_debug())
}

fn read_record(record: Record, told: &mut Told) {
    let name = record.event_name.unwrap_or_default();
    if !name.trim_start_matches("s3:").starts_with("ObjectCreated") {
        return;
    }
    let read = match record.s3 {
        None => Err("a record has no `s3`".to_owned()),
        Some(Entity { bucket, object }) => match form_decoded(&object.key) {
            None => Err(format!("the key `{}` is not URL-encoded UTF-8", object.key)),
            Some(key) => Ok((bucket, Object { key, ..object })),
        },
    };
    match read {
        Ok((bucket, object)) => add(&bucket, object, told),
        Err(fault) => told.fault = Some(fault),
    }
}

fn read_event(
    detail_type: Option<&str>,
    detail: Option<Detail>,
    told: &mut Told,
) -> Result<(), String> {
    if detail_type != Some("Object Created") {
        return Ok(());
    }
    match detail {
        // Its keys are not encoded.
        Some(Detail { bucket: Some(bucket), object: Some(object) }) => {
            add(&bucket, object, told);
            Ok(())
        }
        _ => Err("an EventBridge event has no `detail.bucket` or no `detail.object`".to_owned()),
    }
}

fn add(bucket: &Bucket, object: Object, told: &mut Told) {
    let Some(size) = object.size else {
        told.fault = Some(format!("the event of `{}` has no size", object.key));
        return;
    };
    // Empty objects stand for folders.
    if size == 0 {
        return;
    }
    told.objects.push(S3Object {
        bucket: bucket.name.as_str().into(),
        key: object.key,
        etag: object
            .etag
            .map(|etag| etag.trim_matches('"').to_owned())
            .filter(|etag| !etag.is_empty()),
        version: object.version.filter(|version| !version.is_empty()),
        size,
    });
}

/// Undoes the encoding of HTML forms; `None` if it is none, or not of UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(key: &str, etag: Option<&str>, version: Option<&str>) -> S3Object {
        S3Object {
            bucket: "logs".into(),
            key: key.to_owned(),
            etag: etag.map(str::to_owned),
            version: version.map(str::to_owned),
            size: 7,
        }
    }

    fn record(event: &str, key: &str) -> serde_json::Value {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": event,
               "s3": {"bucket": {"name": "logs", "arn": "arn:aws:s3:::logs"},
                      "object": {"key": key, "size": 7, "eTag": "ab", "versionId": "v1", "sequencer": "00"}}})
    }

    fn check(body: &serde_json::Value, objects: &[S3Object], fault: Option<&str>) {
        let told = read_notification(&body.to_string());
        assert_eq!(told.objects, objects, "{body}");
        match (told.fault, fault) {
            (None, None) => {}
            (Some(found), Some(fault)) => assert!(found.contains(fault), "{found}"),
            (found, fault) => panic!("{found:?} {fault:?}"),
        }
    }

    #[test]
    fn events_of_s3_are_read_in_every_wrapping() {
        let event = json!({"Records": [
            record("ObjectCreated:Put", "a+b%3D1/%C3%A4.gz"),
            record("ObjectRemoved:Delete", "gone"),
            record("s3:ObjectCreated:CompleteMultipartUpload", "c"),
        ]});
        let expected =
            [object("a b=1/ä.gz", Some("ab"), Some("v1")), object("c", Some("ab"), Some("v1"))];
        check(&event, &expected, None);
        let sns = json!({"Type": "Notification", "TopicArn": "arn", "Message": event.to_string()});
        check(&sns, &expected, None);
        let twice = json!({"Type": "Notification", "Message": sns.to_string()});
        check(&twice, &[], Some("no event of S3"));
    }

    #[test]
    fn events_of_eventbridge_are_read_as_they_are() {
        let event = json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3",
            "detail": {"version": "0", "bucket": {"name": "logs"},
                       "object": {"key": "a+b=1/%41", "size": 7, "etag": "ab", "version-id": "v"},
                       "reason": "PutObject"}});
        let expected = [object("a+b=1/%41", Some("ab"), Some("v"))];
        check(&event, &expected, None);
        check(&json!({"Type": "Notification", "Message": event.to_string()}), &expected, None);
        let deleted = json!({"detail-type": "Object Deleted", "source": "aws.s3", "detail": {}});
        check(&deleted, &[], None);
        let broken = json!({"detail-type": "Object Created", "source": "aws.s3", "detail": {}});
        check(&broken, &[], Some("no `detail.bucket`"));
    }

    #[test]
    fn tests_and_folders_are_nothing_to_do() {
        check(
            &json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "logs"}),
            &[],
            None,
        );
        let mut folder = record("ObjectCreated:Put", "a/");
        folder["s3"]["object"]["size"] = json!(0);
        check(&json!({"Records": [folder]}), &[], None);
    }

    #[test]
    fn what_is_not_understood_is_told_beside_the_rest() {
        let good = object("c", Some("ab"), Some("v1"));
        let bad_key = record("ObjectCreated:Put", "%ff");
        let both = json!({"Records": [bad_key, record("ObjectCreated:Put", "c")]});
        check(&both, &[good], Some("not URL-encoded UTF-8"));
        check(&json!({"eventType": "x"}), &[], Some("no event of S3"));
        check(&json!([1]), &[], Some("it begins with `[1]`"));
    }

    proptest! {
        #[test]
        fn any_key_survives_its_encoding(key in "[ -~äü]{1,30}") {
            let encoded: String = key.bytes().map(|byte| match byte {
                b' ' => "+".to_owned(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            }).collect();
            prop_assert_eq!(form_decoded(&encoded), Some(key));
        }

        #[test]
        fn any_text_is_taken(body in ".{0,200}") {
            let told = read_notification(&body);
            prop_assert!(told.objects.is_empty() && told.fault.is_some());
        }
    }
}
