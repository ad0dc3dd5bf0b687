//! A configuration that is read again while a run goes on: checked first, then put in force whole, or the old
//! one is kept whole.

use std::path::PathBuf;
use std::sync::Arc;

use super::logs::Logs;
use super::signals::Pace;
use crate::config::reload::{Changes, compare};
use crate::config::{self, ConfigError, Plan};

/// Puts changes in force within the pipeline: all, or none with the reason.
pub(crate) type Apply = Box<dyn FnMut(&Changes, &Plan) -> anyhow::Result<()> + Send>;

/// What reads a configuration again.
pub(crate) struct Reloader {
    /// The file; a run without one has nothing to read again.
    pub(crate) file: Option<PathBuf>,
    /// What is in force.
    pub(crate) plan: Plan,
    pub(crate) logs: Logs,
    pub(crate) pace: Arc<Pace>,
    /// Whether the command line says how long a drain may take, which goes before the file.
    pub(crate) is_drain_limit_fixed: bool,
    pub(crate) apply: Apply,
}

impl Reloader {
    /// Reads the file and puts it in force, or logs everything that is against it.
    pub(crate) fn reload(&mut self) {
        let Some(file) = &self.file else {
            tracing::warn!("there is no configuration to read again: the demo runs");
            return;
        };
        let new = match config::load(file) {
            Ok(new) => new,
            Err(ConfigError::Faults(faults)) => {
                for fault in faults.to_string().lines() {
                    tracing::error!(fault, "the configuration is faulty");
                }
                return kept();
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the configuration cannot be read again");
                return kept();
            }
        };
        let changes = match compare(&self.plan, &new) {
            Ok(changes) => changes,
            Err(faults) => {
                for fault in faults {
                    tracing::error!(%fault, "the configuration cannot be put in force");
                }
                return kept();
            }
        };
        if let Err(error) = (self.apply)(&changes, &new) {
            let reason = format!("{error:#}");
            tracing::error!(reason, "the configuration cannot be put in force");
            return kept();
        }
        if let Some(log) = &changes.log {
            self.logs.apply(log);
            self.pace.set_stats_interval(log.stats_interval);
        }
        if let Some(limit) = changes.shutdown_limit
            && !self.is_drain_limit_fixed
        {
            self.pace.set_drain_limit(limit);
        }
        tracing::info!(changed = changes.names().join(", "), "the configuration was read again");
        self.plan = new;
    }
}

fn kept() {
    tracing::warn!("the configuration in force is kept");
}
