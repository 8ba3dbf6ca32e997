//! Devices in their slots, driven through exits.

use alloc::string::ToString;
use alloc::sync::{Arc, Weak};
use alloc::vec;
use alloc::vec::Vec;

use kasane_cpu::AccessSize::{self, Byte, Dword, Word};
use kasane_cpu::Exit;
use kasane_cpu::apic::ApicBus;
use kasane_devices::virtio::Offer;
use kasane_devices::virtio::blk::DiskShape;
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{BlockBackend, BlockCompletion, BlockCompletions, BlockInfo, BlockRequest};
use kasane_spec_virtio::mmio;
use parking_lot::{Mutex, RawMutex};

use crate::tests::Home;
use crate::{
    Action, DeviceKind, Machine, MachineConfig, MachineDevice, MachineError, MachinePorts, Place,
    SavedStateError, layout,
};

/// A disk that does nothing until it is drained.
#[derive(Default)]
struct LateDisk {
    device: Mutex<Option<Weak<dyn BlockCompletions>>>,
    waiting: Mutex<Vec<BlockRequest>>,
}

impl BlockBackend for LateDisk {
    fn info(&self) -> BlockInfo {
        BlockInfo { capacity: 1 << 20, read_only: false, block_size: 512, discard: false }
    }
    fn connect(&self, to: Weak<dyn BlockCompletions>) {
        *self.device.lock() = Some(to);
    }
    fn submit(&self, requests: Vec<BlockRequest>) {
        self.waiting.lock().extend(requests);
    }
    fn drain(&self) {
        let done: Vec<BlockCompletion> = core::mem::take(&mut *self.waiting.lock())
            .into_iter()
            .map(|request| BlockCompletion { token: request.token, result: Ok(()) })
            .collect();
        let device = self.device.lock().clone().and_then(|device| device.upgrade());
        if let Some(device) = device {
            device.completed(&done);
        }
    }
}

struct Guest {
    machine: Arc<Machine<RawMutex>>,
    ram: Arc<Ram>,
}

fn disk(name: &str, slot: Option<u8>) -> MachineDevice {
    let shape = DiskShape { serial: [0; 20], queues: 1 };
    let kind = DeviceKind::Disk { backend: Arc::new(LateDisk::default()), shape };
    MachineDevice { name: name.into(), place: Place::Pci(slot), offer: Offer::default(), kind }
}

fn entropy(name: &str) -> MachineDevice {
    MachineDevice {
        name: name.into(),
        place: Place::Pci(None),
        offer: Offer::default(),
        kind: DeviceKind::Entropy,
    }
}

/// The same device with registers in memory.
fn in_memory(device: MachineDevice) -> MachineDevice {
    MachineDevice { place: Place::Mmio, ..device }
}

fn guest(devices: Vec<MachineDevice>) -> Result<Guest, MachineError> {
    let home = Arc::new(Home::default());
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 1 << 20)]));
    let ports = MachinePorts {
        clock: home.clone(),
        entropy: home.clone(),
        console: home.clone(),
        console_room: None,
        debug_console: None,
        trace: home.clone(),
        memory: ram.clone(),
        apics: Arc::new(ApicBus::new(1)),
        deadline_changed: home,
        devices,
    };
    let config = MachineConfig { memory_bytes: 32 << 20, ..MachineConfig::default() };
    Ok(Guest { machine: Machine::new(&config, ports)?, ram })
}

const BAR: u64 = 0xC000_0000;
const RINGS: u64 = 0x1_0000;

