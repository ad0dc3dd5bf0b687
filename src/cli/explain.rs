//! `flowgauge explain`: what a kind of finding means, and what to do about it.
//!
//! A page a kind, Markdown that reads well as it is: `explain/<kind>.md`. The tests below hold their form.

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::output::{self, OutputFormat};
use crate::config;
use crate::finding::FindingKind;

/// The name and version of the JSON form.
const EXPLAIN_SCHEMA: &str = "flowgauge.explain/v1";

/// What holds for all kinds, below every page.
const OF_ALL_KINDS: &str = "\
Every kind: `[noise.kinds.KIND]` sets its `severity`, how long a finding is not renewed (`suppress`) and
`findings_per_hour_max`; `flowgauge tune KIND` shows how many findings there would be at other thresholds.
";

/// Explain a kind of finding, or list all kinds
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flowgauge explain
  flowgauge explain port_scan
  flowgauge explain --output json host_sweep")]
pub(crate) struct ExplainArgs {
    /// A kind of finding, such as `port_scan`; without it, a list of all
    #[arg(value_name = "KIND", value_parser = kind)]
    kind: Option<FindingKind>,
    /// Form of what is written to standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Reads the name of a kind; a slip of the pen is told.
pub(crate) fn kind(text: &str) -> Result<FindingKind, String> {
    let names = || FindingKind::ALL.iter().map(|kind| kind.name());
    FindingKind::from_name(text).ok_or_else(|| match config::nearest(text, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it must be one of {}", names().collect::<Vec<_>>().join(", ")),
    })
}

/// The page of a kind.
const fn page(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::PortScan => include_str!("explain/port_scan.md"),
        FindingKind::HostSweep => include_str!("explain/host_sweep.md"),
        FindingKind::SshBruteforce => include_str!("explain/ssh_bruteforce.md"),
        FindingKind::RdpBruteforce => include_str!("explain/rdp_bruteforce.md"),
        FindingKind::RemoteAccessAttempt => include_str!("explain/remote_access_attempt.md"),
        FindingKind::DosFlood => include_str!("explain/dos_flood.md"),
        FindingKind::Exfiltration => include_str!("explain/exfiltration.md"),
        FindingKind::Beacon => include_str!("explain/beacon.md"),
        FindingKind::SuspiciousIp => include_str!("explain/suspicious_ip.md"),
        FindingKind::UnauthorizedProtocol => include_str!("explain/unauthorized_protocol.md"),
        FindingKind::Amplification => include_str!("explain/amplification.md"),
        FindingKind::TopTalkerChange => include_str!("explain/top_talker_change.md"),
        FindingKind::CaptureGap => include_str!("explain/capture_gap.md"),
        FindingKind::TrafficAnomaly => include_str!("explain/traffic_anomaly.md"),
        FindingKind::SgNaclMisconfig => include_str!("explain/sg_nacl_misconfig.md"),
        FindingKind::LoginAfterBruteforce => include_str!("explain/login_after_bruteforce.md"),
        FindingKind::DistributedScan => include_str!("explain/distributed_scan.md"),
    }
}

/// A page in its parts.
#[derive(Debug, Serialize)]
struct Page {
    kind: &'static str,
    summary: &'static str,
    /// Text below each heading, by the heading.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "by_heading")]
    sections: Vec<(&'static str, &'static str)>,
}

fn by_heading<S: serde::Serializer>(
    sections: &[(&'static str, &'static str)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sections.iter().copied())
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: &'static str,
    kinds: Vec<Page>,
}

impl Page {
    fn of(kind: FindingKind) -> Self {
        let mut parts = page(kind).split("\n## ");
        let head = parts.next().unwrap_or_default();
        let summary = head.lines().nth(2).unwrap_or_default();
        let section = |part: &'static str| {
            let (heading, text) = part.split_once('\n').unwrap_or((part, ""));
            (heading.trim(), text.trim())
        };
        Self { kind: kind.name(), summary, sections: parts.map(section).collect() }
    }
}

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    output::write_text(&answer(args)?)
}

