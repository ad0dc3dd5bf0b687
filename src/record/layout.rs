//! Which field stands where in a line: from a header, a LogFormat string, a list of names, or AWS's
//! defaults.
//!
//! A [`Layout`] is made once per format and shared; the parser reads it as a list of slots. Names
//! that the field table doesn't know are kept as text, because AWS adds fields every year.

use std::sync::Arc;

use super::field::{FIELD_COUNT, FieldId, FieldKind};

/// Most fields a layout may have: all of AWS's and as many again that are not known yet.
pub const LAYOUT_FIELDS_MAX: usize = 2 * FIELD_COUNT;

/// One place of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A field of the table.
    Known(FieldId),
    /// A name that the table doesn't have; carried as text.
    Unknown(Box<str>),
}

impl Slot {
    /// The slot for a header name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        FieldId::from_name(name.as_bytes()).map_or_else(|| Self::Unknown(name.into()), Self::Known)
    }

    /// The header name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(field) => field.name(),
            Self::Unknown(name) => name,
        }
    }

    /// How the text in this place is checked.
    #[must_use]
    pub const fn kind(&self) -> FieldKind {
        match self {
            Self::Known(field) => field.kind(),
            Self::Unknown(_) => FieldKind::Text,
        }
    }
}

/// Why a format could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No field at all.
    #[error(
        "the format names no field; use `auto`, `v2`, `v5`, `tgw`, a list of field names or the flow log's LogFormat string"
    )]
    Empty,
    /// More names than any flow log has.
    #[error("the format names {0} fields, more than the {LAYOUT_FIELDS_MAX} that can be")]
    TooManyFields(usize),
    /// The same field twice.
    #[error("the format names `{0}` twice; a flow log has each field once")]
    Duplicate(String),
    /// A name that no AWS field could have.
    #[error("`{name}` in the format is not a field name{}; field names are like `interface-id`", suggestion(*.similar))]
    Name {
        /// What was written.
        name: String,
        /// The nearest field that AWS has.
        similar: Option<&'static str>,
    },
    /// A `${` without its `}`, or text between two fields.
    #[error(
        "the format string is broken near `{0}`; write `${{field}} ${{field}}` with one blank between"
    )]
    Template(String),
}

fn suggestion(similar: Option<&'static str>) -> String {
    similar.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// The order of the fields in the lines of one flow log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    slots: Box<[Slot]>,
    /// Position of each known field, `u8::MAX` where the layout doesn't have it.
    positions: [u8; FIELD_COUNT],
}

const _: () = assert!(LAYOUT_FIELDS_MAX < u8::MAX as usize, "positions are kept in a u8");

impl Layout {
    /// AWS's default format: the 14 fields of version 2.
    #[must_use]
    pub fn default_v2() -> Arc<Self> {
        Arc::new(Self::of_fields(&FieldId::vpc_up_to(2)))
    }

    /// The layout with these fields in this order.
    ///
    /// # Panics
    /// If `fields` is empty or holds one twice.
    #[must_use]
    pub fn of_fields(fields: &[FieldId]) -> Self {
        let slots = fields.iter().map(|field| Slot::Known(*field)).collect();
        Self::of_slots(slots).expect("the caller passes a list of distinct fields")
    }

    fn of_slots(slots: Vec<Slot>) -> Result<Self, LayoutError> {
        if slots.is_empty() {
            return Err(LayoutError::Empty);
        }
        if slots.len() > LAYOUT_FIELDS_MAX {
            return Err(LayoutError::TooManyFields(slots.len()));
        }
        let mut positions = [u8::MAX; FIELD_COUNT];
        for (position, slot) in slots.iter().enumerate() {
            let twice = match slot {
                Slot::Known(field) => {
                    let place = &mut positions[*field as usize];
                    let twice = *place != u8::MAX;
                    *place = u8::try_from(position).expect("bounded by LAYOUT_FIELDS_MAX");
                    twice
                }
                Slot::Unknown(name) => {
                    slots[..position].iter().any(|other| other.name() == &**name)
                }
            };
            if twice {
                return Err(LayoutError::Duplicate(slot.name().to_owned()));
            }
        }
        Ok(Self { slots: slots.into(), positions })
    }

