//! Where in the account a contact was seen: interface, account, VPC and subnet, kept once per pane.
//!
//! Contacts refer to places by number. Of the many interfaces that may see a contact (both ends, NAT
//! gateways, load balancers) each contact keeps two, always the lowest by name, so that the choice
//! doesn't depend on the order of records.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// How many places a pane keeps; contacts seen at further ones have no place.
const PLACES_MAX: usize = 65_536;

/// An interface and what the records say about where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// `interface-id`
    pub interface_id: Option<String>,
    /// `account-id`
    pub account_id: Option<String>,
    /// `vpc-id`
    pub vpc_id: Option<String>,
    /// `subnet-id`
    pub subnet_id: Option<String>,
}

/// A place as it stands in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PlaceRef<'a>(pub(super) [Option<&'a [u8]>; 4]);

impl PlaceRef<'_> {
    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn to_place(self) -> Place {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [interface_id, account_id, vpc_id, subnet_id] = self.0.map(|part| part.map(text));
        Place { interface_id, account_id, vpc_id, subnet_id }
    }
}

/// The places of a contact: up to two numbers of a pane's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceIds([u32; 2]);

const NO_PLACE: u32 = u32::MAX;

impl Default for PlaceIds {
    fn default() -> Self {
        Self([NO_PLACE; 2])
    }
}

impl PlaceIds {
    /// The numbers, in no particular order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().filter(|id| *id != NO_PLACE)
    }

    /// Adds a place of `places`; of three the highest leaves.
    pub(super) fn insert(&mut self, id: u32, places: &[Place]) {
        if self.0.contains(&id) {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|slot| **slot == NO_PLACE) {
            *free = id;
            return;
        }
        let by_name = |id: &u32| &places[*id as usize];
        let highest = self.0.iter_mut().max_by_key(|id| by_name(id)).expect("there are two slots");
        if by_name(&id) < by_name(highest) {
            *highest = id;
        }
    }

    /// The same places in a list where each number has moved to `new_ids[number]`.
    #[must_use]
    pub fn renumbered(self, new_ids: &[u32]) -> Self {
        Self(self.0.map(|id| if id == NO_PLACE { NO_PLACE } else { new_ids[id as usize] }))
    }

    /// Adds the places of `other`; both refer to `places`.
    pub fn merge(&mut self, other: Self, places: &[Place]) {
        other.iter().for_each(|id| self.insert(id, places));
    }
}

/// The places of one pane, each with a number.
#[derive(Debug)]
pub(super) struct Places {
    list: Vec<Place>,
    ids: HashMap<Vec<u8>, u32, FixedState>,
    /// The place of the record before: records of an interface come together.
    last: Option<(Vec<u8>, u32)>,
    key: Vec<u8>,
}

impl Places {
    pub(super) fn new(hasher: FixedState) -> Self {
        let ids = HashMap::with_hasher(hasher);
        Self { list: Vec::new(), ids, last: None, key: Vec::new() }
    }

    /// The number of a place, if the record has one and the list has room.
    pub(super) fn id_of(&mut self, place: PlaceRef<'_>) -> Option<u32> {
        if place.is_empty() {
            return None;
        }
        self.key.clear();
        for part in place.0 {
            // `-` is never the text of a present field, so the parts can't run into each other.
            self.key.extend_from_slice(part.unwrap_or(b"-"));
            self.key.push(b' ');
        }
        if let Some((key, id)) = &self.last
            && *key == self.key
        {
            return Some(*id);
        }
        let id = match self.ids.get(&self.key) {
            Some(id) => *id,
            None if self.list.len() >= PLACES_MAX => return None,
            None => {
                let id = u32::try_from(self.list.len()).expect("bounded by PLACES_MAX");
                self.ids.insert(self.key.clone(), id);
                self.list.push(place.to_place());
                id
            }
        };
        let last = self.last.get_or_insert_with(|| (Vec::new(), id));
        last.0.clone_from(&self.key);
        last.1 = id;
        Some(id)
    }

    pub(super) fn list(&self) -> &[Place] {
        &self.list
    }

    pub(super) fn into_list(self) -> Vec<Place> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> PlaceRef<'_> {
        PlaceRef([Some(name.as_bytes()), None, None, None])
    }

    #[test]
    fn a_place_keeps_its_number() {
        let mut places = Places::new(FixedState::with_seed(1));
        let ids: Vec<_> = ["a", "b", "a", "a", "b"].map(|name| places.id_of(named(name))).into();
        assert_eq!(ids, [0, 1, 0, 0, 1].map(Some));
        assert_eq!(places.id_of(PlaceRef::default()), None);
        assert_eq!(places.list()[1].interface_id.as_deref(), Some("b"));
    }

    #[test]
    fn the_two_lowest_places_stay_in_any_order() {
        let mut places = Places::new(FixedState::with_seed(1));
        let [c, a, b] = ["c", "a", "b"].map(|name| places.id_of(named(name)).unwrap());
        for order in [[a, b, c], [c, b, a], [b, c, a], [c, a, b]] {
            let mut kept = PlaceIds::default();
            for id in order {
                kept.insert(id, places.list());
            }
            let mut kept: Vec<u32> = kept.iter().collect();
            kept.sort_unstable();
            assert_eq!(kept, [a, b]);
        }
    }
}
