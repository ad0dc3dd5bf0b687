//! The numeric settings of a detector, as the table of keys has them: what `tune` can try out.

use serde::Deserialize as _;
use toml::{Table as Toml, Value};

use super::keys::{Kind, ROOT, Table};
use super::schema::documented;
use crate::detect::DetectSettings;
use crate::finding::FindingKind;

/// A number of a detector's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Its key.
    pub name: &'static str,
    /// What it is, from the default file.
    pub description: String,
    /// What holds without the key.
    pub default: u64,
    /// The least that it may be.
    pub min: u64,
    /// The greatest that it may be.
    pub max: u64,
    /// Whether it says from which figures on something is told: no window, and no limit of memory.
    pub is_usual: bool,
}

/// The keys of the table `[detectors.KIND]`.
#[must_use]
pub fn detector_keys(kind: FindingKind) -> Vec<&'static str> {
    table_of(kind).map_or_else(Vec::new, |table| table.keys.iter().map(|key| key.name).collect())
}

/// The numbers of the table `[detectors.KIND]` that have a default.
#[must_use]
pub fn thresholds(kind: FindingKind) -> Vec<Threshold> {
    let Some(table) = table_of(kind) else { return Vec::new() };
    let threshold = |key: &super::keys::Key| {
        let Kind::Count { min, max } = key.kind else { return None };
        let (description, default) = documented(table, key.name)?;
        let is_usual = !key.name.ends_with("_seconds") && key.name != "tracked_max";
        let default = default?.as_u64()?;
        Some(Threshold { name: key.name, description, default, min, max, is_usual })
    };
    table.keys.iter().filter_map(threshold).collect()
}

/// The table `[detectors.KIND]` of a configuration's text that was found to be good; empty if it has none.
#[must_use]
pub fn detector_table(text: &str, kind: FindingKind) -> Toml {
    let mut root: Toml = toml::from_str(text).unwrap_or_default();
    match root.remove("detectors") {
        Some(Value::Table(mut detectors)) => match detectors.remove(kind.name()) {
            Some(Value::Table(table)) => table,
            _ => Toml::new(),
        },
        _ => Toml::new(),
    }
}

/// Detectors of which the one of `kind` is on and has the settings of `table`, but for those in `changed`.
///
/// # Errors
/// Why they cannot be: what does not go together.
pub fn detectors_with(
    kind: FindingKind,
    table: &Toml,
    changed: &[(&'static str, u64)],
) -> Result<DetectSettings, String> {
    let mut table = table.clone();
    table.insert("enabled".to_owned(), Value::Boolean(true));
    for (name, value) in changed {
        let value = i64::try_from(*value).map_err(|_| format!("`{name}` is too great"))?;
        table.insert((*name).to_owned(), Value::Integer(value));
    }
    let detectors: Toml = [(kind.name().to_owned(), Value::Table(table))].into_iter().collect();
    let settings = DetectSettings::deserialize(detectors).map_err(|error| error.to_string())?;
    match settings.check().first() {
        None => Ok(settings),
        Some((_, fault)) => Err(fault.to_string()),
    }
}

fn table_of(kind: FindingKind) -> Option<&'static Table> {
    within(within(&ROOT, "detectors")?, kind.name())
}

fn within(table: &'static Table, name: &str) -> Option<&'static Table> {
    let key = table.keys.iter().find(|key| key.name == name)?;
    match &key.kind {
        Kind::Table(inner) => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_numbers() {
        let found = thresholds(FindingKind::PortScan);
        let usual: Vec<_> =
            found.iter().filter(|one| one.is_usual).map(|one| (one.name, one.default)).collect();
        assert_eq!(
            usual,
            [("ports_min", 15), ("failed_per_answered_min", 2), ("block_hosts_min", 3)]
        );
        assert!(found[0].description.starts_with("Distinct failed ports of a host"));
        assert!(found.iter().any(|one| one.name == "slow_window_seconds" && !one.is_usual));
        let rdp = thresholds(FindingKind::RdpBruteforce);
        assert!(rdp.iter().any(|one| one.name == "sessions_min" && !one.description.is_empty()));
    }

    #[test]
    fn a_number_takes_the_place_of_the_configured_one() {
        let text = "[detectors.port_scan]\nenabled = false\nports_min = 20\nblock_hosts_min = 9\n";
        let table = detector_table(text, FindingKind::PortScan);
        let settings = detectors_with(FindingKind::PortScan, &table, &[("ports_min", 30)]).unwrap();
        let of_kind = &settings.port_scan;
        assert_eq!((of_kind.enabled, of_kind.ports_min, of_kind.block_hosts_min), (true, 30, 9));
        assert_eq!(settings.host_sweep, DetectSettings::default().host_sweep);
        let fault = detectors_with(FindingKind::PortScan, &table, &[("ports_min", 1)]);
        assert!(fault.unwrap_err().contains("`ports_min` is `1`"));
        let fault = detectors_with(FindingKind::PortScan, &table, &[("slow_window_seconds", 60)]);
        assert!(fault.unwrap_err().contains("must not be shorter"));
        assert_eq!(
            detector_table("[sources.a]\ntype = 'demo'", FindingKind::PortScan),
            Toml::new()
        );
    }
}
