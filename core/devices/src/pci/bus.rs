//! The bus: all functions' configuration spaces, and what follows from a write to them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use kasane_cpu::AccessSize;
use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use kasane_spec_pci::chipset::piix3;
use kasane_spec_pci::header;
use lock_api::{Mutex, RawMutex};

use super::address::PciAddress;
use super::config::ConfigSpace;
use super::handle::{BarDevice, FunctionHandle, InterruptMode, PciFunction, PciInterrupts};
use super::layout::{FunctionLayout, Window};
use super::msi::{self, MsixTable};
use crate::bus::{AddressSpace, Device, Mapping, MappingId};
use crate::socket::Outbox;

/// A function that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// A BAR of a length that can't be, in a place that is taken or not there.
    BadBar {
        /// Its number.
        number: u8,
        /// Its length.
        len: u64,
    },
    /// An MSI-X table that is not wholly in its BAR, or overlaps its pending bits.
    BadMsix {
        /// Vectors asked for.
        vectors: u16,
        /// BAR asked for.
        bar: u8,
    },
    /// The configuration space is full.
    NoCapabilitySpace {
        /// The capability.
        id: u8,
    },
    /// Two functions at one address.
    AddressTaken(PciAddress),
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadBar { number, len } => {
                write!(f, "BAR {number} of {len:#x} bytes is impossible or taken")
            }
            Self::BadMsix { vectors, bar } => {
                write!(f, "an MSI-X table of {vectors} vectors does not fit into BAR {bar}")
            }
            Self::NoCapabilitySpace { id } => {
                write!(f, "no room in the configuration space for capability {id:#x}")
            }
            Self::AddressTaken(address) => {
                write!(f, "there is a PCI function at {address} already")
            }
        }
    }
}

impl core::error::Error for PciError {}

/// What the bus is connected to.
pub struct PciOutputs<R: RawMutex> {
    /// Where I/O BARs are mapped.
    pub ports: Arc<AddressSpace<R>>,
    /// Where memory BARs are mapped.
    pub memory: Arc<AddressSpace<R>>,
    /// Where messages go.
    pub messages: Arc<dyn MsiSink>,
    /// ISA interrupts 0 to 15, to which the PIRQs are routed; `None` can't be reached.
    pub isa: Vec<Option<Arc<dyn IrqLine>>>,
}

/// A window on an address space.
pub(super) struct Mapped {
    window: Window,
    id: MappingId,
    /// Where it answers now.
    current: Option<u64>,
}

/// One function.
pub(super) struct Slot {
    pub(super) address: PciAddress,
    /// The configuration space at power-on.
    power_on: ConfigSpace,
    pub(super) space: ConfigSpace,
    windows: Vec<Mapped>,
    pub(super) msi: Option<usize>,
    pub(super) msix: Option<MsixTable>,
    /// Registers that the function answers for.
    live: Range<usize>,
    /// The level that the function drives its pin to.
    pub(super) intx: Level,
    function: Arc<dyn PciFunction>,
}

impl Slot {
    fn mode(&self) -> InterruptMode {
        if self.msix.as_ref().is_some_and(|table| table.enabled(&self.space)) {
            InterruptMode::Msix
        } else if self.msi.is_some_and(|at| msi::msi_enabled(&self.space, at)) {
            InterruptMode::Msi
        } else {
            InterruptMode::Intx
        }
    }

    /// The PIRQ (0 to 3) that the function asserts: pins are rotated from slot to slot.
    fn asserted_pirq(&self) -> Option<usize> {
        let disabled = self.space.u16(header::COMMAND) & header::command::INTX_DISABLE != 0;
        let pin = self.space.byte(header::INTERRUPT_PIN);
        let wanted = self.intx.is_high() && !disabled && self.mode() == InterruptMode::Intx;
        (wanted && (1..=4).contains(&pin))
            .then(|| usize::from((self.address.slot().wrapping_add(pin).wrapping_sub(2)) & 3))
    }

    pub(super) fn note_intx(&mut self) {
        let other = self.space.u16(header::STATUS) & !header::status::INTERRUPT;
        let bit = if self.intx.is_high() { header::status::INTERRUPT } else { 0 };
        self.space.set(header::STATUS, &(other | bit).to_le_bytes());
    }

