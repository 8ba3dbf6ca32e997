//! The two objects that every engine has: one [`Partition`] per VM, one [`Vcpu`] per processor.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use kasane_ports::Kick;

use crate::{CpuState, Entry, Exit, StateSet};

/// Our bug or the host's, never the guest's.
#[derive(Debug)]
pub struct EngineFault {
    /// What went wrong, for a person.
    pub message: String,
}

impl fmt::Display for EngineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine fault: {}", self.message)
    }
}

impl core::error::Error for EngineFault {}

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineCaps {
    /// The engine's name: `interp`, `translate`, `kvm`, `svm`, `vmx`.
    pub name: &'static str,
    /// How many vCPUs a partition may have.
    pub max_vcpus: u32,
    /// Whether it can stop after an exact number of instructions.
    pub exact_budget: bool,
}

/// One VM in an engine.
pub trait Partition: Send + Sync {
    /// What the engine can do.
    fn caps(&self) -> EngineCaps;
    /// Makes vCPU number `index`. Each index is made once.
    ///
    /// # Errors
    /// When the engine can't make it.
    fn new_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, EngineFault>;
}

/// One processor. Owned by one thread at a time.
pub trait Vcpu: Send {
    /// Runs the guest until something needs the machine.
    ///
    /// # Errors
    /// Only for our own or the host's faults.
    fn run(&mut self, entry: Entry) -> Result<Exit, EngineFault>;
    /// Copies the parts of the state that `set` names into `state`.
    fn read(&mut self, set: StateSet, state: &mut CpuState);
    /// Takes over the parts of `state` that `set` names.
    fn write(&mut self, set: StateSet, state: &CpuState);
    /// A handle that wakes this vCPU from any thread. A kick before `run` is never lost.
    fn kicker(&self) -> Arc<dyn Kick>;
    /// Stop with `BudgetUsed` after so many instructions; `None` is without a bound. An exception
    /// counts as one, so that handlers that do nothing but fault come to an end too.
    fn set_budget(&mut self, instructions: Option<u64>);
    /// Instructions retired since creation.
    fn instructions(&self) -> u64;
    /// The guest time at which this vCPU wants to run even if nothing kicks it
    /// (its APIC timer), in nanoseconds of the [`Clock`](kasane_ports::Clock).
    fn next_deadline_ns(&self) -> Option<u64>;
    /// Whether a pending event would end a halt now.
    fn has_work(&mut self) -> bool;
    /// Debugger control: single step and breakpoints, apart from the guest's own.
    fn set_debug(&mut self, debug: &DebugControl);
    /// What the engine counted for people who want to know how it works, by name.
    fn counts(&self) -> alloc::vec::Vec<(String, u64)> {
        alloc::vec::Vec::new()
    }
    /// The critical instructions that came up, each once.
    fn critical_instructions(&self) -> alloc::vec::Vec<CriticalCount> {
        alloc::vec::Vec::new()
    }
    /// Names of instructions that the engine lacks and that were met (they raised #UD), with counts.
    fn missing_instructions(&self) -> alloc::vec::Vec<(String, u64)> {
        alloc::vec::Vec::new()
    }
}

/// Whether a sensitive instruction traps by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CriticalGroup {
    /// It runs in any ring without a trap, and then shows or changes too little or too much.
    Unprivileged,
    /// It faults outside ring 0 (or above IOPL).
    Privileged,
}

/// What a vCPU did about one of the instructions that a monitor must not let the processor run as
/// they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriticalCount {
    /// The manual's name, in small letters.
    pub name: &'static str,
    /// Its kind.
    pub group: CriticalGroup,
    /// Places in the guest's code where a translator met it.
    pub met: u64,
    /// Those of them that it translated to code that does the same.
    pub translated: u64,
    /// Times that it was done one by one, by the interpreter: it trapped, or its code was cold.
    pub trapped: u64,
}

/// What a debugger wants of a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugControl {
    /// Stop after each instruction. Maskable interrupts wait, so that a step goes to the next
    /// instruction of the program and not into a handler; a halt still ends by them.
    pub single_step: bool,
    /// Linear addresses at which to stop before the instruction.
    pub breakpoints: alloc::vec::Vec<u64>,
    /// Watched data.
    pub watchpoints: alloc::vec::Vec<Watchpoint>,
}

/// Data that a debugger watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// Linear address.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Stop on reads.
    pub on_read: bool,
    /// Stop on writes.
    pub on_write: bool,
}
