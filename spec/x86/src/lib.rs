//! What the Intel SDM and the AMD APM say about the processor: names for numbers.
//! No logic but encoding. `SDM` is Intel's Software Developer's Manual, `APM` AMD's
//! Architecture Programmer's Manual.
#![no_std]

pub mod control;
pub mod descriptor;
pub mod flags;
pub mod msr;
pub mod paging;
pub mod vector;
