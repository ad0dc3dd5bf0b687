//! What users type: arguments, reports, exit codes.
