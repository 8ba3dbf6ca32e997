//! The two chores that run everything: `test`, what CI runs, and `check`,
//! what a person runs before a push.

use crate::report::{Failure, explain, note, step};
use crate::workspace::{Workspace, cargo};
use crate::{command, gates, guests, image};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Programs that the build and the tests call, each with the Debian package
/// that has it. This is the only list of them.
const NEEDED: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("ld", "binutils"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("tar", "tar"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// `cargo xtask test`. Cheap gates come first; the tests come last, so that
/// the output ends with their summary.
pub(crate) fn test(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    gates::targets()?;
    install(NEEDED)?;
    gates::format(workspace)?;
    gates::layers(workspace)?;
    gates::size(workspace)?;
    guests::everything(workspace)?;
    gates::clippy(workspace)?;
    gates::bare_clippy()?;
    gates::documentation()?;
    gates::no_std(workspace)?;
    gates::windows()?;
    release()?;
    image::elf(workspace)?;
    tests(workspace, arguments)
}

/// `cargo xtask check`. Goes on after a gate that fails, so that a person
/// sees all there is to mend.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    gates::targets()?;
    let gates: [(&str, &dyn Fn() -> Result<()>); 11] = [
        ("format", &|| gates::format(workspace)),
        ("layers", &|| gates::layers(workspace)),
        ("sizes", &|| gates::size(workspace)),
        ("clippy", &|| gates::clippy(workspace)),
        ("clippy of the bare machine", &gates::bare_clippy),
        ("licences", &|| gates::licences(workspace)),
        ("documentation", &gates::documentation),
        ("no operating system", &|| gates::no_std(workspace)),
        ("Windows", &gates::windows),
        ("guests", &|| guests::everything(workspace)),
        ("tests", &|| {
            release()?;
            image::elf(workspace)?;
            tests(workspace, &[])
        }),
    ];
    let mut failed = Vec::new();
    for (name, gate) in gates {
        if let Err(error) = gate() {
            eprint!("{}", explain(&error));
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("==> all is well");
        return Ok(());
    }
    Err(Failure::new(format!("failed: {}", failed.join(", ")), "each one's messages are above")
        .into())
}

/// Whether there is a program, by its name, or a file, by its whole path.
fn is_there(what: &str) -> bool {
    if what.starts_with('/') { Path::new(what).exists() } else { command::find(what).is_some() }
}

/// Installs the packages of programs and files that are missing when that is allowed, or says how.
pub(crate) fn install(needed: &[(&str, &str)]) -> Result<()> {
    step("programs of the system", || {
        let mut missing: Vec<&str> = needed
            .iter()
            .filter(|(what, _)| !is_there(what))
            .map(|(_, package)| *package)
            .collect();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let by_hand = format!("apt-get install {}", missing.join(" "));
        let root = command::answer(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if !root || command::find("apt-get").is_none() {
            return Err(Failure::new(
                format!("packages are missing: {}", missing.join(", ")),
                format!("run as root: {by_hand}"),
            )
            .into());
        }
        note(&by_hand);
        command::answer(Command::new("apt-get").args(["update", "-qq"]))?;
        command::answer(
            Command::new("apt-get")
                .args(["install", "-qq", "--yes", "--no-install-recommends"])
                .args(missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
        Ok(())
    })
}

/// The program that tests start as a whole.
pub(crate) fn release() -> Result<()> {
    step("kasane, release build", || {
        command::run(cargo().args(["build", "--quiet", "--release", "-p", "kasane"]))
    })
}

/// Every test of the workspace. Those that start guests find them, the program and the hypervisor
/// by `KASANE_GUESTS`, `KASANE_BIN` and `KASANE_HYPERVISOR`.
fn tests(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    step("tests", || {
        command::run(with_guests(workspace, cargo().args(["test", "--workspace"]).args(arguments)))
    })
}

/// Tells a program where the guests and the release build are.
pub(crate) fn with_guests<'a>(workspace: &Workspace, command: &'a mut Command) -> &'a mut Command {
    command
        .env("KASANE_GUESTS", workspace.guests())
        .env("KASANE_BIN", workspace.release_program("kasane"))
        .env("KASANE_HYPERVISOR", image::folder(workspace))
}
