//! One line of the log, as text for people or as a JSON object.
//!
//! Whatever an event carries stays within its line: characters that would end the line or drive a
//! terminal are escaped, so that a record or a file name can't forge log lines.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Level;
use tracing::field::{Field, Visit};

use crate::config::LogFormat;

/// The name of an event's own text among its fields.
const MESSAGE: &str = "message";

/// Names that every JSON line has; a field of such a name gets an underscore.
const OWN_NAMES: [&str; 3] = ["timestamp", "level", MESSAGE];

/// What an event says: its text and its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// What happened.
    pub(crate) message: String,
    /// What it happened to, in the order of the event.
    pub(crate) fields: Vec<(&'static str, Value)>,
}

impl Content {
    /// A text without fields yet.
    pub(crate) fn new(message: &str) -> Self {
        Self { message: message.to_owned(), fields: Vec::new() }
    }

    /// With one more field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The content of an event.
    pub(crate) fn of(event: &tracing::Event<'_>) -> Self {
        let mut content = Self::default();
        event.record(&mut content);
        content
    }
}

impl Visit for Content {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), value.into()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("writing to a string cannot fail");
            cause = error.source();
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) format: LogFormat,
    /// Whether the level has a colour in text.
    pub(crate) is_coloured: bool,
}

/// Writes a line with its end. `unix_ms` is the moment in Unix milliseconds.
pub(crate) fn line(look: Look, unix_ms: i64, level: Level, content: &Content) -> String {
    match look.format {
        LogFormat::Text => text_line(look.is_coloured, unix_ms, level, content),
        LogFormat::Json => json_line(unix_ms, level, content),
    }
}

/// RFC 3339 in UTC with milliseconds; a moment beyond the calendar is held at its end.
fn timestamp(unix_ms: i64) -> String {
    let held = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::MAX);
    held.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn json_line(unix_ms: i64, level: Level, content: &Content) -> String {
    let message = json_text(&Value::from(content.message.as_str()));
    let moment = timestamp(unix_ms);
    let mut line = format!(r#"{{"timestamp":"{moment}","level":"{level}","message":{message}"#);
    for (name, value) in &content.fields {
        let mark = if OWN_NAMES.contains(name) { "_" } else { "" };
        let value = json_text(value);
        write!(line, ",\"{name}{mark}\":{value}").expect("writing to a string cannot fail");
    }
    line.push_str("}\n");
    line
}

/// A value as JSON; characters that JSON would let through to a terminal are escaped too. They stand
/// in strings alone.
fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(is_harmful) {
        return text;
    }
    let mut escaped = String::new();
    for character in text.chars() {
        if is_harmful(character) {
            write!(escaped, "\\u{:04x}", u32::from(character))
                .expect("writing to a string cannot fail");
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn text_line(is_coloured: bool, unix_ms: i64, level: Level, content: &Content) -> String {
    let (colour, reset) = match (is_coloured, level) {
        (false, _) => ("", ""),
        (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
        (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
        (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
        (true, _) => ("\x1b[2m", "\x1b[0m"),
    };
    let mut line = format!("{} {colour}{level:>5}{reset} ", timestamp(unix_ms));
    escape_into(&mut line, &content.message);
    for (name, value) in &content.fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        match value {
            Value::String(text) if is_bare(text) => line.push_str(text),
            Value::String(text) => {
                line.push('"');
                escape_into(&mut line, &text.replace('\\', "\\\\").replace('"', "\\\""));
                line.push('"');
            }
            other => line.push_str(&other.to_string()),
        }
    }
    line.push('\n');
    line
}

/// Whether a value needs no quotes to be told from what follows it.
fn is_bare(text: &str) -> bool {
    let separates = |character: char| {
        character.is_whitespace() || is_harmful(character) || "\"=\\".contains(character)
    };
    !text.is_empty() && !text.contains(separates)
}

/// Characters that end lines, drive terminals or turn the direction of writing.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_into(line: &mut String, text: &str) {
    for character in text.chars() {
        if is_harmful(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const UNIX_MS: i64 = 1_767_225_600_250;

    fn check(format: LogFormat, content: &Content, expected: &str) {
        let look = Look { format, is_coloured: false };
        assert_eq!(line(look, UNIX_MS, Level::WARN, content), format!("{expected}\n"));
    }

    #[test]
    fn text_has_the_time_the_level_the_message_and_the_fields() {
        let content = Content::new("input ended").with("input", "a/b.log").with("lines", 7_u64);
        check(
            LogFormat::Text,
            &content,
            "2026-01-01T00:00:00.250Z  WARN input ended input=a/b.log lines=7",
        );
        let odd =
            Content::new("two\nlines\x1b[31m").with("name", "a b").with("x", "c=\"\\\r\u{202e}");
        check(
            LogFormat::Text,
            &odd,
            r#"2026-01-01T00:00:00.250Z  WARN two\nlines\u{1b}[31m name="a b" x="c=\"\\\r\u{202e}""#,
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let content = Content::new("input \"ended\"\n")
            .with("input", "a b")
            .with("share", 0.5)
            .with("ok", true)
            .with("level", -1_i64);
        check(
            LogFormat::Json,
            &content,
            r#"{"timestamp":"2026-01-01T00:00:00.250Z","level":"WARN","message":"input \"ended\"\n","input":"a b","share":0.5,"ok":true,"level_":-1}"#,
        );
    }

    proptest! {
        #[test]
        fn nothing_that_is_logged_breaks_its_line(message in ".{0,20}", value in "(?s).{0,20}") {
            let content = Content::new(&message).with("field", value.as_str());
            for format in [LogFormat::Text, LogFormat::Json] {
                let look = Look { format, is_coloured: false };
                let line = line(look, UNIX_MS, Level::INFO, &content);
                let body = line.strip_suffix('\n').unwrap();
                prop_assert!(!body.contains(char::is_control), "{}", body);
            }
            let look = Look { format: LogFormat::Json, is_coloured: false };
            let read: Value = serde_json::from_str(&line(look, UNIX_MS, Level::INFO, &content)).unwrap();
            prop_assert_eq!(&read["message"], &json!(message));
            prop_assert_eq!(&read["field"], &json!(value));
        }
    }
}
