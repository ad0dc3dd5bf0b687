//! The JSON schema of a configuration, for editors and for checks outside: from the table of keys, with
//! descriptions and defaults from the default file.
//!
//! It says which keys there are and of which type and form their values are; ranges of texts with units
//! stand in the descriptions, and the program's own check (`validate`) knows more.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::DEFAULT_CONFIG;
use super::keys::{Key, Kind, Presence, ROOT, Table};
use crate::finding::FindingKind;

const DURATION_PATTERN: &str = "^[0-9]+ ?(ms|s|m|h)?$";
const SIZE_PATTERN: &str = "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?$";
const RATE_PATTERN: &str = "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)/s$";
const NAME_PATTERN: &str = "^[a-z0-9_-]+$";

/// The schema, in the form of JSON Schema 2020-12.
#[must_use]
pub fn schema() -> Value {
    let documentation = Documentation::of(DEFAULT_CONFIG);
    let mut schema = table_schema(&ROOT, &documentation);
    let entries = schema.as_object_mut().expect("a table's schema is an object");
    entries.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    entries.insert("title".into(), json!("flowgauge configuration"));
    let one = |key: &str, of: &str| {
        json!({
            "type": "object",
            "properties": { key: { "type": "string", "description": of } },
            "required": [key],
            "additionalProperties": false,
        })
    };
    let reference = json!({
        "description": "a text that stands elsewhere",
        "anyOf": [one("env", "name of an environment variable"), one("file", "path of a file")],
    });
    entries.insert("$defs".into(), json!({ "reference": reference }));
    schema
}

/// What the default file says of a key, and its default there.
pub(super) fn documented(table: &Table, name: &'static str) -> Option<(String, Option<Value>)> {
    let documentation = Documentation::of(DEFAULT_CONFIG);
    let shown =
        documentation.key(table.shown, name).or_else(|| documentation.key(table.like, name))?;
    let alike = documentation.key(table.like, name).map_or("", |text| text.description.as_str());
    let described = [shown.description.as_str(), alike].into_iter().find(|text| !text.is_empty());
    Some((described.unwrap_or_default().to_owned(), shown.default.clone()))
}

fn table_schema(table: &Table, documentation: &Documentation) -> Value {
    let properties: Map<String, Value> = table
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), key_schema(table, key, documentation)))
        .collect();
    let is_required = |key: &&Key| key.presence == Presence::Required;
    let required: Vec<&str> = table.keys.iter().filter(is_required).map(|key| key.name).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !table.one_of.is_empty() {
        let alternatives: Vec<Value> =
            table.one_of.iter().map(|name| json!({ "required": [name] })).collect();
        schema["oneOf"] = json!(alternatives);
    }
    if let Some(text) = documentation.tables.get(table.shown) {
        schema["description"] = json!(text);
    }
    schema
}

fn key_schema(table: &Table, key: &Key, documentation: &Documentation) -> Value {
    let mut schema = value_schema(&key.kind, documentation);
    let shown = documentation.key(table.shown, key.name);
    let shown = shown.or_else(|| documentation.key(table.like, key.name));
    if let Some(KeyText { description, default }) = shown {
        if !description.is_empty() {
            schema["description"] = json!(description);
        }
        if let Some(default) = default {
            schema["default"] = default.clone();
        }
    }
    schema
}

fn value_schema(kind: &Kind, documentation: &Documentation) -> Value {
    match kind {
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration(limits) => {
            let least = limits.min.as_millis().div_ceil(1_000);
            number_or_text(
                u64::try_from(least).unwrap_or(u64::MAX),
                limits.max.as_secs(),
                DURATION_PATTERN,
            )
        }
        Kind::Size(limits) => number_or_text(limits.min, limits.max, SIZE_PATTERN),
        Kind::DurationText => {
            or_reference(&json!({ "type": "string", "pattern": DURATION_PATTERN }))
        }
        Kind::SizeText => or_reference(&json!({ "type": "string", "pattern": SIZE_PATTERN })),
        Kind::Rate => or_reference(&json!({ "type": "string", "pattern": RATE_PATTERN })),
        Kind::Auto(inner) => {
            json!({ "anyOf": [{ "const": "auto" }, value_schema(inner, documentation)] })
        }
        Kind::Text => or_reference(&json!({ "type": "string" })),
        Kind::Word(words) => or_reference(&json!({ "enum": words() })),
        Kind::List(item) => json!({ "type": "array", "items": value_schema(item, documentation) }),
        Kind::Counts(words) => {
            let count = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
            let properties: Map<String, Value> =
                words().into_iter().map(|word| (word.to_owned(), count.clone())).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        Kind::Start => {
            let moment = json!({
                "type": "object",
                "properties": { "at_timestamp": { "type": "string", "format": "date-time" } },
                "required": ["at_timestamp"],
                "additionalProperties": false,
            });
            or_reference(&json!({ "anyOf": [{ "enum": ["trim_horizon", "latest"] }, moment] }))
        }
        Kind::Moment => or_reference(&json!({ "type": "string", "format": "date-time" })),
        Kind::Secrets => {
            let text = or_reference(&json!({ "type": "string" }));
            json!({ "anyOf": [text, { "type": "object", "additionalProperties": text }] })
        }
        Kind::Table(table) => table_schema(table, documentation),
        Kind::Kinds(table) => {
            let schema = table_schema(table, documentation);
            let properties: Map<String, Value> = FindingKind::ALL
                .iter()
                .map(|kind| (kind.name().to_owned(), schema.clone()))
                .collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        Kind::Named(table) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME_PATTERN },
            "additionalProperties": table_schema(table, documentation),
        }),
        Kind::Components(components) => {
            let alternatives: Vec<Value> = components
                .iter()
                .map(|(name, table)| component_schema(name, table, documentation))
                .collect();
            json!({
                "type": "object",
                "propertyNames": { "pattern": NAME_PATTERN },
                "additionalProperties": { "anyOf": alternatives },
            })
        }
    }
}

