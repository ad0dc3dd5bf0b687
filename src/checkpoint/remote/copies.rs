//! Snapshots to the bucket: the object first, the list of copies then, what is no longer listed goes last.
//!
//! Whatever happens in between, the list names whole snapshots alone, and whoever owns it can tell what else lies
//! there. Only objects of epochs below the newest listed one are swept: those of a successor that has taken over
//! unnoticed are above it.

use std::collections::BTreeMap;

use super::super::directory::number_in;
use super::SnapshotFile;
use super::bucket::Bucket;
use super::error::RemoteError;
use super::fence::Fence;
use super::manifest::{Begun, Copied, Manifest, Token};
use super::transfer::{part_bytes, read_piece, upload_parts};

/// How many copies are kept.
const KEPT: usize = 2;

/// Uploads in parts that are remembered until they are aborted.
const BEGUN_MAX: usize = 16;

/// Digits of a run in the name of an object.
const RUN_DIGITS: usize = 16;

/// What this process keeps in the bucket.
pub(super) struct Copies {
    fence: Fence,
    run: Token,
    part_bytes_min: u64,
    /// Copies that could not be used at the start, and whether they are of no use to anybody.
    refused: BTreeMap<u64, bool>,
    /// There may be objects that are not listed.
    is_untidy: bool,
}

impl Copies {
    pub(super) const fn new(fence: Fence, run: Token, part_bytes_min: u64) -> Self {
        Self { fence, run, part_bytes_min, refused: BTreeMap::new(), is_untidy: true }
    }

    pub(super) const fn bucket(&self) -> &Bucket {
        &self.fence.bucket
    }

    pub(super) const fn fence(&self) -> &Fence {
        &self.fence
    }

    pub(super) const fn fence_mut(&mut self) -> &mut Fence {
        &mut self.fence
    }

    pub(super) const fn part_bytes_min(&self) -> u64 {
        self.part_bytes_min
    }

    pub(super) fn listed(&self) -> &[Copied] {
        &self.fence.manifest.snapshots
    }

    pub(super) fn copied(&self, epoch: u64) -> Option<&Copied> {
        self.listed().iter().find(|copied| copied.epoch == epoch)
    }

    /// Notes that a copy could not be used.
    pub(super) fn refuse(&mut self, epoch: u64, is_worthless: bool) {
        self.refused.insert(epoch, is_worthless);
    }

    /// Uploads a snapshot and lists it.
    ///
    /// # Errors
    /// If the store did not take it; then nothing is listed that was not before, or it is though the store said
    /// otherwise, and the next upload goes on from there.
    pub(super) async fn upload(&mut self, snapshot: &SnapshotFile) -> Result<(), RemoteError> {
        let was_untidy = std::mem::replace(&mut self.is_untidy, true);
        self.abort_begun().await;
        let object = object_name(snapshot.epoch, self.run);
        let stored = self.store(&object, snapshot).await;
        // The answer may have been lost. No other snapshot has this name, so that its length tells.
        match self.fence.bucket.length(&object).await {
            Ok(Some(length)) if length == snapshot.bytes => {}
            Ok(length) => {
                self.abort_begun().await;
                stored?;
                let text = format!("it has {length:?} bytes in place of {}", snapshot.bytes);
                let (doing, object) = ("write", self.fence.bucket.url_of(&object));
                return Err(RemoteError::Store { doing, object, source: text.into() });
            }
            Err(error) => return stored.and(Err(error)),
        }
        let copied = Copied { epoch: snapshot.epoch, object, bytes: snapshot.bytes };
        let (snapshots, dropped) = self.list_with(copied);
        self.fence.write(Manifest { snapshots, ..self.fence.manifest.clone() }).await?;
        self.is_untidy = self.tidy(dropped, was_untidy).await.is_err();
        Ok(())
    }

