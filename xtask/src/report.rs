//! What a person sees of a chore: a line when a step begins, one with its time
//! when it ends, and errors that say what to do next.

use std::fmt;
use std::time::Instant;

/// Prints `==> what`, does it, and prints how long it took.
pub(crate) fn step<T>(what: &str, action: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("==> {what}");
    let started = Instant::now();
    let outcome = action();
    let seconds = started.elapsed().as_secs_f64();
    match &outcome {
        Ok(_) => println!("    done in {seconds:.1} s"),
        Err(_) => println!("    FAILED after {seconds:.1} s"),
    }
    outcome
}

/// One indented line inside a step.
pub(crate) fn note(text: impl fmt::Display) {
    println!("    {text}");
}

/// An error with the one action that is most likely to mend it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    help: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The text for the end of a failed run: `error:`, a line for each cause, `help:`.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        text.push_str(&format!("help: {}\n", failure.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explained_error_lists_causes_and_the_help() {
        let error = anyhow::Error::new(Failure::new("no apt-get here", "use a Debian system"))
            .context("could not fetch the guests");

        let text = explain(&error);

        assert_eq!(
            text,
            "error: could not fetch the guests\n  because: no apt-get here\nhelp: use a Debian system\n"
        );
    }
}
