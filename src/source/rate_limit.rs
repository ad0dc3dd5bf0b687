//! A limit on how fast sources read: bytes per second, over all sources that share it.
//!
//! It holds chunks back before they are emitted, so that a source that waits for it doesn't read on, as if
//! the pipeline were full. Bytes are those of disk or network, before any decompression.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Emit, Settled, Source, SourceError, StopFlag};
use crate::clock::Clock;
use crate::framing::{Chunk, ChunkEvent, Positions};
use crate::metrics::IntakeMeter;

/// Between two looks at the clock and the stop flag.
const TICK: Duration = Duration::from_millis(20);

/// Lets as many bytes through as it is made for; clones share it.
#[derive(Clone)]
pub struct RateLimit {
    bytes_per_second: u64,
    clock: Arc<dyn Clock>,
    /// When all that was let through is paid for.
    free_at: Arc<Mutex<Duration>>,
}

impl RateLimit {
    /// A limit of so many bytes per second of the clock's monotonic time.
    ///
    /// # Panics
    /// If it is 0: nothing would ever come through.
    #[must_use]
    pub fn new(bytes_per_second: u64, clock: Arc<dyn Clock>) -> Self {
        assert!(bytes_per_second > 0, "a limit lets something through");
        Self { bytes_per_second, clock, free_at: Arc::default() }
    }

    /// The source, held to this limit.
    #[must_use]
    pub fn hold(&self, source: Box<dyn Source>) -> Box<dyn Source> {
        Box::new(HeldSource { source, limit: self.clone() })
    }

    /// Takes `bytes`, and says how long they are to wait from `now` on: until all before them are paid for.
    fn take(&self, bytes: u64, now: Duration) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let starts_at = now.max(*free_at);
        *free_at = starts_at.saturating_add(cost);
        starts_at.saturating_sub(now)
    }

    fn wait(&self, bytes: u64, stop: &StopFlag) {
        let now = self.clock.monotonic();
        let until = now.saturating_add(self.take(bytes, now));
        // What was read before a stop is let through.
        while !stop.is_requested() {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

struct HeldSource {
    source: Box<dyn Source>,
    limit: RateLimit,
}

impl Source for HeldSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.source.resume(positions);
    }

    fn settled_by(&mut self, settled: Arc<Settled>) {
        self.source.settled_by(settled);
    }

    fn meter(&self) -> Option<IntakeMeter> {
        self.source.meter()
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let Self { source, limit } = *self;
        source.run(stop, &mut |chunk: Chunk| -> ControlFlow<()> {
            if let ChunkEvent::Data(data) = &chunk.event {
                limit.wait(data.bytes_read + data.payload.unread_bytes(), stop);
            }
            emit(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::framing::Limits;
    use crate::record::FormatChoice;
    use crate::source::{FileSource, InputIds};

    #[test]
    fn bytes_wait_until_those_before_are_paid_for() {
        let limit = RateLimit::new(1_000, Arc::new(ManualClock::default()));
        let ms = Duration::from_millis;
        assert_eq!(limit.take(500, ms(0)), ms(0));
        assert_eq!(limit.clone().take(250, ms(0)), ms(500), "clones share it");
        assert_eq!(limit.take(3_000, ms(600)), ms(150));
        assert_eq!(limit.take(1, ms(10_000)), ms(0), "an idle time is not saved up");
    }

    #[test]
    fn a_held_source_takes_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let line = b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 2 3 4 ACCEPT OK\n";
        let files: Vec<_> = ["a", "b"].map(|name| folder.path().join(name)).into();
        files.iter().for_each(|file| std::fs::write(file, line.repeat(1_000)).unwrap());
        let ids = InputIds::default();
        let sources = FileSource::split(&files, &FormatChoice::Auto, &Limits::default(), 1, &ids);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let limit = RateLimit::new(1_000_000, Arc::clone(&clock));
        let mut data_count = 0;
        for source in sources {
            let run = limit.hold(source).run(&StopFlag::default(), &mut |chunk| {
                data_count += usize::from(matches!(chunk.event, ChunkEvent::Data(_)));
                ControlFlow::Continue(())
            });
            run.unwrap();
        }
        assert_eq!(data_count, 2);
        assert!(clock.monotonic() >= Duration::from_millis(50), "the second waits for the first");
    }
}
