//! What the program says about itself: on standard error, as text or as lines of JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::critical::CriticalTable;
use crate::outcome::{ExitStatus, Failure};
use crate::vm::ProcessorReport;

/// What standard error is while the program says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Lines end as usual.
    Lines,
    /// A terminal that may be in raw mode, in the middle of a line of the guest's.
    Raw,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

impl Form {
    pub(crate) fn from_json(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// Prints an error.
    pub(crate) fn failure(self, failure: &Failure) {
        match self {
            Self::Text => eprintln!("{failure}"),
            Self::Json => eprintln!("{}", failure.to_json()),
        }
    }

    /// Prints an event: a sentence, or its name with details.
    pub(crate) fn event(self, sentence: &str, name: &str, details: &Value) {
        self.event_on(Screen::Lines, sentence, name, details);
    }

    /// The same on such a screen.
    pub(crate) fn event_on(self, screen: Screen, sentence: &str, name: &str, details: &Value) {
        match (self, screen) {
            (Self::Text, Screen::Lines) => eprintln!("kasane: {sentence}"),
            (Self::Text, Screen::Raw) => eprint!("\r\nkasane: {sentence}\r\n"),
            (Self::Json, Screen::Lines | Screen::Raw) => {
                eprintln!("{}", with_event(name, details));
            }
        }
    }
}

fn with_event(name: &str, details: &Value) -> Value {
    let mut line = json!({ "event": name });
    if let (Some(line), Some(details)) = (line.as_object_mut(), details.as_object()) {
        line.extend(details.clone());
    }
    line
}

/// The whole run in numbers; machines that a reset ended are added up.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct RunStatistics {
    /// Wall time of the run in seconds.
    pub(crate) seconds: f64,
    /// Guest instructions retired, by vCPU.
    pub(crate) instructions: Vec<u64>,
    /// How often the guest was restarted by a reset.
    pub(crate) resets: u64,
    /// Exits by reason.
    pub(crate) exits: Vec<(String, u64)>,
    /// Accesses by device.
    pub(crate) devices: Vec<(String, u64)>,
    /// What the translator counted, by name.
    pub(crate) translation: BTreeMap<String, u64>,
    /// What became of the critical instructions that the guest has.
    pub(crate) critical: CriticalTable,
    /// Instructions that the engine lacks and the guest met.
    pub(crate) missing: Vec<(String, u64)>,
}

impl RunStatistics {
    /// Adds what a machine did.
    pub(crate) fn add(&mut self, processors: &[ProcessorReport]) {
        if self.instructions.len() < processors.len() {
            self.instructions.resize(processors.len(), 0);
        }
        for (sum, one) in self.instructions.iter_mut().zip(processors) {
            *sum = sum.saturating_add(one.instructions);
        }
        for (name, count) in processors.iter().flat_map(|one| &one.missing) {
            add_to(&mut self.missing, name, *count);
        }
        processors.iter().flat_map(|one| &one.critical).for_each(|one| self.critical.add(one));
        for (name, count) in processors.iter().flat_map(|one| &one.counts) {
            let sum = self.translation.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    pub(crate) fn add_exits(&mut self, name: &str, count: u64) {
        add_to(&mut self.exits, name, count);
    }

    pub(crate) fn add_device(&mut self, name: &str, count: u64) {
        add_to(&mut self.devices, name, count);
    }

    pub(crate) fn finish(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
        for list in [&mut self.exits, &mut self.devices, &mut self.missing] {
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        }
    }

    /// A table for a person.
    pub(crate) fn table(&self) -> String {
        let total: u64 = self.instructions.iter().sum();
        #[allow(clippy::cast_precision_loss)] // for show
        let rate = total as f64 / self.seconds.max(1e-9) / 1e6;
        let mut lines = vec![
            format!("{:<28}{:>16.3} s", "time", self.seconds),
            format!("{:<28}{:>16}   {rate:.1} million per second", "instructions", grouped(total)),
        ];
        if self.instructions.len() > 1 {
            let by_cpu = self.instructions.iter().enumerate();
            lines.extend(by_cpu.map(|(cpu, n)| row(&format!("vcpu {cpu}"), *n)));
        }
        if self.resets > 0 {
            lines.push(format!("{:<28}{:>16}", "resets", grouped(self.resets)));
        }
        section(&mut lines, "exits", &self.exits);
        section(&mut lines, "device accesses", &self.devices);
        if !self.translation.is_empty() {
            lines.push("translation".to_owned());
            let counted = self.translation.iter().filter(|(_, count)| **count > 0);
            lines.extend(counted.map(|(name, count)| row(&name.replace('_', " "), *count)));
        }
        lines.extend(self.critical.lines());
        section(&mut lines, "instructions that the engine lacks", &self.missing);
        lines.join("\n")
    }
}

fn add_to(list: &mut Vec<(String, u64)>, name: &str, count: u64) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum = sum.saturating_add(count),
        None => list.push((name.to_owned(), count)),
    }
}

