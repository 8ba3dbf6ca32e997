//! The comparison of the interpreter with the real CPU (DESIGN §5): single user-mode
//! instructions, whole state against whole state.
//!
//! [`generate`] makes cases, [`native`] runs them on the processor that this program runs on,
//! [`interp`] in the interpreter, [`compare`] looks for differences and makes them small.
//! [`worker`] does that in a process of its own, [`supervise`] looks after workers.
//!
//! This crate needs `unsafe` to enter generated code on the real CPU and to handle its faults.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod blocks;
pub mod case;
pub mod compare;
pub mod generate;
pub mod interp;
pub mod layout;
pub mod native;
pub mod rng;
pub mod segments;
pub mod supervise;
pub mod undefined;
pub mod worker;
