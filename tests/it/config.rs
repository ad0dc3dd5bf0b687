//! Configuration files as users write them: what the default says, and what each fault says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use flowgauge::config::{
    ConfigError, DEFAULT_CONFIG, EnginePlan, FileRole, Lateness, LogFormat, LogLevel, MemoryMax,
    Plan, SinkKind, SourceKind, read,
};
use flowgauge::units::RateLimit;

use crate::init::fault_by_schema;

/// Variables that the files below refer to.
fn variables(name: &str) -> Option<String> {
    match name {
        "LOG_FORMAT" => Some("srcaddr dstaddr".to_owned()),
        "PASSWORD" | "FIREHOSE_KEY" => Some("hunter2".to_owned()),
        _ => None,
    }
}

/// The plan of a configuration, which keeps the schema as well.
#[track_caller]
fn plan(text: &str) -> Plan {
    assert_eq!(fault_by_schema(text), None, "{text}");
    read("flowgauge.toml", text, &variables).into_plan().unwrap_or_else(|error| panic!("{error}"))
}

fn faults(text: &str) -> String {
    match read("flowgauge.toml", text, &variables).into_plan() {
        Ok(plan) => panic!("no fault in {text}: {plan:?}"),
        Err(ConfigError::Faults(faults)) => faults.to_string(),
        Err(other) => panic!("{other}"),
    }
}

/// The messages for `text`, without the file's name.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = faults(text);
    let found: Vec<&str> = found
        .lines()
        .map(|line| line.strip_prefix("flowgauge.toml:").expect("messages start with the file"))
        .collect();
    assert_eq!(found, expected, "{text}");
}

/// The messages for `text` in a file that is otherwise complete. `text` starts in line 1.
#[track_caller]
fn check_part(text: &str, expected: &[&str]) {
    check(&format!("{text}\n[sources.complete]\ntype = \"demo\"\n"), expected);
}

#[test]
fn the_default_file_says_what_runs_without_a_file() {
    assert_eq!(format!("{:?}", plan(DEFAULT_CONFIG)), format!("{:?}", Plan::demo()));
}

/// The default file with every key that it shows at its default made effective.
fn default_with_keys() -> String {
    DEFAULT_CONFIG
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if is_setting(key) => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_default_file_shows_each_key_with_its_default() {
    let shown = default_with_keys();
    assert!(shown.contains("\npane = "), "{shown}");
    assert_eq!(format!("{:?}", plan(&shown)), format!("{:?}", Plan::demo()));
}

#[cfg(all(feature = "kinesis", feature = "firehose"))]
#[test]
fn the_default_file_is_valid_with_all_its_examples() {
    let examples: Vec<&str> = DEFAULT_CONFIG
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example)
                if ["[s", "[noise.", "[talkers."]
                    .iter()
                    .any(|start| example.starts_with(start))
                    || is_setting(example) =>
            {
                example
            }
            _ => line,
        })
        .collect();
    let plan = plan(&examples.join("\n"));
    assert!(plan.sources.len() >= 4 && plan.sinks.len() >= 2, "{plan:?}");
}

