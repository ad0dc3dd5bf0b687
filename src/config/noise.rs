//! `[noise]`: how much is told of what is found, for all kinds of findings and for single ones.

use std::time::Duration;

use super::engine::Limits;
use super::reader::TableReader;
use super::suggest::nearest;
use crate::detect::{KindNoise, NoiseSettings};
use crate::finding::{FindingKind, Severity};

/// Of `suppress`.
pub(super) const SUPPRESS: Limits<Duration> = Limits {
    default: Duration::from_secs(NoiseSettings::SUPPRESS_SECONDS as u64),
    min: Duration::from_mins(1),
    max: Duration::from_hours(24),
};

/// Of `findings_per_hour_max`; 0 is no limit.
pub(super) const FINDINGS_PER_HOUR_MAX: Limits<u64> =
    Limits { default: NoiseSettings::FINDINGS_PER_HOUR_MAX as u64, min: 0, max: 1_000_000 };

/// What `min_severity` and `severity` may be.
pub(super) fn severities() -> Vec<&'static str> {
    Severity::ALL.map(Severity::name).to_vec()
}

/// Takes every key of `[noise]`.
pub(super) fn read(noise: &mut TableReader<'_>) -> NoiseSettings {
    let mut settings = NoiseSettings {
        min_severity: severity(noise, "min_severity").unwrap_or(Severity::Low),
        suppress_seconds: seconds(noise.seconds("suppress", &SUPPRESS)),
        findings_per_hour_max: per_hour(
            noise.count("findings_per_hour_max", &FINDINGS_PER_HOUR_MAX),
        ),
        ..NoiseSettings::default()
    };
    for (name, mut table) in noise.tables_of("kinds") {
        let Some(kind) = FindingKind::from_name(&name) else {
            let names = || FindingKind::ALL.iter().map(|kind| kind.name());
            let hint = match nearest(&name, names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("kinds are {}", names().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("`[{}]` is of no kind of finding; {hint}", table.path);
            table.wrong(table.span.clone(), message);
            noise.absorb_unfinished(table);
            continue;
        };
        let suppress = Limits { default: duration(settings.suppress_seconds), ..SUPPRESS };
        let most =
            Limits { default: settings.findings_per_hour_max.into(), ..FINDINGS_PER_HOUR_MAX };
        let of_kind = KindNoise {
            severity: severity(&mut table, "severity"),
            suppress_seconds: Some(seconds(table.seconds("suppress", &suppress))),
            findings_per_hour_max: Some(per_hour(table.count("findings_per_hour_max", &most))),
        };
        settings.kinds.insert(kind, of_kind);
        noise.absorb(table);
    }
    settings
}

fn severity(table: &mut TableReader<'_>, key: &'static str) -> Option<Severity> {
    table.word(key, &Severity::ALL.map(|severity| (severity.name(), severity)))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).expect("a day at most")
}

const fn duration(seconds: u32) -> Duration {
    Duration::from_secs(seconds as u64)
}

fn per_hour(count: u64) -> u32 {
    u32::try_from(count).expect("a million at most")
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn check(text: &str, expected: Result<NoiseSettings, &str>) {
        let text = format!("[sources.demo]\ntype = 'demo'\n{text}");
        let plan = file::read("f", &text, &|_| None).into_plan();
        match (plan, expected) {
            (Ok(plan), Ok(expected)) => assert_eq!(plan.detectors.noise, expected, "{text}"),
            (Err(error), Err(fault)) => {
                let message = error.to_string();
                assert!(message.contains(fault), "{text}: {message}");
            }
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn settings_are_for_all_kinds_or_for_one() {
        check("", Ok(NoiseSettings::default()));
        check("[noise]", Ok(NoiseSettings::default()));
        let of_kind = KindNoise {
            severity: Some(Severity::High),
            suppress_seconds: Some(7200),
            findings_per_hour_max: Some(10),
        };
        check(
            "[detectors.port_scan]\nports_min = 20\n[noise]\nmin_severity = 'medium'\nsuppress = '2h'\n\
             [noise.kinds.port_scan]\nseverity = 'high'\nfindings_per_hour_max = 10",
            Ok(NoiseSettings {
                min_severity: Severity::Medium,
                suppress_seconds: 7200,
                kinds: [(FindingKind::PortScan, of_kind)].into(),
                ..NoiseSettings::default()
            }),
        );
    }

    #[test]
    fn faults_say_what_to_write() {
        check("[noise]\nmin_severity = 'hihg'", Err("did you mean `high`?"));
        check("[noise]\nsuppress = '5s'", Err("it must be 60s to 24h"));
        check("[noise.kinds.portscan]\nseverity = 'high'", Err("did you mean `port_scan`?"));
        check("[noise.kinds.port_scan]\nmin_severity = 'high'", Err("unknown key `min_severity`"));
        check("[noise]\nkinds = 3", Err("it must be a table"));
    }
}
