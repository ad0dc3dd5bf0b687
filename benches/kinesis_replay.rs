//! How fast a Kinesis stream is read, and what idle shards cost: a server of our own repeats answers that
//! were encoded once, a source in this process reads them.
//!
//! `cargo bench --bench kinesis_replay [-- SHARDS RECORD_BYTES SECONDS [fan-out]]`, with records of 0 bytes for
//! shards that are idle. The server is a process of its own on the same cores, and does no more than to write the next sequence numbers into an answer and the
//! answer into a socket. Each shard keeps to the service's limits, 2 MB and five calls a second. What
//! comes is checked: payloads, and that sequence numbers have no gap.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "figures go to standard output")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::config::Credentials;
use base64_simd::STANDARD;
use flowgauge::aws::AwsAccess;
use flowgauge::clock::{Clock, SystemClock};
use flowgauge::framing::{ChunkEvent, InputId, Payload};
use flowgauge::metrics::resident_bytes;
use flowgauge::record::FormatChoice;
use flowgauge::source::kinesis::{
    ConsumerAddress, FanOut, KinesisSettings, KinesisSource, ReadMode, StreamAddress,
};
use flowgauge::source::{InputIds, Source, StopFlag};

/// Payload of an answer: what a shard gives in a quarter of a second.
const ANSWER_BYTES: usize = 500_000;
/// Digits of a sequence number.
const DIGITS: usize = 20;
const SERVE: &str = "serve";
const CONSUMER_ARN: &str =
    "arn:aws:kinesis:us-east-1:123456789012:stream/flow/consumer/gauge:1767225600";
/// Between two events of a shard: a quarter of a second's records, or nothing.
const EVENT_INTERVAL: Duration = Duration::from_millis(250);
const EMPTY_EVENT_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of the stack of a connection's thread, of which there are thousands.
const STACK_BYTES: usize = 256 << 10;

fn main() {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == SERVE) {
        arguments.remove(0);
        serve(number(&arguments, 0, 0), number(&arguments, 1, 0));
        return;
    }
    let shards = number(&arguments, 0, 400);
    let seconds = number(&arguments, 2, 10);
    let sizes = arguments.get(1).map_or(vec![25_000, 1_000], |size| vec![size.parse().unwrap()]);
    let is_fan_out = arguments.get(3).is_some_and(|way| way == "fan-out");
    println!("record bytes   MB/s   records/s   reader CPU   server CPU   peak memory over start");
    for record_bytes in sizes {
        let time = Duration::from_secs(seconds as u64);
        measure(shards, record_bytes, time, is_fan_out);
    }
}

fn number(arguments: &[String], index: usize, default: usize) -> usize {
    arguments.get(index).map_or(default, |argument| argument.parse().unwrap())
}

fn payload(record_bytes: usize) -> Vec<u8> {
    let line = b"2 123456789012 eni-0a1b2c3d 10.0.1.5 10.0.2.7 44321 443 6 10 840 1767225600 1767225660 ACCEPT OK\n";
    line.iter().copied().cycle().take(record_bytes).collect()
}

