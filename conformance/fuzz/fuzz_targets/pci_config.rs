//! A guest that writes anything into PCI configuration spaces, moves BARs about and reaches what
//! is behind them, while the functions signal interrupts.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use kasane_cpu::AccessSize;
use kasane_devices::AddressSpace;
use kasane_devices::bus::Mapping;
use kasane_devices::pci::{
    Bar, ConfigPorts, EcamWindow, FunctionLayout, Identity, InterruptPin, MsixPlace, PciAddress,
    PciBus, PciFunction, PciInterrupts, PciOutputs, attach_i440fx, attach_piix3,
};
use kasane_fuzz::Size;
use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use libfuzzer_sys::fuzz_target;
use parking_lot::RawMutex;

struct Nobody;

impl MsiSink for Nobody {
    fn signal(&self, _: Msi) {}
}

impl IrqLine for Nobody {
    fn set(&self, _: Level) {}
}

struct Toy;

impl PciFunction for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Config { slot: u8, at: u16, size: Size, value: Option<u64> },
    Ports { offset: u8, size: Size, value: Option<u32> },
    Ecam { offset: u32, size: Size, value: Option<u64> },
    Bar { function: bool, number: u8, offset: u16, size: Size, value: Option<u64> },
    Io { port: u16, size: Size, value: Option<u32> },
    Signal { function: bool, vector: u16 },
    Intx { function: bool, high: bool },
    Reset,
}

fn layout() -> FunctionLayout {
    let identity = Identity { vendor: 0x1234, device: 0x5678, ..Identity::default() };
    FunctionLayout::new(identity)
        .interrupt_pin(InterruptPin::A)
        .bar(0, Bar::Memory32 { len: 0x1000 })
        .and_then(|one| one.bar(1, Bar::Io { len: 0x20 }))
        .and_then(|one| one.bar(2, Bar::Memory64 { len: 0x2_0000, prefetchable: true }))
        .and_then(|one| one.msix(MsixPlace { vectors: 3, bar: 0, table: 0x800, pending: 0xC00 }))
        .and_then(|one| one.msi(2))
        .expect("the layout is sound")
}

struct Board {
    bus: Arc<PciBus<RawMutex>>,
    ports: Arc<AddressSpace<RawMutex>>,
    memory: Arc<AddressSpace<RawMutex>>,
    functions: Vec<Arc<dyn PciInterrupts>>,
}

const SLOTS: [u8; 2] = [3, 4];

fn board() -> Board {
    let ports = Arc::new(AddressSpace::ports());
    let memory = Arc::new(AddressSpace::memory());
    let bus = PciBus::new(PciOutputs {
        ports: ports.clone(),
        memory: memory.clone(),
        messages: Arc::new(Nobody),
        isa: (0..16).map(|_| Some(Arc::new(Nobody) as Arc<dyn IrqLine>)).collect(),
    });
    ports.map(Mapping::new(0xCF8, 8, Arc::new(ConfigPorts(bus.clone())))).expect("free");
    let ecam = Arc::new(EcamWindow(bus.clone()));
    memory.map(Mapping::new(0xE000_0000, 1 << 28, ecam)).expect("free");
    attach_i440fx(&bus).expect("free");
    attach_piix3(&bus).expect("free");
    let mut functions = Vec::new();
    for slot in SLOTS {
        let make = |handle| {
            functions.push(handle);
            Arc::new(Toy)
        };
        bus.attach(PciAddress::new(slot, 0), layout(), make).expect("free");
    }
    Board { bus, ports, memory, functions }
}

/// The bus is on the address spaces and holds them.
impl Drop for Board {
    fn drop(&mut self) {
        self.ports.clear();
        self.memory.clear();
    }
}

impl Board {
    fn memory(&self, at: u64, size: Size, value: Option<u64>) {
        match value {
            Some(value) => {
                self.memory.write(at, size.into(), value, 0);
            }
            None => {
                self.memory.read(at, size.into(), 0);
            }
        }
    }

    fn port(&self, at: u64, size: Size, value: Option<u32>) {
        let size = match AccessSize::from(size) {
            AccessSize::Qword => AccessSize::Dword,
            other => other,
        };
        match value {
            Some(value) => {
                self.ports.write(at, size, value.into(), 0);
            }
            None => {
                self.ports.read(at, size, 0);
            }
        }
    }

    fn config(&self, address: PciAddress, at: u16, size: Size, value: Option<u64>) {
        match value {
            Some(value) => self.bus.config_write(address, at, size.into(), value),
            None => {
                let _value = self.bus.config_read(address, at, size.into());
            }
        }
    }

    fn step(&self, step: &Step) {
        match step {
            Step::Config { slot, at, size, value } => {
                self.config(PciAddress::new(slot % 8, 0), *at, *size, *value);
            }
            Step::Ports { offset, size, value } => {
                self.port(0xCF8 + u64::from(offset & 7), *size, *value);
            }
            Step::Ecam { offset, size, value } => {
                self.memory(0xE000_0000 + u64::from(offset & 0x0FFF_FFFF), *size, *value);
            }
            Step::Bar { function, number, offset, size, value } => {
                // Where the guest has put it.
                let address = PciAddress::new(SLOTS[usize::from(*function)], 0);
                let at = 0x10 + u16::from(number % 6) * 4;
                let low = self.bus.config_read(address, at, AccessSize::Dword);
                self.memory((low & !0xF) + u64::from(*offset), *size, *value);
            }
            Step::Io { port, size, value } => self.port((*port).into(), *size, *value),
            Step::Signal { function, vector } => {
                self.functions[usize::from(*function)].signal(*vector);
            }
            Step::Intx { function, high } => {
                self.functions[usize::from(*function)].set_intx(Level::from_asserted(*high));
            }
            Step::Reset => self.bus.reset(),
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let board = board();
    for step in &steps {
        board.step(step);
    }
});
