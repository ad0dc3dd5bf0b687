//! Settings that a component declares beside its code as a serde struct: read from their table with
//! all faults, not only the first.
//!
//! serde stops at the first fault. The faulty key is then reported, taken out, and the rest is read
//! again, so a table of `n` keys is read at most `n + 1` times.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::reader::{Reference, TableReader, listed, unknown_key};
use super::suggest::nearest;

impl TableReader<'_> {
    /// Reads all keys that are left into the settings `T`, which must deny unknown fields; `None` if
    /// that was not possible.
    ///
    /// `{ env = … }` and `{ file = … }` stand for strings at any depth.
    pub(super) fn component<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut table = std::mem::take(&mut self.table);
        let mut references = Vec::new();
        let path = self.path.clone();
        let mut taken_out = self.resolve_references(&path, &mut table, &mut references);
        let mut is_complete = taken_out.is_empty();
        loop {
            let value = Spanned::new(self.span.clone(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(value)) {
                Ok(settings) => return is_complete.then_some(settings),
                Err(error) => error,
            };
            is_complete = false;
            let message = error.message();
            if let Some(place) = error.span().and_then(|span| take_out(&mut table, &span)) {
                self.report(message, &place, &references);
                taken_out.extend(place.keys.last().cloned());
            } else if let Some((place, words)) = take_out_named(&mut table, message) {
                if !follows(message, &taken_out) {
                    self.report_judged(words, &place, &references);
                }
                taken_out.extend(place.keys.last().cloned());
            } else {
                if !follows(message, &taken_out) {
                    self.report_absence(message);
                }
                return None;
            }
        }
    }

    /// Puts the content in the place of every reference and notes where that was; takes out those
    /// without content and gives their keys, with those of the tables that held them.
    fn resolve_references(
        &mut self,
        path: &str,
        table: &mut DeTable<'_>,
        references: &mut Vec<(Range<usize>, String)>,
    ) -> Vec<String> {
        let mut unresolved: Vec<DeString<'_>> = Vec::new();
        let mut taken_out = Vec::new();
        for (key, value) in table.iter_mut() {
            let span = value.span();
            let DeValue::Table(inner) = value.get_mut() else { continue };
            let Some(reference) = Reference::of(inner) else {
                let path = format!("{path}.{}", key.get_ref());
                let inner_keys = self.resolve_references(&path, inner, references);
                if !inner_keys.is_empty() {
                    taken_out.push(key.get_ref().clone().into_owned());
                    taken_out.extend(inner_keys);
                }
                continue;
            };
            match self.document.take_reference(&reference) {
                Ok(content) => {
                    references.push((span, reference.to_string()));
                    *value.get_mut() = DeValue::String(content.into());
                }
                Err(message) => {
                    let field = format!("field `{path}.{}`", key.get_ref());
                    self.wrong(key.span(), format!("{field} {message}"));
                    unresolved.push(key.get_ref().clone());
                }
            }
        }
        for key in &unresolved {
            table.remove(&**key);
        }
        taken_out.extend(unresolved.into_iter().map(DeString::into_owned));
        taken_out
    }

    /// Reports a fault of the table as a whole, such as a missing key.
    fn report_absence(&mut self, message: &str) {
        let path = &self.path;
        let report = match SerdeMessage::of(message) {
            SerdeMessage::MissingField(key) => format!("`[{path}]` has no `{key}`; add it"),
            _ => format!("`[{path}]`: {message}"),
        };
        self.missing(report);
    }

    /// Reports what a component's own check of the whole table says of one key, in `words` that follow
    /// the key's name.
    fn report_judged(
        &mut self,
        words: &str,
        place: &Place<'_>,
        references: &[(Range<usize>, String)],
    ) {
        let field = format!("field `{}`", self.path_of(&place.keys[0]));
        let report = match place.reference(references) {
            Some(name) => format!("{field} is {name}, which does not fit"),
            None => format!("{field} {words}"),
        };
        self.wrong(place.key_span.clone(), report);
    }

    /// Reports what serde says of one key.
    fn report(&mut self, message: &str, place: &Place<'_>, references: &[(Range<usize>, String)]) {
        let (key, parents) = place.keys.split_last().expect("a place has at least one key");
        let mut parent = self.path.clone();
        for name in parents {
            parent = format!("{parent}.{name}");
        }
        let reference = place.reference(references);
        let shown = reference.map_or_else(|| self.shown(&place.value), str::to_owned);
        let field = format!("field `{parent}.{key}`");
        let report = match SerdeMessage::of(message) {
            SerdeMessage::UnknownField(mut known) => {
                if parents.is_empty() {
                    known.extend(&self.known);
                }
                unknown_key(key, &parent, &known)
            }
            SerdeMessage::UnknownVariant { written, known } => {
                let hint = nearest(written, known.iter().copied())
                    .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
                format!("{field} is {shown}; it must be one of {}{hint}", listed(&known))
            }
            SerdeMessage::MissingField(absent) => {
                format!("`[{parent}.{key}]` has no `{absent}`; add it")
            }
            SerdeMessage::Expected(expected) => {
                format!("{field} is {shown}; it must be {}", described(expected))
            }
            // The component's own words may repeat the content, which a reference keeps hidden.
            SerdeMessage::Other(_) if reference.is_some() => {
                format!("{field} is {shown}, which does not fit")
            }
            SerdeMessage::Other(words) => format!("{field} is {shown}; {words}"),
        };
        self.wrong(place.key_span.clone(), report);
    }
}

