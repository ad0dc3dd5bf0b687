//! `init`: the documented configuration and the schema of configurations.

use std::path::Path;

use serde_json::{Value, json};

use flowgauge::config::{read, schema};
use flowgauge::units::{RateLimit, parse_duration, parse_size};

use crate::program::run;

/// The first thing that `value` does not keep of `rules`, a part of `root`. It knows the words that our
/// schema uses, and fails on any other.
fn schema_fault(root: &Value, rules: &Value, value: &Value) -> Option<String> {
    let rules = rules.as_object().expect("a schema is an object");
    rules.iter().find_map(|(word, rule)| match word.as_str() {
        "$schema" | "$defs" | "title" | "description" | "default" | "format" => None,
        "$ref" => {
            let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("within");
            schema_fault(root, root.pointer(pointer).expect("it is defined"), value)
        }
        "type" => {
            let is_right = match rule.as_str().expect("one type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other}"),
            };
            (!is_right).then(|| format!("{value} is no {rule}"))
        }
        "const" => (rule != value).then(|| format!("{value} is not {rule}")),
        "enum" => (!rule.as_array().expect("a list").contains(value))
            .then(|| format!("{value} is none of {rule}")),
        "minimum" => (value.as_i64()? < rule.as_i64()?).then(|| format!("{value} < {rule}")),
        "maximum" => (value.as_i64()? > rule.as_i64()?).then(|| format!("{value} > {rule}")),
        "pattern" => {
            let (pattern, text) = (rule.as_str().expect("text"), value.as_str()?);
            (!matches_pattern(pattern, text)).then(|| format!("{value} is not like {rule}"))
        }
        "required" => rule.as_array().expect("a list").iter().find_map(|key| {
            value.get(key.as_str()?).is_none().then(|| format!("there is no {key}"))
        }),
        "properties" => rule.as_object().expect("properties").iter().find_map(|(key, rules)| {
            Some(format!("{key}: {}", schema_fault(root, rules, value.get(key)?)?))
        }),
        "additionalProperties" => {
            let known = rules.get("properties");
            let is_known = |key: &str| known.is_some_and(|known| known.get(key).is_some());
            value.as_object()?.iter().filter(|(key, _)| !is_known(key)).find_map(|(key, value)| {
                if *rule == json!(false) {
                    return Some(format!("unknown {key}"));
                }
                Some(format!("{key}: {}", schema_fault(root, rule, value)?))
            })
        }
        "propertyNames" => {
            value.as_object()?.keys().find_map(|key| schema_fault(root, rule, &json!(key)))
        }
        "items" => value.as_array()?.iter().find_map(|item| schema_fault(root, rule, item)),
        "anyOf" | "oneOf" => {
            let rules = rule.as_array().expect("a list");
            let faults: Vec<_> =
                rules.iter().filter_map(|rules| schema_fault(root, rules, value)).collect();
            let kept_count = rules.len() - faults.len();
            let is_kept = if word == "oneOf" { kept_count == 1 } else { kept_count > 0 };
            (!is_kept).then(|| format!("{kept_count} of {}: {}", rules.len(), faults.join("; ")))
        }
        other => panic!("the schema says {other}, which this check does not know"),
    })
}

/// Whether the text is like one of the schema's patterns, which are what the units' own readers take.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[0-9]+ ?(ms|s|m|h)?$" => parse_duration(text).is_some(),
        "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?$" => parse_size(text).is_some(),
        "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)/s$" => RateLimit::from_text(text).is_some(),
        "^[a-z0-9_-]+$" => {
            !text.is_empty()
                && text.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
                })
        }
        other => panic!("pattern {other}"),
    }
}

/// What the schema says of a configuration.
pub(crate) fn fault_by_schema(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().expect("the text is TOML");
    let schema = schema();
    schema_fault(&schema, &schema, &serde_json::to_value(table).expect("TOML is JSON"))
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_init_prints_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowgauge.toml");
    let printed = stdout(&["init"]);
    stdout(&["init", "--output", path_text(&file)]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
    let said = stdout(&["validate", "-c", path_text(&file)]);
    assert!(said.contains(": ok\n") && said.contains("source demo: generated records"), "{said}");
    // The demo has no end; with one, it runs as the file says.
    let bounded =
        printed.replace("#records = 0", "records = 20000").replace("#speed = 60", "speed = 0");
    std::fs::write(&file, bounded).unwrap();
    let summary = stdout(&["run", "-c", path_text(&file), "--output", "json"]);
    let summary: Value = serde_json::from_str(summary.lines().last().unwrap()).unwrap();
    assert_eq!(summary["records"]["total"], 20_000);
}

#[cfg(unix)]
#[test]
fn a_file_is_never_overwritten_unasked_and_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowgauge.toml");
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    stdout(&["init", "-o", path_text(&file)]);
    assert_eq!(mode(), 0o600);
    std::fs::write(&file, "mine").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(&["init", "-o", path_text(&file)]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("exists; name another file, or replace it with `--force`"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    stdout(&["init", "-o", path_text(&file), "--force"]);
    assert_eq!((std::fs::read_to_string(&file).unwrap(), mode()), (stdout(&["init"]), 0o600));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
    let nowhere = run(&["init", "-o", path_text(&folder.path().join("no/f.toml"))]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert_eq!(run(&["init", "--force"]).status.code(), Some(2));
}

#[test]
fn the_schema_is_printed() {
    let printed: Value = serde_json::from_str(&stdout(&["init", "--schema"])).unwrap();
    assert_eq!(printed, schema());
    assert_eq!(printed["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn what_the_schema_refuses_the_program_refuses() {
    for (part, fault) in [
        ("[engine]\nthreads = 2000", "engine: threads: 2000 > 1024"),
        ("[engine]\nlatenes = '5m'", "engine: unknown latenes"),
        ("[engine]\npane = 0", "0 < 1"),
        ("[engine]\npane = 'long'", "\"long\" is not like"),
        ("[engine.checkpoint]\ninterval = true", "true is no \"integer\""),
        ("[serve]\nlisten = 'x'", "unknown serve"),
        ("[sources.A]\ntype = 'stdin'", "\"A\" is not like"),
        ("[sources.a]\ntype = 'file'", "there is no \"paths\""),
        ("[sources.a]\ntype = 'demo'\nattacks = { flood = 1 }", "unknown flood"),
        ("[sources.a]\ntype = 'stdin'\nrate_limit = 'fast'", "\"fast\" is not like"),
        ("[sinks.a]\ntype = 'stdout'\ninputs = ['traces']", "\"traces\" is none of"),
        ("[sinks.a]\ntype = 'file'\npath = { emv = 'X' }", "unknown emv"),
        ("[log]\nlevel = 'loud'", "\"loud\" is none of"),
        ("[detectors.port_scan]\nports_min = 1", "ports_min: 1 < 2"),
        ("[detectors.rdp_bruteforce]\nports = [70000]", "70000 > 65535"),
    ] {
        let text = format!("{part}\n[sources.complete]\ntype = 'demo'\n");
        let found =
            fault_by_schema(&text).unwrap_or_else(|| panic!("{text} is well by the schema"));
        assert!(found.contains(fault), "{text}: {found}");
        assert!(read("f", &text, &|_| None).into_plan().is_err(), "{text} is well by the program");
    }
}
