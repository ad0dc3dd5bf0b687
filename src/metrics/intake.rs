//! How a source that reads from a service stands: filled by the source, read by the line of statistics
//! and by whoever else reports on a running job.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::units::{Grouped, duration_text};

/// A source at one moment. Counters are since the start of the run and have fixed names, so that they can
/// be labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Intake {
    /// The source's name in the configuration.
    #[serde(skip)]
    pub source: Arc<str>,
    /// Inputs (shards, queues) that are read now.
    pub inputs: u64,
    /// How far inputs are behind what the service holds, the slowest first, at most
    /// [`Self::INPUTS_MAX`]; those of which it is not known are left out.
    #[serde(rename = "behind_seconds_by_input", serialize_with = "by_input")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<(Arc<str>, Duration)>,
    /// What went well.
    #[serde(serialize_with = "by_name")]
    pub totals: Vec<(&'static str, u64)>,
    /// What went wrong and was dealt with.
    #[serde(serialize_with = "by_name")]
    pub troubles: Vec<(&'static str, u64)>,
}

/// Asks a source how it stands, from any thread.
pub type IntakeMeter = Arc<dyn Fn() -> Intake + Send + Sync>;

impl Intake {
    /// Most inputs that are told one by one.
    pub const INPUTS_MAX: usize = 10;

    /// How far the slowest input is behind.
    #[must_use]
    pub fn behind_max(&self) -> Option<Duration> {
        self.behind.first().map(|(_, behind)| *behind)
    }
}

/// For people: what is behind, and what went wrong at all.
impl fmt::Display for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} inputs", self.source, Grouped(self.inputs.into()))?;
        if let Some(behind) = self.behind_max() {
            write!(f, ", {} behind", duration_text(Duration::from_secs(behind.as_secs())))?;
        }
        for (name, count) in self.troubles.iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {} {}", Grouped((*count).into()), name.replace('_', " "))?;
        }
        Ok(())
    }
}

fn by_input<S: Serializer>(
    behind: &[(Arc<str>, Duration)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(behind.iter().map(|(input, behind)| (&**input, behind.as_secs_f64())))
}

fn by_name<S: Serializer>(
    counters: &[(&'static str, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counters.iter().copied())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_read_what_matters_and_machines_all() {
        let mut intake = Intake {
            source: "prod".into(),
            inputs: 2_000,
            behind: vec![
                ("shard-1".into(), Duration::from_millis(2_700)),
                ("shard-0".into(), Duration::ZERO),
            ],
            totals: vec![("records", 12)],
            troubles: vec![("throttled", 0), ("readers_retaken", 1)],
        };
        assert_eq!(intake.to_string(), "prod 2,000 inputs, 2s behind, 1 readers retaken");
        assert_eq!(
            serde_json::to_value(&intake).unwrap(),
            json!({
                "inputs": 2_000,
                "behind_seconds_by_input": { "shard-1": 2.7, "shard-0": 0.0 },
                "totals": { "records": 12 },
                "troubles": { "throttled": 0, "readers_retaken": 1 },
            })
        );
        intake.behind.clear();
        assert_eq!(intake.to_string(), "prod 2,000 inputs, 1 readers retaken");
    }
}
