//! Configuration: as written in the file, and as a plan that may run.
//!
//! [`load`] reads a file, [`read`] a text; both report every fault at once, with line and column. The
//! result is a [`Plan`], the only thing that starts a pipeline. Paths are taken as on the command
//! line: relative to the working directory.

mod component;
mod engine;
mod fault;
mod file;
mod keys;
mod log;
mod noise;
mod permissions;
mod plan;
mod reader;
pub mod reload;
mod remote;
mod schema;
mod suggest;
pub(crate) mod talkers;
mod thresholds;

pub use engine::{
    CheckpointPlan, DeadLetterPlan, EnginePlan, JournalPlan, Lateness, Limits, MemoryMax,
};
pub use fault::{ConfigError, ConfigFault, FaultList};
pub use file::{
    FileMention, FileRole, Reading, References, load, process_variables, read, read_file,
};
pub use keys::is_configuration;
pub use log::{LogFormat, LogLevel, LogPlan};
pub use permissions::Extras;
pub use plan::{Plan, SinkInput, SinkKind, SinkPlan, SourceKind, SourcePlan};
pub use reader::Variables;
pub use remote::RemotePlan;
pub use schema::schema;
pub use suggest::nearest;
pub use thresholds::{Threshold, detector_keys, detector_table, detectors_with, thresholds};

/// The documented configuration that `flowgauge init` prints: every key with its unit, default and
/// range. It says what runs without a configuration.
pub const DEFAULT_CONFIG: &str = include_str!("default.toml");