/// Whether a line is `key = value`.
fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// The keys of the table that `text` opens, from what the message for an unknown one lists.
fn keys_of(text: &str) -> BTreeSet<String> {
    let found = faults(&format!("{text}\n\"?????????????\" = 1\n"));
    let line = found.lines().find(|line| line.contains("`?????????????`"));
    let line = line.unwrap_or_else(|| panic!("no unknown key in {found}"));
    let (_, listed) = line.split_once("; it has ").expect("the message lists the keys");
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The keys that the default file shows between `start` and the next table.
fn documented_keys(start: &str) -> BTreeSet<String> {
    let mut lines = DEFAULT_CONFIG.lines().map(|line| line.trim_start_matches(['#', ' ']));
    assert!(lines.any(|line| line == start), "the default file has no {start}");
    let section = lines.take_while(|line| !line.starts_with('['));
    section
        .filter(|line| is_setting(line))
        .map(|line| line.split_once(" = ").expect("a setting").0.to_owned())
        .collect()
}

/// The tables of `table` that the default file shows.
fn tables_below(table: &str) -> impl Iterator<Item = String> {
    let start = format!("[{table}.");
    DEFAULT_CONFIG
        .lines()
        .filter_map(move |line| Some(line.strip_prefix(&start)?.strip_suffix(']')?.to_owned()))
}

#[test]
fn every_key_stands_in_the_default_file() {
    for (table, start) in [
        ("[engine]", "[engine]"),
        ("[engine.checkpoint]", "[engine.checkpoint]"),
        ("[engine.journal]", "[engine.journal]"),
        ("[engine.dead_letters]", "[engine.dead_letters]"),
        ("[engine.shutdown]", "[engine.shutdown]"),
        ("[log]", "[log]"),
        ("[sources.x]\ntype = \"demo\"", "[sources.demo]"),
        ("[sources.x]\ntype = \"file\"\npaths = ['x']", "[sources.archive]"),
        #[cfg(feature = "kinesis")]
        ("[sources.x]\ntype = \"kinesis\"", "[sources.prod]"),
        #[cfg(feature = "firehose")]
        ("[sources.x]\ntype = \"firehose_http\"", "[sources.deliveries]"),
        ("[detectors.port_scan]", "[detectors.port_scan]"),
        ("[detectors.host_sweep]", "[detectors.host_sweep]"),
        ("[detectors.distributed_scan]", "[detectors.distributed_scan]"),
        ("[detectors.ssh_bruteforce]", "[detectors.ssh_bruteforce]"),
        ("[detectors.rdp_bruteforce]", "[detectors.rdp_bruteforce]"),
        ("[detectors.login_after_bruteforce]", "[detectors.login_after_bruteforce]"),
        ("[detectors.remote_access_attempt]", "[detectors.remote_access_attempt]"),
        ("[detectors.dos_flood]", "[detectors.dos_flood]"),
        ("[detectors.exfiltration]", "[detectors.exfiltration]"),
        ("[detectors.beacon]", "[detectors.beacon]"),
        ("[detectors.suspicious_ip]", "[detectors.suspicious_ip]"),
        ("[detectors.unauthorized_protocol]", "[detectors.unauthorized_protocol]"),
        ("[detectors.amplification]", "[detectors.amplification]"),
        ("[detectors.top_talker_change]", "[detectors.top_talker_change]"),
        ("[detectors.sg_nacl_misconfig]", "[detectors.sg_nacl_misconfig]"),
        ("[detectors.traffic_anomaly]", "[detectors.traffic_anomaly]"),
        ("[detectors.capture_gap]", "[detectors.capture_gap]"),
        ("[enrich]", "[enrich]"),
        ("[talkers.x]\nby = ['srcaddr']", "[talkers.senders]"),
        ("[sinks.x]\ntype = \"stdout\"", "[sinks.stdout]"),
        ("[sinks.x]\ntype = \"file\"\npath = 'x'", "[sinks.journal]"),
    ] {
        let mut documented = documented_keys(start);
        // Common to all sources or sinks; shown once.
        for common in ["format", "inputs", "rate_limit"] {
            documented.insert(common.to_owned());
        }
        if start == "[engine]" {
            documented.extend(tables_below("engine"));
        }
        let missing: Vec<String> = keys_of(table).difference(&documented).cloned().collect();
        assert_eq!(missing, [""; 0], "keys of {table} that the default file does not show");
    }
    for name in keys_of("[detectors]") {
        assert!(DEFAULT_CONFIG.contains(&format!("[detectors.{name}]")), "{name}");
    }
}

#[test]
fn a_full_file_becomes_a_plan() {
    let plan = plan(
        r#"
        [engine]
        threads = 4
        pane = 30
        lateness = "2m"
        inflated_max = "1GiB"
        memory_max = "4GiB"
        state_dir = { env = "PASSWORD" }
        [engine.checkpoint]
        interval = "30s"
        [engine.journal]
        file_bytes_max = "1MiB"
        files_max = 3
        [engine.dead_letters]
        path = "dead.ndjson"
        [engine.shutdown]
        limit = 5
        [log]
        format = "json"
        level = "info"
        rate_limit = 0
        stats_interval = "0s"
        [sources.zulu]
        type = "file"
        paths = ["logs", { env = "PASSWORD" }]
        rate_limit = "50MiB/s"
        format = { env = "LOG_FORMAT" }
        [sources.alpha]
        type = "stdin"
        [detectors.port_scan]
        enabled = false
        [enrich]
        context = ["context.json"]
        [sinks.journal]
        type = "file"
        path = "findings.ndjson"
        inputs = ["findings"]
        "#,
    );
    assert_eq!(plan.engine.threads, 4);
    assert_eq!(plan.engine.thread_count().get(), 4);
    assert_eq!(plan.engine.pane.as_secs(), 30);
    assert_eq!(plan.engine.lateness, Lateness::Fixed(Duration::from_mins(2)));
    assert_eq!(plan.engine.memory_max, MemoryMax::Bytes(4 << 30));
    assert_eq!(plan.engine.state_dir.as_deref(), Some(Path::new("hunter2")));
    assert_eq!(plan.engine.checkpoint.interval, Duration::from_secs(30));
    assert_eq!((plan.engine.journal.file_bytes_max, plan.engine.journal.files_max), (1 << 20, 3));
    assert_eq!(plan.engine.dead_letters.path.as_deref(), Some(Path::new("dead.ndjson")));
    assert_eq!(plan.engine.shutdown_limit, Duration::from_secs(5));
    assert_eq!((plan.log.format, plan.log.level), (LogFormat::Json, LogLevel::Info));
    assert_eq!((plan.log.rate_limit, plan.log.stats_interval), (0, Duration::ZERO));
    assert_eq!(plan.sources[0].rate_limit, RateLimit::from_text("50MiB/s"));
    assert_eq!(plan.sources[1].rate_limit, None);
    assert_eq!(plan.engine.inflated_max_bytes, 1 << 30);
    assert_eq!(plan.engine.line_max_bytes, EnginePlan::default().line_max_bytes);
    let names: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["zulu", "alpha"], "sources keep the order of the file");
    assert!(matches!(&plan.sources[0].kind, SourceKind::File { paths } if paths.len() == 2
            && paths[1].as_os_str() == "hunter2"));
    assert_eq!(plan.sources[0].format.initial_layout().field_count(), 2);
    assert!(!plan.detectors.port_scan.enabled && plan.detectors.host_sweep.enabled);
    assert_eq!(plan.context, [PathBuf::from("context.json")]);
    assert!(
        matches!(&plan.sinks[0].kind, SinkKind::File { path } if path.ends_with("findings.ndjson"))
    );
}

