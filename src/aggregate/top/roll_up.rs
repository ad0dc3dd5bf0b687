//! Sums of one table added to another whose key is the same or a part of it.

use super::TopSpec;
use super::gather::{is_narrow, narrow_bits};
use crate::aggregate::key::packed_fields;
use crate::record::{FieldKind, Slot};

/// Where the fields of a key stand in another's.
pub(super) struct Projection {
    /// For each field of the smaller key: its place among the fields of the larger one.
    places: Vec<usize>,
    /// The larger key's fields.
    by: Vec<Slot>,
    /// For each field of the smaller key: how far right it stands in a larger one that is narrow, and
    /// its bits.
    narrow: Vec<(u32, u32)>,
    to_narrow: bool,
}

impl Projection {
    /// # Panics
    /// If a field of `to` is none of `from`.
    pub(super) fn new(from: &TopSpec, to: &TopSpec) -> Self {
        let place_of = |slot: &Slot| from.by.iter().position(|other| other == slot);
        let places: Vec<usize> = to
            .by
            .iter()
            .map(|slot| place_of(slot).expect("a question's fields are among its base's"))
            .collect();
        let right_of = |place: usize| from.by[place + 1..].iter().filter_map(narrow_bits).sum();
        let bits_of = |place: usize| narrow_bits(&from.by[place]).unwrap_or(0);
        let narrow = places.iter().map(|place| (right_of(*place), bits_of(*place))).collect();
        Self { places, by: from.by.clone(), narrow, to_narrow: is_narrow(to) }
    }

    /// The smaller key of a larger, narrow one.
    pub(super) fn of_narrow(&self, key: u64) -> u64 {
        self.narrow.iter().fold(0, |smaller, (right, bits)| {
            let field = key.checked_shr(*right).unwrap_or(0) & (u64::MAX >> (u64::BITS - bits));
            smaller.checked_shl(*bits).unwrap_or(0) | field
        })
    }

    /// Packs the smaller key of a larger, packed one, and returns it as a narrow one if it is.
    pub(super) fn of_packed(&self, key: &[u8], packed: &mut Vec<u8>) -> Option<u64> {
        packed.clear();
        for place in &self.places {
            let (_, field) =
                packed_fields(key, &self.by).nth(*place).expect("the key has all its fields");
            packed.extend_from_slice(field);
        }
        let slots = self.places.iter().map(|place| &self.by[*place]);
        if self.to_narrow { narrow_of(packed, slots) } else { None }
    }
}

/// The narrow key of packed fields; `None` if one of them is an IPv6 address.
fn narrow_of<'a>(packed: &[u8], slots: impl Iterator<Item = &'a Slot>) -> Option<u64> {
    packed_fields(packed, slots).try_fold(0_u64, |key, (slot, field)| {
        let value = match (slot.kind(), field) {
            (FieldKind::Addr, [4, bits @ ..]) => bits,
            (FieldKind::Addr, _) => return None,
            _ => field,
        };
        Some(value.iter().fold(key, |key, byte| key << 8 | u64::from(*byte)))
    })
}
