//! A client that sends requests as Firehose does, and others as it never would.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::endpoint::KEY;

pub(super) const LINE: &str = "2 123456789012 eni-0a1b2c3d 10.0.1.5 10.0.2.7 44321 443 6 10 840 1767225600 1767225660 ACCEPT OK";

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// A request in parts that can be changed.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Post {
    /// A delivery as it should be.
    pub(super) fn new(body: impl Into<Vec<u8>>) -> Self {
        let headers = [("X-Amz-Firehose-Access-Key", KEY), ("Content-Type", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { method: "POST", path: "/firehose", headers: headers.into(), body: body.into() }
    }

    /// The same with a header in place of one that may be there; none for an empty value.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nHost: endpoint\r\n", self.method, self.path);
        let has = |name: &str| self.headers.iter().any(|(known, _)| known == name);
        if !has("Content-Length") && !has("Transfer-Encoding") {
            write!(out, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n").unwrap();
        }
        out.push_str("\r\n");
        [out.as_bytes(), &self.body].concat()
    }
}

/// The body of a delivery.
pub(super) fn body(request_id: &str, records: &[&[u8]]) -> String {
    let records: Vec<String> = records
        .iter()
        .map(|record| format!(r#"{{"data":"{}"}}"#, base64_simd::STANDARD.encode_to_string(record)))
        .collect();
    let records = records.join(",");
    format!(r#"{{"requestId":"{request_id}","timestamp":1767225660000,"records":[{records}]}}"#)
}

pub(super) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    Ok(stream)
}

/// Sends bytes and reads an answer.
pub(super) fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Answer> {
    // An answer may come before all is sent; then the rest is not taken.
    let sent = stream.write_all(request).and_then(|()| stream.flush());
    match read_answer(&mut stream) {
        Ok(answer) => Ok(answer),
        Err(error) => sent.and(Err(error)),
    }
}

/// Reads one answer.
pub(super) fn read_answer(mut stream: impl Read) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.to_ascii_lowercase();
    let length =
        length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, head, body })
}

/// Sends a request on a connection of its own.
pub(super) fn send(address: SocketAddr, post: &Post) -> Answer {
    exchange(connect(address).unwrap(), &post.bytes()).unwrap()
}
