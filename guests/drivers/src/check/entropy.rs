//! A source of random numbers.

use alloc::format;

use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::Transport;

use super::{Outcome, driver};
use crate::memory::Bare;

/// Two requests give all bytes, and not the same.
pub fn run(transport: impl Transport) -> Outcome {
    let mut source = VirtIORng::<Bare, _>::new(transport).map_err(driver("no source"))?;
    let mut draws = [[0; 256]; 2];
    for draw in &mut draws {
        let len = source.request_entropy(draw).map_err(driver("request"))?;
        if len != draw.len() {
            return Err(format!("{len} bytes of {}", draw.len()));
        }
    }
    let [first, second] = draws;
    if first == second || first == [0; 256] {
        return Err("they are not random".into());
    }
    Ok("2 draws of 256 bytes".into())
}
