//! Memory of large tables: hints to the processor and to the kernel. None of them changes a value.

use std::mem::size_of_val;

/// Asks the processor to fetch the cache line of `slots[index]`, which will be read or written soon.
///
/// A table that hashes a batch first, prefetches all its slots, and only then touches them, waits for
/// memory once per batch and not once per key. An index outside of `slots` is no error and does nothing
/// useful.
#[inline]
pub fn prefetch<T>(slots: &[T], index: usize) {
    let slot = slots.as_ptr().wrapping_add(index);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch reads nothing that the program could see: an
        // address that isn't mapped is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slot.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: as on x86-64; the instruction touches no register, flag or stack.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{slot}]", slot = in(reg) slot,
                options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = slot;
}

/// Asks the kernel to back `slots` with huge pages: fewer faults when they are first touched, fewer
/// misses of the address cache at random access.
///
/// For tables of some megabytes and more, before they are first written. Without huge pages, or where
/// the kernel refuses, nothing changes.
pub fn advise_huge_pages<T>(slots: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        let start = slots.as_mut_ptr().addr().next_multiple_of(PAGE_BYTES);
        let end = slots.as_mut_ptr().addr() + size_of_val(slots);
        let Some(length) = end.checked_sub(start).map(|bytes| bytes & !(PAGE_BYTES - 1)) else {
            return;
        };
        if length < HUGE_PAGE_BYTES {
            return;
        }
        let start = slots.as_mut_ptr().cast::<libc::c_void>().with_addr(start);
        // SAFETY: the range lies within `slots`, which is borrowed for good here; this advice never
        // changes what the memory holds.
        let refused = unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
        debug_assert!(refused <= 0);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = slots;
}

/// Asks the kernel to back `memory` with pages now, all at once and not at the first touch of each; whether it did.
///
/// Pages that are only partly within `memory` are left out, and what it holds does not change.
pub fn populate<T>(memory: &mut [T]) -> bool {
    #[cfg(target_os = "linux")]
    {
        let start = memory.as_mut_ptr().addr().next_multiple_of(PAGE_BYTES);
        let end = memory.as_mut_ptr().addr() + size_of_val(memory);
        let Some(length) = end.checked_sub(start).map(|bytes| bytes & !(PAGE_BYTES - 1)) else {
            return true;
        };
        let start = memory.as_mut_ptr().cast::<libc::c_void>().with_addr(start);
        // SAFETY: the range lies within `memory`, which is borrowed for good here; this advice makes pages
        // present as a write to each would, and changes nothing that they hold.
        unsafe { libc::madvise(start, length, libc::MADV_POPULATE_WRITE) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = memory;
        false
    }
}

/// The smallest page of every Linux on x86-64, and a multiple of it elsewhere.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 64 * 1024;

/// What a huge page is on x86-64 and usually on 64-bit Arm.
#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_change_no_value() {
        for length in [0, 1, 1 << 12, 1 << 20] {
            let mut slots: Vec<u64> = (0..length).collect();
            advise_huge_pages(&mut slots);
            populate(&mut slots);
            prefetch(&slots, slots.len() / 2);
            prefetch(&slots, usize::MAX);
            assert!(slots.iter().copied().eq(0..length));
        }
    }
}
