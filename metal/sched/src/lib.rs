//! The scheduler of the bare machine: [`Queue`] decides which task runs next on which processor,
//! as a value that a host can test; [`Runtime`] runs tasks by it.
//!
//! A task has no stack of its own: it is called, works until the moment it is told or until it has
//! nothing to do, and returns. A virtual processor is one, as `run` of its engine returns for every
//! exit, and so is a machine's timer and the monitor. So there is nothing to switch, and a task that
//! waits costs a few words.
//!
//! # Fairness
//! Each task has a weight and a virtual time that goes on by the time it ran divided by its weight;
//! the task with the least runs next. A task that waited doesn't save up: it begins again at most
//! [`queue::LATENCY_NS`] behind the others, which bounds how long it may then keep them waiting.
//! Rejected: fixed priorities (a spinning guest starves others) and one queue for each processor
//! (needs balancing, which is only worth its trouble with more processors than this is for).
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod queue;
mod runtime;

pub use queue::{Next, Pick, Poke, Queue, TaskId};
pub use runtime::{NewTask, Processors, Runtime, Spawner, Task, TaskReport, Waker};
