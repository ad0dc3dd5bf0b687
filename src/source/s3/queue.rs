//! Objects that a queue tells of: messages are received, their objects read, and messages deleted once all their
//! objects are safe.
//!
//! Until then a message stays invisible to others, for which its time is extended again and again. A message that can't
//! be understood, or of which an object can't be had, is never deleted here: it becomes visible again, later each
//! time, until the queue itself moves it to its dead-letter queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::failure::{Backoff, FailureKind};
use super::readers::{Outcome, Readers, Standing};
use super::settings::QueueSettings;
use super::sqs::{BATCH_MAX, Queue, QueueFailure, Received};
use super::{Desk, Fatal, read_notification};
use crate::aws::retry::jitter;

/// Messages that are under way at most; SQS allows 120,000 for all readers of a queue.
const MESSAGES_MAX: usize = 1_000;
/// Calls that look after the queue at one time.
const CALLS_MAX: usize = 8;
/// Between two looks at the stop flag and at what is to be answered.
const TICK: Duration = Duration::from_millis(100);
/// How long a message that could not be dealt with stays away the first time, if a person may still act, and if
/// nothing will change; and how long at most.
const LEAVE_FOR_PEOPLE: Duration = Duration::from_secs(30);
const LEAVE_FOR_GOOD: Duration = Duration::from_secs(1);
const LEAVE_MAX: Duration = Duration::from_mins(15);
/// Tries of the first receive, about half a minute.
const FIRST_TRIES_MAX: u32 = 8;
/// How long a stop waits for the last records to be safe, and for the last answers.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(2);

/// The messages of a queue.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    settings: QueueSettings,
    queue: Arc<Queue>,
    readers: Readers,
    /// By their ids, which stay the same when they are delivered again.
    messages: HashMap<Arc<str>, Message>,
    /// By the names of objects that are not safe yet.
    waiting_for: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Handles of messages to delete.
    to_delete: Vec<String>,
    /// Handles of messages, and for how long they stay invisible.
    to_hide: Vec<(String, Duration)>,
    calls: JoinSet<Call>,
    is_receiving: bool,
    receive_at: Instant,
    receive_backoff: Backoff,
    has_received: bool,
}

/// A message whose objects are not all safe.
struct Message {
    handle: String,
    receive_count: u32,
    objects_left: usize,
    /// For how long it is left alone the first time, if one of its objects can't be had or it was not understood.
    left_for: Option<Duration>,
    /// When it has to be hidden for longer.
    extend_at: Instant,
}

enum Call {
    Received(Result<Vec<Received>, QueueFailure>),
    /// Handles that are still to be deleted, for that failed.
    Deleted(usize, Vec<String>),
    Hidden,
}

impl Keeper {
    pub(super) fn new(desk: Arc<Desk>, settings: QueueSettings, config: &SdkConfig) -> Self {
        Self {
            queue: Arc::new(Queue::new(config, &settings)),
            readers: Readers::new(Arc::clone(&desk)),
            desk,
            settings,
            messages: HashMap::new(),
            waiting_for: HashMap::new(),
            to_delete: Vec::new(),
            to_hide: Vec::new(),
            calls: JoinSet::new(),
            is_receiving: false,
            receive_at: Instant::now(),
            receive_backoff: Backoff::default(),
            has_received: false,
        }
    }

