//! The tables of a run, for a terminal and in Markdown.

use serde_json::Value;

use super::protocol::Class;
use super::results::{Place, Results, Workload};
use super::systems::System;
use crate::statistics::{Spread, spread};
use crate::table::{Table, number, owned, spread_text};

const NOTHING: &str = "-";

/// Every workload: nanoseconds per unit, slowdowns against native, and Kasane against QEMU.
pub(super) fn workloads(results: &Results) -> Table {
    let head = [
        "workload",
        "unit",
        "native ns",
        "QEMU ns",
        "slower",
        "Kasane ns",
        "slower",
        "Kasane/QEMU",
    ];
    let mut table = Table { head: owned(&head), rows: Vec::new() };
    for class in Class::SHOWN {
        if results.of_class(class).next().is_none() {
            continue;
        }
        table.rows.push(vec![class.title().to_owned()]);
        table.rows.extend(results.of_class(class).map(workload_row));
        table.rows.push(vec![
            "geometric mean".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            times(results.mean(class, System::Qemu, System::Native)),
            String::new(),
            times(results.mean(class, System::Kasane, System::Native)),
            plain(results.mean(class, System::Kasane, System::Qemu)),
        ]);
    }
    table
}

fn workload_row(workload: &Workload) -> Vec<String> {
    let ns = |system| {
        let spread = spread(workload.ns(system));
        spread.map_or_else(|| NOTHING.to_owned(), |spread| spread_text(&spread))
    };
    vec![
        workload.name.clone(),
        workload.unit.clone(),
        ns(System::Native),
        ns(System::Qemu),
        times(workload.ratio(System::Qemu, System::Native)),
        ns(System::Kasane),
        times(workload.ratio(System::Kasane, System::Native)),
        plain(workload.ratio(System::Kasane, System::Qemu)),
    ]
}

/// What else there is to compare.
pub(super) fn machines(results: &Results) -> Table {
    let head = ["", "native", "QEMU", "Kasane", "Kasane/QEMU"];
    let mut table = Table { head: owned(&head), rows: Vec::new() };
    let mut row = |title: &str, values: &dyn Fn(&Place) -> Vec<f64>| {
        let spreads = [System::Native, System::Qemu, System::Kasane]
            .map(|system| results.places.get(&system).and_then(|place| spread(&values(place))));
        if spreads.iter().all(Option::is_none) {
            return;
        }
        let cell =
            |one: &Option<Spread>| one.map_or_else(|| NOTHING.to_owned(), |s| spread_text(&s));
        let [_, qemu, kasane] = &spreads;
        let ratio = kasane.zip(*qemu).map(|(kasane, qemu)| kasane.median / qemu.median);
        let mut cells = vec![title.to_owned()];
        cells.extend(spreads.iter().map(cell));
        cells.push(plain(ratio));
        table.rows.push(cells);
    };
    row("boot to user space, s", &Place::boot_wall);
    row("the same, CPU s", &Place::boot_cpu);
    row("resident beside guest RAM after boot, MiB", &Place::resident_mib);
    row("parallel job, 2 CPUs against 1, times faster", &|place| place.scaling.clone());
    table
}

/// Counters of translation in Kasane's statistics, where there are such: any object or number whose
/// name has to do with it.
pub(super) fn counters(results: &Results) -> Vec<(String, String)> {
    let statistics =
        results.places.get(&System::Kasane).and_then(|place| place.statistics.as_ref());
    let Some(Value::Object(fields)) = statistics else { return Vec::new() };
    let mut found = Vec::new();
    for (name, value) in fields {
        let known = ["transl", "block", "tlb", "code", "jit", "fallback"];
        if known.iter().any(|part| name.contains(part)) {
            flatten(name, value, &mut found);
        }
    }
    found
}

fn flatten(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{name}.{key}"), value, found);
            }
        }
        Value::Null | Value::Array(_) => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push((name.to_owned(), value.to_string()));
        }
    }
}

fn times(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{}×", number(value)))
}

fn plain(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), number)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn a_row_has_times_slowdowns_and_the_ratio() {
        let table = workloads(&sample());

        let cells = ["sort", "element", "10.0", "50.0", "5.00×", "20.0", "2.00×", "0.400"];
        assert_eq!(table.rows[1], cells);
        assert_eq!(table.rows[2][4..], ["5.00×", "", "2.00×", "0.400"]);
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut results = sample();
        results.workloads[0].wall_ns.remove(&System::Qemu);

        let table = workloads(&results);

        assert_eq!(table.rows[1][3..5], ["-", "-"]);
        assert_eq!(table.rows[1][7], "-");
    }

    #[test]
    fn a_markdown_table_has_as_many_cells_in_each_line() {
        let text = workloads(&sample()).markdown();

        let bars: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert!(bars.iter().all(|count| *count == 9), "{text}");
        assert!(text.contains("| **integer** |"), "{text}");
    }

    #[test]
    fn counters_are_found_by_name_and_flattened() {
        let mut results = sample();
        let place = results.places.get_mut(&System::Kasane).unwrap();
        place.statistics = Some(serde_json::json!({
            "seconds": 1.0,
            "translation": {"blocks": 5, "bytes": {"guest": 10, "host": 40}},
        }));

        let expected = [
            ("translation.blocks".to_owned(), "5".to_owned()),
            ("translation.bytes.guest".to_owned(), "10".to_owned()),
            ("translation.bytes.host".to_owned(), "40".to_owned()),
        ];
        assert_eq!(counters(&results), expected);
    }
}
