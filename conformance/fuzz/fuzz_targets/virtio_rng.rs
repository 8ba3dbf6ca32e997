//! A driver that does anything to an entropy device: its registers, its rings, its buffers.
#![no_main]

use std::sync::Arc;

use kasane_fuzz::virtio::{DriverStep, Shape, run};
use kasane_machine::DeviceKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Shape, Vec<DriverStep>)| {
    let (shape, steps) = input;
    run(DeviceKind::Entropy, shape, Arc::new(|_: &_, _, _, _| {}), &steps);
});
