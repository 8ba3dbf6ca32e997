//! What a change has to pass besides its tests. Each gate is one step; the
//! chores `check` and `test` are lists of them.

use crate::report::{Failure, note, step};
use crate::workspace::{Workspace, cargo};
use crate::{command, guests, layers, size};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Freestanding: what `spec` and `core` have to build for.
pub(crate) const NO_OS: &str = "x86_64-unknown-none";
/// The host that keeps us honest about what is Linux and what isn't.
pub(crate) const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// The targets' standard libraries, through rustup where there is one.
pub(crate) fn targets() -> Result<()> {
    step("rust targets", || {
        let missing: Vec<&str> =
            [NO_OS, WINDOWS].into_iter().filter(|target| !has_target(target)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if command::find("rustup").is_none() {
            return Err(Failure::new(
                format!("rustc lacks the targets {}", missing.join(" and ")),
                "install them with the package manager that Rust came from, or use rustup",
            )
            .into());
        }
        command::run(Command::new("rustup").args(["target", "add"]).args(missing))
    })
}

/// A target is there when its `core` is.
fn has_target(target: &str) -> bool {
    let mut question = Command::new("rustc");
    question.args(["--print", "target-libdir", "--target", target]);
    let Ok(folder) = command::answer(&mut question) else {
        return false;
    };
    let Ok(mut entries) = std::fs::read_dir(folder.trim()) else {
        return false;
    };
    entries.any(|entry| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// The package that is in a workspace of its own.
fn drivers(workspace: &Workspace) -> PathBuf {
    workspace.root.join(guests::DRIVERS_FOLDER).join("Cargo.toml")
}

/// Formatting, of every package.
pub(crate) fn format(workspace: &Workspace) -> Result<()> {
    step("format", || {
        command::run(cargo().args(["fmt", "--all", "--", "--check"]))?;
        let mut format = cargo();
        format.args(["fmt", "--manifest-path"]).arg(drivers(workspace)).args(["--", "--check"]);
        command::run(&mut format)
    })
}

/// The layers' rule.
pub(crate) fn layers(workspace: &Workspace) -> Result<()> {
    step("layers", || layers::check(workspace))
}

/// The size rule.
pub(crate) fn size(workspace: &Workspace) -> Result<()> {
    step("sizes", || size::check(&workspace.root))
}

/// Clippy over everything, warnings denied.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    step("clippy", || {
        command::run(cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))?;
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--locked", "--target", NO_OS, "--manifest-path"]);
        clippy.arg(drivers(workspace)).arg("--target-dir").arg(&workspace.target);
        command::run(clippy.args(["--", "-D", "warnings"]))
    })
}

/// Clippy over what only the bare machine has.
pub(crate) fn bare_clippy() -> Result<()> {
    step("clippy of the bare machine", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "-p", "kasane-hypervisor", "-p", "kasane-metal-*"]);
        command::run(clippy.args(["--target", NO_OS, "--", "-D", "warnings"]))
    })
}

/// `spec` and `core` without an operating system.
pub(crate) fn no_std(workspace: &Workspace) -> Result<()> {
    step("spec and core without an operating system", || {
        let mut build = cargo();
        build.args(["build", "--quiet", "--lib", "--target", NO_OS]);
        let packages = [workspace.in_layer("spec"), workspace.in_layer("core")].concat();
        for package in &packages {
            build.args(["-p", package]);
        }
        note(format_args!("{} packages for {NO_OS}", packages.len()));
        command::run(&mut build)
    })
}

/// The hosted program for a host that isn't Unix.
pub(crate) fn windows() -> Result<()> {
    step("kasane for Windows", || {
        command::run(cargo().args(["check", "--quiet", "-p", "kasane", "--target", WINDOWS]))
    })
}

/// Documentation builds, and every link in it leads somewhere.
pub(crate) fn documentation() -> Result<()> {
    step("documentation", || {
        command::run(
            cargo()
                .args(["doc", "--quiet", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })
}

/// Licences, sources and duplicates of dependencies, as `deny.toml` allows them.
pub(crate) fn licences(workspace: &Workspace) -> Result<()> {
    step("licences", || {
        let own = workspace.root.join("target").join("tools");
        let program = match command::find("cargo-deny") {
            Some(installed) => installed,
            None => installed_deny(&own)?,
        };
        [workspace.root.join("Cargo.toml"), drivers(workspace)].iter().try_for_each(|manifest| {
            command::run(
                Command::new(&program)
                    .args(["--log-level", "error", "--manifest-path"])
                    .arg(manifest)
                    .arg("--config")
                    .arg(workspace.root.join("deny.toml"))
                    .args(["check", "licenses", "bans", "sources"])
                    .current_dir(&workspace.root),
            )
        })
    })
}

/// cargo-deny under `target/`, built the first time.
fn installed_deny(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let program = folder.join("bin").join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        note(
            "building cargo-deny into target/tools, once; `cargo install --locked cargo-deny` puts one into your home",
        );
        command::run(
            cargo().args(["install", "--quiet", "--locked", "cargo-deny", "--root"]).arg(folder),
        )?;
    }
    Ok(program)
}
