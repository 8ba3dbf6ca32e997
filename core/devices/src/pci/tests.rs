//! Tests of the bus: what a guest does to configuration spaces, BARs, INTx, MSI and MSI-X.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::AccessSize::{Byte, Dword, Word};
use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use kasane_spec_pci::header;
use parking_lot::{Mutex, RawMutex};
use proptest::prelude::*;

use super::*;
use crate::bus::{AddressSpace, Device, Mapping};
use crate::saved::Saved;

#[derive(Default)]
struct Messages(Mutex<Vec<Msi>>);

impl MsiSink for Messages {
    fn signal(&self, msi: Msi) {
        self.0.lock().push(msi);
    }
}

struct Line(Arc<Mutex<[bool; 16]>>, usize);

impl IrqLine for Line {
    fn set(&self, level: Level) {
        self.0.lock()[self.1] = level.is_high();
    }
}

/// A function that answers reads with its name's first letter, BAR and offset.
struct Toy(&'static str);

impl PciFunction for Toy {
    fn name(&self) -> &'static str {
        self.0
    }
    fn read(&self, bar: u8, offset: u32, size: kasane_cpu::AccessSize, _now_ns: u64) -> u64 {
        let letter = u64::from(self.0.as_bytes()[0]);
        (letter << 24 | u64::from(bar) << 16 | u64::from(offset)) & size.mask()
    }
}

struct Board {
    bus: Arc<PciBus<RawMutex>>,
    ports: Arc<AddressSpace<RawMutex>>,
    memory: Arc<AddressSpace<RawMutex>>,
    messages: Arc<Messages>,
    irqs: Arc<Mutex<[bool; 16]>>,
}

const A: PciAddress = PciAddress::new(3, 0);
const B: PciAddress = PciAddress::new(4, 0);

fn empty_board() -> Board {
    let ports = Arc::new(AddressSpace::ports());
    let memory = Arc::new(AddressSpace::memory());
    let messages = Arc::new(Messages::default());
    let irqs = Arc::new(Mutex::new([false; 16]));
    let line = |n| Some(Arc::new(Line(irqs.clone(), n)) as Arc<dyn IrqLine>);
    let bus = PciBus::new(PciOutputs {
        ports: ports.clone(),
        memory: memory.clone(),
        messages: messages.clone(),
        isa: (0..16).map(line).collect(),
    });
    ports.map(Mapping::new(0xCF8, 8, Arc::new(ConfigPorts(bus.clone())))).unwrap();
    memory.map(Mapping::new(0xE000_0000, 1 << 28, Arc::new(EcamWindow(bus.clone())))).unwrap();
    attach_i440fx(&bus).unwrap();
    attach_piix3(&bus).unwrap();
    Board { bus, ports, memory, messages, irqs }
}

fn toy_layout() -> FunctionLayout {
    FunctionLayout::new(Identity { vendor: 0x1234, device: 0x5678, ..Identity::default() })
        .interrupt_pin(InterruptPin::A)
        .bar(0, Bar::Memory32 { len: 0x1000 })
        .unwrap()
        .bar(1, Bar::Io { len: 0x20 })
        .unwrap()
        .bar(2, Bar::Memory64 { len: 0x2_0000, prefetchable: true })
        .unwrap()
        .msix(MsixPlace { vectors: 3, bar: 0, table: 0x800, pending: 0xC00 })
        .unwrap()
        .msi(2)
        .unwrap()
}

/// A board with two functions; their interrupts.
fn board() -> (Board, Arc<dyn PciInterrupts>, Arc<dyn PciInterrupts>) {
    let board = empty_board();
    let mut handles = Vec::new();
    for (address, name) in [(A, "alpha"), (B, "beta")] {
        let make = |handle| {
            handles.push(handle);
            Arc::new(Toy(name))
        };
        board.bus.attach(address, toy_layout(), make).unwrap();
    }
    let [a, b] = handles.try_into().ok().unwrap();
    (board, a, b)
}

