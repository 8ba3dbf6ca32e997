//! The I/O APIC: 24 pins, version 0x20 (with the EOI register).
//!
//! Its glue is the [`InterruptRouter`](crate::interrupts::InterruptRouter).

mod chip;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::Ioapic;
pub(crate) use saved::IoapicForm;
