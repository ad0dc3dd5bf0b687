//! A server that speaks just enough Kinesis to fail on purpose, which no real server can be made to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64_simd::STANDARD;
use flowgauge::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

mod pushed;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of the service.
    Error(u16, &'static str),
    /// The connection is cut before anything is answered.
    Reset,
    /// The connection is cut in the middle of the answer.
    HalfAnswer,
    /// An answer without records, though there are more.
    Empty,
    /// Nothing comes, though the connection stays.
    Silence,
}

/// How a subscription goes wrong, after its first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// An error of the service in place of the subscription.
    Error(u16, &'static str),
    /// The stream ends between two frames, as after five minutes.
    Expire,
    /// The connection is cut within a frame.
    Truncate,
    /// A frame comes with a wrong checksum.
    Corrupt,
    /// An error of the service as an event.
    Exception(&'static str),
    /// Nothing comes any more, not even empty events.
    Silence,
}

/// A shard and what happens to its readers.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Payloads; record `n` has sequence number `n + 1`.
    pub(crate) records: Vec<Vec<u8>>,
    /// Records per answer.
    pub(crate) answer_records: usize,
    /// What happens to the n-th GetRecords call, from 0.
    pub(crate) faults: BTreeMap<usize, Fault>,
    /// What happens to the n-th GetShardIterator call.
    pub(crate) iterator_faults: BTreeMap<usize, Fault>,
    /// What happens to the n-th subscription; others push what is left, then empty events.
    pub(crate) pushes: BTreeMap<usize, Push>,
    /// Whether the shard is closed after its last record.
    pub(crate) closed: bool,
    /// How often GetRecords says that the shard ends where it does not.
    pub(crate) false_ends: usize,
}

/// What a call asked of a shard, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) shard: usize,
    /// The iterator type of an iterator or a subscription, or `None` for GetRecords.
    pub(crate) iterator_type: Option<String>,
    /// The sequence number with it.
    pub(crate) after: Option<String>,
}

/// Credentials that a call was signed with, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The id of the access key.
    pub(crate) access_key: String,
    /// `x-amz-date`.
    pub(crate) date: String,
}

#[derive(Debug)]
struct State {
    scripts: Vec<Script>,
    get_records_calls: Vec<usize>,
    iterator_calls: Vec<usize>,
    subscribe_calls: Vec<usize>,
    page_shards: usize,
    /// The consumers by name, with how often they are looked at until they are active.
    consumers: BTreeMap<String, usize>,
    denied: Vec<&'static str>,
    skewed: bool,
    signatures: Vec<Signature>,
}

/// The server; ends when dropped.
pub(crate) struct ScriptedKinesis {
    pub(crate) endpoint: String,
    /// Every call of a shard, when it is answered.
    pub(crate) calls: Receiver<Call>,
    state: Arc<Mutex<State>>,
    port: u16,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedKinesis {
    /// A stream with one shard per script, listed `page_shards` at a time.
    pub(crate) fn start(scripts: Vec<Script>, page_shards: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = Arc::new(AtomicBool::new(false));
        let (report, calls) = channel();
        let count = scripts.len();
        let state = Arc::new(Mutex::new(State {
            scripts,
            get_records_calls: vec![0; count],
            iterator_calls: vec![0; count],
            subscribe_calls: vec![0; count],
            page_shards,
            consumers: BTreeMap::new(),
            denied: Vec::new(),
            skewed: false,
            signatures: Vec::new(),
        }));
        let is_done = Arc::clone(&done);
        let its_state = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("scripted-kinesis".into())
            .spawn(move || accept(&listener, &its_state, &is_done, &report))
            .unwrap();
        Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            calls,
            state,
            port,
            done,
            thread: Some(thread),
        }
    }

    /// Calls of these operations are denied from now on.
    pub(crate) fn deny(&self, operations: &[&'static str]) {
        self.state.lock().unwrap().denied = operations.to_vec();
    }

    /// The clock of the service is two hours ahead, and only calls that are signed so are good.
    pub(crate) fn skew(&self) {
        self.state.lock().unwrap().skewed = true;
    }

    /// The consumers that are registered.
    pub(crate) fn consumers(&self) -> Vec<String> {
        self.state.lock().unwrap().consumers.keys().cloned().collect()
    }

    /// How all calls were signed.
    pub(crate) fn signatures(&self) -> Vec<Signature> {
        self.state.lock().unwrap().signatures.clone()
    }
}

impl Drop for ScriptedKinesis {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().expect("dropped once").join().unwrap();
    }
}

