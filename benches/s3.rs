//! How fast objects come from S3 to totals: the program over a server in this process that answers as S3 does, from
//! memory, beside the program over the same bytes in files. Prints MB/s of compressed and of decoded bytes.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge::clock::{Clock, SystemClock};

/// Records of one object, and how many objects there are of each.
const SHAPES: [(&str, u64, usize); 3] = [
    ("small objects", 20_000, 100),
    ("usual objects", 500_000, 12),
    ("large objects", 5_000_000, 2),
];
const PASSES: usize = 3;

fn main() {
    // As a test: one pass over little.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    for (name, records, count) in SHAPES {
        let (records, count, passes) =
            if is_test { (1_000, 3, 1) } else { (records, count, PASSES) };
        for is_packed in [true, false] {
            measure(name, (records, count), is_packed, passes);
        }
    }
}

fn measure(name: &str, (records, count): (u64, usize), is_packed: bool, passes: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let object = object(records, is_packed);
    let files: Vec<PathBuf> = (0..count)
        .map(|number| {
            let file = directory.path().join(format!("{number:04}"));
            std::fs::write(&file, &object).expect("room for a file");
            file
        })
        .collect();
    let length = object.len();
    let endpoint = format!("http://{}", serve(object, count));
    let from_s3 = fastest(passes, || analyze(&["s3://bench/o/".into()], &endpoint));
    let from_files = fastest(passes, || analyze(&files, &endpoint));
    assert_eq!(from_s3.records, records * count as u64);
    assert_eq!((from_s3.records, from_s3.decoded), (from_files.records, from_files.decoded));
    let form = if is_packed { "gzip" } else { "text" };
    let megabytes = |bytes: f64, seconds: f64| bytes / seconds / 1e6;
    let stored = (length * count) as f64;
    println!(
        "{name} ({count} of {:.1} MB), {form}: {:.0} MB/s fetched, {:.0} MB/s decoded; files: {:.0}, {:.0}",
        length as f64 / 1e6,
        megabytes(stored, from_s3.seconds),
        megabytes(from_s3.decoded as f64, from_s3.seconds),
        megabytes(stored, from_files.seconds),
        megabytes(from_files.decoded as f64, from_files.seconds),
    );
}

struct Pass {
    seconds: f64,
    records: u64,
    decoded: u64,
}

fn fastest(passes: usize, pass: impl Fn() -> Pass) -> Pass {
    (0..passes).map(|_| pass()).min_by(|a, b| a.seconds.total_cmp(&b.seconds)).expect("one pass")
}

/// The whole program, start and listing included.
fn analyze(paths: &[PathBuf], endpoint: &str) -> Pass {
    let clock = SystemClock::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgauge"));
    command.args(["analyze", "--output", "json", "--top", "0", "--no-detect"]).args(paths);
    command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = |value: &serde_json::Value| value.as_u64().expect("a count");
    Pass {
        seconds: clock.monotonic().as_secs_f64(),
        records: count(&summary["records"]["total"]),
        decoded: count(&summary["input"]["bytes_decoded"]),
    }
}

fn object(records: u64, is_packed: bool) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgauge"));
    command.args(["generate", "--header", "--records", &records.to_string(), "-o", "-"]);
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if !is_packed {
        return output.stdout;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&output.stdout).expect("memory");
    encoder.finish().expect("memory")
}

/// Serves `count` objects of the same bytes for as long as the process lasts.
fn serve(object: Vec<u8>, count: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it listens");
    let object = Arc::new(object);
    let accept = move || {
        for connection in listener.incoming().flatten() {
            let object = Arc::clone(&object);
            let answer = move || while answer_one(&connection, &object, count).is_some() {};
            std::thread::Builder::new().spawn(answer).expect("a thread");
        }
    };
    std::thread::Builder::new().spawn(accept).expect("a thread");
    address
}

/// Answers a request; `None` at the end of the connection.
fn answer_one(connection: &TcpStream, object: &[u8], count: usize) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let (mut path, mut range) = (String::new(), None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("GET ") {
            rest.split(' ').next()?.clone_into(&mut path);
        } else if let Some(rest) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (start, end) = rest.split_once('-')?;
            range = Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?));
        } else if line.is_empty() {
            break;
        }
    }
    let mut writer = connection;
    if path.contains("list-type=2") {
        let mut body = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for number in 0..count {
            write!(body, "<Contents><Key>o/{number:04}</Key><Size>{}</Size><ETag>\"e\"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>", object.len()).ok()?;
        }
        body.push_str("</ListBucketResult>");
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        return Some(());
    }
    let (start, last) = range?;
    let part = &object[start..=last.min(object.len() - 1)];
    write!(
        writer,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"e\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
        part.len(),
        start + part.len() - 1,
        object.len()
    )
    .ok()?;
    writer.write_all(part).ok()
}
