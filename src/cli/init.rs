//! `flowgauge init`: the documented default configuration, or the JSON schema of configurations, to
//! standard output or into a file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::failure::Failure;
use super::output;
use crate::config::{DEFAULT_CONFIG, schema};

/// Write a configuration with every key, its default, unit and range
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file does not change what runs: it shows every key at its default. It may come to hold secrets, so
only its owner may read it.

Examples:
  flowgauge init --output flowgauge.toml
  flowgauge init --schema > flowgauge.schema.json")]
pub(crate) struct InitArgs {
    /// Write to this file, which must not exist, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    force: bool,
    /// The JSON schema of configurations, for editors and checks
    #[arg(long)]
    schema: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InitArgs) -> Result<(), Failure> {
    let text = if args.schema {
        let schema = serde_json::to_string_pretty(&schema()).map_err(Failure::running)?;
        format!("{schema}\n")
    } else {
        DEFAULT_CONFIG.to_owned()
    };
    let Some(path) = &args.output else { return output::write_text(&text) };
    let written = if args.force { replace(path, &text) } else { write_new(path, &text) };
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !args.force => {
            Err(Failure::usage(anyhow::anyhow!(
                "`{}` exists; name another file, or replace it with `--force`",
                path.display()
            )))
        }
        outcome => outcome
            .with_context(|| format!("cannot write `{}`", path.display()))
            .map_err(Failure::Running),
    }
}

/// Writes a file that must not exist, for its owner alone.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes beside the file and renames, so that whoever reads it sees the whole of the old or of the new.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = write_new(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // What could not be written may not be there to be removed; the first fault is the one to tell.
        let _removed = std::fs::remove_file(&beside).is_ok();
    }
    written
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
