//! Flow log records: field names, layouts, and the way from text to typed columns.

mod batch;
mod fault;
mod field;
mod filter;
mod layout;
mod parse;
mod text;
pub mod value;

pub use batch::{Action, BATCH_ROWS_MAX, ColumnSet, ColumnView, FlowBatch, LogStatus, TextView};
pub use fault::{FaultKind, FaultSample, Faults, SAMPLE_BYTES_MAX, SAMPLES_PER_BLOCK};
pub use field::{FIELD_COUNT, FieldId, FieldKind, FieldSpec};
pub use filter::{Filter, FilterError};
pub use layout::{FormatChoice, LAYOUT_FIELDS_MAX, Layout, LayoutError, Slot};
pub use parse::{ParsedBlock, Parser};
pub use text::{KEPT_TEXT_BYTES_DEFAULT, Text, TextPool, TextSlice};
