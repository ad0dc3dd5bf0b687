//! What all tasks of a source share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;

use super::budget::ByteBudget;
use super::clients::Clients;
use super::counters::KinesisCounters;
use super::settings::KinesisSettings;
use super::trouble::Trouble;

/// How soon a request to stop is seen.
pub(super) const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What all readers of a source share.
pub(super) struct Shared {
    /// The name in the configuration.
    pub(super) source_name: Arc<str>,
    /// How the stream is read.
    pub(super) settings: KinesisSettings,
    /// The service.
    pub(super) clients: Arc<Clients>,
    /// Limits the answers in memory.
    pub(super) budget: Arc<ByteBudget>,
    /// Limits the calls, and so the connections, at one time. A subscription needs one only until it
    /// is answered.
    pub(super) calls: Semaphore,
    /// What was counted.
    pub(super) counters: Arc<KinesisCounters>,
    /// The last passing failure, for the log.
    pub(super) trouble: Trouble,
    /// Wall time, for the position of readers at the tip.
    pub(super) clock: Arc<dyn Clock>,
}
