//! The hosted VMM: the command line over [`vm`], which composes the layers below into a running
//! machine. A library beside the program, so that the conformance suite runs the same composition.

mod cli;
mod commands;
mod console;
mod critical;
mod gdb;
mod notices;
mod outcome;
mod report;
mod settings;
mod trace;
pub mod vm;

pub use cli::command;
pub use outcome::ExitStatus;

/// What `main` does.
#[must_use]
pub fn program() -> std::process::ExitCode {
    commands::main()
}
