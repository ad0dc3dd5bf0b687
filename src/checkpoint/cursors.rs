//! How far each sink has got in the journal, in a file of its own.
//!
//! Apart from snapshots, because what a receiver was given stays given: a job that starts afresh, or
//! from an older snapshot, does not send its journal again. Saved after the sinks have settled what is before; a
//! crash in between means a repeat, never a gap.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::checked_json;
use super::directory::StateDirectory;
use super::disk::read_full;
use super::error::{CheckpointError, Refusal};
use super::journal::JournalPosition;

const NAME: &str = "cursors.json";

/// More than this is no file of cursors.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Positions by the sink's name in the configuration.
#[derive(Debug)]
pub struct Cursors {
    directory: Arc<StateDirectory>,
    positions: BTreeMap<String, JournalPosition>,
    is_saved: bool,
}

impl Cursors {
    /// Reads the cursors of a state directory. If its file is damaged there are none, and the reason is
    /// returned for the log: sinks then begin where new ones do.
    ///
    /// # Errors
    /// If the directory or the file cannot be read.
    pub fn open(
        directory: Arc<StateDirectory>,
    ) -> Result<(Self, Option<Refusal>), CheckpointError> {
        let path = directory.file(NAME);
        let read = || -> io::Result<Vec<u8>> {
            let file = directory.disk().open(&path)?;
            let length = file.length()?.min(FILE_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            let count = read_full(file.as_ref(), 0, &mut bytes)?;
            bytes.truncate(count);
            Ok(bytes)
        };
        let (positions, refusal) = match read() {
            Ok(bytes) => match checked_json::from_bytes(&bytes) {
                Ok(positions) => (positions, None),
                Err(reason) => (BTreeMap::new(), Some(Refusal { path, reason })),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(error) => return Err(CheckpointError::io("read", &path)(error)),
        };
        Ok((Self { directory, positions, is_saved: true }, refusal))
    }

    /// How far a sink has got; `None` for one that is not known yet.
    #[must_use]
    pub fn get(&self, sink: &str) -> Option<JournalPosition> {
        self.positions.get(sink).copied()
    }

    /// Notes how far a sink has got.
    pub fn set(&mut self, sink: &str, position: JournalPosition) {
        if self.positions.get(sink) != Some(&position) {
            self.positions.insert(sink.to_owned(), position);
            self.is_saved = false;
        }
    }

    /// Forgets sinks that are no longer configured.
    pub fn retain(&mut self, is_configured: impl Fn(&str) -> bool) {
        let before = self.positions.len();
        self.positions.retain(|sink, _| is_configured(sink));
        self.is_saved &= self.positions.len() == before;
    }

    /// Makes what was noted durable, if anything was.
    ///
    /// # Errors
    /// If it could not be; what was durable before is still there, or what is new.
    pub fn save(&mut self) -> Result<(), CheckpointError> {
        if self.is_saved {
            return Ok(());
        }
        let bytes = checked_json::to_bytes(&self.positions);
        self.directory.replace(NAME, &mut |out| out.write(&bytes))?;
        self.is_saved = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::disk::MemoryDisk;
    use crate::checkpoint::disk::memory::{Fault, Loss};

    fn directory(disk: &MemoryDisk) -> Arc<StateDirectory> {
        StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap()
    }

    fn at(findings: u64) -> JournalPosition {
        JournalPosition { file: 1, offset_bytes: findings * 100, findings }
    }

    #[test]
    fn cursors_survive_and_change_as_one() {
        for seed in 0..40 {
            for crash_at in 0.. {
                let disk = MemoryDisk::new(seed);
                let (mut cursors, refusal) = Cursors::open(directory(&disk)).unwrap();
                assert!(refusal.is_none() && cursors.get("siem").is_none());
                cursors.set("siem", at(1));
                cursors.set("file", at(1));
                cursors.save().unwrap();
                disk.fail_at(crash_at, Fault::Crash);
                cursors.set("siem", at(2));
                cursors.set("file", at(2));
                let saved = cursors.save().is_ok();
                drop(cursors);
                disk.restart(Loss::Power);
                let (cursors, refusal) = Cursors::open(directory(&disk)).unwrap();
                assert!(refusal.is_none(), "{refusal:?}");
                let siem = cursors.get("siem").unwrap();
                assert_eq!(cursors.get("file"), Some(siem));
                assert!(siem == at(2) || (siem == at(1) && !saved), "seed {seed}, {crash_at}");
                if saved {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let disk = MemoryDisk::new(1);
        let (mut cursors, _) = Cursors::open(directory(&disk)).unwrap();
        cursors.set("siem", at(7));
        cursors.save().unwrap();
        drop(cursors);
        let path = Path::new("/state").join(NAME);
        let sound = disk.content(&path).unwrap();
        for at in 0..sound.len() - 1 {
            for bit in 0..8 {
                let mut changed = sound.clone();
                changed[at] ^= 1 << bit;
                disk.put(&path, &changed);
                let (cursors, refusal) = Cursors::open(directory(&disk)).unwrap();
                assert!(refusal.is_some() && cursors.get("siem").is_none(), "{at}, {bit}");
            }
        }
    }

    #[test]
    fn sinks_that_are_gone_are_forgotten() {
        let disk = MemoryDisk::new(1);
        let (mut cursors, _) = Cursors::open(directory(&disk)).unwrap();
        cursors.set("siem", at(7));
        cursors.set("old", at(3));
        cursors.retain(|sink| sink == "siem");
        cursors.save().unwrap();
        drop(cursors);
        let (cursors, _) = Cursors::open(directory(&disk)).unwrap();
        assert_eq!((cursors.get("siem"), cursors.get("old")), (Some(at(7)), None));
    }
}