    fn flush(&mut self, messages: &mut Vec<Msi>) {
        if let Some(at) = self.msi {
            msi::msi_flush(&mut self.space, at, messages);
        }
        if let Some(table) = &mut self.msix {
            table.flush(&self.space, messages);
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Ascending by address.
    pub(super) slots: Vec<Slot>,
    /// The address register of configuration mechanism #1.
    pub(super) config_address: u32,
    /// The function with the PIRQ route control registers.
    pirq_router: Option<PciAddress>,
    isa: Outbox,
}

impl State {
    pub(super) fn slot(&self, address: PciAddress) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&address, |slot| slot.address).ok()?;
        self.slots.get(at)
    }

    pub(super) fn slot_mut(&mut self, address: PciAddress) -> Option<&mut Slot> {
        let at = self.slots.binary_search_by_key(&address, |slot| slot.address).ok()?;
        self.slots.get_mut(at)
    }

    /// The levels of the ISA interrupts, by bit.
    fn isa_levels(&self) -> u32 {
        let Some(router) = self.pirq_router.and_then(|address| self.slot(address)) else {
            return 0;
        };
        self.slots.iter().filter_map(Slot::asserted_pirq).fold(0, |levels, pirq| {
            let route = router.space.byte(piix3::PIRQ_ROUTE.wrapping_add(pirq));
            let bit = 1u32 << (route & piix3::PIRQ_IRQ);
            let routed = route & piix3::PIRQ_OFF == 0 && bit & u32::from(piix3::PIRQ_ALLOWED) != 0;
            if routed { levels | bit } else { levels }
        })
    }
}

/// PCI bus 0 with its functions.
pub struct PciBus<R: RawMutex> {
    state: Mutex<R, State>,
    outputs: PciOutputs<R>,
}

