//! The bytes of snapshots to the store and back, in parts: what is in memory at any time is a few parts, however
//! long the snapshot is.

use std::collections::VecDeque;
use std::io;

use object_store::multipart::PartId;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::disk::{DiskFile, DiskWriter, read_full};
use super::error::RemoteError;
use super::fence::Fence;
use super::manifest::Copied;

/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Parts that an upload may have, by the limit of S3.
const PARTS_MAX: u64 = 10_000;

/// How long each part but the last is. S3 takes none below 5 MiB.
pub(super) fn part_bytes(length_bytes: u64, part_bytes_min: u64) -> u64 {
    part_bytes_min.max(length_bytes.div_ceil(PARTS_MAX))
}

/// Reads a piece of a file.
pub(super) fn read_piece(
    file: &dyn DiskFile,
    offset_bytes: u64,
    length_bytes: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length_bytes).map_err(io::Error::other)?];
    if read_full(file, offset_bytes, &mut bytes)? < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Uploads the parts of a file; between them the owner shows that it is alive.
///
/// # Errors
/// If a part could not be read or uploaded, or the copies are owned by somebody else.
pub(super) async fn upload_parts(
    fence: &mut Fence,
    (name, id): (&str, &str),
    (file, length_bytes): (&dyn DiskFile, u64),
    part_bytes: u64,
) -> Result<Vec<PartId>, RemoteError> {
    let count = usize::try_from(length_bytes.div_ceil(part_bytes)).expect("parts are few");
    let mut parts: Vec<Option<PartId>> = vec![None; count];
    // Tasks that are still under way after an error are aborted when the set is dropped.
    let mut under_way = JoinSet::new();
    let mut begun = 0;
    while begun < count || !under_way.is_empty() {
        if begun < count && under_way.len() < PARTS_AT_ONCE {
            let offset_bytes = begun as u64 * part_bytes;
            let piece_bytes = part_bytes.min(length_bytes - offset_bytes);
            let bytes = read_piece(file, offset_bytes, piece_bytes);
            let bytes = bytes.map_err(|source| RemoteError::Disk {
                object: fence.bucket.url_of(name),
                source,
            })?;
            let (bucket, name, id) = (fence.bucket.clone(), name.to_owned(), id.to_owned());
            let index = begun;
            under_way
                .spawn(async move { (index, bucket.put_part((&name, &id), index, bytes).await) });
            begun += 1;
            continue;
        }
        match timeout(fence.renew_in(), under_way.join_next()).await {
            Ok(joined) => {
                let joined = joined.expect("there are tasks");
                let (index, part) = joined.expect("a task neither panics nor is aborted here");
                parts[index] = Some(part?);
            }
            Err(_) => renew(fence).await?,
        }
    }
    Ok(parts.into_iter().map(|part| part.expect("every part came")).collect())
}

/// Shows that the owner is alive; what is not final is tried again in time.
async fn renew(fence: &mut Fence) -> Result<(), RemoteError> {
    match fence.renew().await {
        Err(error) if error.is_final() => Err(error),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not show that this process is alive; tries again"
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Why a copy did not come to the disk.
pub(super) enum Interrupted {
    Store(RemoteError),
    Disk(io::Error),
}

/// Downloads a copy to the end of a file, in order, a few pieces ahead; between them the owner shows that it is
/// alive.
pub(super) async fn download(
    fence: &mut Fence,
    copied: &Copied,
    piece_bytes: u64,
    file: &mut dyn DiskWriter,
) -> Result<(), Interrupted> {
    let mut ahead = VecDeque::new();
    let mut asked_bytes = 0;
    loop {
        while asked_bytes < copied.bytes && ahead.len() < PARTS_AT_ONCE {
            let range = asked_bytes..copied.bytes.min(asked_bytes + piece_bytes);
            asked_bytes = range.end;
            let (bucket, name) = (fence.bucket.clone(), copied.object.clone());
            ahead.push_back(tokio::spawn(async move { bucket.range(&name, range).await }));
        }
        let Some(piece) = ahead.pop_front() else { return Ok(()) };
        let bytes = piece.await.expect("a task neither panics nor is aborted");
        file.write(&bytes.map_err(Interrupted::Store)?).map_err(Interrupted::Disk)?;
        if fence.renew_in().is_zero() {
            renew(fence).await.map_err(Interrupted::Store)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_no_more_than_s3_takes() {
        let check = |length_bytes, expected| {
            let part = part_bytes(length_bytes, 8 << 20);
            assert_eq!(part, expected);
            assert!(length_bytes.div_ceil(part) <= PARTS_MAX);
        };
        check(1, 8 << 20);
        check(1 << 30, 8 << 20);
        check(1 << 40, 109_951_163);
    }
}
