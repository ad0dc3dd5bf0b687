//! Threads and bounded channels: the one place where stages are wired.

mod deliver;
mod job;
mod judge;
mod layout_guess;
mod memory;
mod message;
mod parse_stage;
mod restore;
mod sequence;
mod sequence_stage;
mod snapshot;
mod state;
mod summary;
mod topology;

pub use deliver::DeliveryReport;
pub use job::{Job, JobState, Latencies, RunError, RunReport};
pub use memory::{MemoryPlan, memory_bytes_min};
pub use restore::Restored;
pub use sequence::{FailedInput, InputReport, MALFORMED_SAMPLES_MAX, MalformedSample};
pub use snapshot::SnapshotReport;
pub(crate) use summary::per_second;
pub use summary::{SUMMARY_SCHEMA, Summary};
pub use topology::run;
