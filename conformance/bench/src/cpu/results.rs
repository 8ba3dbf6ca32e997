//! All sessions of a run put together: what each workload took where, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::process::Resident;
use super::protocol::Class;
use super::session::{Boot, Interval, Session};
use super::systems::{Set, System};
use crate::host::Host;
use crate::statistics::{geometric_mean, median};

/// A run.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) host: Host,
    pub(super) setting: Setting,
    pub(super) workloads: Vec<Workload>,
    pub(super) places: BTreeMap<System, Place>,
    /// What a person should know before believing the figures.
    pub(super) warnings: Vec<String>,
}

/// What was asked for, and which engine answered.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) rounds: usize,
    pub(super) min_ms: u64,
    pub(super) clock: Clock,
    pub(super) engine: String,
    /// What Kasane says that it took.
    pub(super) engine_taken: Option<String>,
}

/// One workload in all places.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) class: Class,
    pub(super) unit: String,
    pub(super) clock: Clock,
    /// Nanoseconds per unit, one value for each round: the time that passed inside.
    pub(super) wall_ns: BTreeMap<System, Vec<f64>>,
    /// The same in processor time of the process, seen from outside.
    pub(super) cpu_ns: BTreeMap<System, Vec<f64>>,
    /// Checksums that were met. There should be one.
    pub(super) sums: BTreeMap<u64, BTreeSet<System>>,
}

/// Which time the tables show; JSON has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Clock {
    /// Time that passes inside, by clock_gettime
    Wall,
    /// Processor time of the process, counted by the host: for a machine that others use as well
    Cpu,
}

/// What one place showed besides the workloads.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) boots: Vec<Boot>,
    pub(super) resident: Vec<Resident>,
    pub(super) intervals: Vec<Interval>,
    /// How much faster the parallel job was with two processors, one value for each round.
    pub(super) scaling: Vec<f64>,
    /// Kasane's statistics of the last session with one processor.
    pub(super) statistics: Option<Value>,
}

impl Workload {
    /// By the clock that was asked for, one value for each round.
    pub(super) fn ns(&self, system: System) -> &[f64] {
        let times = match self.clock {
            Clock::Wall => &self.wall_ns,
            Clock::Cpu => &self.cpu_ns,
        };
        times.get(&system).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn median_ns(&self, system: System) -> Option<f64> {
        median(self.ns(system))
    }

    /// Time of `system` as a multiple of `reference`'s.
    pub(super) fn ratio(&self, system: System, reference: System) -> Option<f64> {
        Some(self.median_ns(system)? / self.median_ns(reference)?)
    }
}

impl Results {
    pub(super) fn new(host: Host, setting: Setting) -> Self {
        Self { host, setting, workloads: Vec::new(), places: BTreeMap::new(), warnings: Vec::new() }
    }

    /// Takes in a session.
    pub(super) fn add(&mut self, system: System, set: Set, session: &Session) {
        let first_round = self.places.get(&system).is_none_or(|place| place.boots.is_empty());
        let place = self.places.entry(system).or_default();
        if let Some(interval) = session.interval {
            place.intervals.push(interval);
            if !interval.agrees() {
                self.warnings.push(format!(
                    "{}: the guest's clock and the host's disagree: {:.3} s inside, {:.3} s outside ({:+.1} %)",
                    system.name(),
                    interval.inside_s,
                    interval.outside_s,
                    interval.drift() * 100.0
                ));
            }
        }
        match set {
            Set::Main => {
                place.boots.extend(session.boot.filter(|_| system.is_guest()));
                place.resident.extend(session.resident.filter(|_| system.is_guest()));
                place.statistics =
                    session.end.as_ref().and_then(|end| end.get("statistics")).cloned();
            }
            Set::Parallel => place.scaling.extend(scaling(session)),
        }
        let engine = session.start.as_ref().and_then(|start| start.get("engine"));
        if let Some(engine) = engine.and_then(Value::as_str) {
            self.setting.engine_taken = Some(engine.to_owned());
        }
        if first_round {
            for name in &session.skipped {
                self.warnings.push(format!("{}: its processor can't run {name}", system.name()));
            }
        }
        self.add_workloads(system, session);
    }

