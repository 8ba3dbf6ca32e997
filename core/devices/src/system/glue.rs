//! The two ports on the bus.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_ports::IrqLine;
use kasane_spec_pc::port;
use lock_api::RawMutex;

use super::SystemPort;
use super::chip::{ResetControl, SystemControlA};
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::socket::{Socket, Wiring};

/// Makes port 0x92 and puts it on the bus.
///
/// # Errors
/// When something else has the port.
pub fn attach_system_control<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    a20: Arc<dyn IrqLine>,
    system: Arc<dyn SystemPort>,
) -> Result<Arc<Socket<R, SystemControlA>>, MapError> {
    let wiring = Wiring::wires(vec![Some(a20)]).effects(move |request| system.request(request));
    let socket = Arc::new(Socket::new("port92", SystemControlA::default(), wiring));
    ports.map(Mapping::new(u64::from(port::SYSTEM_CONTROL_A), 1, socket.clone()))?;
    Ok(socket)
}

/// Makes the reset control register and lays it over PCI's configuration address: byte accesses
/// at 0xCF9 reach it, wider ones don't.
///
/// # Errors
/// When another overlay has the port.
pub fn attach_reset_control<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    system: Arc<dyn SystemPort>,
) -> Result<Arc<Socket<R, ResetControl>>, MapError> {
    let wiring = Wiring::wires(Vec::new()).effects(move |request| system.request(request));
    let socket = Arc::new(Socket::new("reset-control", ResetControl::default(), wiring));
    ports.map(Mapping::new(u64::from(port::RESET_CONTROL), 1, socket.clone()).overlay())?;
    Ok(socket)
}
