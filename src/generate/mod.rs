//! Seeded synthetic flow logs with planted, labelled attacks.
