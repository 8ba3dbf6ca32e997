//! Delivery of exceptions and interrupts through the IVT or IDT (SDM vol. 3A §6).
//!
//! Everything is read, checked and pushed before any register changes, so a fault in between
//! leaves the state that the nested fault must see. Pushes below the old stack pointer may have
//! happened then, as on hardware.

mod gate;
mod long;
mod real;
mod software;

use kasane_cpu::Activity;
use kasane_spec_x86::control::{dr6, dr7};
use kasane_spec_x86::{flags, vector};

use crate::cpu::{Cpu, Fault, Shadow, Stop};

/// Whether a delivery succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The handler is entered (of this event, or of the fault that its delivery met).
    Done,
    /// A fault while delivering #DF: the processor shuts down.
    Shutdown,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Interrupt or NMI.
    External,
    /// A fault or trap that the processor found.
    Exception,
    /// INT n.
    Interrupt,
    /// INT3 or INTO.
    Breakpoint,
    /// INT1.
    Icebp,
}

impl Source {
    /// An instruction that the gate's DPL is checked for.
    const fn is_software(self) -> bool {
        matches!(self, Self::Interrupt | Self::Breakpoint)
    }
    /// The EXT bit of error codes of faults during delivery.
    const fn ext(self) -> u32 {
        if self.is_software() { 0 } else { 1 }
    }
}

/// Something to deliver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) error: Option<u32>,
    pub(crate) source: Source,
    /// RIP to push.
    pub(crate) rip: u64,
    /// RFLAGS to push.
    pub(crate) flags: u64,
}

impl Event {
    /// The error code of a fault that blames the IDT entry.
    const fn idt_error(&self) -> u32 {
        (self.vector as u32) << 3 | 2 | self.source.ext()
    }
}

impl Cpu {
    /// Delivers an exception of the current instruction, with the rules for double faults.
    pub fn deliver_exception(&mut self, fault: Fault) -> Delivered {
        let mut fault = fault;
        // An instruction that faults meets no data breakpoints.
        self.debug_hits = 0;
        loop {
            self.note_fault(&fault);
            let event = Event {
                vector: fault.vector,
                error: fault.error,
                source: Source::Exception,
                rip: self.state.rip,
                flags: self.state.rflags | resume_flag(&fault),
            };
            if self.enter(&event).is_ok() {
                return self.entered();
            }
            match combine(fault.vector, &self.fault) {
                Combined::Next => fault = self.fault,
                Combined::DoubleFault => {
                    let second = self.fault;
                    self.note_fault(&second);
                    fault = Fault { vector: vector::DF, error: Some(0), address: 0, dr6: 0 };
                }
                Combined::Shutdown => return Delivered::Shutdown,
            }
        }
    }
    /// Delivers a maskable hardware interrupt.
    pub fn deliver_interrupt(&mut self, vector: u8) -> Delivered {
        self.deliver_external(vector)
    }
    /// Delivers an NMI and blocks further ones until IRET.
    pub fn deliver_nmi(&mut self) -> Delivered {
        self.state.nmi_blocked = true;
        self.deliver_external(vector::NMI)
    }

    fn deliver_external(&mut self, vector: u8) -> Delivered {
        let event = Event {
            vector,
            error: None,
            source: Source::External,
            rip: self.state.rip,
            flags: self.state.rflags,
        };
        if self.enter(&event).is_ok() {
            return self.entered();
        }
        let fault = self.fault;
        self.deliver_exception(fault)
    }

    fn entered(&mut self) -> Delivered {
        self.state.rip = self.next_rip;
        self.state.activity = Activity::Running;
        self.shadow = Shadow::None;
        Delivered::Done
    }

    /// What an exception does to CR2, DR6 and DR7 before its handler runs.
    fn note_fault(&mut self, fault: &Fault) {
        match fault.vector {
            vector::PF => self.state.cr2 = fault.address,
            vector::DB => {
                let hits = if fault.dr6 & dr6::B != 0 { dr6::B } else { 0 };
                self.state.dr6 = self.state.dr6 & !hits | fault.dr6 | dr6::FIXED;
                if self.state.dr7 & dr7::GD != 0 {
                    self.state.dr7 &= !dr7::GD;
                }
            }
            _ => {}
        }
    }

    /// Enters the handler of an event: `next_rip` is its address then.
    pub(crate) fn enter(&mut self, event: &Event) -> Result<(), Stop> {
        if !self.protected() {
            self.enter_real(event)
        } else if self.long_mode() {
            self.enter_long(event)
        } else {
            self.enter_gate(event)
        }
    }

    /// Flags inside a handler: no trace, no v86, no resume; no interrupts through an interrupt
    /// gate.
    fn handler_flags(&mut self, interrupt_gate: bool) {
        let mut cleared = flags::TF | flags::NT | flags::RF | flags::VM;
        if interrupt_gate {
            cleared |= flags::IF;
        }
        self.state.rflags &= !cleared;
    }
}

/// RF in the pushed image: set for faults, but not for instruction breakpoints, which software
/// must step over itself (SDM vol. 3B §17.3.1.1).
fn resume_flag(fault: &Fault) -> u64 {
    match fault.vector {
        vector::DB if fault.dr6 & dr6::BD == 0 => 0,
        _ => flags::RF,
    }
}

/// What a fault during the delivery of another becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Combined {
    /// It is delivered instead.
    Next,
    DoubleFault,
    Shutdown,
}

/// SDM vol. 3A table 6-5.
fn combine(first: u8, second: &Fault) -> Combined {
    let contributory = |v: u8| matches!(v, vector::DE | vector::TS..=vector::GP);
    let second = second.vector;
    let page = second == vector::PF;
    match first {
        vector::DF if contributory(second) || page => Combined::Shutdown,
        vector::PF if contributory(second) || page => Combined::DoubleFault,
        v if contributory(v) && contributory(second) => Combined::DoubleFault,
        _ => Combined::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(vector: u8) -> Fault {
        Fault { vector, ..Fault::default() }
    }

    #[test]
    fn faults_combine_as_in_table_6_5() {
        use Combined::{DoubleFault, Next, Shutdown};
        let cases = [
            (vector::UD, vector::GP, Next),
            (vector::NMI, vector::PF, Next),
            (vector::GP, vector::PF, Next),
            (vector::GP, vector::NP, DoubleFault),
            (vector::DE, vector::SS, DoubleFault),
            (vector::TS, vector::UD, Next),
            (vector::PF, vector::PF, DoubleFault),
            (vector::PF, vector::GP, DoubleFault),
            (vector::PF, vector::DB, Next),
            (vector::DF, vector::GP, Shutdown),
            (vector::DF, vector::PF, Shutdown),
            (vector::AC, vector::GP, Next),
        ];
        for (first, second, expected) in cases {
            assert_eq!(combine(first, &fault(second)), expected, "{first} then {second}");
        }
    }

    #[test]
    fn only_faults_set_the_resume_flag() {
        let breakpoint = Fault { vector: vector::DB, dr6: 1, ..Fault::default() };
        let general_detect = Fault { vector: vector::DB, dr6: dr6::BD, ..Fault::default() };
        assert_eq!(resume_flag(&breakpoint), 0);
        assert_eq!(resume_flag(&general_detect), flags::RF);
        assert_eq!(resume_flag(&fault(vector::PF)), flags::RF);
    }
}
