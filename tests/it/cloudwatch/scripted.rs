//! A server that speaks just enough CloudWatch Logs to fail on purpose, which no real server can be made to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// An event: timestamp and id.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) timestamp_ms: i64,
    pub(crate) id: String,
}

/// A log group and what happens to its readers.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) events: Vec<Event>,
    /// Events of a page.
    pub(crate) page_events: usize,
    /// The error of the n-th call, from 0: status and code.
    pub(crate) faults: BTreeMap<usize, (u16, &'static str)>,
    /// Whether a page begins with the last event of the one before.
    pub(crate) repeats_at_borders: bool,
    /// Whether every other page is empty, as those of the service may be.
    pub(crate) has_empty_pages: bool,
}

#[derive(Debug)]
struct State {
    script: Script,
    call_count: usize,
}

/// The server; ends when dropped.
pub(crate) struct ScriptedLogs {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedLogs {
    pub(crate) fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { script, call_count: 0 }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (serves, ends) = (Arc::clone(&state), Arc::clone(&is_over));
        let accept = move || {
            for connection in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&serves);
                let serve = move || serve(connection.unwrap(), &state);
                std::thread::Builder::new().spawn(serve).unwrap();
            }
        };
        let thread = std::thread::Builder::new().spawn(accept).unwrap();
        Self { endpoint, state, is_over, thread: Some(thread) }
    }

    /// Adds an event.
    pub(crate) fn add(&self, event: Event) {
        self.state.lock().unwrap().script.events.push(event);
    }

    pub(crate) fn call_count(&self) -> usize {
        self.state.lock().unwrap().call_count
    }
}

impl Drop for ScriptedLogs {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let address = self.endpoint.trim_start_matches("http://");
        drop(TcpStream::connect(address));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers the calls of a connection until it ends.
fn serve(connection: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader) {
        let (status, answer) = answer(&request, &mut state.lock().unwrap());
        let body = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), body.as_bytes()].concat();
        if reader.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

/// The body of the next request; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn answer(request: &Value, state: &mut State) -> (u16, Value) {
    let call = state.call_count;
    state.call_count += 1;
    let script = &state.script;
    if let Some((status, code)) = script.faults.get(&call) {
        let message = "User: u is not authorized to perform: logs:FilterLogEvents on resource: r";
        return (*status, json!({ "__type": code, "message": message }));
    }
    let from = request["startTime"].as_i64().unwrap();
    let until = request["endTime"].as_i64().unwrap_or(i64::MAX);
    let within: Vec<&Event> =
        script.events.iter().filter(|event| (from..=until).contains(&event.timestamp_ms)).collect();
    let at: usize = request["nextToken"].as_str().map_or(0, |token| token.parse().unwrap());
    // Tokens of empty pages are odd.
    let (first, is_empty) = (at / 2, script.has_empty_pages && at % 2 == 1);
    let after = if is_empty { first } else { (first + script.page_events).min(within.len()) };
    let begin =
        if script.repeats_at_borders && !is_empty { first.saturating_sub(1) } else { first };
    let events: Vec<Value> = within[begin..after]
        .iter()
        .map(|event| {
            json!({
                "logStreamName": "eni-0a1b2c3d-all",
                "timestamp": event.timestamp_ms,
                "ingestionTime": event.timestamp_ms + 60_000,
                "eventId": event.id,
                "message": super::line(event.timestamp_ms / 1000),
            })
        })
        .collect();
    let next = (after < within.len()).then(|| {
        let is_empty_next = script.has_empty_pages && !is_empty;
        (2 * after + usize::from(is_empty_next)).to_string()
    });
    (200, json!({ "events": events, "nextToken": next }))
}
