//! The place of the copies in an object store, with errors that name the object.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::error::RemoteError;

/// A store with conditional writes and uploads in parts.
pub trait RemoteStore: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> RemoteStore for T {}

/// All objects of one job.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn RemoteStore>,
    pub(super) prefix: Path,
    /// The same for people.
    pub(super) url: String,
}

impl Bucket {
    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// The URL of an object.
    pub(super) fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    fn error(&self, doing: &'static str, name: &str, source: Error) -> RemoteError {
        RemoteError::Store { doing, object: self.url_of(name), source: Box::new(source) }
    }

    /// A small object and its version; `None` if there is none. One that is longer than `bytes_max` is cut.
    pub(super) async fn read(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<(Bytes, UpdateVersion)>, RemoteError> {
        let error = |source| self.error("read", name, source);
        let found = match self.store.get(&self.path(name)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(error(source)),
        };
        let version =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        if found.meta.size > bytes_max {
            return Ok(Some((Bytes::new(), version)));
        }
        Ok(Some((found.bytes().await.map_err(error)?, version)))
    }

    /// Writes an object in place of exactly this version of it, or where there is none.
    pub(super) async fn replace(
        &self,
        name: &str,
        bytes: Vec<u8>,
        version: Option<UpdateVersion>,
    ) -> Result<UpdateVersion, RemoteError> {
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        let options = PutOptions { mode, ..PutOptions::default() };
        let written = self.store.put_opts(&self.path(name), PutPayload::from(bytes), options).await;
        written.map(UpdateVersion::from).map_err(|source| self.error("write", name, source))
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let written = self.store.put(&self.path(name), PutPayload::from(bytes)).await;
        written.map(drop).map_err(|source| self.error("write", name, source))
    }

    /// The length of an object, `None` if there is none.
    pub(super) async fn length(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        match self.store.head(&self.path(name)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.error("look at", name, source)),
        }
    }

    pub(super) async fn range(&self, name: &str, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let read = self.store.get_range(&self.path(name), range).await;
        read.map_err(|source| self.error("read", name, source))
    }

    /// Sees to it that an object is gone.
    pub(super) async fn remove(&self, name: &str) -> Result<(), RemoteError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.error("delete", name, source)),
        }
    }

    /// The names of all objects.
    pub(super) async fn names(&self) -> Result<Vec<String>, RemoteError> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.map_err(|source| self.error("list", "", source))?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        Ok(names.map(str::to_owned).collect())
    }

    /// Begins an upload in parts.
    pub(super) async fn begin(&self, name: &str) -> Result<String, RemoteError> {
        let begun = self.store.create_multipart(&self.path(name)).await;
        begun.map_err(|source| self.error("begin to write", name, source))
    }

    pub(super) async fn put_part(
        &self,
        (name, id): (&str, &str),
        index: usize,
        bytes: Vec<u8>,
    ) -> Result<PartId, RemoteError> {
        let payload = PutPayload::from(bytes);
        let put = self.store.put_part(&self.path(name), &id.to_owned(), index, payload).await;
        put.map_err(|source| self.error("write a part of", name, source))
    }

    pub(super) async fn complete(
        &self,
        (name, id): (&str, &str),
        parts: Vec<PartId>,
    ) -> Result<(), RemoteError> {
        let done = self.store.complete_multipart(&self.path(name), &id.to_owned(), parts).await;
        done.map(drop).map_err(|source| self.error("complete", name, source))
    }

    /// Sees to it that nothing is left of an upload in parts that did not come to an end.
    pub(super) async fn abort(&self, name: &str, id: &str) -> Result<(), RemoteError> {
        match self.store.abort_multipart(&self.path(name), &id.to_owned()).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.error("abort the upload of", name, source)),
        }
    }
}
