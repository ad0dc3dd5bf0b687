//! SIGINT and SIGTERM: the first asks the run to drain, the second ends the process at once.
//!
//! A stream job is also kept by two small threads: `signals` takes SIGHUP as a wish to read the
//! configuration again, and `keeper` ends a drain that takes too long and says what is to be said from
//! time to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals as Arrivals};
use tracing::Level;

use crate::cli::failure::{EXIT_FAILED, Failure};
use crate::cli::logs::{Content, Logs};
use crate::clock::{Clock, SystemClock};
use crate::source::StopFlag;
use crate::units::duration_text;

/// Exit code of a second interrupt: 128 and the number of SIGINT.
const EXIT_AT_ONCE: i32 = 130;

/// Between two looks at suppressed log lines.
const LOG_TICK: Duration = Duration::from_secs(2);

/// What signals have been seen; the threads that keep a stream job end when it is dropped.
pub(crate) struct Signals {
    seen: Arc<AtomicBool>,
    _keeping: Option<Keeping>,
}

/// What a stream job wants done beside its work.
pub(crate) struct Service {
    pub(crate) pace: Arc<Pace>,
    /// What is not finished when a drain takes too long, in words for the last line of the log.
    pub(crate) unfinished: Box<dyn Fn() -> String + Send>,
    /// Called after each SIGHUP; those that come while it runs are one.
    pub(crate) on_hangup: Box<dyn FnMut() + Send>,
    /// Called every [`Pace::set_stats_interval`].
    pub(crate) on_stats: Option<Box<dyn FnMut() + Send>>,
}

/// Times of a stream job that may change while it runs.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    drain_limit_ms: AtomicU64,
    stats_interval_ms: AtomicU64,
}

impl Pace {
    /// Sets how long a drain may take that has not begun.
    pub(crate) fn set_drain_limit(&self, limit: Duration) {
        self.drain_limit_ms.store(milliseconds(limit), Ordering::SeqCst);
    }

    /// Sets the time between two lines of statistics; zero is none.
    pub(crate) fn set_stats_interval(&self, interval: Duration) {
        self.stats_interval_ms.store(milliseconds(interval), Ordering::SeqCst);
    }

    fn drain_limit(&self) -> Duration {
        Duration::from_millis(self.drain_limit_ms.load(Ordering::SeqCst))
    }

    fn stats_interval(&self) -> Option<Duration> {
        let interval_ms = self.stats_interval_ms.load(Ordering::SeqCst);
        (interval_ms > 0).then(|| Duration::from_millis(interval_ms))
    }
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
                .map_err(failure)?;
        }
        Ok(Self { seen, _keeping: None })
    }

    /// As [`Self::listen`]; a drain that takes too long ends the process with exit code 1, and SIGHUP no
    /// longer ends it.
    pub(crate) fn serve(stop: &StopFlag, service: Service, logs: &Logs) -> Result<Self, Failure> {
        let Self { seen, .. } = Self::listen(stop)?;
        let mut arrivals = Arrivals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failure)?;
        let handle = arrivals.handle();
        let (send, notes) = bounded(4);
        let Service { pace, unfinished, mut on_hangup, on_stats } = service;
        let drains = send.clone();
        let follow = move || {
            for signal in arrivals.forever() {
                if signal == SIGHUP {
                    on_hangup();
                } else {
                    // If it is full, the keeper knows already.
                    let _noted = drains.try_send(Note::Drain).is_ok();
                }
            }
        };
        let logs = logs.clone();
        let keeper = Keeper { logs, pace, unfinished, on_stats };
        let keep = move || keeper.keep(&notes, &SystemClock::new());
        let threads = vec![thread("signals", follow)?, thread("keeper", keep)?];
        Ok(Self { seen, _keeping: Some(Keeping { notes: send, arrivals: handle, threads }) })
    }

    /// Whether a signal came that asks for the end.
    pub(crate) fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }
}

/// The threads of a stream job that are not the pipeline's.
struct Keeping {
    notes: Sender<Note>,
    arrivals: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.arrivals.close();
        // The keeper takes notes until it ends by itself, so there is room, or nobody to tell.
        let _told = self.notes.send(Note::Over).is_ok();
        for thread in self.threads.drain(..) {
            // A panic in one of them was logged by the hook, and there is nothing to undo.
            let _joined = thread.join().is_ok();
        }
    }
}

/// What the keeper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    /// A drain has begun.
    Drain,
    /// The run is over.
    Over,
}

struct Keeper {
    logs: Logs,
    pace: Arc<Pace>,
    unfinished: Box<dyn Fn() -> String + Send>,
    on_stats: Option<Box<dyn FnMut() + Send>>,
}

impl Keeper {
    fn keep(mut self, notes: &Receiver<Note>, clock: &dyn Clock) {
        let mut deadline: Option<Duration> = None;
        let mut last_stats = clock.monotonic();
        loop {
            let now = clock.monotonic();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.end_unfinished();
            }
            let interval = self.pace.stats_interval();
            if let (Some(interval), Some(say)) = (interval, &mut self.on_stats)
                && now.saturating_sub(last_stats) >= interval
            {
                last_stats = now;
                say();
            }
            self.logs.tick();
            let next_stats = interval.map(|interval| last_stats + interval);
            let until = [deadline, next_stats].into_iter().flatten().min();
            let wait = until.map_or(LOG_TICK, |until| until.saturating_sub(now).min(LOG_TICK));
            match notes.recv_timeout(wait) {
                Ok(Note::Drain) => {
                    deadline.get_or_insert(clock.monotonic() + self.pace.drain_limit());
                }
                Ok(Note::Over) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends the process: threads that still work may wait for each other, so nothing is dropped in order.
    fn end_unfinished(&self) {
        self.logs.finish();
        let content = Content::new("the drain took too long; ended with what is saved")
            .with("limit", duration_text(self.pace.drain_limit()))
            .with("unfinished", (self.unfinished)());
        self.logs.write(Level::ERROR, &content);
        std::process::exit(EXIT_FAILED.into());
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failure)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn failure(error: std::io::Error) -> Failure {
    Failure::running(anyhow::Error::new(error).context("cannot listen for signals"))
}