fn section(lines: &mut Vec<String>, title: &str, list: &[(String, u64)]) {
    let counted: Vec<&(String, u64)> = list.iter().filter(|(_, count)| *count > 0).collect();
    if counted.is_empty() {
        return;
    }
    let sum = counted.iter().map(|(_, count)| count).sum();
    lines.push(format!("{title:<28}{:>16}", grouped(sum)));
    lines.extend(counted.iter().map(|(name, count)| row(name, *count)));
}

fn row(name: &str, count: u64) -> String {
    format!("  {name:<26}{:>16}", grouped(count))
}

/// Thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// How a run ended.
pub(crate) struct RunEnd {
    pub(crate) sentence: String,
    /// The same for programs.
    pub(crate) reason: &'static str,
    pub(crate) status: ExitStatus,
    /// Of the processor that crashed.
    pub(crate) registers: Option<String>,
}

impl RunEnd {
    pub(crate) fn new(
        sentence: impl Into<String>,
        reason: &'static str,
        status: ExitStatus,
    ) -> Self {
        Self { sentence: sentence.into(), reason, status, registers: None }
    }

    /// What is said at the end of a run.
    pub(crate) fn print(&self, form: Form, statistics: Option<&RunStatistics>) {
        match form {
            Form::Text => {
                eprintln!("kasane: {}", self.sentence);
                self.registers.iter().for_each(|registers| eprintln!("{registers}"));
                statistics.iter().for_each(|statistics| eprintln!("{}", statistics.table()));
            }
            Form::Json => {
                let mut details = json!({
                    "reason": self.reason,
                    "exit_status": self.status.code(),
                    "sentence": self.sentence,
                });
                if let Some(details) = details.as_object_mut() {
                    let registers = self.registers.as_ref().map(|text| json!(text));
                    details.extend(registers.map(|text| ("registers".to_owned(), text)));
                    let statistics = statistics.map(|statistics| json!(statistics));
                    details.extend(statistics.map(|numbers| ("statistics".to_owned(), numbers)));
                }
                eprintln!("{}", with_event("end", &details));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1 000");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }

    #[test]
    fn machines_of_one_run_are_added_up() {
        let mut statistics = RunStatistics::default();
        let reports = [ProcessorReport {
            instructions: 5,
            missing: vec![("hlt".into(), 2)],
            counts: vec![("blocks".into(), 8)],
            critical: Vec::new(),
        }];
        statistics.add(&reports);
        statistics.add(&reports);
        statistics.add_exits("halt", 3);
        statistics.add_exits("port-read", 7);
        statistics.add_exits("halt", 1);
        statistics.finish(Duration::from_secs(1));

        assert_eq!(statistics.instructions, [10]);
        assert_eq!(statistics.missing, [("hlt".to_owned(), 4)]);
        assert_eq!(statistics.translation.get("blocks"), Some(&16));
        assert_eq!(statistics.exits, [("port-read".to_owned(), 7), ("halt".to_owned(), 4)]);
    }

    #[test]
    fn the_table_leaves_out_what_did_not_happen() {
        let mut statistics = RunStatistics { instructions: vec![1500], ..Default::default() };
        statistics.add_exits("halt", 0);
        statistics.finish(Duration::from_millis(1));

        assert_eq!(
            statistics.table(),
            "time                                   0.001 s\n\
             instructions                           1 500   1.5 million per second"
        );
    }
}
