//! Takes values out of a parsed TOML table and collects what is wrong with them.
//!
//! Every accessor gives a usable value even where the written one is faulty, so that one pass finds
//! all faults of a file; the caller must not use the result if there were any. A key that no
//! accessor asked for is a fault: [`TableReader::finish`] reports it.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::Secret;
use crate::units::{
    DURATION_FORMS, RATE_FORMS, RateLimit, SIZE_FORMS, duration_text, parse_duration, parse_size,
    size_text,
};

use super::engine::Limits;
use super::fault::{SpannedFault, SpannedFaultKind};
use super::suggest::nearest;

/// Looks up an environment variable.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The word for what the engine finds out by itself.
const AUTO: &str = "auto";

/// What a duration of event time may look like.
const SECONDS_FORMS: &str = "whole seconds, or a whole number with `s`, `m` or `h`";

/// Most bytes that `{ file = "…" }` reads: a secret or a name, never a data file.
const REFERENCED_FILE_MAX_BYTES: u64 = 64 << 10;

/// Longest piece of a value that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// What all tables of one file share.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    /// The text of the file.
    pub(super) text: &'a str,
    /// Where `{ env = "NAME" }` looks.
    pub(super) variables: &'a Variables<'a>,
    /// What was taken from elsewhere so far.
    pub(super) resolved: &'a RefCell<Vec<ResolvedReference>>,
}

/// A text that stands elsewhere and was taken from there.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ResolvedReference {
    pub(super) content: Secret,
    /// As the file writes it: `{ env = "NAME" }`.
    pub(super) written: String,
}

impl Document<'_> {
    /// The content of a reference, which is noted.
    pub(super) fn take_reference(&self, reference: &Reference<'_>) -> Result<String, String> {
        let content = reference.content(self.variables)?;
        let written = match reference {
            Reference::Variable(name) => format!("{{ env = \"{name}\" }}"),
            Reference::File(path) => format!("{{ file = \"{path}\" }}"),
        };
        let content_noted = Secret::new(content.clone());
        self.resolved.borrow_mut().push(ResolvedReference { content: content_noted, written });
        Ok(content)
    }
}

/// A text from the file, an environment variable or a file.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// The content.
    pub(super) content: String,
    /// Where the key or the list item stands.
    pub(super) span: Range<usize>,
    /// How messages name it, in backticks where that needs them; never the content of a reference.
    pub(super) shown: String,
}

/// One table while it is read.
pub(super) struct TableReader<'a> {
    pub(super) document: Document<'a>,
    /// `engine`, `sources.prod`; empty for the root.
    pub(super) path: String,
    /// Where its header or key stands.
    pub(super) span: Range<usize>,
    /// What has not been asked for yet.
    pub(super) table: DeTable<'a>,
    /// The keys that were asked for.
    pub(super) known: Vec<&'static str>,
    pub(super) faults: Vec<SpannedFault>,
}

/// A key's place and its value.
type Entry<'a> = (Range<usize>, Spanned<DeValue<'a>>);

impl<'a> TableReader<'a> {
    /// A reader for the root of a document.
    pub(super) fn root(document: Document<'a>, table: DeTable<'a>) -> Self {
        let faults = Vec::new();
        Self { document, path: String::new(), span: 0..0, table, known: Vec::new(), faults }
    }

