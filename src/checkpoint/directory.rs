//! The directory that holds all durable state of a job, taken by one process at a time.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskLock, DiskWriter};
use super::error::CheckpointError;

/// The file whose lock says that the directory is in use.
const LOCK_NAME: &str = "lock";

/// Ends the name of the lock of a single file.
const LOCK_SUFFIX: &str = ".lock";

/// Ends the names of files that are being written.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// A state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl StateDirectory {
    /// Takes the directory for this process, and makes it if it is absent. Files that a process was
    /// writing when it was ended are removed.
    ///
    /// # Errors
    /// [`CheckpointError::Locked`] while another process has it; [`CheckpointError::Io`].
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Arc<Self>, CheckpointError> {
        disk.create_directory(path).map_err(CheckpointError::io("make", path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = disk.lock(&lock_path).map_err(CheckpointError::io("lock", &lock_path))?;
        let Some(lock) = lock else {
            return Err(CheckpointError::Locked { path: path.to_owned() });
        };
        let directory = Self { disk, path: path.to_owned(), _lock: lock };
        for name in directory.names()? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                directory.remove(&name)?;
            }
        }
        Ok(Arc::new(directory))
    }

    /// The directory of a file that this process takes for itself: other files in it are somebody else's, and may
    /// even be those of a state directory.
    ///
    /// # Errors
    /// [`CheckpointError::FileInUse`] while another process has the file; [`CheckpointError::Io`].
    pub(super) fn of_file(
        disk: Arc<dyn Disk>,
        path: &Path,
        name: &str,
    ) -> Result<Arc<Self>, CheckpointError> {
        let lock_path = path.join(format!("{name}{LOCK_SUFFIX}"));
        let lock = disk.lock(&lock_path).map_err(CheckpointError::io("lock", &lock_path))?;
        let Some(lock) = lock else {
            return Err(CheckpointError::FileInUse { path: path.join(name) });
        };
        Ok(Arc::new(Self { disk, path: path.to_owned(), _lock: lock }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its files.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn names(&self) -> Result<Vec<String>, CheckpointError> {
        self.disk.list(&self.path).map_err(CheckpointError::io("list", &self.path))
    }

    /// Sees to it that a file is gone.
    pub(super) fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.file(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(CheckpointError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> Result<(), CheckpointError> {
        self.disk.sync_directory(&self.path).map_err(CheckpointError::io("sync", &self.path))
    }

    /// Moves files into a directory within this one, in place of those of the same names there.
    #[cfg(feature = "s3")]
    pub(super) fn set_aside(&self, names: &[&String], into: &str) -> Result<(), CheckpointError> {
        let target = self.path.join(into);
        self.disk.create_directory(&target).map_err(CheckpointError::io("make", &target))?;
        for name in names {
            let path = self.file(name);
            let moved = self.disk.rename(&path, &target.join(name));
            moved.map_err(CheckpointError::io("move", &path))?;
        }
        self.disk.sync_directory(&target).map_err(CheckpointError::io("sync", &target))?;
        self.sync()
    }

    /// Puts a whole file in place of the one that may have the name: after a crash there is one or the
    /// other, never a part. `write` fills it.
    pub(super) fn replace(
        &self,
        name: &str,
        write: &mut dyn FnMut(&mut dyn DiskWriter) -> std::io::Result<()>,
    ) -> Result<(), CheckpointError> {
        let temporary_name = format!("{name}{TEMPORARY_SUFFIX}");
        let (path, temporary) = (self.file(name), self.file(&temporary_name));
        let filled = self.disk.create_whole(&temporary).and_then(|mut file| {
            write(file.as_mut())?;
            file.sync()
        });
        if let Err(source) = filled {
            // The room is needed more than the half; what cannot be removed goes at the next start.
            let _still_there = self.disk.remove(&temporary);
            return Err(CheckpointError::Io { doing: "write", path: temporary, source });
        }
        self.disk.rename(&temporary, &path).map_err(CheckpointError::io("rename into", &path))?;
        self.sync()
    }
}

/// Digits of numbers in names: so few that one may always be added.
const NUMBER_DIGITS_MAX: usize = 18;

/// The number in names such as `snapshot-00000007.fgs`.
pub(super) fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let is_number = (8..=NUMBER_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::checkpoint::disk::SystemDisk;

    const CHILD: &str = "FLOWGAUGE_TEST_STATE_DIRECTORY";

    /// Opens the directory in another process: this test, run by itself.
    fn opens_elsewhere(path: &Path) -> bool {
        let name = "checkpoint::directory::tests::two_processes_do_not_share_a_directory";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{text}");
        output.status.success()
    }

    #[test]
    fn two_processes_do_not_share_a_directory() {
        if let Some(path) = std::env::var_os(CHILD) {
            StateDirectory::open(Arc::new(SystemDisk), Path::new(&path)).unwrap();
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let held = StateDirectory::open(Arc::new(SystemDisk), &path).unwrap();
        assert!(!opens_elsewhere(&path));
        let error = StateDirectory::open(Arc::new(SystemDisk), &path).unwrap_err();
        assert!(matches!(error, CheckpointError::Locked { .. }), "{error}");
        assert!(!error.is_retryable());
        drop(held);
        assert!(opens_elsewhere(&path));
    }

    #[test]
    fn numbers_are_read_from_names() {
        assert_eq!(number_in("snapshot-00000007.fgs", "snapshot-", ".fgs"), Some(7));
        assert_eq!(number_in("snapshot-123456789.fgs", "snapshot-", ".fgs"), Some(123_456_789));
        for other in ["snapshot-7.fgs", "snapshot-0000000x.fgs", "snapshot-00000007.fgs.tmp", ""] {
            assert_eq!(number_in(other, "snapshot-", ".fgs"), None, "{other}");
        }
    }
}
