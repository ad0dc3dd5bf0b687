//! A limit on the memory of all requests: what does not fit is refused at once, nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes that requests share.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    capacity_bytes: u64,
    taken_bytes: AtomicU64,
}

impl MemoryBudget {
    pub(super) fn new(capacity_bytes: u64) -> Arc<Self> {
        Arc::new(Self { capacity_bytes, taken_bytes: AtomicU64::new(0) })
    }

    /// Sets bytes aside, if there are as many.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut reservation = Reservation { budget: Arc::clone(self), bytes: 0 };
        reservation.grow_to(bytes).then_some(reservation)
    }
}

/// Bytes set aside; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Reservation {
    /// Has at least so many bytes; false if there are not as many, and nothing changes.
    pub(super) fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else { return true };
        let MemoryBudget { capacity_bytes, taken_bytes } = &*self.budget;
        let fits = |taken: u64| taken.checked_add(more).filter(|sum| sum <= capacity_bytes);
        let is_taken = taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if is_taken {
            self.bytes = bytes;
        }
        is_taken
    }

    /// Has exactly so many bytes, which may be beyond the limit: they are taken already.
    pub(super) fn settle(&mut self, bytes: u64) {
        self.budget.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.taken_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none() && !first.grow_to(101));
        assert!(first.grow_to(100) && first.grow_to(5));
        first.settle(10);
        let second = budget.take(90).unwrap();
        first.settle(50);
        assert!(budget.take(1).is_none());
        drop((first, second));
        assert!(budget.take(100).is_some());
    }
}
