//! Copies under fire: whatever the store does and whoever is killed, no half or foreign snapshot is restored, none that
//! was called safe is lost, and there are never two owners.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faulty;
mod lives;
mod owners;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use tokio::runtime::{Builder, Runtime};

use super::super::disk::MemoryDisk;
use super::super::{CheckpointError, Part, RefusalReason, Snapshot, Snapshots, StateDirectory};
use super::{Remote, RemoteIdentity, RemoteSettings, RemoteStore};
use crate::clock::{Clock, SystemClock};
use crate::codec::Encoder;

const JOB: u128 = 7;
const URL: &str = "s3://bucket/job";

/// What a run holds: which snapshots it comes from, each by its epoch and the run that made it.
type Line = Vec<(u64, u64)>;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// A process that takes others for gone at once: the worst that can happen.
fn settings(store: impl RemoteStore, run: u64) -> RemoteSettings {
    RemoteSettings {
        store: Arc::new(store),
        prefix: ObjectPath::from("job"),
        url: URL.to_owned(),
        runtime: runtime(),
        identity: RemoteIdentity {
            run: u128::from(run) << 64,
            host: format!("host-{run}"),
            process: 1,
            boot: Some("boot".to_owned()),
        },
        takeover_after: Duration::ZERO,
        part_bytes_min: 64,
    }
}

fn directory(disk: &MemoryDisk) -> Arc<StateDirectory> {
    StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap()
}

fn claim(
    settings: RemoteSettings,
    directory: &Arc<StateDirectory>,
) -> Result<Remote, CheckpointError> {
    Remote::claim(settings, directory, JOB, &clock(), &|| false)
}

fn parts(line: &Line) -> Vec<Part> {
    let mut out = Encoder::default();
    out.count(line.len());
    for (epoch, run) in line {
        out.u64(*epoch);
        out.u64(*run);
    }
    vec![Part { name: "line".to_owned(), segments: out.into_segments() }]
}

fn load(snapshot: &Snapshot) -> Result<Line, RefusalReason> {
    snapshot.decode("line", |from| {
        let count = from.count(16)?;
        (0..count).map(|_| Ok((from.u64()?, from.u64()?))).collect()
    })
}

/// What a start with these copies and this directory finds, and the messages of what it refuses.
fn restore(
    remote: &mut Remote,
    directory: &Arc<StateDirectory>,
) -> Result<(Snapshots, Line, Vec<String>), CheckpointError> {
    let mut snapshots = Snapshots::open(Arc::clone(directory), JOB)?;
    let restored = snapshots.restore_with(Some(remote), load)?;
    snapshots.continue_after(remote);
    let refused = restored.refused.iter().map(ToString::to_string).collect();
    Ok((snapshots, restored.state.map(|(_, line)| line).unwrap_or_default(), refused))
}
