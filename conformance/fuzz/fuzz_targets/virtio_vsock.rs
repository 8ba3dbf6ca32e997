//! A driver that does anything to sockets: its rings, its packets.
#![no_main]

use kasane_devices::virtio::vsock::{Vsock, VsockConnections, connect};
use kasane_fuzz::backends;
use kasane_fuzz::socket::{Socket, Step, home, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (ram, interrupts, offer) = home();
    let backend = backends::Sockets::new();
    let to = VsockConnections { memory: ram.clone(), interrupts, backend: backend.clone() };
    let device: Socket<Vsock> = connect("vsock", Vsock::new(3), offer, to);
    run(&device, &ram, |count, fails, data| backend.work(count, fails, data), &steps);
});
