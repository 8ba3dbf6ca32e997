//! A driver that means no good, for any virtio device: registers, rings and memory of its choice,
//! with a correct set-up as one of its moves so that it gets somewhere.

use std::sync::{Arc, Weak};

use arbitrary::Arbitrary;
use kasane_cpu::{AccessSize, Exit};
use kasane_devices::virtio::queue::RingForm;
use kasane_devices::virtio::{Interface, Offer};
use kasane_machine::{DeviceKind, Machine, MachineDevice, Place, layout};
use kasane_memory::{GuestMemory, Ram};
use kasane_ports::{
    BlockBackend, BlockCompletion, BlockCompletions, BlockError, BlockInfo, BlockOperation,
    BlockRequest,
};
use kasane_spec_virtio::pci::common;
use kasane_spec_virtio::{feature, mmio, status};
use parking_lot::{Mutex, RawMutex};

use crate::{Size, machine_with};

/// Where the function's memory and ports are.
const BAR: u64 = 0xC000_0000;
const PORTS: u16 = 0xC000;
/// The slot that the first device gets.
const SLOT: u32 = 3;
/// Entries of the queues that a set-up makes, and where they are.
const QUEUE_SIZE: u16 = 8;
const QUEUES: u64 = 0x1000;
const QUEUE_STRIDE: u64 = 0x400;

/// What a driver, or the backend, may do.
#[derive(Arbitrary, Debug)]
pub enum DriverStep {
    /// Anywhere in the function's memory.
    Memory { offset: u16, size: Size, value: Option<u64> },
    /// In the common configuration.
    Common { offset: u8, size: Size, value: Option<u64> },
    /// In the legacy registers.
    Legacy { offset: u8, size: Size, value: Option<u32> },
    /// In the configuration space.
    Config { at: u8, value: Option<u32> },
    /// A doorbell.
    Notify { queue: u8 },
    /// A set-up as the standard has it, with these features.
    SetUp { features: u64, packed: bool },
    /// Bytes in guest memory.
    Bytes { at: u16, bytes: Vec<u8> },
    /// A descriptor of one of the queues.
    Descriptor { queue: u8, index: u8, address: u16, len: u16, flags: u16, next: u8 },
    /// An available entry, and the index one further.
    Offer { queue: u8, head: u8 },
    /// The backend does some of what it was asked for.
    Backend { count: u8, fails: bool, data: u8 },
    Reset,
    SaveAndRestore,
}

/// How a device is set up.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Shape {
    packed: bool,
    transitional: bool,
    /// Registers in memory, and no function on the bus.
    in_memory: bool,
}

/// What the backend of the device does when it may.
pub type Backend = Arc<dyn Fn(&Ram, u8, bool, u8)>;

/// A machine with a device, and its driver.
struct Driver {
    machine: Arc<Machine<RawMutex>>,
    ram: Arc<Ram>,
    backend: Backend,
    place: Place,
}

/// Runs the steps against a device.
pub fn run(kind: DeviceKind, shape: Shape, backend: Backend, steps: &[DriverStep]) {
    let offer = Offer {
        interface: if shape.transitional { Interface::Transitional } else { Interface::Modern },
        best_form: if shape.packed { RingForm::Packed } else { RingForm::Split },
    };
    let place = if shape.in_memory { Place::Mmio } else { Place::Pci(None) };
    let device = MachineDevice { name: "device".into(), place, offer, kind };
    let (machine, _, ram) = machine_with(vec![device]);
    let driver = Driver { machine, ram, backend, place };
    driver.place_bars();
    for step in steps {
        driver.step(step);
    }
    let sections = driver.machine.save();
    driver.machine.restore(&sections).expect("the machine's own state");
}

impl Driver {
    fn port(&self, port: u16, size: AccessSize, value: Option<u32>) {
        let exit = match value {
            Some(value) => Exit::PortWrite { port, size, value: value & size.mask() as u32 },
            None => Exit::PortRead { port, size },
        };
        self.machine.handle(0, &exit);
    }
    fn config(&self, at: u32, value: Option<u32>) {
        self.port(0xCF8, AccessSize::Dword, Some(0x8000_0000 | SLOT << 11 | (at & 0xFC)));
        self.port(0xCFC, AccessSize::Dword, value);
    }
    fn memory(&self, offset: u64, size: AccessSize, value: Option<u64>) {
        let gpa = match self.place {
            Place::Pci(_) => BAR + offset,
            Place::Mmio => layout::mmio_device(0) + offset % mmio::LEN,
        };
        let exit = match value {
            Some(value) => Exit::MmioWrite { gpa, size, value: value & size.mask() },
            None => Exit::MmioRead { gpa, size },
        };
        self.machine.handle(0, &exit);
    }

