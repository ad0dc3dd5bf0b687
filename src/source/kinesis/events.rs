//! The event stream of a subscription: frames cut out of its body and checked, their records read as those
//! of an answer to GetRecords.
//!
//! A frame is its length, the length of its headers and a checksum of both, then headers, payload, and a
//! checksum of all, numbers big-endian. What is not whole or not right ends the stream; nothing of it is
//! used. A first frame that only says that the subscription was taken may be there or not.

use aws_sdk_kinesis::operation::subscribe_to_shard::builders::SubscribeToShardFluentBuilder;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::{Buf as _, Bytes, BytesMut};

use crate::causes::with_causes;

use super::answer::{self, Answer, Taken, passing};
use super::retry::{Failure, FailureKind, kind_of_code};

/// Lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;
/// Most bytes of a frame: a record of 10 MiB as base64 has 14 MB, and the service sends no more than 16.
const FRAME_BYTES_MAX: usize = 24 << 20;
/// The kind of a header's value that is a text.
const TEXT: u8 = 7;

/// What one event brought.
#[derive(Debug)]
pub(super) struct Event {
    /// Records, distance from the tip, and children at the end of the shard.
    pub(super) answer: Answer,
    /// After what to go on; `None` at the end of the shard.
    pub(super) continuation: Option<String>,
}

/// The events of one subscription.
#[derive(Debug)]
pub(super) struct Events {
    body: ByteStream,
    received: BytesMut,
}

/// Makes the call; its events come afterwards.
pub(super) async fn subscribe(request: SubscribeToShardFluentBuilder) -> Result<Events, Failure> {
    let taken = Taken::default();
    request.customize().interceptor(taken.interceptor("")).send().await?;
    let body = taken.take().ok_or_else(|| passing("a subscription without a stream".to_owned()))?;
    Ok(Events { body: ByteStream::new(body), received: BytesMut::new() })
}

impl Events {
    /// The next event, whose aggregates have to lie in `range`; `None` when the service has ended the
    /// stream between two. Dropping the future loses nothing.
    pub(super) async fn next(
        &mut self,
        range: Option<(u128, u128)>,
    ) -> Result<Option<Event>, Failure> {
        loop {
            while let Some(frame) = cut_frame(&mut self.received)? {
                if let Some(event) = frame.event(range)? {
                    return Ok(Some(event));
                }
            }
            match self.body.next().await {
                Some(Ok(part)) => self.received.extend_from_slice(&part),
                Some(Err(error)) => return Err(passing(with_causes(&error))),
                None if self.received.is_empty() => return Ok(None),
                None => return Err(wrong("it ends within a frame")),
            }
        }
    }
}

fn wrong(what: &str) -> Failure {
    passing(format!("the event stream is damaged: {what}"))
}

/// A frame whose checksums are right.
struct Frame {
    headers: Bytes,
    payload: Bytes,
}

