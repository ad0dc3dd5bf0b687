//! One process after the other, with disks that survive or do not, and former ones that wake up.

use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::faulty::{FaultyStore, Random};
use super::*;
use crate::checkpoint::RemoteError;
use crate::checkpoint::disk::Disk as _;
use crate::units::UnixSeconds;

/// A process that goes on from what it found.
struct Process {
    run: u64,
    remote: Remote,
    snapshots: Snapshots,
    line: Line,
}

impl Process {
    fn start(store: FaultyStore, disk: &MemoryDisk, run: u64) -> Result<Self, CheckpointError> {
        let directory = directory(disk);
        let mut remote = claim(settings(store, run), &directory)?;
        let (snapshots, line, _) = restore(&mut remote, &directory)?;
        Ok(Self { run, remote, snapshots, line })
    }

    /// Writes a snapshot to the disk.
    fn write(&mut self) -> u64 {
        let epoch = self.snapshots.next_epoch();
        self.line.push((epoch, self.run));
        self.snapshots.write(epoch, UnixSeconds(0), &parts(&self.line)).unwrap();
        epoch
    }

    /// Copies the newest.
    fn copy(&mut self) -> Result<(), RemoteError> {
        let (epoch, _) = *self.line.last().unwrap();
        let file = self.snapshots.file(epoch).unwrap();
        self.remote.upload(&file)
    }
}

/// Lives on one store; how many snapshots were safe, and how many former owners were refused.
fn simulate(seed: u64) -> (usize, usize) {
    const MACHINES: u64 = 3;
    const LIVES: u64 = 30;
    let mut random = Random(seed);
    let store = FaultyStore::new(seed ^ 1);
    let mut disks: Vec<MemoryDisk> = (0..MACHINES).map(|it| MemoryDisk::new(seed + it)).collect();
    let (mut safe, mut refused): (Line, usize) = (Vec::new(), 0);
    let mut former: Vec<Process> = Vec::new();
    for life in 1..=LIVES {
        let is_last = life == LIVES;
        store.set_faults(if is_last { 0 } else { 100 });
        let requests = (!is_last && random.below(3) > 0).then(|| 3 + random.below(60));
        let machine = random.below(MACHINES);
        let run = life * MACHINES + machine;
        // A directory is of one process at a time.
        former.retain(|process| process.run % MACHINES != machine);
        let disk = &mut disks[usize::try_from(machine).unwrap()];
        if random.below(4) == 0 {
            *disk = MemoryDisk::new(seed + 100 * life);
        }
        let client = store.client(requests);
        let mut process = match Process::start(client.clone(), disk, run) {
            Ok(process) => process,
            Err(CheckpointError::Remote(_)) => continue,
            Err(error) => panic!("seed {seed}, life {life}: {error}"),
        };
        let lost: Vec<_> = safe.iter().filter(|it| !process.line.contains(it)).collect();
        assert!(lost.is_empty(), "seed {seed}, life {life}: {lost:?} of {:?}", process.line);
        for _ in 0..random.below(6) + u64::from(is_last) {
            let epoch = process.write();
            if (is_last || random.below(3) > 0) && process.copy().is_ok() {
                safe.push((epoch, run));
            }
        }
        for late in &mut former {
            match late.copy() {
                Ok(()) => panic!("seed {seed}, life {life}: {} is no owner", late.run),
                Err(error) => refused += usize::from(error.is_final()),
            }
        }
        if is_last {
            let count = objects(&store).len();
            assert!((2..=10).contains(&count), "seed {seed}: {count} objects");
        }
        match random.below(3) {
            0 => drop(process.remote.release()),
            1 if !client.is_dead() && !process.line.is_empty() => former.push(process),
            _ => {}
        }
    }
    (safe.len(), refused)
}

#[test]
fn what_is_safe_is_never_lost_whoever_dies() {
    let (mut safe, mut refused) = (0, 0);
    for seed in 0..300 {
        let (more_safe, more_refused) = simulate(seed);
        safe += more_safe;
        refused += more_refused;
    }
    println!("{safe} safe, {refused} former owners refused");
    assert!(safe > 3_000 && refused > 300, "{safe} safe, {refused} refused");
}