impl Board {
    fn config(&self, address: PciAddress, at: usize) -> u32 {
        self.bus.config_read(address, at as u16, Dword) as u32
    }
    fn set(&self, address: PciAddress, at: usize, value: u32) {
        self.bus.config_write(address, at as u16, Dword, value.into());
    }
    fn set_command(&self, address: PciAddress, value: u16) {
        self.bus.config_write(address, header::COMMAND as u16, Word, value.into());
    }
    fn memory(&self, at: u64) -> u64 {
        self.memory.read(at, Dword, 0).value
    }
    fn set_memory(&self, at: u64, value: u32) {
        self.memory.write(at, Dword, value.into(), 0);
    }
    fn take_messages(&self) -> Vec<(u64, u32)> {
        self.messages.0.lock().drain(..).map(|msi| (msi.address, msi.data)).collect()
    }
    fn irqs(&self) -> Vec<usize> {
        let irqs = self.irqs.lock();
        irqs.iter().enumerate().filter(|(_, high)| **high).map(|(n, _)| n).collect()
    }
    /// Function A with its memory at 0xC0000000, a bus master, and MSI-X on.
    fn enable_msix(&self) {
        self.set(A, 0x10, 0xC000_0000);
        self.set_command(A, 0x6);
        self.set(A, 0x40, 0x8000_0000);
        for vector in 0..3u32 {
            let entry = 0xC000_0800 + u64::from(vector) * 16;
            self.set_memory(entry, 0xFEE0_0000);
            self.set_memory(entry + 8, 0x40 + vector);
            self.set_memory(entry + 12, 0);
        }
    }
}

#[test]
fn mechanism_1_reaches_the_host_bridge_and_nothing_where_nothing_is() {
    let board = empty_board();
    let read = |register: u32| {
        board.ports.write(0xCF8, Dword, register.into(), 0);
        board.ports.read(0xCFC, Dword, 0).value
    };

    let found = [read(0x8000_0000), read(0x8000_0800), read(0x8000_1000), read(0)];

    assert_eq!(found, [0x1237_8086, 0x7000_8086, 0xFFFF_FFFF, 0xFFFF_FFFF]);
}

#[test]
fn mechanism_1_reads_bytes_and_words_inside_the_doubleword() {
    let board = empty_board();
    board.ports.write(0xCF8, Dword, 0x8000_0808, 0);

    let class = board.ports.read(0xCFE, Word, 0).value;
    let byte_of_the_address = board.ports.read(0xCFB, Byte, 0).value;

    assert_eq!((class, byte_of_the_address), (0x0601, 0xFF));
}

#[test]
fn ecam_shows_the_same_spaces_with_all_their_4096_bytes() {
    let (board, ..) = board();

    let ids = board.memory(0xE000_0000 + 3 * 0x8000);
    let extended = board.memory(0xE000_0000 + 3 * 0x8000 + 0x100);
    let nobody = board.memory(0xE000_0000 + 9 * 0x8000);

    assert_eq!((ids, extended, nobody), (0x5678_1234, 0, 0xFFFF_FFFF));
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let (board, ..) = board();

    let sizes = [0x10, 0x14, 0x18, 0x1C, 0x20].map(|at| {
        board.set(A, at, u32::MAX);
        board.config(A, at)
    });

    assert_eq!(sizes, [0xFFFF_F000, 0xFFFF_FFE1, 0xFFFE_000C, 0xFFFF_FFFF, 0]);
}

#[test]
fn a_bar_answers_only_while_its_space_is_on() {
    let (board, ..) = board();
    board.set(A, 0x10, 0xC000_0000);
    board.set(A, 0x14, 0xC001);

    let off = (board.memory(0xC000_0010), board.ports.read(0xC004, Dword, 0).value);
    board.set_command(A, header::command::MEMORY | header::command::IO);
    let on = (board.memory(0xC000_0010), board.ports.read(0xC004, Dword, 0).value);

    assert_eq!(off, (0xFFFF_FFFF, 0xFFFF_FFFF));
    assert_eq!(on, (0x6100_0010, 0x6101_0004));
}

