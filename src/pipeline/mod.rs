//! Threads and bounded channels: the one place where stages are wired.

mod assembly;
mod copying;
mod dead_letters;
mod deliver;
mod job;
mod judge;
mod layout_guess;
mod live;
mod memory;
mod message;
mod parse_stage;
mod partial;
mod receipts;
mod sequence;
mod sequence_stage;
mod snapshot;
mod state;
mod summary;
mod topology;

/// State shards that a run may have.
pub const SHARDS_MAX: usize = 1024;

pub use copying::CopyReport;
pub use deliver::DeliveryReport;
pub use job::{Control, Detectors, Job, JobState, Latencies, RunError, RunReport, TalkersReport};
pub use live::Live;
pub use memory::{MemoryPlan, memory_bytes_min};
pub use partial::{MergeError, PartialJob, merge};
pub use sequence::{FailedInput, InputReport, MALFORMED_SAMPLES_MAX, MalformedSample};
pub use snapshot::SnapshotReport;
pub(crate) use summary::per_second;
pub use summary::{SUMMARY_SCHEMA, Summary};
pub use topology::run;
