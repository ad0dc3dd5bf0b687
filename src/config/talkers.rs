//! `[talkers.NAME]`: tops of sliding windows, as written and as questions.

use serde::Deserialize;

use crate::aggregate::{Metric, TalkerSpec, TopSpec};
use crate::record::{Layout, Slot};

use super::engine::Limits;
use super::reader::TableReader;

/// Rows of a window.
pub(super) const ROWS_MAX: Limits<u64> = Limits { default: 10, min: 1, max: 1000 };

/// Length of a window.
pub(super) const WINDOW_SECONDS: Limits<u64> = Limits { default: 300, min: 1, max: 86_400 };

/// Panes that a window may have: each of them is looked at when one more is complete.
const WINDOW_PANES_MAX: u64 = 1440;

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TalkerSettings {
    by: Vec<String>,
    #[serde(default = "bytes")]
    metric: String,
    #[serde(default = "rows_max")]
    rows_max: u64,
    #[serde(default = "window_seconds")]
    window_seconds: u64,
}

fn bytes() -> String {
    "bytes".to_owned()
}

const fn rows_max() -> u64 {
    ROWS_MAX.default
}

const fn window_seconds() -> u64 {
    WINDOW_SECONDS.default
}

/// Reads the question of a table; `None` if something in it is wrong, which is then noted.
pub(super) fn read(
    name: &str,
    table: &mut TableReader<'_>,
    pane_seconds: u64,
) -> Option<TalkerSpec> {
    let written: TalkerSettings = table.component()?;
    let mut faults = Vec::new();
    let by = key_fields(&written.by.join(" ")).unwrap_or_else(|fault| {
        faults.push(format!("field `{}`: {fault}", table.path_of("by")));
        Vec::new()
    });
    let metric = metric(&written.metric).unwrap_or_else(|fault| {
        let (path, text) = (table.path_of("metric"), &written.metric);
        faults.push(format!("field `{path}` is `{text}`; {fault}"));
        Metric::Bytes
    });
    let mut in_range = |key, value: u64, limits: &Limits<u64>| {
        let Limits { default, min, max } = *limits;
        if !(min..=max).contains(&value) {
            let path = table.path_of(key);
            faults.push(format!(
                "field `{path}` is `{value}`; it must be {min} to {max}; remove the line to use {default}"
            ));
        }
    };
    in_range("rows_max", written.rows_max, &ROWS_MAX);
    in_range("window_seconds", written.window_seconds, &WINDOW_SECONDS);
    if written.window_seconds.div_ceil(pane_seconds.max(1)) > WINDOW_PANES_MAX {
        faults.push(format!(
            "field `{}` is more than {WINDOW_PANES_MAX} panes of `engine.pane`; make panes longer, or windows shorter",
            table.path_of("window_seconds")
        ));
    }
    let is_right = faults.is_empty();
    faults.into_iter().for_each(|fault| table.wrong(table.span.clone(), fault));
    let top = TopSpec {
        by,
        metric,
        rows_max: usize::try_from(written.rows_max).unwrap_or(usize::MAX),
        metric_min: 0,
        window_seconds: None,
    };
    let window_seconds = i64::try_from(written.window_seconds).unwrap_or(i64::MAX);
    is_right.then(|| TalkerSpec { name: name.to_owned(), top, window_seconds })
}

/// The fields of a key, by their names with blanks or commas between.
///
/// # Errors
/// What is wrong with them, for people.
pub(crate) fn key_fields(text: &str) -> Result<Vec<Slot>, String> {
    let layout = Layout::from_text(&text.replace(',', " ")).map_err(|error| error.to_string())?;
    Ok(layout.slots().to_vec())
}

/// A metric by its name.
///
/// # Errors
/// What it must be, for people.
pub(crate) fn metric(text: &str) -> Result<Metric, String> {
    match text {
        "bytes" => Ok(Metric::Bytes),
        "packets" => Ok(Metric::Packets),
        "flows" => Ok(Metric::Flows),
        _ => {
            let field = text.strip_prefix("distinct:").ok_or_else(|| {
                "it must be `bytes`, `packets`, `flows` or `distinct:FIELD`".to_owned()
            })?;
            let mut slots = key_fields(field)?;
            match (slots.pop(), slots.is_empty()) {
                (Some(slot), true) => Ok(Metric::Distinct(slot)),
                _ => Err("`distinct:` takes one field".to_owned()),
            }
        }
    }
}
