//! Buckets and what is asked of them: ranges of objects, and pages of keys. Failed requests that may pass are
//! made again here, counted, with growing random waits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::counters::S3Counters;
use super::failure::{Asked, Backoff, Failure, FailureKind};
use super::object::S3Object;
use crate::aws::retry::jitter;
use crate::aws::s3::{Retries, bucket};
use crate::clock::Clock;
use crate::source::StopFlag;

/// How soon a request to stop is seen.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a reader goes on asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// So many tries; somebody waits for a report.
    Tries(u32),
    /// As long as it may pass, or a person may act: nothing may be lost.
    UntilStopped,
}

/// Whether something of an object was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Before,
    Within,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The service said no, or nothing for too long.
    Failed(Failure),
    /// The run is to stop.
    Stopped,
}

/// The store, bucket by bucket.
pub(super) struct Store {
    config: SdkConfig,
    clock: Arc<dyn Clock>,
    pub(super) counters: Arc<S3Counters>,
    pub(super) patience: Patience,
    /// One for each bucket that was asked for, which are as many as the configuration and the queue name.
    open: Mutex<HashMap<String, AmazonS3>>,
    stop: StopFlag,
}

/// A page of keys.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The objects, in order of their keys; without empty ones, which stand for folders.
    pub(super) objects: Vec<S3Object>,
    /// Prefixes up to the next `/`, if folders were asked for.
    pub(super) folders: Vec<String>,
}

/// Whether folders are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All keys with the prefix.
    All,
    /// Keys up to the next `/`, and folders.
    OneLevel,
}

impl Store {
    pub(super) fn new(
        config: SdkConfig,
        patience: Patience,
        counters: Arc<S3Counters>,
        clock: Arc<dyn Clock>,
        stop: StopFlag,
    ) -> Self {
        Self { config, clock, counters, patience, open: Mutex::default(), stop }
    }

    /// Some bytes of an object; fewer only if the object ends.
    pub(super) async fn range(
        &self,
        object: &S3Object,
        range: Range<u64>,
        stage: Stage,
    ) -> Result<Bytes, NoAnswer> {
        let asked = Asked::Object(&object.bucket, &object.key);
        let path = Path::parse(&object.key).map_err(|_| {
            let message = format!(
                "the key `{}` has an empty part, a `.` or a control character, which can't be asked for; rename it",
                object.key
            );
            NoAnswer::Failed(Failure { kind: FailureKind::Refused, message })
        })?;
        let store = self.bucket(&object.bucket)?;
        let bytes = self
            .with_patience(stage, || async {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(range.clone())),
                    version: object.version.clone(),
                    if_match: object.etag.as_ref().map(|etag| format!("\"{etag}\"")),
                    ..GetOptions::default()
                };
                let answer = store.get_opts(&path, options).await;
                let bytes = match answer {
                    Ok(answer) => answer.bytes().await,
                    Err(error) => Err(error),
                };
                bytes.map_err(|error| Failure::of(&error, asked))
            })
            .await?;
        self.counters.bytes.add(bytes.len() as u64);
        Ok(bytes)
    }

    /// All keys of a bucket that begin with `prefix`, handed on page by page; `Break` ends it.
    pub(super) async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        depth: Depth,
        take: &mut (dyn FnMut(Page) -> std::ops::ControlFlow<()> + Send),
    ) -> Result<(), NoAnswer> {
        let store = self.bucket(bucket)?;
        let mut page_token = None;
        loop {
            let answer = self
                .with_patience(Stage::Before, || async {
                    let options = PaginatedListOptions {
                        delimiter: (depth == Depth::OneLevel).then_some(Cow::Borrowed("/")),
                        page_token: page_token.clone(),
                        ..PaginatedListOptions::default()
                    };
                    let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
                    let answer = store.list_paginated(prefix, options).await;
                    answer.map_err(|error| Failure::of(&error, Asked::Keys(bucket)))
                })
                .await?;
            self.counters.keys_listed.add(answer.result.objects.len() as u64);
            let objects = answer.result.objects.into_iter().filter(|object| object.size > 0);
            let page = Page {
                objects: objects.map(|meta| S3Object::of_meta(bucket, meta)).collect(),
                folders: answer
                    .result
                    .common_prefixes
                    .iter()
                    .map(|path| format!("{path}/"))
                    .collect(),
            };
            page_token = answer.page_token;
            if take(page).is_break() || page_token.is_none() {
                return Ok(());
            }
        }
    }

    fn bucket(&self, name: &str) -> Result<AmazonS3, NoAnswer> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(name) {
            return Ok(store.clone());
        }
        let store = bucket(&self.config, name, Retries::ByCaller, Arc::clone(&self.clock))
            .map_err(|error| NoAnswer::Failed(Failure::of(&error, Asked::Keys(name))))?;
        open.insert(name.to_owned(), store.clone());
        Ok(store)
    }

    /// Asks until there is an answer, or no point in asking.
    async fn with_patience<T, F>(&self, stage: Stage, ask: impl Fn() -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let asked = unless_requested(&self.stop, ask()).await.ok_or(NoAnswer::Stopped)?;
            let failure = match asked {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.count(failure.kind);
            let delay = backoff.delay(failure.kind, jitter());
            let tries = backoff.failures_in_a_row();
            let is_over = match self.patience {
                Patience::Tries(tries_max) => !failure.may_pass() || tries >= tries_max,
                // What is read in part would be lost; a person may still act.
                Patience::UntilStopped if stage == Stage::Within => {
                    !failure.may_pass() && failure.kind != FailureKind::Denied
                }
                Patience::UntilStopped => !failure.may_pass(),
            };
            if is_over {
                return Err(NoAnswer::Failed(failure));
            }
            tracing::debug!(tries, error = failure.message, "a request to S3 is made again");
            if tries.is_multiple_of(8) {
                tracing::warn!(
                    tries,
                    error = failure.message,
                    "S3 does not answer; it is asked again"
                );
            }
            let slept = unless_requested(&self.stop, tokio::time::sleep(delay)).await;
            slept.ok_or(NoAnswer::Stopped)?;
        }
    }

    fn count(&self, kind: FailureKind) {
        let counters = &self.counters;
        match kind {
            FailureKind::Throttled => counters.throttled.add(1),
            FailureKind::Transient => counters.retried.add(1),
            FailureKind::Denied | FailureKind::Refused => counters.denied.add(1),
            FailureKind::Gone => counters.gone.add(1),
        }
    }
}

/// What a future gives, unless a stop is requested before.
pub(super) async fn unless_requested<T>(
    stop: &StopFlag,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut look = tokio::time::interval(STOP_CHECK_INTERVAL);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            _ = look.tick() => if stop.is_requested() { return None; }
        }
    }
}
