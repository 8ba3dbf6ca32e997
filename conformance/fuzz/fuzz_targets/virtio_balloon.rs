//! A driver that does anything to a balloon: its rings, its pages.
#![no_main]

use std::sync::Arc;

use kasane_devices::virtio::balloon::{Balloon, BalloonConnections, connect};
use kasane_fuzz::backends::Sink;
use kasane_fuzz::socket::{Socket, Step, home, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (ram, interrupts, offer) = home();
    let to = BalloonConnections { memory: ram.clone(), interrupts, reclaim: Arc::new(Sink) };
    let device: Socket<Balloon> = connect("balloon", offer, to);
    let work = |count: u8, _: bool, _: u8| {
        device.set_wanted_bytes(u64::from(count) << 14);
        device.ask_for_statistics();
    };
    run(&device, &ram, work, &steps);
});
