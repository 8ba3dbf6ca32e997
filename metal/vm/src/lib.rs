//! A virtual machine on the bare machine: the core's machine and an engine's virtual processors,
//! each of which is a task of the scheduler (`metal/sched`).
//!
//! ```text
//! vCPU task ── vcpu.run(entry) ──> exit ── machine.handle ──> entry      (until its slice is over)
//! timer task ── machine.next_deadline_ns / advance                       (device deadlines)
//! monitor ── start, end, input, finished                                 (this crate's API)
//! ```
//! The same shape as `apps/kasane`'s, with tasks for threads. All that is of the bare machine comes
//! in by [`Home`], so that machines run in this crate's tests on a host too.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod assemble;
mod console;
mod control;
mod files;
mod home;
mod machines;
mod processor;
mod start_error;
mod timer;

pub use console::{Screen, VmConsole};
pub use control::End;
pub use files::Files;
pub use home::{Engine, Home, MakeRam};
pub use machines::{Life, Machines, Place, Report};
pub use start_error::StartError;

#[cfg(test)]
mod tests;
