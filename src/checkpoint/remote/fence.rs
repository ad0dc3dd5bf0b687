//! Who may write: the list of the copies is changed by conditional writes alone.
//!
//! A store takes a conditional write only if the object is still the version that its writer has seen, so of two
//! processes that believe to own the list one finds out with its next write. The owner writes often enough to be
//! seen alive; a process that finds an owner watches the list, by its own clock, and takes over only when the list has
//! not changed for as long as the owner has promised never to be silent. An owner that was taken for gone and is
//! not (a paused machine, a cut network) is refused at its next write, and stops.
//!
//! An answer that does not come says nothing: the list is read again, and tells whether the write was done.

use std::sync::Arc;
use std::time::Duration;

use object_store::UpdateVersion;

use super::bucket::Bucket;
use super::error::RemoteError;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, Owner, Token};
use crate::clock::Clock;

/// The list's object.
pub(super) const NAME: &str = "manifest.json";

/// How often a write is tried whose answer is an error although nobody else has written.
const WRITE_TRIES: usize = 4;

/// The owner writes so many times within the time after which it counts as gone.
const WRITES_WITHIN_SILENCE: u32 = 3;

/// How often one who waits looks, within the same time.
const LOOKS_WITHIN_SILENCE: u32 = 12;

/// How often one who waits looks whether it is to stop.
const WAIT_STEP_MAX: Duration = Duration::from_millis(500);

/// A list as it was read.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    version: UpdateVersion,
}

/// The right to change the list.
pub(super) struct Fence {
    pub(super) bucket: Bucket,
    owner: Owner,
    /// As it stands, or as it stood when this process last knew.
    pub(super) manifest: Manifest,
    version: Option<UpdateVersion>,
    clock: Arc<dyn Clock>,
    /// When it was last written, or that was tried.
    tried_at: Duration,
}

/// Reads the list, `None` if there is none.
async fn read(bucket: &Bucket) -> Result<Option<(Found, Vec<u8>)>, RemoteError> {
    let Some((bytes, version)) = bucket.read(NAME, MANIFEST_BYTES_MAX).await? else {
        return Ok(None);
    };
    let manifest = Manifest::from_bytes(&bytes)
        .map_err(|reason| RemoteError::Manifest { object: bucket.url_of(NAME), reason })?;
    Ok(Some((Found { manifest, version }, bytes.to_vec())))
}

