//! The 8254 at 0x40 and port 0x61, its OUT 0 on IRQ 0.

use alloc::sync::Arc;
use alloc::vec;

use kasane_spec_pc::{irq, port};
use lock_api::RawMutex;

use super::chip::{CONTROL_B, Pit};
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::{InterruptRouter, Target};
use crate::socket::{DeadlineKick, Socket, Wiring};

/// Makes the timer and puts it on the bus.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
) -> Result<Arc<Socket<R, Pit>>, MapError> {
    let irq0 = interrupts.wire(Target::LegacyTimer(irq::TIMER));
    let wiring = Wiring::wires(vec![Some(irq0)]).deadline(deadline);
    let socket = Arc::new(Socket::new("pit", Pit::default(), wiring));
    ports.map(Mapping::new(u64::from(port::PIT), 4, socket.clone()))?;
    let control = Mapping::new(u64::from(port::SYSTEM_CONTROL_B), 1, socket.clone());
    ports.map(control.at_offset(CONTROL_B))?;
    Ok(socket)
}
