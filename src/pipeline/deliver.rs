//! Delivery: findings to the journal and to every sink, and a count of them by kind.
//!
//! The journal comes first: a finding that a sink has is in it, for good. After a restart findings of panes that were
//! judged after the last snapshot come again; the journal knows them, and they go no further. What a sink may not have got
//! before the process ended it is given from the journal, from its own place on: so a sink may get a finding
//! twice, with the same id and revision, and never misses one. While the journal cannot be written, messages wait
//! here, and when there are many, in the channel: the stream then stands still, and nothing is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::dead_letters::LetterBox;
use super::message::{Epoch, PartName, SavedPart, ToDeliver};
use crate::aggregate::TalkerWindow;
use crate::checkpoint::{
    CheckpointError, Cursors, DeadLetterCounters, Journal, JournalCounters, JournalMark,
};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Finding, FindingKind};
use crate::metrics::LatencyHistogram;
use crate::sink::{Sink, SinkError, encode};

/// Messages that may wait for the journal before no more are taken.
const WAITING_MAX: usize = 64;

/// Findings that are encoded, made durable and given to sinks together. A pane may have a hundred thousand:
/// as one batch, their lines would take fresh memory several times over.
const DELIVERED_AT_ONCE: usize = 2048;

/// Findings that a sink is given again at once.
const RESENT_AT_ONCE: usize = 1024;

/// Findings by kind; an update counts as its finding did, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FindingCounts(BTreeMap<FindingKind, u64>);

impl FindingCounts {
    fn of(findings: &[Finding]) -> Self {
        let mut counts = BTreeMap::new();
        for finding in findings.iter().filter(|finding| finding.revision == 0) {
            *counts.entry(finding.kind).or_default() += 1;
        }
        Self(counts)
    }

    fn add(&mut self, other: Self) {
        for (kind, count) in other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.count(self.0.len());
        for (kind, count) in &self.0 {
            out.text(kind.name());
            out.u64(*count);
        }
    }

    /// As it was saved.
    ///
    /// # Errors
    /// If the bytes are no counts.
    pub(super) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("finding counts", 1..=1)?;
        let mut counts = BTreeMap::new();
        for _ in 0..from.count(16)? {
            let kind = FindingKind::from_name(from.text()?);
            counts.insert(kind.ok_or(DecodeError::Invalid("finding kind"))?, from.u64()?);
        }
        Ok(Self(counts))
    }
}

/// The journal and how far each sink has got in it.
pub(super) struct DurableFindings {
    pub(super) journal: Journal,
    pub(super) cursors: Cursors,
}

/// The sinks of a run.
pub(super) struct Delivery {
    sinks: Vec<Box<dyn Sink>>,
    /// Those of tops of windows; what is before a barrier is with them when it is through.
    talker_sinks: Vec<Box<dyn Sink>>,
    durable: Option<DurableFindings>,
    counts: FindingCounts,
    failure: Option<SinkError>,
    waiting: VecDeque<ToDeliver>,
    /// Findings that are in the journal and may not be durable: no sink has them.
    unsent: Vec<Finding>,
    /// The same as lines of the native form.
    unsent_lines: Vec<u8>,
    /// Where the journal was at barriers whose snapshots are not durable yet.
    marks: VecDeque<(Epoch, JournalMark)>,
    /// That of the newest snapshot; the older one is kept too, and a restart may begin with it.
    durable_mark: Option<JournalMark>,
    latency: LatencyHistogram,
    letters: Option<LetterBox>,
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
    /// What the journal did, if there is one.
    pub journal: Option<JournalCounters>,
    /// Batches of findings that the journal could not take until the end; a restart makes them again.
    pub unwritten: usize,
    /// What became of dead letters, if they are put aside.
    pub dead_letters: Option<DeadLetterCounters>,
}

