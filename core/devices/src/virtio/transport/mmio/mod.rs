//! A device as registers in memory (virtio 1.2 §4.2), with one interrupt wire. Only the version
//! without a legacy interface.

mod registers;
mod saved;
#[cfg(test)]
mod tests;

pub use registers::VirtioMmio;
