//! `bench cpu`: one static program (`conformance/bench/guest`) on the host, in a guest of QEMU's TCG
//! and in a guest of Kasane, with the same stock kernel. The places take turns, so that what else
//! the machine does falls on all of them; each result is compared by its checksum.

mod chart;
mod process;
mod protocol;
mod record;
mod results;
mod session;
mod systems;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::{self, Host};
use crate::table::number;
use results::{Clock, Results, Setting};
use session::Session;
use systems::{Files, Set, System, Work};

/// What a guest takes to boot to the program counts against `--timeout` as well.
const TIMEOUT_S: u64 = 1800;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    /// The repository
    #[arg(long)]
    root: PathBuf,
    /// Engine of Kasane, passed on to `kasane run`
    #[arg(long, default_value = "auto")]
    engine: String,
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round, short: to see that it works, not to know how fast it is
    #[arg(long)]
    quick: bool,
    /// Shortest time that a workload is measured, in milliseconds [default: 200, or 50 with --quick]
    #[arg(long)]
    min_ms: Option<u64>,
    /// Which time the tables and the chart show
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// Only these places
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [System::Native, System::Qemu, System::Kasane])]
    systems: Vec<System>,
    /// Only these workloads (the parallel job is parallel-1,parallel-2)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Longest time of one run of the program, in seconds
    #[arg(long, default_value_t = TIMEOUT_S)]
    timeout: u64,
    /// Also write the figures and the chart into docs/performance
    #[arg(long)]
    record: bool,
}

/// Measures, prints tables, writes JSON and a chart.
///
/// # Errors
/// When something can't be run, or when a workload didn't give the same result everywhere.
pub(crate) fn run(options: &Options) -> Result<()> {
    let uses_qemu = options.systems.contains(&System::Qemu);
    if uses_qemu {
        systems::require_qemu()?;
    }
    let qemu = if uses_qemu { systems::qemu_version() } else { None };
    let host = Host::now(&options.root, &options.files.kernel, qemu);
    let output = options.root.join("target").join("bench");
    std::fs::create_dir_all(&output)
        .with_context(|| format!("could not create {}", output.display()))?;
    let mut results = Results::new(host, setting(options));
    measure(options, &output, &mut results)?;
    results.host.load_after = host::load();
    print(&results);
    record::write(&results, &output)?;
    println!("\nwritten: target/bench/cpu.json, target/bench/cpu.svg");
    let wrong = results.wrong();
    if !wrong.is_empty() {
        bail!("results differ between the places:\n    {}", wrong.join("\n    "));
    }
    if options.record {
        record::record(&results, &options.root)?;
        println!("recorded: docs/performance.md, docs/performance/");
    }
    Ok(())
}

fn setting(options: &Options) -> Setting {
    let usual_ms = if options.quick { 50 } else { 200 };
    Setting {
        rounds: if options.quick { 1 } else { options.rounds.max(1) },
        min_ms: options.min_ms.unwrap_or(usual_ms).max(1),
        clock: options.clock,
        engine: options.engine.clone(),
        engine_taken: None,
    }
}

fn measure(options: &Options, output: &Path, results: &mut Results) -> Result<()> {
    let Setting { rounds, min_ms, .. } = results.setting;
    for round in 0..rounds {
        for system in turns(&options.systems, round) {
            for set in sets(&options.only) {
                let work = Work { min_ms, set, only: options.only.clone() };
                let session = session(options, output, system, &work)
                    .with_context(|| format!("round {}, {}", round + 1, system.name()))?;
                if set == Set::Main {
                    println!("round {}/{rounds}: {}", round + 1, progress(system, &session));
                }
                results.add(system, set, &session);
            }
        }
    }
    Ok(())
}

/// Each round begins with another place.
fn turns(systems: &[System], round: usize) -> Vec<System> {
    let mut turns = systems.to_vec();
    if !turns.is_empty() {
        turns.rotate_left(round % systems.len());
    }
    turns
}

/// The parallel job is left out when only other workloads are wanted, and the other way round.
fn sets(only: &[String]) -> Vec<Set> {
    let parallel = |name: &String| name.starts_with("parallel-");
    let mut sets = Vec::new();
    if only.is_empty() || !only.iter().all(parallel) {
        sets.push(Set::Main);
    }
    if only.is_empty() || only.iter().any(parallel) {
        sets.push(Set::Parallel);
    }
    sets
}

fn session(options: &Options, output: &Path, system: System, work: &Work) -> Result<Session> {
    let command = systems::command(system, &options.files, &options.engine, work);
    let log = output.join(format!("{}.log", system.name()));
    session::run(command, &log, Duration::from_secs(options.timeout))
}

fn progress(system: System, session: &Session) -> String {
    let mut text = format!("{:<6}  {} workloads", system.name(), session.measured.len());
    if let Some(interval) = session.interval {
        text.push_str(&format!(
            " in {:.1} s (clock {:+.1} %, {:.0} % of a CPU)",
            interval.outside_s,
            interval.drift() * 100.0,
            interval.share() * 100.0
        ));
    }
    if let Some(boot) = session.boot.filter(|_| system.is_guest()) {
        text.push_str(&format!(", boot {:.2} s ({:.2} CPU s)", boot.wall_s, boot.cpu_s));
    }
    text
}

fn print(results: &Results) {
    println!();
    for line in record::circumstances(results) {
        println!("{line}");
    }
    println!("\n{}", table::workloads(results).text());
    println!("{}", table::machines(results).text());
    if let Some((workload, ratio)) = results.worst_against_qemu() {
        println!("slowest against QEMU: {} at {}", workload.name, number(ratio));
    }
    let counters = table::counters(results);
    if counters.is_empty() && results.places.contains_key(&System::Kasane) {
        println!("kasane --stats shows no counters of translation");
    }
    for (name, value) in counters {
        println!("{name:<40} {value:>16}");
    }
    for warning in &results.warnings {
        println!("warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_place() {
        let all = [System::Native, System::Qemu, System::Kasane];

        assert_eq!(turns(&all, 4), [System::Qemu, System::Kasane, System::Native]);
        assert_eq!(turns(&[], 4), []);
    }

    #[test]
    fn sessions_that_would_measure_nothing_are_left_out() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();

        assert_eq!(sets(&[]), [Set::Main, Set::Parallel]);
        assert_eq!(sets(&names(&["sort"])), [Set::Main]);
        assert_eq!(sets(&names(&["parallel-1", "parallel-2"])), [Set::Parallel]);
        assert_eq!(sets(&names(&["sort", "parallel-1"])), [Set::Main, Set::Parallel]);
    }
}
