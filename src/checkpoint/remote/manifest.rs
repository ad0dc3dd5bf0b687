//! The list of the copies: one small JSON object that says which snapshots there are and who may add some.
//!
//! Only what is listed is a snapshot. The list is changed by conditional writes alone (`fence`), so the newest list
//! has one writer. `writes` counts them: no two lists are alike, not even those of one owner who has nothing to
//! say but that it is alive.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::checked_json;
use super::super::error::RefusalReason;
use crate::units::UnixSeconds;

/// More than this is no list.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// A name of 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Token(pub(super) u128);

/// Which snapshots there are, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The fingerprint of the job.
    pub(super) job: Token,
    /// How often the list was written.
    pub(super) writes: u64,
    /// Who may change it; nobody after an orderly end.
    pub(super) owner: Option<Owner>,
    /// The state directory of the one who wrote last.
    pub(super) directory: Token,
    /// By epoch.
    pub(super) snapshots: Vec<Copied>,
    /// Uploads in parts that may not have come to an end.
    pub(super) begun: Vec<Begun>,
}

/// A process that keeps its snapshots here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    pub(super) run: Token,
    pub(super) host: String,
    pub(super) process: u32,
    /// Tells one start of the machine from others.
    pub(super) boot: Option<String>,
    /// Unix seconds of its own clock.
    pub(super) since: i64,
    /// When the list has not changed for so long, the owner counts as gone.
    pub(super) silence_ms: u64,
}

/// A snapshot that was uploaded whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Copied {
    pub(super) epoch: u64,
    pub(super) object: String,
    pub(super) bytes: u64,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    pub(super) object: String,
    pub(super) id: String,
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        checked_json::to_bytes(self)
    }

    /// # Errors
    /// If the bytes are no list, or one of a newer form.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, RefusalReason> {
        checked_json::from_bytes(bytes)
    }

    /// Whether the run with this name is the owner.
    pub(super) fn is_owned_by(&self, run: Token) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.run == run)
    }

    /// The owner, for people.
    pub(super) fn owner_text(&self) -> String {
        self.owner.as_ref().map_or_else(|| "it has ended since".to_owned(), ToString::to_string)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, process, since, .. } = self;
        write!(f, "process {process} on host {host}, since {}", UnixSeconds(*since))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let token = u128::from_str_radix(&text, 16).ok().map(Self);
        let token = token.filter(|token| token.to_string() == text);
        token.ok_or_else(|| serde::de::Error::custom("32 hexadecimal digits are expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let owner = Owner {
            run: Token(3),
            host: "web \"1\"".to_owned(),
            process: 7,
            boot: None,
            since: 1_767_225_600,
            silence_ms: 30_000,
        };
        Manifest {
            job: Token(u128::MAX),
            writes: 9,
            owner: Some(owner),
            directory: Token(4),
            snapshots: vec![Copied { epoch: 5, object: "a.fgs".to_owned(), bytes: 6 }],
            begun: vec![Begun { object: "b.fgs".to_owned(), id: "x".to_owned() }],
        }
    }

    #[test]
    fn any_changed_bit_is_refused() {
        let sound = manifest().to_bytes();
        assert_eq!(Manifest::from_bytes(&sound).unwrap(), manifest());
        for at in 0..sound.len() - 1 {
            for bit in 0..8 {
                let mut changed = sound.clone();
                changed[at] ^= 1 << bit;
                let read = Manifest::from_bytes(&changed);
                assert!(read.is_err(), "bit {bit} of byte {at}: {read:?}");
            }
            assert!(Manifest::from_bytes(&sound[..at]).is_err());
        }
    }

    #[test]
    fn the_owner_is_named() {
        let expected = "process 7 on host web \"1\", since 2026-01-01T00:00:00Z";
        assert_eq!(manifest().owner_text(), expected);
    }
}
