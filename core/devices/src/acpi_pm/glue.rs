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

/// What the block is connected to.
pub struct Connections {
    /// Who takes sleep and soft-off.
    pub system: Arc<dyn SystemPort>,
    /// Where the block is, if not where a PCI function says.
    pub base: Option<u16>,
}

/// Makes the block and puts it and the SMI ports on the bus. The mapping's id lets the PCI
/// function move the block.
///
/// # Errors
/// When something else has its ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    connections: Connections,
) -> Result<(Arc<Socket<R, AcpiPm>>, MappingId), MapError> {
    let Connections { system, base } = connections;
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
