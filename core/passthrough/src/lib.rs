//! Runs one vector or x87 instruction of the guest on the host's CPU: same ISA, same result.
#![no_std]
extern crate alloc;
