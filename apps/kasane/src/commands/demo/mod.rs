//! `kasane demo`: two stock Debian kernels side by side, each in a process of its own.

mod child;
mod draw;
mod ending;
mod files;
mod keys;
mod load;
mod pane;
mod plain;
mod readable;
mod screen;
mod signalled;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use kasane_host_control::die_of;
use kasane_host_images::{Initramfs, TerminalSize};

use crate::cli::DemoArguments;
use crate::outcome::{ExitStatus, Failure};
use child::Child;
use signalled::Signalled;

/// The machines' names.
const NAMES: [&str; 2] = ["left", "right"];
/// A guest that says nothing of itself but what goes wrong, and ends when it can't go on.
const APPEND: &str = "console=ttyS0 panic=-1";
/// A boot takes much less; a demonstration that hangs must end.
const PIPE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn demo(arguments: &DemoArguments) -> Result<ExitStatus, Failure> {
    let files = files::find(arguments)?;
    let in_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let signalled = Signalled::listen()?;
    let outcome = present(arguments, &files, in_terminal, &signalled);
    match signalled.by() {
        Some(signal) => die_of(signal),
        None => outcome,
    }
}

fn present(
    arguments: &DemoArguments,
    files: &files::Files,
    in_terminal: bool,
    signalled: &Signalled,
) -> Result<ExitStatus, Failure> {
    let folder = Scratch::new()?;
    if in_terminal {
        let deadline = arguments.timeout.and_then(|time| Instant::now().checked_add(time));
        let sizes = screen::sizes()?;
        let children = start(arguments, files, folder.path(), sizes.map(Some))?;
        screen::show(children, sizes, deadline, signalled)
    } else {
        let time = arguments.timeout.unwrap_or(PIPE_TIMEOUT);
        let deadline = Instant::now().checked_add(time);
        let children = start(arguments, files, folder.path(), [None; 2])?;
        plain::show(children, deadline, signalled)
    }
}

/// Starts both machines.
fn start(
    arguments: &DemoArguments,
    files: &files::Files,
    folder: &Path,
    terminals: [Option<TerminalSize>; 2],
) -> Result<Vec<Child>, Failure> {
    let mut children = Vec::new();
    for (name, terminal) in NAMES.into_iter().zip(terminals) {
        let initrd = folder.join(format!("{name}.cpio"));
        let image = Initramfs { busybox: &files.busybox, hostname: name, terminal };
        std::fs::write(&initrd, image.build())
            .with_context(|| format!("can't write `{}`", initrd.display()))
            .map_err(|error| Failure::host(error, "make room for temporary files"))?;
        let machine = child::Machine {
            name,
            kernel: &files.kernel,
            initrd: &initrd,
            append: APPEND,
            memory: arguments.memory,
            cpus: arguments.cpus,
        };
        children.push(Child::start(&machine)?);
    }
    Ok(children)
}

/// A folder that goes away with the demonstration.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("kasane-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't make the folder `{}`", folder.display()))
            .map_err(|error| Failure::host(error, "make room for temporary files"))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}
