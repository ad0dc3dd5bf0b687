//! Encoders: a finding in, bytes out. No state, no I/O.

pub mod ndjson;
pub mod talkers;
