//! The critical instructions of a run, for `--stats`.

use kasane_cpu::engine::{CriticalCount, CriticalGroup};
use serde::Serialize;

use crate::report::grouped;

/// What became of each that came up, in the order in which engines list them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct CriticalTable(Vec<Row>);

/// One instruction; see [`CriticalCount`].
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    privileged: bool,
    met: u64,
    translated: u64,
    trapped: u64,
}

impl CriticalTable {
    /// Adds what a processor did.
    pub(crate) fn add(&mut self, count: &CriticalCount) {
        let CriticalCount { name, group, met, translated, trapped } = *count;
        let privileged = group == CriticalGroup::Privileged;
        match self.0.iter_mut().find(|row| row.name == name) {
            Some(row) => {
                row.met = row.met.saturating_add(met);
                row.translated = row.translated.saturating_add(translated);
                row.trapped = row.trapped.saturating_add(trapped);
            }
            None => self.0.push(Row { name, privileged, met, translated, trapped }),
        }
    }

    /// For a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let groups = [(false, "sensitive, unprivileged"), (true, "privileged")];
        for (privileged, title) in groups {
            let mut rows = self.0.iter().filter(|row| row.privileged == privileged).peekable();
            if rows.peek().is_some() {
                lines.push(line(title, ["places met", "translated", "trapped"].map(str::to_owned)));
            }
            lines.extend(rows.map(|row| {
                let Row { met, translated, trapped, .. } = *row;
                line(&format!("  {}", row.name), [met, translated, trapped].map(grouped))
            }));
        }
        lines
    }
}

fn line(name: &str, [met, translated, trapped]: [String; 3]) -> String {
    format!("{name:<28}{met:>16}{translated:>16}{trapped:>16}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &'static str, group: CriticalGroup, numbers: [u64; 3]) -> CriticalCount {
        let [met, translated, trapped] = numbers;
        CriticalCount { name, group, met, translated, trapped }
    }

    #[test]
    fn processors_are_added_up_and_groups_kept_apart() {
        let mut table = CriticalTable::default();
        table.add(&count("cli", CriticalGroup::Privileged, [7, 6, 1000]));
        table.add(&count("popf", CriticalGroup::Unprivileged, [1, 1, 2]));
        table.add(&count("cli", CriticalGroup::Privileged, [1, 1, 500]));

        assert_eq!(
            table.lines(),
            [
                "sensitive, unprivileged           places met      translated         trapped",
                "  popf                                     1               1               2",
                "privileged                        places met      translated         trapped",
                "  cli                                      8               7           1 500",
            ]
        );
        assert_eq!(
            serde_json::to_value(&table).unwrap()[1],
            serde_json::json!({
                "name": "popf", "privileged": false, "met": 1, "translated": 1, "trapped": 2,
            })
        );
    }
}
