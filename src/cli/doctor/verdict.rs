//! What a survey means: what is right, what is odd, what is wrong, and what to write.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Subject;
use super::needs::{self, Need};
use super::sample::Sample;
use super::survey::{Survey, guess};
use crate::config::SourceKind;
use crate::record::{FormatChoice, Layout, SAMPLE_BYTES_MAX};
use crate::units::UnixSeconds;

/// From this share on, in per cent, lines that come twice are told.
const REPEATED_PERCENT_MIN: u64 = 1;

/// How the layout of the records is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormatOrigin {
    /// Header lines or member names say it.
    Data,
    /// The configuration or the command line says it.
    Given,
    /// It is AWS's default.
    Default,
    /// It reads the lines, and what was given does not.
    Guessed,
}

impl FormatOrigin {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Given => "given",
            Self::Default => "default",
            Self::Guessed => "guessed",
        }
    }
}

/// What there is to say of one subject.
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) input_count: usize,
    pub(super) bytes_read: u64,
    pub(super) is_cut: bool,
    pub(super) wrappings: Vec<(String, u64)>,
    pub(super) control_count: u64,
    pub(super) survey: Survey,
    pub(super) layout: Option<(Arc<Layout>, FormatOrigin)>,
    /// Wall time less the newest `end`.
    pub(super) lag_seconds: Option<i64>,
    /// From the newest `end` to when the newest record came to the service.
    pub(super) delivery_seconds: Option<i64>,
    pub(super) missing: Vec<Need>,
    /// What makes the source useless.
    pub(super) errors: Vec<String>,
    /// The action that the service says is not allowed.
    pub(super) denied_action: Option<String>,
    /// What should be looked at.
    pub(super) warnings: Vec<String>,
    /// What to put into the configuration.
    pub(super) config: Option<String>,
}

impl Verdict {
    /// Judges a sample; `format` is what the user says of it, over what the subject does.
    pub(super) fn new(
        subject: &Subject,
        sample: &Sample,
        format: Option<&FormatChoice>,
        now: UnixSeconds,
    ) -> Self {
        let mut survey = Survey::of(sample, format);
        let given = format.unwrap_or(&subject.plan.format);
        let mut origin = match (survey.headers, given) {
            (1.., _) => FormatOrigin::Data,
            (0, FormatChoice::Fixed(_)) => FormatOrigin::Given,
            (0, FormatChoice::Auto) => FormatOrigin::Default,
        };
        if survey.layout().is_some_and(|layout| *layout != given.initial_layout()) {
            origin = FormatOrigin::Data;
        }
        if survey.parsed() < survey.faults.total()
            && let Some(guessed) = guess(sample)
        {
            let again = Survey::of(sample, Some(&FormatChoice::Fixed(guessed)));
            if again.parsed() > survey.parsed() {
                (survey, origin) = (again, FormatOrigin::Guessed);
            }
        }
        let layout = survey.layout().cloned().map(|layout| (layout, origin));
        let newest_end = survey.newest_end;
        let arrival = sample.newest_arrival_ms.map(|ms| ms.div_euclid(1_000));
        let mut verdict = Self {
            name: subject.plan.name.clone(),
            kind: kind_name(&subject.plan.kind),
            input_count: sample.inputs.len(),
            bytes_read: sample.bytes_read,
            is_cut: sample.is_cut,
            wrappings: wrapping_texts(sample),
            control_count: sample.control_count,
            lag_seconds: newest_end.map(|end| now.0.saturating_sub(end)),
            delivery_seconds: newest_end.zip(arrival).map(|(end, at)| at.saturating_sub(end)),
            missing: layout.iter().flat_map(|(layout, _)| needs::missing(layout)).collect(),
            layout,
            survey,
            errors: Vec::new(),
            denied_action: None,
            warnings: Vec::new(),
            config: None,
        };
        verdict.judge(sample);
        verdict.config = verdict.config_text(subject);
        verdict
    }

    fn judge(&mut self, sample: &Sample) {
        if let Some(refusal) = &sample.refusal {
            let text = refusal.to_string();
            self.denied_action = denied_action(&text);
            self.errors.push(text);
        }
        // What a refused source closed its inputs with says the same again.
        let input_faults = if sample.refusal.is_some() { &[] } else { &sample.input_faults[..] };
        let list = if self.survey.parsed() == 0 { &mut self.errors } else { &mut self.warnings };
        list.extend(input_faults.iter().map(|(name, fault)| format!("`{name}`: {fault}")));
        let (parsed, total) = (self.survey.parsed(), self.survey.total());
        if total > 0 && parsed == 0 {
            self.errors.push(format!("0 of {total} records could be read{}", self.first_sample()));
        } else if total == 0 && self.errors.is_empty() {
            self.warnings.push(if self.control_count > 0 {
                "nothing but control messages came; the subscription works, and waits for flow logs"
                    .to_owned()
            } else {
                "no record came; give it more --time, or check that flow logs are delivered here"
                    .to_owned()
            });
        } else if self.survey.faults.total() > 0 {
            let malformed = self.survey.faults.total();
            self.warnings.push(format!(
                "{malformed} of {total} records could not be read{}",
                self.first_sample()
            ));
        }
        self.judge_records();
    }

