//! One request, from its head to its answer.
//!
//! ```text
//! head: path, key, forms ─► memory ─► body, in time ─► gzip ─► JSON ─► frames ─► writer ─► 200
//! ```
//!
//! Whatever is wrong is refused as early as it is known, before any memory is taken for the body.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue, RETRY_AFTER,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout, timeout_at};

use super::access::AccessKeys;
use super::body;
use super::budget::{MemoryBudget, Reservation};
use super::counters::FirehoseCounters;
use super::frame::{Frame, Origin, pack};
use super::head::{Head, KEY};
use super::refusal::{BODY_BYTES_MAX, Cause, Refusal};
use super::writer::{Submission, Taken};
use crate::clock::Clock;
use crate::framing::{Inflated, Inflater};
use crate::recent::name_hash;

/// Where a load balancer asks whether the endpoint is there.
const HEALTH_PATH: &str = "/health";

/// A body must come within so long, and never pause for longer: Firehose gives up after three minutes.
const BODY_TIME_MAX: Duration = Duration::from_mins(2);
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a request waits for its turn at the disk before it is refused.
const WRITE_WAIT_MAX: Duration = Duration::from_mins(1);

/// What a request takes in memory beside its body.
const REQUEST_OVERHEAD_BYTES: u64 = 16 << 10;

/// What a record takes beside its bytes.
const RECORD_OVERHEAD_BYTES: u64 = 128;

/// Work on a body of this size holds up other connections of its thread.
const LARGE_BODY_BYTES: usize = 256 << 10;

/// What is read of a body that is refused, so that its sender sees the answer.
const DRAIN_BYTES_MAX: usize = 8 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Delivery streams that are told of when they deliver for the first time.
const SENDERS_MAX: usize = 1_000;

/// What a sender that is refused for the moment is told to wait, seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What all requests share.
pub(super) struct Intake {
    pub(super) source_name: Arc<str>,
    pub(super) path: String,
    pub(super) keys: AccessKeys,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) submissions: mpsc::Sender<Submission>,
    pub(super) counters: Arc<FirehoseCounters>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether there is no more room on the disk.
    pub(super) is_full: Arc<AtomicBool>,
    pub(super) is_stopping: AtomicBool,
    /// Whether nothing is acknowledged.
    pub(super) is_look: bool,
    /// Delivery streams that delivered.
    pub(super) senders: Mutex<HashSet<Box<str>>>,
    /// The last reason for which a request was refused, for the log.
    pub(super) trouble: Mutex<Option<String>>,
}

type Answer = Response<Full<Bytes>>;