impl Guest {
    fn port(&self, port: u16, size: AccessSize, value: u32) {
        self.machine.handle(0, &Exit::PortWrite { port, size, value });
    }
    fn config(&self, slot: u32, register: u32) -> u64 {
        self.port(0xCF8, Dword, 0x8000_0000 | slot << 11 | register);
        match self.machine.handle(0, &Exit::PortRead { port: 0xCFC, size: Dword }) {
            Action::Enter(kasane_cpu::Entry::Value(value)) => value,
            other => panic!("{other:?}"),
        }
    }
    fn set_config(&self, slot: u32, register: u32, value: u32) {
        self.port(0xCF8, Dword, 0x8000_0000 | slot << 11 | register);
        self.port(0xCFC, Dword, value);
    }
    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        self.machine.handle(0, &Exit::MmioWrite { gpa: BAR + offset, size, value });
    }

    /// The disk in slot 3 runs, with its rings at `RINGS`; a flush waits at descriptor 0.
    fn flush(&self) {
        self.set_config(3, 0x18, BAR as u32);
        self.set_config(3, 0x04, 6);
        for (offset, size, value) in [
            (0x14, Byte, 3),
            (0x08, Dword, 1),
            (0x0C, Dword, 1),
            (0x08, Dword, 0),
            (0x0C, Dword, 1 << 9),
            (0x14, Byte, 11),
            (0x18, Word, 8),
            (0x20, Dword, RINGS),
            (0x28, Dword, RINGS + 0x1000),
            (0x30, Dword, RINGS + 0x2000),
            (0x1C, Word, 1),
            (0x14, Byte, 15),
        ] {
            self.write(offset, size, value);
        }
        self.offer_flush();
        self.write(0x3000, Word, 0);
    }

    /// A header of type 4 (flush), and a byte for the status.
    fn offer_flush(&self) {
        self.ram.store_u32(0x2_0000, 4).unwrap();
        for (n, (address, len, flags)) in [(0x2_0000, 16, 1), (0x2_0010, 1, 2)].iter().enumerate() {
            let at = RINGS + 16 * n as u64;
            self.ram.store_u64(at, *address).unwrap();
            self.ram.store_u32(at + 8, *len).unwrap();
            self.ram.store_u16(at + 12, *flags).unwrap();
            self.ram.store_u16(at + 14, 1).unwrap();
        }
        self.ram.store_u16(RINGS + 0x1002, 1).unwrap();
    }

    fn register(&self, device: u8, offset: u32) -> u64 {
        let gpa = layout::mmio_device(device) + u64::from(offset);
        match self.machine.handle(0, &Exit::MmioRead { gpa, size: Dword }) {
            Action::Enter(kasane_cpu::Entry::Value(value)) => value,
            other => panic!("{other:?}"),
        }
    }

    /// The same for the first device with registers in memory.
    fn flush_by_registers(&self) {
        for (offset, value) in [
            (mmio::STATUS, 3),
            (mmio::DRIVER_FEATURES_SEL, 1),
            (mmio::DRIVER_FEATURES, 1),
            (mmio::DRIVER_FEATURES_SEL, 0),
            (mmio::DRIVER_FEATURES, 1 << 9),
            (mmio::STATUS, 11),
            (mmio::QUEUE_NUM, 8),
            (mmio::QUEUE_DESC_LOW, RINGS),
            (mmio::QUEUE_DRIVER_LOW, RINGS + 0x1000),
            (mmio::QUEUE_DEVICE_LOW, RINGS + 0x2000),
            (mmio::QUEUE_READY, 1),
            (mmio::STATUS, 15),
        ] {
            self.set_register(offset, value);
        }
        self.offer_flush();
        self.set_register(mmio::QUEUE_NOTIFY, 0);
    }
    fn set_register(&self, offset: u32, value: u64) {
        let gpa = layout::mmio_device(0) + u64::from(offset);
        self.machine.handle(0, &Exit::MmioWrite { gpa, size: Dword, value });
    }

    fn used(&self) -> u16 {
        self.ram.load_u16(RINGS + 0x2002).unwrap()
    }
}

#[test]
fn devices_are_in_their_slots_with_their_interrupts() {
    let guest = guest(vec![entropy("rng"), disk("vdb", Some(4)), disk("vda", None)]).unwrap();
    let ids = [3, 4, 5].map(|slot| guest.config(slot, 0));
    assert_eq!(ids, [0x1044_1AF4, 0x1042_1AF4, 0x1042_1AF4]);
    let lines = [3, 4, 5].map(|slot| guest.config(slot, 0x3C) & 0xFFFF);
    assert_eq!(lines, [0x010B, 0x010B, 0x010A], "INTA, lines 11, 11 and 10");
}

#[test]
fn lists_that_can_not_be_are_refused() {
    let error = |devices| guest(devices).err().map(|error| error.to_string());
    let twice = vec![disk("vda", None), disk("vda", None)];
    assert_eq!(error(twice).as_deref(), Some("two devices are called `vda`"));
    let beyond = vec![disk("vda", Some(1))];
    assert_eq!(error(beyond).as_deref(), Some("no PCI slot for device `vda`"));
    let both = vec![disk("vda", Some(9)), disk("vdb", Some(9))];
    assert_eq!(error(both).as_deref(), Some("impossible PCI function"));
    let many = (0..30).map(|n| entropy(&n.to_string())).collect();
    assert_eq!(error(many).as_deref(), Some("no PCI slot for device `29`"));
    let many = (0..33).map(|n| in_memory(entropy(&n.to_string()))).collect();
    let message = "no place in memory for device `32`: there are 32";
    assert_eq!(error(many).as_deref(), Some(message));
}

