//! A disk in memory that fails and forgets as told: for tests of what must survive.
//!
//! It keeps apart what the running process sees and what would be left after the power went, and
//! counts operations, so that a test can let the n-th one fail or be the last. All chance comes from a
//! seed. It is stricter than most file systems:
//!
//! * Names (made, changed, removed) that no [`Disk::sync_directory`] followed are undone at a power loss
//!   from some point on.
//! * Bytes that no [`DiskWriter::sync`] followed are kept, cut, garbled at the end, or full of holes.
//! * Bytes that a failed sync should have kept are lost even if a later one succeeds, unless they were
//!   written again: so does Linux.
//!
//! ```
//! use std::path::Path;
//! use flowgauge::checkpoint::disk::{Disk, MemoryDisk, memory::{Fault, Loss}};
//!
//! let disk = MemoryDisk::new(7);
//! disk.create_directory(Path::new("/state"))?;
//! let mut file = disk.create(Path::new("/state/a"))?;
//! file.write(b"never synced")?;
//! disk.fail_at(0, Fault::Crash);
//! assert!(file.sync().is_err() && disk.has_crashed());
//! disk.restart(Loss::Power);
//! assert!(disk.list(Path::new("/state"))?.len() <= 1);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, DiskLock, DiskWriter};

/// What a torn write leaves whole or loses whole.
const SECTOR_BYTES: usize = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is full: `ENOSPC`. Part of what should be written may be there.
    NoSpace,
    /// The device fails: `EIO`. Part of what should be written may be there.
    Io,
    /// The process or the machine ends here: the operation is done in part or not at all, and every later
    /// one fails until [`MemoryDisk::restart`].
    Crash,
}

/// What a restart forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process was killed: nothing that was written is lost.
    Process,
    /// The power went: whatever was not synced may be lost.
    Power,
}

/// Faults that come by chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// Of a thousand operations that need room, how many find the device full.
    pub no_space_per_mille: u32,
    /// Of a thousand operations, how many fail.
    pub io_per_mille: u32,
    /// Of a thousand reads, how many give less than they could.
    pub short_reads_per_mille: u32,
}

/// Files in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: u64,
    /// Counts restarts: what was opened before one is of no use after it.
    life: u32,
    has_crashed: bool,
    operations: u64,
    planned: BTreeMap<u64, Fault>,
    rates: FaultRates,
    capacity_bytes: Option<u64>,
    nodes: Vec<Node>,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    /// What changed names since their directory was synced, in order.
    changes: Vec<Change>,
    locked: BTreeSet<PathBuf>,
}

/// The content of a file, whatever its name.
#[derive(Debug, Default)]
struct Node {
    bytes: Vec<u8>,
    /// What is left for sure.
    durable: Vec<u8>,
    /// From here on `bytes` may differ from `durable`.
    dirty_from: usize,
    /// Bytes that a failed sync has given up.
    lost: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// What an operation does, for the faults that may meet it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Reading,
    Changing,
    Growing,
}

impl MemoryDisk {
    /// An empty disk that never fails unless told to; `seed` decides what is lost when it does.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            life: 0,
            has_crashed: false,
            operations: 0,
            planned: BTreeMap::new(),
            rates: FaultRates::default(),
            capacity_bytes: None,
            nodes: Vec::new(),
            directories: BTreeSet::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
            locked: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets the operation fail that comes after `operations` more.
    pub fn fail_at(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + operations;
        state.planned.insert(at, fault);
    }

    /// Lets operations fail by chance from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// How much all files together may hold from now on; `None` is no limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether a [`Fault::Crash`] was met, and no restart since.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().has_crashed
    }

    /// Starts anew: whatever was open is closed, locks are free, planned faults and rates are taken back, and what
    /// `loss` says is forgotten.
    pub fn restart(&self, loss: Loss) {
        let mut state = self.state();
        if loss == Loss::Power {
            state.lose_names();
            state.lose_bytes();
        }
        state.life += 1;
        state.has_crashed = false;
        state.planned.clear();
        state.rates = FaultRates::default();
        state.locked.clear();
    }

    /// The content of a file, if there is one: not counted as an operation.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|node| state.nodes[*node].bytes.clone())
    }

    /// Puts a durable file in place, as if it had always been there: not counted as an operation.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let mut state = self.state();
        let node = state.nodes.len();
        let (bytes, durable) = (content.to_vec(), content.to_vec());
        state.nodes.push(Node { bytes, durable, dirty_from: content.len(), lost: None });
        state.names.insert(path.to_owned(), node);
        state.names_durable.insert(path.to_owned(), node);
        state.directories.extend(path.parent().map(Path::to_owned));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

