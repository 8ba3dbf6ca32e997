//! The ACPI tables but the DSDT's contents (ACPI 6.3 §5.2).

use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::ProcessorLocalApic;
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use kasane_spec_pc::{acpi_pm, memory, port};

use super::dsdt;
use crate::config::MachineConfig;
use crate::layout;
use crate::record::Record;

const OEM_ID: [u8; 6] = *b"KASANE";
const OEM_TABLE_ID: [u8; 8] = *b"KASANEPC";
const OEM_REVISION: u32 = 1;
const HEADER_LEN: u32 = 36;

/// Interrupt source override and NMI flags: polarity high, trigger level (ACPI 6.3 table 5-48).
const ACTIVE_HIGH_LEVEL: u16 = 0x000D;
/// Interrupt lines that PCI interrupts and the SCI use: level-triggered on this board.
pub(super) const LEVEL_IRQS: [u8; 4] = [5, layout::SCI_IRQ, 10, 11];

/// Lays out tables one after the other from an address on.
struct Blob {
    base: u64,
    bytes: Vec<u8>,
}

impl Blob {
    /// Adds a table at a multiple of `align`; gives its address.
    fn add(&mut self, align: usize, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.base.saturating_add(self.bytes.len() as u64);
        self.bytes.extend_from_slice(table);
        at
    }

    fn add_aml(&mut self, align: usize, table: &dyn Aml) -> u64 {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.add(align, &bytes)
    }
}

/// All tables, to be put at `base`, and the RSDP's address. The RSDP comes first.
pub(super) fn build(config: &MachineConfig, base: u64) -> (u64, Vec<u8>) {
    const RSDP_LEN: usize = 36;
    let mut blob = Blob { base, bytes: alloc::vec![0; RSDP_LEN] };
    let facs = blob.add_aml(64, &FACS::new());
    let dsdt = blob.add(16, dsdt_table(config).as_slice());
    let fadt = blob.add_aml(16, &fadt(facs, dsdt).finalize());
    let madt = blob.add(16, &madt(config));
    let hpet = blob.add(16, hpet().as_slice());
    let mut tables = alloc::vec![fadt, madt, hpet];
    if config.ecam {
        let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        mcfg.add_ecam(layout::ECAM, 0, 0, 0xFF);
        tables.push(blob.add_aml(16, &mcfg));
    }
    let mut rsdt = Sdt::new(*b"RSDT", HEADER_LEN, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        rsdt.append_slice(&(table as u32).to_le_bytes());
        xsdt.add_entry(table);
    }
    let rsdt = blob.add(16, rsdt.as_slice());
    let xsdt = blob.add_aml(16, &xsdt);
    let rsdp = rsdp(rsdt, xsdt);
    for (to, from) in blob.bytes.iter_mut().zip(&rsdp) {
        *to = *from;
    }
    (base, blob.bytes)
}

/// The root pointer (§5.2.5.3), by hand: the crate's has no RSDT.
fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    let mut first = Record::zeroed(20);
    first.put(0, b"RSD PTR ");
    first.put(9, &OEM_ID);
    first.put_u8(15, 2);
    first.put_u32(16, rsdt as u32);
    super::set_checksum(&mut first, 8);
    let mut whole = Record::zeroed(36);
    whole.put(0, &first.0);
    whole.put_u32(20, 36);
    whole.put_u64(24, xsdt);
    super::set_checksum(&mut whole, 32);
    whole.0
}

fn dsdt_table(config: &MachineConfig) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&dsdt::build(config));
    table
}

fn io(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, address.into())
}

fn fadt(facs: u64, dsdt: u64) -> FADTBuilder {
    let event = layout::PM_BASE + acpi_pm::PM1_STATUS;
    let control = layout::PM_BASE + acpi_pm::PM1_CONTROL;
    let timer = layout::PM_BASE + acpi_pm::TIMER;
    let gpe0 = layout::PM_BASE + acpi_pm::GPE0_STATUS;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::RtcS4)
        .flag(Flags::ResetRegSup)
        .gpe_info(gpe0.into(), 0, acpi_pm::GPE0_LEN, 0, 0);
    // The 64-bit FACS address wins where both are given; the DSDT's have to agree.
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(layout::SCI_IRQ).into();
    fadt.smi_cmd = u32::from(port::APM_CONTROL).into();
    fadt.acpi_enable = acpi_pm::ACPI_ENABLE;
    fadt.acpi_disable = acpi_pm::ACPI_DISABLE;
    fadt.pm1a_evt_blk = u32::from(event).into();
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.pm_tmr_blk = u32::from(timer).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    // C2 and C3 are not supported: latencies above 100 and 1000 µs.
    fadt.p_lvl2_lat = 0x0FFF.into();
    fadt.p_lvl3_lat = 0x0FFF.into();
    fadt.century = 0x32;
    // Legacy devices, 8042, no VGA.
    fadt.iapc_boot_arch = 0b111.into();
    fadt.reset_reg = io(port::RESET_CONTROL, 8, AccessSize::ByteAccess);
    fadt.reset_value = 0x06;
    fadt.x_pm1a_evt_blk = io(event, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(control, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(timer, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = io(gpe0, acpi_pm::GPE0_LEN * 8, AccessSize::ByteAccess);
    fadt
}

/// Interrupt controllers (§5.2.12). The structures that the crate lacks are added as bytes.
fn madt(config: &MachineConfig) -> Vec<u8> {
    const PCAT_COMPAT: u32 = 1;
    let address = LocalInterruptController::Address(memory::LOCAL_APIC as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for id in 0..config.cpus.min(255) as u8 {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(config.ioapic_id(), memory::IOAPIC as u32, 0));
    let mut table = Record::zeroed(0);
    madt.to_aml_bytes(&mut table.0);
    // The timer is at the I/O APIC's input 2, where the PIC's cascade would be.
    table.0.extend(source_override(0, 2, 0));
    for irq in LEVEL_IRQS {
        table.0.extend(source_override(irq, irq.into(), ACTIVE_HIGH_LEVEL));
    }
    // Local APIC NMI (type 4): all processors, default flags, LINT1.
    table.0.extend([4, 6, 0xFF, 0, 0, 1]);
    let len = table.0.len() as u32;
    table.put_u32(4, len);
    // Revision 3: the tables' header says ACPI 4 or later.
    table.put_u8(8, 3);
    table.put_u32(40, PCAT_COMPAT);
    super::set_checksum(&mut table, 9);
    table.0
}

/// Interrupt source override (type 2) of an ISA interrupt.
fn source_override(irq: u8, gsi: u32, flags: u16) -> [u8; 10] {
    let [g0, g1, g2, g3] = gsi.to_le_bytes();
    let [f0, f1] = flags.to_le_bytes();
    [2, 10, 0, irq, g0, g1, g2, g3, f0, f1]
}

/// HPET table (IA-PC HPET 1.0a §3.2.4).
fn hpet() -> Sdt {
    /// Intel, legacy replacement, 64-bit counter, three comparators, revision 1.
    const EVENT_TIMER_BLOCK: u32 = 0x8086_A201;
    let mut table = Sdt::new(*b"HPET", HEADER_LEN, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&EVENT_TIMER_BLOCK.to_le_bytes());
    // Generic address: system memory, 64 bits wide.
    table.append_slice(&[0, 64, 0, 0]);
    table.append_slice(&memory::HPET.to_le_bytes());
    // Sequence number, minimum tick, page protection.
    table.append_slice(&[0, 0, 0, 0]);
    table
}
