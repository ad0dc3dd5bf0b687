//! Why a command ended without success, and how that is told: a message, its causes, an exit code.

use std::io::Write as _;

/// Exit code of a command that started and failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code of bad usage or configuration; nothing was started.
const EXIT_USAGE: u8 = 2;
/// Exit code after an interrupt: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked can't be done; nothing was started.
    Usage(anyhow::Error),
    /// It was started and failed.
    Running(anyhow::Error),
    /// It ran, but the faults that were logged make it a failure.
    Logged,
    /// The user stopped it.
    Interrupted,
    /// Whoever read the output left; nothing to say and nobody to say it to.
    OutputClosed,
}

impl Failure {
    /// Bad usage.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// A failure while running.
    pub(crate) fn running(error: impl Into<anyhow::Error>) -> Self {
        Self::Running(error.into())
    }

    /// A failure to write the output, which is quiet if its reader left.
    pub(crate) fn output(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Running(anyhow::Error::new(error).context("cannot write to standard output"))
        }
    }

    /// The error by itself, for a run that goes on.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Usage(error) | Self::Running(error) => error,
            Self::Logged | Self::Interrupted | Self::OutputClosed => {
                anyhow::anyhow!("the reason was logged")
            }
        }
    }

    /// The same, with every text passed through `hide`.
    pub(crate) fn hiding(self, hide: impl Fn(&str) -> String) -> Self {
        let hidden = |error: anyhow::Error| {
            let mut texts: Vec<String> =
                error.chain().map(|cause| hide(&cause.to_string())).collect();
            let root = texts.pop().unwrap_or_default();
            texts.into_iter().rev().fold(anyhow::Error::msg(root), anyhow::Error::context)
        };
        match self {
            Self::Usage(error) => Self::Usage(hidden(error)),
            Self::Running(error) => Self::Running(hidden(error)),
            Self::Logged | Self::Interrupted | Self::OutputClosed => self,
        }
    }

    /// Prints what there is to say to standard error and returns the exit code.
    pub(crate) fn report(&self) -> u8 {
        let (error, code) = match self {
            Self::Usage(error) => (Some(error), EXIT_USAGE),
            Self::Running(error) => (Some(error), EXIT_FAILED),
            Self::Logged => (None, EXIT_FAILED),
            Self::Interrupted => (None, EXIT_INTERRUPTED),
            Self::OutputClosed => (None, 0),
        };
        if let Some(error) = error {
            let mut stderr = std::io::stderr().lock();
            // With standard error gone, the exit code is all that is left to say.
            let _written = error
                .chain()
                .enumerate()
                .try_for_each(|(depth, cause)| match depth {
                    0 => writeln!(stderr, "error: {cause}"),
                    _ => writeln!(stderr, "  because: {cause}"),
                })
                .is_ok();
        }
        code
    }
}