/// The schema of a component, whose key `type` is `name`.
fn component_schema(name: &str, table: &Table, documentation: &Documentation) -> Value {
    let mut schema = table_schema(table, documentation);
    schema["properties"]["type"] = json!({ "const": name });
    let mut required = vec![json!("type")];
    required.extend(schema["required"].as_array().cloned().unwrap_or_default());
    schema["required"] = json!(required);
    schema
}

fn number_or_text(min: u64, max: u64, pattern: &str) -> Value {
    json!({ "anyOf": [
        { "type": "integer", "minimum": min, "maximum": max },
        { "type": "string", "pattern": pattern },
    ] })
}

fn or_reference(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/reference" }] })
}

/// What the default file says of tables and keys.
#[derive(Debug, Default)]
struct Documentation {
    /// Descriptions by path.
    tables: HashMap<&'static str, String>,
    /// By path of the table and name.
    keys: HashMap<(&'static str, &'static str), KeyText>,
}

/// What the default file says of a key.
#[derive(Debug, PartialEq)]
struct KeyText {
    /// The comment above it.
    description: String,
    /// The value, if the file shows it as the default and not as an example.
    default: Option<Value>,
}

impl Documentation {
    fn of(text: &'static str) -> Self {
        let mut documentation = Self::default();
        let mut table = "";
        let mut comment: Vec<&str> = Vec::new();
        for line in text.lines() {
            let content = line.trim_start_matches(['#', ' ']);
            if let Some(path) = header(content) {
                table = path;
                documentation.tables.insert(path, comment.join(" "));
                comment.clear();
            } else if let Some((name, value)) = setting(content) {
                // `#key` is the default; `key` and `# key` are examples, or say which type is shown.
                let is_default = line.starts_with('#') && content.len() + 1 == line.len();
                let text = KeyText {
                    description: comment.join(" "),
                    default: is_default.then(|| json_value(value)).flatten(),
                };
                documentation.keys.insert((table, name), text);
                comment.clear();
            } else if content.is_empty() {
                comment.clear();
            } else {
                comment.push(content);
            }
        }
        documentation
    }

    fn key(&self, table: &'static str, name: &'static str) -> Option<&KeyText> {
        self.keys.get(&(table, name))
    }
}

fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

/// The key and value of a line that sets a key.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_name && !name.is_empty()).then_some((name, value))
}

fn json_value(toml_text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {toml_text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pointer: &str, expected: &Value) {
        assert_eq!(schema().pointer(pointer), Some(expected), "{pointer}");
    }

    #[test]
    fn descriptions_and_defaults_come_from_the_default_file() {
        let engine = "/properties/engine/properties";
        check(&format!("{engine}/pane/default"), &json!("60s"));
        check(&format!("{engine}/queue_depth/maximum"), &json!(1024));
        check(
            &format!("{engine}/pane/description"),
            &json!("The step in which detection windows slide. 1s to 1h."),
        );
        check(&format!("{engine}/memory_max/anyOf/0"), &json!({ "const": "auto" }));
        check(&format!("{engine}/checkpoint/description"), &json!("When the state is saved."));
        let detectors = "/properties/detectors/properties";
        check(&format!("{detectors}/rdp_bruteforce/properties/sessions_min/default"), &json!(8));
        check(&format!("{detectors}/port_scan/properties/enabled/default"), &json!(true));
    }

    #[test]
    fn examples_are_no_defaults() {
        for (key, default) in [("state_dir", None), ("threads", Some(json!(0)))] {
            let pointer = format!("/properties/engine/properties/{key}/default");
            assert_eq!(schema().pointer(&pointer).cloned(), default, "{key}");
        }
    }
}
