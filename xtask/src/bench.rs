//! `cargo xtask bench`: what the measurements need is made first, then kasane-bench is started.

use crate::workspace::Workspace;
use crate::{guests, programs, suite};
use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// One program on the host, in QEMU's TCG and in Kasane: slowdowns, a chart, JSON
    Cpu {
        /// For example `--quick`, `--engine interp`, `--only sort,stat`, `--record`; `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A Debian's disk, by fio: QEMU's TCG and Kasane side by side, and the host's own file
    Disk {
        /// For example `--quick`, `--seconds 5`, `--record`; `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// A Debian's network, by iperf3 both ways: QEMU's TCG and Kasane side by side
    Net {
        /// For example `--quick`, `--seconds 5`, `--record`; `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The interpreter alone, on small loops
    Interp {
        /// Passed on to kasane-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Programs that this calls, with the packages that have them.
const EMULATOR: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
const IPERF: (&str, &str) = ("iperf3", "iperf3");

pub(crate) fn run(workspace: &Workspace, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Cpu { arguments } => cpu(workspace, arguments),
        Bench::Disk { arguments } => io(workspace, "disk", &[EMULATOR], arguments),
        Bench::Net { arguments } => io(workspace, "net", &[EMULATOR, IPERF], arguments),
        Bench::Interp { arguments } => start(workspace, "interp", Vec::new(), arguments),
    }
}

fn cpu(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    workspace.require("kasane")?;
    let measured = guests::for_bench(workspace)?;
    suite::release()?;
    let files = [
        ("--program", measured.program),
        ("--initramfs", measured.initramfs),
        ("--kernel", workspace.guests().join("cloud").join("vmlinuz")),
        ("--kasane", workspace.release_program("kasane")),
        ("--root", workspace.root.clone()),
    ];
    let files = files
        .iter()
        .flat_map(|(option, path)| [(*option).to_owned(), path.display().to_string()])
        .collect();
    start(workspace, "cpu", files, arguments)
}

fn io(
    workspace: &Workspace,
    what: &str,
    needed: &[(&str, &str)],
    arguments: &[String],
) -> Result<()> {
    workspace.require("kasane")?;
    suite::install(needed)?;
    guests::for_io_bench(workspace)?;
    suite::release()?;
    let kasane = workspace.release_program("kasane").display().to_string();
    let root = workspace.root.display().to_string();
    let files = ["--kasane", &kasane, "--root", &root].map(str::to_owned).to_vec();
    start(workspace, what, files, arguments)
}

fn start(
    workspace: &Workspace,
    what: &str,
    prepared: Vec<String>,
    arguments: &[String],
) -> Result<()> {
    let arguments = [vec![what.to_owned()], prepared, arguments.to_vec()].concat();
    programs::start(workspace, "kasane-bench", &arguments)
}
