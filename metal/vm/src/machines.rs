//! All machines that were defined, and their lives.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_definition::{MetalStart, VmDefinition};

use crate::assemble::{self, Running};
use crate::console::VmConsole;
use crate::control::End;
use crate::files::Files;
use crate::home::Home;
use crate::start_error::StartError;

/// A machine's place in the list, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub usize);

/// Where a machine is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was never started.
    New,
    /// It runs, by this engine.
    Runs(&'static str),
    /// It ended.
    Ended(End),
}

impl core::fmt::Display for Life {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::New => f.write_str("not started"),
            Self::Runs(engine) => write!(f, "runs ({engine})"),
            Self::Ended(end) => write!(f, "{end}"),
        }
    }
}

/// A machine, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its number.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Processors.
    pub cpus: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// What it does.
    pub life: Life,
}

struct Defined {
    definition: VmDefinition,
    console: Arc<VmConsole>,
    running: Option<Running>,
    end: Option<End>,
}

/// The machines.
pub struct Machines {
    home: Home,
    files: Files,
    machines: Vec<Defined>,
}

impl Machines {
    /// The machines of all definitions among the files, and a sentence for each that is none.
    #[must_use]
    pub fn new(home: Home, files: Files) -> (Self, Vec<String>) {
        let mut refused = Vec::new();
        let mut machines: Vec<Defined> = Vec::new();
        for (file, bytes) in files.definitions() {
            match read(bytes) {
                Ok(definition) if machines.iter().any(|m| m.definition.name == definition.name) => {
                    refused
                        .push(format!("{file}: there is a machine `{}` already", definition.name));
                }
                Ok(definition) => machines.push(Defined {
                    definition,
                    console: Arc::new(VmConsole::new(home.screen.clone())),
                    running: None,
                    end: None,
                }),
                Err(why) => refused.push(format!("{file}: {why}")),
            }
        }
        (Self { home, files, machines }, refused)
    }

    /// The machines that start by themselves.
    #[must_use]
    pub fn to_start(&self) -> Vec<Place> {
        let wanted = self
            .machines
            .iter()
            .enumerate()
            .filter(|(_, machine)| machine.definition.home.metal.start == MetalStart::Boot);
        wanted.map(|(index, _)| Place(index.saturating_add(1))).collect()
    }

    /// A machine by its name or number.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Place> {
        let by_name = self.machines.iter().position(|m| m.definition.name.as_str() == text);
        let by_number = || text.parse().ok().filter(|n| (1..=self.machines.len()).contains(n));
        by_name.map(|index| index.saturating_add(1)).or_else(by_number).map(Place)
    }

    fn at(&self, place: Place) -> Option<&Defined> {
        self.machines.get(place.0.checked_sub(1)?)
    }

    /// A machine's name.
    #[must_use]
    pub fn name(&self, place: Place) -> String {
        self.at(place).map_or_else(String::new, |machine| machine.definition.name.to_string())
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn start(&mut self, place: Place) -> Result<(), StartError> {
        let Self { home, files, machines } = self;
        let index = place.0.saturating_sub(1);
        let machine = machines.get_mut(index).ok_or(StartError::NoKernel)?;
        if machine.running.is_some() {
            return Err(StartError::Runs);
        }
        let running = assemble::start(home, files, &machine.definition, &machine.console)?;
        machine.running = Some(running);
        machine.end = None;
        Ok(())
    }

    /// Ends a machine. False if it doesn't run.
    pub fn stop(&mut self, place: Place) -> bool {
        let running = self.at(place).and_then(|machine| machine.running.as_ref());
        running.map(|running| running.control.end(End::Stopped)).is_some()
    }

    /// A machine's console.
    #[must_use]
    pub fn console(&self, place: Place) -> Option<Arc<VmConsole>> {
        self.at(place).map(|machine| machine.console.clone())
    }

    /// Input for a machine's serial port; gives how many bytes it took. Without a machine that runs
    /// all are taken and lost.
    pub fn input(&self, place: Place, bytes: &[u8]) -> usize {
        let running = self.at(place).and_then(|machine| machine.running.as_ref());
        running.map_or(bytes.len(), |running| running.machine.console_input(bytes))
    }

    /// The machines whose last task is gone, with their ends. Their memory is free again.
    pub fn finished(&mut self) -> Vec<(Place, End)> {
        let mut ends = Vec::new();
        for (index, machine) in self.machines.iter_mut().enumerate() {
            let end = machine.running.as_ref().and_then(|running| running.control.finished());
            if let Some(end) = end {
                machine.running = None;
                machine.end = Some(end.clone());
                ends.push((Place(index.saturating_add(1)), end));
            }
        }
        ends
    }

    /// All machines, for people.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let reports = self.machines.iter().enumerate().map(|(index, machine)| Report {
            place: Place(index.saturating_add(1)),
            name: machine.definition.name.to_string(),
            cpus: machine.definition.cpus.get(),
            memory_bytes: machine.definition.memory.bytes(),
            life: match (&machine.running, &machine.end) {
                (Some(running), _) => Life::Runs(running.engine),
                (None, Some(end)) => Life::Ended(end.clone()),
                (None, None) => Life::New,
            },
        });
        reports.collect()
    }
}

fn read(bytes: &[u8]) -> Result<VmDefinition, String> {
    let text = core::str::from_utf8(bytes).map_err(|_| String::from("it is no text (UTF-8)"))?;
    VmDefinition::parse(text).map_err(|error| error.to_string())
}
