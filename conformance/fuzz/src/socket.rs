//! A driver that means no good, for a virtio device without its transport: status, features,
//! queues, rings and memory of its choice, with a correct set-up as one of its moves.

use std::sync::Arc;

use arbitrary::Arbitrary;
use kasane_devices::Saved;
use kasane_devices::virtio::queue::{QueuePlace, RingForm};
use kasane_devices::virtio::{
    Offer, QueueChange, VirtioChip, VirtioDevice, VirtioInterrupts, VirtioSocket,
};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_spec_virtio::{feature, status};
use parking_lot::RawMutex;

/// Bytes of guest memory.
const RAM_LEN: usize = 1 << 17;
/// Entries of the queues that a set-up makes, and where they are.
const QUEUE_SIZE: u16 = 8;
const QUEUES: u64 = 0x1000;
const QUEUE_STRIDE: u64 = 0x400;

/// A device in its socket.
pub type Socket<C> = Arc<VirtioSocket<RawMutex, C>>;

/// What a driver, or the backend, may do.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Status {
        value: u8,
    },
    Accept {
        features: u64,
    },
    /// A set-up as the standard has it, with these features.
    SetUp {
        features: u64,
        packed: bool,
    },
    Place {
        queue: u8,
        descriptors: u16,
        driver: u16,
        device: u16,
        size: u16,
    },
    Switch {
        queue: u8,
        on: bool,
    },
    Notify {
        queue: u8,
    },
    Config {
        offset: u8,
        data: Vec<u8>,
    },
    Bytes {
        at: u16,
        bytes: Vec<u8>,
    },
    /// A descriptor of one of the queues.
    Descriptor {
        queue: u8,
        index: u8,
        address: u16,
        len: u16,
        flags: u16,
        next: u8,
    },
    /// An available entry, and the index one further.
    Offer {
        queue: u8,
        head: u8,
    },
    /// A message of this kind in one piece, and room behind it: what a driver sends as a rule.
    Message {
        queue: u8,
        bytes: Vec<u8>,
        room: u8,
    },
    /// The other side does something.
    Backend {
        count: u8,
        fails: bool,
        data: u8,
    },
    SaveAndRestore,
}

/// Memory for a device, what it interrupts, and for whom it is.
#[must_use]
pub fn home() -> (Arc<Ram>, Arc<dyn VirtioInterrupts>, Offer) {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]));
    let offer = Offer { best_form: RingForm::Packed, ..Offer::default() };
    (ram, Arc::new(Nobody), offer)
}

struct Nobody;

impl VirtioInterrupts for Nobody {
    fn queue(&self, _: u16) {}
    fn config(&self) {}
}

/// Runs the steps against a device.
pub fn run<C: VirtioChip>(
    device: &Socket<C>,
    ram: &Ram,
    backend: impl Fn(u8, bool, u8),
    steps: &[Step],
) {
    for step in steps {
        match step {
            Step::Backend { count, fails, data } => backend(*count, *fails, *data),
            Step::SaveAndRestore => save_and_restore(device),
            other => drive(device, ram, other),
        }
    }
    save_and_restore(device);
}

fn save_and_restore<C: VirtioChip>(device: &Socket<C>) {
    device.settle();
    device.restore(&device.save()).expect("the device's own state");
}

fn base(queue: u8) -> u64 {
    QUEUES + QUEUE_STRIDE * u64::from(queue & 15)
}

fn drive<C: VirtioChip>(device: &Socket<C>, ram: &Ram, step: &Step) {
    let queue_of = |queue: &u8| u16::from(queue & 15);
    match step {
        Step::Status { value } => device.set_status(*value),
        Step::Accept { features } => device.accept(*features),
        Step::SetUp { features, packed } => set_up(device, ram, *features, *packed),
        Step::Place { queue, descriptors, driver, device: used, size } => {
            let place = QueuePlace {
                size: *size,
                descriptors: (*descriptors).into(),
                driver: (*driver).into(),
                device: (*used).into(),
            };
            device.change_queue(queue_of(queue), QueueChange::Place(place));
        }
        Step::Switch { queue, on } => {
            let change = if *on { QueueChange::Enable } else { QueueChange::Disable };
            device.change_queue(queue_of(queue), change);
        }
        Step::Notify { queue } => device.notify(queue_of(queue)),
        Step::Config { offset, data } => {
            device.config_write((*offset).into(), data);
            device.config_read((*offset).into(), &mut [0; 8]);
        }
        Step::Bytes { at, bytes } => {
            let _inside = ram.write((*at).into(), bytes);
        }
        Step::Descriptor { queue, index, address, len, flags, next } => {
            descriptor(ram, *queue, *index, (*address, *len, *flags, *next));
        }
        Step::Offer { queue, head } => {
            let avail = base(*queue) + 0x100;
            let index = ram.load_u16(avail + 2).unwrap_or(0);
            let entry = avail + 4 + 2 * u64::from(index % QUEUE_SIZE);
            let _inside = ram.store_u16(entry, u16::from(*head) % QUEUE_SIZE);
            let _inside = ram.store_u16(avail + 2, index.wrapping_add(1));
            device.notify(queue_of(queue));
        }
        Step::Message { queue, bytes, room } => {
            let len = bytes.len().min(4096);
            let _inside = ram.write(0x8000, &bytes[..len]);
            let more = u16::from(!bytes.is_empty() && *room != 0);
            if len != 0 {
                descriptor(ram, *queue, 0, (0x8000, len as u16, more, 1));
            }
            let at = u8::from(len != 0);
            if *room != 0 {
                descriptor(ram, *queue, at, (0xA000, u16::from(*room) * 16, 2, 0));
            }
            drive(device, ram, &Step::Offer { queue: *queue, head: 0 });
        }
        Step::Backend { .. } | Step::SaveAndRestore => {}
    }
}

fn descriptor(ram: &Ram, queue: u8, index: u8, fields: (u16, u16, u16, u8)) {
    let (address, len, flags, next) = fields;
    let at = base(queue) + 16 * u64::from(u16::from(index) % QUEUE_SIZE);
    let mut bytes = u64::from(address).to_le_bytes().to_vec();
    bytes.extend(u32::from(len).to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u16::from(next).to_le_bytes());
    let _inside = ram.write(at, &bytes);
}

fn set_up<C: VirtioChip>(device: &Socket<C>, ram: &Ram, features: u64, packed: bool) {
    device.set_status(0);
    device.set_status(status::ACKNOWLEDGE | status::DRIVER);
    let packed = if packed { feature::RING_PACKED } else { 0 };
    let rings = feature::INDIRECT_DESC | feature::EVENT_IDX;
    // What is never offered is left out, so that it is agreed on now and then.
    let known = device.offered() & (feature::DEVICE_TYPE | rings);
    device.accept(features & known | feature::VERSION_1 | packed);
    device.set_status(status::FEATURES_OK);
    for queue in 0..device.queue_count().min(16) {
        let base = base(queue as u8);
        let _inside = ram.fill(base + 0x100, 0x200, 0);
        let place = QueuePlace {
            size: QUEUE_SIZE,
            descriptors: base,
            driver: base + 0x100,
            device: base + 0x200,
        };
        device.change_queue(queue, QueueChange::Place(place));
        device.change_queue(queue, QueueChange::Enable);
    }
    device.set_status(status::DRIVER_OK);
}