    /// The layout that a user wrote: `v2` to `v11` (AWS's fields up to that version), `tgw`, a LogFormat
    /// string (`${version} ${account-id}`), or names separated by blanks or commas.
    ///
    /// # Errors
    /// If the text names no field, one twice, or something that can't be a field.
    pub fn from_text(text: &str) -> Result<Self, LayoutError> {
        let names = if text.contains("${") { template_names(text)? } else { listed_names(text) };
        if let [name] = names[..]
            && let Some(fields) = preset(name)
        {
            return Ok(Self::of_fields(&fields));
        }
        let mut slots = Vec::with_capacity(names.len());
        for name in names {
            if !is_field_name(name.as_bytes()) {
                let similar = similar_field(name);
                return Err(LayoutError::Name { name: name.to_owned(), similar });
            }
            slots.push(Slot::from_name(name));
        }
        Self::of_slots(slots)
    }

    /// The layout that a header line declares, or `None` if the line is not a header.
    ///
    /// A header is a line of field names: all known, or most of them known and the rest of the form
    /// `[a-z][a-z0-9-]*` (fields newer than the table). Form alone is not enough, because
    /// `us-east-1 use1-az1 ingress` is a legal record of a three-field format.
    #[must_use]
    pub fn from_header(line: &[u8]) -> Option<Self> {
        if !line.first()?.is_ascii_lowercase() {
            return None;
        }
        let mut slots = Vec::new();
        let mut known_count = 0_usize;
        for token in line.split(|byte| *byte == b' ').filter(|token| !token.is_empty()) {
            if let Some(field) = FieldId::from_name(token) {
                known_count += 1;
                slots.push(Slot::Known(field));
            } else if is_field_name(token) && slots.len() < LAYOUT_FIELDS_MAX {
                slots.push(Slot::Unknown(std::str::from_utf8(token).ok()?.into()));
            } else {
                return None;
            }
        }
        if known_count * 2 <= slots.len() {
            return None;
        }
        Self::of_slots(slots).ok()
    }

    /// The places, in line order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Number of fields in a line.
    #[must_use]
    pub fn field_count(&self) -> usize {
        self.slots.len()
    }

    /// Where `field` stands, counted from 0.
    #[must_use]
    pub fn position(&self, field: FieldId) -> Option<usize> {
        match self.positions[field as usize] {
            u8::MAX => None,
            position => Some(usize::from(position)),
        }
    }

    /// The names that the field table doesn't have.
    pub fn unknown_names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Known(_) => None,
            Slot::Unknown(name) => Some(&**name),
        })
    }

    /// The layout as a header line.
    #[must_use]
    pub fn header(&self) -> String {
        self.slots.iter().map(Slot::name).collect::<Vec<_>>().join(" ")
    }
}

fn preset(name: &str) -> Option<Vec<FieldId>> {
    match name {
        "tgw" => Some(FieldId::transit_gateway()),
        "v2" | "v3" | "v4" | "v5" | "v7" | "v8" | "v9" | "v10" | "v11" => {
            Some(FieldId::vpc_up_to(name[1..].parse().expect("the pattern holds digits only")))
        }
        _ => None,
    }
}

fn listed_names(text: &str) -> Vec<&str> {
    text.split([' ', ',', '\t', '\n']).filter(|name| !name.is_empty()).collect()
}

fn template_names(text: &str) -> Result<Vec<&str>, LayoutError> {
    let mut names = Vec::new();
    for item in text.split([' ', '\t', '\n']).filter(|item| !item.is_empty()) {
        let mut rest = item;
        while !rest.is_empty() {
            let inside = rest
                .strip_prefix("${")
                .and_then(|inside| inside.split_once('}'))
                .ok_or_else(|| LayoutError::Template(item.to_owned()))?;
            names.push(inside.0);
            rest = inside.1;
        }
    }
    Ok(names)
}

