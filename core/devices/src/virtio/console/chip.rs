//! The chip: ports, and what the driver has said of them.

use alloc::string::String;
use alloc::vec::Vec;

use kasane_spec_virtio::console::{config, feature, queue};
use kasane_spec_virtio::device_type;

use super::control::Owed;
use super::saved::Form;
use super::transfer::Sending;
use crate::virtio::{ChipDoesNotFit, Io, VirtioChip};

/// The most ports.
pub const PORTS_MAX: usize = 16;
/// The longest name of a port, in bytes.
const NAME_MAX: usize = 128;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 64;

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortShape {
    /// A console.
    Console,
    /// A stream for a program in the guest, by name (`org.qemu.guest_agent.0`); of a longer one
    /// the first 128 bytes.
    Named(String),
}

/// The size of the console on port 0, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConsoleSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// What the device asks of its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleEffect {
    /// A port has output: by `take_output`, until there is none.
    Output {
        /// Which.
        port: usize,
    },
    /// A character that the driver couldn't wait with.
    Emergency {
        /// It.
        byte: u8,
    },
    /// A port that took less than it was given has room.
    Room {
        /// Which.
        port: usize,
    },
}

/// A port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) shape: PortShape,
    /// A program in the guest has it open.
    pub(super) open: bool,
    /// Control messages about it that the driver has still to get.
    pub(super) owed: Owed,
    /// It took less than it was given.
    pub(super) starved: bool,
    /// Someone takes its output.
    pub(super) sending: Sending,
}

impl Port {
    fn new(shape: PortShape) -> Self {
        let (owed, sending) = (Owed::default(), Sending::default());
        Self { shape, open: false, owed, starved: false, sending }
    }
    pub(super) fn is_console(&self) -> bool {
        self.shape == PortShape::Console
    }
}

/// A console device.
#[derive(Clone, Debug)]
pub struct VirtioConsole {
    pub(super) ports: Vec<Port>,
    pub(super) size: ConsoleSize,
}

/// The queue of a port's input; its output's is the next (§5.3.2).
pub(super) fn receive_queue(port: usize) -> u16 {
    match port {
        0 => queue::RECEIVE,
        // At most PORTS_MAX.
        n => (n as u16).wrapping_mul(2).wrapping_add(2),
    }
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Receive(usize),
    Transmit(usize),
    ControlReceive,
    ControlTransmit,
}

fn use_of(queue: u16) -> Use {
    match queue {
        queue::RECEIVE => Use::Receive(0),
        queue::TRANSMIT => Use::Transmit(0),
        queue::CONTROL_RECEIVE => Use::ControlReceive,
        queue::CONTROL_TRANSMIT => Use::ControlTransmit,
        other => {
            let port = usize::from(other >> 1).saturating_sub(1);
            if other & 1 == 0 { Use::Receive(port) } else { Use::Transmit(port) }
        }
    }
}

impl VirtioConsole {
    /// A device with a console on port 0 and these behind it, at most [`PORTS_MAX`] in all.
    #[must_use]
    pub fn new(more_ports: Vec<PortShape>, size: ConsoleSize) -> Self {
        let shapes = core::iter::once(PortShape::Console).chain(more_ports).take(PORTS_MAX);
        let ports = shapes
            .map(|shape| match shape {
                PortShape::Console => shape,
                PortShape::Named(mut name) => {
                    name.truncate(name.floor_char_boundary(NAME_MAX));
                    PortShape::Named(name)
                }
            })
            .map(Port::new)
            .collect();
        Self { ports, size }
    }

    /// Whether the guest takes input on a port now: a console always does, another while a
    /// program has it open.
    #[must_use]
    pub fn is_open(&self, port: usize) -> bool {
        self.ports.get(port).is_some_and(|port| port.open || port.is_console())
    }

    /// The console has another size.
    pub(super) fn resize(&mut self, size: ConsoleSize, io: &mut Io<'_, ConsoleEffect>) {
        if self.size == size {
            return;
        }
        self.size = size;
        io.config_changed();
        if let Some(port) = self.ports.first_mut() {
            port.owed.resize = port.owed.announced;
        }
        self.send_owed(io);
    }
}

impl VirtioChip for VirtioConsole {
    type Effect = ConsoleEffect;
    type Form = Form;
    const NAME: &'static str = "virtio-console";
    const DEVICE_TYPE: u16 = device_type::CONSOLE;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        let several = if self.ports.len() > 1 { feature::MULTIPORT } else { 0 };
        feature::SIZE | feature::EMERG_WRITE | several
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let queues = match self.ports.len() {
            0 | 1 => 2,
            ports => ports.saturating_mul(2).saturating_add(2),
        };
        alloc::vec![QUEUE_SIZE; queues]
    }

    fn config(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(config::LEN);
        bytes.extend(self.size.columns.to_le_bytes());
        bytes.extend(self.size.rows.to_le_bytes());
        bytes.extend((self.ports.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// §5.3.4: works at any time, before the features are agreed on too.
    fn config_write(&mut self, offset: u32, data: &[u8], io: &mut Io<'_, ConsoleEffect>) {
        if let (config::EMERG_WR, Some(byte)) = (offset as usize, data.first()) {
            io.effect(ConsoleEffect::Emergency { byte: *byte });
        }
    }

    fn reset(&mut self, _effects: &mut Vec<ConsoleEffect>) {
        for port in &mut self.ports {
            let starved = port.starved;
            *port = Port { starved, ..Port::new(port.shape.clone()) };
        }
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, ConsoleEffect>) {
        match use_of(queue) {
            Use::Receive(port) => self.has_room(port, io),
            Use::Transmit(port) => self.has_output(port, io),
            Use::ControlReceive => self.send_owed(io),
            Use::ControlTransmit => self.serve_control(io),
        }
    }

    /// Who was turned away is not known, so all hear of it.
    fn release(&mut self, io: &mut Io<'_, ConsoleEffect>) {
        (0..self.ports.len()).for_each(|port| io.effect(ConsoleEffect::Room { port }));
    }

    fn save(&self) -> Form {
        Form::of(self)
    }

    fn restore(&mut self, form: Form) -> Result<(), ChipDoesNotFit> {
        form.put(self)
    }
}
