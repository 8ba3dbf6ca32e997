//! clap's complaints in the form of ours.

use clap::error::Error;

use crate::outcome::Failure;

/// A wrong command line: clap's sentence, its tip if it has one, and else where help is.
pub(crate) fn usage_failure(error: &Error) -> Failure {
    let rendered = error.render().to_string();
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the command line is wrong");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let details: Vec<&str> = lines
        .clone()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.starts_with("tip:"))
        .collect();
    let tip = lines.find_map(|line| line.strip_prefix("tip: "));
    let help = tip.map_or_else(|| help_command(std::env::args()), str::to_owned);
    let first = first.trim_end_matches(':').to_owned();
    let chain = if details.is_empty() {
        anyhow::Error::msg(first)
    } else {
        anyhow::Error::msg(details.join("; ")).context(first)
    };
    Failure::usage(chain, help)
}

/// Which `--help` knows more.
fn help_command(arguments: impl Iterator<Item = String>) -> String {
    let known = super::command();
    let named = arguments.skip(1).find(|word| !word.starts_with('-'));
    let command = match named.filter(|word| known.find_subcommand(word).is_some()) {
        Some(word) => format!("kasane {word} --help"),
        None => "kasane --help".to_owned(),
    };
    format!("`{command}` shows what can be said")
}
