//! What a run leaves behind: `disk.json` or `net.json` in `target/bench`, and with `--record` the
//! same in `docs/performance`, with a table in `docs/performance-io.md` between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::Place;
use super::guest::GUEST_MIB;
use super::results::{Figure, Results};
use crate::host::Host;
use crate::page;
use crate::statistics::values_json;

pub(super) const PAGE: &str = "docs/performance-io.md";
pub(super) const FOLDER: &str = "docs/performance";

/// Writes `{what}.json` into `folder`.
pub(super) fn write(results: &Results, folder: &Path, what: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let text = serde_json::to_string_pretty(&json_of(results)).context("could not make JSON")?;
    let file = folder.join(format!("{what}.json"));
    fs::write(&file, text + "\n").with_context(|| format!("could not write {}", file.display()))
}

/// The same into the documentation.
///
/// # Errors
/// When the page lacks its markers or can't be written.
pub(super) fn record(results: &Results, root: &Path, what: &str) -> Result<()> {
    write(results, &root.join(FOLDER), what)?;
    page::replace(root, PAGE, what, &markdown(results))
}

fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for line in circumstances(results).iter().chain(&results.goals()) {
        text.push_str(&format!("- {line}\n"));
    }
    format!("{text}\n{}", results.table().markdown())
}

/// Where, when and with what, for a person.
pub(super) fn circumstances(results: &Results) -> Vec<String> {
    let Host { date, commit, cpu, cpus, kernel, guest_kernel, qemu, .. } = &results.host;
    let setting = &results.setting;
    let shared =
        if results.host.was_shared() { "; the machine was shared with other work" } else { "" };
    vec![
        format!("{date}, commit {commit}"),
        format!("host: {cpu}, {cpus} CPUs, Linux {kernel}"),
        format!(
            "load of the host: {:.2} before, {:.2} after{shared}",
            results.host.load_before, results.host.load_after
        ),
        format!("guest: Debian with systemd, {guest_kernel}, 1 vCPU, {GUEST_MIB} MiB"),
        format!(
            "QEMU: {qemu}, -accel tcg -cpu max, virtio-blk-pci (cache=writeback, aio=threads), \
             virtio-net-pci with -netdev user"
        ),
        format!(
            "Kasane: --engine {}, --cpu max, --disk FILE,format=raw, --net nat",
            setting.engine
        ),
        format!("measured by {}", setting.method),
        format!("rounds: {}, of {} s for each work", setting.rounds, setting.seconds),
    ]
}

fn json_of(results: &Results) -> Value {
    let (host, setting) = (&results.host, &results.setting);
    json!({
        "date": host.date,
        "commit": host.commit,
        "cpu": host.cpu,
        "cpus": host.cpus,
        "host_kernel": host.kernel,
        "guest_kernel": host.guest_kernel,
        "guest_mib": GUEST_MIB,
        "qemu": host.qemu,
        "load_before": host.load_before,
        "load_after": host.load_after,
        "rounds": setting.rounds,
        "seconds": setting.seconds,
        "engine": setting.engine,
        "method": setting.method,
        "goals": results.goals(),
        "works": results.figures.iter().map(figure_json).collect::<Vec<Value>>(),
    })
}

fn figure_json(figure: &Figure) -> Value {
    let rates: Map<String, Value> = figure
        .values
        .iter()
        .map(|(place, values)| (place.name().to_owned(), values_json(values)))
        .collect();
    json!({
        "name": figure.name,
        "unit": figure.unit,
        "rates": rates,
        "kasane_against_qemu": figure.ratio(Place::Kasane, Place::Qemu),
        "kasane_against_host": figure.ratio(Place::Kasane, Place::Host),
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn json_has_medians_ratios_and_circumstances() {
        let value = json_of(&sample());

        assert_eq!(value["works"][0]["rates"]["kasane"]["median"], 600.0);
        assert_eq!(value["works"][0]["kasane_against_host"], 0.6);
        assert_eq!(value["works"][1]["kasane_against_host"], Value::Null);
        assert_eq!(value["commit"], "abc1234");
    }

    #[test]
    fn the_page_shows_the_circumstances_the_goals_and_the_table() {
        let text = markdown(&sample());

        for part in ["commit abc1234", "measured by by hand", "60 % of the host", "| seq | MiB/s |"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
