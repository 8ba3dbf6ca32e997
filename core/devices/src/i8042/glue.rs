//! The controller at 0x60 and 0x64, its wires on IRQ 1, IRQ 12 and the A20 gate.

use alloc::sync::Arc;
use alloc::vec;

use kasane_ports::IrqLine;
use kasane_spec_pc::{irq, port};
use lock_api::RawMutex;

use super::Movement;
use super::chip::I8042;
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::InterruptRouter;
use crate::socket::{DeadlineKick, Socket, Wiring};
use crate::system::SystemPort;

impl<R: RawMutex> Socket<R, I8042> {
    /// Presses or releases a key: its whole code in scan code set 2. Whether it was taken.
    pub fn key(&self, code: &[u8], now_ns: u64) -> bool {
        self.with(|chip, _| chip.key(code, now_ns))
    }
    /// Moves the mouse.
    pub fn move_mouse(&self, movement: Movement, now_ns: u64) {
        self.with(|chip, _| chip.move_mouse(movement, now_ns));
    }
}

/// Who takes what the controller's output port drives.
pub struct OutputPortWires {
    /// The A20 gate.
    pub a20: Arc<dyn IrqLine>,
    /// The processor's reset.
    pub system: Arc<dyn SystemPort>,
}

/// Makes the controller and puts it on the bus.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    outputs: OutputPortWires,
) -> Result<Arc<Socket<R, I8042>>, MapError> {
    let OutputPortWires { a20, system } = outputs;
    let wires = vec![
        Some(interrupts.isa_line(irq::KEYBOARD)),
        Some(interrupts.isa_line(irq::MOUSE)),
        Some(a20),
    ];
    let wiring =
        Wiring::wires(wires).deadline(deadline).effects(move |request| system.request(request));
    let socket = Arc::new(Socket::new("i8042", I8042::default(), wiring));
    ports.map(Mapping::new(u64::from(port::I8042_DATA), 1, socket.clone()))?;
    let command = Mapping::new(u64::from(port::I8042_COMMAND), 1, socket.clone());
    ports.map(command.at_offset(1))?;
    Ok(socket)
}
