//! What users type: arguments, reports, exit codes.

pub mod generate;
