//! What sources that read from a service share: threads of their own for waiting and decoding, the way to AWS, and
//! how they say that nothing can be done.

use std::num::NonZero;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::SourceError;

/// How long calls in flight may hold up the end of a run that nobody listens to any more.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(1);

/// The threads that a source wants.
pub(super) struct Threads {
    /// What they are called.
    pub(super) name: &'static str,
    /// One for so many cores, at least one, and at most `max`.
    pub(super) cores_each: usize,
    pub(super) max: usize,
    /// Threads for work that blocks; `None` for as many as are asked for.
    pub(super) blocking_max: Option<usize>,
}

impl Threads {
    /// Starts them for the source called `source`.
    pub(super) fn start(&self, source: &str) -> Result<Runtime, SourceError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads((cores / self.cores_each).clamp(1, self.max))
            .thread_name(self.name)
            .enable_all();
        if let Some(max) = self.blocking_max {
            builder.max_blocking_threads(max);
        }
        builder.build().map_err(|error| {
            let message = format!("cannot start its threads: {error}; raise the thread limit");
            refused(source, message)
        })
    }
}

/// Ends what still waits for the service.
pub(super) fn shut_down(runtime: Runtime) {
    runtime.shutdown_timeout(SHUTDOWN_WAIT_MAX);
}

/// The end of the source called `source`; `message` says what to do.
pub(super) fn refused(source: &str, message: String) -> SourceError {
    SourceError::Refused { name: source.to_owned(), message }
}

/// The configuration of clients of AWS, or `None` if a stop was requested meanwhile.
#[cfg(feature = "aws")]
pub(super) fn connect(
    source: &str,
    access: &crate::aws::AwsAccess,
    runtime: &Runtime,
    stop: &super::StopFlag,
) -> Result<Option<aws_config::SdkConfig>, SourceError> {
    let loaded = runtime.block_on(stop.unless_requested(access.load())).transpose();
    loaded.map_err(|error| refused(source, error.to_string()))
}
