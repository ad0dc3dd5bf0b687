//! Instances for x86-64, one file per instruction set.

#![expect(clippy::cast_ptr_alignment, reason = "the loads take any alignment")]

pub(super) mod avx2;
pub(super) mod avx2_columns;
pub(super) mod avx512;
pub(super) mod avx512_columns;
pub(super) mod avx512_ipv6;
pub(super) mod sse2;
