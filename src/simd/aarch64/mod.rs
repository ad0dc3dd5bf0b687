//! Instances for 64-bit Arm, one file per instruction set.

pub(super) mod neon;