/// Takes the first frame off, if it is there as a whole.
fn cut_frame(received: &mut BytesMut) -> Result<Option<Frame>, Failure> {
    let Some(prelude) = received.first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
    let number = |bytes: &[u8]| {
        let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let checksum_of = |bytes: &[u8]| crc32fast::hash(bytes).to_be_bytes();
    if checksum_of(&prelude[..8]) != prelude[8..] {
        return Err(wrong("lengths with another checksum"));
    }
    let (frame_bytes, header_bytes) = (number(&prelude[..4]), number(&prelude[4..8]));
    let least_bytes = header_bytes.saturating_add(PRELUDE_BYTES + CHECKSUM_BYTES);
    if frame_bytes > FRAME_BYTES_MAX || frame_bytes < least_bytes {
        return Err(wrong("a frame of an impossible length"));
    }
    if received.len() < frame_bytes {
        received.reserve(frame_bytes - received.len());
        return Ok(None);
    }
    let mut frame = received.split_to(frame_bytes).freeze();
    let content_bytes = frame_bytes - CHECKSUM_BYTES;
    if checksum_of(&frame[..content_bytes]) != frame[content_bytes..] {
        return Err(wrong("a frame with another checksum"));
    }
    frame.truncate(content_bytes);
    frame.advance(PRELUDE_BYTES);
    let headers = frame.split_to(header_bytes);
    Ok(Some(Frame { headers, payload: frame }))
}

impl Frame {
    /// The event in it; `None` if it is of a kind that says nothing of records.
    fn event(&self, range: Option<(u128, u128)>) -> Result<Option<Event>, Failure> {
        let headers = self.headers()?;
        let header =
            |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        match (header(":message-type"), header(":event-type")) {
            (Some("event"), Some("SubscribeToShardEvent")) => {
                let (answer, continuation) = answer::parse_event(&self.payload, range)?;
                let continuation = continuation.filter(|number| !number.is_empty());
                Ok(Some(Event { answer, continuation }))
            }
            (Some("event"), _) => Ok(None),
            _ => {
                let code = header(":exception-type").or(header(":error-code")).unwrap_or("unknown");
                let said = String::from_utf8_lossy(&self.payload[..self.payload.len().min(500)]);
                let kind =
                    if code == "unknown" { FailureKind::Transient } else { kind_of_code(code) };
                Err(Failure { kind, message: format!("{code}: {said}") })
            }
        }
    }

    /// Names and values of the headers, which are all texts.
    fn headers(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let mut rest = &self.headers[..];
        let mut headers = Vec::new();
        while !rest.is_empty() {
            let header = take(&mut rest).ok_or_else(|| wrong("headers of another form"))?;
            headers.push(header);
        }
        Ok(headers)
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, &'a str)> {
    let (name_bytes, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*name_bytes))?;
    let (kind, after) = after.split_first()?;
    let (value_bytes, after) = after.split_first_chunk::<2>()?;
    let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*value_bytes)))?;
    *rest = after;
    let is_text = *kind == TEXT;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?)).filter(|_| is_text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENT: &[u8] =
        b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x15SubscribeToShardEvent";
    const INITIAL: &[u8] =
        b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x10initial-response";
    const EXCEPTION: &[u8] =
        b"\x0d:message-type\x07\x00\x09exception\x0f:exception-type\x07\x00\x16ResourceInUseException";

    fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
        let mut frame = Vec::new();
        frame.extend(length(PRELUDE_BYTES + headers.len() + payload.len() + CHECKSUM_BYTES));
        frame.extend(length(headers.len()));
        frame.extend(crc32fast::hash(&frame).to_be_bytes());
        frame.extend(headers);
        frame.extend(payload);
        frame.extend(crc32fast::hash(&frame).to_be_bytes());
        frame
    }

    /// What the frames bring: continuation numbers, then how it ends.
    fn read(bytes: &[u8], part_bytes: usize) -> (Vec<Option<String>>, Result<(), Failure>) {
        let mut received = BytesMut::new();
        let mut read = Vec::new();
        for part in bytes.chunks(part_bytes) {
            received.extend_from_slice(part);
            loop {
                let frame = match cut_frame(&mut received) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(failure) => return (read, Err(failure)),
                };
                match frame.event(None) {
                    Ok(event) => read.extend(event.map(|event| event.continuation)),
                    Err(failure) => return (read, Err(failure)),
                }
            }
        }
        let is_whole = received.is_empty();
        (read, if is_whole { Ok(()) } else { Err(wrong("the rest is no frame")) })
    }

    fn event(number: u32) -> Vec<u8> {
        let payload = format!(
            "{{\"Records\":[],\"MillisBehindLatest\":0,\"ContinuationSequenceNumber\":\"{number}\"}}"
        );
        frame(EVENT, payload.as_bytes())
    }

    #[test]
    fn frames_come_in_any_parts() {
        let last = frame(EVENT, br#"{"Records":[],"ContinuationSequenceNumber":null}"#);
        let stream = [frame(INITIAL, b"{}"), event(1), event(2), last].concat();
        for part_bytes in [1, 7, 100, stream.len()] {
            let (read, end) = read(&stream, part_bytes);
            assert_eq!(read, [Some("1".to_owned()), Some("2".to_owned()), None]);
            end.unwrap();
        }
    }

    #[test]
    fn an_error_of_the_service_is_told_by_its_name() {
        let stream = [event(1), frame(EXCEPTION, br#"{"message":"taken over"}"#)].concat();
        let (read, end) = read(&stream, 9);
        assert_eq!(read.len(), 1);
        let failure = end.unwrap_err();
        assert_eq!(failure.kind, FailureKind::InUse);
        assert!(failure.message.contains("taken over"), "{}", failure.message);
    }

    proptest! {
        #[test]
        fn whatever_is_damaged_is_not_used(at in 0_usize..400, bit in 0_u8..8, cut: bool) {
            let mut stream = [event(1), event(2)].concat();
            let at = at % stream.len();
            let first_is_whole = at >= event(1).len();
            if cut {
                stream.truncate(at);
            } else {
                stream[at] ^= 1 << bit;
            }
            let (read, end) = read(&stream, 64);
            prop_assert_eq!(read.len(), usize::from(first_is_whole));
            prop_assert!(end.is_err() || (cut && (at == 0 || at == event(1).len())));
        }
    }
}