/// Whether the bytes have the form of a field name: `[a-z][a-z0-9-]*`, not ending in `-`.
fn is_field_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_lowercase)
        && name.last() != Some(&b'-')
        && name
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// The field whose name is the same but for case, `_` for `-`, or missing separators.
fn similar_field(name: &str) -> Option<&'static str> {
    let squeeze = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    let wanted = squeeze(name);
    FieldId::ALL.into_iter().map(FieldId::name).find(|known| squeeze(known) == wanted)
}

/// How an input says which layout its lines have.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum FormatChoice {
    /// Header lines bind the layout; without one, lines are read as AWS's default format.
    #[default]
    Auto,
    /// This layout, until a header line says otherwise.
    Fixed(Arc<Layout>),
}

impl FormatChoice {
    /// The choice that a user wrote: `auto` or anything that [`Layout::from_text`] reads.
    ///
    /// # Errors
    /// Those of [`Layout::from_text`].
    pub fn from_text(text: &str) -> Result<Self, LayoutError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            format => Ok(Self::Fixed(Arc::new(Layout::from_text(format)?))),
        }
    }

    /// The layout that holds before any header was seen.
    #[must_use]
    pub fn initial_layout(&self) -> Arc<Layout> {
        match self {
            Self::Auto => Layout::default_v2(),
            Self::Fixed(layout) => Arc::clone(layout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, LayoutError>) {
        let got = Layout::from_text(text).map(|layout| layout.header());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn a_user_may_write_a_list_a_template_or_a_preset() {
        check("srcaddr dstaddr", Ok("srcaddr dstaddr"));
        check("srcaddr,dstaddr, bytes", Ok("srcaddr dstaddr bytes"));
        check("${srcaddr} ${dstaddr}", Ok("srcaddr dstaddr"));
        check("${srcaddr}${dstaddr}", Ok("srcaddr dstaddr"));
        assert_eq!(Layout::from_text("v2").unwrap(), *Layout::default_v2());
        assert_eq!(Layout::from_text(" v2, ").unwrap(), *Layout::default_v2());
        assert_eq!(Layout::from_text("v11").unwrap().field_count(), 54);
        assert_eq!(Layout::from_text("tgw").unwrap().position(FieldId::LogStatus), Some(25));
    }

    #[test]
    fn names_that_aws_may_add_are_kept() {
        check("srcaddr brand-new-field", Ok("srcaddr brand-new-field"));
        let layout = Layout::from_text("srcaddr brand-new-field").unwrap();
        assert_eq!(layout.unknown_names().collect::<Vec<_>>(), ["brand-new-field"]);
    }

    #[test]
    fn faults_say_what_to_write() {
        check("", Err(LayoutError::Empty));
        check("srcaddr srcaddr", Err(LayoutError::Duplicate("srcaddr".into())));
        check("new new", Err(LayoutError::Duplicate("new".into())));
        check("${srcaddr", Err(LayoutError::Template("${srcaddr".into())));
        check(
            "account_id",
            Err(LayoutError::Name { name: "account_id".into(), similar: Some("account-id") }),
        );
        check(
            "srcAddr",
            Err(LayoutError::Name { name: "srcAddr".into(), similar: Some("srcaddr") }),
        );
    }

    #[test]
    fn headers_are_told_from_records() {
        let header = |line: &str| Layout::from_header(line.as_bytes()).map(|l| l.header());
        assert_eq!(header("srcaddr  dstaddr"), Some("srcaddr dstaddr".into()));
        assert_eq!(header("srcaddr dstaddr new-field"), Some("srcaddr dstaddr new-field".into()));
        assert_eq!(header("us-east-1 use1-az1 ingress"), None);
        assert_eq!(header("srcaddr new-one new-two"), None);
        assert_eq!(header("2 123456789012 eni-1 - - - - - - - 1 2 - NODATA"), None);
        assert_eq!(header(""), None);
    }

    #[test]
    fn a_header_longer_than_any_layout_is_not_one() {
        let line = vec!["x"; LAYOUT_FIELDS_MAX + 2].join(" ");
        assert_eq!(Layout::from_header(line.as_bytes()), None);
    }
}