fn accept(
    listener: &TcpListener,
    state: &Arc<Mutex<State>>,
    done: &Arc<AtomicBool>,
    report: &Sender<Call>,
) {
    for connection in listener.incoming() {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let connection = connection.unwrap();
        let (state, report) = (Arc::clone(state), report.clone());
        let done = Arc::clone(done);
        // It ends with the connection, which the client closes.
        std::thread::Builder::new()
            .name("scripted-connection".into())
            .spawn(move || serve(&connection, &state, &report, &done))
            .unwrap();
    }
}

fn serve(connection: &TcpStream, state: &Mutex<State>, report: &Sender<Call>, done: &AtomicBool) {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader) {
        let reply = state.lock().unwrap().answer(&request, report);
        if send(connection, &reply, done).is_err() {
            return;
        }
        match reply {
            Reply::Answer(..) => {}
            Reply::Cut | Reply::Half(_) | Reply::Stream { then: Then::Cut | Then::GoOn, .. } => {
                return;
            }
            // Until the other side has enough of it.
            Reply::Nothing | Reply::Stream { then: Then::Silence, .. } => {
                let _end = reader.read(&mut [0]);
                return;
            }
        }
    }
}

/// A call as it came.
struct Request {
    operation: String,
    body: Value,
    signature: Signature,
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut operation = String::new();
    let mut length = 0;
    let mut signature = Signature { access_key: String::new(), date: String::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => value.rsplit('.').next().unwrap().clone_into(&mut operation),
            "content-length" => length = value.parse().unwrap(),
            "x-amz-date" => value.clone_into(&mut signature.date),
            "authorization" => {
                let (_, credential) = value.split_once("Credential=").unwrap();
                credential.split('/').next().unwrap().clone_into(&mut signature.access_key);
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { operation, body: serde_json::from_slice(&body).unwrap(), signature })
}

enum Reply {
    Answer(u16, String),
    Half(String),
    Cut,
    Nothing,
    Stream { frames: Vec<u8>, then: Then },
}

/// What comes after the frames of a subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Cut,
    Silence,
    /// The last frame again and again.
    GoOn,
}

/// Between two empty events; the service takes five seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(50);

fn send(mut connection: &TcpStream, reply: &Reply, done: &AtomicBool) -> std::io::Result<()> {
    let (status, body, sent) = match reply {
        Reply::Answer(status, body) => (*status, body, body.len()),
        Reply::Half(body) => (200, body, body.len() / 2),
        Reply::Cut | Reply::Nothing => return Ok(()),
        Reply::Stream { frames, then } => {
            // Without a length: it lasts until the connection ends.
            connection.write_all(
                b"HTTP/1.1 200 scripted\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n",
            )?;
            connection.write_all(frames)?;
            while *then == Then::GoOn && !done.load(Ordering::SeqCst) {
                std::thread::sleep(KEEP_ALIVE_INTERVAL);
                connection.write_all(&frames[pushed::last_frame(frames)..])?;
            }
            return Ok(());
        }
    };
    let mut answer = format!("HTTP/1.1 {status} scripted\r\n");
    write!(
        answer,
        "content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\ndate: {}\r\n\r\n",
        body.len(),
        http_date(),
    )
    .unwrap();
    answer.push_str(&body[..sent]);
    connection.write_all(answer.as_bytes())
}

