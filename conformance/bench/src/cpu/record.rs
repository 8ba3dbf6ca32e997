//! What a run leaves behind: `cpu.json` and `cpu.svg` in `target/bench`, and with `--record` the
//! same in `docs/performance`, with tables in `docs/performance.md` between two markers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::protocol::Class;
use super::results::{Clock, Place, Results};
use super::systems::{GUEST_MIB, System};
use super::{chart, table};
use crate::host::Host;
use crate::page;
use crate::statistics::values_json;

const PAGE: &str = "docs/performance.md";
const FOLDER: &str = "docs/performance";

/// Writes `cpu.json` and `cpu.svg` into `folder`.
pub(super) fn write(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let text = serde_json::to_string_pretty(&json_of(results)).context("could not make JSON")?;
    for (name, content) in [("cpu.json", text + "\n"), ("cpu.svg", chart::svg(results))] {
        let file = folder.join(name);
        fs::write(&file, content).with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

/// The same into the documentation.
///
/// # Errors
/// When the page lacks its markers or can't be written.
pub(super) fn record(results: &Results, root: &Path) -> Result<()> {
    write(results, &root.join(FOLDER))?;
    page::replace(root, PAGE, "cpu", &markdown(results))
}

fn markdown(results: &Results) -> String {
    let mut text = String::from("![Slowdowns against native](performance/cpu.svg)\n\n");
    for line in circumstances(results) {
        text.push_str(&format!("- {line}\n"));
    }
    for warning in &results.warnings {
        text.push_str(&format!("- **note**: {warning}\n"));
    }
    for table in [table::workloads(results), table::machines(results)] {
        text.push_str(&format!("\n{}", table.markdown()));
    }
    let counters = table::counters(results);
    if !counters.is_empty() {
        text.push_str("\n| counter | |\n|---|---:|\n");
        for (name, value) in counters {
            text.push_str(&format!("| `{name}` | {value} |\n"));
        }
    }
    text
}

/// Where, when and with what, for a person.
pub(super) fn circumstances(results: &Results) -> Vec<String> {
    let Host { date, commit, cpu, cpus, kernel, guest_kernel, qemu, compiler, .. } = &results.host;
    let setting = &results.setting;
    let engine = setting.engine_taken.as_deref().unwrap_or("unknown");
    let shared =
        if results.host.was_shared() { "; the machine was shared with other work" } else { "" };
    let clock = match setting.clock {
        Clock::Wall => "time that passes in the guest",
        Clock::Cpu => "processor time of the process",
    };
    let mut lines = vec![
        format!("{date}, commit {commit}"),
        format!("host: {cpu}, {cpus} CPUs, Linux {kernel}"),
        format!(
            "load of the host: {:.2} before, {:.2} after{shared}",
            results.host.load_before, results.host.load_after
        ),
        format!("guest: {guest_kernel}, 1 vCPU, {GUEST_MIB} MiB; program: {compiler}"),
    ];
    if results.places.contains_key(&System::Qemu) {
        lines.push(format!("QEMU: {qemu}, -accel tcg -cpu max"));
    }
    if results.places.contains_key(&System::Kasane) {
        lines.push(format!("Kasane: --engine {} (it took {engine}), --cpu max", setting.engine));
    }
    lines.push(format!(
        "rounds: {}, of {} ms for each workload; times: {clock}",
        setting.rounds, setting.min_ms
    ));
    lines
}

fn json_of(results: &Results) -> Value {
    let host = &results.host;
    let classes: Vec<Value> = Class::SHOWN
        .into_iter()
        .map(|class| {
            json!({
                "class": class.word(),
                "qemu_against_native": results.mean(class, System::Qemu, System::Native),
                "kasane_against_native": results.mean(class, System::Kasane, System::Native),
                "kasane_against_qemu": results.mean(class, System::Kasane, System::Qemu),
            })
        })
        .collect();
    json!({
        "date": host.date,
        "commit": host.commit,
        "cpu": host.cpu,
        "cpus": host.cpus,
        "host_kernel": host.kernel,
        "guest_kernel": host.guest_kernel,
        "guest_mib": GUEST_MIB,
        "qemu": host.qemu,
        "compiler": host.compiler,
        "load_before": host.load_before,
        "load_after": host.load_after,
        "rounds": results.setting.rounds,
        "ratios_are_of": match results.setting.clock { Clock::Wall => "ns_per_unit", Clock::Cpu => "cpu_ns_per_unit" },
        "min_ms": results.setting.min_ms,
        "engine": results.setting.engine,
        "engine_taken": results.setting.engine_taken,
        "warnings": results.warnings,
        "wrong_results": results.wrong(),
        "geometric_means": classes,
        "workloads": results.workloads.iter().map(workload_json).collect::<Vec<Value>>(),
        "machines": results.places.iter().map(|(system, place)| place_json(*system, place)).collect::<Vec<Value>>(),
    })
}

fn workload_json(workload: &super::results::Workload) -> Value {
    let by_system = |times: &BTreeMap<System, Vec<f64>>| -> serde_json::Map<String, Value> {
        times.iter().map(|(one, values)| (one.name().to_owned(), values_json(values))).collect()
    };
    json!({
        "name": workload.name,
        "class": workload.class.word(),
        "unit": workload.unit,
        "ns_per_unit": by_system(&workload.wall_ns),
        "cpu_ns_per_unit": by_system(&workload.cpu_ns),
        "qemu_against_native": workload.ratio(System::Qemu, System::Native),
        "kasane_against_native": workload.ratio(System::Kasane, System::Native),
        "kasane_against_qemu": workload.ratio(System::Kasane, System::Qemu),
        "checksums": workload.sums.keys().map(|sum| format!("{sum:016x}")).collect::<Vec<_>>(),
    })
}

fn place_json(system: System, place: &Place) -> Value {
    let by_interval = |value: fn(&super::session::Interval) -> f64| -> Vec<f64> {
        place.intervals.iter().map(value).collect()
    };
    json!({
        "system": system.name(),
        "boot_wall_s": values_json(&place.boot_wall()),
        "boot_cpu_s": values_json(&place.boot_cpu()),
        "resident_beside_guest_mib": values_json(&place.resident_mib()),
        "parallel_scaling": values_json(&place.scaling),
        "clock_drift": values_json(&by_interval(super::session::Interval::drift)),
        "cpu_share": values_json(&by_interval(super::session::Interval::share)),
        "statistics": place.statistics,
    })
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn json_has_medians_ratios_and_circumstances() {
        let value = json_of(&sample());

        assert_eq!(value["workloads"][0]["ns_per_unit"]["qemu"]["median"], 50.0);
        assert_eq!(value["workloads"][0]["kasane_against_qemu"], 0.4);
        assert_eq!(value["commit"], "abc1234");
        assert_eq!(value["machines"][1]["boot_wall_s"]["median"], 50.0);
        assert_eq!(value["wrong_results"], json!([]));
    }

    #[test]
    fn the_page_shows_the_picture_the_circumstances_and_both_tables() {
        let text = markdown(&sample());

        for part in ["performance/cpu.svg", "commit abc1234", "| sort |", "| boot to user space"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
