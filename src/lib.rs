//! flowgauge: a stream processor for AWS VPC Flow Logs.
//!
//! A record's journey, and the order in which to read the modules:
//!
//! ```text
//! source ─Chunk─► framing ─lines─► record ─FlowBatch─► aggregate ─panes─► detect ─Finding─► sink
//! ```
//!
//! Bytes enter through a [`source`], are unwrapped by [`framing`] and parsed into typed columns by
//! [`record`]; [`aggregate`] keeps totals, talkers and contacts; [`detect`] judges contacts on
//! event-time windows; a [`sink`] carries [`finding`]s away. [`pipeline`] wires the stages with threads
//! and bounded channels, [`config`] says which, and [`cli`] is what users type.

pub mod units;

pub mod secret;

pub mod recent;

pub mod causes;

pub mod codec;

pub mod net;

pub mod clock;

pub mod metrics;

pub mod iam;

#[cfg(feature = "aws")]
pub mod aws;

#[expect(unsafe_code, reason = "vector loads, stores and instruction sets; the only home of it")]
pub mod simd;

pub mod record;

pub mod finding;

pub mod framing;

pub mod generate;

pub mod aggregate;

pub mod checkpoint;

pub mod enrich;

pub mod detect;

pub mod source;

pub mod sink;

pub mod config;

pub mod pipeline;

pub mod cli;