/// The list when nobody owns it, or its owner is gone. `is_former_self` knows an owner that this process has
/// replaced for certain.
///
/// # Errors
/// [`RemoteError::Owned`] if the owner is alive; [`RemoteError::OtherJob`]; [`RemoteError::Stopped`].
pub(super) async fn wait_for_turn(
    bucket: &Bucket,
    job: Token,
    is_former_self: &dyn Fn(&Manifest, &Owner) -> bool,
    clock: &dyn Clock,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<Found>, RemoteError> {
    let mut watched: Option<(UpdateVersion, Duration)> = None;
    loop {
        let Some((found, _)) = read(bucket).await? else { return Ok(None) };
        if found.manifest.job != job {
            let (url, found) = (bucket.url.clone(), found.manifest.job.0);
            return Err(RemoteError::OtherJob { url, found, expected: job.0 });
        }
        let Some(owner) = &found.manifest.owner else { return Ok(Some(found)) };
        if is_former_self(&found.manifest, owner) {
            return Ok(Some(found));
        }
        let (silence, now) = (Duration::from_millis(owner.silence_ms), clock.monotonic());
        match &watched {
            None => {
                tracing::warn!(
                    remote = bucket.url,
                    owner = %owner,
                    seconds = silence.as_secs_f64(),
                    "another process has not given its snapshots up; waits whether it is alive"
                );
                watched = Some((found.version.clone(), now));
            }
            Some((version, _)) if version.e_tag != found.version.e_tag => {
                let (url, owner) = (bucket.url.clone(), owner.to_string());
                return Err(RemoteError::Owned { url, owner });
            }
            Some((_, since)) if now.saturating_sub(*since) >= silence => {
                tracing::warn!(remote = bucket.url, owner = %owner, "takes over from a process that is gone");
                return Ok(Some(found));
            }
            Some(_) => {}
        }
        if is_stopped() {
            return Err(RemoteError::Stopped { url: bucket.url.clone() });
        }
        let step = (silence / LOOKS_WITHIN_SILENCE).min(WAIT_STEP_MAX);
        tokio::time::sleep(step).await;
    }
}

impl Fence {
    /// Takes the list, which must still be as it was found.
    ///
    /// # Errors
    /// [`RemoteError::Owned`] if another process was faster; [`RemoteError::Unconditional`] if the store does not
    /// know conditional writes.
    pub(super) async fn claim(
        bucket: Bucket,
        found: Option<Found>,
        (job, owner, directory): (Token, Owner, Token),
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RemoteError> {
        let (manifest, version) = match found {
            Some(Found { manifest, version }) => (manifest, Some(version)),
            None => (Manifest { job, ..Manifest::default() }, None),
        };
        let next = Manifest { owner: Some(owner.clone()), directory, ..manifest.clone() };
        let tried_at = clock.monotonic();
        let mut fence = Self { bucket, owner, manifest, version, clock, tried_at };
        fence.write(next).await.map_err(|error| match error {
            RemoteError::Overtaken { url, owner } => RemoteError::Owned { url, owner },
            other => other,
        })?;
        // The list is there now: a write that wants none there must be refused.
        let probe = fence.manifest.to_bytes();
        if fence.bucket.replace(NAME, probe, None).await.is_ok() {
            return Err(RemoteError::Unconditional { url: fence.bucket.url });
        }
        Ok(fence)
    }

    /// How long the list may stay as it is before the owner should show that it is alive.
    pub(super) fn renew_in(&self) -> Duration {
        let pace = Duration::from_millis(self.owner.silence_ms) / WRITES_WITHIN_SILENCE;
        pace.saturating_sub(self.clock.monotonic().saturating_sub(self.tried_at))
    }

    /// Shows that the owner is alive.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) async fn renew(&mut self) -> Result<(), RemoteError> {
        self.write(self.manifest.clone()).await
    }

    /// Writes the list. After an error that is not final it may stand or not: the next write says what is to hold.
    ///
    /// # Errors
    /// [`RemoteError::Overtaken`] if another process owns it; [`RemoteError::Store`].
    pub(super) async fn write(&mut self, mut next: Manifest) -> Result<(), RemoteError> {
        self.tried_at = self.clock.monotonic();
        let mut tries = 0;
        loop {
            next.writes = self.manifest.writes + 1;
            let bytes = next.to_bytes();
            let version = self.version.clone();
            let failure = match self.bucket.replace(NAME, bytes.clone(), version).await {
                Ok(version) => {
                    self.adopt(next, version);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            match read(&self.bucket).await? {
                Some((found, found_bytes)) if found_bytes == bytes => {
                    self.adopt(next, found.version);
                    return Ok(());
                }
                // One of this process's that had seemed to fail.
                Some((found, _)) if found.manifest.is_owned_by(self.owner.run) => {
                    self.manifest.writes = found.manifest.writes;
                    self.version = Some(found.version);
                }
                Some((found, _)) if !self.is_known(Some(&found.version)) => {
                    return Err(self.overtaken(found.manifest.owner_text()));
                }
                None if self.version.is_some() => {
                    return Err(self.overtaken("its manifest was removed".to_owned()));
                }
                // Nothing came of it.
                Some(_) | None => {}
            }
            tries += 1;
            if tries == WRITE_TRIES {
                return Err(failure);
            }
        }
    }

    fn adopt(&mut self, manifest: Manifest, version: UpdateVersion) {
        (self.manifest, self.version) = (manifest, Some(version));
    }

    fn is_known(&self, version: Option<&UpdateVersion>) -> bool {
        let e_tag = |version: Option<&UpdateVersion>| version.map(|version| version.e_tag.clone());
        e_tag(self.version.as_ref()) == e_tag(version)
    }

    fn overtaken(&self, owner: String) -> RemoteError {
        RemoteError::Overtaken { url: self.bucket.url.clone(), owner }
    }
}
