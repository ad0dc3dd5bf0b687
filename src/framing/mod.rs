//! From raw bytes to lines of flow log text: what arrives, sniffed and unwrapped record by record.
//!
//! ```text
//! source thread:  stdin  ─► InputReader ─► Payload (blocks of whole lines or documents)
//!                 file   ─► InputReader ─► Payload (which bytes of which file)
//!                 stream ────────────────► Payload (records)
//! parse worker:   Payload ─► Deframer ─► Framed (lines, their layout and origin, faults)
//! ```
//!
//! What must be done in order is done once per input and stays cheap; reading files, inflating and
//! unwrapping need no order and run on any worker. Lines are not checked here: that is `record`'s work.

mod cell;
mod chunk;
mod deframe;
mod fault;
mod file_range;
mod finished;
mod framed;
mod gzip;
mod inflate;
mod json;
mod kpl;
mod limits;
mod lines;
mod members;
mod object;
mod packed;
#[cfg(feature = "parquet")]
pub mod parquet;
mod position;
mod sniff;
mod stream;
mod wrapping;
mod zstandard;

pub use crate::record::FaultKind;
pub use chunk::{
    Chunk, ChunkData, ChunkEvent, InputId, InputInfo, LongLine, Payload, SourceRecord,
};
pub use deframe::{Deframer, EmitFramed, deframe};
pub use fault::InputFault;
pub use file_range::FileRange;
pub use finished::{FinishedInputs, InputKind};
pub use framed::{EXCERPT_BYTES, Framed, LayoutScope, RecordFault, Run, Segment};
pub use inflate::{Inflated, Inflater};
pub use limits::Limits;
pub use object::{ObjectForm, packed_object};
pub use packed::PackedFile;
pub use position::{
    FileStart, LogGroupPlace, Position, Positions, ReadUntil, ResumePoint, ShardPlace, TakenEvent,
    TakenEvents,
};
pub use stream::{BLOCK_BYTES, InputReader};
pub use wrapping::wrappings;