/// The time of a service whose clock is two hours ahead of ours.
fn http_date() -> String {
    let ahead = jiff::Timestamp::from_second(SystemClock::new().now().0 + 7_200).unwrap();
    ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn faulty(fault: Fault, answer: &Value) -> Reply {
    match fault {
        Fault::Error(status, code) => {
            Reply::Answer(status, json!({"__type": code, "message": "scripted"}).to_string())
        }
        Fault::Reset => Reply::Cut,
        Fault::HalfAnswer => Reply::Half(answer.to_string()),
        Fault::Silence => Reply::Nothing,
        Fault::Empty => unreachable!("an empty answer is built where answers are"),
    }
}

fn shard_id(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

impl State {
    fn answer(&mut self, request: &Request, report: &Sender<Call>) -> Reply {
        let Request { operation, body, signature } = request;
        self.signatures.push(signature.clone());
        let error = |code: &str, message: &str| {
            Reply::Answer(400, json!({"__type": code, "message": message}).to_string())
        };
        if self.denied.iter().any(|denied| denied == operation) {
            return error("AccessDeniedException", &format!("not allowed: {operation}"));
        }
        if self.skewed {
            let ahead = jiff::Timestamp::from_second(SystemClock::new().now().0 + 7_200).unwrap();
            let good = ahead.strftime("%Y%m%dT%H").to_string();
            let nearly = ahead - jiff::SignedDuration::from_mins(5);
            let nearly = nearly.strftime("%Y%m%dT%H").to_string();
            if !signature.date.starts_with(&good) && !signature.date.starts_with(&nearly) {
                return error("InvalidSignatureException", "Signature expired");
            }
        }
        let (reply, call) = match operation.as_str() {
            "ListShards" => return self.list_shards(body),
            "DescribeStreamSummary" => return describe_stream(),
            "DescribeStreamConsumer" => return self.describe_consumer(body),
            "RegisterStreamConsumer" => return self.register_consumer(body),
            "DeregisterStreamConsumer" => return self.deregister_consumer(body),
            "GetShardIterator" => self.get_shard_iterator(body),
            "GetRecords" => self.get_records(body),
            "SubscribeToShard" => self.subscribe(body),
            other => panic!("unexpected call of {other}"),
        };
        // A test that has seen enough no longer listens.
        let _heard = report.send(call);
        reply
    }

    fn list_shards(&self, body: &Value) -> Reply {
        let first = match body.get("NextToken") {
            None => 0,
            Some(token) => {
                // As the real service has it: the token stands for the stream.
                assert!(body.get("StreamName").is_none() && body.get("MaxResults").is_none());
                token.as_str().unwrap().parse().unwrap()
            }
        };
        let end = (first + self.page_shards).min(self.scripts.len());
        let shards: Vec<Value> = (first..end)
            .map(|shard| {
                let mut listed = json!({
                    "ShardId": shard_id(shard),
                    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": u128::MAX.to_string()},
                    "SequenceNumberRange": {"StartingSequenceNumber": "1"},
                });
                if self.scripts[shard].closed {
                    let last = self.scripts[shard].records.len().to_string();
                    listed["SequenceNumberRange"]["EndingSequenceNumber"] = json!(last);
                }
                listed
            })
            .collect();
        let mut answer = json!({"Shards": shards});
        if end < self.scripts.len() {
            answer["NextToken"] = json!(end.to_string());
        }
        Reply::Answer(200, answer.to_string())
    }

    fn get_shard_iterator(&mut self, body: &Value) -> (Reply, Call) {
        let id = body["ShardId"].as_str().unwrap();
        let shard = (0..self.scripts.len()).find(|shard| shard_id(*shard) == id).unwrap();
        let iterator_type = body["ShardIteratorType"].as_str().unwrap();
        let next = match iterator_type {
            "TRIM_HORIZON" | "AT_TIMESTAMP" => 0,
            "AFTER_SEQUENCE_NUMBER" => {
                body["StartingSequenceNumber"].as_str().unwrap().parse().unwrap()
            }
            "LATEST" => self.scripts[shard].records.len(),
            other => panic!("unexpected iterator type {other}"),
        };
        let answer = json!({"ShardIterator": format!("{shard}:{next}")});
        let call = self.iterator_calls[shard];
        self.iterator_calls[shard] += 1;
        let reply = match self.scripts[shard].iterator_faults.get(&call) {
            Some(fault) => faulty(*fault, &answer),
            None => Reply::Answer(200, answer.to_string()),
        };
        let after = body["StartingSequenceNumber"].as_str().map(str::to_owned);
        (reply, Call { shard, iterator_type: Some(iterator_type.to_owned()), after })
    }

    fn get_records(&mut self, body: &Value) -> (Reply, Call) {
        let iterator = body["ShardIterator"].as_str().unwrap();
        let (shard, next) = iterator.split_once(':').unwrap();
        let (shard, next): (usize, usize) = (shard.parse().unwrap(), next.parse().unwrap());
        let script = &mut self.scripts[shard];
        let call = self.get_records_calls[shard];
        self.get_records_calls[shard] += 1;
        let fault = script.faults.get(&call).copied();
        let end = match fault {
            Some(Fault::Empty) => next,
            _ => (next + script.answer_records).min(script.records.len()),
        };
        let records: Vec<Value> = (next..end)
            .map(|index| {
                json!({
                    "SequenceNumber": (index + 1).to_string(),
                    "ApproximateArrivalTimestamp": 1_767_225_600.5,
                    "PartitionKey": "key",
                    "Data": STANDARD.encode_to_string(&script.records[index]),
                })
            })
            .collect();
        let left = script.records.len() - end;
        let mut answer = json!({"Records": records, "MillisBehindLatest": left});
        if fault.is_none() && script.false_ends > 0 && end > 0 {
            script.false_ends -= 1;
        } else if left > 0 || !script.closed {
            answer["NextShardIterator"] = json!(format!("{shard}:{end}"));
        }
        let reply = match fault {
            None | Some(Fault::Empty) => Reply::Answer(200, answer.to_string()),
            Some(fault) => faulty(fault, &answer),
        };
        (reply, Call { shard, iterator_type: None, after: None })
    }

    fn subscribe(&mut self, body: &Value) -> (Reply, Call) {
        let id = body["ShardId"].as_str().unwrap();
        let shard = (0..self.scripts.len()).find(|shard| shard_id(*shard) == id).unwrap();
        let position = &body["StartingPosition"];
        let position_type = position["Type"].as_str().unwrap();
        let next = match position_type {
            "TRIM_HORIZON" | "AT_TIMESTAMP" => 0,
            "AFTER_SEQUENCE_NUMBER" => {
                position["SequenceNumber"].as_str().unwrap().parse().unwrap()
            }
            "LATEST" => self.scripts[shard].records.len(),
            other => panic!("unexpected position {other}"),
        };
        let call = self.subscribe_calls[shard];
        self.subscribe_calls[shard] += 1;
        let reply = pushed::subscription(&self.scripts[shard], next, call);
        let after = position["SequenceNumber"].as_str().map(str::to_owned);
        (reply, Call { shard, iterator_type: Some(position_type.to_owned()), after })
    }

    fn describe_consumer(&mut self, body: &Value) -> Reply {
        let name = match body["ConsumerARN"].as_str() {
            Some(arn) => arn.split("/consumer/").nth(1).unwrap().split(':').next().unwrap(),
            None => body["ConsumerName"].as_str().unwrap(),
        };
        let Some(looks_left) = self.consumers.get_mut(name) else {
            let error = json!({"__type": "ResourceNotFoundException", "message": "no consumer"});
            return Reply::Answer(400, error.to_string());
        };
        let status = if *looks_left == 0 { "ACTIVE" } else { "CREATING" };
        *looks_left = looks_left.saturating_sub(1);
        Reply::Answer(200, json!({ "ConsumerDescription": consumer(name, status) }).to_string())
    }

    fn register_consumer(&mut self, body: &Value) -> Reply {
        assert_eq!(body["StreamARN"], STREAM_ARN);
        let name = body["ConsumerName"].as_str().unwrap();
        assert!(self.consumers.insert(name.to_owned(), 1).is_none(), "registered once");
        Reply::Answer(200, json!({ "Consumer": consumer(name, "CREATING") }).to_string())
    }

    fn deregister_consumer(&mut self, body: &Value) -> Reply {
        let arn = body["ConsumerARN"].as_str().unwrap();
        let name = arn.split("/consumer/").nth(1).unwrap().split(':').next().unwrap();
        assert!(self.consumers.remove(name).is_some());
        Reply::Answer(200, "{}".to_owned())
    }
}

const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/flow";

fn consumer(name: &str, status: &str) -> Value {
    json!({
        "ConsumerName": name,
        "ConsumerARN": format!("{STREAM_ARN}/consumer/{name}:1767225600"),
        "ConsumerStatus": status,
        "ConsumerCreationTimestamp": 1_767_225_600.0,
        "StreamARN": STREAM_ARN,
    })
}

fn describe_stream() -> Reply {
    let summary = json!({ "StreamDescriptionSummary": {
        "StreamName": "flow",
        "StreamARN": STREAM_ARN,
        "StreamStatus": "ACTIVE",
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_767_225_600.0,
        "EnhancedMonitoring": [],
        "OpenShardCount": 1,
    }});
    Reply::Answer(200, summary.to_string())
}
