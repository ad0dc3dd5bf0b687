//! Snapshots of a job: the newest two on disk, the newest good one at the start.
//!
//! A snapshot is written beside the others and takes its name when it is complete and durable. Only when
//! the name is durable too do older ones go, so that at every moment there is one to start from. A file
//! of another job or of a newer program is never removed nor written over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::units::UnixSeconds;

use super::container::{self, Part, Snapshot, SnapshotHead};
use super::directory::{StateDirectory, number_in};
use super::disk::DiskWriter;
use super::error::{CheckpointError, Refusal, RefusalReason};
use super::remote::{Remote, SnapshotFile};

/// How many snapshots are kept.
const KEPT: usize = 2;

/// The snapshots of one job in its state directory.
#[derive(Debug)]
pub struct Snapshots {
    directory: Arc<StateDirectory>,
    fingerprint: u128,
    /// Epochs of all files that were there at the start, in order.
    found: Vec<u64>,
    /// Epochs that were read or written, in order: the last [`KEPT`] of them stay.
    good: Vec<u64>,
    /// Epochs of files that are of no use: they go with the next success.
    worthless: Vec<u64>,
    next_epoch: u64,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Restored<T> {
    /// The state that was made of the newest usable snapshot, with what that says about itself; `None`
    /// when there are no snapshots at all.
    pub state: Option<(SnapshotHead, T)>,
    /// Newer ones that were refused, newest first: worth a warning each.
    pub refused: Vec<Refusal>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the new snapshot.
    pub bytes: u64,
    /// Older snapshots that could not be removed; they are tried again with the next.
    pub left_behind: usize,
}

impl Snapshots {
    /// The snapshots in a directory, of the job that `fingerprint` tells from others.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn open(
        directory: Arc<StateDirectory>,
        fingerprint: u128,
    ) -> Result<Self, CheckpointError> {
        let names = directory.names()?;
        let numbers = names.iter().filter_map(|name| number_in(name, "snapshot-", ".fgs"));
        let mut found: Vec<u64> = numbers.collect();
        found.sort_unstable();
        let next_epoch = found.last().map_or(1, |newest| newest + 1);
        let (good, worthless) = (Vec::new(), Vec::new());
        Ok(Self { directory, fingerprint, found, good, worthless, next_epoch })
    }

    /// Goes on after the copies as well, which may be of a run that came further.
    pub fn continue_after(&mut self, copies: &Remote) {
        let newest = copies.epochs().last().map_or(0, |newest| newest + 1);
        self.next_epoch = self.next_epoch.max(newest);
    }

