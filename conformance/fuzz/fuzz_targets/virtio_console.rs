//! A driver that does anything to a console: its rings, its ports and control messages.
#![no_main]

use std::sync::Arc;

use kasane_devices::virtio::console::{
    ConsoleConnections, ConsoleSize, PortConnections, PortShape, VirtioConsole, connect,
};
use kasane_fuzz::backends::Sink;
use kasane_fuzz::socket::{Socket, Step, home, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (ram, interrupts, offer) = home();
    let size = ConsoleSize { columns: 80, rows: 25 };
    let more = vec![PortShape::Named("one".into()), PortShape::Console];
    let end = || PortConnections { console: Arc::new(Sink), room: None };
    let ports = vec![end(), end(), end()];
    let to = ConsoleConnections { memory: ram.clone(), interrupts, ports };
    let chip = VirtioConsole::new(more, size);
    let device: Socket<VirtioConsole> = connect("console", chip, offer, to);
    let work = |count: u8, _: bool, data: u8| {
        let bytes = vec![data; count.into()];
        assert!(device.receive(usize::from(data % 5), &bytes) <= bytes.len());
        device.resize(ConsoleSize { columns: count.into(), rows: data.into() });
    };
    run(&device, &ram, work, &steps);
});
