//! Bounded channels and permits whose back-pressure is measured: how often somebody waits for them, and how long.

use std::sync::Arc;

use crossbeam_channel::{
    Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError, bounded,
};

use crate::clock::Clock;
use crate::metrics::{ChannelMeter, ChannelMeters};

/// The sending end.
pub(super) struct Way<T> {
    sender: Sender<T>,
    meter: Arc<ChannelMeter>,
    clock: Arc<dyn Clock>,
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            meter: Arc::clone(&self.meter),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl<T> Way<T> {
    /// Sends, and waits while the channel is full.
    ///
    /// # Errors
    /// If nobody receives any more.
    pub(super) fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.meter.count(self.sender.len(), None);
                Ok(())
            }
            Err(TrySendError::Disconnected(message)) => Err(SendError(message)),
            Err(TrySendError::Full(message)) => {
                let began = self.clock.monotonic();
                let sent = self.sender.send(message);
                let waited = self.clock.monotonic().saturating_sub(began);
                self.meter.count(self.sender.len(), Some(waited));
                sent
            }
        }
    }
}

/// Permits for what may be under way at a time.
#[derive(Clone)]
pub(super) struct Permits {
    free: Receiver<()>,
    count: usize,
    meter: Arc<ChannelMeter>,
    clock: Arc<dyn Clock>,
}

impl Permits {
    /// Takes a permit, and waits while there is none.
    ///
    /// # Errors
    /// If nobody gives any back any more.
    pub(super) fn take(&self) -> Result<(), RecvError> {
        let (taken, waited) = match self.free.try_recv() {
            Ok(()) => (Ok(()), None),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
            Err(TryRecvError::Empty) => {
                let began = self.clock.monotonic();
                (self.free.recv(), Some(self.clock.monotonic().saturating_sub(began)))
            }
        };
        self.meter.count(self.count.saturating_sub(self.free.len()), waited);
        taken
    }
}

/// Makes channels of one run, and their meters.
pub(super) struct Ways {
    clock: Arc<dyn Clock>,
    meters: ChannelMeters,
}

impl Ways {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, meters: ChannelMeters::default() }
    }

    /// `count` channels of `capacity` messages each that share a meter.
    pub(super) fn several<T>(
        &mut self,
        name: &'static str,
        capacity: usize,
        count: usize,
    ) -> Vec<(Way<T>, Receiver<T>)> {
        let meter = self.meters.add(name, capacity);
        let channel = || {
            let (sender, receiver) = bounded(capacity);
            let (meter, clock) = (Arc::clone(&meter), Arc::clone(&self.clock));
            (Way { sender, meter, clock }, receiver)
        };
        (0..count).map(|_| channel()).collect()
    }

    /// A channel of `capacity` messages.
    pub(super) fn one<T>(&mut self, name: &'static str, capacity: usize) -> (Way<T>, Receiver<T>) {
        self.several(name, capacity, 1).pop().expect("one was asked for")
    }

    /// `count` permits, all of them free, and where they are given back.
    pub(super) fn permits(&mut self, name: &'static str, count: usize) -> (Sender<()>, Permits) {
        let (given_back, free) = bounded(count);
        for _ in 0..count {
            given_back.try_send(()).expect("there is room for all");
        }
        let (meter, clock) = (self.meters.add(name, count), Arc::clone(&self.clock));
        (given_back, Permits { free, count, meter, clock })
    }

    pub(super) const fn meters(&self) -> &ChannelMeters {
        &self.meters
    }
}
