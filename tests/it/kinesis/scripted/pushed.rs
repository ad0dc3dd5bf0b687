//! Subscriptions as the scripted server pushes them: frames of the event stream, good and bad.

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::{Push, Reply, Script, Then};

/// What the n-th subscription of a shard brings, from record `next` on.
pub(super) fn subscription(script: &Script, next: usize, call: usize) -> Reply {
    let push = script.pushes.get(&call).copied();
    if let Some(Push::Error(status, code)) = push {
        return Reply::Answer(status, json!({"__type": code, "message": "scripted"}).to_string());
    }
    let mut frames = Vec::new();
    // Not all servers send it.
    if call.is_multiple_of(2) {
        let headers = [("message-type", "event"), ("event-type", "initial-response")];
        frames.extend(frame(&headers, b"{}"));
    }
    let first_end = (next + script.answer_records).min(script.records.len());
    let end = if push.is_some() { first_end } else { script.records.len() };
    let mut at = next;
    while at < end {
        let event_end = (at + script.answer_records).min(end);
        frames.extend(event(script, at, event_end));
        at = event_end;
    }
    let is_at_end = end == script.records.len();
    if is_at_end && script.closed && push.is_none() {
        frames.extend(event_frame(&json!({
            "Records": [], "MillisBehindLatest": 0, "ContinuationSequenceNumber": null,
        })));
        return Reply::Stream { frames, then: Then::Cut };
    }
    let empty = event(script, end, end);
    match push {
        None => {
            frames.extend(empty);
            Reply::Stream { frames, then: Then::GoOn }
        }
        Some(Push::Expire | Push::Error(..)) => Reply::Stream { frames, then: Then::Cut },
        Some(Push::Silence) => Reply::Stream { frames, then: Then::Silence },
        Some(Push::Truncate) => {
            frames.extend(&empty[..empty.len() / 2]);
            Reply::Stream { frames, then: Then::Cut }
        }
        Some(Push::Corrupt) => {
            // Records that nobody may take for good.
            let mut corrupt = event(script, end, script.records.len());
            let middle = corrupt.len() / 2;
            corrupt[middle] ^= 0x10;
            frames.extend(corrupt);
            Reply::Stream { frames, then: Then::GoOn }
        }
        Some(Push::Exception(code)) => {
            let headers = [("message-type", "exception"), ("exception-type", code)];
            frames.extend(frame(&headers, br#"{"message":"scripted"}"#));
            Reply::Stream { frames, then: Then::Silence }
        }
    }
}

/// Where the last frame begins.
pub(super) fn last_frame(frames: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let length = u32::from_be_bytes(frames[at..at + 4].try_into().unwrap()) as usize;
        if at + length >= frames.len() {
            return at;
        }
        at += length;
    }
}

fn event(script: &Script, from: usize, to: usize) -> Vec<u8> {
    let record = |index: usize| {
        json!({
            "SequenceNumber": (index + 1).to_string(),
            "ApproximateArrivalTimestamp": 1_767_225_600.5,
            "PartitionKey": "key",
            "Data": STANDARD.encode_to_string(&script.records[index]),
        })
    };
    event_frame(&json!({
        "Records": (from..to).map(record).collect::<Vec<_>>(),
        "MillisBehindLatest": script.records.len() - to,
        "ContinuationSequenceNumber": to.to_string(),
    }))
}

fn event_frame(event: &Value) -> Vec<u8> {
    let headers = [
        ("message-type", "event"),
        ("event-type", "SubscribeToShardEvent"),
        ("content-type", "application/json"),
    ];
    frame(&headers, event.to_string().as_bytes())
}

/// Length, length of headers, checksum of both; headers, payload, checksum of all.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len() + 1).unwrap());
        encoded.extend(format!(":{name}").as_bytes());
        encoded.push(7);
        encoded.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        encoded.extend(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    let mut frame = Vec::new();
    frame.extend(length(16 + encoded.len() + payload.len()));
    frame.extend(length(encoded.len()));
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(encoded);
    frame.extend(payload);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}