    /// Puts the BARs where they are looked for.
    fn place_bars(&self) {
        self.config(0x10, Some(PORTS.into()));
        self.config(0x18, Some(BAR as u32));
        self.config(0x04, Some(7));
    }

    fn set_up(&self, features: u64) {
        match self.place {
            Place::Pci(_) => self.set_up_function(features),
            Place::Mmio => self.set_up_registers(features),
        }
    }

    fn set_up_registers(&self, features: u64) {
        let set = |at: u32, value: u64| self.memory(at.into(), AccessSize::Dword, Some(value));
        set(mmio::STATUS, 0);
        set(mmio::STATUS, (status::ACKNOWLEDGE | status::DRIVER).into());
        for half in [0u64, 1] {
            set(mmio::DRIVER_FEATURES_SEL, half);
            set(mmio::DRIVER_FEATURES, features >> (32 * half));
        }
        set(mmio::STATUS, status::FEATURES_OK.into());
        for queue in 0..16u64 {
            let base = QUEUES + QUEUE_STRIDE * queue;
            set(mmio::QUEUE_SEL, queue);
            set(mmio::QUEUE_NUM, QUEUE_SIZE.into());
            set(mmio::QUEUE_DESC_LOW, base);
            set(mmio::QUEUE_DRIVER_LOW, base + 0x100);
            set(mmio::QUEUE_DEVICE_LOW, base + 0x200);
            set(mmio::QUEUE_READY, 1);
            let _inside = self.ram.fill(base + 0x100, 0x200, 0);
        }
        set(mmio::STATUS, status::DRIVER_OK.into());
    }

    fn set_up_function(&self, features: u64) {
        use AccessSize::{Byte, Dword, Word};
        let set = |offset: u32, size, value: u64| self.memory(offset.into(), size, Some(value));
        set(common::STATUS, Byte, 0);
        set(common::STATUS, Byte, (status::ACKNOWLEDGE | status::DRIVER).into());
        for half in [0u64, 1] {
            set(common::DRIVER_FEATURE_SELECT, Dword, half);
            set(common::DRIVER_FEATURE, Dword, features >> (32 * half));
        }
        set(common::STATUS, Byte, status::FEATURES_OK.into());
        for queue in 0..16u64 {
            let base = QUEUES + QUEUE_STRIDE * queue;
            set(common::QUEUE_SELECT, Word, queue);
            set(common::QUEUE_SIZE, Word, QUEUE_SIZE.into());
            set(common::QUEUE_DESC, Dword, base);
            set(common::QUEUE_DRIVER, Dword, base + 0x100);
            set(common::QUEUE_DEVICE, Dword, base + 0x200);
            set(common::QUEUE_ENABLE, Word, 1);
            let _inside = self.ram.fill(base + 0x100, 0x200, 0);
        }
        set(common::STATUS, Byte, status::DRIVER_OK.into());
    }

