//! For tests: a device that a driver has set up, and a driver's side of a queue, in either form.
//! The driver is a second implementation of the rings, from the specification's driver sections.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::GuestRange;
use kasane_spec_virtio::ring::flag;
use kasane_spec_virtio::{feature, status};
use parking_lot::{Mutex, RawMutex};

use super::queue::{QueuePlace, RingForm};
use super::{
    Offer, QueueChange, VirtioChip, VirtioDevice, VirtioInterrupts, VirtioSocket, VirtioWiring,
};

/// Bytes of RAM, from 0 on.
pub(crate) const RAM_LEN: usize = 4 << 20;
/// Where queue 0 is; the others follow.
const QUEUES: u64 = 0x1_0000;
const QUEUE_STRIDE: u64 = 0x1_0000;
/// Where buffers are, behind 16 queues.
const BUFFERS: u64 = 0x11_0000;

/// A piece of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The device reads it.
    Readable(GuestRange),
    /// The device fills it.
    Writable(GuestRange),
}

impl Piece {
    fn parts(self) -> (GuestRange, u16) {
        match self {
            Self::Readable(range) => (range, 0),
            Self::Writable(range) => (range, flag::WRITE),
        }
    }
}

/// How a chain is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    InTheRing,
    Indirectly,
}

/// The driver's side of one queue.
pub(crate) struct QueueDriver {
    pub(crate) ram: Arc<Ram>,
    pub(crate) place: QueuePlace,
    pub(crate) features: u64,
    free: Vec<u16>,
    /// Descriptors of each chain by its id.
    chains: BTreeMap<u16, Vec<u16>>,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    /// Indirect tables, used in turn.
    tables: u64,
    told: u64,
}

fn descriptor(address: u64, len: u32, x: u16, y: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&x.to_le_bytes());
    bytes[14..].copy_from_slice(&y.to_le_bytes());
    bytes
}

impl QueueDriver {
    /// A queue at its usual place.
    pub(crate) fn new(ram: Arc<Ram>, queue: u16, size: u16, features: u64) -> Self {
        let base = QUEUES + QUEUE_STRIDE * u64::from(queue);
        let place =
            QueuePlace { size, descriptors: base, driver: base + 0x4000, device: base + 0x6000 };
        Self {
            ram,
            place,
            features,
            free: (0..size).rev().collect(),
            chains: BTreeMap::new(),
            next: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
            tables: base + 0x8000,
            told: 0,
        }
    }

    fn form(&self) -> RingForm {
        RingForm::of(self.features)
    }

    fn slot(&self, table: u64, index: u16) -> u64 {
        table + 16 * u64::from(index)
    }

    /// Descriptors that are free.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Makes a chain available: its id. There must be room.
    pub(crate) fn add(&mut self, pieces: &[Piece], told: Told) -> u16 {
        match told {
            Told::InTheRing => self.add_direct(pieces),
            Told::Indirectly => {
                // 128 tables of up to 16 entries.
                let table = self.tables + self.told % 128 * 256;
                self.told += 1;
                assert!(pieces.len() <= 16);
                for (n, piece) in pieces.iter().enumerate() {
                    let (range, mut flags) = piece.parts();
                    let n = n as u16;
                    let bytes = if self.form() == RingForm::Split {
                        flags |= if usize::from(n) + 1 < pieces.len() { flag::NEXT } else { 0 };
                        descriptor(range.gpa, range.len, flags, n + 1)
                    } else {
                        descriptor(range.gpa, range.len, 0, flags)
                    };
                    self.ram.write(self.slot(table, n), &bytes).unwrap();
                }
                let range = GuestRange { gpa: table, len: 16 * pieces.len() as u32 };
                self.add_descriptors(&[(range, flag::INDIRECT)])
            }
        }
    }

    fn add_direct(&mut self, pieces: &[Piece]) -> u16 {
        let parts: Vec<_> = pieces.iter().map(|piece| piece.parts()).collect();
        self.add_descriptors(&parts)
    }

    fn add_descriptors(&mut self, parts: &[(GuestRange, u16)]) -> u16 {
        assert!(!parts.is_empty() && parts.len() <= self.free.len());
        match self.form() {
            RingForm::Split => self.add_split(parts),
            RingForm::Packed => self.add_packed(parts),
        }
    }

    fn add_split(&mut self, parts: &[(GuestRange, u16)]) -> u16 {
        let at = self.free.len() - parts.len();
        let taken = self.free.split_off(at);
        for (n, (range, flags)) in parts.iter().enumerate() {
            let next = taken.get(n + 1).copied();
            let flags = flags | if next.is_some() { flag::NEXT } else { 0 };
            let bytes = descriptor(range.gpa, range.len, flags, next.unwrap_or_default());
            self.ram.write(self.slot(self.place.descriptors, taken[n]), &bytes).unwrap();
        }
        let head = taken[0];
        let entry = self.place.driver + 4 + 2 * u64::from(self.next % self.place.size);
        self.ram.store_u16(entry, head).unwrap();
        self.next = self.next.wrapping_add(1);
        self.ram.store_u16(self.place.driver + 2, self.next).unwrap();
        self.chains.insert(head, taken);
        head
    }

