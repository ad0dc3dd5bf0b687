//! The copies as a run sees them: taken at the start, added to with each snapshot, given up at the end. Blocks the
//! thread that asks.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use tokio::runtime::Runtime;

use super::super::container;
use super::super::directory::StateDirectory;
use super::super::disk::DiskWriter;
use super::super::error::{CheckpointError, RefusalReason};
use super::branch;
use super::bucket::{Bucket, RemoteStore};
use super::copies::Copies;
use super::error::RemoteError;
use super::fence::{self, Fence};
use super::manifest::{Manifest, Owner, Token};
use super::transfer::{Interrupted, download};
use super::{RemoteIdentity, SnapshotFile};
use crate::clock::Clock;

/// Where copies lie, and how they are reached.
pub struct RemoteSettings {
    /// The store.
    pub store: Arc<dyn RemoteStore>,
    /// Before the names of all objects.
    pub prefix: Path,
    /// Both for people: `s3://bucket/prefix`.
    pub url: String,
    /// On which the store is spoken to.
    pub runtime: Runtime,
    /// Who this is.
    pub identity: RemoteIdentity,
    /// After so long without a sign of life this process counts as gone.
    pub takeover_after: Duration,
    /// A snapshot that is longer is uploaded in parts of this many bytes at least.
    pub part_bytes_min: u64,
}

impl RemoteSettings {
    /// What [`Self::part_bytes_min`] is outside tests.
    pub const PART_BYTES_MIN: u64 = 8 << 20;
}

/// The copies of one job, which this process owns.
pub struct Remote {
    runtime: Runtime,
    copies: Copies,
    directory: Arc<StateDirectory>,
}

impl Remote {
    /// Takes the copies for this process, waiting as long as their owner may be alive. State of the directory that
    /// the copies have overtaken is set aside.
    ///
    /// # Errors
    /// If somebody else owns them, they are of another job, or the store cannot be used.
    pub fn claim(
        settings: RemoteSettings,
        directory: &Arc<StateDirectory>,
        job: u128,
        clock: &Arc<dyn Clock>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Self, CheckpointError> {
        let RemoteSettings { store, prefix, url, runtime, identity, .. } = settings;
        let (bucket, job, run) = (Bucket { store, prefix, url }, Token(job), Token(identity.run));
        let known = branch::name_of(directory)?;
        // The directory is locked, so the process that had it is gone if this is still the same machine.
        let is_former_self = |manifest: &Manifest, owner: &Owner| {
            known == Some(manifest.directory) && owner.boot.is_some() && owner.boot == identity.boot
        };
        let found = runtime.block_on(fence::wait_for_turn(
            &bucket,
            job,
            &is_former_self,
            &**clock,
            is_stopped,
        ))?;
        let manifest = found.as_ref().map(|found| &found.manifest);
        let name = branch::settle(directory, manifest, run, &bucket.url)?;
        let owner = Owner {
            run,
            host: identity.host,
            process: identity.process,
            boot: identity.boot,
            since: clock.now().0,
            silence_ms: u64::try_from(settings.takeover_after.as_millis()).unwrap_or(u64::MAX),
        };
        let claim = Fence::claim(bucket, found, (job, owner, name), Arc::clone(clock));
        let fence = runtime.block_on(claim)?;
        let copies = Copies::new(fence, run, settings.part_bytes_min);
        Ok(Self { runtime, copies, directory: Arc::clone(directory) })
    }

    /// Where the copies lie.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.copies.bucket().url
    }

    /// The epochs of all copies, in order.
    #[must_use]
    pub fn epochs(&self) -> Vec<u64> {
        self.copies.listed().iter().map(|copied| copied.epoch).collect()
    }

    /// The URL of a copy.
    pub(in super::super) fn url_of(&self, epoch: u64) -> String {
        let copied = self.copies.copied(epoch);
        copied.map_or_else(String::new, |copied| self.copies.bucket().url_of(&copied.object))
    }

    /// Puts a copy into the state directory, under the name that it had there.
    ///
    /// # Errors
    /// Outside, if store or disk fail; inside, if the copy is of no use.
    pub(in super::super) fn fetch(
        &mut self,
        epoch: u64,
    ) -> Result<Result<(), RefusalReason>, CheckpointError> {
        let Some(copied) = self.copies.copied(epoch).cloned() else {
            return Ok(Err(RefusalReason::Gone));
        };
        let bucket = self.copies.bucket();
        match self.runtime.block_on(bucket.length(&copied.object))? {
            None => return Ok(Err(RefusalReason::Gone)),
            Some(length) if length != copied.bytes => {
                return Ok(Err(RefusalReason::Damaged { what: "length".to_owned() }));
            }
            Some(_) => {}
        }
        let object = bucket.url_of(&copied.object);
        tracing::info!(object, bytes = copied.bytes, "fetches a snapshot");
        let piece_bytes = self.copies.part_bytes_min();
        let (runtime, fence) = (&self.runtime, self.copies.fence_mut());
        let mut failure = None;
        let fill = &mut |file: &mut dyn DiskWriter| {
            let downloaded = download(fence, &copied, piece_bytes, file);
            runtime.block_on(downloaded).map_err(|interrupted| match interrupted {
                Interrupted::Disk(error) => error,
                Interrupted::Store(error) => {
                    let text = error.to_string();
                    failure = Some(error);
                    std::io::Error::other(text)
                }
            })
        };
        let fetched = self.directory.replace(&container::file_name(epoch), fill);
        match failure {
            Some(error) => Err(error.into()),
            None => fetched.map(Ok),
        }
    }

    /// Notes that a copy could not be used.
    pub(in super::super) fn refuse(&mut self, epoch: u64, is_worthless: bool) {
        self.copies.refuse(epoch, is_worthless);
    }

    /// Uploads a snapshot and lists it: when this returns, any machine can go on from it. After an error the
    /// copies before are still there.
    ///
    /// # Errors
    /// If the store did not take it, or the copies are owned by somebody else ([`RemoteError::is_final`]).
    pub fn upload(&mut self, snapshot: &SnapshotFile) -> Result<(), RemoteError> {
        self.runtime.block_on(self.copies.upload(snapshot))
    }

    /// How long until the owner should show that it is alive, if it has nothing to upload.
    #[must_use]
    pub fn renew_in(&self) -> Duration {
        self.copies.fence().renew_in()
    }

    /// Shows that the owner is alive.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn renew(&mut self) -> Result<(), RemoteError> {
        self.runtime.block_on(self.copies.fence_mut().renew())
    }

    /// Gives the copies up: the next process need not wait.
    ///
    /// # Errors
    /// If the store did not take it.
    pub fn release(mut self) -> Result<(), RemoteError> {
        let fence = self.copies.fence_mut();
        let next = Manifest { owner: None, ..fence.manifest.clone() };
        self.runtime.block_on(fence.write(next))
    }
}
