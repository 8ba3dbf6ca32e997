//! The clock at 0x70 and 0x71, its wire on IRQ 8 and its alarm to the power management.

use alloc::sync::Arc;
use alloc::vec;

use kasane_ports::IrqLine;
use kasane_spec_pc::{irq, port};
use lock_api::RawMutex;

use super::chip::Rtc;
use super::cmos::CmosConfig;
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::{InterruptRouter, Target};
use crate::socket::{DeadlineKick, Socket, Wiring};

/// Makes the clock and puts it on the bus. `alarm` is high while an enabled alarm waits.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    alarm: Option<Arc<dyn IrqLine>>,
    config: &CmosConfig,
) -> Result<Arc<Socket<R, Rtc>>, MapError> {
    let irq8 = interrupts.wire(Target::LegacyTimer(irq::RTC));
    let wiring = Wiring::wires(vec![Some(irq8), alarm]).deadline(deadline);
    let socket = Arc::new(Socket::new("rtc", Rtc::new(config), wiring));
    ports.map(Mapping::new(u64::from(port::CMOS), 2, socket.clone()))?;
    Ok(socket)
}