#[test]
fn a_bar_moves_while_it_is_on() {
    let (board, ..) = board();
    board.set_command(A, header::command::MEMORY);
    board.set(A, 0x18, 0xC010_0000);

    board.set(A, 0x18, 0x0040_0000);
    board.set(A, 0x1C, 0x80);

    assert_eq!(board.memory(0xC010_0000), 0xFFFF_FFFF);
    assert_eq!(board.memory(0x80_0040_1234), 0x6102_1234);
}

#[test]
fn while_a_bar_is_sized_the_fixed_chips_keep_their_addresses() {
    let (board, ..) = board();
    board.set_command(A, header::command::MEMORY);

    board.set(A, 0x10, u32::MAX);
    board.set(A, 0x18, 0xE000_0000);

    assert_eq!(board.memory(0xFFFF_F000), 0xFFFF_FFFF);
    assert_eq!(board.memory(0xE000_0000), 0x1237_8086);
}

#[test]
fn of_overlapping_bars_the_lower_address_wins_whatever_came_first() {
    let (board, ..) = board();
    board.set_command(A, header::command::MEMORY);
    board.set_command(B, header::command::MEMORY);

    board.set(B, 0x10, 0xC000_0000);
    let alone = board.memory(0xC000_0000);
    board.set(A, 0x10, 0xC000_0000);
    let both = board.memory(0xC000_0000);
    board.set(A, 0x10, 0xC100_0000);
    let again = board.memory(0xC000_0000);

    assert_eq!([alone, both, again], [0x6200_0000, 0x6100_0000, 0x6200_0000]);
}

#[test]
fn intx_goes_through_the_pirq_registers() {
    let (board, a, b) = board();
    // Slot 3, INTA: PIRQC. Slot 4, INTA: PIRQD.
    board.set(PciAddress::new(1, 0), 0x60, 0x0B0A_8080);

    a.set_intx(Level::High);
    let first = board.irqs();
    b.set_intx(Level::High);
    a.set_intx(Level::Low);
    let second = board.irqs();
    board.set(PciAddress::new(1, 0), 0x60, 0x050A_8080);
    let moved = board.irqs();
    board.set(PciAddress::new(1, 0), 0x60, 0x8080_8080);
    let off = board.irqs();

    assert_eq!((first, second), (alloc::vec![10], alloc::vec![11]));
    assert_eq!((moved, off), (alloc::vec![5], alloc::vec![]));
}

#[test]
fn intx_can_be_disabled_and_its_status_still_shows() {
    let (board, a, _) = board();
    board.set(PciAddress::new(1, 0), 0x60, 0x0A0A_0A0A);
    a.set_intx(Level::High);

    board.set_command(A, header::command::INTX_DISABLE);

    assert_eq!(board.irqs(), []);
    let status = board.bus.config_read(A, header::STATUS as u16, Word) as u16;
    assert_eq!(status & header::status::INTERRUPT, header::status::INTERRUPT);
}

#[test]
fn msix_sends_what_its_table_says() {
    let (board, a, _) = board();
    board.enable_msix();

    a.signal(1);
    a.signal(7);

    assert_eq!(a.mode(), InterruptMode::Msix);
    assert_eq!(board.take_messages(), [(0xFEE0_0000, 0x41)]);
}

