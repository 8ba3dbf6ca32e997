//! The three places where the program runs, as commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// RAM of the guests, in MiB.
pub(super) const GUEST_MIB: u64 = 512;
const QEMU: &str = "qemu-system-x86_64";
/// `quiet` as Debian boots; a panic ends the run.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1";

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum System {
    /// A process of the host
    Native,
    /// Init of a guest in QEMU, `-accel tcg -cpu max`
    Qemu,
    /// Init of a guest in Kasane
    Kasane,
}

impl System {
    /// For tables and files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Qemu => "qemu",
            Self::Kasane => "kasane",
        }
    }

    pub(super) fn is_guest(self) -> bool {
        self != Self::Native
    }
}

/// The files that take part.
#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// The measured program
    #[arg(long)]
    pub(super) program: PathBuf,
    /// An initramfs with the program as its init
    #[arg(long)]
    pub(super) initramfs: PathBuf,
    /// The guests' kernel
    #[arg(long)]
    pub(super) kernel: PathBuf,
    /// The hosted program of Kasane
    #[arg(long)]
    pub(super) kasane: PathBuf,
}

/// What the program is asked to measure.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// Minimum time of a workload.
    pub(super) min_ms: u64,
    pub(super) set: Set,
    /// Names; all when empty.
    pub(super) only: Vec<String>,
}

/// Which workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// All but the parallel job, with one processor.
    Main,
    /// The parallel job, with two.
    Parallel,
}

impl Work {
    fn variables(&self) -> [(&'static str, String); 3] {
        let set = match self.set {
            Set::Main => "main",
            Set::Parallel => "parallel",
        };
        [
            ("BENCH_MS", self.min_ms.to_string()),
            ("BENCH_SET", set.to_owned()),
            ("BENCH_ONLY", self.only.join(",")),
        ]
    }

    fn cpus(&self) -> &'static str {
        match self.set {
            Set::Main => "1",
            Set::Parallel => "2",
        }
    }

    /// The kernel hands words that it doesn't know to init as its environment.
    fn kernel_arguments(&self) -> String {
        let mut text = KERNEL_ARGUMENTS.to_owned();
        for (name, value) in self.variables().iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!(" {name}={value}"));
        }
        text
    }
}

/// # Errors
/// When QEMU isn't installed.
pub(super) fn require_qemu() -> Result<()> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|folder| folder.join(QEMU).is_file()) {
        return Ok(());
    }
    bail!(
        "{QEMU} is not installed: `apt-get install qemu-system-x86`, or leave it out with `--systems native,kasane`"
    )
}

/// QEMU's first line about itself.
pub(super) fn qemu_version() -> Option<String> {
    let output = Command::new(QEMU).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// The command that runs `work` in `system`.
pub(super) fn command(system: System, files: &Files, engine: &str, work: &Work) -> Command {
    match system {
        System::Native => native(&files.program, work),
        System::Qemu => qemu(files, work),
        System::Kasane => kasane(files, engine, work),
    }
}

fn native(program: &Path, work: &Work) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(work.variables());
    command
}

fn qemu(files: &Files, work: &Work) -> Command {
    let mut command = Command::new(QEMU);
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", work.cpus()]);
    command.args(["-m", &format!("{GUEST_MIB}M")]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(&files.kernel).arg("-initrd").arg(&files.initramfs);
    command.arg("-append").arg(work.kernel_arguments());
    command
}

fn kasane(files: &Files, engine: &str, work: &Work) -> Command {
    let mut command = Command::new(&files.kasane);
    command.args(["run", "--engine", engine, "--cpu", "max", "--cpus", work.cpus()]);
    command.args(["--memory", &format!("{GUEST_MIB}M"), "--no-reboot", "--stats", "--json"]);
    command.arg("--kernel").arg(&files.kernel).arg("--initrd").arg(&files.initramfs);
    command.arg("--append").arg(work.kernel_arguments());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn guests_are_told_by_the_kernels_command_line_and_the_engine_is_passed_through() {
        let files = Files {
            program: "p".into(),
            initramfs: "i".into(),
            kernel: "k".into(),
            kasane: "kasane".into(),
        };
        let only = vec!["sort".to_owned(), "stat".to_owned()];
        let work = Work { min_ms: 50, set: Set::Main, only };

        let kasane = words(&command(System::Kasane, &files, "interp", &work));
        let qemu = words(&command(System::Qemu, &files, "interp", &work));

        let append = "console=ttyS0 quiet panic=-1 BENCH_MS=50 BENCH_SET=main BENCH_ONLY=sort,stat";
        assert_eq!(kasane.last().map(String::as_str), Some(append));
        assert_eq!(qemu.last().map(String::as_str), Some(append));
        assert!(kasane.windows(2).any(|pair| pair == ["--engine", "interp"]), "{kasane:?}");
    }
}
