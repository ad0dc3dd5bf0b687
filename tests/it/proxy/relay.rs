//! One client's connection: call by call to the server and back, except for what is to go wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Shared;
use super::plan::{Dice, Drawn, FaultKind};
use crate::http::{Head, Length, read_body, read_chunk, write_chunk};

/// The longest delay of a call.
const DELAY_MS_MAX: u64 = 300;
/// Pieces of an answer that drips, and the pause after each.
const DRIPS: usize = 20;
const DRIP_PAUSE: Duration = Duration::from_millis(10);
/// Most bytes of a stream before it is cut.
const STREAM_BYTES_MAX: u64 = 8 << 10;

/// Serves calls until either side closes.
pub(super) fn serve(client: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    while let Some(head) = Head::peek(client)? {
        let (mut drawn, half_open) = {
            let mut plan = shared.plan.lock().unwrap();
            (plan.draw(head.operation()), plan.half_open)
        };
        match drawn.fault {
            // What is unread makes it a reset.
            Some(FaultKind::Reset) => return Ok(()),
            Some(FaultKind::HalfOpen) => return say_nothing(client, half_open),
            Some(FaultKind::Delay) => {
                std::thread::sleep(Duration::from_millis(drawn.dice.below(DELAY_MS_MAX)));
            }
            _ => {}
        }
        let head = Head::read(&mut reader)?.expect("it was there");
        let body = read_body(&mut reader, head.length(true))?;
        if let Some((status, code)) = drawn.fault.and_then(|kind| refusal(kind, head.operation())) {
            refuse(client, &head, status, code)?;
        } else if !pass_on(client, shared, &head, &body, &mut drawn)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Keeps the connection until the client leaves it or the time is over.
fn say_nothing(mut client: &TcpStream, time: Duration) -> std::io::Result<()> {
    client.set_read_timeout(Some(time))?;
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Status and code of a fault that is an answer of its own.
fn refusal(kind: FaultKind, operation: &str) -> Option<(u16, &'static str)> {
    let is_s3 = operation.bytes().all(|byte| byte.is_ascii_uppercase());
    let answer = match (kind, operation) {
        (FaultKind::Throttled, _) if is_s3 => (503, "SlowDown"),
        (FaultKind::Throttled, "GetRecords" | "GetShardIterator") => {
            (400, "ProvisionedThroughputExceededException")
        }
        (FaultKind::Throttled, "SubscribeToShard") => (400, "ResourceInUseException"),
        (FaultKind::Throttled, "FilterLogEvents") => (400, "ThrottlingException"),
        (FaultKind::Throttled, _) if operation.contains("Message") => (400, "RequestThrottled"),
        (FaultKind::Throttled, _) => (400, "LimitExceededException"),
        (FaultKind::IteratorExpired, "GetRecords") => (400, "ExpiredIteratorException"),
        (FaultKind::Internal | FaultKind::IteratorExpired, _) if is_s3 => (500, "InternalError"),
        (FaultKind::Internal | FaultKind::IteratorExpired, _) => (500, "InternalFailure"),
        (FaultKind::Unavailable, _) => (503, "ServiceUnavailable"),
        _ => return None,
    };
    Some(answer)
}

fn refuse(mut client: &TcpStream, request: &Head, status: u16, code: &str) -> std::io::Result<()> {
    let (kind, body) = if request.field("x-amz-target").is_some() {
        let body = json!({"__type": code, "message": "by the fault proxy"}).to_string();
        ("application/x-amz-json-1.1", body)
    } else {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the fault proxy</Message></Error>"
        );
        ("application/xml", body)
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} refused\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes())
}

/// Whether the connection may go on.
fn pass_on(
    client: &TcpStream,
    shared: &Arc<Shared>,
    head: &Head,
    body: &[u8],
    drawn: &mut Drawn,
) -> std::io::Result<bool> {
    let (upstream, _kept) = shared.connect()?;
    let mut request = head.write("close");
    request.extend_from_slice(body);
    (&upstream).write_all(&request)?;
    let mut from = BufReader::new(&upstream);
    let answer = Head::read(&mut from)?.ok_or(ErrorKind::UnexpectedEof)?;
    let fault = drawn.fault;
    if fault == Some(FaultKind::Lost) {
        // The server has done what it was asked.
        return Ok(false);
    }
    let is_head = head.start.starts_with("HEAD ");
    let length = if is_head { Length::Bytes(0) } else { answer.length(false) };
    let answer_head =
        answer.write(if length == Length::UntilClosed { "close" } else { "keep-alive" });
    if fault == Some(FaultKind::CutHead) {
        let mut client = client;
        client.write_all(&answer_head[..=drawn.dice.place(answer_head.len() - 1)])?;
        return Ok(false);
    }
    if length == Length::Chunked {
        { client }.write_all(&answer_head)?;
        return pass_stream(client, &mut from, fault, &mut drawn.dice);
    }
    let body = read_body(&mut from, length)?;
    pass_body(client, answer_head, &body, fault, &mut drawn.dice)?;
    let was_cut = matches!(fault, Some(FaultKind::CutBody | FaultKind::EndedEarly));
    Ok(length != Length::UntilClosed && !was_cut)
}

fn pass_body(
    mut client: &TcpStream,
    mut answer: Vec<u8>,
    body: &[u8],
    fault: Option<FaultKind>,
    dice: &mut Dice,
) -> std::io::Result<()> {
    let sent = match fault {
        Some(FaultKind::CutBody | FaultKind::EndedEarly) => dice.place(body.len()),
        _ => body.len(),
    };
    answer.extend_from_slice(&body[..sent]);
    if fault == Some(FaultKind::Drip) {
        for piece in answer.chunks(answer.len().div_ceil(DRIPS)) {
            client.write_all(piece)?;
            std::thread::sleep(DRIP_PAUSE);
        }
        return Ok(());
    }
    client.write_all(&answer)
}

/// Passes on chunk by chunk, as they come.
fn pass_stream(
    mut client: &TcpStream,
    from: &mut impl BufRead,
    fault: Option<FaultKind>,
    dice: &mut Dice,
) -> std::io::Result<bool> {
    let is_cut = matches!(fault, Some(FaultKind::CutBody | FaultKind::EndedEarly));
    let mut left = is_cut.then(|| dice.place(usize::try_from(STREAM_BYTES_MAX).unwrap_or(0)));
    while let Some(chunk) = read_chunk(from)? {
        let sent = left.map_or(chunk.len(), |left| left.min(chunk.len()));
        if fault == Some(FaultKind::Drip) {
            for piece in chunk.chunks(chunk.len().div_ceil(DRIPS)) {
                write_chunk(&mut client, piece)?;
                std::thread::sleep(DRIP_PAUSE);
            }
        } else if sent > 0 {
            write_chunk(&mut client, &chunk[..sent])?;
        }
        if let Some(left) = &mut left {
            *left -= sent;
            if sent < chunk.len() {
                break;
            }
        }
    }
    if fault == Some(FaultKind::CutBody) {
        return Ok(false);
    }
    client.write_all(b"0\r\n\r\n")?;
    Ok(true)
}