#[test]
fn a_masked_msix_vector_is_pending_and_sent_once_when_unmasked() {
    let (board, a, _) = board();
    board.enable_msix();
    board.set_memory(0xC000_080C + 16, 1);

    a.signal(1);
    a.signal(1);
    let masked = (board.take_messages(), board.memory(0xC000_0C00));
    board.set_memory(0xC000_080C + 16, 0);
    let unmasked = (board.take_messages(), board.memory(0xC000_0C00));

    assert_eq!(masked, (alloc::vec![], 0b10));
    assert_eq!(unmasked, (alloc::vec![(0xFEE0_0000, 0x41)], 0));
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    let (board, a, _) = board();
    board.enable_msix();
    board.set(A, 0x40, 0xC000_0000);

    a.signal(0);
    a.signal(2);
    let masked = board.take_messages();
    board.set(A, 0x40, 0x8000_0000);

    assert_eq!(masked, []);
    assert_eq!(board.take_messages(), [(0xFEE0_0000, 0x40), (0xFEE0_0000, 0x42)]);
}

#[test]
fn messages_wait_for_bus_mastering() {
    let (board, a, _) = board();
    board.enable_msix();
    board.set_command(A, header::command::MEMORY);

    a.signal(0);
    let before = board.take_messages();
    board.set_command(A, header::command::MEMORY | header::command::BUS_MASTER);

    assert_eq!(before, []);
    assert_eq!(board.take_messages(), [(0xFEE0_0000, 0x40)]);
}

#[test]
fn msi_names_the_vector_in_the_low_bits_and_honours_its_mask() {
    let (board, a, _) = board();
    board.set_command(A, header::command::BUS_MASTER);
    board.set(A, 0x50, 0xFEE0_1000);
    board.set(A, 0x58, 0x60);
    board.set(A, 0x5C, 0b0100);
    // Four vectors, on.
    board.set(A, 0x4C, 0x0021_0000);

    a.signal(1);
    a.signal(2);
    let masked = (board.take_messages(), board.config(A, 0x60));
    board.set(A, 0x5C, 0);

    assert_eq!(a.mode(), InterruptMode::Msi);
    assert_eq!(masked, (alloc::vec![(0xFEE0_1000, 0x61)], 0b0100));
    assert_eq!(board.take_messages(), [(0xFEE0_1000, 0x62)]);
}

#[test]
fn impossible_layouts_are_refused() {
    let new = || FunctionLayout::new(Identity::default());
    let place = |vectors, table| MsixPlace { vectors, bar: 0, table, pending: 0x800 };
    let page = || new().bar(0, Bar::Memory32 { len: 0x1000 }).unwrap();

    let refused = [
        new().bar(0, Bar::Memory32 { len: 0x1001 }).err(),
        new().bar(5, Bar::Memory64 { len: 0x1000, prefetchable: false }).err(),
        page().bar(0, Bar::Io { len: 4 }).err(),
        page().msix(place(0, 0)).err(),
        page().msix(place(16, 0x780)).err(),
        page().msix(place(2, 0xFF8)).err(),
    ];

    assert!(refused.iter().all(Option::is_some), "{refused:?}");
}

#[test]
fn two_functions_at_one_address_are_refused() {
    let (board, ..) = board();

    let second = board.bus.attach(A, toy_layout(), |_| Arc::new(Toy("gamma")));

    assert_eq!(second.err(), Some(PciError::AddressTaken(A)));
}

#[test]
fn the_pm_function_maps_its_registers_where_its_base_says() {
    struct Pm;
    impl Device for Pm {
        fn name(&self) -> &'static str {
            "pm"
        }
        fn read(&self, offset: u32, _: kasane_cpu::AccessSize, _: u64) -> u64 {
            u64::from(offset)
        }
        fn write(&self, _: u32, _: kasane_cpu::AccessSize, _: u64, _: u64) {}
    }
    let board = empty_board();
    attach_piix4_pm(&board.bus, Arc::new(Pm)).unwrap();
    let pm = PciAddress::new(1, 3);

    board.set(pm, 0x40, 0x600);
    let off = board.ports.read(0x608, Byte, 0).value;
    board.set(pm, 0x80, 1);

    assert_eq!((off, board.ports.read(0x608, Byte, 0).value), (0xFF, 8));
    assert_eq!(board.config(pm, 0x40), 0x601);
    let kind = board.bus.config_read(PciAddress::new(1, 0), 0x0E, Byte);
    assert_eq!(kind, 0x80);
}