/// Whether a message speaks of a key that was taken out, and so of what is known already.
fn follows(message: &str, taken_out: &[String]) -> bool {
    taken_out.iter().any(|key| message.contains(&format!("`{key}`")))
}

/// An entry that was taken out of a table or of one within it.
struct Place<'i> {
    keys: Vec<String>,
    key_span: Range<usize>,
    value: Spanned<DeValue<'i>>,
}

impl Place<'_> {
    /// What the value was taken from, if it does not stand in the file itself.
    fn reference<'r>(&self, references: &'r [(Range<usize>, String)]) -> Option<&'r str> {
        let found = references.iter().find(|(span, _)| *span == self.value.span());
        found.map(|(_, name)| name.as_str())
    }
}

/// Takes out the entry to which an error at `span` belongs: the deepest whose key, value or list item
/// stands there.
fn take_out<'i>(table: &mut DeTable<'i>, span: &Range<usize>) -> Option<Place<'i>> {
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(mut place) = take_out(inner, span)
        {
            place.keys.insert(0, key.get_ref().clone().into_owned());
            return Some(place);
        }
    }
    let (key, _) =
        table.iter().find(|(key, value)| key.span() == *span || stands_at(value, span))?;
    let key = key.clone();
    let (_, value) = table.remove_entry(&key)?;
    let key_span = key.span();
    Some(Place { keys: vec![key.into_inner().into_owned()], key_span, value })
}

/// Takes out the key with whose name a message begins (``"`port` is …"``), as those of checks do that
/// see the whole table; also gives the rest of the message.
fn take_out_named<'i, 'm>(
    table: &mut DeTable<'i>,
    message: &'m str,
) -> Option<(Place<'i>, &'m str)> {
    let (name, words) = message.strip_prefix('`')?.split_once("` ")?;
    let (key, value) = table.remove_entry(name)?;
    let key_span = key.span();
    Some((Place { keys: vec![key.into_inner().into_owned()], key_span, value }, words))
}

fn stands_at(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    value.span() == *span
        || match value.get_ref() {
            DeValue::Array(items) => items.iter().any(|item| stands_at(item, span)),
            DeValue::Table(table) => {
                table.iter().any(|(key, value)| key.span() == *span || stands_at(value, span))
            }
            _ => false,
        }
}