    fn add_workloads(&mut self, system: System, session: &Session) {
        for timed in &session.measured {
            let measured = &timed.inside;
            let known = self.workloads.iter().position(|one| one.name == measured.name);
            let at = known.unwrap_or_else(|| {
                self.workloads.push(Workload {
                    name: measured.name.clone(),
                    class: measured.class,
                    unit: measured.unit.clone(),
                    clock: self.setting.clock,
                    wall_ns: BTreeMap::new(),
                    cpu_ns: BTreeMap::new(),
                    sums: BTreeMap::new(),
                });
                self.workloads.len() - 1
            });
            if let Some(workload) = self.workloads.get_mut(at) {
                workload.wall_ns.entry(system).or_default().push(measured.ns_per_unit());
                workload.cpu_ns.entry(system).or_default().push(timed.cpu_ns_per_unit());
                workload.sums.entry(measured.sum).or_default().insert(system);
            }
        }
    }

    /// Workloads that didn't give the same result everywhere, each with what it gave where.
    pub(super) fn wrong(&self) -> Vec<String> {
        let disagree = self.workloads.iter().filter(|one| one.sums.len() > 1);
        disagree
            .map(|workload| {
                let sums: Vec<String> = workload
                    .sums
                    .iter()
                    .map(|(sum, systems)| {
                        let names: Vec<&str> = systems.iter().map(|one| one.name()).collect();
                        format!("{sum:016x} in {}", names.join(" and "))
                    })
                    .collect();
                format!("{}: {}", workload.name, sums.join(", "))
            })
            .collect()
    }

    pub(super) fn of_class(&self, class: Class) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(move |one| one.class == class)
    }

    /// The geometric mean over a class of the times of `system` against `reference`.
    pub(super) fn mean(&self, class: Class, system: System, reference: System) -> Option<f64> {
        let ratios: Vec<f64> =
            self.of_class(class).filter_map(|one| one.ratio(system, reference)).collect();
        geometric_mean(&ratios)
    }