    async fn store(&mut self, object: &str, snapshot: &SnapshotFile) -> Result<(), RemoteError> {
        let SnapshotFile { bytes: length_bytes, file, .. } = snapshot;
        let (file, length_bytes) = (&**file, *length_bytes);
        let part_bytes = part_bytes(length_bytes, self.part_bytes_min);
        if length_bytes <= part_bytes {
            let bytes = read_piece(file, 0, length_bytes);
            let url = || self.fence.bucket.url_of(object);
            let bytes = bytes.map_err(|source| RemoteError::Disk { object: url(), source })?;
            return self.fence.bucket.put(object, bytes).await;
        }
        let id = self.fence.bucket.begin(object).await?;
        let upload = (object, id.as_str());
        // Listed before there are parts, so that whoever comes next can remove them.
        let begun = Begun { object: object.to_owned(), id: id.clone() };
        let mut manifest = self.fence.manifest.clone();
        manifest.begun.push(begun.clone());
        let excess = manifest.begun.len().saturating_sub(BEGUN_MAX);
        manifest.begun.drain(..excess);
        if let Err(error) = self.fence.write(manifest).await {
            // Nobody knows of it; what is not removed now, a rule of the bucket removes.
            let _aborted = self.fence.bucket.abort(object, &id).await.is_ok();
            return Err(error);
        }
        let parts = upload_parts(&mut self.fence, upload, (file, length_bytes), part_bytes).await;
        let done = match parts {
            Ok(parts) => self.fence.bucket.complete(upload, parts).await,
            Err(error) => Err(error),
        };
        if done.is_ok() {
            // Told with the next write of the list.
            self.fence.manifest.begun.retain(|other| *other != begun);
        }
        done
    }

    /// Aborts uploads in parts that did not come to an end; those that can't be are tried again with the
    /// next snapshot.
    async fn abort_begun(&mut self) {
        for begun in self.fence.manifest.begun.clone() {
            match self.fence.bucket.abort(&begun.object, &begun.id).await {
                Ok(()) => self.fence.manifest.begun.retain(|other| *other != begun),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "parts of an upload that has failed are left in the bucket"
                ),
            }
        }
    }

    /// The list with one more, and what is no longer in it.
    fn list_with(&self, copied: Copied) -> (Vec<Copied>, Vec<Copied>) {
        let epoch = copied.epoch;
        let others = self.listed().iter().filter(|other| other.epoch != epoch).cloned();
        let (good, refused): (Vec<Copied>, Vec<Copied>) =
            others.chain([copied]).partition(|other| !self.refused.contains_key(&other.epoch));
        // Those that another version or configuration can use stay, as they do on disk.
        let (mut dropped, mut listed): (Vec<Copied>, Vec<Copied>) =
            refused.into_iter().partition(|other| self.refused.get(&other.epoch) == Some(&true));
        let old = good.len().saturating_sub(KEPT);
        dropped.extend_from_slice(&good[..old]);
        listed.extend_from_slice(&good[old..]);
        listed.sort_by_key(|copied| copied.epoch);
        (listed, dropped)
    }

    /// Removes what is no longer listed, and if there may be more, all that is not.
    ///
    /// # Errors
    /// If something is left that can be removed later.
    async fn tidy(&self, dropped: Vec<Copied>, is_untidy: bool) -> Result<(), RemoteError> {
        let bucket = &self.fence.bucket;
        for copied in &dropped {
            bucket.remove(&copied.object).await?;
        }
        if is_untidy {
            let newest = self.listed().last().map_or(0, |copied| copied.epoch);
            for name in bucket.names().await? {
                let is_old = epoch_in(&name).is_some_and(|epoch| epoch < newest);
                if is_old && self.listed().iter().all(|copied| copied.object != name) {
                    bucket.remove(&name).await?;
                }
            }
        }
        Ok(())
    }
}

/// No two runs upload under the same name, so that none writes over another's snapshot.
fn object_name(epoch: u64, run: Token) -> String {
    format!("snapshot-{epoch:08}-{}.fgs", &run.to_string()[..RUN_DIGITS])
}

/// The epoch of an object that holds a snapshot.
fn epoch_in(name: &str) -> Option<u64> {
    let (start, run) = name.strip_suffix(".fgs")?.rsplit_once('-')?;
    let is_run = run.len() == RUN_DIGITS && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_run { number_in(start, "snapshot-", "") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_epoch_and_the_run() {
        let name = object_name(42, Token(0xabc << 100));
        assert_eq!(name, "snapshot-00000042-0000abc000000000.fgs");
        assert_eq!(epoch_in(&name), Some(42));
        for other in ["manifest.json", "snapshot-00000042.fgs", "snapshot-42-0000abc000000000.fgs"]
        {
            assert_eq!(epoch_in(other), None, "{other}");
        }
    }
}
