//! What a configuration that is read again may change while a run goes on, and what needs a restart.
//!
//! Pure: two plans in, the changes or every reason against them out. Whoever applies changes does so only
//! when there is no fault, so that the old plan holds whole or the new one does.

use std::path::PathBuf;
use std::time::Duration;

use crate::detect::DetectSettings;
use crate::units::{RateLimit, duration_text, size_text};

use super::engine::{EnginePlan, Lateness, MemoryMax};
use super::log::LogPlan;
use super::plan::{Plan, SinkPlan, SourcePlan};

/// What changed of what may change; `None` and empty where nothing did.
///
/// The context files and threat lists are to be read again at every reload: their content may have changed
/// where their names have not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// `[detectors.*]`.
    pub detectors: Option<DetectSettings>,
    /// `enrich.context`.
    pub context: Option<Vec<PathBuf>>,
    /// `[sinks.*]`, all of them.
    pub sinks: Option<Vec<SinkPlan>>,
    /// `[log]`.
    pub log: Option<LogPlan>,
    /// `rate_limit` of these sources, by name.
    pub rate_limits: Vec<(String, Option<RateLimit>)>,
    /// `engine.checkpoint.interval`.
    pub checkpoint_interval: Option<Duration>,
    /// `engine.shutdown.limit`.
    pub shutdown_limit: Option<Duration>,
}

impl Changes {
    /// What changed, as the configuration names it, for the log.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Self {
            detectors,
            context,
            sinks,
            log,
            rate_limits,
            checkpoint_interval,
            shutdown_limit,
        } = self;
        let parts = [
            ("detectors", detectors.is_some()),
            ("enrich.context", context.is_some()),
            ("sinks", sinks.is_some()),
            ("log", log.is_some()),
            ("engine.checkpoint.interval", checkpoint_interval.is_some()),
            ("engine.shutdown.limit", shutdown_limit.is_some()),
        ];
        let names = parts.iter().filter(|(_, is_changed)| *is_changed);
        let limits = rate_limits.iter().map(|(name, _)| format!("sources.{name}.rate_limit"));
        names.map(|(name, _)| (*name).to_owned()).chain(limits).collect()
    }
}

/// A change that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {difference}; this needs a restart")]
pub struct ReloadFault {
    /// The key or table, such as `engine.threads`.
    pub key: String,
    /// What was and what would be.
    pub difference: String,
}

/// Compares the plan that runs with the one that was read.
///
/// # Errors
/// Every difference that needs a restart.
pub fn compare(old: &Plan, new: &Plan) -> Result<Changes, Vec<ReloadFault>> {
    let mut faults = Vec::new();
    fixed_in_engine(&old.engine, &new.engine, &mut faults);
    if old.talkers != new.talkers {
        let difference = "have changed".to_owned();
        faults.push(ReloadFault { key: "talkers".to_owned(), difference });
    }
    let rate_limits = compare_sources(&old.sources, &new.sources, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Changes {
        detectors: changed(&old.detectors, &new.detectors),
        context: changed(&old.context, &new.context),
        sinks: changed(&old.sinks, &new.sinks),
        log: changed(&old.log, &new.log),
        rate_limits,
        checkpoint_interval: changed(
            &old.engine.checkpoint.interval,
            &new.engine.checkpoint.interval,
        ),
        shutdown_limit: changed(&old.engine.shutdown_limit, &new.engine.shutdown_limit),
    })
}

fn changed<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
    (old != new).then(|| new.clone())
}

/// Notes what may not change in `[engine]`.
fn fixed_in_engine(old: &EnginePlan, new: &EnginePlan, faults: &mut Vec<ReloadFault>) {
    // Every field by name: a new one has to be put on one side.
    let EnginePlan {
        threads,
        memory_max,
        pane,
        lateness,
        idle_after,
        queue_depth,
        inflated_max_bytes,
        line_max_bytes,
        state_dir,
        checkpoint,
        journal,
        dead_letters,
        shutdown_limit: _,
    } = old;
    let mut fixed = |key: &str, old: String, new: String| {
        if old != new {
            let difference = format!("is `{old}`, and the file says `{new}`");
            faults.push(ReloadFault { key: format!("engine.{key}"), difference });
        }
    };
    fixed("threads", threads.to_string(), new.threads.to_string());
    fixed("memory_max", memory_text(*memory_max), memory_text(new.memory_max));
    fixed("pane", duration_text(*pane), duration_text(new.pane));
    fixed("lateness", lateness_text(*lateness), lateness_text(new.lateness));
    fixed("idle_after", duration_text(*idle_after), duration_text(new.idle_after));
    fixed("queue_depth", queue_depth.to_string(), new.queue_depth.to_string());
    fixed("inflated_max", size_text(*inflated_max_bytes), size_text(new.inflated_max_bytes));
    fixed("line_max", size_text(*line_max_bytes), size_text(new.line_max_bytes));
    fixed("state_dir", path_text(state_dir.as_ref()), path_text(new.state_dir.as_ref()));
    let new_journal = &new.journal;
    fixed(
        "journal.file_bytes_max",
        size_text(journal.file_bytes_max),
        size_text(new_journal.file_bytes_max),
    );
    fixed("journal.files_max", journal.files_max.to_string(), new_journal.files_max.to_string());
    let new_letters = &new.dead_letters;
    fixed(
        "dead_letters.path",
        path_text(dead_letters.path.as_ref()),
        path_text(new_letters.path.as_ref()),
    );
    fixed(
        "dead_letters.bytes_max",
        size_text(dead_letters.bytes_max),
        size_text(new_letters.bytes_max),
    );
    if checkpoint.remote != new.checkpoint.remote {
        let key = "engine.checkpoint.remote".to_owned();
        // What it is reached by may be secret.
        faults.push(ReloadFault { key, difference: "has changed".to_owned() });
    }
}

