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
    /// The interpreter alone, on small loops
    Interp {
        /// Passed on to kasane-bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

pub(crate) fn run(workspace: &Workspace, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Cpu { arguments } => cpu(workspace, arguments),
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

fn start(
    workspace: &Workspace,
    what: &str,
    prepared: Vec<String>,
    arguments: &[String],
) -> Result<()> {
    let arguments = [vec![what.to_owned()], prepared, arguments.to_vec()].concat();
    programs::start(workspace, "kasane-bench", &arguments)
}
