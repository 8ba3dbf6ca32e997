//! The port on the bus, the wire on IRQ 13.

use alloc::sync::Arc;
use alloc::vec;

use kasane_ports::IrqLine;
use kasane_spec_pc::{irq, port};
use lock_api::RawMutex;

use super::chip::NumericError;
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::InterruptRouter;
use crate::socket::{Socket, Wiring};

/// Makes the error logic and puts it on the bus. `ignne` is the processor's pin.
///
/// # Errors
/// When something else has the ports.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    ports: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    ignne: Arc<dyn IrqLine>,
) -> Result<Arc<Socket<R, NumericError>>, MapError> {
    let wiring = Wiring::wires(vec![Some(interrupts.isa_line(irq::FPU)), Some(ignne)]);
    let socket = Arc::new(Socket::new("numeric-error", NumericError::default(), wiring));
    ports.map(Mapping::new(port::NUMERIC_ERROR.into(), 2, socket.clone()))?;
    Ok(socket)
}
