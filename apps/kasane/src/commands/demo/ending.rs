//! How a machine's process ended, read from its exit status and what it said about itself
//! (`kasane run --json`: lines of JSON on standard error).

use anyhow::Error;
use serde_json::Value;

use crate::outcome::{ExitStatus, Failure};

/// The end of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// What that means for the demonstration.
    pub(super) status: ExitStatus,
    /// In a few words.
    pub(super) words: String,
    /// What else is known, line by line.
    details: Vec<String>,
}

impl Ending {
    /// `code` is `None` if a signal ended the process; `said` is its standard error.
    pub(super) fn new(code: Option<i32>, said: &str) -> Self {
        let mut last = None;
        let mut details = Vec::new();
        for line in said.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => {
                    if matches!(text(&event, "event"), Some("end" | "error")) {
                        last = Some(event);
                    }
                }
                // A panic's message, for one.
                Err(_) => details.push(line.to_owned()),
            }
        }
        let last = last.unwrap_or_default();
        details.extend(lines_of(&last));
        let (status, words) = match (text(&last, "reason"), code) {
            (Some("powered-off"), Some(0)) => (ExitStatus::Done, "powered off".to_owned()),
            (Some("reset"), _) => (ExitStatus::GuestCrashed, "reset itself".to_owned()),
            (Some("crashed"), _) => (ExitStatus::GuestCrashed, "crashed".to_owned()),
            (_, Some(code)) => (ExitStatus::Host, format!("failed with exit status {code}")),
            (_, None) => (ExitStatus::Host, "was ended by a signal".to_owned()),
        };
        Self { status, words, details }
    }

    /// Nothing, if the machine powered off.
    pub(super) fn failure(&self, name: &str) -> Option<Failure> {
        if self.status == ExitStatus::Done {
            return None;
        }
        let what = format!("the machine `{name}` {}", self.words);
        let error = match self.details.as_slice() {
            [] => Error::msg(what),
            details => Error::msg(details.join("\n    ")).context(what),
        };
        let help = "run it alone to see more: `kasane run --kernel FILE --initrd FILE`";
        Some(Failure::with_status(self.status, error, help))
    }
}

fn text<'a>(event: &'a Value, key: &str) -> Option<&'a str> {
    event.get(key)?.as_str()
}

/// What an event says in words.
fn lines_of(event: &Value) -> Vec<String> {
    let causes = event.get("causes").and_then(Value::as_array).into_iter().flatten();
    let texts = text(event, "error").into_iter().chain(causes.filter_map(Value::as_str));
    let texts = texts.chain(text(event, "registers"));
    texts.flat_map(str::lines).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_powered_off_ended_well() {
        let off = "{\"event\":\"start\"}\n{\"event\":\"end\",\"reason\":\"powered-off\"}\n";
        let reset = "{\"event\":\"end\",\"reason\":\"reset\"}\n";

        assert_eq!(Ending::new(Some(0), off).status, ExitStatus::Done);
        assert!(Ending::new(Some(0), off).failure("left").is_none());
        assert_eq!(Ending::new(Some(0), reset).status, ExitStatus::GuestCrashed);
        assert_eq!(Ending::new(None, "").status, ExitStatus::Host);
        assert_eq!(Ending::new(Some(0), "").status, ExitStatus::Host);
    }

    #[test]
    fn a_failure_says_what_the_machine_said() {
        let said = "{\"event\":\"error\",\"error\":\"can't boot `k`\",\"causes\":[\"cut off\"]}\n";
        let failure = Ending::new(Some(2), said).failure("left").unwrap();

        assert_eq!(
            failure.to_string(),
            "error: the machine `left` failed with exit status 2\n    can't boot `k`\n    \
             cut off\nhelp: run it alone to see more: `kasane run --kernel FILE --initrd FILE`"
        );
    }
}
