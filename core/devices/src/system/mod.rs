//! What several chips ask of the whole machine: reset, power, the A20 gate; and the two plain
//! ports that do nothing else, 0x92 and 0xCF9.

mod a20;
mod chip;
mod glue;
#[cfg(test)]
mod tests;

pub use a20::A20Gate;
pub use chip::{ResetControl, SystemControlA};
pub use glue::{attach_reset_control, attach_system_control};

/// How a machine is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// INIT of the processor only (port 0x92, 0xCF9 "soft", the i8042's pulse): memory stays, and
    /// so do the devices.
    Processor,
    /// Everything.
    System,
}

/// What a chip asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRequest {
    /// A reset.
    Reset(ResetKind),
    /// The soft-off state (ACPI S5).
    PowerOff,
    /// A sleeping state, by its SLP_TYP value, that the machine may or may not have.
    Sleep(u8),
}

/// Who takes the requests: the machine. Called without any device's lock.
pub trait SystemPort: Send + Sync {
    /// Takes one request. It returns at once; what is asked for happens when the processors
    /// have stopped.
    fn request(&self, request: SystemRequest);
}
