//! A store that fails: requests that are not done, that are done though an error says otherwise, that are done later,
//! objects that are cut. Clients are paused at random, and killed.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    random: Random,
    /// Of requests that go wrong.
    faults_per_mille: u64,
    /// Writes whose client has given them up.
    late: Vec<(Path, PutPayload, PutOptions)>,
}

/// One client's way to the store.
#[derive(Clone, Debug)]
pub(super) struct FaultyStore {
    pub(super) inner: InMemory,
    shared: Arc<Mutex<Shared>>,
    /// Requests until the client is killed.
    life: Arc<Mutex<Option<u64>>>,
    is_paused_at_random: bool,
    knows_conditions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    NotDone,
    DoneUnsaid,
    Late,
    Cut,
}

impl FaultyStore {
    pub(super) fn new(seed: u64) -> Self {
        let shared = Shared { random: Random(seed), faults_per_mille: 0, late: Vec::new() };
        Self {
            inner: InMemory::new(),
            shared: Arc::new(Mutex::new(shared)),
            life: Arc::default(),
            is_paused_at_random: false,
            knows_conditions: true,
        }
    }

    pub(super) fn set_faults(&self, per_mille: u64) {
        self.shared.lock().unwrap().faults_per_mille = per_mille;
    }

    /// A client that is killed after so many requests.
    pub(super) fn client(&self, life: Option<u64>) -> Self {
        Self { life: Arc::new(Mutex::new(life)), ..self.clone() }
    }

    /// A client that lets others go first at random.
    pub(super) fn slow_client(&self, life: Option<u64>) -> Self {
        Self { is_paused_at_random: true, ..self.client(life) }
    }

    /// A client of a store that takes every write.
    pub(super) fn without_conditions(&self) -> Self {
        Self { knows_conditions: false, ..self.clone() }
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.life.lock().unwrap() == Some(0)
    }

    /// What becomes of a request.
    async fn fate(&self, can_be_cut: bool, can_be_late: bool) -> Result<Fate> {
        let pauses = if self.is_paused_at_random {
            let mut shared = self.shared.lock().unwrap();
            if shared.random.below(8) == 0 { 60 } else { shared.random.below(3) }
        } else {
            0
        };
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        match &mut *self.life.lock().unwrap() {
            Some(0) => return Err(error("the client is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        let (fate, late) = {
            let mut shared = self.shared.lock().unwrap();
            let is_due = !shared.late.is_empty() && shared.random.below(3) == 0;
            let late = is_due.then(|| shared.late.remove(0));
            let fate = if shared.random.below(1000) >= shared.faults_per_mille {
                Fate::Good
            } else {
                match shared.random.below(4) {
                    0 if can_be_late => Fate::Late,
                    1 if can_be_cut => Fate::Cut,
                    0 | 1 => Fate::DoneUnsaid,
                    _ => Fate::NotDone,
                }
            };
            (fate, late)
        };
        if let Some((path, payload, options)) = late {
            // Nobody waits for the answer.
            let _done = self.inner.put_opts(&path, payload, options).await.is_ok();
        }
        Ok(fate)
    }

    async fn cut(&self, path: &Path) -> Result<()> {
        let bytes = self.inner.get(path).await?.bytes().await?;
        let kept = bytes.slice(..bytes.len() / 2);
        self.inner.put(path, kept.into()).await.map(drop)
    }
}

fn error(text: &'static str) -> Error {
    Error::Generic { store: "Faulty", source: text.into() }
}

impl Fate {
    /// What the client is told.
    fn tell<T>(self, done: Result<T>) -> Result<T> {
        match self {
            Self::DoneUnsaid => done.and(Err(error("no answer"))),
            _ => done,
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, how: PutOptions) -> Result<PutResult> {
        let is_list = at.filename() == Some("manifest.json");
        let fate = self.fate(!is_list, is_list).await?;
        match fate {
            Fate::NotDone => return Err(error("not done")),
            Fate::Late => {
                self.shared.lock().unwrap().late.push((at.clone(), payload, how));
                return Err(error("no answer yet"));
            }
            Fate::Good | Fate::DoneUnsaid | Fate::Cut => {}
        }
        let how = if self.knows_conditions { how } else { PutOptions::default() };
        let done = self.inner.put_opts(at, payload, how).await;
        if fate == Fate::Cut && done.is_ok() {
            self.cut(at).await?;
        }
        fate.tell(done)
    }

    async fn put_multipart_opts(
        &self,
        _at: &Path,
        _how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("parts are put one by one")
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        match self.fate(false, false).await? {
            Fate::NotDone => Err(error("not done")),
            fate => fate.tell(self.inner.get_opts(at, how).await),
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // What a killed client deletes is deleted nowhere.
        let store = if self.is_dead() { InMemory::new() } else { self.inner.clone() };
        store.delete_stream(paths)
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        unreachable!("lists have a delimiter")
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.fate(false, false).await? {
            Fate::NotDone => Err(error("not done")),
            fate => fate.tell(self.inner.list_with_delimiter(prefix).await),
        }
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _how: CopyOptions) -> Result<()> {
        unreachable!("nothing is copied within the store")
    }
}

#[async_trait]
impl MultipartStore for FaultyStore {
    async fn create_multipart(&self, at: &Path) -> Result<String> {
        match self.fate(false, false).await? {
            Fate::NotDone => Err(error("not done")),
            fate => fate.tell(self.inner.create_multipart(at).await),
        }
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &String,
        index: usize,
        payload: PutPayload,
    ) -> Result<PartId> {
        match self.fate(false, false).await? {
            Fate::NotDone => Err(error("not done")),
            fate => fate.tell(self.inner.put_part(at, id, index, payload).await),
        }
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &String,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let fate = self.fate(true, false).await?;
        if fate == Fate::NotDone {
            return Err(error("not done"));
        }
        let done = self.inner.complete_multipart(at, id, parts).await;
        if fate == Fate::Cut && done.is_ok() {
            self.cut(at).await?;
        }
        fate.tell(done)
    }

    async fn abort_multipart(&self, at: &Path, id: &String) -> Result<()> {
        match self.fate(false, false).await? {
            Fate::NotDone => Err(error("not done")),
            // S3 says so of one that is over.
            fate => fate.tell(self.inner.abort_multipart(at, id).await.map_err(|source| {
                Error::NotFound { path: at.to_string(), source: Box::new(source) }
            })),
        }
    }
}
