//! Delivery of exceptions and interrupts through the IVT or IDT (SDM vol. 3A §6).

use crate::cpu::{Cpu, Fault};

/// Whether a delivery succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The handler is entered (of this event, or of the fault that its delivery met).
    Done,
    /// A fault while delivering #DF: the processor shuts down.
    Shutdown,
}

impl Cpu {
    /// Delivers an exception of the current instruction, with the rules for double faults.
    pub fn deliver_exception(&mut self, _fault: Fault) -> Delivered {
        Delivered::Shutdown
    }
    /// Delivers a maskable hardware interrupt.
    pub fn deliver_interrupt(&mut self, _vector: u8) -> Delivered {
        Delivered::Shutdown
    }
    /// Delivers an NMI and blocks further ones until IRET.
    pub fn deliver_nmi(&mut self) -> Delivered {
        Delivered::Shutdown
    }
}
