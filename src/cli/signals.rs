//! SIGINT and SIGTERM: the first asks the run to drain, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::failure::Failure;
use crate::source::StopFlag;

/// Exit code of a second interrupt: 128 and the number of SIGINT.
const EXIT_AT_ONCE: i32 = 130;

/// What signals have been seen.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    seen: Arc<AtomicBool>,
}

impl Signals {
    /// Makes the first signal request `stop` and the second end the process.
    pub(crate) fn listen(stop: &StopFlag) -> Result<Self, Failure> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Order matters: the exit is armed by the flag that the lines after it set.
            flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| flag::register(signal, stop.shared()))
                .map_err(|error| {
                    let error = anyhow::Error::new(error);
                    Failure::running(error.context("cannot listen for signals"))
                })?;
        }
        Ok(Self { seen })
    }

    /// Whether a signal came.
    pub(crate) fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }
}