    /// Takes the sub-table `key`; `None` if there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Option<TableReader<'a>> {
        let (span, value) = self.take(key)?;
        self.sub_table(key, span, value)
    }

    /// Takes every sub-table of the table `key`, in the order of the file.
    pub(super) fn tables_of(&mut self, key: &'static str) -> Vec<(String, TableReader<'a>)> {
        let Some(mut parent) = self.table(key) else { return Vec::new() };
        let mut entries: Vec<_> = std::mem::take(&mut parent.table).into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut tables = Vec::new();
        for (name, value) in entries {
            let span = name.span();
            let name = name.into_inner().into_owned();
            if let Some(table) = parent.sub_table(&name, span, value) {
                tables.push((name, table));
            }
        }
        self.absorb(parent);
        tables
    }

    fn sub_table(
        &mut self,
        key: &str,
        span: Range<usize>,
        value: Spanned<DeValue<'a>>,
    ) -> Option<TableReader<'a>> {
        let (path, shown) = (self.path_of(key), self.shown(&value));
        let DeValue::Table(table) = value.into_inner() else {
            self.wrong(span, format!("`{path}` is {shown}; it must be a table: `[{path}]`"));
            return None;
        };
        let (document, known, faults) = (self.document, Vec::new(), Vec::new());
        Some(TableReader { document, path, span, table, known, faults })
    }

    /// Takes a duration, held against `limits`.
    pub(super) fn duration(&mut self, key: &'static str, limits: &Limits<Duration>) -> Duration {
        self.quantity(key, limits, &DURATION, Absent::Default).unwrap_or(limits.default)
    }

    /// Takes a duration of event time, which has whole seconds, held against `limits`.
    pub(super) fn seconds(&mut self, key: &'static str, limits: &Limits<Duration>) -> Duration {
        self.quantity(key, limits, &SECONDS, Absent::Default).unwrap_or(limits.default)
    }

    /// Takes a duration of event time; `None` for `auto`.
    pub(super) fn seconds_or_auto(
        &mut self,
        key: &'static str,
        limits: &Limits<Duration>,
    ) -> Option<Duration> {
        self.quantity(key, limits, &SECONDS, Absent::Auto)
    }

    /// Takes a number of bytes, held against `limits`.
    pub(super) fn size(&mut self, key: &'static str, limits: &Limits<u64>) -> u64 {
        self.quantity(key, limits, &SIZE, Absent::Default).unwrap_or(limits.default)
    }

    /// Takes a number of bytes; `None` for `auto`.
    pub(super) fn size_or_auto(&mut self, key: &'static str, limits: &Limits<u64>) -> Option<u64> {
        self.quantity(key, limits, &SIZE, Absent::Auto)
    }

    /// Takes a whole number, held against `limits`.
    pub(super) fn count(&mut self, key: &'static str, limits: &Limits<u64>) -> u64 {
        self.quantity(key, limits, &COUNT, Absent::Default).unwrap_or(limits.default)
    }

    /// Takes a quantity; `None` stands for what holds without it.
    fn quantity<T: Copy + PartialOrd>(
        &mut self,
        key: &'static str,
        limits: &Limits<T>,
        form: &Form<T>,
        absent: Absent,
    ) -> Option<T> {
        let (span, value) = self.take(key)?;
        if absent == Absent::Auto && value.get_ref().as_str() == Some(AUTO) {
            return None;
        }
        let read = (form.read)(value.get_ref());
        if let Some(quantity) = read
            && limits.min <= quantity
            && quantity <= limits.max
        {
            return Some(quantity);
        }
        let words = if read.is_none() { form.words } else { &[] };
        let words = words.concat();
        let (path, shown) = (self.path_of(key), self.shown(&value));
        let [min, max, default] = [limits.min, limits.max, limits.default].map(form.show);
        let (or, default) = match absent {
            Absent::Default => ("", default.as_str()),
            Absent::Auto => ("`auto`, or ", AUTO),
        };
        self.wrong(
            span,
            format!(
                "field `{path}` is {shown}; it must be {or}{min} to {max}{words}; remove the line to use {default}"
            ),
        );
        None
    }

    /// Takes one of some words, which mean what stands beside them.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let written = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == written.content);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let (path, shown) = (self.path_of(key), written.shown);
            let hint = nearest(&written.content, names.iter().copied())
                .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            let all = listed(&names);
            self.wrong(
                written.span,
                format!("field `{path}` is {shown}; it must be one of {all}{hint}"),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Takes a rate; `None` is no limit.
    pub(super) fn rate(&mut self, key: &'static str) -> Option<RateLimit> {
        let written = self.text(key)?;
        let rate = RateLimit::from_text(&written.content);
        if rate.is_none() {
            let (path, shown) = (self.path_of(key), written.shown);
            self.wrong(
                written.span,
                format!(
                    "field `{path}` is {shown}; it must be {RATE_FORMS}; remove the line for no limit"
                ),
            );
        }
        rate
    }

    /// Where a key stands that nobody has taken yet; the table's place if it is absent.
    #[cfg(feature = "firehose")]
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Text> {
        let (span, value) = self.take(key)?;
        match self.resolve(&value) {
            Ok((content, shown)) => Some(Text { content, span, shown }),
            Err(message) => {
                let path = self.path_of(key);
                self.wrong(span, format!("field `{path}` {message}"));
                None
            }
        }
    }

    /// Takes a text that must be there; `what` says what to write.
    pub(super) fn required_text(&mut self, key: &'static str, what: &str) -> Option<Text> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.missing(format!("`[{}]` has no `{key}`; {what}", self.path));
            return None;
        }
        self.text(key)
    }

    /// Takes a list of texts, `None` if the key is absent.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Text>> {
        let (span, value) = self.take(key)?;
        let path = self.path_of(key);
        let DeValue::Array(items) = value.get_ref() else {
            let shown = self.shown(&value);
            self.wrong(span, format!("field `{path}` is {shown}; it must be a list: `[\"…\"]`"));
            return Some(Vec::new());
        };
        let mut texts = Vec::new();
        for item in items {
            match self.resolve(item) {
                Ok((content, shown)) => texts.push(Text { content, span: item.span(), shown }),
                Err(message) => self.wrong(item.span(), format!("an item of `{path}` {message}")),
            }
        }
        Some(texts)
    }

    /// The content of a text value or of what it refers to, and how messages name it.
    pub(super) fn resolve(&self, value: &Spanned<DeValue<'a>>) -> Result<(String, String), String> {
        match value.get_ref() {
            DeValue::String(text) => Ok((text.clone().into_owned(), self.shown(value))),
            DeValue::Table(table) => match Reference::of(table) {
                Some(reference) => {
                    let content = self.document.take_reference(&reference)?;
                    Ok((content, reference.to_string()))
                }
                None => Err("has a table that is neither `{ env = \"NAME\" }` nor \
                             `{ file = \"PATH\" }`; write one of them, or a string"
                    .to_owned()),
            },
            _ => Err(format!("is {}; it must be a string, in quotes", self.shown(value))),
        }
    }

    /// Reports every key that no accessor asked for and gives the faults.
    pub(super) fn finish(mut self) -> Vec<SpannedFault> {
        for (key, _) in std::mem::take(&mut self.table) {
            let message = unknown_key(key.get_ref(), &self.path, &self.known);
            self.wrong(key.span(), message);
        }
        self.faults
    }

    /// Takes over what `child` found.
    pub(super) fn absorb(&mut self, child: TableReader<'a>) {
        self.faults.extend(child.finish());
    }

    /// Takes over what `child` found, leaving keys alone whose meaning is unclear.
    pub(super) fn absorb_unfinished(&mut self, child: TableReader<'a>) {
        self.faults.extend(child.faults);
    }

    /// Notes something that is written and wrong.
    pub(super) fn wrong(&mut self, span: Range<usize>, message: String) {
        self.faults.push(SpannedFault { span, message, kind: SpannedFaultKind::Wrong });
    }

    /// Notes something that this table lacks.
    pub(super) fn missing(&mut self, message: String) {
        let span = self.span.clone();
        self.faults.push(SpannedFault { span, message, kind: SpannedFaultKind::Missing });
    }

    /// The dotted path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// The value as the file writes it, shortened, in backticks.
    pub(super) fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        let written = match value.get_ref() {
            DeValue::String(text) => text,
            _ => &self.document.text[value.span()],
        };
        shortened(written)
    }

    fn take(&mut self, key: &'static str) -> Option<Entry<'a>> {
        self.known.push(key);
        let (key, value) = self.table.remove_entry(key)?;
        Some((key.span(), value))
    }
}

