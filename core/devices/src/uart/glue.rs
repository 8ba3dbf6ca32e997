//! A UART at a port, its wire on an ISA interrupt, its line on a console.

use alloc::sync::Arc;
use alloc::vec;

use kasane_ports::{Console, Kick};
use kasane_spec_pc::{irq, port};
use lock_api::RawMutex;

use super::chip::{Uart, UartEffect};
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::InterruptRouter;
use crate::socket::{DeadlineKick, Socket, Wiring};

/// The four places where a PC has UARTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// 0x3F8, IRQ 4.
    Com1,
    /// 0x2F8, IRQ 3.
    Com2,
    /// 0x3E8, IRQ 4.
    Com3,
    /// 0x2E8, IRQ 3.
    Com4,
}

impl SerialPort {
    /// Port, interrupt and section name.
    #[must_use]
    pub const fn resources(self) -> (u16, u8, &'static str) {
        match self {
            Self::Com1 => (port::SERIAL_1, irq::SERIAL_1_3, "serial.0"),
            Self::Com2 => (port::SERIAL_2, irq::SERIAL_2_4, "serial.1"),
            Self::Com3 => (port::SERIAL_3, irq::SERIAL_1_3, "serial.2"),
            Self::Com4 => (port::SERIAL_4, irq::SERIAL_2_4, "serial.3"),
        }
    }
}

impl<R: RawMutex> Socket<R, Uart> {
    /// Gives the guest bytes that came over the line: how many it took. The others wait until
    /// there is room.
    pub fn receive(&self, bytes: &[u8], now_ns: u64) -> usize {
        self.with(|uart, _| uart.receive(bytes, now_ns))
    }
}

/// Where a UART is and what is at the other end of its line.
pub struct SerialLine {
    /// Its place.
    pub place: SerialPort,
    /// Takes what the guest sends.
    pub console: Arc<dyn Console>,
    /// Kicked when input fits again.
    pub room: Option<Arc<dyn Kick>>,
}

/// Makes a UART and puts it on the bus.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    line: SerialLine,
) -> Result<Arc<Socket<R, Uart>>, MapError> {
    let SerialLine { place, console, room } = line;
    let (base, number, section) = place.resources();
    let wiring = Wiring::wires(vec![Some(interrupts.isa_line(number))]).deadline(deadline).effects(
        move |effect| match effect {
            UartEffect::Send(byte) => console.output(&[byte]),
            UartEffect::Room => {
                if let Some(room) = &room {
                    room.kick();
                }
            }
        },
    );
    let socket = Arc::new(Socket::new(section, Uart::default(), wiring));
    ports.map(Mapping::new(u64::from(base), 8, socket.clone()))?;
    Ok(socket)
}
