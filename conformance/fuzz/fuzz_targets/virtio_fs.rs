//! A driver that does anything to a shared folder's device: its rings, its requests.
#![no_main]

use kasane_devices::virtio::fs::{Fs, FsConnections, connect};
use kasane_fuzz::backends;
use kasane_fuzz::socket::{Socket, Step, home, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (ram, interrupts, offer) = home();
    let backend = backends::Share::new();
    let to = FsConnections { memory: ram.clone(), interrupts, backend: backend.clone() };
    let device: Socket<Fs> = connect("fs", Fs::new("share"), offer, to);
    run(&device, &ram, |count, fails, data| backend.work(count, fails, data), &steps);
});
