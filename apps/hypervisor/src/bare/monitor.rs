//! The monitor: a shell on the serial port, as a task.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use kasane_metal_console::{COMMANDS, Command, LineEditor, Typed, parse};
use kasane_metal_cpu as cpu;
use kasane_metal_memory::physical;
use kasane_metal_sched::{Next, Task};
use kasane_metal_vm::{End, Machines, Place, Screen};

use super::firmware::Firmware;
use super::serial::{self, Lines, log};
use super::{pci, runtime};

const PROMPT: &[u8] = b"kasane> ";
/// Ctrl-], which leaves a console.
const LEAVE: u8 = 0x1D;
/// Bytes that wait for a guest that takes none.
const WAITING_MAX: usize = 4096;

macro_rules! say {
    ($($what:tt)*) => {{ let _never_fails = writeln!(Lines, $($what)*); }};
}

/// What is typed goes to.
enum Mode {
    Shell,
    Console(Place),
}

/// The monitor.
pub(crate) struct Monitor {
    machines: Machines,
    firmware: Firmware,
    line: LineEditor,
    mode: Mode,
    /// Typed for the guest, not taken yet.
    waiting: Vec<u8>,
    greeted: bool,
}

impl Monitor {
    pub(crate) fn new(machines: Machines, firmware: Firmware) -> Self {
        let (line, mode, waiting) = (LineEditor::default(), Mode::Shell, Vec::new());
        Self { machines, firmware, line, mode, waiting, greeted: false }
    }

    fn greet(&mut self) {
        if core::mem::replace(&mut self.greeted, true) {
            return;
        }
        for place in self.machines.to_start() {
            self.start(place);
        }
        say!("kasane: ready");
        self.prompt();
    }

    fn prompt(&self) {
        match self.mode {
            Mode::Shell => serial::send(PROMPT),
            Mode::Console(_) => {}
        }
    }

    fn type_byte(&mut self, byte: u8) {
        if let Mode::Console(place) = self.mode {
            if byte == LEAVE {
                self.leave(place);
            } else if self.waiting.len() < WAITING_MAX {
                self.waiting.push(byte);
            }
            return;
        }
        match self.line.type_byte(byte) {
            Typed::Nothing => {}
            Typed::Echo(text) => serial::send(text.as_bytes()),
            Typed::Line(line) => {
                serial::send(b"\r\n");
                self.command(&line);
                self.prompt();
            }
        }
    }

    fn command(&mut self, line: &str) {
        match parse(line) {
            Ok(Command::Nothing) => {}
            Ok(Command::Help) => {
                COMMANDS.iter().for_each(|(usage, what)| say!("{usage:16} {what}"))
            }
            Ok(Command::List) => self.list(),
            Ok(Command::Start(name)) => self.with(&name, Self::start),
            Ok(Command::Stop(name)) => self.with(&name, Self::stop),
            Ok(Command::Console(name)) => self.with(&name, Self::join),
            Ok(Command::Log) => serial::send(&serial::log_text()),
            Ok(Command::Memory) => memory(),
            Ok(Command::Cpus) => cpus(),
            Ok(Command::Pci) => self.pci(),
            Ok(Command::PowerOff) => self.power_off(),
            Ok(Command::Reboot) => {
                serial::flush();
                cpu::reset();
            }
            Err(error) => say!("error: {error}"),
        }
    }

    fn with(&mut self, name: &str, what: fn(&mut Self, Place)) {
        match self.machines.find(name) {
            Some(place) => what(self, place),
            None => say!("error: there is no machine `{name}`: try `list`"),
        }
    }

    fn list(&self) {
        let machines = self.machines.report();
        if machines.is_empty() {
            say!("no machines: the loader brought no definition (a module `NAME.toml`)");
        }
        for machine in machines {
            let mib = machine.memory_bytes >> 20;
            let (number, name, cpus) = (machine.place.0, machine.name, machine.cpus);
            say!("{number:2}  {name:16} {cpus} cpus {mib:6} MiB  {}", machine.life);
        }
    }

    fn start(&mut self, place: Place) {
        let name = self.machines.name(place);
        match self.machines.start(place) {
            Ok(()) => log!("`{name}` was started"),
            Err(error) => log!("`{name}` can't be started: {error}"),
        }
    }

    fn stop(&mut self, place: Place) {
        if !self.machines.stop(place) {
            say!("error: `{}` doesn't run", self.machines.name(place));
        }
    }

    fn join(&mut self, place: Place) {
        if let Some(console) = self.machines.console(place) {
            say!("(Ctrl-] leaves)");
            self.mode = Mode::Console(place);
            console.set_screen(Screen::Joined);
        }
    }

    fn leave(&mut self, place: Place) {
        if let Some(console) = self.machines.console(place) {
            console.set_screen(Screen::Left);
        }
        self.mode = Mode::Shell;
        self.waiting.clear();
        serial::send(b"\r\n");
        self.prompt();
    }

    /// Gives a guest what was typed for it.
    fn pass_on(&mut self) {
        if let Mode::Console(place) = self.mode {
            let taken = self.machines.input(place, &self.waiting);
            self.waiting.drain(..taken.min(self.waiting.len()));
        }
    }

    fn see_ends(&mut self) {
        for (place, end) in self.machines.finished() {
            let name = self.machines.name(place);
            match self.mode {
                Mode::Console(joined) if joined == place => self.leave(place),
                Mode::Console(_) | Mode::Shell => serial::send(b"\r\n"),
            }
            log!("`{name}`: {end}");
            if end == End::Reset {
                self.start(place);
            }
            self.prompt();
        }
    }

    fn pci(&self) {
        for window in &self.firmware.ecam {
            let (at, first, last) = (window.address, window.first_bus, window.last_bus);
            say!("configuration space at {at:#x}, buses {first} to {last}");
        }
        pci::list().iter().for_each(|line| say!("{line}"));
    }

    fn power_off(&self) {
        say!("kasane: power off");
        serial::flush();
        if let Some(way) = self.firmware.power_off {
            cpu::power_off(way.port, way.sleep_type);
            cpu::delay_us(1_000_000);
        }
        say!("error: the firmware names no way to switch off that works");
    }
}

fn memory() {
    let (free, total) = physical::free_and_total();
    say!("{} MiB free of {} MiB", free >> 20, total >> 20);
}

fn cpus() {
    say!("{} processors, {} MHz", cpu::online(), cpu::ticks_per_second() / 1_000_000);
    for task in runtime::get().report() {
        let place = match task.processor {
            Some(number) => alloc::format!("on {number}"),
            None => String::from("-"),
        };
        say!("{:24} {:6} ran {} ms", task.name, place, task.ran_ns / 1_000_000);
    }
}

impl Task for Monitor {
    fn run(&mut self, _until_ns: u64) -> Next {
        self.greet();
        while let Some(byte) = serial::typed() {
            self.type_byte(byte);
        }
        self.pass_on();
        self.see_ends();
        Next::Wait(None)
    }
}
