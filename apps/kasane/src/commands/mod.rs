//! The subcommands, one file each.

mod demo;
mod disk;
mod documents;
mod info;
mod jitdump;
mod run;
mod sandbox;
mod saving;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command, usage_failure};
use crate::outcome::{ExitStatus, Failure};
use crate::report::Form;

/// What `main` does: read the command line, do it, print how it failed.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` are no errors.
        Err(error) if !error.use_stderr() => {
            let _closed = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _closed = error.print();
            return ExitCode::from(ExitStatus::Usage.code());
        }
        Err(error) => {
            let form = Form::from_json(std::env::args().any(|word| word == "--json"));
            return failed(form, &usage_failure(&error));
        }
    };
    let (form, outcome) = match cli.command {
        Command::Run(arguments) => {
            let form = Form::from_json(arguments.json);
            (form, run::run(*arguments, form))
        }
        Command::Demo(arguments) => (Form::Text, demo::demo(&arguments)),
        Command::Disk(arguments) => {
            let form = Form::from_json(arguments.json());
            (form, disk::disk(&arguments.command))
        }
        Command::Info(arguments) => {
            let form = Form::from_json(arguments.json);
            (form, info::info(form))
        }
        Command::Schema => (Form::Text, documents::schema()),
        Command::Completions { shell } => (Form::Text, documents::completions(shell)),
        Command::Man => (Form::Text, documents::man()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status.code()),
        Err(failure) => failed(form, &failure),
    }
}

fn failed(form: Form, failure: &Failure) -> ExitCode {
    form.failure(failure);
    ExitCode::from(failure.status().code())
}

/// Prints a document to standard output. A reader that has enough is no error.
fn print(text: &str) -> Result<ExitStatus, Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(ExitStatus::Done),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitStatus::Done),
        Err(error) => Err(Failure::host(
            anyhow::Error::new(error).context("can't write to standard output"),
            "send the output to a file or pipe that takes it",
        )),
    }
}