/// Three snapshots of one process that is gone: two copies.
fn three_copies() -> (FaultyStore, Line) {
    let store = FaultyStore::new(1);
    let mut process = Process::start(store.clone(), &MemoryDisk::new(1), 1).unwrap();
    for _ in 0..3 {
        process.write();
        process.copy().unwrap();
    }
    (store, process.line)
}

fn objects(store: &FaultyStore) -> Vec<String> {
    let prefix = ObjectPath::from("job");
    let listed = runtime().block_on(store.inner.list_with_delimiter(Some(&prefix))).unwrap();
    let names = listed.objects.iter().filter_map(|object| object.location.filename());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// An object's name in [`three_copies`] and what follows.
fn object(epoch: u64, run: u64) -> String {
    format!("snapshot-{epoch:08}-{run:016x}.fgs")
}

#[test]
fn another_machine_goes_on_from_the_newest_copy() {
    let (store, line) = three_copies();
    assert_eq!(objects(&store), ["manifest.json", &object(2, 1), &object(3, 1)]);
    let disk = MemoryDisk::new(2);
    let mut next = Process::start(store.clone(), &disk, 2).unwrap();
    assert_eq!(next.line, line);
    assert_eq!(next.write(), 4);
    next.copy().unwrap();
    assert_eq!(objects(&store), ["manifest.json", &object(3, 1), &object(4, 2)]);
    let names = disk.list(Path::new("/state")).unwrap();
    assert_eq!(names, ["remote.json", "snapshot-00000003.fgs", "snapshot-00000004.fgs"]);
}

#[test]
fn the_newest_of_both_sides_is_used_by_the_machine_itself() {
    let store = FaultyStore::new(1);
    let disk = MemoryDisk::new(1);
    let mut process = Process::start(store.clone(), &disk, 1).unwrap();
    process.write();
    process.copy().unwrap();
    process.write();
    let line = process.line.clone();
    drop((process.remote, process.snapshots));
    let mut again = Process::start(store, &disk, 2).unwrap();
    assert_eq!(again.line, line, "the disk is ahead");
    assert_eq!(again.write(), 3);
}

#[test]
fn state_that_was_overtaken_is_set_aside() {
    let store = FaultyStore::new(1);
    let [first, second] = [1, 2].map(MemoryDisk::new);
    let mut process = Process::start(store.clone(), &first, 1).unwrap();
    process.write();
    process.copy().unwrap();
    for _ in 0..5 {
        process.write();
    }
    drop((process.remote, process.snapshots));
    let mut elsewhere = Process::start(store.clone(), &second, 2).unwrap();
    elsewhere.write();
    elsewhere.copy().unwrap();
    let line = elsewhere.line.clone();
    drop((elsewhere.remote, elsewhere.snapshots));
    let back = Process::start(store, &first, 3).unwrap();
    assert_eq!(back.line, line);
    let aside = Path::new("/state").join(format!("overtaken-{:032x}", 1_u128 << 64));
    assert_eq!(first.list(&aside).unwrap(), ["snapshot-00000005.fgs", "snapshot-00000006.fgs"]);
}

#[test]
fn two_runs_that_know_nothing_of_each_other_are_told() {
    let (store, _) = three_copies();
    let disk = MemoryDisk::new(2);
    let mut snapshots = Snapshots::open(directory(&disk), JOB).unwrap();
    snapshots.write(1, UnixSeconds(0), &parts(&vec![(1, 9)])).unwrap();
    drop(snapshots);
    let error = Process::start(store, &disk, 2).err().unwrap().to_string();
    let expected = "`/state` has snapshots, and `s3://bucket/job` has those of another run; move the ones that are not to be used elsewhere";
    assert_eq!(error, expected);
}

#[test]
fn a_prefix_of_another_job_is_refused() {
    let (store, _) = three_copies();
    let directory = directory(&MemoryDisk::new(2));
    let claimed = Remote::claim(settings(store, 2), &directory, JOB + 1, &clock(), &|| false);
    let error = claimed.err().unwrap().to_string();
    let expected = "`s3://bucket/job` belongs to another job (fingerprint 0000";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn a_store_without_conditional_writes_is_refused() {
    let store = FaultyStore::new(1).without_conditions();
    let error = claim(settings(store, 1), &directory(&MemoryDisk::new(1))).err().unwrap();
    let unconditional = RemoteError::Unconditional { url: URL.to_owned() };
    assert_eq!(error.to_string(), unconditional.to_string());
}

/// What a start says and finds when the newest copy was changed so: new bytes, or none.
fn check_damage(change: impl Fn(Vec<u8>) -> Option<Vec<u8>>, expected: &str) {
    let (store, line) = three_copies();
    let path = ObjectPath::from(format!("job/{}", object(3, 1)));
    runtime().block_on(async {
        let bytes = store.inner.get(&path).await.unwrap().bytes().await.unwrap();
        match change(bytes.to_vec()) {
            Some(bytes) => drop(store.inner.put(&path, bytes.into()).await.unwrap()),
            None => store.inner.delete(&path).await.unwrap(),
        }
    });
    let directory = directory(&MemoryDisk::new(2));
    let mut remote = claim(settings(store.clone(), 2), &directory).unwrap();
    let (mut snapshots, found, refused) = restore(&mut remote, &directory).unwrap();
    assert_eq!(found, line[..2], "the one before");
    assert_eq!(refused, [format!("`{URL}/{}` is refused: {expected}", object(3, 1))]);
    assert_eq!(snapshots.next_epoch(), 4);
    snapshots.write(4, UnixSeconds(0), &parts(&found)).unwrap();
    remote.upload(&snapshots.file(4).unwrap()).unwrap();
    assert_eq!(objects(&store), ["manifest.json", &object(2, 1), &object(4, 2)]);
}

#[test]
fn a_damaged_copy_is_refused_and_the_one_before_used() {
    let changed = |mut bytes: Vec<u8>| {
        // The middle of what the only part holds.
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Some(bytes)
    };
    check_damage(changed, "its part `line` is damaged");
    let cut = |mut bytes: Vec<u8>| bytes.pop().map(|_| bytes);
    check_damage(cut, "its length is damaged");
    check_damage(|_| None, "it is listed, and somebody has removed it");
}

#[test]
fn a_damaged_file_is_replaced_by_its_copy() {
    let store = FaultyStore::new(1);
    let disk = MemoryDisk::new(1);
    let mut process = Process::start(store.clone(), &disk, 1).unwrap();
    for _ in 0..2 {
        process.write();
        process.copy().unwrap();
    }
    let line = process.line.clone();
    drop((process.remote, process.snapshots));
    disk.put(Path::new("/state/snapshot-00000002.fgs"), b"");
    assert_eq!(Process::start(store, &disk, 2).unwrap().line, line);
}

#[test]
fn an_owner_that_is_alive_is_not_replaced() {
    let store = FaultyStore::new(1);
    let [first, second] = [1, 2].map(|seed| directory(&MemoryDisk::new(seed)));
    let settings_of = |run, takeover_after_ms| RemoteSettings {
        takeover_after: Duration::from_millis(takeover_after_ms),
        ..settings(store.clone(), run)
    };
    let mut owner = claim(settings_of(1, 60_000), &first).unwrap();
    let (over_out, over) = crossbeam_channel::bounded::<()>(1);
    let alive = std::thread::Builder::new().spawn(move || {
        while over.try_recv().is_err() {
            owner.renew().unwrap();
        }
        owner
    });
    let alive = alive.unwrap();
    let error = claim(settings_of(2, 0), &second).err().unwrap();
    over_out.send(()).unwrap();
    assert!(matches!(error, CheckpointError::Remote(RemoteError::Owned { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("(process 1 on host host-1, since "), "{text}");
    // Whoever waits can be stopped.
    let owner = alive.join().unwrap();
    let stopped = Remote::claim(settings_of(3, 0), &second, JOB, &clock(), &|| true);
    let stopped = stopped.err().unwrap();
    assert!(matches!(stopped, CheckpointError::Remote(RemoteError::Stopped { .. })), "{stopped}");
    // One that has given the copies up is not waited for.
    owner.release().unwrap();
    claim(settings_of(4, 60_000), &second).map(drop).unwrap();
    // Nor is a former process of the same directory on the same machine: the directory is free.
    claim(settings_of(5, 60_000), &second).map(drop).unwrap();
}
