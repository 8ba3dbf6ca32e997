//! The DSDT in AML: the PCI host bridge with its windows, interrupt links and routing, the ISA
//! devices, and the soft-off state. It has the shape that QEMU's `pc` shows to a guest.

use alloc::format;
use alloc::vec::Vec;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Local, Memory32Fixed,
    Method, Name, OpRegion, OpRegionSpace, Or, PackageBuilder, Path, ResourceTemplate, Return,
    Scope, Store, ZERO,
};
use acpi_tables::{Aml, AmlSink};

use kasane_spec_pc::memory;

use crate::config::MachineConfig;
use crate::layout;

/// Interrupts that a link can be routed to.
const LINK_CHOICES: [u32; 3] = [5, 10, 11];
/// 64-bit memory window: the upper half of 40 address bits.
const HIGH_WINDOW: (u64, u64) = (0x80_0000_0000, 0xFF_FFFF_FFFF);
/// Resource flags of a level, active-high, shared consumer interrupt (ACPI 6.3 §6.4.3.6).
const LEVEL_HIGH_SHARED: u8 = 0b1001;

/// AML that is made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    aml.to_aml_bytes(&mut out);
    out
}

fn path(name: &str) -> Path {
    Path::new(name)
}

fn name(at: &str, value: &dyn Aml) -> Name {
    Name::new(path(at), value)
}

fn device(at: &str, children: Vec<&dyn Aml>) -> Raw {
    Raw(bytes(&Device::new(path(at), children)))
}

/// Everything after the table's header.
pub(super) fn build(config: &MachineConfig) -> Vec<u8> {
    let host_bridge = host_bridge(config);
    let links = ["LNKA", "LNKB", "LNKC", "LNKD"];
    // The registers are fields of the ISA bridge's configuration space.
    let registers = [
        "\\_SB_.PCI0.ISA_.PRQA",
        "\\_SB_.PCI0.ISA_.PRQB",
        "\\_SB_.PCI0.ISA_.PRQC",
        "\\_SB_.PCI0.ISA_.PRQD",
    ];
    let links = links.iter().zip(registers).enumerate();
    let links: Vec<Raw> = links.map(|(n, (link, reg))| pirq_link(link, reg, n as u8)).collect();
    let sci_link = sci_link();
    let hpet = hpet();
    let reserved = reserved_memory(config);
    let in_memory: Vec<Raw> = (0..config.mmio_devices).map(virtio_mmio).collect();
    let mut children: Vec<&dyn Aml> = alloc::vec![&host_bridge, &hpet];
    children.extend(links.iter().map(|link| link as &dyn Aml));
    children.push(&sci_link);
    children.extend(reserved.iter().chain(&in_memory).map(|r| r as &dyn Aml));
    let mut out = bytes(&Scope::new(path("_SB_"), children));
    // Soft off: SLP_TYP 0 in PM1a and PM1b.
    let mut s5 = PackageBuilder::new();
    for _ in 0..4 {
        s5.add_element(&ZERO);
    }
    out.extend(bytes(&name("_S5_", &s5)));
    out
}

fn host_bridge(config: &MachineConfig) -> Raw {
    let resources = name("_CRS", &Raw(windows(config)));
    let routing = name("_PRT", &routing_table());
    let isa = isa_bridge();
    let uid = name("_UID", &ZERO);
    let adr = name("_ADR", &ZERO);
    let mut children: Vec<&dyn Aml> = Vec::new();
    let express =
        [name("_HID", &EISAName::new("PNP0A08")), name("_CID", &EISAName::new("PNP0A03"))];
    let plain = name("_HID", &EISAName::new("PNP0A03"));
    if config.ecam {
        children.extend(express.iter().map(|n| n as &dyn Aml));
    } else {
        children.push(&plain);
    }
    children.extend([&uid as &dyn Aml, &adr, &resources, &routing, &isa]);
    device("PCI0", children)
}

/// What the host bridge passes on (`_CRS`).
fn windows(config: &MachineConfig) -> Vec<u8> {
    let memory_end = if config.ecam { layout::ECAM - 1 } else { *layout::PCI_MEMORY.end() } as u32;
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let buses = AddressSpace::new_bus_number(0u16, 0xFF);
    let config_ports = IO::new(0xCF8, 0xCF8, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, 0x0CF7, None);
    let high_ports = AddressSpace::new_io(0x0D00u16, 0xFFFF, None);
    let vga = AddressSpace::new_memory(cacheable, true, 0xA_0000u32, 0xB_FFFF, None);
    let low = *layout::PCI_MEMORY.start() as u32;
    let memory = AddressSpace::new_memory(cacheable, true, low, memory_end, None);
    let high = AddressSpace::new_memory(cacheable, true, HIGH_WINDOW.0, HIGH_WINDOW.1, None);
    bytes(&ResourceTemplate::new(alloc::vec![
        &buses,
        &config_ports,
        &low_ports,
        &high_ports,
        &vga,
        &memory,
        &high,
    ]))
}

