//! Inputs that were read to their end, known again by a hash of their names.
//!
//! A stream of objects has no end, and each is an input of its own: so only the newest names are kept, in the
//! order in which they ended. Shards are kept apart, because a stream lists its closed shards for up to a
//! year, while objects come by the thousand an hour and are told of for days.

use zerocopy::IntoBytes as _;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::recent::{RecentHashes, name_hash};

/// Names kept of shards, and as many of others, unless more inputs are known beforehand. At the limit they
/// take 52 MB each and 17 MB of a snapshot; at a thousand objects a minute they reach back seventeen hours.
const NAMES_MAX: usize = 1 << 20;

/// What an input was, which decides how long its name is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A shard of a stream.
    Shard,
    /// A file, an object.
    Other,
}

/// The newest names of inputs that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedInputs {
    shards: RecentHashes,
    others: RecentHashes,
}

impl FinishedInputs {
    /// None. A run that names so many inputs beforehand can be told of all of them.
    #[must_use]
    pub fn new(expected_inputs: usize) -> Self {
        let names = RecentHashes::new(NAMES_MAX.max(expected_inputs));
        Self { shards: names.clone(), others: names }
    }

    /// Adds a name, and says how many of its kind were forgotten so far for want of room.
    pub fn insert(&mut self, name: &str, kind: InputKind) -> u64 {
        let names = match kind {
            InputKind::Shard => &mut self.shards,
            InputKind::Other => &mut self.others,
        };
        names.insert(name_hash(name.as_bytes()));
        names.forgotten_count()
    }

    /// Whether an input of this name ended, as far as is remembered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let hash = name_hash(name.as_bytes());
        self.shards.contains(hash) || self.others.contains(hash)
    }

    /// Saves them with `more` that end as soon as they are loaded.
    pub fn save<'a>(
        &self,
        more: impl IntoIterator<Item = (&'a str, InputKind)>,
        out: &mut Encoder,
    ) {
        let mut of_kind = [(&self.shards, Vec::new()), (&self.others, Vec::new())];
        for (name, kind) in more {
            let (hash, (known, added)) = (name_hash(name.as_bytes()), &mut of_kind[kind as usize]);
            if !known.contains(hash) && !added.contains(&hash) {
                added.push(hash);
            }
        }
        for (names, added) in of_kind {
            let [older, newer] = names.as_slices();
            out.count(names.len() + added.len());
            [older, newer, &added].into_iter().for_each(|hashes| out.raw(hashes.as_bytes()));
        }
    }

    /// What [`Self::save`] wrote, as far as there is room for it with so many inputs known beforehand.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load(expected_inputs: usize, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut finished = Self::new(expected_inputs);
        for names in [&mut finished.shards, &mut finished.others] {
            for hash in from.plain::<u128>()? {
                names.insert(hash);
            }
        }
        Ok(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let mut finished = FinishedInputs::new(0);
        for number in 0..5 {
            finished.insert(&number.to_string(), InputKind::Other);
        }
        let mut out = Encoder::default();
        let more = [("4", InputKind::Other), ("7", InputKind::Shard), ("7", InputKind::Shard)];
        finished.save(more, &mut out);
        let bytes = out.into_bytes();
        let mut from = Decoder::new(&bytes);
        let loaded = FinishedInputs::load(0, &mut from).unwrap();
        from.finish().unwrap();
        assert_eq!(loaded.others, finished.others);
        assert!(loaded.contains("4") && loaded.contains("7") && !loaded.contains("5"));
        assert_eq!(loaded.shards.len(), 1);
        assert!(FinishedInputs::load(0, &mut Decoder::new(&bytes[..bytes.len() - 1])).is_err());
    }
}
