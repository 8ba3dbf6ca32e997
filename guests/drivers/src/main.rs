//! A guest without an operating system that drives Kasane's virtio devices by the crate
//! `virtio-drivers`: what another's driver does to them, over both transports, in a second.
//!
//! It takes all devices that it finds, and prints for each `ok DEVICE over TRANSPORT: what was
//! done` or `FAIL DEVICE over TRANSPORT: why` on the serial port, then the last line of our guests
//! (`guests/README.md`), and powers off. It waits for its devices as long as it takes: who runs it
//! has the clock.
//!
//! What it expects of its surroundings: a disk of a MiB or more that is all zeros; a network with a
//! gateway at 10.0.2.2; a console whose other side answers `question` by a line; at port 1234 of
//! the host's sockets a program that says what it hears.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod check;
mod find;
mod memory;
mod port;

use core::panic::PanicInfo;

use virtio_drivers::transport::{DeviceType, Transport};

/// How many devices did what they should, and how many didn't.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    /// Checks a device that is reached by `way`.
    fn device(&mut self, transport: impl Transport, way: &str) {
        let (name, result) = match transport.device_type() {
            DeviceType::Block => ("blk", check::disk::run(transport)),
            DeviceType::Network => ("net", check::net::run(transport)),
            DeviceType::Console => ("console", check::console::run(transport)),
            DeviceType::EntropySource => ("rng", check::entropy::run(transport)),
            DeviceType::Socket => ("vsock", check::sockets::run(transport)),
            other => return say!("  no driver for {other:?} over {way}"),
        };
        match result {
            Ok(what) => {
                self.passed += 1;
                say!("ok {name} over {way}: {what}");
            }
            Err(why) => {
                self.failed += 1;
                say!("FAIL {name} over {way}: {why}");
            }
        }
    }
}

/// Where `boot` comes to.
#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    let mut tally = Tally::default();
    find::on_pci(|transport| tally.device(transport, "pci"));
    find::in_memory(|transport| tally.device(transport, "mmio"));
    say!("guest drivers: {} passed, {} failed", tally.passed, tally.failed);
    port::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("FAIL {info}");
    port::power_off()
}
