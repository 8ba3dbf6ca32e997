//! The block at 0xFED00000, its wires on the I/O APIC and, in legacy replacement, IRQ 0 and 8.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_ports::{IrqLine, MsiSink};
use kasane_spec_pc::{hpet::ROUTES, irq, memory};
use lock_api::RawMutex;

use super::chip::{Delivery, Hpet, HpetEffect};
use crate::bus::{AddressSpace, MapError, Mapping};
use crate::interrupts::InterruptRouter;
use crate::socket::{DeadlineKick, Socket, Wiring};

/// How the timers' interrupts leave the block.
pub struct Outputs {
    /// What software may choose.
    pub delivery: Delivery,
    /// Where messages go.
    pub messages: Arc<dyn MsiSink>,
}

/// Makes the HPET and puts it on the bus.
///
/// # Errors
/// When something else has its addresses.
pub fn attach<R: RawMutex + Send + Sync + 'static>(
    memory: &AddressSpace<R>,
    interrupts: &Arc<InterruptRouter<R>>,
    deadline: DeadlineKick,
    outputs: Outputs,
) -> Result<Arc<Socket<R, Hpet>>, MapError> {
    let Outputs { delivery, messages } = outputs;
    let mut wires: Vec<Option<Arc<dyn IrqLine>>> = (0..irq::IOAPIC_PINS)
        .map(|pin| (ROUTES & 1 << pin != 0).then(|| interrupts.gsi_line(pin)))
        .collect();
    wires.push(Some(interrupts.isa_line(irq::TIMER)));
    wires.push(Some(interrupts.isa_line(irq::RTC)));
    let router = interrupts.clone();
    let wiring = Wiring::wires(wires).deadline(deadline).effects(move |effect| match effect {
        HpetEffect::Message(msi) => messages.signal(msi),
        HpetEffect::Route(route) => router.set_timer_route(route),
    });
    let socket = Arc::new(Socket::new("hpet", Hpet::new(delivery), wiring));
    memory.map(Mapping::new(memory::HPET, memory::HPET_LEN, socket.clone()))?;
    Ok(socket)
}
