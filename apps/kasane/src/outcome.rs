//! How the program ends: its exit status, and the form of its errors.

use std::fmt;

use serde::Serialize;

/// The program's exit status. A number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitStatus {
    /// The guest powered off, or the person left with `Ctrl-]`, or (with `--no-reboot`) the guest
    /// asked for a reset; for other commands: done.
    Done = 0,
    /// The command line, the definition or a file that it names is wrong.
    Usage = 2,
    /// The guest crashed: a processor shut down by a triple fault.
    GuestCrashed = 3,
    /// The time given by `--timeout` ran out.
    TimedOut = 4,
    /// The host refused something, or the program has a bug.
    Host = 5,
}

impl ExitStatus {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// For `--help` and the man page.
pub(crate) const EXIT_STATUS_HELP: &str = "\
Exit status:
  0  the guest powered off, or you left with Ctrl-]
  2  the command line, the definition or a file that it names is wrong
  3  the guest crashed (triple fault)
  4  the time given by --timeout ran out
  5  the host refused something, or kasane has a bug
  128+N  signal N ended the run";

/// An error on its way to the person: what failed, why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    status: ExitStatus,
    error: anyhow::Error,
    help: String,
}

impl Failure {
    /// Something that the person asked for is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>, help: impl Into<String>) -> Self {
        Self { status: ExitStatus::Usage, error: error.into(), help: help.into() }
    }

    /// The host refused, or we are wrong.
    pub(crate) fn host(error: impl Into<anyhow::Error>, help: impl Into<String>) -> Self {
        Self { status: ExitStatus::Host, error: error.into(), help: help.into() }
    }

    /// The time given by `--timeout` ran out.
    pub(crate) fn timed_out(error: impl Into<anyhow::Error>, help: impl Into<String>) -> Self {
        Self { status: ExitStatus::TimedOut, error: error.into(), help: help.into() }
    }

    /// Any other end.
    pub(crate) fn with_status(
        status: ExitStatus,
        error: impl Into<anyhow::Error>,
        help: impl Into<String>,
    ) -> Self {
        Self { status, error: error.into(), help: help.into() }
    }

    /// What the process ends with.
    pub(crate) fn status(&self) -> ExitStatus {
        self.status
    }

    /// For `--json`: one line.
    pub(crate) fn to_json(&self) -> String {
        let causes: Vec<String> = self.error.chain().skip(1).map(ToString::to_string).collect();
        serde_json::json!({
            "event": "error",
            "error": self.error.to_string(),
            "causes": causes,
            "help": self.help,
            "exit_status": self.status.code(),
        })
        .to_string()
    }
}

/// `error:`, one indented line per cause, `help:` with one action.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        for cause in self.error.chain().skip(1) {
            writeln!(f, "    {cause}")?;
        }
        write!(f, "help: {}", self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        let error = anyhow::anyhow!("cut off").context("can't boot `vmlinuz`");
        Failure::usage(error, "fetch the file again")
    }

    #[test]
    fn each_cause_has_a_line_and_there_is_one_action() {
        assert_eq!(
            failure().to_string(),
            "error: can't boot `vmlinuz`\n    cut off\nhelp: fetch the file again"
        );
    }

    #[test]
    fn the_json_form_says_the_same() {
        let value: serde_json::Value = serde_json::from_str(&failure().to_json()).unwrap();

        assert_eq!(value["error"], "can't boot `vmlinuz`");
        assert_eq!(value["causes"][0], "cut off");
        assert_eq!(value["exit_status"], 2);
    }
}
