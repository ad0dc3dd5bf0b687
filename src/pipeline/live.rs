//! How a run stands while it goes on: counters that its threads keep up to date per chunk, and anybody may
//! read.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::job::Latencies;
use super::sequence::InputReport;
use crate::clock::Clock;
use crate::metrics::{
    ChannelMeters, IntakeMeter, LatencyHistogram, QueueFill, StatsSample, resident_bytes,
};
use crate::units::UnixSeconds;

/// The counters of a run. Those of the end are in its report.
pub struct Live {
    records: AtomicU64,
    bytes: AtomicU64,
    malformed: AtomicU64,
    late: AtomicU64,
    findings: AtomicU64,
    suppressed: AtomicU64,
    evicted: AtomicU64,
    /// The slowest inputs with their newest `end`, the slowest first.
    slowest: Mutex<Vec<(Arc<str>, UnixSeconds)>>,
    /// When the newest snapshot was durable, by the monotonic clock, in ms and 1; 0 if there is none.
    snapshot_at: AtomicU64,
    /// The same of the newest one that was copied.
    copy_at: AtomicU64,
    copies_skipped: AtomicU64,
    /// About as many bytes as all shards take when they are saved.
    saved_bytes: AtomicU64,
    meters: OnceLock<ChannelMeters>,
    intakes: OnceLock<Vec<IntakeMeter>>,
    latencies: Mutex<Latencies>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            late: AtomicU64::new(0),
            findings: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            slowest: Mutex::default(),
            snapshot_at: AtomicU64::new(0),
            copy_at: AtomicU64::new(0),
            copies_skipped: AtomicU64::new(0),
            saved_bytes: AtomicU64::new(0),
            meters: OnceLock::new(),
            intakes: OnceLock::new(),
            latencies: Mutex::default(),
        }
    }
}

impl Live {
    /// How the run stands at this moment, of a process that may use `memory_max_bytes`.
    #[must_use]
    pub fn sample(&self, clock: &dyn Clock, memory_max_bytes: u64) -> StatsSample {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let at = clock.monotonic();
        let now = clock.now();
        let lag = |(name, end): &(Arc<str>, UnixSeconds)| {
            let seconds = u64::try_from(now.0.saturating_sub(end.0)).unwrap_or(0);
            (Arc::clone(name), Duration::from_secs(seconds))
        };
        let slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let lags: Vec<_> = slowest.iter().map(lag).collect();
        drop(slowest);
        let age = |since: &AtomicU64| {
            let ms = read(since).checked_sub(1);
            ms.map(|ms| at.saturating_sub(Duration::from_millis(ms)))
        };
        let queue = |(stage, pressure): (&&'static str, &crate::metrics::BackPressure)| QueueFill {
            stage,
            waiting: usize::try_from(pressure.queued).unwrap_or(usize::MAX),
            capacity: usize::try_from(pressure.capacity).unwrap_or(usize::MAX),
        };
        let meters = self.meters.get().map(ChannelMeters::read).unwrap_or_default();
        let latencies = self.latencies();
        StatsSample {
            at,
            records: read(&self.records),
            bytes: read(&self.bytes),
            malformed: read(&self.malformed),
            late: read(&self.late),
            findings: read(&self.findings),
            suppressed: read(&self.suppressed),
            evicted: read(&self.evicted),
            lags,
            resident_bytes: resident_bytes(Path::new("/")),
            memory_max_bytes,
            queues: meters.iter().map(queue).collect(),
            latencies: vec![
                ("parse", latencies.parse.quantiles()),
                ("judge", latencies.judge.quantiles()),
                ("save", latencies.save.quantiles()),
                ("finding", latencies.finding.quantiles()),
            ],
            snapshot_age: age(&self.snapshot_at),
            copy_age: age(&self.copy_at),
            intakes: self.intakes.get().into_iter().flatten().map(|meter| meter()).collect(),
        }
    }

    /// How long stages took so far.
    pub(super) fn latencies(&self) -> Latencies {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the latency of one piece of work to the histogram that `of` picks.
    pub(super) fn record(
        &self,
        of: fn(&mut Latencies) -> &mut LatencyHistogram,
        duration: Duration,
    ) {
        of(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner)).record(duration);
    }

    /// Puts a histogram in place of the one that `of` picks.
    pub(super) fn replace(
        &self,
        of: fn(&mut Latencies) -> &mut LatencyHistogram,
        histogram: &LatencyHistogram,
    ) {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        of(&mut latencies).clone_from(histogram);
    }

    /// A shard takes `now` bytes when it is saved, and took `before` when it last said so.
    pub(super) fn note_saved_bytes(&self, before: usize, now: usize) {
        self.saved_bytes.fetch_add(now as u64, Ordering::Relaxed);
        self.saved_bytes.fetch_sub(before as u64, Ordering::Relaxed);
    }

    /// About as many bytes as all shards take when they are saved.
    pub(super) fn saved_bytes(&self) -> u64 {
        self.saved_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_meters(&self, meters: ChannelMeters) {
        // A run has one set.
        let _is_first = self.meters.set(meters).is_ok();
    }

    pub(super) fn set_intakes(&self, intakes: Vec<IntakeMeter>) {
        // A run has one set.
        let _is_first = self.intakes.set(intakes).is_ok();
    }

    pub(super) fn note_lags(&self, slowest: Vec<(Arc<str>, UnixSeconds)>) {
        *self.slowest.lock().unwrap_or_else(PoisonError::into_inner) = slowest;
    }

    pub(super) fn note_inputs(&self, report: &InputReport) {
        let totals = &report.totals;
        self.records.store(totals.records(), Ordering::Relaxed);
        self.bytes.store(report.bytes_decoded, Ordering::Relaxed);
        self.malformed.store(totals.faults.total(), Ordering::Relaxed);
        self.late.store(totals.late, Ordering::Relaxed);
    }

    pub(super) fn note_findings(&self, count: usize) {
        self.findings.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn note_suppressed(&self, count: u64) {
        self.suppressed.store(count, Ordering::Relaxed);
    }

    pub(super) fn note_snapshot(&self, now: Duration) {
        self.snapshot_at.store(since(now), Ordering::Relaxed);
    }

    pub(super) fn note_copy(&self, now: Duration) {
        self.copy_at.store(since(now), Ordering::Relaxed);
    }

    pub(super) fn note_copy_skipped(&self) {
        self.copies_skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Snapshots that were passed over, because an upload was still under way.
    pub(super) fn copies_skipped(&self) -> u64 {
        self.copies_skipped.load(Ordering::Relaxed)
    }
}

/// A moment that is never 0.
fn since(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1
}