impl Intake {
    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (parts, mut body) = request.into_parts();
        if parts.method == Method::GET && parts.uri.path() == HEALTH_PATH {
            return self.health();
        }
        let mut request_id = Head::request_id_of(&parts.headers).unwrap_or_default().to_owned();
        let outcome = match self.check(&parts) {
            Ok(head) => self.take(&head, &mut body, &mut request_id).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => self.response(StatusCode::OK, &request_id, None),
            Err(refusal) => {
                // A sender that waits for leave to send its body sends none.
                if !parts.headers.contains_key(EXPECT) {
                    tokio::spawn(timeout(DRAIN_TIME_MAX, drain(body)));
                }
                self.refuse(&refusal, &request_id)
            }
        }
    }

    fn health(&self) -> Answer {
        let is_well = !self.is_stopping.load(Ordering::Relaxed);
        let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut response = Response::new(Full::from(status.as_str().to_owned()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }

    /// Everything that can be said before the body is there.
    fn check<'a>(&self, parts: &'a Parts) -> Result<Head<'a>, Refusal> {
        if parts.uri.path() != self.path {
            return Err(Refusal::Path);
        }
        if parts.method != Method::POST {
            return Err(Refusal::Method);
        }
        let key = parts.headers.get(KEY).map(HeaderValue::as_bytes);
        if !self.keys.admit(key) {
            return Err(if key.is_some() { Refusal::WrongKey } else { Refusal::NoKey });
        }
        let head = Head::read(&parts.headers)?;
        if head.content_length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
            return Err(Refusal::TooLarge);
        }
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping);
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Refusal::SpoolFull);
        }
        Ok(head)
    }

    async fn take(
        &self,
        head: &Head<'_>,
        incoming: &mut Incoming,
        request_id: &mut String,
    ) -> Result<(), Refusal> {
        self.note_sender(head);
        let expected_bytes = head.content_length.unwrap_or(0);
        let mut reservation =
            self.budget.take(memory_for(expected_bytes)).ok_or(Refusal::NoMemory)?;
        let bytes = read_body(incoming, expected_bytes, &mut reservation).await?;
        let request = if bytes.len() < LARGE_BODY_BYTES {
            self.unpack(head, bytes, &mut reservation)?
        } else {
            block_in_place(|| self.unpack(head, bytes, &mut reservation))?
        };
        request_id.clone_from(&request.id);
        let (answer, answered) = oneshot::channel();
        let Unpacked { id, frames, record_count } = request;
        let request_hash = name_hash(id.as_bytes());
        let submission = Submission { request_hash, frames, reservation, answer };
        self.submissions.try_send(submission).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::NoMemory,
            mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
        })?;
        let taken = match timeout(WRITE_WAIT_MAX, answered).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => return Err(Refusal::Stopping),
            // It may be written yet; when it comes again, its id is known.
            Err(_) => return Err(Refusal::NoMemory),
        };
        match taken {
            Taken::New => {
                self.counters.requests.add(1);
                self.counters.records.add(record_count as u64);
            }
            Taken::Repeated => self.counters.repeated.add(1),
        }
        if self.is_look { Err(Refusal::Looked) } else { Ok(()) }
    }

    /// Inflates a body, reads it and puts its records into frames.
    fn unpack(
        &self,
        head: &Head<'_>,
        bytes: Vec<u8>,
        reservation: &mut Reservation,
    ) -> Result<Unpacked, Refusal> {
        let wire_bytes = u32::try_from(bytes.len()).expect("bodies are limited");
        let bytes = if head.is_gzip { inflate(&bytes, reservation)? } else { bytes };
        let body = body::read(&bytes)?;
        if head.request_id.is_some_and(|id| id != body.request_id) {
            return Err(Refusal::OtherId);
        }
        let id = body.request_id.to_owned();
        let name = match head.stream_name() {
            Some(stream) => format!("{stream}/{id}"),
            None => id.clone(),
        };
        let frames = pack(
            &body.records,
            &Origin {
                request_hash: name_hash(id.as_bytes()),
                name: &name,
                arrival_ms: body.timestamp_ms.unwrap_or_else(|| self.clock.now_ms()),
                wire_bytes,
            },
        );
        let record_count = body.records.len();
        drop(bytes);
        let frame_bytes: usize = frames.iter().map(|frame| frame.bytes().len()).sum();
        let overhead_bytes = REQUEST_OVERHEAD_BYTES + RECORD_OVERHEAD_BYTES * record_count as u64;
        reservation.settle(frame_bytes as u64 + overhead_bytes);
        Ok(Unpacked { id, frames, record_count })
    }

    /// Tells of a delivery stream when it delivers for the first time, with the attributes that it was given.
    fn note_sender(&self, head: &Head<'_>) {
        let Some(arn) = head.source_arn else { return };
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if senders.len() < SENDERS_MAX && !senders.contains(arn) {
            senders.insert(arn.into());
            drop(senders);
            tracing::info!(
                source = &*self.source_name,
                delivery_stream = arn,
                attributes = head.attributes.as_deref().unwrap_or_default(),
                "a delivery stream delivers"
            );
        }
    }

    fn refuse(&self, refusal: &Refusal, request_id: &str) -> Answer {
        let counters = &self.counters;
        match refusal.cause() {
            Cause::Unauthorized => counters.unauthorized.add(1),
            Cause::Rejected => counters.rejected.add(1),
            Cause::Full => counters.refused_full.add(1),
            Cause::Cut => counters.cut.add(1),
            // Counted where it was found out.
            Cause::Unwritten => {}
        }
        let message = refusal.to_string();
        let mut response = self.response(refusal.status(), request_id, Some(&message));
        if refusal.is_passing() {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if *refusal == Refusal::Method {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        response
    }

    /// An answer as Firehose wants it: these members, no others, and the timestamp as a number.
    fn response(&self, status: StatusCode, request_id: &str, message: Option<&str>) -> Answer {
        let mut answer = serde_json::json!({
            "requestId": request_id,
            "timestamp": self.clock.now_ms(),
        });
        if let Some(message) = message {
            answer["errorMessage"] = message.into();
        }
        let text = answer.to_string();
        let length = text.len();
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, length.into());
        response
    }
}

/// A request whose records are in frames.
struct Unpacked {
    id: String,
    frames: Vec<Frame>,
    record_count: usize,
}

/// The memory for a body of so many bytes, and its records beside it.
const fn memory_for(body_bytes: u64) -> u64 {
    REQUEST_OVERHEAD_BYTES + 2 * body_bytes
}

/// Reads a body to its end, as long as it comes in time and there is memory for it.
async fn read_body(
    incoming: &mut Incoming,
    expected_bytes: u64,
    reservation: &mut Reservation,
) -> Result<Vec<u8>, Refusal> {
    let capacity = usize::try_from(expected_bytes).unwrap_or(BODY_BYTES_MAX);
    let mut bytes = Vec::with_capacity(capacity.min(BODY_BYTES_MAX));
    let deadline = Instant::now() + BODY_TIME_MAX;
    loop {
        let pause_end = Instant::now() + BODY_PAUSE_MAX;
        let frame = match timeout_at(deadline.min(pause_end), incoming.frame()).await {
            Ok(None) => return Ok(bytes),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Refusal::Cut),
            Err(_) => return Err(Refusal::Slow),
        };
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if !reservation.grow_to(memory_for(length as u64)) {
            return Err(Refusal::NoMemory);
        }
        bytes.extend_from_slice(&data);
    }
}

/// Inflates a body, which may claim or hold any size.
fn inflate(packed: &[u8], reservation: &mut Reservation) -> Result<Vec<u8>, Refusal> {
    let room_bytes = Inflater::room_for(packed, BODY_BYTES_MAX) as u64;
    if !reservation.grow_to(packed.len() as u64 + memory_for(room_bytes)) {
        return Err(Refusal::NoMemory);
    }
    let mut bytes = Vec::new();
    match Inflater::default().gzip(packed, &mut bytes, BODY_BYTES_MAX) {
        Inflated::Whole => Ok(bytes),
        Inflated::Cut => Err(Refusal::Gzip),
        Inflated::TooLarge => Err(Refusal::TooLarge),
    }
}

/// Reads and forgets what comes of a refused body, up to a limit: a sender that is still writing would not see its
/// answer otherwise.
async fn drain(mut body: Incoming) {
    let mut drained_bytes = 0;
    while let Some(Ok(frame)) = body.frame().await
        && drained_bytes < DRAIN_BYTES_MAX
    {
        drained_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