fn answer(args: &ExplainArgs) -> Result<String, Failure> {
    match (args.output, args.kind) {
        (OutputFormat::Text, Some(kind)) => Ok(format!("{}\n{OF_ALL_KINDS}", page(kind))),
        (OutputFormat::Text, None) => Ok(list()),
        (OutputFormat::Json, asked) => {
            let mut kinds: Vec<Page> = match asked {
                Some(kind) => vec![Page::of(kind)],
                None => FindingKind::ALL.iter().copied().map(Page::of).collect(),
            };
            if asked.is_none() {
                kinds.iter_mut().for_each(|page| page.sections.clear());
            }
            let answer = Answer { schema: EXPLAIN_SCHEMA, kinds };
            let line = serde_json::to_string(&answer).map_err(Failure::running)?;
            Ok(format!("{line}\n"))
        }
    }
}

/// Every kind with its sentence.
fn list() -> String {
    let width = FindingKind::ALL.iter().map(|kind| kind.name().len()).max().unwrap_or(0);
    let line = |kind: &FindingKind| {
        let Page { kind, summary, .. } = Page::of(*kind);
        format!("{kind:<width$}  {summary}\n")
    };
    FindingKind::ALL.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: [&str; 6] =
        ["Meaning", "Evidence", "False positives", "What to do", "Settings", "MITRE ATT&CK"];

    fn section<'p>(page: &'p Page, heading: &str) -> &'p str {
        let found = page.sections.iter().find(|(name, _)| *name == heading);
        found.unwrap_or_else(|| panic!("{}: {heading}", page.kind)).1
    }

    #[test]
    fn every_kind_has_a_page_of_the_form() {
        for kind in FindingKind::ALL {
            let (text, page) = (page(*kind), Page::of(*kind));
            let name = kind.name();
            assert!(text.starts_with(&format!("# {name}\n\n")), "{name}: its first line");
            let is_sentence = page.summary.ends_with('.') && page.summary.chars().count() <= 120;
            assert!(is_sentence, "{name}: its sentence for the list: {}", page.summary);
            let headings: Vec<&str> = page.sections.iter().map(|(heading, _)| *heading).collect();
            assert_eq!(headings, HEADINGS, "{name}");
            for (heading, content) in &page.sections {
                assert!(!content.is_empty(), "{name}: {heading}");
            }
            let too_long = text.lines().find(|line| line.chars().count() > 128);
            assert_eq!(too_long, None, "{name}: a line is too long for a terminal");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{name}: its end");
        }
    }

    #[test]
    fn pages_say_all_there_is() {
        for kind in FindingKind::ALL {
            let page = Page::of(*kind);
            let evidence = section(&page, "Evidence");
            assert!(evidence.starts_with("- `"), "{}: a field an item", page.kind);
            assert!(evidence.contains("\nSeverity: "), "{}: when which severity", page.kind);
            let settings = section(&page, "Settings");
            for key in config::detector_keys(*kind) {
                assert!(settings.contains(&format!("`{key}`")), "{}: setting {key}", page.kind);
            }
            for item in section(&page, "MITRE ATT&CK").lines() {
                let id = item.strip_prefix("- T").and_then(|rest| rest.split_once(' '));
                let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                assert!(id.is_some_and(|(id, name)| is_id(id) && !name.is_empty()), "{item}");
            }
        }
    }

    #[test]
    fn a_wrong_kind_is_told_what_was_meant() {
        assert_eq!(kind("port_scan"), Ok(FindingKind::PortScan));
        assert_eq!(kind("portscan"), Err("did you mean `port_scan`?".to_owned()));
        assert!(kind("x").unwrap_err().starts_with("it must be one of port_scan, host_sweep"));
    }

    #[test]
    fn json_has_the_parts() {
        let args = |kind| ExplainArgs { kind, output: OutputFormat::Json };
        let parsed = |kind| -> serde_json::Value {
            serde_json::from_str(&answer(&args(kind)).unwrap()).unwrap()
        };
        let one = parsed(Some(FindingKind::PortScan));
        let attack = one.pointer("/kinds/0/sections/MITRE ATT&CK").unwrap().as_str().unwrap();
        assert!(attack.contains("T1046"), "{attack}");
        let all = parsed(None);
        assert_eq!(all["kinds"].as_array().unwrap().len(), FindingKind::ALL.len());
        assert!(all.pointer("/kinds/0/sections").is_none(), "{all}");
    }
}
