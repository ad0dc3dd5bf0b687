//! The thread that copies snapshots, and how they come to it: the newest takes the place of one that still waits,
//! so that the checkpoint thread never does.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::checkpoint::{CheckpointError, SnapshotFile};
use crate::clock::Clock;
use crate::pipeline::copying::{CopyReport, CopyStage};
use crate::pipeline::live::Live;
use crate::pipeline::message::Epoch;
use crate::source::StopFlag;

/// Where snapshots are handed over.
pub(super) struct CopiesOut {
    out: Sender<SnapshotFile>,
    /// The other end, to take back what waits.
    waiting: Receiver<SnapshotFile>,
}

/// What the copying thread takes and gives.
pub(super) struct CopyWays {
    pub(super) snapshots: Receiver<SnapshotFile>,
    /// Told of each snapshot whether it is safe, with its copy; those passed over are not told of.
    pub(super) copied: Sender<(Epoch, bool)>,
}

/// A channel for the one snapshot that waits.
pub(super) fn channel() -> (CopiesOut, Receiver<SnapshotFile>) {
    let (out, snapshots) = bounded(1);
    (CopiesOut { out, waiting: snapshots.clone() }, snapshots)
}

impl CopiesOut {
    /// Hands a snapshot over; gives the one back in whose place it is, which is passed over.
    pub(super) fn replace(&self, snapshot: SnapshotFile) -> Option<SnapshotFile> {
        let mut passed_over = None;
        let mut snapshot = snapshot;
        loop {
            match self.out.try_send(snapshot) {
                // The copying thread may be gone when it has panicked, which its join reports.
                Ok(()) | Err(TrySendError::Disconnected(_)) => return passed_over,
                Err(TrySendError::Full(newer)) => {
                    passed_over = self.waiting.try_recv().ok().or(passed_over);
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
                let is_safe = stage.take(snapshot);
                if is_safe {
                    live.note_copy(clock.monotonic());
                }
                // It may be gone when the run ends.
                let _told = ways.copied.try_send((epoch, is_safe));
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
        let (out, snapshots) = channel();
        let disk = MemoryDisk::new(1);
        disk.create_directory(Path::new("/state")).unwrap();
        let snapshot = |epoch| {
            let file = disk.append(Path::new("/state/x")).unwrap();
            SnapshotFile { epoch, bytes: 0, file }
        };
        assert!(out.replace(snapshot(1)).is_none());
        assert_eq!(out.replace(snapshot(2)).map(|snapshot| snapshot.epoch), Some(1));
        assert_eq!(snapshots.recv().unwrap().epoch, 2);
        assert!(out.replace(snapshot(3)).is_none());
        drop(out);
        assert_eq!(snapshots.recv().unwrap().epoch, 3);
        assert!(snapshots.recv().is_err());
    }
}
