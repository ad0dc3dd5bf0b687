//! Tells sources which of their events are safe.
//!
//! With snapshots: at a barrier is noted how many events of each input were handed on, and it is published once the
//! snapshot of that barrier is durable, or where snapshots are copied, once its copy is, since the machine may vanish;
//! of a snapshot that could not be written or copied nothing is. Without, what was handed
//! on counts as safe. Only inputs that somebody watches are kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::message::{Epoch, SnapshotFate};
use crate::framing::InputId;
use crate::source::Settled;

/// What was handed on of watched inputs and is not published.
pub(super) struct Receipts {
    settled: Arc<Settled>,
    /// Inputs that ended, with all their events.
    ended: BTreeMap<InputId, u64>,
    /// What the snapshots hold that are being written or copied, in order: one in each of these, and one that waits.
    cuts: VecDeque<(Epoch, Vec<(InputId, u64)>)>,
}

impl Receipts {
    pub(super) const fn new(settled: Arc<Settled>) -> Self {
        Self { settled, ended: BTreeMap::new(), cuts: VecDeque::new() }
    }

    /// Takes inputs that ended, with the number of their events.
    pub(super) fn note_ended(&mut self, ended: Vec<(InputId, u64)>) {
        if !ended.is_empty() {
            self.ended.extend(self.settled.only_watched(ended));
        }
    }

    /// A barrier is sent, before which so many events of the open inputs were handed on.
    pub(super) fn cut(&mut self, epoch: Epoch, open: impl IntoIterator<Item = (InputId, u64)>) {
        let ended = std::mem::take(&mut self.ended);
        self.ended = self.settled.only_watched(ended).into_iter().collect();
        let mut in_snapshot = self.settled.only_watched(open);
        in_snapshot.extend(self.ended.iter().map(|(input, count)| (*input, *count)));
        self.cuts.push_back((epoch, in_snapshot));
    }

    /// The snapshot of a barrier is written or copied, or given up.
    pub(super) fn snapshot_settled(&mut self, epoch: Epoch, fate: SnapshotFate) {
        match fate {
            SnapshotFate::OnThisMachine => {}
            SnapshotFate::Unsafe => self.cuts.retain(|(cut, _)| *cut != epoch),
            SnapshotFate::Safe => {
                while let Some((cut, in_snapshot)) =
                    self.cuts.pop_front_if(|(cut, _)| *cut <= epoch)
                {
                    if cut == epoch {
                        self.publish(in_snapshot);
                    }
                }
            }
        }
    }

    fn publish(&mut self, in_snapshot: Vec<(InputId, u64)>) {
        // One that ended after the barrier has more events by now.
        for (input, event_count) in &in_snapshot {
            if self.ended.get(input) == Some(event_count) {
                self.ended.remove(input);
            }
        }
        self.settled.publish(in_snapshot);
    }

    /// Publishes what was handed on of an open input, and all inputs that ended: there are no snapshots.
    pub(super) fn handed_on(&mut self, open: Option<(InputId, u64)>) {
        self.settled.publish(open.into_iter().chain(std::mem::take(&mut self.ended)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: InputId = InputId(1);
    const ENDED: InputId = InputId(2);
    const UNWATCHED: InputId = InputId(3);

    #[test]
    fn only_a_durable_snapshot_is_published() {
        let settled = Arc::new(Settled::default());
        let (open, ended) = (settled.watch(OPEN), settled.watch(ENDED));
        let mut receipts = Receipts::new(Arc::clone(&settled));
        let known = || (open.event_count(), ended.event_count());
        receipts.note_ended(vec![(ENDED, 4), (UNWATCHED, 9)]);
        receipts.cut(Epoch(1), [(OPEN, 2), (UNWATCHED, 5)]);
        assert_eq!((known(), receipts.cuts[0].1.len()), ((0, 0), 2));
        receipts.snapshot_settled(Epoch(1), SnapshotFate::Unsafe);
        assert_eq!((known(), receipts.ended.len()), ((0, 0), 1), "it is in the next snapshot");
        receipts.cut(Epoch(2), [(OPEN, 3)]);
        receipts.snapshot_settled(Epoch(2), SnapshotFate::Safe);
        assert_eq!((known(), receipts.ended.len()), ((3, 4), 0));
        receipts.snapshot_settled(Epoch(2), SnapshotFate::Safe);
        assert_eq!((known(), receipts.cuts.len()), ((3, 4), 0));
    }

    #[test]
    fn where_snapshots_are_copied_the_copy_counts() {
        let settled = Arc::new(Settled::default());
        let open = settled.watch(OPEN);
        let mut receipts = Receipts::new(Arc::clone(&settled));
        for epoch in 1..=4 {
            receipts.cut(Epoch(epoch), [(OPEN, epoch * 10)]);
            receipts.snapshot_settled(Epoch(epoch), SnapshotFate::OnThisMachine);
        }
        // The third was passed over, the second could not be copied.
        receipts.snapshot_settled(Epoch(3), SnapshotFate::Unsafe);
        receipts.snapshot_settled(Epoch(1), SnapshotFate::Safe);
        receipts.snapshot_settled(Epoch(2), SnapshotFate::Unsafe);
        assert_eq!((open.event_count(), receipts.cuts.len()), (10, 1));
        receipts.snapshot_settled(Epoch(4), SnapshotFate::Safe);
        assert_eq!((open.event_count(), receipts.cuts.len()), (40, 0));
    }

    #[test]
    fn an_input_that_ends_after_the_barrier_waits_for_the_next() {
        let settled = Arc::new(Settled::default());
        let receipt = settled.watch(ENDED);
        let mut receipts = Receipts::new(Arc::clone(&settled));
        receipts.cut(Epoch(1), [(ENDED, 2)]);
        receipts.note_ended(vec![(ENDED, 4)]);
        receipts.snapshot_settled(Epoch(1), SnapshotFate::Safe);
        assert_eq!(receipt.event_count(), 2);
        receipts.cut(Epoch(2), []);
        receipts.snapshot_settled(Epoch(2), SnapshotFate::Safe);
        assert_eq!(receipt.event_count(), 4);
    }

    #[test]
    fn without_snapshots_what_was_handed_on_is_published() {
        let settled = Arc::new(Settled::default());
        let (open, ended) = (settled.watch(OPEN), settled.watch(ENDED));
        let mut receipts = Receipts::new(Arc::clone(&settled));
        receipts.note_ended(vec![(ENDED, 4)]);
        receipts.handed_on(Some((OPEN, 1)));
        assert_eq!((open.event_count(), ended.event_count()), (1, 4));
        drop(ended);
        receipts.note_ended(vec![(ENDED, 4)]);
        assert!(receipts.ended.is_empty());
    }
}
