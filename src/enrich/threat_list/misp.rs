//! MISP: an event, a list of events, or the answer to a search for events or attributes.

use serde::Deserialize;

use super::Taker;

/// Types of attributes that are addresses, alone or before a `|`.
const TYPES: [&str; 4] = ["ip-src", "ip-dst", "ip-src|port", "ip-dst|port"];

/// Any of MISP's documents.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Document {
    Events(Vec<Wrapped>),
    Event(Wrapped),
    Answer { response: Answer },
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Events(Vec<Wrapped>),
    Attributes(Attributes),
}

#[derive(Deserialize)]
pub(super) struct Wrapped {
    #[serde(rename = "Event")]
    event: Event,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Event {
    #[serde(rename = "Attribute")]
    attributes: Vec<Attribute>,
    #[serde(rename = "Object")]
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

impl Document {
    pub(super) fn read(&self, taker: &mut Taker<'_>) {
        match self {
            Self::Events(events) | Self::Answer { response: Answer::Events(events) } => {
                events.iter().for_each(|event| event.event.read(taker));
            }
            Self::Event(event) => event.event.read(taker),
            Self::Answer { response: Answer::Attributes(attributes) } => {
                read(&attributes.attributes, taker);
            }
        }
    }
}

impl Event {
    fn read(&self, taker: &mut Taker<'_>) {
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
