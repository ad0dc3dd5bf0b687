//! Standard output: JSON documents and text.

use std::io::Write as _;

use crate::cli::failure::Failure;
use crate::pipeline::Summary;

/// Form of a report on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// A report for people.
    #[default]
    Text,
    /// One line of JSON, schema flowgauge.summary/v1.
    Json,
}

/// Writes text to standard output.
pub(crate) fn write_text(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Writes a summary to standard output, as one line.
pub(crate) fn write_summary(summary: &Summary) -> Result<(), Failure> {
    let mut line = serde_json::to_string(summary).map_err(Failure::running)?;
    line.push('\n');
    write_text(&line)
}

/// Writes a note for people to standard error.
pub(crate) fn write_note(text: &str) {
    // With standard error gone there is nobody to tell.
    let _written = std::io::stderr().lock().write_all(text.as_bytes()).is_ok();
}
