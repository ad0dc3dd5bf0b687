//! Delivery: findings to the journal and to every sink, and a count of them by kind.
//!
//! The journal comes first: a finding that a sink has is in it. After a restart findings of panes that were judged
//! after the last snapshot come again; the journal drops those that it has, the sinks may get them twice, with the
//! same id and revision. While the journal cannot be written, messages wait here, and when there are many, in
//! the channel: the stream then stands still, and nothing is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::message::{PartName, SavedPart, ToDeliver};
use crate::checkpoint::{Epoch, Journal, JournalError, JournalPosition};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Finding, FindingKind};
use crate::metrics::LatencyHistogram;
use crate::sink::{Sink, SinkError};

/// Messages that may wait for the journal before no more are taken.
const WAITING_MAX: usize = 64;

/// The sinks of a run.
pub(super) struct Delivery {
    sinks: Vec<Box<dyn Sink>>,
    journal: Option<Journal>,
    by_kind: BTreeMap<FindingKind, u64>,
    failure: Option<SinkError>,
    waiting: VecDeque<ToDeliver>,
    /// Where the journal was at barriers whose snapshots are not durable yet.
    positions: VecDeque<(Epoch, JournalPosition)>,
    latency: LatencyHistogram,
}

/// What was delivered.
#[derive(Debug, Default)]
pub struct DeliveryReport {
    /// Findings by kind; an update counts as its finding did, once.
    pub by_kind: BTreeMap<FindingKind, u64>,
    /// The first sink that failed, which stopped the run.
    pub failure: Option<SinkError>,
    /// From the arrival of the chunk that completed a pane to its findings being with the sinks.
    pub latency: LatencyHistogram,
}

impl Delivery {
    pub(super) fn new(sinks: Vec<Box<dyn Sink>>, journal: Option<Journal>) -> Self {
        Self {
            sinks,
            journal,
            by_kind: BTreeMap::new(),
            failure: None,
            waiting: VecDeque::new(),
            positions: VecDeque::new(),
            latency: LatencyHistogram::new(),
        }
    }

    /// What was counted before, as it was saved.
    ///
    /// # Errors
    /// If the bytes are not a delivery's.
    pub(super) fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("delivery", 1..=1)?;
        for _ in 0..from.count(1)? {
            let name = from.text()?;
            let kind = FindingKind::from_name(name).ok_or(DecodeError::Invalid("finding kind"))?;
            self.by_kind.insert(kind, from.u64()?);
        }
        Ok(())
    }

    /// Takes a message of the judge, and gives the saved state when a barrier is through.
    pub(super) fn take(
        &mut self,
        message: ToDeliver,
        now: Duration,
        saved: &mut dyn FnMut(SavedPart),
    ) {
        self.waiting.push_back(message);
        self.work(now, saved);
    }

    /// Does what waits, as far as the journal lets it.
    pub(super) fn work(&mut self, now: Duration, saved: &mut dyn FnMut(SavedPart)) {
        while let Some(message) = self.waiting.pop_front() {
            let done = match &message {
                ToDeliver::Findings { findings, arrived } => {
                    self.deliver(findings).inspect(|()| {
                        if let Some(arrived) = arrived {
                            self.latency.record(now.saturating_sub(*arrived));
                        }
                    })
                }
                ToDeliver::Barrier(epoch) => self.save(*epoch).map(&mut *saved),
            };
            if let Err(error) = done {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "findings wait: the journal cannot be written"
                );
                self.waiting.push_front(message);
                return;
            }
        }
    }

    /// Whether something waits for the journal.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so much waits that no more should be given.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Whether a sink has failed, after which the run must stop.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The snapshot of this barrier is durable: findings before it will not come again.
    pub(super) fn durable(&mut self, epoch: Epoch) {
        let Some(journal) = &mut self.journal else { return };
        while self.positions.front().is_some_and(|(saved, _)| *saved < epoch) {
            self.positions.pop_front();
        }
        if let Some((_, position)) = self.positions.pop_front_if(|(saved, _)| *saved == epoch) {
            journal.forget_before(position);
        }
    }

    /// Hands findings to the journal and every sink.
    ///
    /// # Errors
    /// If the journal could not take them; nothing has happened then, and they may be given again.
    pub(super) fn deliver(&mut self, findings: &[Finding]) -> Result<(), JournalError> {
        if let Some(journal) = &mut self.journal {
            journal.append(findings)?;
        }
        for finding in findings.iter().filter(|finding| finding.revision == 0) {
            *self.by_kind.entry(finding.kind).or_default() += 1;
        }
        if !findings.is_empty() && self.failure.is_none() {
            self.failure = self.sinks.iter_mut().find_map(|sink| sink.write(findings).err());
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> DeliveryReport {
        if self.failure.is_none() {
            self.failure = self.sinks.iter_mut().find_map(|sink| sink.flush().err());
        }
        DeliveryReport { by_kind: self.by_kind, failure: self.failure, latency: self.latency }
    }

    /// Makes the findings before a barrier durable.
    fn save(&mut self, epoch: Epoch) -> Result<SavedPart, JournalError> {
        let mut saved = Encoder::default();
        saved.version(1);
        saved.count(self.by_kind.len());
        for (kind, count) in &self.by_kind {
            saved.text(kind.name());
            saved.u64(*count);
        }
        if let Some(journal) = &mut self.journal {
            journal.sync()?;
            let position = journal.position();
            position.save(&mut saved);
            self.positions.push_back((epoch, position));
        }
        Ok(SavedPart { epoch, name: PartName::Delivery, segments: saved.into_segments() })
    }
}
