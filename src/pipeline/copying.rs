//! Copies of snapshots: uploads what was written, one snapshot at a time, and shows in between that this process is
//! alive.
//!
//! An upload may take longer than the time between two snapshots. Then the newest that waits is next, and those between
//! are passed over. The stream knows nothing of it. One that fails is given up, counted and logged. If another process
//! has taken over the copies, the run must stop: both read the same sources.

use std::time::Duration;

use crate::checkpoint::{CheckpointError, Remote, RemoteError, SnapshotFile};

/// How often the last snapshot of a run is tried.
const LAST_TRIES: usize = 5;

/// Between two of these tries.
const LAST_TRY_PAUSE: Duration = Duration::from_secs(1);

/// What is known of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Snapshots copied.
    pub copied: u64,
    /// Snapshots that could not be copied.
    pub failed: u64,
    /// Snapshots passed over, because an upload was still under way when the next was there.
    pub skipped: u64,
    /// Bytes of the last copy.
    pub bytes: u64,
}

/// Copies snapshots.
pub(super) struct CopyStage {
    remote: Remote,
    report: CopyReport,
    /// The newest snapshot, if it could not be copied.
    uncopied: Option<SnapshotFile>,
    /// Somebody else owns the copies.
    failure: Option<RemoteError>,
}

impl CopyStage {
    pub(super) fn new(remote: Remote) -> Self {
        Self { remote, report: CopyReport::default(), uncopied: None, failure: None }
    }

    /// How long it may wait for a snapshot before [`Self::idle`] is due.
    pub(super) fn idle_after(&self) -> Duration {
        self.remote.renew_in()
    }

    /// Nothing came: shows that this process is alive.
    pub(super) fn idle(&mut self) {
        if self.failure.is_some() {
            return;
        }
        match self.remote.renew() {
            Ok(()) => {}
            Err(error) if error.is_final() => self.failure = Some(error),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not show that this process is alive; tries again"
            ),
        }
    }

    /// Copies a snapshot; whether it is safe now.
    pub(super) fn take(&mut self, snapshot: SnapshotFile) -> bool {
        if self.failure.is_some() {
            return false;
        }
        match self.remote.upload(&snapshot) {
            Ok(()) => {
                self.report.copied += 1;
                self.report.bytes = snapshot.bytes;
                self.uncopied = None;
                true
            }
            Err(error) if error.is_final() => {
                self.failure = Some(error);
                false
            }
            Err(error) => {
                self.report.failed += 1;
                self.uncopied = Some(snapshot);
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the newest snapshot is on this machine alone; the next is copied in its place"
                );
                false
            }
        }
    }

    /// Whether the run must stop.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Copies what is left, and gives the copies up for the next process; `pause` waits between two tries.
    ///
    /// # Errors
    /// If another process has taken over, or the last snapshot is on this machine alone.
    pub(super) fn finish(
        mut self,
        skipped: u64,
        pause: impl Fn(Duration),
    ) -> Result<CopyReport, CheckpointError> {
        let mut last = None;
        for attempt in 0..LAST_TRIES {
            if self.failure.is_some() {
                break;
            }
            let Some(snapshot) = &self.uncopied else { break };
            if attempt > 0 {
                pause(LAST_TRY_PAUSE);
            }
            match self.remote.upload(snapshot) {
                Ok(()) => {
                    self.report.copied += 1;
                    self.report.bytes = snapshot.bytes;
                    self.uncopied = None;
                }
                Err(error) if error.is_final() => self.failure = Some(error),
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = self.failure.or(last.filter(|_| self.uncopied.is_some())) {
            return Err(error.into());
        }
        let url = self.remote.url().to_owned();
        if let Err(error) = self.remote.release() {
            tracing::warn!(
                remote = url,
                error = &error as &dyn std::error::Error,
                "the copies were not given up; the next process waits before it takes over"
            );
        }
        let report = CopyReport { skipped, ..self.report };
        let CopyReport { copied, failed, .. } = report;
        tracing::info!(remote = url, copied, failed, skipped, "snapshots were copied");
        Ok(report)
    }
}