#[test]
fn the_files_of_a_configuration_have_places() {
    let text = "[sources.a]\ntype = 'file'\npaths = ['x', 'y']\n[enrich]\ncontext = ['c']\n\
                [sinks.s]\ntype = 'file'\npath = 'p'";
    let reading = read("f", text, &variables);
    let found: Vec<(FileRole, &str, usize, usize)> = reading
        .files()
        .iter()
        .map(|file| (file.role.clone(), file.path.to_str().unwrap(), file.line, file.column))
        .collect();
    let expected = [
        (FileRole::Source, "x", 3, 10),
        (FileRole::Source, "y", 3, 15),
        (FileRole::Context, "c", 5, 12),
        (FileRole::Sink, "p", 8, 1),
    ];
    assert_eq!(found, expected);
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_file() {
    check(
        r#"
[engine]
pane = "0s"
latenes = "5m"
threads = -1
[sources.Prod]
type = "kinesys"
[sources.files]
type = "file"
format = "srcaddr srcaddr"
[sinks.out]
type = "file"
[serve]
listen = "127.0.0.1:9600"
"#,
        &[
            "3:1: field `engine.pane` is `0s`; it must be 1s to 1h; remove the line to use 60s",
            "4:1: unknown key `latenes` in `[engine]`; did you mean `lateness`?",
            "5:1: field `engine.threads` is `-1`; it must be 0 to 1024, as a whole number; remove the line to use 0",
            "6:10: source name `Prod` has other characters than `a-z`, `0-9`, `_` and `-`; rename it",
            "7:1: field `sources.Prod.type` is `kinesys`; it must be one of `file`, `stdin`, `demo`, `kinesis`, `s3`, `cloudwatch_logs`, `firehose_http`; did you mean `kinesis`?",
            "8:10: `[sources.files]` names no file; add `paths = [\"DIRECTORY, FILE or PATTERN\"]`",
            "10:1: field `sources.files.format`: the format names `srcaddr` twice; a flow log has each field once",
            "11:8: `[sinks.out]` has no `path`; add `path = \"FILE\"`, the file that findings go to",
            "13:2: unknown table `serve` in the file; it has `engine`, `sources`, `detectors`, `noise`, `enrich`, `talkers`, `sinks`, `log`",
        ],
    );
}

#[test]
fn limits_of_the_engine_are_kept() {
    check_part(
        "[engine]\nthreads = 1025\npane = '2h'\nlateness = 'soon'\nidle_after = 0.5\nqueue_depth = 0\n\
         inflated_max = '1TB'\nline_max = { env = 'X' }",
        &[
            "2:1: field `engine.threads` is `1025`; it must be 0 to 1024; remove the line to use 0",
            "3:1: field `engine.pane` is `2h`; it must be 1s to 1h; remove the line to use 60s",
            "4:1: field `engine.lateness` is `soon`; it must be `auto`, or 0s to 24h, as whole seconds, or a whole number with `s`, `m` or `h`; remove the line to use auto",
            "5:1: field `engine.idle_after` is `0.5`; it must be 1s to 1h, as seconds, or a number with a unit like `500ms`, `60s`, `10m`, `1h`; remove the line to use 60s",
            "6:1: field `engine.queue_depth` is `0`; it must be 1 to 1024; remove the line to use 8",
            "7:1: field `engine.inflated_max` is `1TB`; it must be 1MiB to 64GiB, as bytes, or a number with a unit like `64KiB`, `512MiB`, `1GB`; remove the line to use 256MiB",
            "8:1: field `engine.line_max` is `{ env = 'X' }`; it must be 1KiB to 1GiB, as bytes, or a number with a unit like `64KiB`, `512MiB`, `1GB`; remove the line to use 16MiB",
        ],
    );
}

#[test]
fn limits_of_what_is_saved_and_logged_are_kept() {
    check_part(
        "[engine]\nmemory_max = '1MiB'\nstate_dir = 5\n[engine.checkpoint]\ninterval = '10ms'\nintervall = 1\n\
         [engine.journal]\nfile_bytes_max = 1\nfiles_max = 1\n[engine.dead_letters]\nbytes_max = 'all'\n\
         [engine.shutdown]\nlimit = 0\n[log]\nformat = 'jsn'\nlevel = 'loud'\nrate_limit = -1\n\
         stats_interval = 'never'\n[sources.a]\ntype = 'stdin'\nrate_limit = '50'\n\
         [sources.b]\ntype = 'demo'\nrate_limit = { env = 'PASSWORD' }",
        &[
            "2:1: field `engine.memory_max` is `1MiB`; it must be `auto`, or 64MiB to 16384GiB; remove the line to use auto",
            "3:1: field `engine.state_dir` is `5`; it must be a string, in quotes",
            "5:1: field `engine.checkpoint.interval` is `10ms`; it must be 100ms to 1h; remove the line to use 10s",
            "6:1: unknown key `intervall` in `[engine.checkpoint]`; did you mean `interval`?",
            "8:1: field `engine.journal.file_bytes_max` is `1`; it must be 1MiB to 4GiB; remove the line to use 64MiB",
            "9:1: field `engine.journal.files_max` is `1`; it must be 2 to 1024; remove the line to use 16",
            "11:1: field `engine.dead_letters.bytes_max` is `all`; it must be 1MiB to 64GiB, as bytes, or a number with a unit like `64KiB`, `512MiB`, `1GB`; remove the line to use 64MiB",
            "13:1: field `engine.shutdown.limit` is `0`; it must be 1s to 24h; remove the line to use 60s",
            "15:1: field `log.format` is `jsn`; it must be one of `text`, `json`; did you mean `json`?",
            "16:1: field `log.level` is `loud`; it must be one of `error`, `warn`, `info`, `debug`, `trace`",
            "17:1: field `log.rate_limit` is `-1`; it must be 0 to 1000000, as a whole number; remove the line to use 10",
            "18:1: field `log.stats_interval` is `never`; it must be 0s to 24h, as seconds, or a number with a unit like `500ms`, `60s`, `10m`, `1h`; remove the line to use 60s",
            "21:1: field `sources.a.rate_limit` is `50`; it must be bytes a second with a unit, like `50MiB/s`; remove the line for no limit",
            "24:1: field `sources.b.rate_limit` is the content of environment variable `PASSWORD`; it must be bytes a second with a unit, like `50MiB/s`; remove the line for no limit",
        ],
    );
}

#[test]
fn event_time_is_in_whole_seconds() {
    check_part(
        "[engine]\npane = '1500ms'\nlateness = '1500ms'\nidle_after = '1500ms'",
        &[
            "2:1: field `engine.pane` is `1500ms`; it must be 1s to 1h, as whole seconds, or a whole number with `s`, `m` or `h`; remove the line to use 60s",
            "3:1: field `engine.lateness` is `1500ms`; it must be `auto`, or 0s to 24h, as whole seconds, or a whole number with `s`, `m` or `h`; remove the line to use auto",
        ],
    );
}

#[test]
fn a_file_needs_a_source() {
    let message =
        "1:1: the file has no source; add a table like `[sources.prod]` with `type = \"kinesis\"`";
    check("", &[message]);
    check("[sources]\n", &[message]);
    check("# nothing\n[engine]\n", &[message]);
}

#[test]
fn components_say_which_keys_they_have() {
    check_part(
        "[sources.a]\ntype = 'demo'\nseeed = 1\nrecords_per_second = 'many'",
        &[
            "3:1: unknown key `seeed` in `[sources.a]`; did you mean `seed`?",
            "4:1: field `sources.a.records_per_second` is `many`; it must be a whole number, 0 or more",
        ],
    );
    check_part(
        "[sources.a]\nformat = 'v2'\n[sources.b]\ntype = 'stdin'\n[sources.c]\ntype = 'stdin'\npaths = []",
        &[
            "1:10: `[sources.a]` has no `type`; add one of `file`, `stdin`, `demo`, `kinesis`, `s3`, `cloudwatch_logs`, `firehose_http`",
            "5:10: source `c` reads standard input, as source `b` does; remove one",
            "7:1: unknown key `paths` in `[sources.c]`; it has `type`, `format`, `rate_limit`",
        ],
    );
    check_part(
        "[detectors.prot_scan]\n[detectors.host_sweep]\nenabled = 1\n[sinks.a]\ntype = 'stdout'\ninputs = ['talkers', 'traces']",
        &[
            "1:12: unknown key `prot_scan` in `[detectors]`; did you mean `port_scan`?",
            "3:1: field `detectors.host_sweep.enabled` is `1`; it must be `true` or `false`",
            "6:11: `sinks.a.inputs` has `talkers`, of which the file has none; add a table like `[talkers.senders]` with `by = [\"srcaddr\"]`",
            "6:22: an item of `sinks.a.inputs` is `traces`; it must be one of `findings`, `talkers`",
        ],
    );
}

#[cfg(feature = "kinesis")]
#[test]
fn a_kinesis_source_needs_its_stream() {
    check(
        "[sources.a]\ntype = 'kinesis'\nstart = 'newest'\nregion = { env = 'NO_REGION' }",
        &[
            "1:10: `[sources.a]`: neither `stream` nor `stream_arn` is set; set one of them",
            "3:1: field `sources.a.start` is `newest`; it must be one of `trim_horizon`, `latest`, `at_timestamp`",
            "4:1: field `sources.a.region` takes environment variable `NO_REGION`, which is not set; set it or write the value",
        ],
    );
}

#[test]
fn wrong_shapes_are_named() {
    check(
        "engine = 5\nsources = [1]\n",
        &[
            "1:1: `engine` is `5`; it must be a table: `[engine]`",
            "1:1: the file has no source; add a table like `[sources.prod]` with `type = \"kinesis\"`",
            "2:1: `sources` is `[1]`; it must be a table: `[sources]`",
        ],
    );
    check_part(
        "[enrich]\ncontext = 'c.json'\n[sinks.a]\ntype = 'file'\npath = 7\n[sources.b]\ntype = 'file'\npaths = [1, { emv = 'X' }]",
        &[
            "2:1: field `enrich.context` is `c.json`; it must be a list: `[\"…\"]`",
            "5:1: field `sinks.a.path` is `7`; it must be a string, in quotes",
            "8:10: an item of `sources.b.paths` is `1`; it must be a string, in quotes",
            "8:13: an item of `sources.b.paths` has a table that is neither `{ env = \"NAME\" }` nor `{ file = \"PATH\" }`; write one of them, or a string",
        ],
    );
}

#[test]
fn broken_lines_do_not_hide_other_faults() {
    check(
        "[engine]\npane = \nthreads = 2000\n[sources.a\ntype = 'demo'\n",
        &[
            "2:8: not TOML: string values must be quoted, expected literal string",
            "3:1: field `engine.threads` is `2000`; it must be 0 to 1024; remove the line to use 0",
            "4:11: not TOML: unclosed table, expected `]`",
        ],
    );
    check_part(
        "[engine]\nthreads = 1\nthreads = 2",
        &["3:1: this table or key stands in the file a second time; merge the two"],
    );
}

#[test]
fn contents_of_references_are_not_repeated() {
    let text = faults(
        "[sources.a]\ntype = { env = 'PASSWORD' }\n[sinks.b]\ntype = 'stdout'\ninputs = [{ env = 'PASSWORD' }]",
    );
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("is the content of environment variable `PASSWORD`"), "{text}");
}

proptest! {
    /// Whatever a slip of the hand makes of a file, it is read to a plan or to faults within the text.
    #[test]
    fn damaged_files_are_read_without_harm(
        at in 0..DEFAULT_CONFIG.len(),
        removed in 0..40_usize,
        inserted in "[\\[\\]{}=\"'#.,\\n a-z0-9é]{0,6}",
    ) {
        let text = default_with_keys();
        let start = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((start + removed).min(text.len()));
        let damaged = format!("{}{inserted}{}", &text[..start], &text[end..]);
        let lines = damaged.lines().count();
        if let Err(ConfigError::Faults(faults)) = read("f", &damaged, &variables).into_plan() {
            for fault in faults.faults() {
                prop_assert!((1..=lines + 1).contains(&fault.line) && fault.column >= 1, "{fault:?}");
            }
        }
    }
}
