//! An entropy device on a bus, found and driven as by a driver that knows nothing but
//! configuration space.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_cpu::AccessSize::{self, Byte, Dword, Word};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{Entropy, GuestRange, IrqLine, Level, Msi, MsiSink};
use kasane_spec_pci::{capability as pci_capability, header};
use kasane_spec_virtio::pci::{NO_VECTOR, capability, common, isr, legacy};
use kasane_spec_virtio::{feature, status};
use parking_lot::{Mutex, RawMutex};

use super::legacy::place;
use super::{Attached, PciShape, attach};
use crate::bus::AddressSpace;
use crate::pci::{PciAddress, PciBus, PciOutputs, attach_piix3};
use crate::saved::Saved;
use crate::virtio::rig::{Piece, QueueDriver, RAM_LEN, Told};
use crate::virtio::rng::{Rng, RngConnections, connect};
use crate::virtio::{Interface, Offer, VirtioSocket};

const AT: PciAddress = PciAddress::new(3, 0);
const MEMORY: u64 = 0xC000_0000;
const PORTS: u64 = 0xC000;

#[derive(Default)]
struct Home {
    messages: Mutex<Vec<Msi>>,
    irq: Mutex<[Level; 16]>,
}

impl MsiSink for Home {
    fn signal(&self, msi: Msi) {
        self.messages.lock().push(msi);
    }
}

impl Entropy for Home {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0xA5);
    }
}

struct Irq(Arc<Home>, usize);

impl IrqLine for Irq {
    fn set(&self, level: Level) {
        self.0.irq.lock()[self.1] = level;
    }
}

struct Board {
    home: Arc<Home>,
    ports: Arc<AddressSpace<RawMutex>>,
    memory: Arc<AddressSpace<RawMutex>>,
    bus: Arc<PciBus<RawMutex>>,
    ram: Arc<Ram>,
    rng: Attached<RawMutex, VirtioSocket<RawMutex, Rng>>,
}

/// A board whose guest has placed the BARs and made the function a bus master.
fn board(interface: Interface) -> Board {
    let home = Arc::new(Home::default());
    let ports = Arc::new(AddressSpace::ports());
    let memory = Arc::new(AddressSpace::memory());
    let isa = (0..16).map(|n| Some(Arc::new(Irq(home.clone(), n)) as Arc<dyn IrqLine>));
    let bus = PciBus::new(PciOutputs {
        ports: ports.clone(),
        memory: memory.clone(),
        messages: home.clone(),
        isa: isa.collect(),
    });
    attach_piix3(&bus).unwrap();
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]));
    let offer = Offer { interface, ..Offer::default() };
    let shape = PciShape::of(&Rng::default(), AT, "rng0", offer);
    let connections =
        |interrupts| RngConnections { memory: ram.clone(), interrupts, entropy: home.clone() };
    let rng = attach(&bus, &shape, |i| connect("rng0", offer, connections(i))).unwrap();
    let board = Board { home, ports, memory, bus, ram, rng };
    // PIRQ C is what slot 3's INTA leads to.
    board.bus.config_write(PciAddress::new(1, 0), 0x62, Byte, 11);
    board.config_write(header::BAR0, Dword, PORTS);
    board.config_write(header::BAR0 + 8, Dword, MEMORY);
    board.config_write(header::COMMAND, Word, 7);
    board
}

impl Board {
    fn config(&self, at: usize, size: AccessSize) -> u64 {
        self.bus.config_read(AT, at as u16, size)
    }
    fn config_write(&self, at: usize, size: AccessSize, value: u64) {
        self.bus.config_write(AT, at as u16, size, value);
    }

    /// All capabilities: id and place.
    fn capabilities(&self) -> Vec<(u8, usize)> {
        let mut all = Vec::new();
        let mut at = self.config(header::CAPABILITIES, Byte) as usize;
        while at != 0 {
            all.push((self.config(at, Byte) as u8, at));
            at = self.config(at + 1, Byte) as usize;
        }
        all
    }