    /// Of the workloads shown, the one in which Kasane is slowest against QEMU.
    pub(super) fn worst_against_qemu(&self) -> Option<(&Workload, f64)> {
        let shown = self.workloads.iter().filter(|one| one.class != Class::Parallel);
        shown
            .filter_map(|one| Some((one, one.ratio(System::Kasane, System::Qemu)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Place {
    pub(super) fn boot_wall(&self) -> Vec<f64> {
        self.boots.iter().map(|boot| boot.wall_s).collect()
    }

    pub(super) fn boot_cpu(&self) -> Vec<f64> {
        self.boots.iter().map(|boot| boot.cpu_s).collect()
    }

    /// MiB besides guest RAM.
    pub(super) fn resident_mib(&self) -> Vec<f64> {
        self.resident.iter().map(|one| one.beside as f64 / 1024.0).collect()
    }
}

/// Both halves of the parallel job were measured in this session.
fn scaling(session: &Session) -> Option<f64> {
    let ns = |name: &str| {
        let timed = session.measured.iter().find(|one| one.inside.name == name)?;
        Some(timed.inside.ns_per_unit())
    };
    Some(ns("parallel-1")? / ns("parallel-2")?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::protocol::Measured;
    use super::super::session::Timed;
    use super::*;

    /// A run in which `sort` took 10 ns native, 50 in QEMU and 20 in Kasane, `matmul` twice as much.
    pub(in super::super) fn sample() -> Results {
        let host = Host {
            date: "2026-01-02 03:04 UTC".to_owned(),
            commit: "abc1234".to_owned(),
            cpu: "A <CPU> & more".to_owned(),
            cpus: 2,
            kernel: "6.1".to_owned(),
            guest_kernel: "linux-image".to_owned(),
            qemu: "QEMU 7".to_owned(),
            compiler: "cc 12".to_owned(),
            load_before: 0.25,
            load_after: 1.5,
        };
        let setting = Setting {
            rounds: 1,
            min_ms: 50,
            clock: Clock::Wall,
            engine: "auto".to_owned(),
            engine_taken: None,
        };
        let mut results = Results::new(host, setting);
        for (system, ns) in [(System::Native, 10), (System::Qemu, 50), (System::Kasane, 20)] {
            results.add(system, Set::Main, &session(ns));
        }
        results
    }

    pub(in super::super) fn session(ns: u64) -> Session {
        let measured = |name: &str, class, ns| Timed {
            inside: Measured {
                name: name.to_owned(),
                class,
                unit: "element".to_owned(),
                units: 1,
                ns,
                sum: 7,
            },
            cpu_ns: 3 * ns,
        };
        Session {
            measured: vec![
                measured("sort", Class::Integer, ns),
                measured("matmul", Class::Vector, 2 * ns),
            ],
            boot: Some(Boot { wall_s: ns as f64, cpu_s: 1.0 }),
            resident: Some(Resident { guest: 1024, beside: 2048 }),
            interval: Some(Interval { inside_s: 1.0, outside_s: 1.0, cpu_s: 1.0 }),
            ..Session::default()
        }
    }

    #[test]
    fn slowdowns_are_ratios_of_medians() {
        let mut results = sample();
        results.add(System::Kasane, Set::Main, &session(40));
        results.add(System::Kasane, Set::Main, &session(30));

        let sort = &results.workloads[0];

        assert_eq!(sort.ratio(System::Kasane, System::Native), Some(3.0));
        assert_eq!(sort.ratio(System::Qemu, System::Native), Some(5.0));
        assert_eq!(results.mean(Class::Os, System::Qemu, System::Native), None);
        assert_eq!(results.worst_against_qemu().map(|worst| worst.1), Some(0.6));
    }

    #[test]
    fn processor_time_is_shown_when_it_is_asked_for() {
        let mut sort = sample().workloads[0].clone();

        sort.clock = Clock::Cpu;

        assert_eq!(sort.median_ns(System::Qemu), Some(150.0));
    }

    #[test]
    fn the_same_result_everywhere_is_right() {
        assert_eq!(sample().wrong(), Vec::<String>::new());
    }

    #[test]
    fn another_checksum_in_one_place_is_wrong_and_named() {
        let mut results = sample();
        let mut session = session(20);
        session.measured[0].inside.sum = 8;

        results.add(System::Kasane, Set::Main, &session);

        assert_eq!(
            results.wrong(),
            ["sort: 0000000000000007 in native and qemu and kasane, 0000000000000008 in kasane"]
        );
    }

    #[test]
    fn a_guest_whose_clock_lies_is_reported() {
        let mut results = sample();
        let mut session = session(20);
        session.interval = Some(Interval { inside_s: 9.0, outside_s: 10.0, cpu_s: 1.0 });

        results.add(System::Qemu, Set::Main, &session);

        assert_eq!(results.warnings.len(), 1);
        assert!(results.warnings[0].contains("-10.0 %"), "{:?}", results.warnings);
    }

    #[test]
    fn only_guests_boot() {
        let results = sample();

        let boots = |system| results.places.get(&system).map(|place| place.boots.len());

        assert_eq!((boots(System::Native), boots(System::Qemu)), (Some(0), Some(1)));
    }

    #[test]
    fn scaling_is_time_on_one_thread_over_time_on_two() {
        let mut session = session(1);
        session.measured[0].inside.name = "parallel-1".to_owned();
        session.measured[0].inside.ns = 30;
        session.measured[1].inside.name = "parallel-2".to_owned();
        session.measured[1].inside.ns = 20;

        assert_eq!(scaling(&session), Some(1.5));
    }
}
