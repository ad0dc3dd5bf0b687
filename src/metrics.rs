//! Counters of a run: a fixed set, counted locally and added per batch.
