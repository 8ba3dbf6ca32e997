//! The entropy device (virtio 1.2 §5.4): fills what the driver offers with random bytes, up to a
//! bound for each chain, as the driver takes fewer than it asked for.

mod chip;
mod glue;
#[cfg(test)]
mod tests;

pub use chip::{Rng, RngEffect};
pub use glue::{RngConnections, connect};
