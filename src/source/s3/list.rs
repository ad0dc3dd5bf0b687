//! Objects that are known beforehand: what `s3://` URLs on the command line mean, read in the order of their keys.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::feed::{CHUNKS_WAITING_MAX, Feed};
use super::layout::may_hold;
use super::object::{Library, ReadEnd, S3Object};
use super::store::{Depth, NoAnswer, Page, Patience, Store};
use super::url::{MATCH_OPTIONS, S3Url, S3UrlError};
use super::{Fatal, S3Counters, hand_on, runtime};
use crate::aws::AwsAccess;
use crate::clock::Clock;
use crate::framing::{Chunk, ChunkEvent, InputFault, InputId, InputInfo, Limits, Positions};
use crate::record::FormatChoice;
use crate::source::service::connect;
use crate::source::{Emit, InputIds, Source, SourceError, StopFlag};
use crate::units::UnixSeconds;

/// Tries of a request before a report goes on without its answer: about half a minute.
const TRIES_MAX: u32 = 8;
/// Objects that are read at one time.
const PARALLEL: usize = 8;
/// Bytes of objects that may be in memory and not yet parsed.
const READ_AHEAD_BYTES_MAX: u64 = 256 << 20;
/// Objects that one command reads at most; each is some hundred bytes in memory.
const OBJECTS_MAX: usize = 10_000_000;

/// Why a URL means no object.
#[derive(Debug, thiserror::Error)]
pub enum S3ListError {
    /// A URL that is none.
    #[error(transparent)]
    Url(#[from] S3UrlError),
    /// No way to the bucket.
    #[error("cannot list `{url}`: {message}")]
    Refused {
        /// As written.
        url: String,
        /// What was refused and what to do.
        message: String,
    },
    /// Keys there are none.
    #[error(
        "no object is at or below `{0}`; `aws s3 ls` shows what there is, and `*` and `**` make a pattern"
    )]
    Empty(String),
    /// More than can be read at once.
    #[error("`{0}` means more than {OBJECTS_MAX} objects; read a part of them at a time")]
    TooMany(String),
}

/// The objects that `urls` mean, in the order of their buckets and keys, each once. Of keys with a day in them, only
/// those that can hold records from `since` on and before `until`.
///
/// # Errors
/// At the first URL that means no object.
pub fn discover_objects(
    urls: &[S3Url],
    access: &AwsAccess,
    (since, until): (Option<UnixSeconds>, Option<UnixSeconds>),
    clock: &Arc<dyn Clock>,
) -> Result<Vec<S3Object>, S3ListError> {
    let Some(first) = urls.first() else { return Ok(Vec::new()) };
    let refused =
        |url: &S3Url, message: String| S3ListError::Refused { url: url.to_string(), message };
    let stop = StopFlag::default();
    let runtime = runtime("s3", 1).map_err(|error| refused(first, error.to_string()))?;
    let config =
        runtime.block_on(access.load()).map_err(|error| refused(first, error.to_string()))?;
    let patience = Patience::Tries(TRIES_MAX);
    let store = Store::new(config, patience, Arc::default(), Arc::clone(clock), stop);
    let mut objects = Vec::new();
    for url in urls {
        let mut found = runtime.block_on(find(&store, url)).map_err(|error| match error {
            Ok(fault) => S3ListError::Url(fault),
            Err(NoAnswer::Failed(failure)) => refused(url, failure.message),
            Err(NoAnswer::Stopped) => refused(url, "it was stopped".to_owned()),
        })?;
        if found.is_empty() {
            return Err(S3ListError::Empty(url.to_string()));
        }
        found.retain(|object| may_hold(&object.key, since, until));
        objects.extend(found);
        if objects.len() > OBJECTS_MAX {
            return Err(S3ListError::TooMany(url.to_string()));
        }
    }
    objects.sort_unstable();
    let mut seen = HashSet::new();
    objects.retain(|object| seen.insert((Arc::clone(&object.bucket), object.key.clone())));
    Ok(objects)
}

