//! Every chore of the repository, one command each: `cargo xtask help` lists them.

mod bench;
mod command;
mod gates;
mod guests;
mod image;
mod layers;
mod nightly;
mod programs;
mod report;
mod size;
mod suite;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every chore of the Kasane repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Start two stock Debian guests in a split terminal (fetches them first)
    Demo {
        /// Passed on to `kasane demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// All that CI runs, from nothing: targets, guests, gates, build, every test
    Test {
        /// Passed on to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What to run before a push: fmt, clippy, layers, sizes, licences, docs, targets, tests
    Check,
    /// Check that every dependency points down the layers
    Layers,
    /// Check that no file or function is too long and that there are no stubs
    Sizes,
    /// Fetch stock guests with the system's apt and build initramfs images into target/guests
    Guests(guests::Arguments),
    /// The bare-metal hypervisor: target/hypervisor/kasane.elf and a CD, kasane.iso
    Image(image::Arguments),
    /// Compare the interpreter with this CPU (arguments go to kasane-differ)
    Differ {
        /// For example `--hours 1` or `--seed 7`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure speed: `bench cpu`, `bench disk` and `bench net` beside QEMU, `bench interp` alone
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Everything that takes longer than two minutes; records its result in docs/status.md
    Nightly(nightly::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", report::explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let workspace = Workspace::load()?;
    match chore {
        Chore::Demo { arguments } => programs::demo(&workspace, &arguments),
        Chore::Test { arguments } => suite::test(&workspace, &arguments),
        Chore::Check => suite::check(&workspace),
        Chore::Layers => gates::layers(&workspace),
        Chore::Sizes => gates::size(&workspace),
        Chore::Guests(arguments) => guests::run(&workspace, &arguments),
        Chore::Image(arguments) => image::run(&workspace, &arguments),
        Chore::Differ { arguments } => programs::differ(&workspace, &arguments),
        Chore::Bench(bench) => bench::run(&workspace, &bench),
        Chore::Nightly(arguments) => nightly::run(&workspace, &arguments),
    }
}
