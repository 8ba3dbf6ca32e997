//! Virtio 1.2: paravirtual devices, their queues, and the transports that a driver finds them by.
//!
//! # The parts
//! - A device is a [`VirtioChip`], a pure state machine: what it offers, and what it does when the
//!   driver notifies a queue. It gets an [`Io`], which has its queues, guest memory and the way for
//!   effects out. It never sees the transport, a lock or a thread.
//! - [`VirtioCore`] is what all devices have in common: status, features, queues (§2, §3).
//! - [`VirtioSocket`] puts both behind a lock; effects and interrupts are applied after unlocking.
//!   A doorbell runs the chip on the thread of the vCPU that rings it; a backend's thread comes in
//!   by [`VirtioSocket::with`].
//! - A [`transport`] shows the socket to the driver, as a PCI function or as registers in memory.
//!
//! # To add a device
//! 1. Its constants go to `spec/virtio` (a module, cited by section).
//! 2. A folder here with `chip` (implements [`VirtioChip`]), `saved` (its [`VirtioChip::Form`]),
//!    `tests`, and `glue` (a function that makes the [`VirtioSocket`] and connects its backend: the
//!    port's traits are implemented on `VirtioSocket<R, YourChip>`, by `reach` and `change`, or by
//!    `with` for completions, which [`VirtioWiring::settle`] waits for).
//! 3. In [`VirtioChip::notified`], take chains by [`Io::pop`] until there are none (or come back by
//!    `reach` for the rest: the driver won't notify again before it saw an empty ring), move bytes
//!    by [`queue::gather`] and [`queue::scatter`], give chains back by [`Io::push`], and ask once
//!    at the end for the interrupt by [`Io::signal`]. Work for others (requests to a backend) goes
//!    out as a [`VirtioChip::Effect`].
//! 4. A chain that makes no sense to the device ends in [`Io::fail`], as §2.1.1 has it, where the
//!    device's section doesn't know a gentler answer.
//! 5. Tests drive the chip as its driver would, by `rig` (a device with its queues set up, and a
//!    driver for rings of either form).
//!
//! # Hold
//! A machine is saved when its devices' states and guest memory agree. vCPUs stand then, and what
//! they have asked of a backend is waited for ([`VirtioWiring::settle`]). But a network's thread
//! takes and gives frames when it likes, and a console's gives input. Such calls go through the
//! device's *gate* ([`VirtioSocket::reach`]), which a hold closes: they answer that there is
//! nothing, or no room, without a look at guest memory, and the release wakes who was turned away.
//! Changes that can't be refused ([`VirtioSocket::change`]) wait for the release. A hold waits for
//! the call that is inside, with the interrupts that it makes, so that none of them is in neither
//! the saved state nor the machine that goes on.
//!
//! # Reset
//! A driver may reset at any time. What is under way in a backend still refers to guest memory, so
//! the status reads as it was until the effects of [`VirtioChip::reset`] are applied: a device with
//! requests under way has its backend drained there. Completions that come after that are of no
//! chain any more, and the chip drops them.
//!
//! Lock order: the gate comes before the device's lock, which is a leaf. The gate is held while
//! effects are applied, so it is for calls whose effects wake backends and interrupt the driver,
//! and come back by neither. vCPUs never take it. Guest memory is touched under it, which takes no lock of
//! a device.

pub mod balloon;
pub mod blk;
mod chip;
pub mod console;
mod core_state;
pub mod fs;
#[cfg(test)]
mod hold_tests;
mod io;
pub mod net;
pub mod queue;
#[cfg(test)]
mod rig;
pub mod rng;
mod saved;
mod socket;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod vsock;

pub use chip::{ChipDoesNotFit, VirtioChip};
pub use core_state::{Interface, Offer, QueueChange, QueueRegisters, VirtioCore};
pub use io::Io;
pub use queue::{Chain, ChainId, QueueError, QueuePlace};
pub use socket::{VirtioDevice, VirtioInterrupts, VirtioSocket, VirtioWiring};