/// The first line of `text`, cut if long, in backticks.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.trim_end().len() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// What holds without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// The default of its limits.
    Default,
    /// The same as the word `auto`.
    Auto,
}

/// How a quantity is read and written.
struct Form<T> {
    read: fn(&DeValue<'_>) -> Option<T>,
    show: fn(T) -> String,
    /// What follows the range where the form itself is wrong, in pieces.
    words: &'static [&'static str],
}

const DURATION: Form<Duration> =
    Form { read: duration_value, show: duration_text, words: &[", as ", DURATION_FORMS] };

const SECONDS: Form<Duration> = Form {
    read: |value| duration_value(value).filter(|duration| duration.subsec_nanos() == 0),
    show: duration_text,
    words: &[", as ", SECONDS_FORMS],
};

const SIZE: Form<u64> = Form {
    read: |value| match value {
        DeValue::String(text) => parse_size(text),
        other => whole_number(other),
    },
    show: size_text,
    words: &[", as ", SIZE_FORMS],
};

const COUNT: Form<u64> =
    Form { read: whole_number, show: |count| count.to_string(), words: &[", as a whole number"] };

fn duration_value(value: &DeValue<'_>) -> Option<Duration> {
    match value {
        DeValue::String(text) => parse_duration(text),
        other => whole_number(other).map(Duration::from_secs),
    }
}