    fn step(&self, step: &DriverStep) {
        match step {
            DriverStep::Memory { offset, size, value } => {
                self.memory((offset & 0x7FFF).into(), (*size).into(), *value);
            }
            DriverStep::Common { offset, size, value } => {
                self.memory((offset & 0x3F).into(), (*size).into(), *value);
            }
            DriverStep::Legacy { offset, size, value } => {
                let size = match (*size).into() {
                    AccessSize::Qword => AccessSize::Dword,
                    other => other,
                };
                self.port(PORTS + u16::from(offset & 0x7F), size, *value);
            }
            DriverStep::Config { at, value } => self.config((*at).into(), *value),
            DriverStep::Notify { queue } => {
                let queue = u64::from(*queue);
                match self.place {
                    Place::Pci(_) => self.memory(0x3000 + 4 * queue, AccessSize::Word, Some(0)),
                    Place::Mmio => {
                        self.memory(mmio::QUEUE_NOTIFY.into(), AccessSize::Dword, Some(queue));
                    }
                }
            }
            DriverStep::SetUp { features, packed } => {
                let packed = if *packed { feature::RING_PACKED } else { 0 };
                // What is never offered is left out, so that it is agreed on now and then.
                let known = feature::DEVICE_TYPE | feature::INDIRECT_DESC | feature::EVENT_IDX;
                self.set_up(features & known | feature::VERSION_1 | packed);
            }
            DriverStep::Bytes { at, bytes } => {
                let _inside = self.ram.write((*at).into(), bytes);
            }
            DriverStep::Descriptor { .. } | DriverStep::Offer { .. } => self.ring(step),
            DriverStep::Backend { count, fails, data } => {
                (self.backend)(&self.ram, *count, *fails, *data);
            }
            DriverStep::Reset => {
                self.machine.reset().expect("the machine's own state");
                self.place_bars();
            }
            DriverStep::SaveAndRestore => {
                let sections = self.machine.save();
                self.machine.restore(&sections).expect("the machine's own state");
            }
        }
    }

    fn ring(&self, step: &DriverStep) {
        let base = |queue: u8| QUEUES + QUEUE_STRIDE * u64::from(queue & 15);
        match step {
            DriverStep::Descriptor { queue, index, address, len, flags, next } => {
                let at = base(*queue) + 16 * u64::from(index % QUEUE_SIZE as u8);
                let mut bytes = u64::from(*address).to_le_bytes().to_vec();
                bytes.extend(u32::from(*len).to_le_bytes());
                bytes.extend(flags.to_le_bytes());
                bytes.extend(u16::from(*next).to_le_bytes());
                let _inside = self.ram.write(at, &bytes);
            }
            DriverStep::Offer { queue, head } => {
                let avail = base(*queue) + 0x100;
                let index = self.ram.load_u16(avail + 2).unwrap_or(0);
                let entry = avail + 4 + 2 * u64::from(index % QUEUE_SIZE);
                let _inside = self.ram.store_u16(entry, u16::from(head % QUEUE_SIZE as u8));
                let _inside = self.ram.store_u16(avail + 2, index.wrapping_add(1));
                self.step(&DriverStep::Notify { queue: *queue });
            }
            _ => {}
        }
    }
}

/// A disk that does what it was asked for when it is told to.
#[derive(Default)]
pub struct Disk {
    device: Mutex<Option<Weak<dyn BlockCompletions>>>,
    waiting: Mutex<Vec<BlockRequest>>,
}

impl Disk {
    /// Ends `count` requests; a read fills its memory, be that a ring.
    pub fn work(&self, ram: &Ram, count: u8, fails: bool, data: u8) {
        let requests: Vec<BlockRequest> = {
            let mut waiting = self.waiting.lock();
            let count = usize::from(count).min(waiting.len());
            waiting.drain(..count).collect()
        };
        for request in requests.iter().filter(|request| request.operation == BlockOperation::Read) {
            for range in &request.ranges {
                let _inside = ram.fill(range.gpa, range.len.into(), data);
            }
        }
        self.finish(requests, if fails { Err(BlockError::Io) } else { Ok(()) });
    }

    fn finish(&self, requests: Vec<BlockRequest>, result: Result<(), BlockError>) {
        let done: Vec<BlockCompletion> = requests
            .into_iter()
            .map(|request| BlockCompletion { token: request.token, result })
            .collect();
        let device = self.device.lock().clone().and_then(|device| device.upgrade());
        if let Some(device) = device {
            device.completed(&done);
        }
    }
}

impl BlockBackend for Disk {
    fn info(&self) -> BlockInfo {
        BlockInfo { capacity: 1 << 20, read_only: false, block_size: 4096, discard: true }
    }
    fn connect(&self, to: Weak<dyn BlockCompletions>) {
        *self.device.lock() = Some(to);
    }
    fn submit(&self, requests: Vec<BlockRequest>) {
        for request in &requests {
            let bytes: u64 = request.ranges.iter().map(|range| u64::from(range.len)).sum();
            assert!(request.offset + bytes <= 1 << 20, "{request:?} is not on the disk");
            assert!(request.offset % 512 == 0 && bytes % 512 == 0, "{request:?}");
        }
        self.waiting.lock().extend(requests);
    }
    fn drain(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        self.finish(all, Ok(()));
    }
}