fn measure(shards: usize, record_bytes: usize, time: Duration, is_fan_out: bool) {
    let mut server = Server::start(shards, record_bytes);
    let mut settings = KinesisSettings::of(StreamAddress::Name("flow".into()));
    settings.access = AwsAccess {
        region: Some("us-east-1".into()),
        endpoint: Some(server.endpoint.clone()),
        profile: None,
        credentials: Some(Credentials::new("test", "test", None, None, "test")),
    };
    if is_fan_out {
        settings.mode = ReadMode::FanOut(FanOut::of(ConsumerAddress::Arn(CONSUMER_ARN.into())));
    }
    let clock = Arc::new(SystemClock::new());
    let source = Box::new(KinesisSource::new(
        "replay".into(),
        settings,
        FormatChoice::Auto,
        Arc::new(InputIds::default()),
        Arc::<SystemClock>::clone(&clock),
    ));
    let expected = payload(record_bytes);
    let stop = StopFlag::default();
    let mut next: HashMap<InputId, usize> = HashMap::new();
    let memory_now = || resident_bytes(std::path::Path::new("/")).unwrap_or(0);
    let (mut bytes, mut records, memory_before) = (0_u64, 0_u64, memory_now());
    let mut memory = memory_before;
    let (mut chunks, mut inputs) = (0_u64, 0_u64);
    let cpu_of = |pid: &str| cpu_seconds(pid);
    let (reader_before, server_before) = (cpu_of("self"), cpu_of(&server.pid()));
    let began = clock.monotonic();
    source
        .run(&stop, &mut |chunk| {
            if clock.monotonic() >= began + time {
                stop.request();
            }
            chunks += 1;
            if chunks.is_multiple_of(64) {
                memory = memory.max(memory_now());
            }
            inputs += u64::from(matches!(chunk.event, ChunkEvent::Open(_)));
            let ChunkEvent::Data(data) = chunk.event else { return ControlFlow::Continue(()) };
            let Payload::Records(pieces) = data.payload else { panic!("not records") };
            for record in pieces {
                let expected_number = next.entry(chunk.input).or_insert(1);
                assert_eq!(record.sequence_number.parse::<usize>().unwrap(), *expected_number);
                *expected_number += 1;
                assert_eq!(record.data.len(), expected.len());
                // Ends are enough to see that a record is whole, and cost nothing.
                let ends = |data: &[u8]| (data[..8].to_vec(), data[data.len() - 8..].to_vec());
                assert_eq!(ends(&record.data), ends(&expected));
                records += 1;
                bytes += record.data.len() as u64;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let took = clock.monotonic().saturating_sub(began).as_secs_f64();
    println!(
        "{record_bytes:12} {:6.0} {:11.0} {:11.2}x {:11.2}x {:12} MiB",
        bytes as f64 / took / 1e6,
        records as f64 / took,
        (cpu_of("self") - reader_before) / took,
        (cpu_of(&server.pid()) - server_before) / took,
        (memory - memory_before) >> 20,
    );
    assert_eq!(inputs, shards as u64);
    server.end();
}

/// User and system time of a process so far.
fn cpu_seconds(pid: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    fn start(shards: usize, record_bytes: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, &shards.to_string(), &record_bytes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { child, endpoint: endpoint.trim().to_owned() }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The server's process: one thread for each connection.
fn serve(shards: usize, record_bytes: usize) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    println!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let answer = Arc::new(Answer::new(record_bytes));
    for connection in listener.incoming() {
        let answer = Arc::clone(&answer);
        let connection = connection.unwrap();
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // The other side may be gone at any time.
                let _gone = connected(&connection, shards, &answer).is_err();
            })
            .unwrap();
    }
}

fn connected(mut connection: &TcpStream, shards: usize, answer: &Answer) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut own = answer.text.clone();
    let mut reader = BufReader::new(connection);
    while let Some((operation, body)) = request(&mut reader)? {
        let small = match operation.as_str() {
            "ListShards" => listing(shards),
            "GetShardIterator" => {
                let shard = text_after(&body, "\"ShardId\":\"shardId-");
                format!("{{\"ShardIterator\":\"{shard:0>DIGITS$}:{:0DIGITS$}\"}}", 1)
            }
            "GetRecords" => {
                let iterator = text_after(&body, "\"ShardIterator\":\"");
                let (shard, next) = iterator.split_once(':').unwrap();
                answer.fill(&mut own, shard, next.parse().unwrap());
                connection.write_all(head(own.len()).as_bytes())?;
                connection.write_all(&own)?;
                continue;
            }
            "DescribeStreamConsumer" => format!(
                "{{\"ConsumerDescription\":{{\"ConsumerName\":\"gauge\",\"ConsumerARN\":\"{CONSUMER_ARN}\",\"ConsumerStatus\":\"ACTIVE\",\"ConsumerCreationTimestamp\":1767225600.0,\"StreamARN\":\"s\"}}}}"
            ),
            "SubscribeToShard" => return push(connection, answer, &mut own),
            other => panic!("unexpected call of {other}"),
        };
        connection.write_all((head(small.len()) + &small).as_bytes())?;
    }
    Ok(())
}

/// Events until the other side goes away.
fn push(mut connection: &TcpStream, answer: &Answer, text: &mut [u8]) -> std::io::Result<()> {
    connection.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n",
    )?;
    let is_empty = answer.numbers_at.is_empty();
    let mut next = 1;
    loop {
        answer.fill(text, "0", next);
        next += answer.numbers_at.len();
        connection.write_all(&event_frame(text))?;
        std::thread::sleep(if is_empty { EMPTY_EVENT_INTERVAL } else { EVENT_INTERVAL });
    }
}

