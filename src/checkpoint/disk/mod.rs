//! The operations on files that durability needs, and no others.
//!
//! Whatever must survive a crash is written through [`Disk`], so that [`MemoryDisk`] can take the
//! operating system's place and lose, in a test, everything that was not asked to be kept.
//!
//! The rules that both hold: what a file holds is durable after [`DiskWriter::sync`]; that it exists under
//! its name, or no longer does, after [`Disk::sync_directory`]. Until then a crash may lose any of it.

pub mod memory;
mod system;
mod whole;

use std::fmt::Debug;
use std::io;
use std::path::Path;

pub use memory::MemoryDisk;
pub use system::SystemDisk;
pub(super) use whole::BLOCK_BYTES;

/// Files by path.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory and those above it, unless they exist.
    ///
    /// # Errors
    /// If the system refuses.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory, in order; those that are not UTF-8 are left out.
    ///
    /// # Errors
    /// If it cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// An empty file under this name, in place of one that may be there.
    ///
    /// # Errors
    /// If the system refuses.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// As [`Self::create`], for a large file that is written once and not read by this process.
    ///
    /// # Errors
    /// If the system refuses.
    fn create_whole(&self, path: &Path) -> io::Result<Box<dyn DiskWriter>> {
        Ok(self.create(path)?)
    }

    /// The file under this name, made if it is absent; what is written goes to its end.
    ///
    /// # Errors
    /// If the system refuses.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// The file under this name, for reading.
    ///
    /// # Errors
    /// If it is absent or the system refuses.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of a file that may have it.
    ///
    /// # Errors
    /// If it is absent or the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// If it is absent or the system refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// If the system refuses; what was done may then be lost.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the file under this name, made if it is absent, for as long as the answer lives, or until
    /// the process ends; `None` while somebody else has it.
    ///
    /// # Errors
    /// If the system refuses.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
}

/// A file that is being written.
pub trait DiskWriter: Debug + Send {
    /// Writes all bytes at the end. After an error any part of them may be there.
    ///
    /// # Errors
    /// If the system refuses.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable. After an error it is unknown what is: only bytes that are written
    /// again, and synced then, can be relied on.
    ///
    /// # Errors
    /// If the system refuses.
    fn sync(&mut self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: DiskWriter {
    /// Cuts the file to a length.
    ///
    /// # Errors
    /// If the system refuses.
    fn truncate(&mut self, length_bytes: u64) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// If the system refuses.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes at an offset: fewer than there is room for is usual, none means the end.
    ///
    /// # Errors
    /// If the system refuses.
    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// A lock that is given back when it is dropped.
pub trait DiskLock: Debug + Send + Sync {}

/// Reads from an offset until `into` is full or the file ends; how much was read.
pub(super) fn read_full(
    file: &dyn DiskFile,
    offset_bytes: u64,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(offset_bytes + filled as u64, &mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What both implementations must do alike.
    fn check(disk: &dyn Disk, root: &Path) {
        let directory = root.join("a/b");
        disk.create_directory(&directory).unwrap();
        disk.create_directory(&directory).unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.join(name));

        let mut file = disk.create(&first).unwrap();
        file.write(b"0123456789").unwrap();
        file.sync().unwrap();
        file.truncate(4).unwrap();
        file.write(b"ab").unwrap();
        assert_eq!(file.length().unwrap(), 6);
        let mut again = disk.append(&first).unwrap();
        again.write(b"c").unwrap();
        let mut bytes = [0; 16];
        let read = disk.open(&first).unwrap();
        assert_eq!(read_full(read.as_ref(), 2, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"23abc");
        assert_eq!(read_full(read.as_ref(), 100, &mut bytes).unwrap(), 0);

        disk.append(&second).unwrap().write(b"x").unwrap();
        assert_eq!(disk.list(&directory).unwrap(), ["first", "second"]);
        disk.rename(&second, &first).unwrap();
        disk.sync_directory(&directory).unwrap();
        assert_eq!(disk.list(&directory).unwrap(), ["first"]);
        assert_eq!(disk.open(&first).unwrap().length().unwrap(), 1);
        assert_eq!(read.length().unwrap(), 7, "an open file outlives its name");
        disk.remove(&first).unwrap();
        for gone in [disk.remove(&first).err(), disk.open(&first).err(), disk.list(&first).err()] {
            assert_eq!(gone.unwrap().kind(), io::ErrorKind::NotFound);
        }

        let lock = directory.join("lock");
        let held = disk.lock(&lock).unwrap().unwrap();
        assert!(disk.lock(&lock).unwrap().is_none());
        drop(held);
        assert!(disk.lock(&lock).unwrap().is_some());
    }

    #[test]
    fn both_disks_do_the_same() {
        let directory = tempfile::tempdir().unwrap();
        check(&SystemDisk, directory.path());
        check(&MemoryDisk::new(1), Path::new("/state"));
    }
}
