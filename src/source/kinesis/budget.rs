//! A limit on payload bytes that were fetched and not yet handed on, over all shards.
//!
//! A reader sets bytes aside before it asks, because the answer is in memory before its size is
//! known, and corrects the figure afterwards. A correction upwards never waits: a reader that holds
//! some bytes and waits for more could wait for itself. It puts the balance below zero instead, and
//! nobody asks until it has recovered; so the limit can be passed by what was in flight, no more.
//!
//! What is pushed rather than asked for can't be set aside beforehand: a subscription looks into its
//! connection only while the balance is above zero ([`ByteBudget::while_open`]), and what comes out
//! is charged. A quarter of the budget must be free before all look again, so that thousands of
//! subscriptions are not woken for every chunk.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::sync::{Notify, watch};

/// The bytes that readers share.
#[derive(Debug)]
pub(super) struct ByteBudget {
    capacity: i64,
    available: Mutex<i64>,
    freed: Notify,
    /// Held while waiting for bytes: those who ask are served in order, and a large wish can't be
    /// overtaken for ever by small ones.
    turn: tokio::sync::Mutex<()>,
    /// Whether what is pushed may be taken.
    open: watch::Sender<bool>,
}

impl ByteBudget {
    /// A budget of `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Arc<Self> {
        let capacity = i64::try_from(capacity).unwrap_or(i64::MAX);
        assert!(capacity > 0);
        Arc::new(Self {
            capacity,
            available: Mutex::new(capacity),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            open: watch::Sender::new(true),
        })
    }

    /// Sets bytes aside, waiting until there are as many; a wish beyond the whole budget gets the
    /// whole budget. Dropping the future leaves everything as it was.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.capacity);
        let _turn = self.turn.lock().await;
        loop {
            {
                let mut available = self.available.lock().unwrap_or_else(PoisonError::into_inner);
                if *available >= wanted {
                    *available -= wanted;
                    self.open_or_close(*available);
                    return Reservation { budget: Arc::clone(self), bytes: wanted };
                }
            }
            self.freed.notified().await;
        }
    }

    /// Takes bytes that are in memory already.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64) -> Reservation {
        let mut charged = Reservation { budget: Arc::clone(self), bytes: 0 };
        charged.settle(bytes);
        charged
    }

    /// Looks at `work` only while there are bytes left: `None` when something came and there were none,
    /// which leaves it where it is.
    pub(super) async fn while_open<F: Future>(&self, mut work: Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            if !*self.open.borrow() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Whether what is pushed may be taken.
    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Waits until there are bytes left, a quarter of all if there were none.
    pub(super) async fn opened(&self) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the budget is still there");
    }

    fn open_or_close(&self, available: i64) {
        self.open.send_if_modified(|open| {
            let should_be = if *open { available > 0 } else { available >= self.capacity / 4 };
            std::mem::replace(open, should_be) != should_be
        });
    }

    fn change(&self, by: i64) {
        let mut available = self.available.lock().unwrap_or_else(PoisonError::into_inner);
        *available += by;
        self.open_or_close(*available);
        drop(available);
        if by > 0 {
            self.freed.notify_one();
        }
    }
}

/// Bytes set aside; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: i64,
}

impl Reservation {
    /// Replaces the estimate by what there really is.
    pub(super) fn settle(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.budget.change(self.bytes - bytes);
        self.bytes = bytes;
    }

    /// Moves a part of the bytes, or what is left of them, into a reservation of its own.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let part = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.bytes);
        self.bytes -= part;
        Self { budget: Arc::clone(&self.budget), bytes: part }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.change(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn reserve_now(budget: &Arc<ByteBudget>, bytes: u64) -> Option<Reservation> {
        match poll(pin!(budget.reserve(bytes))) {
            Poll::Ready(reservation) => Some(reservation),
            Poll::Pending => None,
        }
    }

    fn available(budget: &ByteBudget) -> i64 {
        *budget.available.lock().unwrap()
    }

    #[test]
    fn bytes_come_back() {
        let budget = ByteBudget::new(100);
        let mut first = reserve_now(&budget, 60).unwrap();
        assert!(reserve_now(&budget, 60).is_none());
        let part = first.split(50);
        drop(first);
        assert_eq!(available(&budget), 50);
        drop(part);
        assert_eq!(available(&budget), 100);
    }

    #[test]
    fn an_underestimate_is_a_debt_that_others_wait_for() {
        let budget = ByteBudget::new(100);
        let mut large = reserve_now(&budget, 10).unwrap();
        large.settle(250);
        assert_eq!(available(&budget), -150);
        assert!(reserve_now(&budget, 1).is_none());
        drop(large.split(200));
        assert!(reserve_now(&budget, 50).is_some());
        drop(large);
        assert_eq!(available(&budget), 100);
    }

    #[test]
    fn a_wish_beyond_the_budget_gets_all_of_it() {
        let budget = ByteBudget::new(100);
        let all = reserve_now(&budget, 1000).unwrap();
        assert_eq!(available(&budget), 0);
        drop(all);
        assert_eq!(available(&budget), 100);
    }

    #[test]
    fn what_is_pushed_is_looked_at_only_while_bytes_are_left() {
        let budget = ByteBudget::new(100);
        let first = budget.charge(60);
        assert_eq!(
            poll(pin!(budget.while_open(pin!(std::future::ready(1))))),
            Poll::Ready(Some(1))
        );
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let mut receive = pin!(receive);
        assert!(poll(pin!(budget.while_open(receive.as_mut()))).is_pending());
        let second = budget.charge(60);
        send.send(()).unwrap();
        assert_eq!(poll(pin!(budget.while_open(receive.as_mut()))), Poll::Ready(None));
        let mut opened = pin!(budget.opened());
        assert!(poll(opened.as_mut()).is_pending());
        drop(budget.charge(5));
        assert!(poll(opened.as_mut()).is_pending());
        drop(first);
        assert!(poll(opened.as_mut()).is_ready());
        let received = poll(pin!(budget.while_open(receive.as_mut())));
        assert_eq!(received, Poll::Ready(Some(Ok(()))));
        drop(second);
        assert_eq!(available(&budget), 100);
    }

    #[test]
    fn the_first_who_asked_is_served_first() {
        let budget = ByteBudget::new(100);
        let held = reserve_now(&budget, 100).unwrap();
        let mut large = pin!(budget.reserve(80));
        let mut small = pin!(budget.reserve(30));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending());
        drop(held);
        assert!(poll(small.as_mut()).is_pending());
        let Poll::Ready(first) = poll(large.as_mut()) else { panic!("80 bytes are free") };
        assert!(poll(small.as_mut()).is_pending());
        drop(first);
        assert!(poll(small.as_mut()).is_ready());
    }
}
