//! Labelled traffic made from a seed: attacks of every kind and look-alikes among the traffic of a small VPC, in
//! delivery order, as records of version 5 and of version 2, with the rules by which findings are scored.
//!
//! Other hosts, other speeds and other mixes at every seed, so that thresholds which fit one set of traffic show.
//! A new kind: plant it in `attacks`, and add it to the kinds that `detect` asserts.

#![expect(
    clippy::unwrap_used,
    reason = "numbers are small, and a test's helpers fail like the test itself"
)]

mod attacks;
mod lookalikes;
mod score;
mod world;

pub(crate) use score::{Scores, score};
pub(crate) use world::Traffic;

use world::World;

/// The traffic of a seed.
pub(crate) fn traffic(seed: u64) -> Traffic {
    let mut world = World::new(seed);
    lookalikes::plant(&mut world);
    attacks::plant(&mut world);
    world.traffic()
}
