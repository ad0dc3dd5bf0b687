//! The numeric settings of a detector, as the table of keys has them: what `tune` can try out.

use super::keys::{Key, Kind, ROOT, Table};
use crate::finding::FindingKind;

/// The keys of the table `[detectors.KIND]`.
#[must_use]
pub fn detector_keys(kind: FindingKind) -> Vec<&'static str> {
    table_of(kind).map_or_else(Vec::new, |table| table.keys.iter().map(|key| key.name).collect())
}

fn table_of(kind: FindingKind) -> Option<&'static Table> {
    within(within(&ROOT, "detectors")?, kind.name())
}

fn within(table: &'static Table, name: &str) -> Option<&'static Table> {
    let key: &Key = table.keys.iter().find(|key| key.name == name)?;
    match &key.kind {
        Kind::Table(inner) => Some(inner),
        _ => None,
    }
}
