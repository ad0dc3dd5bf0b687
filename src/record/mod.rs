//! Flow log records: field names, layouts, and the way from text to typed columns.

mod batch;
mod field;
mod layout;
pub mod value;

pub use batch::{Action, ColumnSet, ColumnView, FlowBatch, LogStatus, TextView};
pub use field::{FIELD_COUNT, FieldId, FieldKind, FieldSpec};
pub use layout::{FormatChoice, LAYOUT_FIELDS_MAX, Layout, LayoutError, Slot};