impl<R: RawMutex + Send + Sync + 'static> PciBus<R> {
    /// An empty bus.
    #[must_use]
    pub fn new(outputs: PciOutputs<R>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()), outputs })
    }

    /// Adds a function. `make` gets the way to raise the function's interrupts.
    ///
    /// # Errors
    /// When there is one at this address.
    pub fn attach<F: PciFunction + 'static>(
        self: &Arc<Self>,
        address: PciAddress,
        layout: FunctionLayout,
        make: impl FnOnce(Arc<dyn PciInterrupts>) -> Arc<F>,
    ) -> Result<Arc<F>, PciError> {
        let handle = || FunctionHandle { bus: Arc::downgrade(self), address };
        let made = make(Arc::new(handle()));
        let function: Arc<dyn PciFunction> = made.clone();
        let FunctionLayout { space, windows, msi, msix, live, .. } = layout;
        let map = |window: Window| {
            let msix = msix.map(|(_, place)| place).filter(|place| place.bar == window.number);
            let device: Arc<dyn Device> = match &window.device {
                Some(device) => device.clone(),
                None => Arc::new(BarDevice {
                    handle: handle(),
                    function: function.clone(),
                    number: window.number,
                    msix,
                }),
            };
            let on = if window.bar.is_io() { &self.outputs.ports } else { &self.outputs.memory };
            let id = on.map_inactive(Mapping::new(0, window.bar.len(), device));
            Mapped { window, id, current: None }
        };
        let mut state = self.state.lock();
        let Err(at) = state.slots.binary_search_by_key(&address, |slot| slot.address) else {
            return Err(PciError::AddressTaken(address));
        };
        let slot = Slot {
            address,
            power_on: space.clone(),
            space,
            windows: windows.into_iter().map(map).collect(),
            msi,
            msix: msix.map(|(at, place)| MsixTable::new(at, place)),
            live,
            intx: Level::Low,
            function: function.clone(),
        };
        state.slots.insert(at, slot);
        mark_multi_function(&mut state, address);
        self.remap(&mut state);
        Ok(made)
    }

    /// Says which function has the PIRQ route control registers (a PIIX3).
    pub(super) fn set_pirq_router(&self, address: PciAddress) {
        self.with(|state, _| state.pirq_router = Some(address));
    }

    /// Reads a function's configuration space; all-ones where there is no function.
    #[must_use]
    pub fn config_read(&self, address: PciAddress, offset: u16, size: AccessSize) -> u64 {
        let at = offset & 0xFFF;
        let state = self.state.lock();
        let Some(slot) = state.slot(address) else { return size.mask() };
        if !slot.live.contains(&at.into()) {
            return slot.space.read(at.into(), size);
        }
        let function = slot.function.clone();
        drop(state);
        function.live_read(at, size) & size.mask()
    }

    /// What is stored in a function's configuration space, as the function itself sees it.
    pub(super) fn config_stored(&self, address: PciAddress, at: u16, size: AccessSize) -> u64 {
        let state = self.state.lock();
        state.slot(address).map_or(size.mask(), |slot| slot.space.read(at.into(), size))
    }

    /// Writes a function's configuration space.
    pub fn config_write(&self, address: PciAddress, offset: u16, size: AccessSize, value: u64) {
        let at = usize::from(offset & 0xFFF);
        let function = self.with(|state, messages| {
            let slot = state.slot_mut(address)?;
            slot.space.write(at, size, value);
            slot.flush(messages);
            let function = slot.function.clone();
            let live = slot.live.contains(&at);
            let len = usize::from(size.bytes());
            if slot.windows.iter().any(|mapped| mapped.window.depends_on(at, len)) {
                self.remap(state);
            }
            Some((function, live))
        });
        match function {
            Some((function, true)) => function.live_written(offset & 0xFFF),
            Some((function, false)) => function.config_written(offset & 0xFFF),
            None => {}
        }
    }

    /// The address register of mechanism #1.
    #[must_use]
    pub(super) fn config_address(&self) -> u32 {
        self.state.lock().config_address
    }

    pub(super) fn set_config_address(&self, value: u32) {
        self.state.lock().config_address = value & kasane_spec_pci::mechanism::config1::WRITABLE;
    }

    /// The addresses of all functions, ascending.
    #[must_use]
    pub fn functions(&self) -> Vec<PciAddress> {
        self.state.lock().slots.iter().map(|slot| slot.address).collect()
    }

    /// Power-on, or RST#.
    pub fn reset(&self) {
        let functions = self.with(|state, _| {
            state.config_address = 0;
            for slot in &mut state.slots {
                slot.space = slot.power_on.clone();
                slot.intx = Level::Low;
                if let Some(table) = &mut slot.msix {
                    *table = MsixTable::new(table.at, table.place);
                }
            }
            for address in state.slots.iter().map(|slot| slot.address).collect::<Vec<_>>() {
                mark_multi_function(state, address);
            }
            self.remap(state);
            state.slots.iter().map(|slot| slot.function.clone()).collect::<Vec<_>>()
        });
        for function in functions {
            function.reset();
        }
    }

    pub(super) fn interrupt_mode(&self, address: PciAddress) -> InterruptMode {
        self.state.lock().slot(address).map_or(InterruptMode::Intx, Slot::mode)
    }

    pub(super) fn is_bus_master(&self, address: PciAddress) -> bool {
        let state = self.state.lock();
        let command = state.slot(address).map_or(0, |slot| slot.space.u16(header::COMMAND));
        command & header::command::BUS_MASTER != 0
    }

    pub(super) fn set_intx(&self, address: PciAddress, level: Level) {
        self.with(|state, _| {
            if let Some(slot) = state.slot_mut(address) {
                slot.intx = level;
                slot.note_intx();
            }
        });
    }

    pub(super) fn signal(&self, address: PciAddress, vector: u16) {
        self.with(|state, messages| {
            let Some(slot) = state.slot_mut(address) else { return };
            match (slot.mode(), slot.msi, &mut slot.msix) {
                (InterruptMode::Msix, _, Some(table)) => table.signal(&slot.space, vector),
                (InterruptMode::Msi, Some(at), _) => {
                    msi::msi_signal(&mut slot.space, at, vector);
                }
                (InterruptMode::Intx | InterruptMode::Msi | InterruptMode::Msix, ..) => {}
            }
            slot.flush(messages);
        });
    }

    pub(super) fn msix_read(&self, address: PciAddress, offset: u32, size: AccessSize) -> u64 {
        let state = self.state.lock();
        let table = state.slot(address).and_then(|slot| slot.msix.as_ref());
        table.map_or(size.mask(), |table| table.read(offset, size))
    }

    pub(super) fn msix_write(
        &self,
        address: PciAddress,
        offset: u32,
        size: AccessSize,
        value: u64,
    ) {
        self.with(|state, messages| {
            let Some(slot) = state.slot_mut(address) else { return };
            if let Some(table) = &mut slot.msix {
                table.write(offset, size, value);
            }
            slot.flush(messages);
        });
    }

    /// Changes the state, then applies what follows: messages and interrupt wires.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut State, &mut Vec<Msi>) -> T) -> T {
        let mut messages = Vec::new();
        let mut state = self.state.lock();
        let result = call(&mut state, &mut messages);
        let levels = state.isa_levels();
        let mut changes = state.isa.note(levels, 0);
        drop(state);
        for message in messages {
            self.outputs.messages.signal(message);
        }
        while let Some(now) = changes {
            now.drive(&self.outputs.isa);
            changes = self.state.lock().isa.after(now);
        }
        result
    }

    /// Drives all wires to their levels, whatever was driven before.
    pub(super) fn drive_all(&self) {
        let mut state = self.state.lock();
        let levels = state.isa_levels();
        state.isa.reset(levels);
        drop(state);
        for (number, wire) in self.outputs.isa.iter().enumerate().take(16) {
            if let Some(wire) = wire {
                wire.set(Level::from_asserted(levels & (1 << number) != 0));
            }
        }
    }

    /// Looks at the state without changing it.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Brings the address spaces in line with the configuration spaces. Where windows overlap,
    /// the one with the lower address and register wins, whatever came first: what is mapped
    /// follows from the registers alone.
    pub(super) fn remap(&self, state: &mut State) {
        let mut taken: Vec<(bool, u64, u64)> = Vec::new();
        let mut wanted: Vec<Option<u64>> = Vec::new();
        for slot in &state.slots {
            for Mapped { window, .. } in &slot.windows {
                let (is_io, len) = (window.bar.is_io(), window.bar.len());
                let base = window.base(&slot.space).filter(|base| {
                    let last = base.saturating_add(len - 1);
                    !taken.iter().any(|(io, b, l)| *io == is_io && *base <= *l && *b <= last)
                });
                if let Some(base) = base {
                    taken.push((is_io, base, base.saturating_add(len - 1)));
                }
                wanted.push(base);
            }
        }
        let on = |window: &Window| {
            if window.bar.is_io() { &self.outputs.ports } else { &self.outputs.memory }
        };
        let mut windows: Vec<&mut Mapped> =
            state.slots.iter_mut().flat_map(|slot| &mut slot.windows).collect();
        for (mapped, wanted) in windows.iter_mut().zip(&wanted) {
            if mapped.current.is_some() && mapped.current != *wanted {
                // A known mapping that is switched off: can't be refused.
                let _ = on(&mapped.window).relocate(mapped.id, None);
                mapped.current = None;
            }
        }
        for (mapped, wanted) in windows.iter_mut().zip(&wanted) {
            if mapped.current.is_none() && wanted.is_some() {
                // Refused where a fixed chip is; tried again at the next change.
                let moved = on(&mapped.window).relocate(mapped.id, *wanted);
                mapped.current = wanted.filter(|_| moved.is_ok());
            }
        }
    }
}

/// Function 0 says whether its slot has others.
fn mark_multi_function(state: &mut State, address: PciAddress) {
    let first = address.first_function();
    let others = state
        .slots
        .iter()
        .any(|slot| slot.address != first && slot.address.first_function() == first);
    if others && let Some(slot) = state.slot_mut(first) {
        let kind = slot.space.byte(header::HEADER_TYPE) | header::MULTI_FUNCTION;
        slot.space.set(header::HEADER_TYPE, &[kind]);
    }
}
