//! A build without S3: the same types, of which there is nothing.

use std::sync::Arc;
use std::time::Duration;

use super::super::directory::StateDirectory;
use super::super::error::{CheckpointError, RefusalReason};
use super::{RemoteError, SnapshotFile};
use crate::clock::Clock;

/// Where copies lie: nowhere.
pub enum RemoteSettings {}

/// Copies that no process owns.
pub enum Remote {}

impl Remote {
    /// Never called.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is that of a build with S3")]
    pub fn claim(
        settings: RemoteSettings,
        _directory: &Arc<StateDirectory>,
        _job: u128,
        _clock: &Arc<dyn Clock>,
        _is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self, CheckpointError> {
        match settings {}
    }

    /// Never called.
    #[must_use]
    pub fn url(&self) -> &str {
        match *self {}
    }

    /// Never called.
    #[must_use]
    pub fn epochs(&self) -> Vec<u64> {
        match *self {}
    }

    pub(in super::super) fn url_of(&self, _epoch: u64) -> String {
        match *self {}
    }

    pub(in super::super) fn fetch(
        &mut self,
        _epoch: u64,
    ) -> Result<Result<(), RefusalReason>, CheckpointError> {
        match *self {}
    }

    pub(in super::super) fn refuse(&mut self, _epoch: u64, _is_worthless: bool) {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn upload(&mut self, _snapshot: &SnapshotFile) -> Result<(), RemoteError> {
        match *self {}
    }

    /// Never called.
    #[must_use]
    pub fn renew_in(&self) -> Duration {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn renew(&mut self) -> Result<(), RemoteError> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn release(self) -> Result<(), RemoteError> {
        match self {}
    }
}