#[test]
fn registers_in_memory_are_one_behind_the_other_beside_the_bus() {
    let guest = guest(vec![entropy("a"), in_memory(disk("b", None)), in_memory(entropy("c"))]);
    let guest = guest.unwrap();
    assert_eq!([3, 4].map(|slot| guest.config(slot, 0)), [0x1044_1AF4, 0xFFFF_FFFF]);
    let ids = [0, 1].map(|n| (guest.register(n, mmio::MAGIC), guest.register(n, mmio::DEVICE_ID)));
    assert_eq!(ids, [(0x7472_6976, 2), (0x7472_6976, 4)]);
    assert_eq!(guest.register(2, mmio::MAGIC), 0xFFFF_FFFF);
    assert_eq!(guest.machine.config().mmio_devices, 2);
}

#[test]
fn devices_in_memory_are_saved_and_reset_like_others() {
    let old = guest(vec![in_memory(disk("vda", None))]).unwrap();
    let fresh = old.machine.save();
    old.flush_by_registers();

    let sections = old.machine.save();

    assert_eq!((old.used(), old.register(0, mmio::INTERRUPT_STATUS)), (1, 1));
    let new = guest(vec![in_memory(disk("vda", None))]).unwrap();
    new.machine.restore(&sections).unwrap();
    assert_eq!(new.machine.save(), sections);
    new.machine.reset().unwrap();
    assert_eq!((new.register(0, mmio::STATUS), new.register(0, mmio::INTERRUPT_STATUS)), (0, 0));
    assert_eq!(virtio_sections(new.machine.save()), virtio_sections(fresh));
    let on_the_bus = guest(vec![disk("vda", None)]).unwrap();
    let error = on_the_bus.machine.restore(&sections).unwrap_err().to_string();
    assert!(error.contains("virtio-blk.vda at 0xfec10000"), "{error}");
}

#[test]
fn a_reset_waits_for_devices_in_memory() {
    let guest = guest(vec![in_memory(disk("vda", None))]).unwrap();
    guest.flush_by_registers();
    guest.machine.reset().unwrap();
    assert_eq!(guest.register(0, mmio::STATUS), 0);
    guest.flush_by_registers();
    drop(guest.machine.hold());
    assert_eq!(guest.used(), 1);
}

#[test]
fn a_machine_is_saved_when_its_disks_are_done_and_goes_on() {
    let old = guest(vec![disk("vda", None)]).unwrap();
    old.flush();
    assert_eq!(old.used(), 0);

    let sections = old.machine.save();

    assert_eq!(old.used(), 1, "the flush was waited for");
    let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    assert!(names.ends_with(&["virtio-blk.vda", "virtio-pci.vda"]), "{names:?}");
    let new = guest(vec![disk("vda", None)]).unwrap();
    new.machine.restore(&sections).unwrap();
    assert_eq!(new.machine.save(), sections);
}

fn virtio_sections(sections: Vec<kasane_devices::Section>) -> Vec<kasane_devices::Section> {
    sections.into_iter().filter(|section| section.name.starts_with("virtio")).collect()
}

#[test]
fn a_reset_takes_the_devices_with_it() {
    let guest = guest(vec![disk("vda", None)]).unwrap();
    let before = guest.machine.save();
    guest.flush();
    guest.machine.reset().unwrap();
    assert_eq!(guest.config(3, 0x18) & !0xF, 0, "no address");
    assert_eq!(virtio_sections(guest.machine.save()), virtio_sections(before));
}

#[test]
fn a_state_with_other_devices_is_refused_by_their_names() {
    let old = guest(vec![disk("vda", None)]).unwrap();
    let new = guest(vec![entropy("rng")]).unwrap();
    let error = new.machine.restore(&old.machine.save()).unwrap_err();
    assert!(matches!(error, SavedStateError::Different { .. }));
    assert_eq!(
        error.to_string(),
        "the saved machine's list of devices is virtio-blk.vda at 00:03.0, \
         this one's is virtio-rng.rng at 00:03.0"
    );
}

#[test]
fn a_machine_with_devices_leaves_nothing_behind() {
    let backend = Arc::new(LateDisk::default());
    let shape = DiskShape { serial: [0; 20], queues: 1 };
    let kind = DeviceKind::Disk { backend: backend.clone(), shape };
    let device = MachineDevice { kind, ..disk("vda", None) };
    drop(guest(vec![device]).unwrap());
    assert_eq!(Arc::strong_count(&backend), 1);
}