/// Which link each slot's interrupt pins go to (`_PRT`): the pins are rotated from slot to slot,
/// and the function in slot 1 with pin A is the power management that raises the SCI.
fn routing_table() -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for slot in 0..32u32 {
        for pin in 0..4u32 {
            let link = match (slot, pin) {
                (1, 0) => "LNKS",
                _ => match (slot + pin) % 4 {
                    0 => "LNKD",
                    1 => "LNKA",
                    2 => "LNKB",
                    _ => "LNKC",
                },
            };
            let mut entry = PackageBuilder::new();
            entry.add_element(&(slot << 16 | 0xFFFF));
            entry.add_element(&pin);
            entry.add_element(&path(link));
            entry.add_element(&ZERO);
            table.add_element(&entry);
        }
    }
    table
}

/// An interrupt list resource.
fn interrupts(numbers: &[u32]) -> Raw {
    let mut out = alloc::vec![0x89];
    let len = 2 + 4 * numbers.len() as u16;
    out.extend(len.to_le_bytes());
    out.extend([LEVEL_HIGH_SHARED, numbers.len() as u8]);
    out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    Raw(out)
}

/// A link device on one of the PIIX3's PIRQ route control registers: bit 7 switches it off, the
/// low bits are the interrupt.
fn pirq_link(link: &str, register: &str, index: u8) -> Raw {
    /// Where the interrupt number is in an interrupt resource.
    const NUMBER_AT: u8 = 5;
    const OFF: u8 = 0x80;
    let register = path(register);
    let field = path("PRRI");
    let hid = name("_HID", &EISAName::new("PNP0C0F"));
    let uid = name("_UID", &(index + 1));
    let possible = name("_PRS", &ResourceTemplate::new(alloc::vec![&interrupts(&LINK_CHOICES)]));

    let is_off = And::new(&ZERO, &register, &OFF);
    let off = Return::new(&0x09u8);
    let if_off = If::new(&is_off, alloc::vec![&off]);
    let on = Return::new(&0x0Bu8);
    let status = Method::new(path("_STA"), 0, false, alloc::vec![&if_off, &on]);

    let switch_off = Or::new(&register, &register, &OFF);
    let disable = Method::new(path("_DIS"), 0, false, alloc::vec![&switch_off]);

    let buffer = path("PRR0");
    let empty = name("PRR0", &ResourceTemplate::new(alloc::vec![&interrupts(&[0])]));
    let number = CreateDWordField::new(&field, &buffer, &NUMBER_AT);
    let read = Store::new(&Local(0), &register);
    let off_now = And::new(&ZERO, &Local(0), &OFF);
    let none = Return::new(&buffer);
    let if_off_now = If::new(&off_now, alloc::vec![&none]);
    let mask = And::new(&field, &Local(0), &0x0Fu8);
    let give = Return::new(&buffer);
    let current = Method::new(
        path("_CRS"),
        0,
        true,
        alloc::vec![&empty, &number, &read, &if_off_now, &mask, &give],
    );

    let wanted = CreateDWordField::new(&field, &Arg(0), &NUMBER_AT);
    let write = Store::new(&register, &field);
    let set = Method::new(path("_SRS"), 1, true, alloc::vec![&wanted, &write]);
    let mut children: Vec<&dyn Aml> = alloc::vec![&hid, &uid, &possible];
    children.extend([&status as &dyn Aml, &disable, &current, &set]);
    device(link, children)
}

/// The link of the power management's interrupt, which is wired to the SCI.
fn sci_link() -> Raw {
    let only = ResourceTemplate::new(alloc::vec![&SCI_RESOURCE]);
    let hid = name("_HID", &EISAName::new("PNP0C0F"));
    let uid = name("_UID", &0x10u8);
    let possible = name("_PRS", &only);
    let current = name("_CRS", &only);
    let working = Return::new(&0x0Bu8);
    let status = Method::new(path("_STA"), 0, false, alloc::vec![&working]);
    let disable = Method::new(path("_DIS"), 0, false, Vec::new());
    let set = Method::new(path("_SRS"), 1, false, Vec::new());
    device("LNKS", alloc::vec![&hid, &uid, &possible, &current, &status, &disable, &set])
}

