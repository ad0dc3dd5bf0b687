//! What should come out, worked out line by line with nothing of the program's own.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{Input, LATENESS_SECONDS, USUAL};

/// Counts over all inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) ok: u64,
    pub(super) nodata: u64,
    pub(super) malformed: u64,
    pub(super) headers: u64,
    pub(super) late: u64,
    pub(super) bytes: u128,
    pub(super) bytes_by_source: BTreeMap<String, u128>,
}

/// The lines that no reader can take: input, number from 1, text.
pub(super) fn unreadable(inputs: &[Input]) -> BTreeSet<(String, String, String)> {
    let mut lines = BTreeSet::new();
    for input in inputs {
        let mut layout = USUAL;
        for (number, line) in (1..).zip(&input.lines) {
            if line.starts_with("version ") {
                layout = line;
            } else if is_malformed(line, layout) {
                let number: u32 = number;
                lines.insert((input.name.to_string(), number.to_string(), line.clone()));
            }
        }
    }
    lines
}

fn is_malformed(line: &str, layout: &str) -> bool {
    let mut values = line.split(' ');
    values.clone().count() != layout.split(' ').count() || values.nth(1) == Some("a")
}

impl Model {
    pub(super) fn of(inputs: &[Input]) -> Self {
        let mut model = Self::default();
        inputs.iter().for_each(|input| model.read(input));
        model
    }

    fn read(&mut self, input: &Input) {
        let mut layout = USUAL;
        let mut newest = i64::MIN;
        for line in &input.lines {
            let values: Vec<&str> = line.split(' ').collect();
            if values[0] == "version" {
                self.headers += 1;
                layout = line;
                continue;
            }
            let value = |field: &str| {
                let index = layout.split(' ').position(|name| name == field);
                values[index.expect("every layout has every field")]
            };
            if is_malformed(line, layout) {
                self.malformed += 1;
                continue;
            }
            let end: i64 = value("end").parse().expect("only good lines are left");
            newest = newest.max(end);
            self.late += u64::from(end < newest - LATENESS_SECONDS);
            if value("log-status") == "NODATA" {
                self.nodata += 1;
                continue;
            }
            let bytes: u128 = value("bytes").parse().expect("only good lines are left");
            self.ok += 1;
            self.bytes += bytes;
            *self.bytes_by_source.entry(value("srcaddr").to_owned()).or_default() += bytes;
        }
    }
}
