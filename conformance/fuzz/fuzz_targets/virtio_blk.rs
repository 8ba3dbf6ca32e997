//! A driver that does anything to a disk: its registers, its rings, its requests, while the
//! backend ends them in time or late.
#![no_main]

use std::sync::Arc;

use kasane_devices::virtio::blk::DiskShape;
use kasane_fuzz::virtio::{Disk, DriverStep, Shape, run};
use kasane_machine::DeviceKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Shape, Vec<DriverStep>)| {
    let (shape, steps) = input;
    let backend = Arc::new(Disk::default());
    let disk = DiskShape { serial: [b's'; 20], queues: 2 };
    let kind = DeviceKind::Disk { backend: backend.clone(), shape: disk };
    let work = Arc::new(move |ram: &_, count, fails, data| backend.work(ram, count, fails, data));
    run(kind, shape, work, &steps);
});
