//! One object, read to its end: which bytes are fetched, and what is handed on.
//!
//! ```text
//! at most WHOLE_BYTES_MAX:  all of it, parts side by side ──► gzip as it is, else cut on a blocking thread
//! larger, gzip and text:    part by part, a few ahead ──────► cut on a blocking thread
//! larger, Parquet:          its end, then each row group ───► as they are
//! ```
//!
//! Bytes in memory are paid for out of a budget that all objects of a source share ([`Budget`]), and are given back when
//! the last worker has dropped them.

use std::io::Read;
#[cfg(feature = "parquet")]
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use object_store::ObjectMeta;
use tokio::sync::mpsc;

use super::feed::{Feed, Hangup};
use super::parts::{Budget, PART_BYTES, PartStream, Parts, held};
use super::store::{NoAnswer, Stage, Store};
use super::url::S3_SCHEME;
use crate::framing::{
    ChunkEvent, InputFault, InputInfo, InputReader, Limits, ObjectForm, Position, packed_object,
};
use crate::source::StopFlag;

/// Objects up to this size are fetched whole; AWS delivers flow logs in objects of at most 75 MB.
const WHOLE_BYTES_MAX: u64 = 96 << 20;
/// What is looked at first for the footer of a Parquet object.
#[cfg(feature = "parquet")]
const TAIL_BYTES: u64 = 256 << 10;

/// An object that is to be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct S3Object {
    /// Its bucket.
    pub bucket: Arc<str>,
    /// Its key, as it is and not as URLs encode it.
    pub key: String,
    /// What tells apart what the key held at different times, without quotes.
    pub etag: Option<String>,
    /// Which version of the key, where the bucket keeps several.
    pub version: Option<String>,
    /// How long it is.
    pub size: u64,
}

impl S3Object {
    pub(super) fn of_meta(bucket: &str, meta: ObjectMeta) -> Self {
        Self {
            bucket: bucket.into(),
            key: meta.location.into(),
            etag: meta.e_tag.map(|etag| etag.trim_matches('"').to_owned()),
            version: None,
            size: meta.size,
        }
    }

    /// `s3://bucket/key`, for people.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{S3_SCHEME}{}/{}", self.bucket, self.key)
    }

    /// What it is called over runs: a key that is written anew is another object.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match &self.etag {
            Some(etag) => format!("{}#{etag}", self.url()).into(),
            None => self.url().into(),
        }
    }
}

/// What all readers of a source share.
pub(super) struct Library {
    pub(super) store: Store,
    pub(super) limits: Limits,
    pub(super) stop: StopFlag,
    pub(super) budget: Budget,
    whole_bytes_max: u64,
}

/// How reading an object ended.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// It is closed, after so many events.
    Closed { event_count: u64 },
    /// Nothing of it could be had, and nothing was emitted.
    Unavailable(super::failure::Failure),
    /// The run is to stop.
    Stopped,
    /// The pipeline takes no more.
    HungUp,
}

impl From<Hangup> for ReadEnd {
    fn from(_: Hangup) -> Self {
        Self::HungUp
    }
}

impl Library {
    /// A library whose readers hold at most `bytes_max` bytes together.
    pub(super) fn new(store: Store, limits: Limits, bytes_max: u64, stop: StopFlag) -> Self {
        Self {
            store,
            limits,
            stop,
            budget: Budget::new(bytes_max),
            whole_bytes_max: WHOLE_BYTES_MAX.min(bytes_max / 2),
        }
    }

    /// Reads an object as the input `feed`, from where `info` says. It is opened when its first bytes are there.
    pub(super) async fn read(
        self: &Arc<Self>,
        object: &S3Object,
        info: InputInfo,
        feed: Feed,
    ) -> ReadEnd {
        let from = info.resume.as_ref().map(|point| point.position.clone());
        if object.size <= self.whole_bytes_max {
            self.read_whole(object, from, info, feed).await
        } else {
            self.read_in_parts(object, from, info, feed).await
        }
    }