impl Delivery {
    /// Opens delivery: a sink that is new begins with what is found from now on, the others get what they
    /// may not have got.
    ///
    /// # Errors
    /// If where new sinks begin cannot be made durable.
    pub(super) fn new(
        sinks: Vec<Box<dyn Sink>>,
        talker_sinks: Vec<Box<dyn Sink>>,
        mut durable: Option<DurableFindings>,
        letters: Option<LetterBox>,
        counts: FindingCounts,
    ) -> Result<Self, CheckpointError> {
        if let Some(DurableFindings { journal, cursors }) = &mut durable {
            cursors.retain(|name| sinks.iter().any(|sink| sink.name() == name));
            let position = journal.sync()?;
            for sink in &sinks {
                if cursors.get(sink.name()).is_none() {
                    cursors.set(sink.name(), position);
                }
            }
            cursors.save()?;
        }
        let mut delivery = Self {
            sinks,
            talker_sinks,
            durable,
            counts,
            failure: None,
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            unsent_lines: Vec::new(),
            marks: VecDeque::new(),
            durable_mark: None,
            latency: LatencyHistogram::new(),
            letters,
        };
        delivery.failure = delivery.resend().err();
        Ok(delivery)
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
        while let Some(mut message) = self.waiting.pop_front() {
            let done = match &mut message {
                ToDeliver::Findings { findings, arrived } => {
                    let delivered = self.deliver(findings);
                    if let (Ok(()), Some(arrived)) = (&delivered, arrived) {
                        self.latency.record(now.saturating_sub(*arrived));
                    }
                    delivered
                }
                ToDeliver::Talkers(windows) => {
                    self.deliver_talkers(windows);
                    Ok(())
                }
                ToDeliver::Barrier(epoch) => self.save(*epoch).map(&mut *saved),
                ToDeliver::Letters(letters) => {
                    self.letters.iter_mut().for_each(|to| to.put(letters));
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "findings wait until the journal can be written"
                );
                self.waiting.push_front(message);
                return;
            }
        }
    }