/// The rate limits that changed; notes what else did. Values are left out, as they may be secret.
fn compare_sources(
    old: &[SourcePlan],
    new: &[SourcePlan],
    faults: &mut Vec<ReloadFault>,
) -> Vec<(String, Option<RateLimit>)> {
    let mut rate_limits = Vec::new();
    let mut fault = |name: &str, difference: &str| {
        let key = format!("sources.{name}");
        faults.push(ReloadFault { key, difference: difference.to_owned() });
    };
    let named = |sources: &[SourcePlan], name: &str| {
        sources.iter().find(|source| source.name == name).cloned()
    };
    for source in old {
        match named(new, &source.name) {
            None => fault(&source.name, "is no longer in the file"),
            Some(SourcePlan { kind, format, .. })
                if (&kind, &format) != (&source.kind, &source.format) =>
            {
                fault(&source.name, "has changed");
            }
            Some(SourcePlan { rate_limit, .. }) if rate_limit != source.rate_limit => {
                rate_limits.push((source.name.clone(), rate_limit));
            }
            Some(_) => {}
        }
    }
    for source in new.iter().filter(|source| named(old, &source.name).is_none()) {
        fault(&source.name, "is new");
    }
    rate_limits
}

fn memory_text(memory_max: MemoryMax) -> String {
    match memory_max {
        MemoryMax::Auto => "auto".to_owned(),
        MemoryMax::Bytes(bytes) => size_text(bytes),
    }
}

fn lateness_text(lateness: Lateness) -> String {
    match lateness {
        Lateness::Auto => "auto".to_owned(),
        Lateness::Fixed(lateness) => duration_text(lateness),
    }
}

fn path_text(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::file::read;
    use super::*;

    const OLD: &str = "[engine]\nthreads = 2\nstate_dir = '/a'\n[sources.a]\ntype = 'stdin'\n\
                       [sources.b]\ntype = 'demo'\n";

    fn plan(text: &str) -> Plan {
        read("f", text, &|_| None).into_plan().unwrap_or_else(|error| panic!("{error}"))
    }

    /// What becomes of the change of [`OLD`] to `text`: names of changes, or faults.
    fn check(text: &str, expected: Result<&[&str], &[&str]>) {
        let outcome = compare(&plan(OLD), &plan(text));
        let outcome = outcome
            .map(|changes| changes.names())
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>());
        let owned =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(outcome, expected.map(owned).map_err(owned), "{text}");
    }

    #[test]
    fn what_may_change_changes() {
        check(OLD, Ok(&[]));
        check(
            &format!(
                "{OLD}rate_limit = '1MiB/s'\n[engine.checkpoint]\ninterval = 30\n[engine.shutdown]\nlimit = 5\n\
                 [detectors.port_scan]\nports_min = 30\n[enrich]\ncontext = ['c']\n\
                 [sinks.f]\ntype = 'file'\npath = 'x'\n[log]\nlevel = 'info'\n"
            ),
            Ok(&[
                "detectors",
                "enrich.context",
                "sinks",
                "log",
                "engine.checkpoint.interval",
                "engine.shutdown.limit",
                "sources.b.rate_limit",
            ]),
        );
    }

    #[test]
    fn new_values_come_with_the_changes() {
        let new = plan(&format!("{OLD}rate_limit = '5B/s'\n[log]\nlevel = 'debug'\n"));
        let changes = compare(&plan(OLD), &new).unwrap();
        assert_eq!(changes.log, Some(new.log));
        assert_eq!(changes.rate_limits, [("b".to_owned(), RateLimit::from_text("5B/s"))]);
        assert_eq!((changes.detectors, changes.sinks), (None, None));
        let back = compare(&new, &plan(OLD)).unwrap();
        assert_eq!(back.rate_limits, [("b".to_owned(), None)]);
    }

    #[cfg(feature = "s3")]
    #[test]
    fn copies_stay_where_they_are() {
        check(
            &format!("{OLD}[engine.checkpoint]\nremote = 's3://my-bucket/x'\n"),
            Err(&["`engine.checkpoint.remote` has changed; this needs a restart"]),
        );
    }

    #[test]
    fn the_rest_needs_a_restart_and_all_of_it_is_told() {
        check(
            "[engine]\nthreads = 4\npane = 30\nlateness = '2m'\nmemory_max = '1GiB'\n\
             [engine.journal]\nfiles_max = 3\n[sources.b]\ntype = 'demo'\nseed = 7\n\
             [sources.c]\ntype = 'stdin'\n[log]\nlevel = 'info'\n",
            Err(&[
                "`engine.threads` is `2`, and the file says `4`; this needs a restart",
                "`engine.memory_max` is `auto`, and the file says `1GiB`; this needs a restart",
                "`engine.pane` is `60s`, and the file says `30s`; this needs a restart",
                "`engine.lateness` is `auto`, and the file says `2m`; this needs a restart",
                "`engine.state_dir` is `/a`, and the file says `none`; this needs a restart",
                "`engine.journal.files_max` is `16`, and the file says `3`; this needs a restart",
                "`sources.a` is no longer in the file; this needs a restart",
                "`sources.b` has changed; this needs a restart",
                "`sources.c` is new; this needs a restart",
            ]),
        );
    }
}
