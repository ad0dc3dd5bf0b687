//! What users type: arguments, reports, exit codes.

mod validate;

pub use validate::{ValidateArgs, ValidateError, validate};