impl State {
    /// A number below `bound`, by splitmix64.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (mixed ^ (mixed >> 31)) % bound.max(1) as u64;
        usize::try_from(drawn).expect("it is below a usize")
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < per_mille as usize
    }

    /// Counts an operation; the fault that it meets, if any.
    fn operation(&mut self, doing: Doing) -> Option<Fault> {
        if self.has_crashed {
            return Some(Fault::Crash);
        }
        let planned = self.planned.remove(&self.operations);
        self.operations += 1;
        let fault = match planned {
            Some(fault) => Some(fault),
            None if self.happens(self.rates.io_per_mille) => Some(Fault::Io),
            None if doing == Doing::Growing && self.happens(self.rates.no_space_per_mille) => {
                Some(Fault::NoSpace)
            }
            None => None,
        };
        self.has_crashed = fault == Some(Fault::Crash);
        fault
    }

    /// An operation that is done or not.
    fn whole(&mut self, doing: Doing) -> io::Result<()> {
        self.operation(doing).map_or(Ok(()), |fault| Err(error_of(fault)))
    }

    /// How many more bytes there is room for.
    fn room(&self) -> usize {
        let Some(capacity) = self.capacity_bytes else { return usize::MAX };
        let used: usize = self.names.values().map(|node| self.nodes[*node].bytes.len()).sum();
        usize::try_from(capacity).unwrap_or(usize::MAX).saturating_sub(used)
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// Keeps the changes of names up to some moment.
    fn lose_names(&mut self) {
        let kept = self.below(self.changes.len() + 1);
        for change in self.changes.drain(..).take(kept) {
            apply(&mut self.names_durable, &change);
        }
        self.names = self.names_durable.clone();
    }

    fn lose_bytes(&mut self) {
        for index in 0..self.nodes.len() {
            let node = std::mem::take(&mut self.nodes[index]);
            let bytes = self.left_of(&node);
            let dirty_from = bytes.len();
            self.nodes[index] = Node { durable: bytes.clone(), bytes, dirty_from, lost: None };
        }
    }

    /// What a power loss leaves of a file.
    fn left_of(&mut self, node: &Node) -> Vec<u8> {
        let mut left = node.with_holes();
        let length = node.dirty_from + self.below(left.len() - node.dirty_from + 1);
        match self.below(5) {
            0 => return node.durable.clone(),
            1 => {}
            2 => left.truncate(length),
            3 => {
                left.truncate(length);
                let garbled = (length - node.dirty_from).min(SECTOR_BYTES);
                let start = length - self.below(garbled + 1);
                for byte in &mut left[start..] {
                    *byte = u8::try_from(self.below(256)).expect("it is below 256");
                }
            }
            _ => {
                for sector in left[node.dirty_from..].chunks_mut(SECTOR_BYTES) {
                    if self.below(2) == 0 {
                        sector.fill(0);
                    }
                }
            }
        }
        left
    }
}

impl Node {
    /// The content less what failed syncs gave up.
    fn with_holes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(lost) = &self.lost {
            bytes[lost.clone()].fill(0);
        }
        bytes
    }

    fn truncate(&mut self, length: usize) {
        self.bytes.resize(length, 0);
        self.dirty_from = self.dirty_from.min(length);
        self.lost = self.lost.take().and_then(|lost| {
            let end = lost.end.min(length);
            (lost.start < end).then_some(lost.start..end)
        });
    }

    fn sync(&mut self) {
        self.durable = self.with_holes();
        self.dirty_from = self.bytes.len();
    }

    /// The system forgets that these bytes were ever to be written.
    fn sync_failed(&mut self) {
        let start = self.lost.as_ref().map_or(self.dirty_from, |lost| lost.start);
        self.lost = (start < self.bytes.len()).then_some(start..self.bytes.len());
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Link(path, node) => {
            names.insert(path.clone(), *node);
        }
        Change::Rename(from, to) => {
            // The directory of `from` may have been lost before.
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Change::Remove(path) => {
            names.remove(path);
        }
    }
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::Error::new(ErrorKind::StorageFull, "no space left on device"),
        Fault::Io => io::Error::other("input/output error"),
        Fault::Crash => io::Error::other("the disk is gone until the restart"),
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no file `{}`", path.display()))
}

fn to_index(offset_bytes: u64) -> usize {
    usize::try_from(offset_bytes).unwrap_or(usize::MAX)
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    life: u32,
    node: usize,
}