/// The objects of a pattern; else the object itself and those in the folder of that name; else all whose keys
/// begin so.
async fn find(store: &Store, url: &S3Url) -> Result<Vec<S3Object>, Result<S3UrlError, NoAnswer>> {
    let pattern = url.pattern().map_err(Ok)?;
    let folder = format!("{}/", url.key);
    let is_named = |key: &str| match &pattern {
        Some(pattern) => pattern.matches_with(key, MATCH_OPTIONS),
        None => {
            url.key.is_empty()
                || url.key.ends_with('/')
                || key == url.key
                || key.starts_with(&folder)
        }
    };
    let (mut named, mut beginning) = (Vec::new(), Vec::new());
    let mut take = |page: Page| {
        for object in page.objects {
            if is_named(&object.key) {
                named.push(object);
            } else if pattern.is_none() && named.is_empty() {
                beginning.push(object);
            }
        }
        let is_too_much = named.len().max(beginning.len()) > OBJECTS_MAX;
        if is_too_much { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.list(&url.bucket, url.prefix(), Depth::All, &mut take).await.map_err(Err)?;
    Ok(if named.is_empty() { beginning } else { named })
}

/// Reads objects that are known beforehand, several at a time.
pub struct ObjectsSource {
    objects: Vec<(InputId, S3Object)>,
    access: AwsAccess,
    format: FormatChoice,
    limits: Limits,
    clock: Arc<dyn Clock>,
    positions: Arc<Positions>,
}

impl ObjectsSource {
    /// A source whose inputs have the objects' order.
    #[must_use]
    pub fn new(
        objects: Vec<S3Object>,
        access: AwsAccess,
        (format, limits): (FormatChoice, Limits),
        ids: &InputIds,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let objects = objects.into_iter().map(|object| (ids.next(), object)).collect();
        Self { objects, access, format, limits, clock, positions: Arc::default() }
    }
}

impl Source for ObjectsSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        const NAME: &str = "s3";
        let runtime = runtime(NAME, PARALLEL)?;
        let Some(config) = connect(NAME, &self.access, &runtime, stop)? else { return Ok(()) };
        let (to, from) = mpsc::channel(CHUNKS_WAITING_MAX);
        let counters: Arc<S3Counters> = Arc::default();
        let patience = Patience::Tries(TRIES_MAX);
        let store = Store::new(config, patience, counters, Arc::clone(&self.clock), stop.clone());
        let limits = self.limits.clone();
        let library = Arc::new(Library::new(store, limits, READ_AHEAD_BYTES_MAX, stop.clone()));
        let read = runtime.spawn(self.read_all(library, to, stop.clone()));
        hand_on(NAME, runtime, from, read, emit)
    }
}

impl ObjectsSource {
    async fn read_all(
        self: Box<Self>,
        library: Arc<Library>,
        to: mpsc::Sender<Chunk>,
        stop: StopFlag,
    ) -> Result<(), Fatal> {
        let mut reading: JoinSet<Result<(), Fatal>> = JoinSet::new();
        let joined = |end: Result<Result<(), Fatal>, tokio::task::JoinError>| {
            end.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        };
        for (input, object) in self.objects {
            if stop.is_requested() {
                break;
            }
            let name: Arc<str> = object.url().into();
            if self.positions.is_finished(&name) {
                continue;
            }
            while reading.len() >= PARALLEL {
                reading.join_next().await.map_or(Ok(()), joined)?;
            }
            let resume = self.positions.point(&name).cloned();
            let info = InputInfo { resume, ..InputInfo::new(name, self.format.clone()) };
            reading.spawn(read_one(Arc::clone(&library), object, info, input, to.clone()));
        }
        while let Some(end) = reading.join_next().await {
            joined(end)?;
        }
        Ok(())
    }
}

async fn read_one(
    library: Arc<Library>,
    object: S3Object,
    info: InputInfo,
    input: InputId,
    to: mpsc::Sender<Chunk>,
) -> Result<(), Fatal> {
    let feed = Feed::new(input, to.clone());
    match library.read(&object, info.clone(), feed).await {
        ReadEnd::Closed { .. } | ReadEnd::Stopped => Ok(()),
        ReadEnd::HungUp => Err(Fatal::HungUp),
        ReadEnd::Unavailable(failure) => {
            // An input that can't be had is told as a file that can't be opened.
            let mut feed = Feed::new(input, to);
            let hung_up = |_| Fatal::HungUp;
            feed.tell(ChunkEvent::Open(info)).await.map_err(hung_up)?;
            let fault = InputFault::Stream(failure.message);
            feed.tell(ChunkEvent::Close(Some(fault))).await.map_err(hung_up)
        }
    }
}
