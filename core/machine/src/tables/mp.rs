//! The Intel MultiProcessor table (MultiProcessor Specification 1.4 §4), for systems without
//! ACPI.

use alloc::vec::Vec;

use kasane_devices::ioapic::spec::VERSION_VALUE;
use kasane_spec_pc::memory;

use super::acpi::LEVEL_IRQS;
use crate::config::MachineConfig;
use crate::record::Record;

const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;
/// Interrupt types (table 4-10).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Polarity active high, trigger mode level; 0 is "as the bus has it".
const LEVEL_HIGH: u16 = 0x000D;
const AS_BUS: u16 = 0;
const ALL_LOCAL_APICS: u8 = 0xFF;

/// The floating pointer, and the table right behind it, to be put at `base`.
pub(super) fn build(config: &MachineConfig, base: u64) -> Vec<u8> {
    const POINTER_LEN: u64 = 16;
    let table = table(config);
    let mut pointer = Record::zeroed(POINTER_LEN as usize);
    pointer.put(0, b"_MP_");
    pointer.put_u32(4, base.saturating_add(POINTER_LEN) as u32);
    pointer.put_u8(8, 1);
    pointer.put_u8(9, 4);
    super::set_checksum(&mut pointer, 10);
    super::concat(&[&pointer.0, &table])
}

fn interrupt(entry: u8, kind: u8, flags: u16, source: (u8, u8), to: (u8, u8)) -> [u8; 8] {
    let [low, high] = flags.to_le_bytes();
    [entry, kind, low, high, source.0, source.1, to.0, to.1]
}

fn table(config: &MachineConfig) -> Vec<u8> {
    const HEADER_LEN: usize = 44;
    const IO_INTERRUPT: u8 = 3;
    const LOCAL_INTERRUPT: u8 = 4;
    let ioapic = config.ioapic_id();
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for id in 0..config.cpus.min(255) as u8 {
        let mut cpu = Record::zeroed(20);
        cpu.put_u8(1, id);
        cpu.put_u8(2, 0x14);
        // Enabled; bit 1: the bootstrap processor.
        cpu.put_u8(3, if id == 0 { 3 } else { 1 });
        // Family 6 with an FPU, CX8 and an APIC.
        cpu.put_u32(4, 0x600);
        cpu.put_u32(8, 0x201);
        entries.push(cpu.0);
    }
    entries.push([&[1, PCI_BUS][..], b"PCI   "].concat());
    entries.push([&[1, ISA_BUS][..], b"ISA   "].concat());
    let address = (memory::IOAPIC as u32).to_le_bytes();
    entries.push([&[2, ioapic, VERSION_VALUE as u8, 1][..], &address].concat());
    for slot in 0..32u8 {
        for pin in 0..4u8 {
            let gsi = config.pci_irq(slot, pin);
            let source = (PCI_BUS, slot << 2 | pin);
            let entry = interrupt(IO_INTERRUPT, INT, LEVEL_HIGH, source, (ioapic, gsi));
            entries.push(entry.to_vec());
        }
    }
    for irq in (0..16u8).filter(|irq| *irq != 2) {
        let pin = if irq == 0 { 2 } else { irq };
        let flags = if LEVEL_IRQS.contains(&irq) { LEVEL_HIGH } else { AS_BUS };
        entries.push(interrupt(IO_INTERRUPT, INT, flags, (ISA_BUS, irq), (ioapic, pin)).to_vec());
    }
    let lint0 = interrupt(LOCAL_INTERRUPT, EXT_INT, AS_BUS, (ISA_BUS, 0), (0, 0));
    let lint1 = interrupt(LOCAL_INTERRUPT, NMI, AS_BUS, (ISA_BUS, 0), (ALL_LOCAL_APICS, 1));
    entries.extend([lint0.to_vec(), lint1.to_vec()]);

    let count = entries.len() as u16;
    let mut table = Record::zeroed(HEADER_LEN);
    table.put(0, b"PCMP");
    table.put_u8(6, 4);
    table.put(8, b"KASANE  ");
    table.put(16, b"PC          ");
    table.put_u16(34, count);
    table.put_u32(36, memory::LOCAL_APIC as u32);
    table.0.extend(entries.concat());
    let len = table.0.len() as u16;
    table.put_u16(4, len);
    super::set_checksum(&mut table, 7);
    table.0
}
