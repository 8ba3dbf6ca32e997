//! Chores that are one of our own programs, built for release and started
//! with the arguments given.

use crate::report::step;
use crate::suite::with_guests;
use crate::workspace::{Workspace, cargo};
use crate::{command, guests};
use anyhow::Result;

/// `cargo xtask demo`: the guests it shows, then `kasane demo`.
pub(crate) fn demo(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    workspace.require("kasane")?;
    guests::for_demo(workspace)?;
    start(workspace, "kasane", &[&["demo".to_owned()], arguments].concat())
}

/// `cargo xtask differ`.
pub(crate) fn differ(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    start(workspace, "kasane-differ", arguments)
}

/// Builds a program of ours for release and runs it.
pub(crate) fn start(workspace: &Workspace, package: &str, arguments: &[String]) -> Result<()> {
    workspace.require(package)?;
    step(&format!("building {package}"), || {
        command::run(cargo().args(["build", "--quiet", "--release", "-p", package]))
    })?;
    println!("==> {package} {}", arguments.join(" "));
    command::run(with_guests(
        workspace,
        cargo().args(["run", "--quiet", "--release", "-p", package, "--"]).args(arguments),
    ))
}