/// Length, length of headers, checksum of both; headers, payload, checksum of all.
fn event_frame(payload: &[u8]) -> Vec<u8> {
    let headers =
        b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x15SubscribeToShardEvent";
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    let mut frame = Vec::with_capacity(16 + headers.len() + payload.len());
    frame.extend(length(16 + headers.len() + payload.len()));
    frame.extend(length(headers.len()));
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(payload);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}

fn head(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn request(reader: &mut impl BufRead) -> std::io::Result<Option<(String, String)>> {
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if let Some(value) = line.strip_prefix("x-amz-target: kinesis_20131202.") {
            value.clone_into(&mut operation);
        }
    }
    let known = [
        "ListShards",
        "GetShardIterator",
        "GetRecords",
        "DescribeStreamConsumer",
        "SubscribeToShard",
    ];
    let operation = known.into_iter().find(|known| known.eq_ignore_ascii_case(&operation));
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((operation.unwrap().to_owned(), String::from_utf8(body).unwrap())))
}

fn text_after<'a>(body: &'a str, start: &str) -> &'a str {
    let (_, rest) = body.split_once(start).unwrap();
    rest.split_once('"').unwrap().0
}

fn listing(shards: usize) -> String {
    let shards: Vec<String> = (0..shards)
        .map(|shard| {
            format!(
                "{{\"ShardId\":\"shardId-{shard:012}\",\"HashKeyRange\":{{\"StartingHashKey\":\"0\",\"EndingHashKey\":\"{}\"}},\"SequenceNumberRange\":{{\"StartingSequenceNumber\":\"1\"}}}}",
                u128::MAX
            )
        })
        .collect();
    format!("{{\"Shards\":[{}]}}", shards.join(","))
}

/// An answer with places for what differs from one to the next.
struct Answer {
    text: Vec<u8>,
    iterator_at: usize,
    numbers_at: Vec<usize>,
}

impl Answer {
    fn new(record_bytes: usize) -> Self {
        let data = STANDARD.encode_to_string(payload(record_bytes));
        let zeros = "0".repeat(DIGITS);
        let is_idle = record_bytes == 0;
        let behind_ms = if is_idle { 0 } else { 60_000 };
        let start = format!(
            "{{\"MillisBehindLatest\":{behind_ms},\"ContinuationSequenceNumber\":\"0\",\"NextShardIterator\":\""
        );
        let mut text = format!("{start}{zeros}:{zeros}\",\"Records\":[");
        let mut numbers_at = Vec::new();
        let records = if is_idle { 0 } else { ANSWER_BYTES.div_ceil(record_bytes) };
        for index in 0..records {
            if index > 0 {
                text.push(',');
            }
            text.push_str("{\"ApproximateArrivalTimestamp\":1767225600.5,\"Data\":\"");
            text.push_str(&data);
            text.push_str("\",\"PartitionKey\":\"key\",\"SequenceNumber\":\"");
            numbers_at.push(text.len());
            text.push_str(&zeros);
            text.push_str("\"}");
        }
        text.push_str("]}");
        Self { text: text.into_bytes(), iterator_at: start.len(), numbers_at }
    }

    fn fill(&self, text: &mut [u8], shard: &str, first: usize) {
        let mut put = |at: usize, digits: &str| {
            text[at..at + digits.len()].copy_from_slice(digits.as_bytes());
        };
        let next = first + self.numbers_at.len();
        put(self.iterator_at, &format!("{shard:0>DIGITS$}:{next:0DIGITS$}"));
        for (index, at) in self.numbers_at.iter().enumerate() {
            put(*at, &format!("{:0DIGITS$}", first + index));
        }
    }
}