#[test]
fn reset_takes_everything_back() {
    let (board, a, _) = board();
    let before = (0..0x100).step_by(4).map(|at| board.config(A, at)).collect::<Vec<_>>();
    board.enable_msix();
    board.set(PciAddress::new(1, 0), 0x60, 0x0A0A_0A0A);
    a.set_intx(Level::High);

    board.bus.reset();

    let after = (0..0x100).step_by(4).map(|at| board.config(A, at)).collect::<Vec<_>>();
    assert_eq!(before, after);
    assert_eq!((board.irqs(), board.memory(0xC000_0000)), (alloc::vec![], 0xFFFF_FFFF));
}

#[test]
fn a_saved_bus_goes_on_in_a_new_one() {
    let (old, a, _) = board();
    old.enable_msix();
    old.set_memory(0xC000_080C, 1);
    a.signal(0);
    old.set(PciAddress::new(1, 0), 0x60, 0x0A0A_0A0A);
    old.set_command(B, header::command::IO);
    old.set(B, 0x14, 0xC100);

    let (new, ..) = board();
    new.bus.restore(&old.bus.save()).unwrap();
    new.set_memory(0xC000_080C, 0);

    assert_eq!(new.take_messages(), [(0xFEE0_0000, 0x40)]);
    assert_eq!(new.ports.read(0xC100, Dword, 0).value, 0x6201_0000);
    assert_eq!(new.config(PciAddress::new(1, 0), 0x60), 0x0A0A_0A0A);
}

#[test]
fn a_section_of_another_board_is_refused() {
    let (old, ..) = board();
    let new = empty_board();

    let section = old.bus.save();

    assert!(new.bus.restore(&section).is_err());
}

/// One thing that a guest can do.
#[derive(Clone, Debug)]
enum Step {
    Port(u16, u8, u32),
    Config(u8, u16, u8, u32),
    Memory(u64, u8, u64),
    Intx(bool),
    Signal(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0xCF0u16..0xD00, 0u8..3, any::<u32>()).prop_map(|(p, s, v)| Step::Port(p, s, v)),
        (0u8..6, 0u16..0x110, 0u8..3, any::<u32>())
            .prop_map(|(f, at, s, v)| { Step::Config(f, at, s, v) }),
        (0u64..0x2000, 0u8..4, any::<u64>())
            .prop_map(|(at, s, v)| { Step::Memory(0xC000_0000 + at, s, v) }),
        any::<bool>().prop_map(Step::Intx),
        (0u16..5).prop_map(Step::Signal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_traffic_never_panics_and_saves_to_what_it_was(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let sizes = [Byte, Word, Dword, kasane_cpu::AccessSize::Qword];
        let (board, a, _) = board();
        board.enable_msix();
        for step in steps {
            match step {
                Step::Port(port, size, value) => {
                    board.ports.read(port.into(), sizes[usize::from(size)], 0);
                    board.ports.write(port.into(), sizes[usize::from(size)], value.into(), 0);
                }
                Step::Config(slot, at, size, value) => {
                    let size = sizes[usize::from(size)];
                    board.bus.config_write(PciAddress::new(slot, 0), at, size, value.into());
                }
                Step::Memory(at, size, value) => {
                    board.memory.read(at, sizes[usize::from(size)], 0);
                    board.memory.write(at, sizes[usize::from(size)], value, 0);
                }
                Step::Intx(high) => a.set_intx(Level::from_asserted(high)),
                Step::Signal(vector) => a.signal(vector),
            }
        }

        let (copy, ..) = self::board();
        copy.bus.restore(&board.bus.save()).unwrap();

        prop_assert_eq!(copy.bus.save(), board.bus.save());
        prop_assert_eq!(copy.memory.layout(), board.memory.layout());
        prop_assert_eq!(copy.ports.layout(), board.ports.layout());
        prop_assert_eq!(copy.irqs(), board.irqs());
    }
}
