//! MISP: an event, a list of events, or the answer to a search for events or attributes.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Taker;

/// Types of attributes that are addresses, alone or before a `|`.
const TYPES: [&str; 4] = ["ip-src", "ip-dst", "ip-src|port", "ip-dst|port"];

/// The answer to a search: events in a list, or an object with attributes.
pub(super) enum Answer {
    Events(Vec<Wrapped>),
    Attributes(Attributes),
}

/// Derived, it would keep a copy of the whole answer before it knows which of both it is.
impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Answer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("events or attributes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, events: A) -> Result<Answer, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(events)).map(Answer::Events)
            }

            fn visit_map<A: MapAccess<'de>>(self, attributes: A) -> Result<Answer, A::Error> {
                let attributes = MapAccessDeserializer::new(attributes);
                Deserialize::deserialize(attributes).map(Answer::Attributes)
            }
        }

        from.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
pub(super) struct Wrapped {
    #[serde(rename = "Event")]
    event: Event,
}

#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "Attribute", default)]
    attributes: Vec<Attribute>,
    #[serde(rename = "Object", default)]
    objects: Vec<Attributes>,
}

#[derive(Deserialize)]
pub(super) struct Attributes {
    #[serde(rename = "Attribute", default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    #[serde(default)]
    deleted: bool,
}

impl Answer {
    pub(super) fn read(&self, taker: &mut Taker<'_>) {
        match self {
            Self::Events(events) => events.iter().for_each(|event| event.read(taker)),
            Self::Attributes(attributes) => read(&attributes.attributes, taker),
        }
    }
}

impl Wrapped {
    pub(super) fn read(&self, taker: &mut Taker<'_>) {
        self.event.read(taker);
    }
}

impl Event {
    pub(super) fn read(&self, taker: &mut Taker<'_>) {
        read(&self.attributes, taker);
        self.objects.iter().for_each(|object| read(&object.attributes, taker));
    }
}

fn read(attributes: &[Attribute], taker: &mut Taker<'_>) {
    for (number, Attribute { kind, value, deleted }) in (1..).zip(attributes) {
        if *deleted || !TYPES.contains(&kind.as_str()) {
            continue;
        }
        let address = value.split_once('|').map_or(value.as_str(), |(address, _)| address);
        taker.take(address.trim(), None, || format!("attribute {number}"));
    }
}
