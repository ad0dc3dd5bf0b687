//! The configuration as written: which tables and keys a file has, read into a plan.
//!
//! A key is asked for in one place here, with its limits from the plan; what nobody asks for is
//! unknown. A new kind of source or sink is a new arm of the `match` on `type`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::detect::DetectSettings;
use crate::record::FormatChoice;
use crate::source::DemoSettings;
#[cfg(feature = "firehose")]
use crate::source::firehose::{FirehoseSettings, TlsFiles};

use super::engine::EnginePlan;
use super::fault::{ConfigError, ConfigFault, FaultList, SpannedFault, SpannedFaultKind};
use super::log::LogPlan;
use super::noise;
use super::plan::{Plan, SinkInput, SinkKind, SinkPlan, SourceKind, SourcePlan};
use super::reader::{Document, ResolvedReference, TableReader, Text, Variables, listed};
use super::suggest::nearest;
use super::talkers;

const SOURCE_TYPES: [&str; 7] =
    ["file", "stdin", "demo", "kinesis", "s3", "cloudwatch_logs", "firehose_http"];
const SINK_TYPES: [&str; 2] = ["stdout", "file"];

/// What a file says, with everything that is wrong with it. Whoever shows what is in it lets
/// [`References::hide`] see that first.
#[derive(Debug)]
pub struct Reading {
    file: String,
    /// Complete only if there are no faults.
    plan: Plan,
    faults: Vec<ConfigFault>,
    files: Vec<FileMention>,
    references: References,
}

/// The texts that a configuration takes from environment variables and files, to keep them out of what is
/// shown.
#[derive(Clone, Default)]
pub struct References(Vec<ResolvedReference>);

/// A shorter text can't be told from ordinary words, and is nobody's secret.
const HIDDEN_BYTES_MIN: usize = 4;

impl References {
    /// `text` with the reference in the place of every such content.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let is_long =
            |reference: &&ResolvedReference| reference.content.expose().len() >= HIDDEN_BYTES_MIN;
        self.0.iter().filter(is_long).fold(text.to_owned(), |text, reference| {
            text.replace(reference.content.expose(), &reference.written)
        })
    }
}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|reference| &reference.written)).finish()
    }
}

impl Reading {
    /// The plan, if nothing is wrong.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with all faults.
    pub fn into_plan(self) -> Result<Plan, ConfigError> {
        match FaultList::new(&self.file, self.faults) {
            None => Ok(self.plan),
            Some(faults) => Err(ConfigError::Faults(faults)),
        }
    }

    /// Adds a fault that only a look outside the file can find.
    pub fn add_fault(&mut self, fault: ConfigFault) {
        self.faults.push(fault);
    }

    /// What the configuration takes from elsewhere.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// The files that the configuration names, in their order.
    #[must_use]
    pub fn files(&self) -> &[FileMention] {
        &self.files
    }
}

/// A path that stands in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMention {
    /// The path as written.
    pub path: PathBuf,
    /// What it is for.
    pub role: FileRole,
    /// Line of the value, from 1.
    pub line: usize,
    /// Column of the value, from 1.
    pub column: usize,
}

/// What a path of the configuration is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// Flow logs to read: a file, directory or pattern.
    Source,
    /// What the operator knows of the network.
    Context,
    /// Addresses that are known to be bad.
    ThreatList,
    /// A file that findings or dead letters are appended to.
    Sink,
    /// The directory of snapshots and journal.
    State,
    /// The value of `key`, of a TLS server's files.
    #[cfg(feature = "firehose")]
    Tls {
        /// `certificate` or `private_key`.
        key: &'static str,
        /// Both.
        files: TlsFiles,
    },
}

/// Reads the plan of a file, with the environment variables of the process.
///
/// # Errors
/// [`ConfigError::Unreadable`], or [`ConfigError::Faults`] with everything that is wrong.
pub fn load(path: &Path) -> Result<Plan, ConfigError> {
    read_file(path)?.into_plan()
}

/// Reads a file without judging it yet, with the environment variables of the process.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn read_file(path: &Path) -> Result<Reading, ConfigError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(read(&name, &text, &process_variables)),
        Err(source) => Err(ConfigError::Unreadable { path: name, source }),
    }
}

