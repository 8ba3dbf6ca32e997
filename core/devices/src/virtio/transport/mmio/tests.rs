//! An entropy device as registers, driven as Linux' driver does.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_cpu::AccessSize::{Byte, Dword};
use kasane_memory::{Ram, RamSlot};
use kasane_ports::{Entropy, GuestRange, IrqLine, Level};
use kasane_spec_virtio::mmio::*;
use kasane_spec_virtio::{feature, status};
use parking_lot::{Mutex, RawMutex};

use super::VirtioMmio;
use crate::bus::Device;
use crate::saved::Saved;
use crate::virtio::rig::{Piece, QueueDriver, RAM_LEN, Told};
use crate::virtio::rng::{RngConnections, connect};
use crate::virtio::{Offer, VirtioInterrupts};

struct Fours;

impl Entropy for Fours {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(4);
    }
}

#[derive(Default)]
struct Wire(Mutex<Vec<Level>>);

impl IrqLine for Wire {
    fn set(&self, level: Level) {
        self.0.lock().push(level);
    }
}

struct Board {
    ram: Arc<Ram>,
    wire: Arc<Wire>,
    registers: Arc<VirtioMmio<RawMutex>>,
    saved: Vec<Arc<dyn Saved>>,
}

fn board() -> Board {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]));
    let wire = Arc::new(Wire::default());
    let make = |interrupts: Arc<dyn VirtioInterrupts>| {
        let memory = ram.clone();
        let connections = RngConnections { memory, interrupts, entropy: Arc::new(Fours) };
        connect::<RawMutex>("rng0", Offer::default(), connections)
    };
    let (registers, device) = VirtioMmio::new("rng0", wire.clone(), make);
    let saved: Vec<Arc<dyn Saved>> = vec![device, registers.clone()];
    Board { ram, wire, registers, saved }
}

impl Board {
    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Dword, 0) as u32
    }
    fn write(&self, offset: u32, value: u32) {
        self.registers.write(offset, Dword, value.into(), 0);
    }
    fn start(&self) -> QueueDriver {
        self.write(STATUS, 0);
        self.write(STATUS, 3);
        for half in [0u32, 1] {
            self.write(DEVICE_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES_SEL, half);
            let wanted = (feature::VERSION_1 >> (32 * half)) as u32;
            self.write(DRIVER_FEATURES, self.read(DEVICE_FEATURES) & wanted);
        }
        self.write(STATUS, 11);
        assert_eq!(self.read(STATUS), 11);
        self.write(QUEUE_SEL, 0);
        let size = self.read(QUEUE_NUM_MAX) as u16;
        self.write(QUEUE_NUM, size.into());
        let queue = QueueDriver::new(self.ram.clone(), 0, size, feature::VERSION_1);
        self.write(QUEUE_DESC_LOW, queue.place.descriptors as u32);
        self.write(QUEUE_DRIVER_LOW, queue.place.driver as u32);
        self.write(QUEUE_DEVICE_LOW, queue.place.device as u32);
        self.write(QUEUE_READY, 1);
        self.write(STATUS, 15);
        queue
    }
    fn levels(&self) -> Vec<Level> {
        core::mem::take(&mut *self.wire.0.lock())
    }
}

const FOUR: Piece = Piece::Writable(GuestRange { gpa: 0x20_0000, len: 4 });

#[test]
fn a_driver_finds_the_device_and_gets_its_bytes() {
    let board = board();
    assert_eq!([MAGIC, VERSION, DEVICE_ID].map(|at| board.read(at)), [0x7472_6976, 2, 4]);
    let mut queue = board.start();
    queue.add(&[FOUR], Told::InTheRing);
    board.write(QUEUE_NOTIFY, 0);
    assert_eq!(queue.used(), Some((0, 4)));
    assert_eq!((board.levels(), board.read(INTERRUPT_STATUS)), (vec![Level::High], 1));
    board.write(INTERRUPT_ACK, 1);
    assert_eq!((board.levels(), board.read(INTERRUPT_STATUS)), (vec![Level::Low], 0));
}

#[test]
fn there_is_no_shared_memory_and_no_other_queue() {
    let board = board();
    assert_eq!((board.read(SHM_LEN_LOW), board.read(SHM_BASE_HIGH)), (u32::MAX, u32::MAX));
    for queue in [1, 0x1_0000] {
        board.write(QUEUE_SEL, queue);
        board.write(QUEUE_READY, 1);
        assert_eq!((board.read(QUEUE_NUM_MAX), board.read(QUEUE_READY)), (0, 0));
    }
}

#[test]
fn a_size_that_no_queue_has_needs_a_reset() {
    let board = board();
    board.write(STATUS, 3);
    board.write(QUEUE_NUM, 0x1_0008);
    board.write(QUEUE_READY, 1);
    assert_ne!(board.read(STATUS) & u32::from(status::NEEDS_RESET), 0);
}

#[test]
fn narrow_accesses_to_registers_are_nothing() {
    let board = board();
    board.registers.write(STATUS, Byte, 3, 0);
    assert_eq!((board.read(STATUS), board.registers.read(MAGIC, Byte, 0)), (0, 0));
}

#[test]
fn the_registers_are_saved() {
    let board = board();
    let mut queue = board.start();
    queue.add(&[FOUR], Told::InTheRing);
    board.write(QUEUE_NOTIFY, 0);
    let sections: Vec<_> = board.saved.iter().map(|part| part.save()).collect();
    board.registers.reset();
    board.levels();

    for (part, section) in board.saved.iter().zip(&sections) {
        part.restore(section).unwrap();
    }

    assert_eq!((board.levels(), board.read(INTERRUPT_STATUS)), (vec![Level::High], 1));
    queue.add(&[FOUR], Told::InTheRing);
    board.write(QUEUE_NOTIFY, 0);
    assert_eq!((queue.used(), queue.used()), (Some((0, 4)), Some((1, 4))));
}
