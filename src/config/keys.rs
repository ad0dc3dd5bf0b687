//! The one table of keys: which tables a configuration has, which keys they take, and of what kind
//! their values are.
//!
//! The JSON schema is made from it, with descriptions and defaults from the default file. The tests
//! below hold that the reader and the components take exactly these keys and keep exactly these ranges.

use std::time::Duration;

use super::engine::{CheckpointPlan, DeadLetterPlan, EnginePlan, JournalPlan, Limits};
use super::log::{LogFormat, LogLevel, LogPlan};
use super::noise;
use super::plan::SinkInput;
use super::remote::RemotePlan;
use super::talkers;

/// A table of keys.
pub(super) struct Table {
    /// Its path in the default file, where its keys are described.
    pub(super) shown: &'static str,
    /// The path of another table of the default file that describes keys which this one leaves out.
    pub(super) like: &'static str,
    /// What it takes.
    pub(super) keys: &'static [Key],
    /// Keys of which exactly one must be there.
    pub(super) one_of: &'static [&'static str],
}

/// A key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) presence: Presence,
}

/// Whether a key must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Optional,
    Required,
}

/// What a key's value may be.
pub(super) enum Kind {
    /// `true` or `false`.
    Switch,
    /// Any whole number.
    Integer,
    /// A whole number in a range.
    Count { min: u64, max: u64 },
    /// A duration: whole seconds, or text with a unit.
    Duration(Limits<Duration>),
    /// A size: bytes, or text with a unit.
    Size(Limits<u64>),
    /// A duration as text alone.
    DurationText,
    /// A size as text alone.
    SizeText,
    /// Bytes a second.
    Rate,
    /// `auto` or another kind.
    Auto(&'static Kind),
    /// Any text.
    Text,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A list.
    List(&'static Kind),
    /// A count for each of these words.
    Counts(fn() -> Vec<&'static str>),
    /// Where reading a stream begins.
    Start,
    /// A moment in RFC 3339.
    Moment,
    /// A text, or texts under names of the user's.
    Secrets,
    /// A table within.
    Table(&'static Table),
    /// Tables named by kinds of findings.
    Kinds(&'static Table),
    /// Tables with names of the user's, of which each says its type.
    Components(&'static [(&'static str, Table)]),
    /// Tables of one kind with names of the user's.
    Named(&'static Table),
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, presence: Presence::Optional }
}

const fn required(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, presence: Presence::Required }
}

const fn count(name: &'static str, min: u64, max: u64) -> Key {
    key(name, Kind::Count { min, max })
}

const fn limited(name: &'static str, limits: Limits<u64>) -> Key {
    count(name, limits.min, limits.max)
}

const fn table(shown: &'static str, keys: &'static [Key]) -> Table {
    Table { shown, like: shown, keys, one_of: &[] }
}

/// The whole file.
pub(super) const ROOT: Table = table(
    "",
    &[
        key("engine", Kind::Table(&ENGINE)),
        required("sources", Kind::Components(&SOURCES)),
        key("detectors", Kind::Table(&DETECTORS)),
        key("noise", Kind::Table(&NOISE)),
        key("enrich", Kind::Table(&ENRICH)),
        key("talkers", Kind::Named(&TALKERS)),
        key("sinks", Kind::Components(&SINKS)),
        key("log", Kind::Table(&LOG)),
    ],
);

/// Whether the beginning of a file looks like a configuration: its first line with something in it is the header of a
/// table that configurations have.
#[must_use]
pub fn is_configuration(start: &[u8]) -> bool {
    let mut lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    let header = first.and_then(|line| line.strip_prefix(b"["));
    header.is_some_and(|header| {
        let word = header.split(|byte| b".]".contains(byte)).next().unwrap_or_default();
        word.len() < header.len() && ROOT.keys.iter().any(|key| key.name.as_bytes() == word)
    })
}

const ENGINE: Table = table(
    "engine",
    &[
        limited("threads", EnginePlan::THREADS),
        key("memory_max", Kind::Auto(&Kind::Size(EnginePlan::MEMORY_MAX_BYTES))),
        key("pane", Kind::Duration(EnginePlan::PANE)),
        key("lateness", Kind::Auto(&Kind::Duration(EnginePlan::LATENESS))),
        key("idle_after", Kind::Duration(EnginePlan::IDLE_AFTER)),
        limited("queue_depth", EnginePlan::QUEUE_DEPTH),
        key("inflated_max", Kind::Size(EnginePlan::INFLATED_MAX_BYTES)),
        key("line_max", Kind::Size(EnginePlan::LINE_MAX_BYTES)),
        key("state_dir", Kind::Text),
        key("checkpoint", Kind::Table(&CHECKPOINT)),
        key("journal", Kind::Table(&JOURNAL)),
        key("dead_letters", Kind::Table(&DEAD_LETTERS)),
        key("shutdown", Kind::Table(&SHUTDOWN)),
    ],
);

const CHECKPOINT: Table = table(
    "engine.checkpoint",
    &[
        key("interval", Kind::Duration(CheckpointPlan::INTERVAL)),
        key("remote", Kind::Text),
        key("region", Kind::Text),
        key("endpoint", Kind::Text),
        key("profile", Kind::Text),
        key("takeover_after", Kind::Duration(RemotePlan::TAKEOVER_AFTER)),
    ],
);

const JOURNAL: Table = table(
    "engine.journal",
    &[
        key("file_bytes_max", Kind::Size(JournalPlan::FILE_BYTES_MAX)),
        limited("files_max", JournalPlan::FILES_MAX),
    ],
);

const DEAD_LETTERS: Table = table(
    "engine.dead_letters",
    &[key("path", Kind::Text), key("bytes_max", Kind::Size(DeadLetterPlan::BYTES_MAX))],
);

const SHUTDOWN: Table =
    table("engine.shutdown", &[key("limit", Kind::Duration(EnginePlan::SHUTDOWN_LIMIT))]);

const SOURCES: [(&str, Table); 7] = [
    (
        "file",
        source(
            "sources.archive",
            &[FORMAT, RATE_LIMIT, required("paths", Kind::List(&Kind::Text))],
        ),
    ),
    ("stdin", source("sources.pipe", &[FORMAT, RATE_LIMIT])),
    (
        "demo",
        source(
            "sources.demo",
            &[
                FORMAT,
                RATE_LIMIT,
                count("seed", 0, u64::MAX),
                count("records", 0, u64::MAX),
                count("records_per_second", 1, 1_000_000),
                count("speed", 0, 10_000),
                count("shards", 1, 64),
                count("interfaces", 64, 1_000_000),
                count("external_addresses", 16, 100_000_000),
                key("attacks", Kind::Counts(attack_kinds)),
                count("attack_period_seconds", 60, 86_400),
                key("start", Kind::Integer),
            ],
        ),
    ),
    (
        "kinesis",
        Table {
            one_of: &["stream", "stream_arn"],
            ..source(
                "sources.prod",
                &[
                    FORMAT,
                    RATE_LIMIT,
                    key("stream", Kind::Text),
                    key("stream_arn", Kind::Text),
                    key("region", Kind::Text),
                    key("endpoint", Kind::Text),
                    key("profile", Kind::Text),
                    key("start", Kind::Start),
                    key("poll_interval", Kind::DurationText),
                    count("records_per_call_max", 1, 10_000),
                    key("read_ahead_max", Kind::SizeText),
                    key("mode", Kind::Word(|| vec!["auto", "polling", "fan_out"])),
                    key("consumer", Kind::Text),
                    key("consumer_arn", Kind::Text),
                    key("deregister_consumer", Kind::Switch),
                    key("stalled_after", Kind::DurationText),
                    key("list_interval", Kind::DurationText),
                ],
            )
        },
    ),
    (
        "s3",
        Table {
            one_of: &["queue_url", "bucket"],
            ..source(
                "sources.bucket",
                &[
                    FORMAT,
                    RATE_LIMIT,
                    key("queue_url", Kind::Text),
                    key("visibility", Kind::DurationText),
                    key("bucket", Kind::Text),
                    key("prefix", Kind::Text),
                    key("poll_interval", Kind::DurationText),
                    key("since", Kind::Text),
                    count("late_days", 0, 31),
                    key("region", Kind::Text),
                    key("endpoint", Kind::Text),
                    key("profile", Kind::Text),
                    count("parallel", 1, 64),
                    key("read_ahead_max", Kind::SizeText),
                ],
            )
        },
    ),
    (
        "cloudwatch_logs",
        source(
            "sources.groups",
            &[
                FORMAT,
                RATE_LIMIT,
                required("log_groups", Kind::List(&Kind::Text)),
                key("stream_prefix", Kind::Text),
                key("filter_pattern", Kind::Text),
                key("region", Kind::Text),
                key("endpoint", Kind::Text),
                key("profile", Kind::Text),
                key("start", Kind::Moment),
                key("end", Kind::Moment),
                key("lookback", Kind::DurationText),
                key("poll_interval", Kind::DurationText),
                count("calls_per_second_max", 1, 25),
            ],
        ),
    ),
    (
        "firehose_http",
        source(
            "sources.deliveries",
            &[
                FORMAT,
                RATE_LIMIT,
                key("listen", Kind::Text),
                key("path", Kind::Text),
                key("certificate", Kind::Text),
                key("private_key", Kind::Text),
                key("allow_plaintext", Kind::Switch),
                key("access_keys", Kind::Secrets),
                key("allow_anonymous", Kind::Switch),
                count("connections_max", 1, 100_000),
                key("memory_max", Kind::SizeText),
                key("spool_max", Kind::SizeText),
            ],
        ),
    ),
];

/// What every source takes.
const FORMAT: Key = key("format", Kind::Text);
const RATE_LIMIT: Key = key("rate_limit", Kind::Rate);

const fn source(shown: &'static str, keys: &'static [Key]) -> Table {
    Table { shown, like: "sources.demo", keys, one_of: &[] }
}

fn attack_kinds() -> Vec<&'static str> {
    crate::generate::AttackKind::ALL.map(crate::generate::AttackKind::name).to_vec()
}

const WINDOW_SECONDS: Key = window("window_seconds");

const fn window(name: &'static str) -> Key {
    count(name, 60, 86_400)
}

const ENABLED: Key = key("enabled", Kind::Switch);
const PORTS: Key = key("ports", Kind::List(&Kind::Count { min: 0, max: 65_535 }));
const TRACKED_MAX: Key = count("tracked_max", 1_000, 1_000_000_000);

const DETECTORS: Table = table(
    "detectors",
    &[
        key("port_scan", Kind::Table(&PORT_SCAN)),
        key("host_sweep", Kind::Table(&HOST_SWEEP)),
        key("distributed_scan", Kind::Table(&DISTRIBUTED_SCAN)),
        key("ssh_bruteforce", Kind::Table(&SSH_BRUTEFORCE)),
        key("rdp_bruteforce", Kind::Table(&RDP_BRUTEFORCE)),
        key("login_after_bruteforce", Kind::Table(&LOGIN_AFTER_BRUTEFORCE)),
        key("remote_access_attempt", Kind::Table(&REMOTE_ACCESS_ATTEMPT)),
        key("dos_flood", Kind::Table(&DOS_FLOOD)),
        key("exfiltration", Kind::Table(&EXFILTRATION)),
        key("beacon", Kind::Table(&BEACON)),
        key("suspicious_ip", Kind::Table(&SUSPICIOUS_IP)),
        key("unauthorized_protocol", Kind::Table(&UNAUTHORIZED_PROTOCOL)),
        key("amplification", Kind::Table(&AMPLIFICATION)),
        key("top_talker_change", Kind::Table(&TOP_TALKER_CHANGE)),
        key("sg_nacl_misconfig", Kind::Table(&SG_NACL_MISCONFIG)),
        key("traffic_anomaly", Kind::Table(&TRAFFIC_ANOMALY)),
        key("capture_gap", Kind::Table(&CAPTURE_GAP)),
    ],
);

const PORT_SCAN: Table = table(
    "detectors.port_scan",
    &[
        ENABLED,
        count("ports_min", 2, 65_536),
        WINDOW_SECONDS,
        window("medium_window_seconds"),
        window("slow_window_seconds"),
        count("failed_per_answered_min", 0, 100),
        count("block_hosts_min", 2, 65_536),
        TRACKED_MAX,
    ],
);

const HOST_SWEEP: Table = table(
    "detectors.host_sweep",
    &[
        ENABLED,
        count("hosts_min", 2, 65_536),
        WINDOW_SECONDS,
        window("medium_window_seconds"),
        window("slow_window_seconds"),
        count("failed_share_min_percent", 1, 100),
        count("prevalence_max", 1, 65_536),
        TRACKED_MAX,
    ],
);

const DISTRIBUTED_SCAN: Table = table(
    "detectors.distributed_scan",
    &[
        ENABLED,
        count("ports_min", 2, 65_536),
        count("port_sources_min", 2, 65_536),
        count("ports_per_source_max", 2, 65_536),
        count("hosts_min", 2, 65_536),
        count("host_sources_min", 2, 65_536),
        count("hosts_per_source_max", 2, 65_536),
        count("decoys_min", 2, 65_536),
        WINDOW_SECONDS,
        TRACKED_MAX,
    ],
);

const LOGIN_AFTER_BRUTEFORCE: Table = table(
    "detectors.login_after_bruteforce",
    &[
        ENABLED,
        count("session_packets_min", 2, 1_000_000),
        count("session_seconds_min", 60, 86_400),
        TRACKED_MAX,
    ],
);

const SG_NACL_MISCONFIG: Table = table(
    "detectors.sg_nacl_misconfig",
    &[
        ENABLED,
        count("windows_min", 2, 1_000),
        count("answers_min", 2, 1_000),
        count("scanned_ports_max", 1, 65_536),
        WINDOW_SECONDS,
        TRACKED_MAX,
    ],
);

const BRUTEFORCE: &[Key] = &[
    ENABLED,
    PORTS,
    count("sessions_min", 2, 100_000),
    WINDOW_SECONDS,
    count("slow_sessions_min", 2, 100_000),
    window("slow_window_seconds"),
    count("spray_sessions_min", 2, 100_000),
    count("management_hosts_min", 1, 65_536),
    TRACKED_MAX,
];

const SSH_BRUTEFORCE: Table = table("detectors.ssh_bruteforce", BRUTEFORCE);

const RDP_BRUTEFORCE: Table =
    Table { like: "detectors.ssh_bruteforce", ..table("detectors.rdp_bruteforce", BRUTEFORCE) };

const REMOTE_ACCESS_ATTEMPT: Table =
    table("detectors.remote_access_attempt", &[ENABLED, PORTS, TRACKED_MAX]);

const DOS_FLOOD: Table = table(
    "detectors.dos_flood",
    &[
        ENABLED,
        count("flows_per_second_min", 1, 1_000_000),
        count("icmp_packets_per_second_min", 1, 100_000_000),
        count("flows_per_second_max", 1, 100_000_000),
        count("packets_per_second_max", 1, 1_000_000_000),
        count("megabits_per_second_max", 1, 10_000_000),
        TRACKED_MAX,
    ],
);

const EXFILTRATION: Table = table(
    "detectors.exfiltration",
    &[
        ENABLED,
        count("bytes_min", 100_000, 1_000_000_000_000),
        count("window_seconds", 600, 86_400),
        count("out_per_in_min", 1, 10_000),
        count("prevalence_max_percent", 0, 100),
        count("known_after_seconds", 3600, 31_536_000),
        TRACKED_MAX,
    ],
);

const BEACON: Table = table(
    "detectors.beacon",
    &[
        ENABLED,
        count("contacts_min", 5, 10_000),
        count("duration_min_seconds", 0, 86_400),
        count("score_min_percent", 1, 100),
        count("window_seconds", 3600, 86_400),
        count("prevalence_max_percent", 0, 100),
        TRACKED_MAX,
    ],
);

const SUSPICIOUS_IP: Table = table(
    "detectors.suspicious_ip",
    &[
        ENABLED,
        key("lists", Kind::List(&Kind::Text)),
        count("entries_max", 1000, 100_000_000),
        TRACKED_MAX,
    ],
);

const UNAUTHORIZED_PROTOCOL: Table = table(
    "detectors.unauthorized_protocol",
    &[ENABLED, key("vain_from_outside", Kind::Switch), TRACKED_MAX],
);

const AMPLIFICATION: Table = table(
    "detectors.amplification",
    &[
        ENABLED,
        PORTS,
        count("ratio_min", 2, 10_000),
        count("bytes_per_minute_min", 1000, 1_000_000_000),
        WINDOW_SECONDS,
        TRACKED_MAX,
    ],
);
const NOISE: Table = table(
    "noise",
    &[
        key("min_severity", Kind::Word(noise::severities)),
        SUPPRESS,
        FINDINGS_PER_HOUR_MAX,
        key("kinds", Kind::Kinds(&KIND_NOISE)),
    ],
);

const KIND_NOISE: Table = table(
    "noise.kinds.port_scan",
    &[key("severity", Kind::Word(noise::severities)), SUPPRESS, FINDINGS_PER_HOUR_MAX],
);

const SUPPRESS: Key = key("suppress", Kind::Duration(noise::SUPPRESS));
const FINDINGS_PER_HOUR_MAX: Key = limited("findings_per_hour_max", noise::FINDINGS_PER_HOUR_MAX);

const TOP_TALKER_CHANGE: Table = table(
    "detectors.top_talker_change",
    &[
        ENABLED,
        count("share_min_percent", 1, 100),
        count("bytes_min", 0, 1_000_000_000_000_000),
        count("factor_min", 2, 1000),
        WINDOW_SECONDS,
        window("warm_up_seconds"),
        window("baseline_seconds"),
        TRACKED_MAX,
    ],
);

const TRAFFIC_ANOMALY: Table = table(
    "detectors.traffic_anomaly",
    &[
        ENABLED,
        count("days_min", 2, 8),
        count("z_min", 3, 1_000),
        count("lasting_seconds", 60, 3_600),
        count("bytes_per_minute_min", 1_000, 1_000_000_000_000),
        count("packets_per_minute_min", 10, 1_000_000_000),
        count("flows_per_minute_min", 10, 1_000_000_000),
        TRACKED_MAX,
    ],
);

const CAPTURE_GAP: Table = table(
    "detectors.capture_gap",
    &[
        ENABLED,
        count("silent_seconds", 300, 86_400),
        count("known_seconds", 600, 604_800),
        count("group_interfaces_min", 2, 65_536),
        count("skipdata_records_min", 1, 100_000),
        TRACKED_MAX,
    ],
);

const ENRICH: Table = table("enrich", &[key("context", Kind::List(&Kind::Text))]);

const TALKERS: Table = table(
    "talkers.senders",
    &[
        required("by", Kind::List(&Kind::Text)),
        key("metric", Kind::Text),
        limited("rows_max", talkers::ROWS_MAX),
        limited("window_seconds", talkers::WINDOW_SECONDS),
    ],
);

const INPUTS: Key =
    key("inputs", Kind::List(&Kind::Word(|| SinkInput::WORDS.map(|(word, _)| word).to_vec())));

const SINKS: [(&str, Table); 2] = [
    ("stdout", table("sinks.stdout", &[INPUTS])),
    (
        "file",
        Table {
            like: "sinks.stdout",
            ..table("sinks.journal", &[INPUTS, required("path", Kind::Text)])
        },
    ),
];

const LOG: Table = table(
    "log",
    &[
        key("format", Kind::Word(|| LogFormat::WORDS.map(|(word, _)| word).to_vec())),
        key("level", Kind::Word(|| LogLevel::WORDS.map(|(word, _)| word).to_vec())),
        limited("rate_limit", LogPlan::RATE_LIMIT),
        key("stats_interval", Kind::Duration(LogPlan::STATS_INTERVAL)),
    ],
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::file::read;
    use super::*;

    /// Every table with the text that opens it in an otherwise complete file.
    fn tables() -> Vec<(String, &'static Table)> {
        let mut found = Vec::new();
        collect(&ROOT, "", &mut found);
        found
    }

    fn collect(table: &'static Table, path: &str, found: &mut Vec<(String, &'static Table)>) {
        for key in table.keys {
            let path =
                if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match &key.kind {
                Kind::Table(inner) => {
                    found.push((format!("[{path}]\n"), inner));
                    collect(inner, &path, found);
                }
                Kind::Kinds(inner) => {
                    found.push((format!("[{path}.host_sweep]\n"), inner));
                }
                Kind::Components(components) => {
                    let featured = [
                        ("kinesis", cfg!(feature = "kinesis")),
                        ("s3", cfg!(feature = "s3")),
                        ("cloudwatch_logs", cfg!(feature = "cloudwatch")),
                        ("firehose_http", cfg!(feature = "firehose")),
                    ];
                    let is_built = |name: &str| !featured.contains(&(name, false));
                    for (name, inner) in components.iter().filter(|(name, _)| is_built(name)) {
                        let required = match *name {
                            "file" if path == "sources" => "paths = ['x']\n",
                            "file" => "path = 'x'\n",
                            "kinesis" => "stream = 'x'\n",
                            "s3" => "bucket = 'xxx'\n",
                            "cloudwatch_logs" => "log_groups = ['x']\n",
                            "firehose_http" => "access_keys.a = 'x'\n",
                            _ => "",
                        };
                        found.push((format!("[{path}.x]\ntype = '{name}'\n{required}"), inner));
                    }
                }
                Kind::Named(inner) => {
                    found.push((format!("[{path}.x]\nby = ['srcaddr']\n"), inner));
                }
                _ => {}
            }
        }
    }

