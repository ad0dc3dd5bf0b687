//! Partials: what one process has seen of a stream, for another to put together with the rest.
//!
//! A directory of files in the form of snapshots: one for each pane, written when it is complete and needed by nobody
//! else, and one for what is not of a pane. Names of panes have the pane's number, so that a reader can go through
//! the panes of many directories in order with little in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::{self, Part, Snapshot, SnapshotHead};
use super::directory::StateDirectory;
use super::disk::{Disk, DiskWriter};
use super::error::{CheckpointError, Refusal, RefusalReason};
use crate::units::{PaneIndex, UnixSeconds};

const SUFFIX: &str = ".fgp";
const PANE_PREFIX: &str = "pane-";
const REST: &str = "rest.fgp";

/// Partials are of no job: what they are of stands in them.
const FINGERPRINT: u128 = u128::from_be_bytes(*b"flowgaugepartial");

/// Writes the partials of one process.
#[derive(Debug)]
pub struct PartialWriter {
    directory: Arc<StateDirectory>,
}

impl PartialWriter {
    /// A writer into `directory`.
    ///
    /// # Errors
    /// [`CheckpointError::NotEmpty`] if there are partials already; [`CheckpointError::Io`].
    pub fn new(directory: Arc<StateDirectory>) -> Result<Self, CheckpointError> {
        if directory.names()?.iter().any(|name| name.ends_with(SUFFIX)) {
            return Err(CheckpointError::NotEmpty { path: directory.path().to_owned() });
        }
        Ok(Self { directory })
    }

    /// Writes what was seen of a pane.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub fn pane(
        &mut self,
        pane: PaneIndex,
        now: UnixSeconds,
        parts: &[Part],
    ) -> Result<(), CheckpointError> {
        self.write(&format!("{PANE_PREFIX}{}{SUFFIX}", pane.0), now, parts)
    }

    /// Writes what is not of a pane, which completes the partials.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub fn rest(&mut self, now: UnixSeconds, parts: &[Part]) -> Result<(), CheckpointError> {
        self.write(REST, now, parts)
    }

    fn write(&self, name: &str, now: UnixSeconds, parts: &[Part]) -> Result<(), CheckpointError> {
        let head = SnapshotHead {
            fingerprint: FINGERPRINT,
            epoch: 0,
            written_at: now,
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.directory.replace(name, &mut |file: &mut dyn DiskWriter| {
            container::write(file, &head, parts).map(|_| ())
        })
    }
}

/// Reads the partials of one process.
#[derive(Debug)]
pub struct PartialReader {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    panes: Vec<PaneIndex>,
}

impl PartialReader {
    /// The partials in a directory.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, CheckpointError> {
        let names = disk.list(path).map_err(CheckpointError::io("list", path))?;
        let pane = |name: &String| {
            name.strip_prefix(PANE_PREFIX)?.strip_suffix(SUFFIX)?.parse().ok().map(PaneIndex)
        };
        let mut panes: Vec<PaneIndex> = names.iter().filter_map(pane).collect();
        panes.sort_unstable();
        Ok(Self { disk, path: path.to_owned(), panes })
    }

    /// The panes of which something was seen, in order.
    #[must_use]
    pub fn panes(&self) -> &[PaneIndex] {
        &self.panes
    }

    /// Makes state of what was seen of a pane.
    ///
    /// # Errors
    /// If the file is damaged, or `build` fails.
    pub fn pane<T>(
        &self,
        pane: PaneIndex,
        build: impl FnOnce(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<T, Refusal> {
        self.read(&format!("{PANE_PREFIX}{}{SUFFIX}", pane.0), build)
    }

    /// Makes state of what is not of a pane.
    ///
    /// # Errors
    /// If the file is absent, because its process did not come to its end, or damaged, or `build` fails.
    pub fn rest<T>(
        &self,
        build: impl FnOnce(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<T, Refusal> {
        self.read(REST, build)
    }

    fn read<T>(
        &self,
        name: &str,
        build: impl FnOnce(&Snapshot) -> Result<T, RefusalReason>,
    ) -> Result<T, Refusal> {
        let path = self.path.join(name);
        let read = Snapshot::open(self.disk.as_ref(), &path, FINGERPRINT);
        read.and_then(|snapshot| build(&snapshot)).map_err(|reason| Refusal { path, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::disk::MemoryDisk;

    #[test]
    fn partials_are_read_pane_by_pane() {
        let disk = Arc::new(MemoryDisk::new(1));
        let path = Path::new("/partials");
        let directory = StateDirectory::open(Arc::clone(&disk) as _, path).unwrap();
        let mut writer = PartialWriter::new(Arc::clone(&directory)).unwrap();
        let part = |bytes: &[u8]| Part { name: "a".to_owned(), segments: vec![bytes.to_vec()] };
        for pane in [12, -3, 7] {
            writer.pane(PaneIndex(pane), UnixSeconds(5), &[part(&pane.to_le_bytes())]).unwrap();
        }
        let reader = PartialReader::open(Arc::clone(&disk) as _, path).unwrap();
        assert_eq!(reader.panes(), [PaneIndex(-3), PaneIndex(7), PaneIndex(12)]);
        let bytes = reader.pane(PaneIndex(7), |file| file.bytes("a")).unwrap();
        assert_eq!(bytes, 7_i64.to_le_bytes());
        let missing = reader.rest(|file| file.bytes("a")).unwrap_err();
        assert!(missing.to_string().contains("rest.fgp"), "{missing}");
        writer.rest(UnixSeconds(5), &[part(b"end")]).unwrap();
        assert_eq!(reader.rest(|file| file.bytes("a")).unwrap(), b"end");
        let error = PartialWriter::new(directory).unwrap_err();
        assert!(matches!(error, CheckpointError::NotEmpty { .. }), "{error}");
    }
}
