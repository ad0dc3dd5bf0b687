//! From raw bytes to lines of flow log text: what arrives, sniffed and unwrapped record by record.

mod chunk;
mod fault;

pub use chunk::{Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Payload, SourceRecord};
pub use crate::record::FaultKind;
pub use fault::InputFault;

#[cfg(feature = "parquet")]
pub mod parquet {
    //! Parquet objects (to be written).

    /// One row group of a Parquet object.
    #[derive(Debug)]
    pub struct RowGroup;
}

use std::sync::Arc;
/// Placeholder.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct Limits;
/// Placeholder.
pub struct RecordFault { /// a
 pub kind: FaultKind, /// a
 pub origin: Option<Arc<str>>, /// a
 pub excerpt: Vec<u8>, /// a
 pub detail: String }
/// Placeholder.
#[derive(Default)]
pub struct Framed { /// a
 pub lines: Vec<u8>, /// a
 pub layout: Option<Arc<crate::record::Layout>>, /// a
 pub control: u64, /// a
 pub faults: Vec<RecordFault>, /// a
 pub marks: Vec<(u32, Arc<str>)>, /// a
 pub bytes_decoded: u64 }
/// Placeholder.
pub fn deframe(payload: Payload, _l: &Limits) -> Framed {
    match payload { Payload::Lines(lines) => Framed { bytes_decoded: lines.len() as u64, lines, ..Framed::default() }, _ => Framed::default() }
}
