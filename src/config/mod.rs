//! Configuration: as written in the file, and as a plan that may run.
