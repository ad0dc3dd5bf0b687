//! Several processes at once that all believe to be the only one, interleaved request by request from a seed.

use std::cell::RefCell;

use super::super::SnapshotFile;
use super::super::bucket::Bucket;
use super::super::copies::Copies;
use super::super::fence::{self, Fence};
use super::super::manifest::{Owner, Token};
use super::faulty::{FaultyStore, Random};
use super::*;
use crate::checkpoint::disk::Disk as _;

/// What happened, each with the number of the write of the list in which it did.
#[derive(Default)]
struct History {
    claims: Vec<(u64, u64)>,
    /// Uploads that were called safe, with their epochs.
    safe: Vec<(u64, u64, u64)>,
}

fn bucket(store: FaultyStore) -> Bucket {
    let (prefix, url) = (ObjectPath::from("job"), URL.to_owned());
    Bucket { store: Arc::new(store), prefix, url }
}

fn file(line: &Line) -> SnapshotFile {
    let disk = MemoryDisk::new(1);
    disk.create_directory(Path::new("/state")).unwrap();
    let mut file = disk.append(Path::new("/state/x")).unwrap();
    let text = serde_json::to_vec(line).unwrap();
    file.write(&text).unwrap();
    let epoch = line.last().unwrap().0;
    SnapshotFile { epoch, bytes: text.len() as u64, file }
}

/// A process from its start to its end.
async fn live(store: FaultyStore, run: u64, snapshots: u64, history: &RefCell<History>) {
    let bucket = bucket(store);
    let (clock, job) = (clock(), Token(JOB));
    let turn = fence::wait_for_turn(&bucket, job, &|_, _| false, &*clock, &|| false).await;
    let Ok(found) = turn else { return };
    let token = Token(u128::from(run) << 64);
    let owner = Owner {
        run: token,
        host: run.to_string(),
        process: 1,
        boot: None,
        since: 0,
        silence_ms: 0,
    };
    let Ok(fence) = Fence::claim(bucket.clone(), found, (job, owner, token), clock).await else {
        return;
    };
    let claimed = fence.manifest.writes;
    history.borrow_mut().claims.push((claimed, run));
    let mut line: Line = match fence.manifest.snapshots.last() {
        None => Vec::new(),
        Some(copied) => {
            // Another may have taken over and removed it.
            let Ok(bytes) = bucket.range(&copied.object, 0..copied.bytes).await else { return };
            assert_eq!(bytes.len() as u64, copied.bytes, "a listed snapshot is whole");
            serde_json::from_slice(&bytes).expect("a listed snapshot is sound")
        }
    };
    for (writes, epoch, by) in &history.borrow().safe {
        assert!(*writes > claimed || line.contains(&(*epoch, *by)), "{epoch} of {by} is lost");
    }
    let first = fence.manifest.snapshots.last().map_or(1, |copied| copied.epoch + 1);
    let mut copies = Copies::new(fence, token, 64);
    for epoch in first..first + snapshots {
        line.push((epoch, run));
        match copies.upload(&file(&line)).await {
            Ok(()) => {
                let writes = copies.fence().manifest.writes;
                history.borrow_mut().safe.push((writes, epoch, run));
            }
            Err(error) if error.is_final() => return,
            Err(_) => {}
        }
    }
}

/// Lives of three machines at once; how many claims there were, and how many snapshots were safe.
fn simulate(seed: u64) -> (usize, usize) {
    let store = FaultyStore::new(seed);
    store.set_faults(80);
    let history = RefCell::default();
    let machine = |number: u64| {
        let (store, history) = (store.clone(), &history);
        async move {
            let mut random = Random(seed * 3 + number);
            for life in 0..8 {
                let requests = (random.below(2) == 0).then(|| 5 + random.below(80));
                let client = store.slow_client(requests);
                live(client, 3 * life + number + 1, 1 + random.below(5), history).await;
            }
        }
    };
    runtime().block_on(async { tokio::join!(machine(0), machine(1), machine(2)) });
    let History { claims, safe } = history.into_inner();
    for (writes, epoch, run) in &safe {
        let before = claims.iter().filter(|(claimed, _)| claimed < writes).max();
        let owner = before.map(|(_, run)| *run);
        assert_eq!(owner, Some(*run), "seed {seed}: epoch {epoch} in write {writes}");
        let others = safe.iter().filter(|(other, _, by)| other == writes && by != run);
        assert_eq!(others.count(), 0, "seed {seed}: one write of two owners");
    }
    (claims.len(), safe.len())
}

#[test]
fn there_are_never_two_owners() {
    let (mut claims, mut safe) = (0, 0);
    for seed in 0..300 {
        let (more_claims, more_safe) = simulate(seed);
        claims += more_claims;
        safe += more_safe;
    }
    println!("{claims} claims, {safe} safe");
    assert!(claims > 2_000 && safe > 1_000, "{claims} claims, {safe} safe");
}

#[test]
fn nothing_is_left_of_a_process_that_met_no_fault() {
    let store = FaultyStore::new(3);
    let history = RefCell::default();
    let listed = runtime().block_on(async {
        live(store.client(None), 1, 5, &history).await;
        fence::wait_for_turn(&bucket(store), Token(JOB), &|_, _| true, &*clock(), &|| false).await
    });
    let manifest = listed.ok().flatten().unwrap().manifest;
    let epochs: Vec<u64> = manifest.snapshots.iter().map(|copied| copied.epoch).collect();
    assert_eq!((epochs, manifest.begun.len()), (vec![4, 5], 0));
    assert_eq!(history.into_inner().safe.len(), 5);
}