    /// Where the capability of a type is in the configuration space, and what it points to.
    fn part(&self, kind: u8) -> Option<(usize, u64)> {
        let mine = |(id, at): &(u8, usize)| {
            *id == pci_capability::VENDOR
                && self.config(at + capability::TYPE, Byte) == u64::from(kind)
        };
        let (_, at) = self.capabilities().into_iter().find(mine)?;
        assert!(kind == capability::PCI || self.config(at + capability::BAR, Byte) == 2);
        Some((at, MEMORY + self.config(at + capability::OFFSET, Dword)))
    }

    fn common(&self, offset: u32, size: AccessSize) -> u64 {
        let (_, base) = self.part(capability::COMMON).unwrap();
        self.memory.read(base + u64::from(offset), size, 0).value
    }
    fn set_common(&self, offset: u32, size: AccessSize, value: u64) {
        let (_, base) = self.part(capability::COMMON).unwrap();
        self.memory.write(base + u64::from(offset), size, value, 0);
    }
    fn isr(&self) -> u64 {
        let (_, at) = self.part(capability::ISR).unwrap();
        self.memory.read(at, Byte, 0).value
    }

    /// A modern driver's set-up, with the queue's vector if MSI-X is on.
    fn start(&self) -> QueueDriver {
        let steps = status::ACKNOWLEDGE | status::DRIVER;
        self.set_common(common::STATUS, Byte, 0);
        self.set_common(common::STATUS, Byte, steps.into());
        for half in [0, 1] {
            self.set_common(common::DEVICE_FEATURE_SELECT, Dword, half);
            let offered = self.common(common::DEVICE_FEATURE, Dword);
            let wanted = feature::VERSION_1 >> (32 * half) & 0xFFFF_FFFF;
            self.set_common(common::DRIVER_FEATURE_SELECT, Dword, half);
            self.set_common(common::DRIVER_FEATURE, Dword, offered & wanted);
        }
        let steps = steps | status::FEATURES_OK;
        self.set_common(common::STATUS, Byte, steps.into());
        assert_eq!(self.common(common::STATUS, Byte), steps.into());
        assert_eq!(self.common(common::NUM_QUEUES, Word), 1);
        self.set_common(common::QUEUE_SELECT, Word, 0);
        let size = self.common(common::QUEUE_SIZE, Word) as u16;
        let queue = QueueDriver::new(self.ram.clone(), 0, size, feature::VERSION_1);
        for (at, value) in [
            (common::QUEUE_DESC, queue.place.descriptors),
            (common::QUEUE_DRIVER, queue.place.driver),
            (common::QUEUE_DEVICE, queue.place.device),
        ] {
            self.set_common(at, Dword, value & 0xFFFF_FFFF);
            self.set_common(at + 4, Dword, value >> 32);
        }
        self.set_common(common::CONFIG_VECTOR, Word, 0);
        self.set_common(common::QUEUE_VECTOR, Word, 1);
        self.set_common(common::QUEUE_ENABLE, Word, 1);
        let steps = steps | status::DRIVER_OK;
        self.set_common(common::STATUS, Byte, steps.into());
        queue
    }

    /// Asks for four bytes; the driver's queue gets them.
    fn ask(&self, queue: &mut QueueDriver) {
        queue.add(&[Piece::Writable(GuestRange { gpa: 0x20_0000, len: 4 })], Told::InTheRing);
        let (at, base) = self.part(capability::NOTIFY).unwrap();
        let multiplier = self.config(at + capability::NOTIFY_MULTIPLIER, Dword);
        let doorbell = self.common(common::QUEUE_NOTIFY_OFF, Word) * multiplier;
        self.memory.write(base + doorbell, Word, 0, 0);
    }

