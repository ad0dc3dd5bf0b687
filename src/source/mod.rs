//! Where records come from: one file or folder per kind of source.
//!
//! A source runs on its own thread, given by the topology, and emits [`Chunk`]s until it has no more,
//! or until told to stop. Waiting in `emit` is the back-pressure: a source that cannot emit must not
//! read on.

#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
mod demo;
mod discover;
mod file;
#[cfg(feature = "firehose")]
pub mod firehose;
#[cfg(feature = "kinesis")]
pub mod kinesis;
mod rate_limit;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(any(feature = "aws", feature = "firehose"))]
mod service;
mod settled;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::framing::{Chunk, InputId, Positions};
use crate::metrics::IntakeMeter;

pub use demo::{DemoSettings, DemoSource};
pub use discover::{DiscoverError, EXPORT_TEST_OBJECT, discover};
pub use file::{FileSource, STDIN};
pub use rate_limit::RateLimit;
pub use settled::{Receipt, Settled};

/// Takes a chunk, waiting while the pipeline is full; `Break` means that the run is over and the source
/// must return at once.
pub type Emit<'a> = dyn FnMut(Chunk) -> ControlFlow<()> + 'a;

/// Something that yields flow logs.
pub trait Source: Send {
    /// Says how far inputs were read before, so that only what comes after is emitted. Asked before
    /// [`Self::run`], if at all; a source whose inputs can't be read twice begins anew.
    fn resume(&mut self, positions: Arc<Positions>) {
        drop(positions);
    }

    /// Gives the place where it is told which of its events are safe. Called before [`Self::run`], if at
    /// all; only a source that owes its service an answer keeps it.
    fn settled_by(&mut self, settled: Arc<Settled>) {
        drop(settled);
    }

    /// How to ask the source how it stands while it runs. Asked before [`Self::run`]; only a source that
    /// reads from a service has one.
    fn meter(&self) -> Option<IntakeMeter> {
        None
    }

    /// Emits everything, or until `stop` is requested: then it closes its inputs and returns.
    ///
    /// # Errors
    /// What makes the whole source useless (no such stream, no credentials). A fault of one input is not
    /// an error: it goes into that input's close event.
    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError>;
}

/// Why a source as a whole could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The service refused for good; the text says what to do.
    #[error("source `{name}`: {message}")]
    Refused {
        /// The name in the configuration.
        name: String,
        /// What was refused and what to do.
        message: String,
    },
}

/// How soon a request to stop is seen by who waits for something else.
#[cfg(feature = "aws")]
const STOP_CHECK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// A request to stop that every thread of a run can see.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks every holder to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// The flag itself, for a signal handler to set.
    #[must_use]
    pub fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Does the work, or gives it up when a stop is requested: then `None`.
    #[cfg(feature = "aws")]
    pub(crate) async fn unless_requested<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let requested = async {
            while !self.is_requested() {
                tokio::time::sleep(STOP_CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            () = requested => None,
            done = work => Some(done),
        }
    }
}

/// Gives every input of a run its own id, whichever source it belongs to.
#[derive(Debug, Default)]
pub struct InputIds(AtomicU32);

impl InputIds {
    /// The next id, from 0 on.
    ///
    /// # Panics
    /// After 4,294,967,295 inputs.
    #[must_use]
    pub fn next(&self) -> InputId {
        let id = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(id < u32::MAX, "a run has more inputs than ids");
        InputId(id)
    }
}
