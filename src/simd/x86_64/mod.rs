//! Instances for x86-64, one file per instruction set.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod sse2;