/// A number without sign, fraction or exponent.
fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The message for a key that the table at `path` does not have.
pub(super) fn unknown_key(key: &str, path: &str, known: &[&str]) -> String {
    let (place, kind) = if path.is_empty() {
        ("the file".to_owned(), "table")
    } else {
        (format!("`[{path}]`"), "key")
    };
    let mut message = format!("unknown {kind} `{}` in {place}; ", key.escape_debug());
    match nearest(key, known.iter().copied()) {
        Some(meant) => write!(message, "did you mean `{meant}`?"),
        None if known.is_empty() => write!(message, "it takes none; remove it"),
        None => write!(message, "it has {}", listed(known)),
    }
    .expect("writing to a string cannot fail");
    message
}

/// The words in backticks, with commas between.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A value that stands elsewhere: `{ env = "NAME" }` or `{ file = "PATH" }`.
pub(super) enum Reference<'t> {
    Variable(&'t str),
    File(&'t str),
}

impl<'t> Reference<'t> {
    /// The reference that a table writes, if it is one.
    pub(super) fn of(table: &'t DeTable<'_>) -> Option<Self> {
        let mut entries = table.iter();
        let (key, value) = entries.next()?;
        let target = value.get_ref().as_str()?;
        match (&**key.get_ref(), entries.next()) {
            ("env", None) => Some(Self::Variable(target)),
            ("file", None) => Some(Self::File(target)),
            _ => None,
        }
    }

    /// What it refers to; a line end at the end of a file is not part of it.
    pub(super) fn content(&self, variables: &Variables<'_>) -> Result<String, String> {
        match self {
            Self::Variable(name) => variables(name).ok_or_else(|| {
                format!("takes environment variable `{name}`, which is not set; set it or write the value")
            }),
            Self::File(path) => read_referenced(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("takes file `{path}`, which cannot be read: {error}")),
        }
    }
}

impl std::fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the content of environment variable `{name}`"),
            Self::File(path) => write!(f, "the content of file `{path}`"),
        }
    }
}

fn read_referenced(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(REFERENCED_FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > REFERENCED_FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "it is longer than {REFERENCED_FILE_MAX_BYTES} bytes"
        )));
    }
    Ok(text)
}
