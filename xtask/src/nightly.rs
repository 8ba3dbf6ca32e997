//! Everything that takes longer than two minutes. Each part runs whatever
//! became of the one before it; the results go to `docs/status.md` with the
//! date and the commit, between two markers that this chore owns.

use crate::report::{Failure, note, step};
use crate::suite::{install, release, with_guests};
use crate::workspace::{Workspace, cargo};
use crate::{command, guests, image, programs};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const STATUS: &str = "docs/status.md";
const BEGIN: &str = "<!-- nightly: begin -->";
const END: &str = "<!-- nightly: end -->";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long the comparison with this CPU runs
    #[arg(long, default_value = "4")]
    hours: String,
    /// How long each fuzz target runs
    #[arg(long, default_value_t = 600)]
    fuzz_seconds: u32,
}

/// What only long tests need, with the packages: Bochs, and firmware for UEFI.
const NEEDED: &[(&str, &str)] = &[
    ("script", "bsdutils"),
    ("bochs-bin", "bochs"),
    ("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so", "bochs-term"),
    ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
];

/// How one part went.
struct Outcome {
    part: String,
    result: String,
    seconds: u64,
    failed: bool,
}

/// `cargo xtask nightly`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    install(NEEDED)?;
    guests::for_nightly(workspace)?;
    release()?;
    image::run(workspace, &image::Arguments::default())?;
    let mut outcomes = vec![part("long tests (`--ignored`)", || long_tests(workspace))];
    outcomes.push(part(&format!("comparison with the CPU, {} h", arguments.hours), || {
        programs::differ(workspace, &["--hours".to_owned(), arguments.hours.clone()])
    }));
    outcomes.push(part(&format!("comparison of blocks, {} h", arguments.hours), || {
        let words = ["--blocks", "--seed", "fresh", "--hours", &arguments.hours];
        programs::differ(workspace, &words.map(str::to_owned))
    }));
    for (folder, target) in fuzz_targets(workspace)? {
        let seconds = arguments.fuzz_seconds;
        outcomes.push(part(&format!("fuzz `{target}`, {seconds} s"), || {
            fuzz(&folder, &target, seconds)
        }));
    }
    record(workspace, &outcomes)?;
    let failed: Vec<&str> =
        outcomes.iter().filter(|one| one.failed).map(|one| one.part.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("failed: {}", failed.join(", ")), "each part's messages are above")
        .into())
}

fn part(name: &str, action: impl FnOnce() -> Result<()>) -> Outcome {
    let started = Instant::now();
    let result = step(name, action);
    if let Err(error) = &result {
        eprintln!("{error:#}");
    }
    Outcome {
        part: name.to_owned(),
        failed: result.is_err(),
        result: result.map_or_else(|error| one_line(&error), |()| "passed".to_owned()),
        seconds: started.elapsed().as_secs(),
    }
}

fn one_line(error: &anyhow::Error) -> String {
    let text = format!("FAILED: {error:#}").replace('|', "\\|");
    text.lines().next().unwrap_or_default().to_owned()
}

fn long_tests(workspace: &Workspace) -> Result<()> {
    command::run(with_guests(
        workspace,
        cargo().args(["test", "--release", "--workspace", "--no-fail-fast", "--", "--ignored"]),
    ))
}

/// Each fuzz target with the folder of its `fuzz` package. They need nightly
/// Rust, so they are no members of the workspace.
fn fuzz_targets(workspace: &Workspace) -> Result<Vec<(PathBuf, String)>> {
    let places = workspace.packages.iter().map(|package| package.folder().to_owned());
    let mut targets = Vec::new();
    let apart = [workspace.root.clone(), workspace.root.join("conformance")];
    for folder in places.chain(apart) {
        let Ok(entries) = fs::read_dir(folder.join("fuzz").join("fuzz_targets")) else {
            continue;
        };
        for entry in entries {
            let path = entry.context("could not list fuzz targets")?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                targets.push((folder.clone(), name));
            }
        }
    }
    targets.sort();
    Ok(targets)
}

fn fuzz(folder: &std::path::Path, target: &str, seconds: u32) -> Result<()> {
    if command::find("cargo-fuzz").is_none() {
        return Err(Failure::new(
            "cargo-fuzz is not installed",
            "rustup toolchain install nightly && cargo install --locked cargo-fuzz",
        )
        .into());
    }
    // By rustup's own name: the Cargo that runs this chore is the stable one.
    command::run(
        Command::new("cargo")
            .args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", target, "--"])
            .arg(format!("-max_total_time={seconds}"))
            .current_dir(folder)
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )
}

fn record(workspace: &Workspace, outcomes: &[Outcome]) -> Result<()> {
    let file = workspace.root.join(STATUS);
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {STATUS}"))?;
    let date = command::answer(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    let commit = command::answer(
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(&workspace.root),
    )
    .unwrap_or_else(|_| "unknown".to_owned());
    let table = table(date.trim(), commit.trim(), outcomes);
    fs::write(&file, replaced(&text, &table)?)
        .with_context(|| format!("could not write {STATUS}"))?;
    note(format_args!("recorded in {STATUS}"));
    Ok(())
}

fn table(date: &str, commit: &str, outcomes: &[Outcome]) -> String {
    let mut text =
        format!("{date}, commit `{commit}`\n\n| part | result | time |\n|---|---|---|\n");
    for outcome in outcomes {
        let Outcome { part, result, seconds, .. } = outcome;
        text.push_str(&format!("| {part} | {result} | {seconds} s |\n"));
    }
    text
}

fn replaced(text: &str, table: &str) -> Result<String> {
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{STATUS} lacks {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{STATUS} lacks {END}"))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");

        let new = replaced(&text, "new\n").unwrap();

        assert_eq!(new, format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
    }

    #[test]
    fn a_status_page_without_markers_is_an_error() {
        assert!(replaced("no markers", "new").is_err());
    }

    #[test]
    fn a_failure_is_one_row_of_the_table() {
        let outcome = part("a part", || anyhow::bail!("first | line\nsecond line"));

        let text = table("today", "abc", &[outcome]);

        assert!(text.ends_with("| a part | FAILED: first \\| line | 0 s |\n"), "{text}");
    }
}
