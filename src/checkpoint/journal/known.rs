//! Which findings the journal holds, as far as they may come again.
//!
//! A restart makes findings again from the snapshot's moment on. Until one that the journal holds from
//! then has come again, it is *pending*. A snapshot that is taken meanwhile must keep the pending ones,
//! though they lie before its position: a restart from it makes them again too. What has come, or was
//! written new, is *recent* until a later snapshot is durable: it should not come twice in one run, and
//! if it does, it is not written twice.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::line::Key;

#[derive(Debug, Default)]
pub(super) struct Known {
    pending: HashMap<Key, u64>,
    /// The same by the number that they have in the journal.
    pending_order: BTreeSet<(u64, Key)>,
    recent: HashSet<Key>,
    /// The same with the count of findings when they came, in order.
    recent_order: VecDeque<(u64, Key)>,
}

impl Known {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.pending.contains_key(key) || self.recent.contains(key)
    }

    /// Notes what the journal holds from before the restart.
    pub(super) fn expect(&mut self, seq: u64, key: Key) {
        if let Entry::Vacant(entry) = self.pending.entry(key) {
            entry.insert(seq);
            self.pending_order.insert((seq, key));
        }
    }

    /// Notes that a finding came, when there were `findings` in the journal.
    pub(super) fn settle(&mut self, findings: u64, key: Key) {
        if let Some(seq) = self.pending.remove(&key) {
            self.pending_order.remove(&(seq, key));
        }
        if self.recent.insert(key) {
            self.recent_order.push_back((findings, key));
        }
    }

    /// Forgets what came when there were fewer than `findings`.
    pub(super) fn forget_before(&mut self, findings: u64) {
        while let Some((at, key)) = self.recent_order.front().copied()
            && at < findings
        {
            self.recent_order.pop_front();
            self.recent.remove(&key);
        }
    }

    /// Holds each kind to a limit, the oldest go; how many of those went that a restart may make again.
    pub(super) fn limit(&mut self, max: usize) -> u64 {
        while self.recent_order.len() > max {
            let (_, key) = self.recent_order.pop_front().expect("it is longer than a limit");
            self.recent.remove(&key);
        }
        let mut forgotten = 0;
        while self.pending_order.len() > max {
            let (_, key) = self.pending_order.pop_first().expect("it is longer than a limit");
            self.pending.remove(&key);
            forgotten += 1;
        }
        forgotten
    }

    /// What has not come again, by number.
    pub(super) fn pending(&self) -> impl ExactSizeIterator<Item = (u64, Key)> + '_ {
        self.pending_order.iter().copied()
    }

    /// Memory held, in bytes; a tree's nodes are taken as half empty.
    pub(super) fn bytes(&self) -> usize {
        self.pending.capacity() * (size_of::<(Key, u64)>() + 1)
            + self.pending_order.len() * 2 * size_of::<(u64, Key)>()
            + self.recent.capacity() * (size_of::<Key>() + 1)
            + self.recent_order.capacity() * size_of::<(u64, Key)>()
    }
}