    /// Reads what the queue tells of until a stop is requested or nothing more can be done.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.desk.stop.is_requested() {
            self.receive();
            self.answer(BATCH_MAX);
            tokio::select! {
                end = self.readers.next() => self.object_ended(end?),
                Some(call) = self.calls.join_next() => self.call_ended(call)?,
                _ = tick.tick() => {
                    self.extend();
                    self.answer(1);
                }
            }
        }
        self.finish().await
    }

    /// Asks for messages if there is room for them.
    fn receive(&mut self) {
        let has_room = self.messages.len() + BATCH_MAX <= MESSAGES_MAX
            && self.readers.waiting_count() < self.desk.parallel;
        if self.is_receiving || !has_room || Instant::now() < self.receive_at {
            return;
        }
        self.is_receiving = true;
        let (queue, visibility) = (Arc::clone(&self.queue), self.settings.visibility);
        self.calls.spawn(async move { Call::Received(queue.receive(visibility).await) });
    }

    fn call_ended(&mut self, call: Result<Call, tokio::task::JoinError>) -> Result<(), Fatal> {
        match call.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Call::Received(received) => {
                self.is_receiving = false;
                match received {
                    Ok(messages) => {
                        (self.has_received, self.receive_backoff) = (true, Backoff::default());
                        messages.into_iter().for_each(|message| self.take(message));
                    }
                    Err(failure) => self.receive_failed(&failure)?,
                }
            }
            Call::Deleted(count, failed) => {
                self.desk.counters.messages_deleted.add(count as u64);
                self.to_delete.extend(failed);
            }
            Call::Hidden => {}
        }
        Ok(())
    }

    fn receive_failed(&mut self, failure: &QueueFailure) -> Result<(), Fatal> {
        let delay = self.receive_backoff.delay(failure.kind, jitter());
        let tries = self.receive_backoff.failures_in_a_row();
        let message = &failure.message;
        if !self.has_received && (failure.is_final() || tries >= FIRST_TRIES_MAX) {
            let name = self.settings.name();
            return Err(Fatal::Refused(format!("cannot receive from queue `{name}`: {message}")));
        }
        self.desk.counters.retried.add(1);
        tracing::warn!(
            source = &*self.desk.source_name,
            tries,
            error = message,
            "cannot receive from the queue; it is asked again"
        );
        self.receive_at = Instant::now() + delay;
        Ok(())
    }

    fn take(&mut self, received: Received) {
        let Received { id, handle, receive_count, body } = received;
        self.desk.counters.messages.add(1);
        let extend_at = Instant::now() + self.settings.visibility / 2;
        if let Some(message) = self.messages.get_mut(&id) {
            // It came again while its objects are read: the new handle is the one that counts.
            (message.handle, message.receive_count, message.extend_at) =
                (handle, receive_count, extend_at);
            return;
        }
        let told = read_notification(&body);
        if let Some(fault) = &told.fault {
            tracing::error!(
                source = &*self.desk.source_name,
                message = &*id,
                receive_count,
                error = fault,
                "a message is not understood; it is left to the queue and its dead-letter queue"
            );
        }
        let mut message = Message {
            handle,
            receive_count,
            objects_left: 0,
            left_for: told.fault.is_some().then_some(LEAVE_FOR_GOOD),
            extend_at,
        };
        for object in told.objects {
            let name = object.name();
            if self.readers.add(object) != Standing::Safe {
                let waiting = self.waiting_for.entry(name).or_default();
                if !waiting.contains(&id) {
                    waiting.push(Arc::clone(&id));
                    message.objects_left += 1;
                }
            }
        }
        if message.objects_left == 0 {
            self.message_ended(message);
        } else {
            self.messages.insert(id, message);
        }
    }

    fn object_ended(&mut self, (name, outcome): (Arc<str>, Outcome)) {
        let left_for = match outcome {
            Outcome::Safe => None,
            // Its messages are given back when all is stopped.
            Outcome::Stopped => return,
            Outcome::Unavailable(failure) => {
                tracing::error!(
                    source = &*self.desk.source_name,
                    object = &*name,
                    error = failure.message,
                    "an object can't be read; its message is left to the queue and its dead-letter queue"
                );
                Some(match failure.kind {
                    FailureKind::Gone => LEAVE_FOR_GOOD,
                    _ => LEAVE_FOR_PEOPLE,
                })
            }
        };
        for id in self.waiting_for.remove(&name).unwrap_or_default() {
            let Some(message) = self.messages.get_mut(&id) else { continue };
            message.objects_left -= 1;
            message.left_for = message.left_for.max(left_for);
            if message.objects_left == 0
                && let Some(message) = self.messages.remove(&id)
            {
                self.message_ended(message);
            }
        }
    }

    fn message_ended(&mut self, message: Message) {
        if let Some(first) = message.left_for {
            self.desk.counters.messages_left.add(1);
            let doublings = message.receive_count.saturating_sub(1).min(16);
            let hidden = first.saturating_mul(1 << doublings).min(LEAVE_MAX);
            self.to_hide.push((message.handle, hidden));
        } else {
            self.to_delete.push(message.handle);
        }
    }

    /// Keeps what is under way from others.
    fn extend(&mut self) {
        let (now, visibility) = (Instant::now(), self.settings.visibility);
        for message in self.messages.values_mut().filter(|message| message.extend_at <= now) {
            message.extend_at = now + visibility / 2;
            self.to_hide.push((message.handle.clone(), visibility));
        }
    }

    /// Sends answers, if there are as many as `count_min` of a kind.
    fn answer(&mut self, count_min: usize) {
        while self.to_delete.len() >= count_min && self.calls.len() < CALLS_MAX {
            let handles = take_batch(&mut self.to_delete);
            if handles.is_empty() {
                break;
            }
            let queue = Arc::clone(&self.queue);
            self.calls.spawn(async move {
                let count = handles.len();
                let failed = queue.delete(handles).await;
                Call::Deleted(count - failed.len(), failed)
            });
        }
        while self.to_hide.len() >= count_min && self.calls.len() < CALLS_MAX {
            let handles = take_batch(&mut self.to_hide);
            if handles.is_empty() {
                break;
            }
            let queue = Arc::clone(&self.queue);
            self.calls.spawn(async move {
                queue.hide(handles).await;
                Call::Hidden
            });
        }
    }

    /// Lets readers come to their ends, and gives back what is not safe.
    async fn finish(mut self) -> Result<(), Fatal> {
        self.readers.give_up_waiting();
        while self.readers.reading_count() > 0 {
            if let Some(end) = self.readers.step().await? {
                self.object_ended(end);
            }
        }
        let deadline = Instant::now() + LAST_ANSWERS_MAX;
        while !self.readers.is_idle()
            && let Ok(end) = tokio::time::timeout_at(deadline, self.readers.next()).await
        {
            self.object_ended(end?);
        }
        let given_back: Vec<Message> = self.messages.drain().map(|(_, message)| message).collect();
        self.to_hide.extend(given_back.into_iter().map(|message| (message.handle, Duration::ZERO)));
        self.calls.abort_all();
        let last_answers = async {
            while !self.to_delete.is_empty() {
                let handles = take_batch(&mut self.to_delete);
                let failed = self.queue.delete(handles).await;
                if !failed.is_empty() {
                    break;
                }
            }
            while !self.to_hide.is_empty() {
                let handles = take_batch(&mut self.to_hide);
                self.queue.hide(handles).await;
            }
        };
        if timeout(LAST_ANSWERS_MAX, last_answers).await.is_err() {
            tracing::warn!(
                source = &*self.desk.source_name,
                "the queue does not answer; its messages come again later and are known then"
            );
        }
        Ok(())
    }
}

fn take_batch<T>(all: &mut Vec<T>) -> Vec<T> {
    all.drain(..all.len().min(BATCH_MAX)).collect()
}
