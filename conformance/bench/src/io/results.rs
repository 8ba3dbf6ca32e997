//! What a run measured, and whether its goals are reached. Every figure is a rate: more is better.

use std::collections::BTreeMap;

use crate::host::Host;
use crate::statistics::{median, spread};
use crate::table::{Table, number, owned, spread_text};

use super::Place;

/// A guest's sequential access has to reach this part of the host's own.
pub(super) const HOST_SHARE: f64 = 0.6;

/// One thing that is measured in several places.
pub(super) trait Work {
    fn name(&self) -> String;
    fn unit(&self) -> &'static str;
    fn places(&self) -> &'static [Place];
}

/// How it was measured.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) rounds: usize,
    /// For each work, place and round.
    pub(super) seconds: u64,
    /// As asked for.
    pub(super) engine: String,
    /// A sentence for a person.
    pub(super) method: String,
}

/// One work's rates by place, one for each round.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) values: BTreeMap<Place, Vec<f64>>,
}

impl Figure {
    /// Of the medians; nothing if one of them is not there or zero.
    pub(super) fn ratio(&self, of: Place, against: Place) -> Option<f64> {
        let of = median(self.values.get(&of)?)?;
        let against = median(self.values.get(&against)?)?;
        (of > 0.0 && against > 0.0).then(|| of / against)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Results {
    pub(super) host: Host,
    pub(super) setting: Setting,
    /// In the order in which they were measured first.
    pub(super) figures: Vec<Figure>,
}

impl Results {
    pub(super) fn new(host: Host, setting: Setting) -> Self {
        Self { host, setting, figures: Vec::new() }
    }

    pub(super) fn add<W: Work>(&mut self, work: &W, place: Place, value: f64) {
        let name = work.name();
        if let Some(figure) = self.figures.iter_mut().find(|figure| figure.name == name) {
            figure.values.entry(place).or_default().push(value);
            return;
        }
        let values = BTreeMap::from([(place, vec![value])]);
        self.figures.push(Figure { name, unit: work.unit(), values });
    }

    pub(super) fn table(&self) -> Table {
        let head = ["work", "unit", "host", "QEMU", "Kasane", "Kasane/QEMU", "Kasane/host"];
        let mut table = Table { head: owned(&head), rows: Vec::new() };
        for figure in &self.figures {
            let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
            for place in [Place::Host, Place::Qemu, Place::Kasane] {
                let spread = figure.values.get(&place).and_then(|values| spread(values));
                row.push(spread.map_or_else(|| "-".to_owned(), |spread| spread_text(&spread)));
            }
            for against in [Place::Qemu, Place::Host] {
                let ratio = figure.ratio(Place::Kasane, against);
                row.push(ratio.map_or_else(|| "-".to_owned(), number));
            }
            table.rows.push(row);
        }
        table
    }

    /// A line for each goal; the second only where the host was measured.
    pub(super) fn goals(&self) -> Vec<String> {
        let mut lines =
            vec![self.goal("ahead of QEMU TCG in each", Place::Qemu, |ratio| ratio > 1.0)];
        if self.figures.iter().any(|figure| figure.values.contains_key(&Place::Host)) {
            let share = HOST_SHARE * 100.0;
            let goal = format!("sequential at {share:.0} % of the host file or more");
            lines.push(self.goal(&goal, Place::Host, |ratio| ratio >= HOST_SHARE));
        }
        lines
    }

    fn goal(&self, goal: &str, against: Place, reached: impl Fn(f64) -> bool) -> String {
        let concerned = self.figures.iter().filter(|figure| figure.values.contains_key(&against));
        let missed: Vec<String> = concerned
            .filter_map(|figure| match figure.ratio(Place::Kasane, against) {
                Some(ratio) if reached(ratio) => None,
                Some(ratio) => Some(format!("{} ({})", figure.name, number(ratio))),
                None => Some(format!("{} (nothing measured)", figure.name)),
            })
            .collect();
        if missed.is_empty() {
            return format!("goal, {goal}: reached");
        }
        format!("goal, {goal}: not reached by {}", missed.join(", "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    struct Sample(&'static str, &'static [Place]);

    impl Work for Sample {
        fn name(&self) -> String {
            self.0.to_owned()
        }
        fn unit(&self) -> &'static str {
            "MiB/s"
        }
        fn places(&self) -> &'static [Place] {
            self.1
        }
    }

    /// A sequential work that reaches both goals, and a random one behind QEMU.
    pub(in super::super) fn sample() -> Results {
        let host = Host {
            date: "2026-01-01 00:00 UTC".to_owned(),
            commit: "abc1234".to_owned(),
            cpu: "A CPU".to_owned(),
            cpus: 2,
            kernel: "6".to_owned(),
            guest_kernel: "linux-image".to_owned(),
            qemu: "QEMU 7".to_owned(),
            compiler: "cc".to_owned(),
            load_before: 0.0,
            load_after: 1.0,
        };
        let (engine, method) = ("auto".to_owned(), "by hand".to_owned());
        let mut results = Results::new(host, Setting { rounds: 3, seconds: 1, engine, method });
        for (place, values) in [
            (Place::Host, [1000.0, 990.0, 2000.0]),
            (Place::Qemu, [300.0, 310.0, 10.0]),
            (Place::Kasane, [600.0, 599.0, 700.0]),
        ] {
            for value in values {
                results.add(&Sample("seq", &[]), place, value);
            }
        }
        results.add(&Sample("random", &[]), Place::Qemu, 100.0);
        results.add(&Sample("random", &[]), Place::Kasane, 50.0);
        results
    }

    #[test]
    fn a_row_has_medians_and_ratios_of_medians() {
        let table = sample().table();

        let cells = ["seq", "MiB/s", "1000 (990–2000)", "300 (10.0–310)", "600 (599–700)"];
        assert_eq!(table.rows[0][..5], cells);
        assert_eq!(table.rows[0][5..], ["2.00", "0.600"]);
        assert_eq!(table.rows[1][2..], ["-", "100", "50.0", "0.500", "-"]);
    }

    #[test]
    fn a_goal_is_reached_by_all_or_names_those_that_miss_it() {
        let goals = sample().goals();

        assert_eq!(goals[0], "goal, ahead of QEMU TCG in each: not reached by random (0.500)");
        assert_eq!(goals[1], "goal, sequential at 60 % of the host file or more: reached");
    }

    #[test]
    fn a_rate_of_nothing_does_not_reach_a_goal() {
        let mut results = sample();
        results.figures[0].values.insert(Place::Kasane, vec![0.0]);

        let goals = results.goals();

        assert!(goals[1].ends_with("not reached by seq (nothing measured)"), "{goals:?}");
    }
}
