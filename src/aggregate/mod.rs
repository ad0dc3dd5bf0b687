//! Totals, talkers and contacts: state that shards own by key.

mod key;
mod route;
mod top;
mod totals;
mod watermark;

pub use key::{AnyColumn, pack_window, unpack, unpack_window};
pub(crate) use route::row_number;
pub use route::{RoutedBatch, Router, Rows};
pub use top::{KeyReader, Metric, TopAnswer, TopRow, TopSpec, TopTable, merge_answers};
pub use totals::{Sums, TOTALS_COLUMNS, Totals};
pub use watermark::{TimeSettings, Watermarks};

/// Placeholder contact table.
pub struct PaneContacts { /// Pane.
 pub pane: crate::units::PaneIndex }
/// Placeholder.
pub struct ContactTable;
impl ContactTable {
    /// Placeholder.
    pub fn new(_pane_seconds: i64, _seed: u64) -> Self { Self }
    /// Placeholder.
    pub fn add(&mut self, _batch: &crate::record::FlowBatch, _rows: impl Iterator<Item = usize>) {}
    /// Placeholder.
    pub fn close_until(&mut self, _w: crate::units::UnixSeconds) -> Vec<PaneContacts> { Vec::new() }
    /// Placeholder.
    pub fn close_all(&mut self) -> Vec<PaneContacts> { Vec::new() }
}
/// Placeholder.
pub const CONTACT_COLUMNS: &[crate::record::FieldId] = &[];
/// Placeholder.
pub fn pair_hash(a: crate::net::Addr, b: crate::net::Addr, seed: u64) -> u64 {
    (a.bits() ^ b.bits()) as u64 ^ seed
}
