//! How long stages take and how much memory there is: latency histograms and times per stage, filled by
//! the threads of the pipeline per chunk or pane, never per record; merged when the run ends, read by
//! reports.

mod back_pressure;
mod count;
mod intake;
mod latency;
mod memory;
mod profile;
mod stats;

pub use back_pressure::{BackPressure, ChannelMeter, ChannelMeters};
pub use count::Count;
pub use intake::{Intake, IntakeMeter};
pub use latency::{LatencyHistogram, Quantiles};
pub use memory::{MemoryLimit, MemoryOrigin, memory_limit, resident_bytes};
pub use profile::{Profile, Stage, StageTime, Stopwatch};
pub use stats::{QueueFill, StatsLine, StatsSample};
