//! A count that many threads and tasks add to and anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count since it was made. It is exact; several together are not one moment.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
