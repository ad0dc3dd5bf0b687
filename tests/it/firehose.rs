//! The endpoint that Firehose delivers to: the protocol, what is refused, and that nothing is lost or counted twice.
#![cfg(feature = "firehose")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod delivery;
mod durable;
mod endpoint;
mod load;
mod look;
mod refused;
mod tls;