/// The SCI as an interrupt resource.
struct SciResource;
const SCI_RESOURCE: SciResource = SciResource;

impl Aml for SciResource {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        interrupts(&[layout::SCI_IRQ.into()]).to_aml_bytes(sink);
    }
}

/// The PIIX3's ISA bridge in slot 1, with what sits on the ISA bus.
fn isa_bridge() -> Raw {
    let address = name("_ADR", &0x0001_0000u32);
    let region = OpRegion::new(path("P40C"), OpRegionSpace::PCIConfig, &0x60u8, &4u8);
    let registers = [*b"PRQA", *b"PRQB", *b"PRQC", *b"PRQD"];
    let fields = registers.iter().map(|r| FieldEntry::Named(*r, 8)).collect();
    let field = Field::new(
        path("P40C"),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        fields,
    );
    let rtc = isa_device("RTC_", "PNP0B00", &[(0x70, 8)], Some(8));
    let keyboard = isa_device("KBD_", "PNP0303", &[(0x60, 1), (0x64, 1)], Some(1));
    let mouse = isa_device("MOU_", "PNP0F13", &[], Some(12));
    let serial = isa_device("COM1", "PNP0501", &[(0x3F8, 8)], Some(4));
    device("ISA_", alloc::vec![&address, &region, &field, &rtc, &keyboard, &mouse, &serial])
}

fn isa_device(at: &str, id: &str, ports: &[(u16, u8)], irq: Option<u8>) -> Raw {
    let hid = name("_HID", &EISAName::new(id));
    let uid = name("_UID", &u8::from(id == "PNP0501"));
    let status = name("_STA", &0x0Fu8);
    let ports: Vec<IO> = ports.iter().map(|(at, len)| IO::new(*at, *at, 1, *len)).collect();
    let irq = irq.map(|irq| Raw(irq_no_flags(irq)));
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|p| p as &dyn Aml).collect();
    resources.extend(irq.iter().map(|i| i as &dyn Aml));
    let resources = name("_CRS", &ResourceTemplate::new(resources));
    device(at, alloc::vec![&hid, &uid, &status, &resources])
}

/// An edge-triggered ISA interrupt as a small resource (ACPI 6.3 §6.4.2.1).
fn irq_no_flags(irq: u8) -> Vec<u8> {
    let mask = 1u16.checked_shl(irq.into()).unwrap_or_default();
    let [low, high] = mask.to_le_bytes();
    alloc::vec![0x22, low, high]
}

fn hpet() -> Raw {
    let hid = name("_HID", &EISAName::new("PNP0103"));
    let uid = name("_UID", &ZERO);
    let memory = Memory32Fixed::new(false, memory::HPET as u32, 0x400);
    let resources = name("_CRS", &ResourceTemplate::new(alloc::vec![&memory]));
    device("HPET", alloc::vec![&hid, &uid, &resources])
}

/// Where the configuration space is in memory, that has to be claimed by a motherboard device
/// (PCI Firmware 3.2 §4.1.2).
fn reserved_memory(config: &MachineConfig) -> Option<Raw> {
    if !config.ecam {
        return None;
    }
    let hid = name("_HID", &EISAName::new("PNP0C02"));
    let uid = name("_UID", &1u8);
    let memory = Memory32Fixed::new(true, layout::ECAM as u32, layout::ECAM_LEN as u32);
    let resources = name("_CRS", &ResourceTemplate::new(alloc::vec![&memory]));
    Some(device("MRES", alloc::vec![&hid, &uid, &resources]))
}

/// A virtio device with registers in memory, by the id that Linux' driver knows and QEMU's boards
/// use too.
fn virtio_mmio(index: u8) -> Raw {
    let hid = name("_HID", &"LNRO0005");
    let uid = name("_UID", &index);
    let at = layout::mmio_device(index) as u32;
    let memory = Memory32Fixed::new(true, at, kasane_spec_virtio::mmio::LEN as u32);
    let interrupt = interrupts(&[layout::mmio_gsi(index)]);
    let resources = name("_CRS", &ResourceTemplate::new(alloc::vec![&memory, &interrupt]));
    device(&format!("VR{index:02X}"), alloc::vec![&hid, &uid, &resources])
}
