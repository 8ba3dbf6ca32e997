//! The reference CPU engine: complete, plain, cited to the manual.
#![no_std]
extern crate alloc;
