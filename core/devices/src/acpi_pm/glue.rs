//! The block on the bus, its wire on IRQ 9.

use alloc::sync::Arc;
use alloc::vec;

use kasane_spec_pc::{acpi_pm, irq, port};
use lock_api::RawMutex;

use super::chip::{AcpiPm, SMI_COMMAND, TimerWidth};
use crate::bus::{AddressSpace, MapError, Mapping, MappingId};
use crate::interrupts::InterruptRouter;
use crate::socket::{DeadlineKick, Socket, Wiring};
use crate::system::SystemPort;

/// Ports of the block.
pub const BLOCK_LEN: u64 = acpi_pm::LEN as u64;

impl<R: RawMutex> Socket<R, AcpiPm> {
    /// Somebody pressed the power button.
    pub fn press_power_button(&self) {
        self.with(|chip, _| chip.press_power_button());
    }
}

/// Makes the block, puts the SMI ports on the bus, and the block at `base` if it is given. The
/// mapping's id lets the PCI function move it.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    system: Arc<dyn SystemPort>,
    base: Option<u16>,
) -> Result<(Arc<Socket<R, AcpiPm>>, MappingId), MapError> {
    let wiring = Wiring::wires(vec![Some(interrupts.isa_line(irq::SCI))])
        .deadline(deadline)
        .effects(move |request| system.request(request));
    let chip = AcpiPm::new(TimerWidth::default());
    let socket = Arc::new(Socket::new("acpi-pm", chip, wiring));
    let smi = Mapping::new(u64::from(port::APM_CONTROL), 2, socket.clone());
    ports.map(smi.at_offset(SMI_COMMAND))?;
    let id = ports.map_inactive(Mapping::new(0, BLOCK_LEN, socket.clone()));
    if let Some(base) = base {
        ports.relocate(id, Some(u64::from(base)))?;
    }
    Ok((socket, id))
}