    fn faults(text: &str) -> String {
        let text = format!("{text}\n[sources.complete]\ntype = 'demo'\n");
        let outcome = read("f", &text, &|_| None).into_plan();
        outcome.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn a_configuration_is_told_by_its_first_table() {
        let check = |start: &str, expected| {
            assert_eq!(is_configuration(start.as_bytes()), expected, "{start}");
        };
        check(crate::config::DEFAULT_CONFIG, true);
        check("\n# mine\n  [sources.prod]\ntype = 'kinesis'\n", true);
        check("[log]", true);
        check("[sourcesx]", false);
        check("[sources", false);
        check("[{\"version\": 2}]", false);
        check("2 123456789012 eni-1 - -", false);
        check("", false);
    }

    #[test]
    fn the_reader_takes_exactly_these_keys() {
        for (opening, table) in tables() {
            let found = faults(&format!("{opening}\"?????????????\" = 1"));
            let (_, listed) = found.split_once("; it has ").unwrap_or_else(|| panic!("{found}"));
            let read: BTreeSet<&str> =
                listed.lines().next().unwrap().split('`').skip(1).step_by(2).collect();
            let mut known: BTreeSet<&str> = table.keys.iter().map(|key| key.name).collect();
            if opening.contains("type = ") {
                known.insert("type");
            }
            assert_eq!(read, known, "keys of {opening}");
        }
    }

    /// Values at the ends of a range, and beyond them.
    fn ends(kind: &Kind) -> Option<([String; 2], Vec<String>)> {
        let milliseconds = |duration: Duration| format!("'{}ms'", duration.as_millis());
        match kind {
            Kind::Count { min, max } => {
                let beyond = min.checked_sub(1).into_iter().chain(max.checked_add(1));
                let is_writable = |value: &u64| i64::try_from(*value).is_ok();
                let last = (*max).min(i64::MAX.unsigned_abs());
                Some((
                    [*min, last].map(|value| value.to_string()),
                    beyond.filter(is_writable).map(|value| value.to_string()).collect(),
                ))
            }
            Kind::Duration(limits) => {
                let second = Duration::from_secs(1);
                let beyond =
                    limits.min.checked_sub(second).into_iter().chain([limits.max + second]);
                Some((
                    [limits.min, limits.max].map(milliseconds),
                    beyond.map(milliseconds).collect(),
                ))
            }
            Kind::Size(limits) => {
                let beyond = [limits.min - 1, limits.max + 1].map(|bytes| bytes.to_string());
                Some(([limits.min, limits.max].map(|bytes| bytes.to_string()), beyond.to_vec()))
            }
            Kind::Auto(inner) => ends(inner),
            _ => None,
        }
    }

    #[test]
    fn the_components_keep_exactly_these_ranges() {
        let mut checked_count = 0;
        for (opening, table) in tables() {
            for key in table.keys {
                let Some((within, beyond)) = ends(&key.kind) else { continue };
                let said = |value: &str| faults(&format!("{opening}{} = {value}", key.name));
                for value in within {
                    let fault = said(&value);
                    let is_refused = fault.contains(&format!("{}` is", key.name))
                        && fault.contains("; it must be");
                    assert!(!is_refused, "{opening}{} = {value}: {fault}", key.name);
                }
                for value in beyond {
                    let fault = said(&value);
                    assert!(fault.contains(key.name), "{opening}{} = {value}: {fault}", key.name);
                    checked_count += 1;
                }
            }
        }
        assert!(checked_count > 80, "{checked_count}");
    }
}