/// The process's environment; a variable that is not UTF-8 counts as not set.
#[must_use]
pub fn process_variables(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the text of a configuration; messages call it `file`.
#[must_use]
pub fn read(file: &str, text: &str, variables: &Variables<'_>) -> Reading {
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    let syntax_faults: Vec<SpannedFault> = syntax_errors.iter().map(syntax_fault).collect();
    let mut draft = Draft::default();
    let resolved = RefCell::default();
    let document = Document { text, variables, resolved: &resolved };
    let root = TableReader::root(document, table.into_inner());
    let mut faults = draft.read_root(root);
    if !syntax_faults.is_empty() {
        retain_independent(text, &mut faults, &syntax_faults);
        faults.extend(syntax_faults);
    }
    let place = |span: &Range<usize>, message| ConfigFault::at(text, span.start, message);
    let files = draft.files.into_iter().map(|(role, path)| {
        let ConfigFault { line, column, .. } = place(&path.span, String::new());
        FileMention { path: PathBuf::from(path.content), role, line, column }
    });
    let mut references = resolved.take();
    // A content may be part of another one: the longer goes first.
    references.sort_by_key(|reference| Reverse(reference.content.expose().len()));
    Reading {
        file: file.to_owned(),
        plan: draft.plan,
        files: files.collect(),
        faults: faults.into_iter().map(|fault| place(&fault.span, fault.message)).collect(),
        references: References(references),
    }
}

fn syntax_fault(error: &toml::de::Error) -> SpannedFault {
    let message = match error.message() {
        "duplicate key" => {
            "this table or key stands in the file a second time; merge the two".to_owned()
        }
        message => format!("not TOML: {message}"),
    };
    let span = error.span().unwrap_or_default();
    SpannedFault { span, message, kind: SpannedFaultKind::Wrong }
}

/// Keeps the faults that a broken line can't have caused: nothing on such a line, nothing that is
/// only missing, and nothing after a broken table header, whose keys have landed elsewhere.
fn retain_independent(text: &str, faults: &mut Vec<SpannedFault>, syntax_faults: &[SpannedFault]) {
    let line_of = |offset: usize| ConfigFault::at(text, offset, String::new()).line;
    let broken_lines: Vec<usize> =
        syntax_faults.iter().map(|fault| line_of(fault.span.start)).collect();
    let is_header = |line: usize| {
        text.lines().nth(line - 1).is_some_and(|line| line.trim_start().starts_with('['))
    };
    let first_broken_header = broken_lines.iter().copied().filter(|line| is_header(*line)).min();
    faults.retain(|fault| {
        let line = line_of(fault.span.start);
        fault.kind == SpannedFaultKind::Wrong
            && !broken_lines.contains(&line)
            && first_broken_header.is_none_or(|header| line < header)
    });
}

/// The plan while the file is read.
struct Draft {
    plan: Plan,
    files: Vec<(FileRole, Text)>,
    /// Which source reads standard input.
    stdin_source: Option<String>,
}

impl Default for Draft {
    fn default() -> Self {
        let plan = Plan { sources: Vec::new(), sinks: Vec::new(), ..Plan::demo() };
        Self { plan, files: Vec::new(), stdin_source: None }
    }
}

impl Draft {
    fn read_root(&mut self, mut root: TableReader<'_>) -> Vec<SpannedFault> {
        if let Some(mut engine) = root.table("engine") {
            self.plan.engine = EnginePlan::read(&mut engine, &mut self.files);
            root.absorb(engine);
        }
        let sources = root.tables_of("sources");
        if sources.is_empty() {
            root.missing(
                "the file has no source; add a table like `[sources.prod]` with `type = \"kinesis\"`"
                    .to_owned(),
            );
        }
        for (name, table) in sources {
            self.read_source(name, table, &mut root);
        }
        if let Some(mut detectors) = root.table("detectors") {
            if let Some(settings) = detectors.component::<DetectSettings>() {
                for (name, fault) in settings.check() {
                    let path = detectors.path_of(name);
                    detectors.wrong(detectors.span.clone(), format!("`[{path}]`: {fault}"));
                }
                for path in &settings.suspicious_ip.lists {
                    let (content, span) = (path.display().to_string(), detectors.span.clone());
                    let list = Text { shown: content.clone(), content, span };
                    self.files.push((FileRole::ThreatList, list));
                }
                self.plan.detectors = settings;
            }
            root.absorb(detectors);
        }
        if let Some(mut table) = root.table("noise") {
            self.plan.detectors.noise = noise::read(&mut table);
            root.absorb(table);
        }
        if let Some(mut enrich) = root.table("enrich") {
            for path in enrich.texts("context").unwrap_or_default() {
                self.plan.context.push(PathBuf::from(&path.content));
                self.files.push((FileRole::Context, path));
            }
            root.absorb(enrich);
        }
        for (name, mut table) in root.tables_of("talkers") {
            check_name(&name, "talkers", &mut table);
            let pane_seconds = self.plan.engine.pane.as_secs();
            self.plan.talkers.extend(talkers::read(&name, &mut table, pane_seconds));
            root.absorb(table);
        }
        for (name, table) in root.tables_of("sinks") {
            self.read_sink(name, table, &mut root);
        }
        if self.plan.sinks.is_empty() {
            self.plan.sinks.push(SinkPlan::stdout());
        }
        if let Some(mut log) = root.table("log") {
            self.plan.log = LogPlan::read(&mut log);
            root.absorb(log);
        }
        root.finish()
    }

    fn read_source<'a>(
        &mut self,
        name: String,
        mut table: TableReader<'a>,
        root: &mut TableReader<'a>,
    ) {
        check_name(&name, "source", &mut table);
        let Some(type_name) = component_type(&mut table, &SOURCE_TYPES) else {
            root.absorb_unfinished(table);
            return;
        };
        let format = format_choice(&mut table);
        let rate_limit = table.rate("rate_limit");
        if let Some(kind) = self.source_kind(type_name, &name, &mut table) {
            self.plan.sources.push(SourcePlan { name, kind, format, rate_limit });
        }
        root.absorb(table);
    }

    fn source_kind(
        &mut self,
        type_name: &str,
        name: &str,
        table: &mut TableReader<'_>,
    ) -> Option<SourceKind> {
        match type_name {
            "file" => {
                let faults_before = table.faults.len();
                let paths = table.texts("paths").unwrap_or_default();
                if paths.is_empty() && table.faults.len() == faults_before {
                    table.missing(format!(
                        "`[{}]` names no file; add `paths = [\"DIRECTORY, FILE or PATTERN\"]`",
                        table.path
                    ));
                }
                let kind = SourceKind::File {
                    paths: paths.iter().map(|path| PathBuf::from(&path.content)).collect(),
                };
                self.files.extend(paths.into_iter().map(|path| (FileRole::Source, path)));
                Some(kind)
            }
            "stdin" => {
                if let Some(other) = &self.stdin_source {
                    table.wrong(
                        table.span.clone(),
                        format!(
                            "source `{name}` reads standard input, as source `{other}` does; remove one"
                        ),
                    );
                }
                self.stdin_source = Some(name.to_owned());
                Some(SourceKind::Stdin)
            }
            "demo" => {
                let settings: DemoSettings = table.component()?;
                if let Err(fault) = settings.check() {
                    table.wrong(table.span.clone(), format!("`[{}]`: {fault}", table.path));
                }
                Some(SourceKind::Demo(settings))
            }
            "kinesis" => kinesis(table),
            "s3" => s3(table),
            "cloudwatch_logs" => cloudwatch(table),
            "firehose_http" => firehose(table, &mut self.files),
            other => unreachable!("`{other}` is not in SOURCE_TYPES"),
        }
    }

    fn read_sink<'a>(
        &mut self,
        name: String,
        mut table: TableReader<'a>,
        root: &mut TableReader<'a>,
    ) {
        check_name(&name, "sink", &mut table);
        let Some(type_name) = component_type(&mut table, &SINK_TYPES) else {
            root.absorb_unfinished(table);
            return;
        };
        let inputs = self.sink_inputs(&mut table);
        let kind = match type_name {
            "stdout" => Some(SinkKind::Stdout),
            "file" => table
                .required_text("path", "add `path = \"FILE\"`, the file that findings go to")
                .map(|path| {
                    let kind = SinkKind::File { path: PathBuf::from(&path.content) };
                    self.files.push((FileRole::Sink, path));
                    kind
                }),
            other => unreachable!("`{other}` is not in SINK_TYPES"),
        };
        self.plan.sinks.extend(kind.map(|kind| SinkPlan { name, kind, inputs }));
        root.absorb(table);
    }

    /// What a sink takes: findings, unless it says something else.
    fn sink_inputs(&self, table: &mut TableReader<'_>) -> Vec<SinkInput> {
        let path = table.path_of("inputs");
        let Some(written) = table.texts("inputs") else { return vec![SinkInput::Findings] };
        let mut inputs = Vec::new();
        for Text { content, span, shown } in written {
            match SinkInput::WORDS.iter().find(|(word, _)| *word == content) {
                None => {
                    let words = listed(&SinkInput::WORDS.map(|(word, _)| word));
                    let message = format!("an item of `{path}` is {shown}; it must be one of {words}");
                    table.wrong(span, message);
                }
                Some((_, SinkInput::Talkers)) if self.plan.talkers.is_empty() => table.wrong(
                    span,
                    format!(
                        "`{path}` has `talkers`, of which the file has none; add a table like `[talkers.senders]` with `by = [\"srcaddr\"]`"
                    ),
                ),
                Some((_, input)) if !inputs.contains(input) => inputs.push(*input),
                Some(_) => {}
            }
        }
        if inputs.is_empty() { vec![SinkInput::Findings] } else { inputs }
    }
}

