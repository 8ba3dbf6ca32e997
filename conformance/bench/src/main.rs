//! `cargo xtask bench`: measurements of the engines. Figures are printed, never judged: a
//! benchmark is not a test. Only a wrong result of the measured work fails a run.

mod cpu;
mod host;
mod interp;
#[cfg(target_os = "linux")]
mod io;
mod page;
mod statistics;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the engines' speed.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One program in three places, side by side: on the host, in QEMU's TCG and in Kasane
    Cpu(Box<cpu::Options>),
    /// A Debian's disk in QEMU's TCG and in Kasane, side by side, by fio
    #[cfg(target_os = "linux")]
    Disk(Box<io::DiskOptions>),
    /// A Debian's network in QEMU's TCG and in Kasane, side by side, by iperf3
    #[cfg(target_os = "linux")]
    Net(Box<io::Options>),
    /// The interpreter alone, on loops that stay in its block cache
    Interp(interp::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().what {
        What::Cpu(options) => cpu::run(&options),
        #[cfg(target_os = "linux")]
        What::Disk(options) => io::disk(&options),
        #[cfg(target_os = "linux")]
        What::Net(options) => io::net(&options),
        What::Interp(options) => interp::run(&options),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}
