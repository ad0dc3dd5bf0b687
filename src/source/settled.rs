//! What of the emitted events is safe, so that a source may tell whoever it has them from.
//!
//! The sequencer publishes after every snapshot how many of each input's events it holds; where snapshots are copied
//! elsewhere, after every copy, because the machine may vanish with what it alone has; without
//! snapshots, how many were handed on. Sources whose service keeps a message until it is told (a
//! queue, a spool) watch their inputs; nothing is kept of inputs that nobody watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use crate::framing::InputId;

/// The inputs of a run that somebody watches.
#[derive(Debug, Default)]
pub struct Settled(Mutex<HashMap<InputId, Weak<watch::Sender<u64>>>>);

/// How many of one input's events are safe. Dropping it ends the watch.
#[derive(Debug)]
pub struct Receipt {
    event_count: Arc<watch::Sender<u64>>,
}

impl Settled {
    /// Watches an input from now on. To be called before its first event is emitted.
    #[must_use]
    pub fn watch(&self, input: InputId) -> Receipt {
        let event_count = Arc::new(watch::Sender::new(0));
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.insert(input, Arc::downgrade(&event_count));
        Receipt { event_count }
    }

    /// Those of the inputs that somebody watches.
    #[must_use]
    pub fn only_watched(
        &self,
        event_counts: impl IntoIterator<Item = (InputId, u64)>,
    ) -> Vec<(InputId, u64)> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_empty() {
            return Vec::new();
        }
        let is_watched = |input: &InputId| {
            watched.get(input).is_some_and(|event_count| event_count.strong_count() > 0)
        };
        event_counts.into_iter().filter(|(input, _)| is_watched(input)).collect()
    }

    /// Says of inputs how many of their events, from the first on, are safe; counts never go back.
    pub fn publish(&self, event_counts: impl IntoIterator<Item = (InputId, u64)>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (input, event_count) in event_counts {
            if let Some(known) = watched.get(&input).and_then(Weak::upgrade) {
                known.send_if_modified(|known| {
                    let is_more = event_count > *known;
                    *known = event_count.max(*known);
                    is_more
                });
            }
        }
        watched.retain(|_, count| count.strong_count() > 0);
    }
}

impl Receipt {
    /// How many of the input's events, from the first on, are safe.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        *self.event_count.borrow()
    }

    /// Waits until as many of the input's events are safe.
    pub async fn at_least(&self, event_count: u64) {
        let mut changes = self.event_count.subscribe();
        // The sender is this receipt's own: it is there for as long as anybody waits.
        let _is_there = changes.wait_for(|known| *known >= event_count).await.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn what_is_published_is_seen_by_who_watches() {
        let settled = Settled::default();
        let receipt = settled.watch(InputId(1));
        let mut waiting = pin!(receipt.at_least(3));
        let mut poll = || waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        settled.publish([(InputId(1), 2), (InputId(2), 9)]);
        assert_eq!((poll(), receipt.event_count()), (Poll::Pending, 2));
        settled.publish([(InputId(1), 5)]);
        settled.publish([(InputId(1), 1)]);
        assert_eq!((poll(), receipt.event_count()), (Poll::Ready(()), 5));
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_watches() {
        let settled = Settled::default();
        settled.publish([(InputId(1), 2)]);
        let receipt = settled.watch(InputId(7));
        let counts = [(InputId(1), 3), (InputId(7), 4)];
        assert_eq!(settled.only_watched(counts), [(InputId(7), 4)]);
        drop(receipt);
        assert_eq!(settled.only_watched(counts), []);
        settled.publish([]);
        assert!(settled.0.lock().unwrap().is_empty());
    }
}