#[cfg(feature = "kinesis")]
fn kinesis(table: &mut TableReader<'_>) -> Option<SourceKind> {
    table.component().map(Box::new).map(SourceKind::Kinesis)
}

#[cfg(not(feature = "kinesis"))]
fn kinesis(table: &mut TableReader<'_>) -> Option<SourceKind> {
    left_out(table, "reads Kinesis", "kinesis")
}

#[cfg(feature = "s3")]
fn s3(table: &mut TableReader<'_>) -> Option<SourceKind> {
    table.component().map(SourceKind::S3)
}

#[cfg(not(feature = "s3"))]
fn s3(table: &mut TableReader<'_>) -> Option<SourceKind> {
    left_out(table, "reads S3", "s3")
}

#[cfg(feature = "cloudwatch")]
fn cloudwatch(table: &mut TableReader<'_>) -> Option<SourceKind> {
    table.component().map(SourceKind::CloudWatch)
}

#[cfg(not(feature = "cloudwatch"))]
fn cloudwatch(table: &mut TableReader<'_>) -> Option<SourceKind> {
    left_out(table, "reads CloudWatch Logs", "cloudwatch")
}

#[cfg(feature = "firehose")]
fn firehose(table: &mut TableReader<'_>, files: &mut Vec<(FileRole, Text)>) -> Option<SourceKind> {
    let spans = ["certificate", "private_key"].map(|key| (key, table.span_of(key)));
    let settings: FirehoseSettings = table.component()?;
    if let Some(tls) = &settings.tls {
        for ((key, span), path) in spans.into_iter().zip([&tls.certificate, &tls.private_key]) {
            let content = path.display().to_string();
            let text = Text { shown: format!("`{content}`"), content, span };
            files.push((FileRole::Tls { key, files: tls.clone() }, text));
        }
    }
    Some(SourceKind::Firehose(settings))
}

