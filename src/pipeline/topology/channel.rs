//! A bounded channel whose back-pressure is measured: how often its senders wait, and how long.

use std::sync::Arc;

use crossbeam_channel::{Receiver, SendError, Sender, TrySendError, bounded};

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

    pub(super) const fn meters(&self) -> &ChannelMeters {
        &self.meters
    }
}
