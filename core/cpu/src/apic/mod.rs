//! The local APIC (SDM vol. 3A §11) and the bus between local APICs.
//!
//! A [`LocalApic`] is owned by its vCPU's thread and is a pure state machine. Other threads
//! (devices, other vCPUs) reach it only through its [`Mailbox`]: atomics that say what arrived,
//! and a kick. The [`ApicBus`] knows all mailboxes and decides who an interrupt message is for.

mod bus;
mod chip;
mod mailbox;
#[cfg(test)]
mod tests;

pub use bus::{ApicBus, ApicObserver, DeliveryMode, Destination, Message, Trigger};
pub use chip::{ApicMode, LocalApic, registers, saved_cr8};
pub use mailbox::{Mailbox, events};