#[cfg(not(feature = "firehose"))]
fn firehose(table: &mut TableReader<'_>, _: &mut Vec<(FileRole, Text)>) -> Option<SourceKind> {
    left_out(table, "is an endpoint for Firehose", "firehose")
}

/// A kind of source that this build does not have.
#[cfg(not(all(
    feature = "kinesis",
    feature = "s3",
    feature = "cloudwatch",
    feature = "firehose"
)))]
fn left_out(table: &mut TableReader<'_>, does: &str, feature: &str) -> Option<SourceKind> {
    table.table = DeTable::new();
    let path = &table.path;
    let message = format!(
        "`[{path}]` {does}, which this build leaves out; build with the feature `{feature}`"
    );
    table.wrong(table.span.clone(), message);
    None
}

fn check_name(name: &str, what: &str, table: &mut TableReader<'_>) {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
    };
    if name.is_empty() || !name.bytes().all(is_allowed) {
        let name = name.escape_debug();
        table.wrong(
            table.span.clone(),
            format!("{what} name `{name}` has other characters than `a-z`, `0-9`, `_` and `-`; rename it"),
        );
    }
}

/// Takes `type`; `None` if it is absent or none of `types`, so that the other keys have no meaning.
fn component_type(table: &mut TableReader<'_>, types: &[&'static str]) -> Option<&'static str> {
    let all = listed(types);
    let written = table.required_text("type", &format!("add one of {all}"))?;
    let found = types.iter().copied().find(|name| *name == written.content);
    if found.is_none() {
        let hint = nearest(&written.content, types.iter().copied())
            .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        let path = table.path_of("type");
        let shown = written.shown;
        table.wrong(
            written.span,
            format!("field `{path}` is {shown}; it must be one of {all}{hint}"),
        );
    }
    found
}

fn format_choice(table: &mut TableReader<'_>) -> FormatChoice {
    let Some(written) = table.text("format") else { return FormatChoice::Auto };
    FormatChoice::from_text(&written.content).unwrap_or_else(|error| {
        let path = table.path_of("format");
        table.wrong(written.span, format!("field `{path}`: {error}"));
        FormatChoice::Auto
    })
}
