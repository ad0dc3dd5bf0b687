//! From raw bytes to lines of flow log text: what arrives, sniffed and unwrapped record by record.

mod chunk;
mod fault;

pub use chunk::{Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Payload, SourceRecord};
pub use fault::{FaultKind, InputFault};

#[cfg(feature = "parquet")]
pub mod parquet {
    //! Parquet objects (to be written).

    /// One row group of a Parquet object.
    #[derive(Debug)]
    pub struct RowGroup;
}
