//! What is to run, checked and complete: the only thing that starts a pipeline.
//!
//! A plan comes from a configuration file, from the command line of `analyze`, or is the built-in
//! demo.

use std::path::PathBuf;

use crate::aggregate::TalkerSpec;
use crate::detect::DetectSettings;
use crate::record::FormatChoice;
use crate::source::DemoSettings;
#[cfg(feature = "cloudwatch")]
use crate::source::cloudwatch::CloudWatchSettings;
#[cfg(feature = "firehose")]
use crate::source::firehose::FirehoseSettings;
#[cfg(feature = "kinesis")]
use crate::source::kinesis::KinesisSettings;
#[cfg(feature = "s3")]
use crate::source::s3::S3Settings;
use crate::units::RateLimit;

use super::engine::EnginePlan;
use super::log::LogPlan;

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Limits and pace of the whole.
    pub engine: EnginePlan,
    /// Where records come from; at least one.
    pub sources: Vec<SourcePlan>,
    /// What is looked for, and from which figures on.
    pub detectors: DetectSettings,
    /// Files that say what the operator knows of the network.
    pub context: Vec<PathBuf>,
    /// Tops of sliding windows.
    pub talkers: Vec<TalkerSpec>,
    /// Where findings and tops of windows go; at least one.
    pub sinks: Vec<SinkPlan>,
    /// What is logged, and how.
    pub log: LogPlan,
}

impl Plan {
    /// What runs without a configuration: generated records, findings on standard output.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            engine: EnginePlan::default(),
            sources: vec![SourcePlan {
                name: "demo".to_owned(),
                kind: SourceKind::Demo(DemoSettings::default()),
                format: FormatChoice::Auto,
                rate_limit: None,
            }],
            detectors: DetectSettings::default(),
            context: Vec::new(),
            talkers: Vec::new(),
            sinks: vec![SinkPlan::stdout()],
            log: LogPlan::default(),
        }
    }

    /// What an operator should know before this runs, for people.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.engine.state_dir.is_none() {
            notes.push(
                "`engine.state_dir` is not set: nothing is saved, and a restart begins anew"
                    .to_owned(),
            );
        }
        let takes = |input| self.sinks.iter().any(|sink| sink.inputs.contains(&input));
        if !takes(SinkInput::Findings) {
            notes.push(
                "no sink takes findings: add `\"findings\"` to the `inputs` of one".to_owned(),
            );
        }
        if !self.talkers.is_empty() && !takes(SinkInput::Talkers) {
            notes.push(
                "no sink takes `\"talkers\"`: tops of windows are in the summary at the end alone"
                    .to_owned(),
            );
        }
        notes
    }
}

/// One source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePlan {
    /// The name in the configuration: `[a-z0-9_-]+`.
    pub name: String,
    /// Which kind, with its settings.
    pub kind: SourceKind,
    /// Which layout its lines have until a header says otherwise.
    pub format: FormatChoice,
    /// How fast it is read at most.
    pub rate_limit: Option<RateLimit>,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Files, directories and patterns, as [`crate::source::discover`] takes them.
    File {
        /// At least one.
        paths: Vec<PathBuf>,
    },
    /// Standard input until its end.
    Stdin,
    /// Generated records with planted attacks.
    Demo(DemoSettings),
    /// A Kinesis data stream.
    #[cfg(feature = "kinesis")]
    Kinesis(Box<KinesisSettings>),
    /// Log groups of CloudWatch Logs.
    #[cfg(feature = "cloudwatch")]
    CloudWatch(CloudWatchSettings),
    /// Objects of S3 that a queue tells of, or that are listed.
    #[cfg(feature = "s3")]
    S3(S3Settings),
    /// The HTTPS endpoint that Firehose delivers to.
    #[cfg(feature = "firehose")]
    Firehose(FirehoseSettings),
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPlan {
    /// The name in the configuration: `[a-z0-9_-]+`.
    pub name: String,
    /// Which kind, with its settings.
    pub kind: SinkKind,
    /// What it takes; at least one, each once.
    pub inputs: Vec<SinkInput>,
}

impl SinkPlan {
    /// The sink of a configuration that names none.
    #[must_use]
    pub fn stdout() -> Self {
        let inputs = vec![SinkInput::Findings];
        Self { name: "stdout".to_owned(), kind: SinkKind::Stdout, inputs }
    }
}

/// What a sink may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkInput {
    /// What detectors say.
    Findings,
    /// Tops of windows.
    Talkers,
}

impl SinkInput {
    /// The words of the configuration.
    pub const WORDS: [(&str, Self); 2] = [("findings", Self::Findings), ("talkers", Self::Talkers)];
}

/// The kinds of sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Findings as lines of JSON on standard output.
    Stdout,
    /// Findings as lines of JSON at the end of a file.
    File {
        /// The file; its directory must exist.
        path: PathBuf,
    },
}
