//! What differs between AMD-V and VT-x.

use alloc::string::String;

use kasane_interp::cpu::Cpu;

/// Why a guest exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An interrupt, NMI, SMI or INIT of the host, which is served by now: go on.
    Host,
    /// The guest can take an interrupt now.
    Window,
    /// The instruction at RIP is the interpreter's. If its own exception was just being delivered,
    /// that happens again: nothing but what the guest does itself is ever delivered natively.
    Instruction,
    /// An access to memory that the nested tables don't map, or not so: as above.
    NestedFault,
    /// A fault while #DF was delivered.
    Shutdown,
    /// The processor doesn't take this state; nothing ran.
    Invalid,
    /// Something that was not asked for.
    Unknown,
}

/// Whether the guest exits when it can take an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It does.
    AtWindow,
    /// None waits.
    No,
}

/// What becomes of the processor's translations for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translations {
    /// They are true.
    Keep,
    /// Another processor ran the guest meanwhile, or the interpreter did something to its tables.
    Flush,
}

/// One virtual processor of the real one's.
pub trait Hardware: Send {
    /// The name of what is counted.
    const NAME: &'static str;

    /// Gets the real processor that this runs on ready, until [`Self::end`], and says what its
    /// translations for this guest are worth. `None` if it hasn't got what is needed.
    fn begin(&mut self) -> Option<Translations>;
    /// The guest may run on another processor next.
    fn end(&mut self) {}
    /// The processor's state goes in: all but general registers and vectors.
    fn put(&mut self, cpu: &Cpu);
    /// What [`Self::put`] put in comes out as the guest left it.
    fn get(&mut self, cpu: &mut Cpu);
    /// Runs the guest until it exits. `offset` is what its time-stamp counter is ahead.
    fn enter(&mut self, cpu: &mut Cpu, look: Look, tlb: Translations, offset: u64) -> Reason;
    /// The exit in numbers, for a message.
    fn describe(&self) -> String;
}
