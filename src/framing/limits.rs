//! How much of an input framing may hold at a time, and what counts as too much.

use crate::record::KEPT_TEXT_BYTES_DEFAULT;

/// Limits on what strangers' bytes can make framing keep in memory.
///
/// Reaching one is never silent: it gives a [`RecordFault`](super::RecordFault) or an
/// [`InputFault`](super::InputFault).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest line of text, without its LF. Values below [`BLOCK_BYTES`](super::BLOCK_BYTES) act as
    /// that value for lines of files and standard input, which are cut into blocks of that size.
    pub line_bytes_max: usize,
    /// Longest JSON document of a file or of standard input.
    pub document_bytes_max: usize,
    /// Most bytes that one record of a stream, or one JSON document, may inflate to in total.
    pub inflated_bytes_max: usize,
    /// Longest Parquet object that arrives where nothing can be read twice (standard input,
    /// compressed files); it is held whole.
    pub object_bytes_max: usize,
    /// Largest gzip file that is inflated whole, by the fast decoder; larger ones are read as streams.
    pub packed_bytes_max: usize,
    /// Most that such a file may hold; below 2 GiB.
    pub unpacked_bytes_max: usize,
    /// Most bytes of buffers that a reader or worker keeps for further text.
    pub kept_text_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            line_bytes_max: 16 * MIB,
            document_bytes_max: 64 * MIB,
            inflated_bytes_max: 256 * MIB,
            object_bytes_max: 1024 * MIB,
            packed_bytes_max: 512 * MIB,
            unpacked_bytes_max: 1536 * MIB,
            kept_text_bytes_max: KEPT_TEXT_BYTES_DEFAULT,
        }
    }
}