    fn msix(&self) {
        let all = self.capabilities();
        let (_, at) = all.iter().find(|(id, _)| *id == pci_capability::MSIX).unwrap();
        let table = MEMORY + (self.config(at + 4, Dword) & !7);
        for vector in 0..2u64 {
            self.memory.write(table + 16 * vector, Dword, 0xFEE0_0000, 0);
            self.memory.write(table + 16 * vector + 8, Dword, 0x30 + vector, 0);
            self.memory.write(table + 16 * vector + 12, Dword, 0, 0);
        }
        self.config_write(at + 2, Word, 0x8000);
    }

    fn messages(&self) -> Vec<u32> {
        self.home.messages.lock().drain(..).map(|msi| msi.data).collect()
    }
    fn irq(&self) -> Level {
        self.home.irq.lock()[11]
    }
}

#[test]
fn the_function_says_what_it_is() {
    let modern = board(Interface::Modern);
    assert_eq!(modern.config(0, Dword), 0x1044_1AF4);
    assert_eq!(modern.config(header::REVISION, Byte), 1);
    let old = board(Interface::Transitional);
    assert_eq!(old.config(0, Dword), 0x1005_1AF4);
    assert_eq!(old.config(header::REVISION, Byte), 0);
    assert_eq!(old.config(header::SUBSYSTEM_ID, Word), 4);
}

#[test]
fn a_driver_finds_all_parts_and_gets_its_bytes_by_msix() {
    let board = board(Interface::Modern);
    board.msix();
    let mut queue = board.start();
    board.ask(&mut queue);
    assert_eq!(queue.used(), Some((0, 4)));
    assert_eq!(board.ram.load_u32(0x20_0000), Ok(0xA5A5_A5A5));
    assert_eq!((board.messages(), board.irq(), board.isr()), (vec![0x31], Level::Low, 0));
    assert!(board.part(capability::DEVICE).is_none(), "no configuration, no capability");
}

#[test]
fn without_msix_the_wire_is_up_until_the_status_was_read() {
    let board = board(Interface::Modern);
    let mut queue = board.start();
    board.ask(&mut queue);
    assert_eq!((board.messages(), board.irq()), (vec![], Level::High));
    assert_eq!((board.isr(), board.irq(), board.isr()), (isr::QUEUE.into(), Level::Low, 0));
}

#[test]
fn a_device_that_breaks_tells_of_it_by_the_configuration_vector() {
    let board = board(Interface::Modern);
    board.msix();
    let mut queue = board.start();
    queue.add(&[Piece::Readable(GuestRange { gpa: 0, len: 4 })], Told::InTheRing);
    board.memory.write(MEMORY + 0x3000, Word, 0, 0);
    assert_eq!(board.messages(), [0x30]);
    assert_ne!(board.common(common::STATUS, Byte) & u64::from(status::NEEDS_RESET), 0);
    assert_eq!(board.isr(), isr::CONFIG.into());
}

#[test]
fn a_function_that_may_do_no_dma_does_none() {
    let board = board(Interface::Modern);
    let mut queue = board.start();
    board.config_write(header::COMMAND, Word, 3);
    board.ask(&mut queue);
    assert_eq!(queue.used(), None);
}

#[test]
fn vectors_that_are_not_there_read_back_as_none() {
    let board = board(Interface::Modern);
    board.set_common(common::CONFIG_VECTOR, Word, 2);
    assert_eq!(board.common(common::CONFIG_VECTOR, Word), NO_VECTOR.into());
    board.set_common(common::QUEUE_VECTOR, Word, 1);
    assert_eq!(board.common(common::QUEUE_VECTOR, Word), 1);
    board.set_common(common::STATUS, Byte, 0);
    assert_eq!(board.common(common::QUEUE_VECTOR, Word), NO_VECTOR.into());
}

#[test]
fn a_queue_that_is_not_there_has_no_entries() {
    let board = board(Interface::Modern);
    board.set_common(common::QUEUE_SELECT, Word, 1);
    assert_eq!(board.common(common::QUEUE_SIZE, Word), 0);
    board.set_common(common::QUEUE_ENABLE, Word, 1);
    assert_eq!(board.common(common::QUEUE_ENABLE, Word), 0);
}