    /// From the arrival of the chunk that completed a pane to its findings being with the sinks.
    pub(super) const fn latency(&self) -> &LatencyHistogram {
        &self.latency
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

    /// The snapshot of this barrier is durable: findings before the one before it will not come again.
    pub(super) fn durable(&mut self, epoch: Epoch) {
        let Some(DurableFindings { journal, .. }) = &mut self.durable else { return };
        while self.marks.front().is_some_and(|(saved, _)| *saved < epoch) {
            self.marks.pop_front();
        }
        if let Some((_, mark)) = self.marks.pop_front_if(|(saved, _)| *saved == epoch)
            && let Some(older) = self.durable_mark.replace(mark)
        {
            journal.forget_before(&older);
        }
    }

    pub(super) fn finish(mut self) -> DeliveryReport {
        if self.failure.is_none() {
            let mut sinks = self.sinks.iter_mut().chain(&mut self.talker_sinks);
            self.failure = sinks.find_map(|sink| sink.flush().err());
        }
        if let Err(error) = self.settle() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the journal's last findings may not be durable; a restart makes them again"
            );
        }
        DeliveryReport {
            by_kind: self.counts.0,
            failure: self.failure,
            latency: self.latency,
            journal: self.durable.map(|durable| durable.journal.counters()),
            unwritten: self.waiting.len(),
            dead_letters: self.letters.map(LetterBox::finish),
        }
    }

    /// Hands findings to the journal, and those that it did not know to every sink, so many at a time; takes
    /// them out of the list once they are counted.
    ///
    /// # Errors
    /// If the journal could not take them or make them durable: what is left in the list is to be given again.
    fn deliver(&mut self, findings: &mut Vec<Finding>) -> Result<(), CheckpointError> {
        // What an earlier call could not make durable.
        self.send()?;
        let mut rest = std::mem::take(findings).into_iter();
        while rest.len() > 0 {
            let mut batch: Vec<_> = rest.by_ref().take(DELIVERED_AT_ONCE).collect();
            if let Err(error) = self.append(&mut batch).and_then(|()| self.send()) {
                batch.extend(rest);
                *findings = batch;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands a batch to the journal, takes it out of the list and counts it.
    fn append(&mut self, findings: &mut Vec<Finding>) -> Result<(), CheckpointError> {
        let counts = FindingCounts::of(findings);
        match &mut self.durable {
            None => {
                let lines = &mut self.unsent_lines;
                findings.iter().for_each(|finding| encode::ndjson::encode(finding, lines));
            }
            Some(DurableFindings { journal, .. }) => {
                journal.append(findings)?;
                self.unsent_lines.extend_from_slice(journal.appended());
            }
        }
        self.counts.add(counts);
        self.unsent.append(findings);
        Ok(())
    }

    /// Makes what was appended durable and gives it to every sink.
    fn send(&mut self) -> Result<(), CheckpointError> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        if let Some(DurableFindings { journal, .. }) = &mut self.durable {
            journal.sync()?;
        }
        if self.failure.is_none() {
            let (findings, lines) = (&self.unsent, &self.unsent_lines);
            self.failure = self.sinks.iter_mut().find_map(|sink| sink.write(findings, lines).err());
        }
        self.unsent.clear();
        self.unsent_lines.clear();
        Ok(())
    }

    /// Hands tops of windows to the sinks that take them. They are in no journal: after a restart windows that ended
    /// after the last snapshot come again.
    fn deliver_talkers(&mut self, windows: &[TalkerWindow]) {
        if self.failure.is_some() || self.talker_sinks.is_empty() {
            return;
        }
        let mut lines = Vec::new();
        windows.iter().for_each(|window| encode::talkers::encode(window, &mut lines));
        let mut sinks = self.talker_sinks.iter_mut();
        self.failure = sinks.find_map(|sink| sink.write(&[], &lines).err());
    }

    /// Gives sinks what they may not have got before the process ended.
    fn resend(&mut self) -> Result<(), SinkError> {
        let Some(DurableFindings { journal, cursors }) = &mut self.durable else { return Ok(()) };
        for sink in &mut self.sinks {
            let cursor = cursors.get(sink.name());
            let mut lines: Vec<Vec<u8>> = Vec::new();
            for line in journal.read_from(cursor) {
                match line {
                    Ok(line) => lines.push(line.finding),
                    Err(fault) => tracing::error!(
                        sink = sink.name(),
                        error = &fault as &dyn std::error::Error,
                        "a sink cannot be given all findings of the journal"
                    ),
                }
                if lines.len() == RESENT_AT_ONCE {
                    sink.write_again(&lines)?;
                    lines.clear();
                }
            }
            sink.write_again(&lines)?;
        }
        Ok(())
    }

    /// Makes what was delivered durable, and notes that all sinks have it.
    fn settle(&mut self) -> Result<(), CheckpointError> {
        let Some(DurableFindings { journal, cursors }) = &mut self.durable else { return Ok(()) };
        let position = journal.sync()?;
        if self.failure.is_none() {
            let mut sinks = self.sinks.iter_mut().chain(&mut self.talker_sinks);
            self.failure = sinks.find_map(|sink| sink.flush().err());
        }
        if self.failure.is_none() {
            self.sinks.iter().for_each(|sink| cursors.set(sink.name(), position));
            cursors.save()?;
        }
        Ok(())
    }

    /// What the snapshot of a barrier holds, when the findings before it are durable.
    fn save(&mut self, epoch: Epoch) -> Result<SavedPart, CheckpointError> {
        self.settle()?;
        self.letters.iter_mut().for_each(LetterBox::sync);
        let mut saved = Encoder::default();
        self.counts.save(&mut saved);
        if let Some(DurableFindings { journal, .. }) = &self.durable {
            let mark = journal.mark();
            mark.save(&mut saved);
            self.marks.push_back((epoch, mark));
        }
        let mut part = SavedPart::new(epoch, PartName::Delivery, saved);
        // A sink that has failed has not got all that is before the barrier.
        part.needs_journal = self.failure.is_some();
        Ok(part)
    }
}