    fn judge_records(&mut self) {
        let survey = &self.survey;
        let (parsed, total) = (survey.parsed(), survey.total());
        if survey.skipdata > 0 {
            let share = percent(survey.skipdata, parsed);
            self.warnings.push(format!(
                "{share} of the records are SKIPDATA: AWS lost traffic of these interfaces, and sums are too low"
            ));
        }
        if survey.repeated * 100 >= total * REPEATED_PERCENT_MIN && survey.repeated > 0 {
            let share = percent(survey.repeated, total);
            self.warnings.push(format!(
                "{share} of the records came twice: several flow logs over one interface, or a delivery made again; they count twice"
            ));
        }
        if survey.layouts.len() > 1 {
            let count = survey.layouts.len();
            self.warnings.push(format!(
                "the records have {count} layouts: several flow logs write here; without headers only one format can be read"
            ));
        }
        if let Some((layout, FormatOrigin::Guessed)) = &self.layout {
            let text = needs::format_text(layout);
            self.warnings.push(format!(
                "the records have another format than was given; `{text}` reads them, and DescribeFlowLogs is sure (--flow-log)"
            ));
        }
    }

    fn first_sample(&self) -> String {
        let Some(sample) = self.survey.samples.first() else { return String::new() };
        let text = String::from_utf8_lossy(&sample.text[..sample.text.len().min(SAMPLE_BYTES_MAX)])
            .escape_debug()
            .to_string();
        if text.is_empty() {
            format!(": {}", sample.reason)
        } else {
            format!(": {}; the first is `{text}`", sample.reason)
        }
    }

    /// The lines of the configuration that fit what was found.
    fn config_text(&self, subject: &Subject) -> Option<String> {
        let (layout, origin) = self.layout.as_ref()?;
        if self.survey.parsed() == 0 {
            return None;
        }
        let is_default = **layout == *Layout::default_v2();
        let format = match origin {
            FormatOrigin::Data | FormatOrigin::Default => "auto".to_owned(),
            FormatOrigin::Given | FormatOrigin::Guessed if is_default => "auto".to_owned(),
            FormatOrigin::Given | FormatOrigin::Guessed => needs::format_text(layout),
        };
        let mut text = format!("[sources.{}]\n", self.name);
        match &subject.plan.kind {
            SourceKind::File { paths } if !subject.is_configured => {
                let quoted: Vec<String> = paths
                    .iter()
                    .map(|path| toml::Value::from(path.display().to_string()).to_string())
                    .collect();
                writeln!(text, "type = \"file\"\npaths = [{}]", quoted.join(", ")).ok()?;
            }
            _ => writeln!(text, "type = \"{}\"", self.kind).ok()?,
        }
        writeln!(text, "format = \"{format}\"").ok()?;
        Some(text)
    }
}

fn kind_name(kind: &SourceKind) -> &'static str {
    match kind {
        SourceKind::File { .. } => "file",
        SourceKind::Stdin => "stdin",
        SourceKind::Demo(_) => "demo",
        #[cfg(feature = "kinesis")]
        SourceKind::Kinesis(_) => "kinesis",
        #[cfg(feature = "s3")]
        SourceKind::S3(_) => "s3",
        #[cfg(feature = "cloudwatch")]
        SourceKind::CloudWatch(_) => "cloudwatch_logs",
        #[cfg(feature = "firehose")]
        SourceKind::Firehose(_) => "firehose_http",
    }
}

fn wrapping_texts(sample: &Sample) -> Vec<(String, u64)> {
    let mut texts: Vec<(String, u64)> =
        sample.wrappings.iter().map(|(names, count)| (names.join(" > "), *count)).collect();
    texts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    texts
}

/// A part of a whole for people: `0.4 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// The action that a service says is missing: `… is not authorized to perform: SERVICE:ACTION on resource …`.
fn denied_action(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("not authorized to perform")?;
    let action = rest.trim_start_matches([':', ' ']).split([' ', ',', ';', ')']).next()?;
    let is_action = action.split_once(':').is_some_and(|(service, name)| {
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        is_word(service) && is_word(name)
    });
    is_action.then(|| action.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_that_is_missing_is_read_out_of_the_answer() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(denied_action(message).as_deref(), expected, "{message}");
        };
        check(
            "AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/r/s is not authorized to perform: kinesis:ListShards on resource: arn:aws:kinesis:eu-west-1:123456789012:stream/s because no identity-based policy allows the kinesis:ListShards action",
            Some("kinesis:ListShards"),
        );
        check(
            "… is not authorized to perform: logs:FilterLogEvents on resource: x",
            Some("logs:FilterLogEvents"),
        );
        check("You are not authorized to perform this operation.", None);
        check("no such stream", None);
    }

    #[test]
    fn shares_are_per_cents() {
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "0 %");
    }
}
