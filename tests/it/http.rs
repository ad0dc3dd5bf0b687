//! As much of HTTP/1.1 as the fault proxy has to understand, heads and how long bodies are; and single
//! calls of services that no client here speaks to.
#![cfg(feature = "kinesis")]

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The head of a request or an answer.
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

impl Head {
    /// Reads a head; `None` when the peer has closed before one began.
    pub(crate) fn read(from: &mut impl BufRead) -> std::io::Result<Option<Self>> {
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
    pub(crate) fn peek(socket: &TcpStream) -> std::io::Result<Option<Self>> {
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

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// What the call is, for the plan and for the form of errors: the operation of Amazon's JSON
    /// protocol, or the method.
    pub(crate) fn operation(&self) -> &str {
        match self.field("x-amz-target") {
            Some(target) => target.rsplit('.').next().expect("a split has a part"),
            None => self.start.split(' ').next().expect("a split has a part"),
        }
    }

    pub(crate) fn length(&self, of_request: bool) -> Length {
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
    pub(crate) fn write(&self, connection: &str) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        let kept = |name: &str| name != "connection" && name != "keep-alive";
        for (name, value) in self.fields.iter().filter(|(name, _)| kept(name)) {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                text.push_str(part);
            }
        }
        for part in ["connection: ", connection, "\r\n\r\n"] {
            text.push_str(part);
        }
        text.into_bytes()
    }
}

/// Reads a body whose length is known, chunks among them, to its end.
pub(crate) fn read_body(from: &mut impl BufRead, length: Length) -> std::io::Result<Vec<u8>> {
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
pub(crate) fn read_chunk(from: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
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
pub(crate) fn write_chunk(to: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    to.write_all(&bytes)
}

/// Makes a call on a connection of its own; status and body of the answer. Fails when the other side
/// closes, or says nothing for `patience`.
pub(crate) fn call(
    address: SocketAddr,
    start: &str,
    fields: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    fields.push(("host".to_owned(), address.to_string()));
    fields.push(("content-length".to_owned(), body.len().to_string()));
    let mut request = Head { start: format!("{start} HTTP/1.1"), fields }.write("close");
    request.extend_from_slice(body);
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(patience))?;
    connection.write_all(&request)?;
    let mut from = BufReader::new(&connection);
    let answer = Head::read(&mut from)?.ok_or(ErrorKind::UnexpectedEof)?;
    let status = answer.start.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = read_body(&mut from, answer.length(false))?;
    Ok((status.ok_or(ErrorKind::InvalidData)?, body))
}
