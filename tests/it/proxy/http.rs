//! As much of HTTP/1.1 as the proxy has to understand: heads, and how long bodies are.

use std::io::{BufRead, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The head of a request or an answer.
pub(super) struct Head {
    /// The first line.
    pub(super) start: String,
    /// Names in lower case.
    pub(super) fields: Vec<(String, String)>,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

impl Head {
    /// Reads a head; `None` when the peer has closed before one began.
    pub(super) fn read(from: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(ErrorKind::UnexpectedEof.into())
                };
            }
            assert!(bytes.len() < HEAD_BYTES_MAX, "a head is short");
        }
        Ok(Some(Self::parse(std::str::from_utf8(&bytes).expect("a head is text"))))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().expect("there is a first line").to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a field has a colon");
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self { start, fields }
    }

    /// Looks at a request's head without taking it from the socket: what is left unread when a socket
    /// is closed makes the kernel reset the connection.
    pub(super) fn peek(socket: &TcpStream) -> std::io::Result<Option<Self>> {
        let mut bytes = vec![0; HEAD_BYTES_MAX];
        loop {
            let count = socket.peek(&mut bytes)?;
            if count == 0 {
                return Ok(None);
            }
            if let Some(end) = memchr::memmem::find(&bytes[..count], b"\r\n\r\n") {
                let text = std::str::from_utf8(&bytes[..end]).expect("a head is text");
                return Ok(Some(Self::parse(text)));
            }
            assert!(count < HEAD_BYTES_MAX, "a head is short");
            // The rest is under way, and nothing tells of it.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// What the call is, for the plan and for the form of errors: the operation of Amazon's JSON
    /// protocol, or the method.
    pub(super) fn operation(&self) -> &str {
        match self.field("x-amz-target") {
            Some(target) => target.rsplit('.').next().expect("a split has a part"),
            None => self.start.split(' ').next().expect("a split has a part"),
        }
    }

    pub(super) fn length(&self, of_request: bool) -> Length {
        if self.field("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
            return Length::Chunked;
        }
        match self.field("content-length") {
            Some(length) => Length::Bytes(length.parse().expect("a length is a number")),
            None if of_request => Length::Bytes(0),
            None => match self.start.split(' ').nth(1) {
                Some("204" | "304") => Length::Bytes(0),
                _ => Length::UntilClosed,
            },
        }
    }

    /// The head as bytes, with a field of its own for the connection.
    pub(super) fn write(&self, connection: &str) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.start);
        for (name, value) in &self.fields {
            if name != "connection" && name != "keep-alive" {
                bytes.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        bytes.push_str(&format!("connection: {connection}\r\n\r\n"));
        bytes.into_bytes()
    }
}

/// Reads a body whose length is known, chunks among them, to its end.
pub(super) fn read_body(from: &mut impl BufRead, length: Length) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match length {
        Length::Bytes(bytes) => {
            body.resize(bytes, 0);
            from.read_exact(&mut body)?;
        }
        Length::Chunked => {
            while let Some(chunk) = read_chunk(from)? {
                body.extend(chunk);
            }
        }
        Length::UntilClosed => {
            from.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

/// The next chunk of a body; `None` at its end. Trailers are taken and dropped.
pub(super) fn read_chunk(from: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let size = line.trim_end().split(';').next().expect("a split has a part");
    let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
    if size == 0 {
        while line != "\r\n" {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok(None);
    }
    let mut chunk = vec![0; size + 2];
    from.read_exact(&mut chunk)?;
    assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
    chunk.truncate(size);
    Ok(Some(chunk))
}

/// Writes one chunk of a body.
pub(super) fn write_chunk(to: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    to.write_all(&bytes)
}