    async fn read_whole(
        self: &Arc<Self>,
        object: &S3Object,
        from: Option<Position>,
        info: InputInfo,
        mut feed: Feed,
    ) -> ReadEnd {
        let permit = self.budget.reserve(object.size).await;
        let bytes = match self.whole(object).await {
            Ok(bytes) => held(bytes, permit),
            Err(NoAnswer::Stopped) => return ReadEnd::Stopped,
            Err(NoAnswer::Failed(failure)) => return ReadEnd::Unavailable(failure),
        };
        if let Err(Hangup) = feed.tell(ChunkEvent::Open(info)).await {
            return ReadEnd::HungUp;
        }
        let outcome = match ObjectForm::of(&bytes) {
            ObjectForm::Gzip => match packed_object(bytes, from.as_ref()) {
                Ok(piece) => feed.put(piece).await.map(|()| Ok(())),
                Err(fault) => Ok(Err(fault)),
            },
            #[cfg(feature = "parquet")]
            ObjectForm::Parquet => {
                self.parquet(object, from.as_ref(), Some(bytes), &mut feed).await
            }
            _ => {
                let offset = from.as_ref().map_or(0, Position::byte_offset);
                let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let stream = Box::new(bytes.slice(offset..).reader());
                return self.cut(stream, from, feed).await;
            }
        };
        close(outcome, &self.stop, feed).await
    }

    async fn read_in_parts(
        self: &Arc<Self>,
        object: &S3Object,
        from: Option<Position>,
        info: InputInfo,
        mut feed: Feed,
    ) -> ReadEnd {
        let offset = from.as_ref().map_or(0, Position::byte_offset).min(object.size);
        let mut parts = Parts::new(Arc::clone(self), object.clone(), offset..object.size);
        let first = match parts.next().await {
            None => Bytes::new(),
            Some(Ok(first)) => first,
            Some(Err(NoAnswer::Stopped)) => return ReadEnd::Stopped,
            Some(Err(NoAnswer::Failed(failure))) => return ReadEnd::Unavailable(failure),
        };
        if let Err(Hangup) = feed.tell(ChunkEvent::Open(info)).await {
            return ReadEnd::HungUp;
        }
        #[cfg(feature = "parquet")]
        if offset == 0 && ObjectForm::of(&first) == ObjectForm::Parquet {
            drop((parts, first));
            let outcome = self.parquet(object, from.as_ref(), None, &mut feed).await;
            return close(outcome, &self.stop, feed).await;
        }
        parts.within();
        let (to, stream) = mpsc::channel(1);
        let fetched = tokio::spawn(async move {
            if to.send(Ok(first)).await.is_err() {
                return;
            }
            while let Some(part) = parts.next().await {
                if to.send(part).await.is_err() {
                    return;
                }
            }
        });
        let stream = Box::new(PartStream::new(stream));
        let end = self.cut(stream, from, feed).await;
        fetched.abort();
        end
    }

