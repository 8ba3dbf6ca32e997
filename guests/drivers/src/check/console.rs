//! A console: it says something, hears a line, and says it again.

use alloc::format;
use alloc::string::String;

use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::Transport;

use super::{Outcome, driver};
use crate::memory::Bare;

/// Says and hears.
pub fn run(transport: impl Transport) -> Outcome {
    let mut console = VirtIOConsole::<Bare, _>::new(transport).map_err(driver("no console"))?;
    console.send_bytes(b"question\n").map_err(driver("send"))?;
    let mut line = String::new();
    while !line.ends_with('\n') {
        match console.recv(true).map_err(driver("receive"))? {
            Some(byte) => line.push(char::from(byte)),
            None => core::hint::spin_loop(),
        }
    }
    let line = line.trim_end();
    for byte in format!("heard {line}\n").bytes() {
        console.send(byte).map_err(driver("send"))?;
    }
    Ok(format!("heard `{line}`"))
}