    fn add_packed(&mut self, parts: &[(GuestRange, u16)]) -> u16 {
        let id = (0..self.place.size).find(|id| !self.chains.contains_key(id)).unwrap();
        let first = (self.next, self.wrap);
        let mut first_flags = 0;
        for (n, (range, flags)) in parts.iter().enumerate() {
            let next = if n + 1 < parts.len() { flag::NEXT } else { 0 };
            let mine = if self.wrap { flag::AVAIL } else { flag::USED };
            let flags = flags | next | mine;
            let at = self.slot(self.place.descriptors, self.next);
            let bytes = descriptor(range.gpa, range.len, id, 0);
            self.ram.write(at, &bytes[..14]).unwrap();
            if n == 0 {
                first_flags = flags;
            } else {
                self.ram.store_u16(at + 14, flags).unwrap();
            }
            self.next += 1;
            if self.next == self.place.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
        }
        let at = self.slot(self.place.descriptors, first.0);
        self.ram.store_u16(at + 14, first_flags).unwrap();
        let taken = self.free.split_off(self.free.len() - parts.len());
        self.chains.insert(id, taken);
        id
    }

    /// The next used chain: id, and bytes that the device has written.
    pub(crate) fn used(&mut self) -> Option<(u16, u32)> {
        let (id, written) = match self.form() {
            RingForm::Split => {
                if self.ram.load_u16(self.place.device + 2).unwrap() == self.used {
                    return None;
                }
                let at = self.place.device + 4 + 8 * u64::from(self.used % self.place.size);
                self.used = self.used.wrapping_add(1);
                let id = self.ram.load_u32(at).unwrap() as u16;
                (id, self.ram.load_u32(at + 4).unwrap())
            }
            RingForm::Packed => {
                let at = self.slot(self.place.descriptors, self.used);
                let flags = self.ram.load_u16(at + 14).unwrap();
                let both = (flags & flag::AVAIL != 0, flags & flag::USED != 0);
                if both != (self.used_wrap, self.used_wrap) {
                    return None;
                }
                let id = self.ram.load_u16(at + 12).unwrap();
                let written =
                    if flags & flag::WRITE != 0 { self.ram.load_u32(at + 8).unwrap() } else { 0 };
                self.used += self.chains[&id].len() as u16;
                if self.used >= self.place.size {
                    self.used -= self.place.size;
                    self.used_wrap = !self.used_wrap;
                }
                (id, written)
            }
        };
        let freed = self.chains.remove(&id).expect("a chain that was out");
        self.free.extend(freed);
        Some((id, written))
    }

    /// Whether the device wants to be told of `added` chains (descriptors, if packed) that were
    /// made available since it was last told.
    pub(crate) fn wants_notification(&self, added: u16) -> bool {
        let events = self.features & feature::EVENT_IDX != 0;
        match (self.form(), events) {
            (RingForm::Split, false) => self.ram.load_u16(self.place.device).unwrap() & 1 == 0,
            (RingForm::Split, true) => {
                let at = self.place.device + 4 + 8 * u64::from(self.place.size);
                let event = self.ram.load_u16(at).unwrap();
                self.next.wrapping_sub(event).wrapping_sub(1) < added
            }
            (RingForm::Packed, _) => match self.ram.load_u16(self.place.device + 2).unwrap() {
                0 => true,
                2 => {
                    let event = self.ram.load_u16(self.place.device).unwrap();
                    let mut off = i32::from(event & 0x7FFF);
                    if (event >> 15 != 0) != self.wrap {
                        off -= i32::from(self.place.size);
                    }
                    let beyond = i32::from(self.next) - off;
                    (1..=i32::from(added)).contains(&beyond)
                }
                _ => false,
            },
        }
    }

    /// Asks for an interrupt for the next chain that is used.
    pub(crate) fn ask_for_next(&self) {
        self.ask_beyond(0);
    }

    /// Asks for an interrupt once `beyond` more chains (descriptors, if packed) were used, and one.
    /// Without event indices, for all.
    pub(crate) fn ask_beyond(&self, beyond: u16) {
        match (self.form(), self.features & feature::EVENT_IDX != 0) {
            (RingForm::Split, false) => self.ram.store_u16(self.place.driver, 0).unwrap(),
            (RingForm::Split, true) => {
                let at = self.place.driver + 4 + 2 * u64::from(self.place.size);
                self.ram.store_u16(at, self.used.wrapping_add(beyond)).unwrap();
            }
            (RingForm::Packed, events) => {
                let at = self.used + beyond;
                let wrap = self.used_wrap != (at >= self.place.size);
                let event = (at % self.place.size) | if wrap { 0x8000 } else { 0 };
                self.ram.store_u16(self.place.driver, event).unwrap();
                let flags = if events { 2 } else { 0 };
                self.ram.store_u16(self.place.driver + 2, flags).unwrap();
            }
        }
    }

    /// Asks for no interrupts.
    pub(crate) fn ask_for_none(&self) {
        match self.form() {
            RingForm::Split => self.ram.store_u16(self.place.driver, 1).unwrap(),
            RingForm::Packed => self.ram.store_u16(self.place.driver + 2, 1).unwrap(),
        }
    }
}

