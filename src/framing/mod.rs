//! From raw bytes to lines of flow log text: what arrives, sniffed and unwrapped record by record.
//!
//! ```text
//! source thread:  file, stdin ─► InputReader ─► Payload (blocks of whole lines or documents)
//!                 stream      ─────────────────► Payload (records)
//! parse worker:   Payload ─► deframe ─► Framed (lines, their layout and origin, faults)
//! ```
//!
//! Reading in blocks is sequential per input and stays cheap; unwrapping is a pure function of a
//! payload and runs on any worker. Lines are not checked here: that is `record`'s work.

mod cell;
mod chunk;
mod deframe;
mod fault;
mod framed;
mod gzip;
mod inflate;
mod json;
mod kpl;
mod limits;
mod lines;
#[cfg(feature = "parquet")]
pub mod parquet;
mod sniff;
mod stream;
mod zstandard;

pub use crate::record::FaultKind;
pub use chunk::{
    Chunk, ChunkData, ChunkEvent, InputId, InputInfo, LongLine, Payload, SourceRecord,
};
pub use deframe::deframe;
pub use fault::InputFault;
pub use framed::{EXCERPT_BYTES, Framed, LayoutScope, RecordFault, Run, Segment};
pub use limits::Limits;
pub use stream::{BLOCK_BYTES, InputReader};
