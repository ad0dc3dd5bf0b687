//! Which state counts: that of the state directory or that of the copies.
//!
//! Epochs order the snapshots of one run and of those that went on from it. When a process elsewhere has gone on from a
//! copy, what the directory of the former owner holds beyond that is a branch that leads nowhere: its records were
//! read again elsewhere. A file in the directory keeps its name, and the list of the copies the name of the
//! directory whose process wrote last; equal names mean one line of snapshots.

use std::io::ErrorKind;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::directory::{StateDirectory, number_in};
use super::super::disk::read_full;
use super::super::error::CheckpointError;
use super::error::RemoteError;
use super::manifest::{Manifest, Token};

/// Keeps the name of the directory.
const NAME: &str = "remote.json";

/// More than this is no name.
const FILE_BYTES_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
struct DirectoryName {
    directory: Token,
}

/// The name of the directory, if it has been used with copies before.
pub(super) fn name_of(directory: &StateDirectory) -> Result<Option<Token>, CheckpointError> {
    let path = directory.file(NAME);
    let file = match directory.disk().open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::io("open", &path)(error)),
    };
    let mut bytes = [0; FILE_BYTES_MAX];
    let count =
        read_full(file.as_ref(), 0, &mut bytes).map_err(CheckpointError::io("read", &path))?;
    // One that is damaged is no name: the copies then count.
    Ok(serde_json::from_slice(&bytes[..count]).ok().map(|DirectoryName { directory }| directory))
}

/// Sets state aside that does not count, and gives the name under which the directory goes on: `new` if it
/// had none, or is another's successor from now on.
///
/// # Errors
/// [`RemoteError::TwoRuns`] if it is not clear which state counts.
pub(super) fn settle(
    directory: &Arc<StateDirectory>,
    found: Option<&Manifest>,
    new: Token,
    url: &str,
) -> Result<Token, CheckpointError> {
    let known = name_of(directory)?;
    let has_copies = found.is_some_and(|manifest| !manifest.snapshots.is_empty());
    if let Some(known) = known
        && (!has_copies || found.is_some_and(|manifest| manifest.directory == known))
    {
        return Ok(known);
    }
    let names = directory.names()?;
    let state = |name: &&String| {
        number_in(name, "snapshot-", ".fgs").is_some()
            || number_in(name, "journal-", ".ndjson").is_some()
            || *name == "cursors.json"
    };
    if has_copies {
        let is_snapshot = |name: &String| number_in(name, "snapshot-", ".fgs").is_some();
        if known.is_none() && names.iter().any(is_snapshot) {
            let (directory, url) = (directory.path().to_owned(), url.to_owned());
            return Err(RemoteError::TwoRuns { directory, url }.into());
        }
        let overtaken: Vec<&String> = names.iter().filter(state).collect();
        if !overtaken.is_empty() {
            let into = format!("overtaken-{}", known.unwrap_or_default());
            directory.set_aside(&overtaken, &into)?;
            tracing::warn!(
                remote = url,
                moved_to = %directory.file(&into).display(),
                "another process has gone on from the snapshots of this directory; what it held is set aside, and may be removed"
            );
        }
    }
    let name = DirectoryName { directory: new };
    let bytes = serde_json::to_vec(&name).expect("a name has a JSON form");
    directory.replace(NAME, &mut |file| file.write(&bytes))?;
    Ok(new)
}