    /// The least epoch that the next snapshot may have: greater than that of every file there is.
    #[must_use]
    pub const fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    /// Makes state of the newest snapshot of which `build` can, trying older ones in turn.
    ///
    /// # Errors
    /// [`CheckpointError::NoneUsable`] if there are snapshots but none serves: whoever starts afresh then
    /// must have been asked.
    pub fn restore<T>(
        &mut self,
        build: impl FnMut(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<Restored<T>, CheckpointError> {
        self.restore_with(None, build)
    }

    /// As [`Self::restore`]; what is not in the directory, or is damaged there, is taken from the copies, if there
    /// are any.
    ///
    /// # Errors
    /// As [`Self::restore`]; also if the copies cannot be read at this time.
    pub fn restore_with<T>(
        &mut self,
        mut copies: Option<&mut Remote>,
        mut build: impl FnMut(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<Restored<T>, CheckpointError> {
        self.good.clear();
        self.worthless.clear();
        let mut refused = Vec::new();
        let mut state = None;
        let copied = copies.as_ref().map(|copies| copies.epochs()).unwrap_or_default();
        let epochs: BTreeSet<u64> = self.found.iter().chain(&copied).copied().collect();
        for epoch in epochs.into_iter().rev() {
            let is_here = self.found.binary_search(&epoch).is_ok();
            if state.is_some() {
                if is_here {
                    self.sort_in(epoch);
                }
                continue;
            }
            let mut outcome = if is_here {
                let path = container::path_in(self.directory.path(), epoch);
                self.read(epoch, &mut build).map_err(|reason| Refusal { path, reason })
            } else {
                let path = container::path_in(self.directory.path(), epoch);
                Err(Refusal { path, reason: RefusalReason::Gone })
            };
            if let Err(Refusal { reason, .. }) = &outcome
                && reason.is_worthless()
                && let Some(copies) = copies.as_deref_mut()
                && copied.contains(&epoch)
            {
                let url = PathBuf::from(copies.url_of(epoch));
                outcome = self.read_copy(epoch, copies, &mut build)?.map_err(|reason| {
                    copies.refuse(epoch, reason.is_worthless());
                    Refusal { path: url, reason }
                });
            }
            match outcome {
                Ok(restored) => {
                    self.good.push(epoch);
                    state = Some(restored);
                }
                Err(refusal) => {
                    if is_here {
                        self.note(epoch, &refusal.reason);
                    }
                    refused.push(refusal);
                }
            }
        }
        self.good.reverse();
        if state.is_none() && !refused.is_empty() {
            let directory = self.directory.path().to_owned();
            return Err(CheckpointError::NoneUsable { directory, refused });
        }
        Ok(Restored { state, refused })
    }

    /// Takes a copy into the directory and makes state of it; one that is of no use does not stay.
    fn read_copy<T>(
        &mut self,
        epoch: u64,
        copies: &mut Remote,
        build: &mut impl FnMut(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<Result<(SnapshotHead, T), RefusalReason>, CheckpointError> {
        if let Err(reason) = copies.fetch(epoch)? {
            return Ok(Err(reason));
        }
        let read = self.read(epoch, build);
        if read.is_err() {
            self.directory.remove(&container::file_name(epoch))?;
        }
        Ok(read)
    }

    fn read<T>(
        &self,
        epoch: u64,
        build: &mut impl FnMut(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<(SnapshotHead, T), RefusalReason> {
        let path = container::path_in(self.directory.path(), epoch);
        let snapshot = Snapshot::open(self.directory.disk(), &path, self.fingerprint)?;
        if snapshot.head().epoch != epoch {
            // Somebody gave it another name: it would be taken for newer or older than it is.
            return Err(RefusalReason::Damaged { what: "name".to_owned() });
        }
        let state = build(&snapshot)?;
        Ok((snapshot.head().clone(), state))
    }

    /// Looks whether a file that is older than the one in use is ours to remove.
    fn sort_in(&mut self, epoch: u64) {
        match head_at(&self.directory, &container::path_in(self.directory.path(), epoch)) {
            Ok(head) if head.fingerprint == self.fingerprint => self.good.push(epoch),
            Ok(_) => {}
            Err(reason) => self.note(epoch, &reason),
        }
    }

    fn note(&mut self, epoch: u64, reason: &RefusalReason) {
        if reason.is_worthless() {
            self.worthless.push(epoch);
        }
    }

    /// Writes a snapshot: when this returns, it is what a restart begins with. After an error the ones before
    /// are still there, and another may be tried with a later epoch.
    ///
    /// # Errors
    /// If it could not be made durable.
    ///
    /// # Panics
    /// If `epoch` is less than [`Self::next_epoch`], or two parts have one name.
    pub fn write(
        &mut self,
        epoch: u64,
        now: UnixSeconds,
        parts: &[Part],
    ) -> Result<Written, CheckpointError> {
        assert!(epoch >= self.next_epoch, "snapshot {epoch} comes after {}", self.next_epoch);
        for (index, part) in parts.iter().enumerate() {
            let is_new = parts[..index].iter().all(|before| before.name != part.name);
            assert!(is_new, "two parts are called `{}`", part.name);
        }
        self.next_epoch = epoch + 1;
        let head = SnapshotHead {
            fingerprint: self.fingerprint,
            epoch,
            written_at: now,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut bytes = 0;
        let fill = &mut |file: &mut dyn DiskWriter| {
            bytes = container::write(file, &head, parts)?;
            Ok(())
        };
        if let Err(error) = self.directory.replace(&container::file_name(epoch), fill) {
            // It may have its name and yet not be durable: whatever there is of it goes later.
            self.worthless.push(epoch);
            return Err(error);
        }
        self.good.push(epoch);
        Ok(Written { bytes, left_behind: self.remove_old() })
    }

    /// The file of a snapshot that was written, to be copied.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn file(&self, epoch: u64) -> Result<SnapshotFile, CheckpointError> {
        let path = container::path_in(self.directory.path(), epoch);
        let file = self.directory.disk().open(&path).map_err(CheckpointError::io("open", &path))?;
        let bytes = file.length().map_err(CheckpointError::io("look at", &path))?;
        Ok(SnapshotFile { epoch, bytes, file })
    }

    /// Removes what is no longer needed; how many files could not be.
    fn remove_old(&mut self) -> usize {
        let old = self.good.len().saturating_sub(KEPT);
        self.worthless.extend(self.good.drain(..old));
        let directory = &self.directory;
        self.worthless.retain(|epoch| directory.remove(&container::file_name(*epoch)).is_err());
        self.worthless.len()
    }
}

fn head_at(directory: &StateDirectory, path: &Path) -> Result<SnapshotHead, RefusalReason> {
    let file = directory.disk().open(path).map_err(RefusalReason::Io)?;
    let length_bytes = file.length().map_err(RefusalReason::Io)?;
    container::read_head(file.as_ref(), length_bytes).map(|(head, _)| head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::disk::memory::{Fault, Loss};
    use crate::checkpoint::disk::{Disk, MemoryDisk, SystemDisk};
    use crate::codec::{DecodeError, Decoder};

    const JOB: u128 = 7;

    fn open(disk: &MemoryDisk, job: u128) -> Snapshots {
        let directory = StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap();
        Snapshots::open(directory, job).unwrap()
    }

    fn path(epoch: u64) -> PathBuf {
        container::path_in(Path::new("/state"), epoch)
    }

    /// State that is only a number, in two parts of several segments.
    fn parts(state: u8) -> Vec<Part> {
        let part = |name: &str, segments| Part { name: name.to_owned(), segments };
        vec![
            part("shard-0", vec![vec![state; 3], Vec::new(), vec![state; 2]]),
            part("judge", vec![vec![state]]),
            part("empty", Vec::new()),
        ]
    }

    fn first_byte(from: &mut Decoder<'_>) -> Result<u8, DecodeError> {
        from.u8()
    }

    fn read(snapshot: &Snapshot) -> Result<u8, RefusalReason> {
        assert_eq!(snapshot.names().collect::<Vec<_>>(), ["shard-0", "judge", "empty"]);
        assert!(snapshot.bytes("empty")?.is_empty());
        let state = snapshot.decode("judge", first_byte)?;
        assert_eq!(snapshot.bytes("shard-0")?, [state; 5]);
        Ok(state)
    }

    fn write(snapshots: &mut Snapshots, state: u8) -> Result<Written, CheckpointError> {
        let epoch = snapshots.next_epoch();
        snapshots.write(epoch, UnixSeconds(100), &parts(state))
    }

    /// A disk with snapshots of these states, of epochs 1 and up.
    fn disk(states: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::new(1);
        let mut snapshots = open(&disk, JOB);
        for state in states {
            write(&mut snapshots, *state).unwrap();
        }
        disk
    }

    /// The state that a start finds and how many snapshots it refuses, `None` if there are some and none
    /// serves.
    fn start(disk: &MemoryDisk) -> Option<(Option<u8>, usize)> {
        match open(disk, JOB).restore(read) {
            Ok(restored) => Some((restored.state.map(|(_, state)| state), restored.refused.len())),
            Err(CheckpointError::NoneUsable { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_newest_is_restored_and_two_are_kept() {
        assert_eq!(start(&disk(&[])), Some((None, 0)));
        let disk = disk(&[11, 12, 13]);
        assert_eq!(start(&disk), Some((Some(13), 0)));
        let names = disk.list(Path::new("/state")).unwrap();
        assert_eq!(names, ["snapshot-00000002.fgs", "snapshot-00000003.fgs"]);
        let restored = open(&disk, JOB).restore(read).unwrap();
        let (head, _) = restored.state.unwrap();
        assert_eq!((head.fingerprint, head.epoch, head.written_at), (JOB, 3, UnixSeconds(100)));
        assert_eq!(head.program, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn any_changed_bit_is_refused_and_the_one_before_used() {
        let disk = disk(&[11, 12]);
        let sound = disk.content(&path(2)).unwrap();
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut changed = sound.clone();
                changed[at] ^= 1 << bit;
                disk.put(&path(2), &changed);
                assert_eq!(start(&disk), Some((Some(11), 1)), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn any_other_length_is_refused() {
        let disk = disk(&[11, 12]);
        let sound = disk.content(&path(2)).unwrap();
        for length in 0..sound.len() {
            disk.put(&path(2), &sound[..length]);
            assert_eq!(start(&disk), Some((Some(11), 1)), "{length} bytes");
        }
        disk.put(&path(2), &[sound.clone(), vec![0]].concat());
        assert_eq!(start(&disk), Some((Some(11), 1)));
        disk.put(&path(2), &[&sound[..], &sound[..]].concat());
        assert_eq!(start(&disk), Some((Some(11), 1)));
        disk.put(&path(1), b"");
        assert_eq!(start(&disk), None);
    }

    /// The message for a snapshot of these bytes, if it is the only one.
    fn refusal(bytes: &[u8]) -> String {
        let disk = MemoryDisk::new(1);
        disk.put(&path(5), bytes);
        open(&disk, JOB).restore(read).unwrap_err().to_string()
    }

    #[test]
    fn messages_name_the_file_the_reason_and_the_way_out() {
        let sound = disk(&[11]).content(&path(1)).unwrap();
        let check = |bytes: &[u8], reason: &str| {
            let expected = format!(
                "none of the snapshots in `/state` can be used: `/state/snapshot-00000005.fgs` is refused: {reason}; to begin without them, move them to another directory"
            );
            assert_eq!(refusal(bytes), expected);
        };
        check(b"", "it is cut short at 0 bytes");
        check(&[b'x'; 100], "it is no snapshot of flowgauge");
        check(&sound, "its name is damaged");
        let mut changed = sound.clone();
        changed[8] = 9;
        check(
            &changed,
            "its form is 9 and this version reads up to 1; run the version that wrote it, or a later one",
        );
        changed[8..12].copy_from_slice(&[0, 1, 0xfe, 0xff]);
        check(
            &changed,
            "it was written on a machine with another byte order; restore it on such a machine",
        );
        changed.copy_from_slice(&sound);
        let judge = sound.windows(6).position(|window| *window == [11; 6]).unwrap() + 5;
        changed[judge] ^= 1;
        check(&changed, "its part `judge` is damaged");
    }

    #[test]
    fn the_snapshots_of_another_job_are_neither_used_nor_removed() {
        let disk = disk(&[11, 12]);
        let mut other = open(&disk, JOB + 1);
        let error = other.restore(read).unwrap_err();
        assert!(
            error.to_string().contains("it belongs to another job (fingerprint 0000"),
            "{error}"
        );
        let CheckpointError::NoneUsable { refused, .. } = error else { panic!("{error}") };
        assert_eq!(refused.len(), 2);
        for state in 21..25 {
            write(&mut other, state).unwrap();
        }
        drop(other);
        let mut numbers = open(&disk, JOB).found;
        assert_eq!(numbers, [1, 2, 5, 6]);
        let restored = open(&disk, JOB).restore(read).unwrap();
        assert_eq!((restored.refused.len(), restored.state.unwrap().1), (2, 12));
        write(&mut open(&disk, JOB), 13).unwrap();
        numbers = open(&disk, JOB).found;
        assert_eq!(numbers, [1, 2, 5, 6, 7]);
    }

    #[test]
    fn damaged_ones_go_when_there_are_better_ones() {
        let disk = disk(&[11, 12]);
        disk.put(&path(2), b"");
        let mut snapshots = open(&disk, JOB);
        assert_eq!(snapshots.restore(read).unwrap().state.unwrap().1, 11);
        write(&mut snapshots, 13).unwrap();
        drop(snapshots);
        assert_eq!(open(&disk, JOB).found, [1, 3]);
    }

    #[test]
    fn a_part_that_this_version_cannot_read_is_a_reason_to_try_the_one_before() {
        let disk = disk(&[11, 12]);
        let mut snapshots = open(&disk, JOB);
        let restored = snapshots.restore(|snapshot| {
            snapshot.decode("judge", |from| match from.u8()? {
                12 => from.u8(),
                state => Ok(state),
            })
        });
        let restored = restored.unwrap();
        assert_eq!(restored.state.unwrap().1, 11);
        let expected = "`/state/snapshot-00000002.fgs` is refused: its part `judge` cannot be read: the saved state ends too early";
        assert_eq!(restored.refused[0].to_string(), expected);
        let missing = snapshots.restore(|snapshot| snapshot.bytes("shard-9")).unwrap_err();
        assert!(missing.to_string().contains("it has no part `shard-9`"), "{missing}");
        let left_over = snapshots.restore(|snapshot| snapshot.decode("shard-0", first_byte));
        assert!(left_over.unwrap_err().to_string().contains("4 bytes too many"));
    }

    /// Form 1, written by hand: stays readable whatever the newest form is.
    #[test]
    fn form_1_is_read() {
        let mut bytes = b"\x89FGS\r\n\x1a\n".to_vec();
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend([0xff, 0xfe]);
        bytes.extend((16 + 8 + 8 + 8 + 5_u32).to_le_bytes());
        bytes.extend(JOB.to_le_bytes());
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend(1_767_225_600_i64.to_le_bytes());
        bytes.extend(5_u64.to_le_bytes());
        bytes.extend(b"0.1.0");
        let checksum = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
        bytes.extend(checksum(&bytes));
        let mut table = 3_u64.to_le_bytes().to_vec();
        for (name, content) in [("shard-0", &[9; 5][..]), ("judge", &[9]), ("empty", &[])] {
            bytes.extend(content);
            table.extend((name.len() as u64).to_le_bytes());
            table.extend(name.as_bytes());
            table.extend((content.len() as u64).to_le_bytes());
            table.extend(checksum(content));
        }
        let length = bytes.len() + table.len() + 24;
        table.extend((table.len() as u64).to_le_bytes());
        table.extend((length as u64).to_le_bytes());
        bytes.extend(&table);
        bytes.extend(checksum(&table));
        bytes.extend(b"FGSE");
        let disk = MemoryDisk::new(1);
        disk.put(&path(4), &bytes);
        let (head, state) = open(&disk, JOB).restore(read).unwrap().state.unwrap();
        assert_eq!((head.epoch, head.program.as_str(), state), (4, "0.1.0", 9));
    }

    #[test]
    fn a_large_part_begins_at_a_block_and_what_fills_up_is_checked() {
        let disk = MemoryDisk::new(1);
        let mut snapshots = open(&disk, JOB);
        let large = Part { name: "large".to_owned(), segments: vec![vec![5; 3], vec![6; 1 << 20]] };
        let parts = [parts(9), vec![large.clone()]].concat();
        snapshots.write(1, UnixSeconds(100), &parts).unwrap();
        drop(snapshots);
        let sound = disk.content(&path(1)).unwrap();
        let begins_at = sound.windows(4).position(|bytes| bytes == [5, 5, 5, 6]).unwrap();
        assert!(begins_at.is_multiple_of(4096));
        let read = |snapshot: &Snapshot| {
            let names: Vec<_> = snapshot.names().collect();
            assert_eq!(names, ["shard-0", "judge", "empty", "large"]);
            assert!(snapshot.bytes("large")? == large.segments.concat());
            Ok(())
        };
        open(&disk, JOB).restore(read).unwrap().state.unwrap();
        let mut changed = sound;
        changed[begins_at - 1] = 1;
        disk.put(&path(1), &changed);
        assert!(open(&disk, JOB).restore(read).is_err());
    }

    /// Every operation of writing the third snapshot is once the last, or fails.
    #[test]
    fn at_every_moment_there_is_a_snapshot_to_start_from() {
        for seed in 0..30 {
            for (fault, loss) in [
                (Fault::Crash, Loss::Power),
                (Fault::Crash, Loss::Process),
                (Fault::NoSpace, Loss::Power),
                (Fault::Io, Loss::Power),
            ] {
                for fail_at in 0.. {
                    let disk = MemoryDisk::new(seed);
                    let mut snapshots = open(&disk, JOB);
                    write(&mut snapshots, 11).unwrap();
                    write(&mut snapshots, 12).unwrap();
                    let before = disk.operations();
                    disk.fail_at(fail_at, fault);
                    let written = write(&mut snapshots, 13).is_ok();
                    if !written && fault != Fault::Crash {
                        write(&mut snapshots, 13).unwrap();
                    }
                    let is_past = disk.operations() - before <= fail_at;
                    drop(snapshots);
                    disk.restart(loss);
                    let (state, refused) = start(&disk).unwrap();
                    let is_new = state == Some(13);
                    let place = format!("seed {seed}, {fault:?} at {fail_at}, {loss:?}");
                    assert_eq!(refused, 0, "{place}");
                    assert!(is_new || (state == Some(12) && !written), "{place}: {state:?}");
                    assert!(is_new || fault == Fault::Crash, "{place}");
                    let files = disk.list(Path::new("/state")).unwrap();
                    assert!((2..=4).contains(&files.len()), "{place}: {files:?}");
                    if is_past {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn snapshots_lie_on_the_systems_disk() {
        let root = tempfile::tempdir().unwrap();
        let open = || {
            let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).unwrap();
            Snapshots::open(directory, JOB).unwrap()
        };
        let mut snapshots = open();
        let written = write(&mut snapshots, 11).unwrap();
        assert_eq!(written.left_behind, 0);
        let length = container::path_in(root.path(), 1).metadata().unwrap().len();
        assert_eq!(length, written.bytes);
        drop(snapshots);
        assert_eq!(open().restore(read).unwrap().state.unwrap().1, 11);
    }
}
