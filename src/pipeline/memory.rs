//! How the memory of a run is divided over its tables.
//!
//! ```text
//! memory_max ─┬─ the program; per thread: text and batches under way, and as much kept for further ones
//!             └─ state ─┬─ tops 34 %, contacts 30 %, judging a pane 22 %, detectors 14 %;
//!                       │  with tops of windows 24 % of it all is theirs, half in shards, and the others have the rest
//!                       └─ a copy of them while a snapshot is written, where snapshots are
//! ```

/// The program itself, its channels and the allocator's slack. Measured with [`THREAD_BYTES`]: floods of 2 to 100
/// million records with two threads take 150 MiB, of which detectors need 25 for judging a pane, and 0.6 of what the
/// state may take.
const PROGRAM_BYTES: u64 = 92 << 20;

/// Buffers of text, batches and row lists per thread.
const THREAD_BYTES: u64 = 28 << 20;

/// State below this would find nothing.
const STATE_BYTES_MIN: u64 = 20 << 20;

/// Least memory of a run with `threads` threads, in bytes.
#[must_use]
pub const fn memory_bytes_min(threads: u64, has_snapshots: bool) -> u64 {
    let copies = if has_snapshots { 2 } else { 1 };
    PROGRAM_BYTES + threads * THREAD_BYTES + copies * STATE_BYTES_MIN
}

/// The limits of tables, in bytes, over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tables of talkers.
    pub tops_bytes: usize,
    /// Talkers of open panes, and as much again for those of windows.
    pub talkers_bytes: usize,
    /// Contacts of open panes and of those that wait for their judgement.
    pub contacts_bytes: usize,
    /// What detectors remember.
    pub detectors_bytes: usize,
    /// Buffers that a parse worker keeps for further text.
    pub kept_text_bytes: usize,
}

impl MemoryPlan {
    /// No limits.
    pub const UNLIMITED: Self = Self {
        tops_bytes: usize::MAX,
        talkers_bytes: usize::MAX,
        contacts_bytes: usize::MAX,
        detectors_bytes: usize::MAX,
        kept_text_bytes: usize::MAX,
    };

    /// Divides `memory_bytes`; less than [`memory_bytes_min`] is taken for that.
    #[must_use]
    pub fn of(memory_bytes: u64, threads: u64, has_snapshots: bool) -> Self {
        let memory_bytes = memory_bytes.max(memory_bytes_min(threads, has_snapshots));
        let memory_bytes = memory_bytes - PROGRAM_BYTES - threads * THREAD_BYTES;
        // More than that is kept only where there is plenty: for the text of large objects, inflated.
        let kept_text_bytes = memory_bytes / 16 / threads.max(1);
        let state_bytes = memory_bytes - memory_bytes / 16;
        let tables_bytes = if has_snapshots { state_bytes / 2 } else { state_bytes };
        let share = |percent: u64| {
            usize::try_from(u128::from(tables_bytes) * u128::from(percent) / 100)
                .unwrap_or(usize::MAX)
        };
        Self {
            tops_bytes: share(34),
            talkers_bytes: 0,
            contacts_bytes: share(30),
            detectors_bytes: share(14),
            kept_text_bytes: usize::try_from(kept_text_bytes).unwrap_or(usize::MAX),
        }
    }

    /// The same with room for tops of windows, at the cost of the other tables.
    #[must_use]
    pub const fn with_talkers(self) -> Self {
        const fn less(bytes: usize) -> usize {
            if bytes == usize::MAX { usize::MAX } else { bytes / 100 * 76 }
        }
        Self {
            tops_bytes: less(self.tops_bytes),
            // 34 % are for tops, so that this is 12 % of all.
            talkers_bytes: if self.tops_bytes == usize::MAX {
                usize::MAX
            } else {
                self.tops_bytes / 34 * 12
            },
            contacts_bytes: less(self.contacts_bytes),
            detectors_bytes: less(self.detectors_bytes),
            kept_text_bytes: self.kept_text_bytes,
        }
    }

    /// The share of each shard. There is one set of detectors for all.
    #[must_use]
    pub const fn per_shard(self, shard_count: usize) -> Self {
        Self {
            tops_bytes: self.tops_bytes / shard_count,
            talkers_bytes: self.talkers_bytes / shard_count,
            contacts_bytes: self.contacts_bytes / shard_count,
            detectors_bytes: self.detectors_bytes,
            kept_text_bytes: self.kept_text_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_into_the_whole() {
        for (memory_mib, threads, has_snapshots) in
            [(0, 1, false), (512, 2, true), (512, 2, false), (65_536, 64, true)]
        {
            let memory_bytes = (memory_mib << 20).max(memory_bytes_min(threads, has_snapshots));
            let plan = MemoryPlan::of(memory_bytes, threads, has_snapshots);
            let tables = (plan.tops_bytes + plan.contacts_bytes + plan.detectors_bytes) as u64;
            let copies = if has_snapshots { 2 } else { 1 };
            let kept_text = plan.kept_text_bytes as u64 * threads;
            let whole = tables * copies + kept_text + PROGRAM_BYTES + threads * THREAD_BYTES;
            assert!(whole <= memory_bytes, "{memory_mib} MiB: {whole}");
            let with = plan.with_talkers();
            let others = with.tops_bytes + with.contacts_bytes + with.detectors_bytes;
            // Judging a pane takes 22 %, and less where there are fewer contacts.
            let whole = others as u64 * 100 / 78 + 2 * with.talkers_bytes as u64;
            assert!(whole <= tables * 100 / 78 + 100, "{memory_mib} MiB: {whole}");
            assert!(with.talkers_bytes > 0, "{memory_mib} MiB");
            assert!(tables >= STATE_BYTES_MIN * 72 / 100, "{memory_mib} MiB: {tables}");
        }
    }
}
