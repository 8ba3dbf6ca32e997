//! What AMD-V and VT-x share.
//!
//! # How it fits
//! The engine is the core's interpreter with an [`Accelerator`](kasane_interp::accelerator) for
//! what the processor can do itself, as the translator is one. Between two looks around the guest
//! runs natively until it exits; then the whole state goes back to the interpreter's processor,
//! which does the instruction that exited (there is one semantics for all engines), delivers
//! interrupts and raises what the machine has to answer. What is left to the processor is all that
//! is fast: user and kernel code, its page tables, exceptions, system calls.
//!
//! So nothing is needed that emulators and old processors lack: no decode assists, no next RIP, no
//! virtual APIC. The price is an exit's: the state is copied in and out.
//!
//! `Assisted` is that accelerator; what differs between the two makes is behind [`Hardware`].
//!
//! # Memory
//! The nested tables map all RAM at once; a nested page fault is a device's register. What a guest
//! writes natively doesn't reach the core's code map, so instructions are fetched and decoded anew
//! for each exit, with an empty software TLB.
//!
//! `unsafe` because it loads a guest's vector registers.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(target_os = "none")]
mod accelerator;
#[cfg(target_os = "none")]
mod features;
#[cfg(target_os = "none")]
mod fetch;
mod hardware;
mod nested;
#[cfg(target_os = "none")]
mod vectors;

#[cfg(target_os = "none")]
pub use accelerator::Assisted;
#[cfg(target_os = "none")]
pub use features::hidden_features;
pub use hardware::{Hardware, Look, Reason, Translations};
pub use nested::Nested;
