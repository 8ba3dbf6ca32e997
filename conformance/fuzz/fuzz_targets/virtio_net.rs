//! A driver that does anything to a network card: its rings, its frames and commands.
#![no_main]

use kasane_devices::virtio::net::{Link, Net, NetConnections, NetShape, connect};
use kasane_fuzz::backends;
use kasane_fuzz::socket::{Socket, Step, home, run};
use kasane_ports::NetBackend;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (ram, interrupts, offer) = home();
    let backend = backends::Net::new();
    let shape = NetShape { mac: [2, 0, 0, 0, 0, 1], queue_pairs: 3 };
    let chip = Net::new(backend.info(), shape);
    let to = NetConnections { memory: ram.clone(), interrupts, backend: backend.clone() };
    let device: Socket<Net> = connect("net", chip, offer, to);
    let work = |count: u8, fails: bool, data: u8| {
        backend.work(count, fails, data);
        device.set_link(if data == 0 { Link::Down } else { Link::Up });
        device.ask_to_announce();
    };
    run(&device, &ram, work, &steps);
});
