//! `bench disk` and `bench net`: the same Debian on a copy of the same disk, in QEMU's TCG and in
//! Kasane, each with its virtio devices. Both guests run during the whole of a run and take turns,
//! one of them idle while the other is measured, so that what else the machine does falls on both.

mod disk;
mod guest;
mod host_file;
mod net;
mod record;
mod results;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{self, Host};
use results::{Results, Setting, Work};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The hosted program of Kasane
    #[arg(long)]
    kasane: PathBuf,
    /// The repository
    #[arg(long)]
    root: PathBuf,
    /// Engine of Kasane, passed on to `kasane run`
    #[arg(long, default_value = "auto")]
    engine: String,
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each work is measured, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// One round of one second: to see that it works, not to know how fast it is
    #[arg(long)]
    quick: bool,
    /// Also write the figures into docs/performance-io.md and docs/performance
    #[arg(long)]
    record: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiskOptions {
    #[command(flatten)]
    options: Options,
    /// Length of the measured disks and of the host's file, in MiB; each is written out before
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
}

/// Where something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A process of the host
    Host,
    /// A guest in QEMU, `-accel tcg -cpu max`
    Qemu,
    /// A guest in Kasane
    Kasane,
}

impl Place {
    /// For messages and files.
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Qemu => "qemu",
            Self::Kasane => "kasane",
        }
    }
}

/// Measures disks, prints a table, writes JSON.
///
/// # Errors
/// When something can't be run, or a guest says what is not understood.
pub(crate) fn disk(disk: &DiskOptions) -> Result<()> {
    let options = &disk.options;
    let mut results = begin(options, disk::note(disk.size_mib))?;
    let mut bench = disk::Bench::start(options, disk.size_mib)?;
    let seconds = results.setting.seconds;
    measure(&mut results, &disk::JOBS, |job, place| bench.measure(job, place, seconds))?;
    finish(options, "disk", results)
}

/// Measures networks, prints a table, writes JSON.
///
/// # Errors
/// When something can't be run, or a guest says what is not understood.
pub(crate) fn net(options: &Options) -> Result<()> {
    let mut results = begin(options, net::note()?)?;
    let mut bench = net::Bench::start(options)?;
    let seconds = results.setting.seconds;
    measure(&mut results, &net::WAYS, |way, place| bench.measure(*way, place, seconds))?;
    finish(options, "net", results)
}

fn begin(options: &Options, method: String) -> Result<Results> {
    let mut host = Host::now(&options.root, &options.kasane, Some(guest::qemu_version()?));
    host.guest_kernel = guest::kernel_package()?;
    let setting = Setting {
        rounds: if options.quick { 1 } else { options.rounds.max(1) },
        seconds: if options.quick { 1 } else { options.seconds.max(1) },
        engine: options.engine.clone(),
        method,
    };
    Ok(Results::new(host, setting))
}

fn measure<W: Work>(
    results: &mut Results,
    works: &[W],
    mut one: impl FnMut(&W, Place) -> Result<f64>,
) -> Result<()> {
    let rounds = results.setting.rounds;
    for round in 0..rounds {
        for work in works {
            let mut said = Vec::new();
            for place in turns(work.places(), round) {
                let value = one(work, place).with_context(|| {
                    format!("round {}, {}, {}", round + 1, work.name(), place.name())
                })?;
                results.add(work, place, value);
                said.push(format!("{} {value:.0}", place.name()));
            }
            let (name, unit) = (work.name(), work.unit());
            println!("round {}/{rounds}: {name:<28} {} ({unit})", round + 1, said.join(", "));
        }
    }
    Ok(())
}

/// Each round begins with another place.
fn turns(places: &[Place], round: usize) -> Vec<Place> {
    let mut turns = places.to_vec();
    if !turns.is_empty() {
        turns.rotate_left(round % places.len());
    }
    turns
}

fn finish(options: &Options, what: &str, mut results: Results) -> Result<()> {
    results.host.load_after = host::load();
    println!();
    for line in record::circumstances(&results) {
        println!("{line}");
    }
    println!("\n{}", results.table().text());
    for line in results.goals() {
        println!("{line}");
    }
    record::write(&results, &options.root.join("target").join("bench"), what)?;
    println!("\nwritten: target/bench/{what}.json");
    if options.record {
        record::record(&results, &options.root, what)?;
        println!("recorded: {}, {}/{what}.json", record::PAGE, record::FOLDER);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_place() {
        let all = [Place::Host, Place::Qemu, Place::Kasane];

        assert_eq!(turns(&all, 4), [Place::Qemu, Place::Kasane, Place::Host]);
        assert_eq!(turns(&[], 4), []);
    }
}
