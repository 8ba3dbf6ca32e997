//! The memory balloon (virtio 1.2 §5.5): pages that the guest doesn't need go back to the host, by
//! a [`PageReclaim`](kasane_ports::PageReclaim).
//!
//! # What must not happen
//! A page that is given back reads as zeros. A guest may use a page again as soon as it has its
//! chain back, and all of its memory after a reset. So a chain goes back to the driver only when
//! its pages are with the host ([`BalloonEffect::Reclaim`]), and a reset waits for the chain whose
//! pages are on their way ([`BalloonEffect::Settle`]).
//!
//! Only whole pages of RAM are given back; whatever else a driver names is left alone.

mod chip;
mod glue;
mod pages;
mod saved;
mod statistics;
#[cfg(test)]
mod tests;

pub use chip::{Balloon, BalloonEffect};
pub use glue::{BalloonConnections, connect};
pub use statistics::GuestStatistics;
