//! Seeded synthetic flow logs with planted, labelled attacks.
//!
//! [`GenerateSettings`] say how much, in which layout and with which attacks; a [`Generator`] turns them
//! into lines of flow log text, and at the end into [`Labels`] that say what was planted. `envelope`
//! wraps lines in the forms in which stream services carry them. Sources and commands read from here;
//! nothing here reads a clock, a file or a socket.
//!
//! One seed and one set of settings give the same lines on every machine: random numbers are integer
//! arithmetic, and the few float operations are those that IEEE 754 rounds exactly.
//!
//! The model: accounts, VPCs, subnets and interfaces with roles (web servers, internal services,
//! workers), and a pool of internet addresses. A conversation is drawn, recorded at every interface
//! that it touches, in both directions, each record inside a window of its interface; windows of
//! different interfaces start at different seconds. A few groups look like attacks and are none: a NAT
//! gateway, a resolver, a monitoring poller with a dead host. Their addresses are in the labels.

mod attack;
mod background;
pub mod envelope;
mod exchange;
mod generator;
mod labels;
mod line;
mod network;
mod random;
mod settings;
mod text;

pub use generator::{Generator, Line};
pub use labels::{AttackLabel, BenignLabel, Labels};
pub use network::{InterfaceIndex, Network};
pub use settings::{AttackKind, GenerateSettings, SettingsError};
