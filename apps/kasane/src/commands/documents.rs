//! Documents that the program makes of itself: schema, completions, man page.

use std::io::{self, Write};

use clap::Command;
use kasane_definition::VmDefinition;

use super::print;
use crate::cli::command;
use crate::outcome::{EXIT_STATUS_HELP, ExitStatus, Failure};

pub(super) fn schema() -> Result<ExitStatus, Failure> {
    let text = serde_json::to_string_pretty(&VmDefinition::schema())
        .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    print(&format!("{text}\n"))
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitStatus, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut without_hidden(command()), "kasane", &mut bytes);
    print(&String::from_utf8_lossy(&bytes))
}

/// The generators would offer hidden flags, too; only `run` has some.
fn without_hidden(described: Command) -> Command {
    described.mut_subcommand("run", |run| {
        let arguments = run.get_arguments().filter(|one| !one.is_hide_set()).cloned();
        let about = run.get_about().cloned().unwrap_or_default();
        Command::new("run").about(about).args(arguments)
    })
}

/// One page: the program's own part, then a section for each subcommand's.
pub(super) fn man() -> Result<ExitStatus, Failure> {
    let mut bytes = Vec::new();
    page(&mut bytes).map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    print(&String::from_utf8_lossy(&bytes))
}

fn page(to: &mut Vec<u8>) -> io::Result<()> {
    let described = command();
    let program = clap_mangen::Man::new(described.clone());
    program.render_title(to)?;
    program.render_name_section(to)?;
    program.render_synopsis_section(to)?;
    program.render_description_section(to)?;
    program.render_options_section(to)?;
    for one in described.get_subcommands().filter(|one| !one.is_hide_set()) {
        let name = one.get_name();
        let section = clap_mangen::Man::new(one.clone().bin_name(format!("kasane {name}")));
        writeln!(to, ".SH \"KASANE {}\"", name.to_uppercase())?;
        section.render_synopsis_section(to)?;
        section.render_description_section(to)?;
        section.render_options_section(to)?;
        as_it_stands(to, one, Part::WithoutExitStatus)?;
    }
    writeln!(to, ".SH \"EXAMPLES AND EXIT STATUS\"")?;
    as_it_stands(to, &described, Part::All)
}

/// How much of what `--help` says at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    WithoutExitStatus,
}

/// What `--help` says at its end, with its lines kept.
fn as_it_stands(to: &mut Vec<u8>, described: &Command, part: Part) -> io::Result<()> {
    let text = described.get_after_help().map(ToString::to_string).unwrap_or_default();
    let end = match part {
        Part::All => None,
        Part::WithoutExitStatus => text.find(EXIT_STATUS_HELP),
    };
    let text = end.and_then(|end| text.get(..end)).unwrap_or(&text).trim_end();
    if text.is_empty() {
        return Ok(());
    }
    writeln!(to, ".PP\n.nf")?;
    for line in text.lines() {
        // A line that begins with a dot or a quote would be an order to the formatter.
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(to, "{guard}{line}")?;
    }
    writeln!(to, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_do_not_offer_hidden_flags() {
        let mut bytes = Vec::new();
        let mut plain = without_hidden(command());
        clap_complete::generate(clap_complete::Shell::Zsh, &mut plain, "kasane", &mut bytes);
        let text = String::from_utf8(bytes).unwrap();

        assert!(text.contains("--append"));
        assert!(!text.contains("--save-after"));
    }

    #[test]
    fn the_man_page_keeps_the_lines_of_examples_and_says_the_exit_status_once() {
        let mut bytes = Vec::new();
        page(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();

        assert!(text.contains("\n  kasane run debian.toml \\-\\-cpus 4\n"));
        assert_eq!(text.matches("Exit status:").count(), 1);
    }
}
