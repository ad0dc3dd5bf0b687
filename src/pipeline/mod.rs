//! Threads and bounded channels: the one place where stages are wired.

mod deliver;
mod job;
mod judge;
mod layout_guess;
mod parse_stage;
mod sequence;
mod state;
mod summary;
mod topology;

pub use deliver::DeliveryReport;
pub use job::{Job, Latencies, RunError, RunReport};
pub use sequence::{FailedInput, InputReport, MALFORMED_SAMPLES_MAX, MalformedSample};
pub(crate) use summary::per_second;
pub use summary::{SUMMARY_SCHEMA, Summary};
pub use topology::run;
