//! Threads and bounded channels: the one place where stages are wired.
