//! A debugger's way into a running guest: GDB's remote protocol over TCP or a Unix socket.
//!
//! ```text
//! gdb ── packets ──> Server ── session ──> Stub ── DebugTarget ──> the program's vCPU threads
//!                       ^                                              │
//!                       └───────────── stops (a thread waits) ─────────┘
//! ```
//! Each vCPU is one of GDB's threads, numbered from 1. The stub works in all-stop mode: when one
//! vCPU stops, all do. While GDB steps one thread past a breakpoint the others stay frozen, so
//! that none of them slips past it. Breakpoints are the engine's, by linear address: no byte of
//! guest memory changes. Memory is read and written as the chosen vCPU would see it, through its
//! page tables but without regard for their rights and without marking anything; only RAM, so
//! that a look never moves a device.
//!
//! What a connection does to the machine: connecting stops it, `detach` lets it go on without
//! breakpoints, `kill` ends it. A connection that is lost takes its breakpoints with it and
//! leaves the machine as it was, stopped or running.

mod address;
mod breakpoints;
mod describe;
mod link;
mod memory;
mod registers;
mod server;
mod session;
mod stub;
mod target;

pub use address::{ListenAddress, ParseAddressError};
pub use server::Server;
pub use target::{DebugTarget, Ended, PhysicalView, Run, Stop, TargetGone, VcpuStop};