impl MemoryFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life { Ok(state) } else { Err(error_of(Fault::Crash)) }
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.whole(Doing::Changing)?;
        state.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.whole(Doing::Reading)?;
        if !state.directories.contains(directory) {
            return Err(not_found(directory));
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        let names = inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        Ok(names.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut file = self.append(path)?;
        if file.length()? > 0 {
            file.truncate(0)?;
        }
        Ok(file)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.whole(Doing::Growing)?;
        if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
            return Err(not_found(path));
        }
        let node = state.names.get(path).copied().unwrap_or_else(|| {
            let node = state.nodes.len();
            state.nodes.push(Node::default());
            state.change(Change::Link(path.to_owned(), node));
            node
        });
        Ok(Box::new(MemoryFile { disk: self.clone(), life: state.life, node }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.whole(Doing::Reading)?;
        let node = *state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(Box::new(MemoryFile { disk: self.clone(), life: state.life, node }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.whole(Doing::Changing)?;
        if !state.names.contains_key(from) {
            return Err(not_found(from));
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.whole(Doing::Changing)?;
        if !state.names.contains_key(path) {
            return Err(not_found(path));
        }
        state.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.whole(Doing::Changing)?;
        let is_inside = |name: &Path| name.parent() == Some(path);
        let (synced, rest) =
            std::mem::take(&mut state.changes).into_iter().partition(|change| match change {
                Change::Link(name, _) | Change::Remove(name) => is_inside(name),
                Change::Rename(_, to) => is_inside(to),
            });
        let synced: Vec<Change> = synced;
        state.changes = rest;
        for change in &synced {
            apply(&mut state.names_durable, change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut state = self.state();
        state.whole(Doing::Changing)?;
        if !state.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        let (disk, life) = (self.clone(), state.life);
        Ok(Some(Box::new(MemoryLock { disk, life, path: path.to_owned() })))
    }
}

impl DiskWriter for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let was_gone = state.has_crashed;
        let fault = state.operation(Doing::Growing);
        let room = state.room();
        let written = match fault {
            Some(_) if was_gone => 0,
            Some(_) => state.below(bytes.len() + 1).min(room),
            None => bytes.len().min(room),
        };
        state.nodes[self.node].bytes.extend_from_slice(&bytes[..written]);
        match fault {
            Some(fault) => Err(error_of(fault)),
            None if written < bytes.len() => Err(error_of(Fault::NoSpace)),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state()?;
        match state.operation(Doing::Growing) {
            None => state.nodes[self.node].sync(),
            Some(fault) => {
                if fault != Fault::Crash {
                    state.nodes[self.node].sync_failed();
                }
                return Err(error_of(fault));
            }
        }
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn truncate(&mut self, length_bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.whole(Doing::Changing)?;
        state.nodes[self.node].truncate(to_index(length_bytes));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        state.whole(Doing::Reading)?;
        Ok(state.nodes[self.node].bytes.len() as u64)
    }

    fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        state.whole(Doing::Reading)?;
        let length = state.nodes[self.node].bytes.len();
        let start = to_index(offset_bytes).min(length);
        let mut count = into.len().min(length - start);
        let rate = state.rates.short_reads_per_mille;
        if count > 1 && state.happens(rate) {
            count = 1 + state.below(count - 1);
        }
        into[..count].copy_from_slice(&state.nodes[self.node].bytes[start..start + count]);
        Ok(count)
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    life: u32,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "/state";

    /// A disk with `a`, durable with the first four bytes of its eight.
    fn disk(seed: u64) -> (MemoryDisk, PathBuf, Box<dyn DiskFile>) {
        let disk = MemoryDisk::new(seed);
        let path = Path::new(DIRECTORY).join("a");
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        let mut file = disk.create(&path).unwrap();
        disk.sync_directory(Path::new(DIRECTORY)).unwrap();
        file.write(b"kept").unwrap();
        file.sync().unwrap();
        file.write(b"open").unwrap();
        (disk, path, file)
    }

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_anything_of_the_rest() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let (disk, path, mut file) = disk(seed);
            disk.restart(Loss::Power);
            let left = disk.content(&path).unwrap();
            assert!(left.starts_with(b"kept"), "{left:?}");
            outcomes.insert(left.len());
            assert!(file.write(b"x").is_err(), "a file of the life before is closed");
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
        let (disk, path, _) = disk(1);
        disk.restart(Loss::Process);
        assert_eq!(disk.content(&path).unwrap(), b"keptopen");
    }

    #[test]
    fn names_are_undone_unless_their_directory_was_synced() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let (disk, path, mut file) = disk(seed);
            file.sync().unwrap();
            let other = Path::new(DIRECTORY).join("b");
            disk.rename(&path, &other).unwrap();
            disk.restart(Loss::Power);
            seen.insert(disk.list(Path::new(DIRECTORY)).unwrap());
        }
        assert_eq!(seen, BTreeSet::from([vec!["a".to_owned()], vec!["b".to_owned()]]));
    }

    #[test]
    fn what_a_failed_sync_gave_up_stays_lost() {
        let (disk, path, mut file) = disk(3);
        disk.fail_at(0, Fault::Io);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.content(&path).unwrap(), b"keptopen", "the cache shows it still");
        disk.restart(Loss::Power);
        assert_eq!(disk.content(&path).unwrap(), b"kept\0\0\0\0");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_has_room_again() {
        let (disk, path, mut file) = disk(4);
        disk.set_capacity_bytes(Some(10));
        assert_eq!(file.write(b"12345").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(disk.content(&path).unwrap(), b"keptopen12");
        file.truncate(5).unwrap();
        file.write(b"12345").unwrap();
    }
}