/// What serde's derived code says, as far as it has a known form.
#[derive(Debug, PartialEq, Eq)]
enum SerdeMessage<'m> {
    UnknownField(Vec<&'m str>),
    UnknownVariant { written: &'m str, known: Vec<&'m str> },
    MissingField(&'m str),
    Expected(&'m str),
    Other(&'m str),
}

impl<'m> SerdeMessage<'m> {
    fn of(message: &'m str) -> Self {
        let mut quoted = message.split('`').skip(1).step_by(2);
        if message.starts_with("unknown field `") {
            return Self::UnknownField(quoted.skip(1).collect());
        }
        if message.starts_with("unknown variant `") {
            let written = quoted.next().unwrap_or_default();
            return Self::UnknownVariant { written, known: quoted.collect() };
        }
        if message.starts_with("missing field `") {
            return Self::MissingField(quoted.next().unwrap_or_default());
        }
        let is_mismatch = ["invalid type: ", "invalid value: ", "invalid length "]
            .iter()
            .any(|start| message.starts_with(start));
        match message.rsplit_once(", expected ") {
            Some((_, expected)) if is_mismatch => Self::Expected(expected),
            _ => Self::Other(message),
        }
    }
}

/// serde's words for a type in words for people.
fn described(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number, 0 to 255",
        "u16" => "a whole number, 0 to 65535",
        "u32" => "a whole number, 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" => "a string, in quotes",
        "a sequence" => "a list: `[…]`",
        expected if expected.starts_with("struct ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::secret::Secret;

    use super::super::reader::Document;
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        stream: String,
        #[serde(default)]
        start: Start,
        #[serde(default)]
        port: u16,
        #[serde(default)]
        inner: Inner,
        token: Option<Secret>,
        #[serde(default)]
        ports: Vec<u16>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Start {
        #[default]
        TrimHorizon,
        Latest,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        enabled: bool,
        ratio: f64,
    }

    fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<String>) {
        let variables = |name: &str| (name == "TOKEN").then(|| "hunter2".to_owned());
        let table = DeTable::parse(text).unwrap().into_inner();
        let resolved = RefCell::default();
        let document = Document { text, variables: &variables, resolved: &resolved };
        let mut root = TableReader::root(document, table);
        let mut table = root.table("t").unwrap();
        let settings = table.component::<T>();
        let mut faults = table.finish();
        faults.sort_by_key(|fault| fault.span.start);
        (settings, faults.into_iter().map(|fault| fault.message).collect())
    }

    fn check(body: &str, expected: &[&str]) {
        check_as::<Settings>(body, expected);
    }

    fn check_as<T: DeserializeOwned>(body: &str, expected: &[&str]) {
        let (settings, faults) = read::<T>(&format!("[t]\n{body}"));
        assert_eq!(faults, expected, "{body}");
        assert_eq!(settings.is_some(), expected.is_empty(), "{body}");
    }

    #[test]
    fn settings_are_read() {
        let text =
            "[t]\nstream = 's'\nstart = 'latest'\ntoken = { env = 'TOKEN' }\ninner.ratio = 0.5";
        let (settings, faults) = read::<Settings>(text);
        assert_eq!(faults, [""; 0]);
        let settings = settings.unwrap();
        assert_eq!(settings.token, Some(Secret::new("hunter2".to_owned())));
        assert!(matches!(settings.start, Start::Latest));
        assert!(settings.inner.ratio > 0.4 && !settings.inner.enabled);
        assert_eq!((settings.stream.as_str(), settings.port, settings.ports.len()), ("s", 0, 0));
    }

    #[test]
    fn all_faults_of_a_table_are_found() {
        check(
            "stream = 5\nstrat = 'latest'\nstart = 'lates'\nport = 70000\ninner = { enabeld = true, ratio = 'x' }",
            &[
                "field `t.stream` is `5`; it must be a string, in quotes",
                "unknown key `strat` in `[t]`; did you mean `start`?",
                "field `t.start` is `lates`; it must be one of `trim_horizon`, `latest`; did you mean `latest`?",
                "field `t.port` is `70000`; it must be a whole number, 0 to 65535",
                "unknown key `enabeld` in `[t.inner]`; did you mean `enabled`?",
                "field `t.inner.ratio` is `x`; it must be a number",
            ],
        );
        check("", &["`[t]` has no `stream`; add it"]);
        check(
            "[t.inner]\nzzz = 1\n",
            &[
                "`[t]` has no `stream`; add it",
                "unknown key `zzz` in `[t.inner]`; it has `enabled`, `ratio`",
            ],
        );
        check(
            "stream = 's'\nports = [1, 'x']\ninner = 5",
            &[
                "field `t.ports` is `[1, 'x']`; it must be a whole number, 0 to 65535",
                "field `t.inner` is `5`; it must be a table",
            ],
        );
    }

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Written")]
    struct Checked;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        low: Option<u8>,
        high: Option<u8>,
        name: Option<String>,
        names: Option<BTreeMap<String, String>>,
    }

    impl TryFrom<Written> for Checked {
        type Error = String;

        fn try_from(written: Written) -> Result<Self, String> {
            if written.name.as_deref() == Some("hunter2") {
                return Err("`name` is `hunter2`; write another".to_owned());
            }
            if written.names.is_some_and(|names| names.is_empty()) {
                return Err("`names` is empty; add one to it".to_owned());
            }
            match (written.low, written.high) {
                (Some(0), _) => Err("`low` is `0`; it must be 1 to 9".to_owned()),
                (_, Some(10..)) => Err("`high` is too high; it must be 1 to 9".to_owned()),
                (None, None) => Err("it needs `low` or `high`".to_owned()),
                _ => Ok(Self),
            }
        }
    }

    #[test]
    fn checks_of_whole_tables_are_placed_by_the_name_they_begin_with() {
        check_as::<Checked>("low = 1", &[]);
        check_as::<Checked>("", &["`[t]`: it needs `low` or `high`"]);
        check_as::<Checked>(
            "low = 0\nhigh = 10\nname = { env = 'TOKEN' }",
            &[
                "field `t.low` is `0`; it must be 1 to 9",
                "field `t.high` is too high; it must be 1 to 9",
                "field `t.name` is the content of environment variable `TOKEN`, which does not fit",
            ],
        );
    }

    #[test]
    fn what_follows_from_an_absent_variable_is_not_told_again() {
        let unset = |path: &str| {
            format!(
                "field `t.{path}` takes environment variable `OTHER`, which is not set; set it or write the value"
            )
        };
        check("stream = { env = 'OTHER' }", &[&unset("stream")]);
        check_as::<Checked>("low = 1\nnames = { a = { env = 'OTHER' } }", &[&unset("names.a")]);
        check_as::<Checked>("low = { env = 'OTHER' }", &[&unset("low")]);
        check_as::<Checked>(
            "low = 0\nnames = { a = { env = 'OTHER' } }",
            &["field `t.low` is `0`; it must be 1 to 9", &unset("names.a")],
        );
    }

    #[test]
    fn references_are_never_shown() {
        check(
            "stream = 's'\nport = { env = 'TOKEN' }\ntoken = { env = 'OTHER' }",
            &[
                "field `t.port` is the content of environment variable `TOKEN`; it must be a whole number, 0 to 65535",
                "field `t.token` takes environment variable `OTHER`, which is not set; set it or write the value",
            ],
        );
    }
}
