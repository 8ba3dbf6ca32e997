//! Control messages (virtio 1.2 §5.3.6.2). What the driver has still to hear is kept as one bit
//! for each kind of message and port, so a driver that asks and doesn't listen costs nothing.

use alloc::vec::Vec;

use kasane_spec_virtio::console::{control, feature, queue};

use super::chip::{ConsoleEffect, Port, PortShape, VirtioConsole};
use crate::virtio::queue::{gather, len, scatter};
use crate::virtio::{Io, QueueError};

/// Messages about a port that the driver has still to get, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Owed {
    /// That it exists.
    pub(super) add: bool,
    /// That it is a console.
    pub(super) console: bool,
    /// Its name.
    pub(super) name: bool,
    /// That the host has it open.
    pub(super) open: bool,
    /// Its size.
    pub(super) resize: bool,
    /// Not a message: the driver has said that it has the port ready.
    pub(super) announced: bool,
}

impl VirtioConsole {
    /// The next message for the driver, which is then no longer owed.
    fn next_message(&mut self) -> Option<Vec<u8>> {
        let size = self.size;
        let owes = |port: &Port| {
            let Owed { add, console, name, open, resize, announced: _ } = port.owed;
            add || console || name || open || resize
        };
        let (id, port) = self.ports.iter_mut().enumerate().find(|(_, port)| owes(port))?;
        let owed = &mut port.owed;
        let mut data = Vec::new();
        let (event, value) = if core::mem::take(&mut owed.add) {
            (control::DEVICE_ADD, 1u16)
        } else if core::mem::take(&mut owed.console) {
            (control::CONSOLE_PORT, 1)
        } else if core::mem::take(&mut owed.name) {
            if let PortShape::Named(name) = &port.shape {
                data.extend(name.as_bytes());
            }
            (control::PORT_NAME, 1)
        } else if core::mem::take(&mut owed.open) {
            (control::PORT_OPEN, 1)
        } else {
            owed.resize = false;
            data.extend(size.columns.to_le_bytes());
            data.extend(size.rows.to_le_bytes());
            (control::RESIZE, 0)
        };
        let mut message = Vec::with_capacity(control::LEN + data.len());
        message.extend((id as u32).to_le_bytes());
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(data);
        Some(message)
    }

    /// Sends what is owed, as far as the driver has room.
    pub(super) fn send_owed(&mut self, io: &mut Io<'_, ConsoleEffect>) {
        if !io.has(feature::MULTIPORT) {
            return;
        }
        let owes =
            |port: &Port| port.owed != Owed { announced: port.owed.announced, ..Owed::default() };
        while self.ports.iter().any(owes) {
            let Some(chain) = io.pop(queue::CONTROL_RECEIVE) else { break };
            let Some(message) = self.next_message() else {
                return io.put_back(queue::CONTROL_RECEIVE, chain.id);
            };
            match scatter(io.memory(), &chain.writable, 0, &message) {
                Ok(written) if written == message.len() => {
                    io.push(queue::CONTROL_RECEIVE, chain.id, written as u32);
                }
                Ok(_) => return io.fail(QueueError::BadRequest),
                Err(error) => return io.fail(error.into()),
            }
        }
        io.signal(queue::CONTROL_RECEIVE);
    }

    /// Serves what the driver says.
    pub(super) fn serve_control(&mut self, io: &mut Io<'_, ConsoleEffect>) {
        while let Some(chain) = io.pop(queue::CONTROL_TRANSMIT) {
            let mut message = [0; control::LEN];
            let read = gather(io.memory(), &chain.readable, 0, &mut message);
            match read {
                Err(error) => return io.fail(error.into()),
                Ok(_) if len(&chain.readable) >= control::LEN as u64 => self.hear(message, io),
                // Too short to say anything.
                Ok(_) => {}
            }
            io.push(queue::CONTROL_TRANSMIT, chain.id, 0);
        }
        io.signal(queue::CONTROL_TRANSMIT);
        self.send_owed(io);
    }

    /// One message. What is of no port, or makes no sense, is not heard.
    fn hear(&mut self, message: [u8; control::LEN], io: &mut Io<'_, ConsoleEffect>) {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([i0, i1, i2, i3]) as usize;
        let yes = u16::from_le_bytes([v0, v1]) == 1;
        match u16::from_le_bytes([e0, e1]) {
            control::DEVICE_READY if yes => {
                self.ports.iter_mut().for_each(|port| port.owed.add = true);
            }
            control::PORT_READY if yes => {
                let Some(port) = self.ports.get_mut(id) else { return };
                let console = port.is_console();
                port.owed = Owed {
                    add: false,
                    console,
                    name: !console,
                    open: true,
                    resize: id == 0,
                    announced: true,
                };
            }
            control::PORT_OPEN => {
                let Some(port) = self.ports.get_mut(id) else { return };
                port.open = yes;
                if yes {
                    self.has_room(id, io);
                }
            }
            _ => {}
        }
    }
}
