//! The reference CPU engine: complete, plain, cited to the manual, and the oracle for all others.
//!
//! # How it works
//! Guest code is decoded once into [`block`]s of [`op::Op`]s: an iced-x86 instruction, its memory
//! operand in a form that is quick to evaluate, and a handler. A block is found by guest-physical
//! address, linear RIP and decode mode, and is valid as long as the versions of the (one or two)
//! pages that it was made from are the same (see `kasane_memory`'s code map), so self-modifying
//! and cross-modifying code is exact. [`run`] looks a block up, runs its ops, and looks for
//! attention (interrupts, kicks) between blocks.
//!
//! # Handlers
//! A handler is `fn(&mut Cpu, &Op) -> Result<(), Stop>`. `state.rip` is the instruction's own
//! address and `next_rip` the following one until it returns; a branch sets `next_rip`.
//! - `Ok(())`: done; the block goes on.
//! - `Err(Stop::Break)`: done, but the block must end (mode, mapping or code changed).
//! - `Err(Stop::Fault)`: nothing architectural was changed; `Cpu::fault` says what to deliver.
//! - `Err(Stop::Exit)`: nothing was changed; the machine must answer `Cpu::pending_exit` first and
//!   then the instruction runs again from its start, finding the answer in [`io`]'s replay log.
//!
//! So the rule for every handler is: all reads, checks and faults before the first register is
//! written; memory writes may be repeated but not changed.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod accelerator;
pub mod access;
mod apic_access;
pub mod block;
pub mod cpu;
pub mod critical;
pub mod deliver;
pub mod exclusive;
pub mod exec;
pub mod guard;
pub mod io;
pub mod op;
pub mod partition;
pub mod run;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod testing;

pub use cpu::{Cpu, Fault, Stop};
pub use op::Op;
pub use partition::{InterpConfig, InterpPartition, MakeAccelerator};
