//! The thread that copies snapshots, and how they come to it: the newest takes the place of one that still waits,
//! so that the checkpoint thread never does.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::checkpoint::{CheckpointError, SnapshotFile};
use crate::clock::Clock;
use crate::pipeline::copying::{CopyReport, CopyStage};
use crate::pipeline::live::Live;
use crate::pipeline::message::{Epoch, SnapshotFate};
use crate::pipeline::snapshot::{Settled, SnapshotStage};
use crate::source::StopFlag;

/// Where snapshots go once they are written: to nobody, or to the thread that copies them.
#[derive(Default)]
pub(super) struct CopiesOut(Option<Waiting>);

/// The channel for the one snapshot that waits.
struct Waiting {
    out: Sender<SnapshotFile>,
    /// The other end, to take back what waits.
    taken_back: Receiver<SnapshotFile>,
}

/// What the copying thread takes and gives.
pub(super) struct CopyWays {
    pub(super) snapshots: Receiver<SnapshotFile>,
    /// Told what became of each snapshot that was taken.
    pub(super) settled: Sender<(Epoch, SnapshotFate)>,
}

impl CopiesOut {
    /// The end for the copying thread.
    pub(super) fn open(&mut self) -> Receiver<SnapshotFile> {
        let (out, snapshots) = bounded(1);
        self.0 = Some(Waiting { out, taken_back: snapshots.clone() });
        snapshots
    }

    /// Tells what became of a barrier's snapshot, and hands it over if it is to be copied.
    pub(super) fn pass_on(
        &self,
        stage: &SnapshotStage,
        snapshot: &Settled,
        settled_out: &Sender<(Epoch, SnapshotFate)>,
        live: &Live,
    ) {
        let told = |epoch, fate| {
            // The sequencer may be gone when the run ends.
            let _told = settled_out.try_send((epoch, fate));
        };
        let Settled { epoch, is_durable, needs_journal, .. } = *snapshot;
        let Some(waiting) = self.0.as_ref().filter(|_| is_durable) else {
            let fate = if is_durable { SnapshotFate::Safe } else { SnapshotFate::Unsafe };
            return told(epoch, fate);
        };
        let file = if needs_journal { None } else { stage.file(epoch) };
        let Some(file) = file else { return told(epoch, SnapshotFate::Unsafe) };
        told(epoch, SnapshotFate::OnThisMachine);
        if let Some(passed_over) = waiting.replace(file) {
            live.note_copy_skipped();
            told(Epoch(passed_over.epoch), SnapshotFate::Unsafe);
        }
    }
}

impl Waiting {
    /// Hands a snapshot over; gives the one back in whose place it is, which is passed over.
    fn replace(&self, snapshot: SnapshotFile) -> Option<SnapshotFile> {
        let mut passed_over = None;
        let mut snapshot = snapshot;
        loop {
            match self.out.try_send(snapshot) {
                // The copying thread may be gone when it has panicked, which its join reports.
                Ok(()) | Err(TrySendError::Disconnected(_)) => return passed_over,
                Err(TrySendError::Full(newer)) => {
                    passed_over = self.taken_back.try_recv().ok().or(passed_over);
                    snapshot = newer;
                }
            }
        }
    }
}

/// Copies snapshots until no more come.
///
/// # Errors
/// If the copies are owned by somebody else, or the last snapshot could not be copied.
pub(super) fn copy_snapshots(
    mut stage: CopyStage,
    ways: &CopyWays,
    stop: &StopFlag,
    live: &Live,
    clock: &dyn Clock,
) -> Result<CopyReport, CheckpointError> {
    loop {
        match ways.snapshots.recv_timeout(stage.idle_after()) {
            Ok(snapshot) => {
                let epoch = Epoch(snapshot.epoch);
                let fate = if stage.take(snapshot) {
                    live.note_copy(clock.monotonic());
                    SnapshotFate::Safe
                } else {
                    SnapshotFate::Unsafe
                };
                // The sequencer may be gone when the run ends.
                let _told = ways.settled.try_send((epoch, fate));
            }
            Err(RecvTimeoutError::Timeout) => stage.idle(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if stage.has_failed() {
            stop.request();
        }
    }
    stage.finish(live.copies_skipped(), std::thread::sleep)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::disk::{Disk as _, MemoryDisk};

    #[test]
    fn the_newest_takes_the_place_of_one_that_waits() {
        let mut out = CopiesOut::default();
        let snapshots = out.open();
        let disk = MemoryDisk::new(1);
        disk.create_directory(Path::new("/state")).unwrap();
        let snapshot = |epoch| {
            let file = disk.append(Path::new("/state/x")).unwrap();
            SnapshotFile { epoch, bytes: 0, file }
        };
        assert!(out.0.as_ref().unwrap().replace(snapshot(1)).is_none());
        assert_eq!(
            out.0.as_ref().unwrap().replace(snapshot(2)).map(|snapshot| snapshot.epoch),
            Some(1)
        );
        assert_eq!(snapshots.recv().unwrap().epoch, 2);
        assert!(out.0.as_ref().unwrap().replace(snapshot(3)).is_none());
        drop(out);
        assert_eq!(snapshots.recv().unwrap().epoch, 3);
        assert!(snapshots.recv().is_err());
    }
}