    /// All bytes of an object, whose memory is reserved.
    async fn whole(self: &Arc<Self>, object: &S3Object) -> Result<Bytes, NoAnswer> {
        if object.size <= PART_BYTES {
            return match object.size {
                0 => Ok(Bytes::new()),
                size => self.store.range(object, 0..size, Stage::Before).await,
            };
        }
        let parts = Parts::new(Arc::clone(self), object.clone(), 0..object.size);
        let mut parts = parts.paid(Stage::Before);
        let mut bytes = Vec::with_capacity(usize::try_from(object.size).unwrap_or(0));
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes.into())
    }

    /// Cuts a stream into pieces on a thread that may block, and closes the input.
    async fn cut(
        self: &Arc<Self>,
        stream: Box<dyn Read + Send>,
        from: Option<Position>,
        mut feed: Feed,
    ) -> ReadEnd {
        let library = Arc::clone(self);
        let cut = tokio::task::spawn_blocking(move || {
            let mut reader = InputReader::of_object(stream, from, &library.limits);
            let end = loop {
                if library.stop.is_requested() {
                    break None;
                }
                match reader.next_piece() {
                    Ok(Some(piece)) => {
                        if feed.blocking_put(piece).is_err() {
                            return Err(Hangup);
                        }
                    }
                    Ok(None) => break Some(None),
                    // What was fetched no more because of a stop is no fault of the input.
                    Err(_) if library.stop.is_requested() => break None,
                    Err(fault) => break Some(Some(fault)),
                }
            };
            Ok((end, feed))
        });
        match cut.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Err(Hangup) => ReadEnd::HungUp,
            Ok((None, feed)) => stopped(feed).await,
            Ok((Some(fault), feed)) => closed(fault, feed).await,
        }
    }

    /// Hands on the row groups of an object, of which `bytes` may be all.
    #[cfg(feature = "parquet")]
    async fn parquet(
        self: &Arc<Self>,
        object: &S3Object,
        from: Option<&Position>,
        bytes: Option<Bytes>,
        feed: &mut Feed,
    ) -> Result<Result<(), InputFault>, Hangup> {
        use crate::framing::parquet::Footer;
        let footer = async {
            let tail = match &bytes {
                Some(bytes) => bytes.clone(),
                None => self.tail(object).await?,
            };
            let footer = Footer::of_tail(tail, object.size)?;
            let first = footer.first_group(from)?;
            Ok((footer, first))
        };
        let (footer, first) = match footer.await {
            Ok(footer) => footer,
            Err(fault) => return Ok(Err(fault)),
        };
        for index in first..footer.group_count() {
            if self.stop.is_requested() {
                return Ok(Ok(()));
            }
            let Some(range) = footer.range(index) else {
                let said = format!("row group {index} is said to lie outside of it");
                return Ok(Err(InputFault::Parquet(said)));
            };
            let group = match &bytes {
                Some(bytes) => Ok(slice(bytes, &range)),
                None => self.group(object, &range).await,
            };
            match group {
                Ok(group) => feed.put(footer.piece(index, &range, group)).await?,
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(()))
    }

    /// The bytes of a row group, for as long as its worker needs them.
    #[cfg(feature = "parquet")]
    async fn group(
        self: &Arc<Self>,
        object: &S3Object,
        range: &Range<u64>,
    ) -> Result<Bytes, InputFault> {
        let permit = self.budget.reserve(range.end - range.start).await;
        let library = Arc::clone(self);
        let parts = Parts::new(library, object.clone(), range.clone());
        let mut parts = parts.paid(Stage::Within);
        let mut bytes = Vec::new();
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part.map_err(fault_of)?);
        }
        Ok(held(bytes.into(), permit))
    }

    /// The end of a Parquet object, with all of its footer.
    #[cfg(feature = "parquet")]
    async fn tail(self: &Arc<Self>, object: &S3Object) -> Result<Bytes, InputFault> {
        use crate::framing::parquet::Footer;
        let mut length = TAIL_BYTES.min(object.size);
        loop {
            let _permit = self.budget.reserve(length).await;
            let range = object.size - length..object.size;
            let tail = self.store.range(object, range, Stage::Within).await.map_err(fault_of)?;
            match Footer::bytes_at_end(&tail) {
                Some(wanted)
                    if wanted > length && wanted <= object.size.min(self.whole_bytes_max) =>
                {
                    length = wanted;
                }
                // Whatever is wrong with it, its reader says.
                _ => return Ok(tail),
            }
        }
    }
}

/// How the rest of an object that is open could not be had.
#[cfg(feature = "parquet")]
fn fault_of(error: NoAnswer) -> InputFault {
    InputFault::Stream(match error {
        NoAnswer::Failed(failure) => failure.message,
        NoAnswer::Stopped => "reading was stopped".to_owned(),
    })
}

async fn close(
    outcome: Result<Result<(), InputFault>, Hangup>,
    stop: &StopFlag,
    feed: Feed,
) -> ReadEnd {
    match outcome {
        Err(Hangup) => ReadEnd::HungUp,
        Ok(_) if stop.is_requested() => stopped(feed).await,
        Ok(Ok(())) => closed(None, feed).await,
        Ok(Err(fault)) => closed(Some(fault), feed).await,
    }
}

async fn stopped(mut feed: Feed) -> ReadEnd {
    match feed.tell(ChunkEvent::Stop).await {
        Ok(()) => ReadEnd::Stopped,
        Err(Hangup) => ReadEnd::HungUp,
    }
}

async fn closed(fault: Option<InputFault>, mut feed: Feed) -> ReadEnd {
    match feed.tell(ChunkEvent::Close(fault)).await {
        Ok(()) => ReadEnd::Closed { event_count: feed.event_count() },
        Err(Hangup) => ReadEnd::HungUp,
    }
}

#[cfg(feature = "parquet")]
fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(range.start)..at(range.end))
}
