//! Objects of S3: what is in the bucket is what is counted, however they are told of and whatever ends the
//! process, against real servers.
#![cfg(all(feature = "kinesis", feature = "s3"))]

pub(crate) mod bucket;
mod listing;
mod queue;
mod urls;
