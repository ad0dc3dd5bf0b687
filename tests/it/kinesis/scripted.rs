//! A server that speaks just enough Kinesis to fail on purpose, which no real server can be made to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64_simd::STANDARD;
use serde_json::{Value, json};

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
    /// Whether the shard is closed after its last record.
    pub(crate) closed: bool,
}

/// What a call asked of a shard, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) shard: usize,
    /// The iterator type, or `None` for GetRecords.
    pub(crate) iterator_type: Option<String>,
}

#[derive(Debug)]
struct State {
    scripts: Vec<Script>,
    get_records_calls: Vec<usize>,
    iterator_calls: Vec<usize>,
    page_shards: usize,
}

/// The server; ends when dropped.
pub(crate) struct ScriptedKinesis {
    pub(crate) endpoint: String,
    /// Every call of a shard, when it is answered.
    pub(crate) calls: Receiver<Call>,
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
            page_shards,
        }));
        let is_done = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("scripted-kinesis".into())
            .spawn(move || accept(&listener, &state, &is_done, &report))
            .unwrap();
        Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            calls,
            port,
            done,
            thread: Some(thread),
        }
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
    done: &AtomicBool,
    report: &Sender<Call>,
) {
    for connection in listener.incoming() {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let connection = connection.unwrap();
        let (state, report) = (Arc::clone(state), report.clone());
        // It ends with the connection, which the client closes.
        std::thread::Builder::new()
            .name("scripted-connection".into())
            .spawn(move || serve(&connection, &state, &report))
            .unwrap();
    }
}

fn serve(connection: &TcpStream, state: &Mutex<State>, report: &Sender<Call>) {
    let mut reader = BufReader::new(connection);
    while let Some((target, body)) = read_request(&mut reader) {
        let reply = state.lock().unwrap().answer(&target, &body, report);
        if send(connection, &reply).is_err() {
            return;
        }
        if matches!(reply, Reply::Cut | Reply::Half(_)) {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let mut target = String::new();
    let mut length = 0;
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
            "x-amz-target" => value.clone_into(&mut target),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((target, serde_json::from_slice(&body).unwrap()))
}

enum Reply {
    Answer(u16, String),
    Half(String),
    Cut,
}

fn send(mut connection: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let (status, body, sent) = match reply {
        Reply::Answer(status, body) => (*status, body, body.len()),
        Reply::Half(body) => (200, body, body.len() / 2),
        Reply::Cut => return Ok(()),
    };
    let mut answer = format!("HTTP/1.1 {status} scripted\r\n");
    write!(
        answer,
        "content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    answer.push_str(&body[..sent]);
    connection.write_all(answer.as_bytes())
}

fn faulty(fault: Fault, answer: &Value) -> Reply {
    match fault {
        Fault::Error(status, code) => {
            Reply::Answer(status, json!({"__type": code, "message": "scripted"}).to_string())
        }
        Fault::Reset => Reply::Cut,
        Fault::HalfAnswer => Reply::Half(answer.to_string()),
        Fault::Empty => unreachable!("an empty answer is built where answers are"),
    }
}

fn shard_id(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

impl State {
    fn answer(&mut self, target: &str, body: &Value, report: &Sender<Call>) -> Reply {
        let (reply, call) = match target.rsplit('.').next().unwrap() {
            "ListShards" => return self.list_shards(body),
            "GetShardIterator" => self.get_shard_iterator(body),
            "GetRecords" => self.get_records(body),
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
                json!({
                    "ShardId": shard_id(shard),
                    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": u128::MAX.to_string()},
                    "SequenceNumberRange": {"StartingSequenceNumber": "1"},
                })
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
        (reply, Call { shard, iterator_type: Some(iterator_type.to_owned()) })
    }

    fn get_records(&mut self, body: &Value) -> (Reply, Call) {
        let iterator = body["ShardIterator"].as_str().unwrap();
        let (shard, next) = iterator.split_once(':').unwrap();
        let (shard, next): (usize, usize) = (shard.parse().unwrap(), next.parse().unwrap());
        let script = &self.scripts[shard];
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
        if left > 0 || !script.closed {
            answer["NextShardIterator"] = json!(format!("{shard}:{end}"));
        }
        let reply = match fault {
            None | Some(Fault::Empty) => Reply::Answer(200, answer.to_string()),
            Some(fault) => faulty(fault, &answer),
        };
        (reply, Call { shard, iterator_type: None })
    }
}