/// What came out of a device's transport side.
#[derive(Default)]
pub(crate) struct Interrupts {
    pub(crate) queues: Mutex<Vec<u16>>,
    pub(crate) configs: Mutex<u32>,
}

impl VirtioInterrupts for Interrupts {
    fn queue(&self, queue: u16) {
        self.queues.lock().push(queue);
    }
    fn config(&self) {
        *self.configs.lock() += 1;
    }
}

/// A device and its driver.
pub(crate) struct Rig<C: VirtioChip> {
    pub(crate) device: Arc<VirtioSocket<RawMutex, C>>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) interrupts: Arc<Interrupts>,
    /// Effects that nobody took.
    pub(crate) effects: Arc<Mutex<Vec<C::Effect>>>,
    pub(crate) queues: Vec<QueueDriver>,
    buffers: u64,
}

impl<C: VirtioChip> Rig<C> {
    /// A device that offers everything, after power-on; its effects are recorded.
    pub(crate) fn new(chip: C) -> Self {
        let effects = Arc::new(Mutex::new(Vec::new()));
        let record = effects.clone();
        Self::wired(chip, effects, |wiring| wiring.effects(move |e| record.lock().push(e)))
    }

    /// The same with effects of one's own.
    pub(crate) fn wired(
        chip: C,
        effects: Arc<Mutex<Vec<C::Effect>>>,
        wire: impl FnOnce(VirtioWiring<C::Effect>) -> VirtioWiring<C::Effect>,
    ) -> Self {
        let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]));
        let interrupts = Arc::new(Interrupts::default());
        let wiring = wire(VirtioWiring::new(ram.clone(), interrupts.clone()));
        let offer = Offer { best_form: RingForm::Packed, ..Offer::default() };
        let device = Arc::new(VirtioSocket::new("test", chip, offer, wiring));
        Self { device, ram, interrupts, effects, queues: Vec::new(), buffers: BUFFERS }
    }

    /// The driver's part of §3.1.1, with queues of `size` (or the most that they can have), and
    /// these features besides `VERSION_1`.
    pub(crate) fn start(&mut self, size: u16, features: u64) {
        let features = features | feature::VERSION_1;
        let device = &self.device;
        device.set_status(0);
        device.set_status(status::ACKNOWLEDGE | status::DRIVER);
        device.accept(features);
        device.set_status(device.status() | status::FEATURES_OK);
        assert_ne!(device.status() & status::FEATURES_OK, 0, "{features:#x} are not agreed on");
        self.queues.clear();
        for queue in 0..device.queue_count() {
            let size = size.min(device.queue(queue).unwrap().size_max);
            let driver = QueueDriver::new(self.ram.clone(), queue, size, features);
            let base = driver.place.descriptors;
            self.ram.fill(base, QUEUE_STRIDE, 0).unwrap();
            device.change_queue(queue, QueueChange::Place(driver.place));
            device.change_queue(queue, QueueChange::Enable);
            self.queues.push(driver);
        }
        device.set_status(device.status() | status::DRIVER_OK);
        assert_eq!(device.status() & status::NEEDS_RESET, 0);
        self.buffers = BUFFERS;
    }

    /// A buffer that holds `data`.
    pub(crate) fn readable(&mut self, data: &[u8]) -> Piece {
        let range = self.take(data.len());
        self.ram.write(range.gpa, data).unwrap();
        Piece::Readable(range)
    }

    /// A buffer to be filled.
    pub(crate) fn writable(&mut self, len: usize) -> Piece {
        Piece::Writable(self.take(len))
    }

    fn take(&mut self, len: usize) -> GuestRange {
        let gpa = self.buffers;
        self.buffers += (len as u64).next_multiple_of(16);
        assert!(self.buffers <= RAM_LEN as u64, "buffers for one test");
        GuestRange { gpa, len: len as u32 }
    }

    /// Fills a buffer.
    pub(crate) fn ram_fill(&self, piece: Piece, byte: u8) {
        let (range, _) = piece.parts();
        self.ram.fill(range.gpa, range.len.into(), byte).unwrap();
    }

    /// The bytes of a buffer.
    pub(crate) fn bytes(&self, piece: Piece) -> Vec<u8> {
        let (range, _) = piece.parts();
        let mut bytes = vec![0; range.len as usize];
        self.ram.read(range.gpa, &mut bytes).unwrap();
        bytes
    }

    /// Makes a chain available and notifies.
    pub(crate) fn send(&mut self, queue: u16, pieces: &[Piece]) -> u16 {
        let id = self.queues[usize::from(queue)].add(pieces, Told::InTheRing);
        self.device.notify(queue);
        id
    }

    /// The next used chain of a queue.
    pub(crate) fn used(&mut self, queue: u16) -> Option<(u16, u32)> {
        self.queues[usize::from(queue)].used()
    }

    /// Queues that interrupted since this was last asked.
    pub(crate) fn interrupted(&self) -> Vec<u16> {
        core::mem::take(&mut *self.interrupts.queues.lock())
    }
}