#[test]
fn the_window_in_the_configuration_space_reaches_the_bar() {
    let board = board(Interface::Modern);
    let (at, _) = board.part(capability::PCI).unwrap();
    let target = |offset: u32, len: u64| {
        board.config_write(at + capability::BAR, Byte, 2);
        board.config_write(at + capability::OFFSET, Dword, offset.into());
        board.config_write(at + capability::LENGTH, Dword, len);
    };
    target(common::STATUS, 1);
    board.config_write(at + capability::PCI_DATA, Byte, status::ACKNOWLEDGE.into());
    assert_eq!(board.common(common::STATUS, Byte), status::ACKNOWLEDGE.into());
    assert_eq!(board.config(at + capability::PCI_DATA, Byte), status::ACKNOWLEDGE.into());
    target(common::QUEUE_SIZE, 2);
    assert_eq!(board.config(at + capability::PCI_DATA, Word), 8);
    for (offset, len) in [(common::QUEUE_SIZE, 3), (common::QUEUE_SIZE + 1, 2)] {
        target(offset, len);
        assert_eq!(board.config(at + capability::PCI_DATA, Dword), 0, "no access is so");
    }
}

#[test]
fn a_legacy_driver_drives_it_by_ports() {
    let board = board(Interface::Transitional);
    let port = |offset: u32| PORTS + u64::from(offset);
    let read = |offset, size| board.ports.read(port(offset), size, 0).value;
    let write = |offset, size, value| {
        board.ports.write(port(offset), size, value, 0);
    };
    write(legacy::STATUS, Byte, u64::from(status::ACKNOWLEDGE | status::DRIVER));
    assert_ne!(read(legacy::DEVICE_FEATURES, Dword) & feature::LEGACY_ANY_LAYOUT, 0);
    write(legacy::DRIVER_FEATURES, Dword, 0);
    write(legacy::QUEUE_SELECT, Word, 0);
    let size = read(legacy::QUEUE_SIZE, Word) as u16;
    let mut queue = QueueDriver::new(board.ram.clone(), 0, size, 0);
    queue.place = place(0x100, size);
    write(legacy::QUEUE_ADDRESS, Dword, 0x100);
    assert_eq!(read(legacy::QUEUE_ADDRESS, Dword), 0x100);
    write(
        legacy::STATUS,
        Byte,
        u64::from(status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK),
    );

    queue.add(&[Piece::Writable(GuestRange { gpa: 0x20_0000, len: 4 })], Told::InTheRing);
    write(legacy::QUEUE_NOTIFY, Word, 0);

    assert_eq!((queue.used(), board.irq()), (Some((0, 4)), Level::High));
    assert_eq!((read(legacy::ISR, Byte), board.irq()), (isr::QUEUE.into(), Level::Low));
}

#[test]
fn a_modern_function_has_no_ports() {
    let board = board(Interface::Modern);
    assert_eq!(board.ports.device_at(PORTS), None);
}

#[test]
fn the_registers_are_saved_with_the_wire() {
    let board = board(Interface::Modern);
    let mut queue = board.start();
    board.ask(&mut queue);
    let sections: Vec<_> = [&*board.bus as &dyn Saved, &*board.rng.device, &*board.rng.function]
        .map(Saved::save)
        .into();
    assert_eq!(sections[1].name, "virtio-rng.rng0");
    assert_eq!(sections[2].name, "virtio-pci.rng0");
    board.bus.reset();
    assert_eq!((board.irq(), board.memory.device_at(MEMORY)), (Level::Low, None));

    board.bus.restore(&sections[0]).unwrap();
    board.rng.device.restore(&sections[1]).unwrap();
    board.rng.function.restore(&sections[2]).unwrap();

    assert_eq!((board.irq(), board.isr(), board.irq()), (Level::High, 1, Level::Low));
    assert_eq!(board.common(common::QUEUE_VECTOR, Word), 1);
    board.ask(&mut queue);
    assert_eq!((queue.used(), queue.used()), (Some((0, 4)), Some((1, 4))));
}
