//! Tests of the tables: their checksums, where they point, and what ACPICA says of them.

use kasane_memory::{Ram, RamSlot};
use std::string::String;
use std::vec::Vec;

use super::*;

fn machine() -> Ram {
    Ram::new(alloc::vec![RamSlot::allocated(0, 2 << 20)])
}

fn bytes(memory: &Ram, at: u64, len: usize) -> Vec<u8> {
    let mut out = alloc::vec![0; len];
    memory.read(at, &mut out).unwrap();
    out
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
}

fn u32_at(memory: &Ram, at: u64) -> u64 {
    u32::from_le_bytes(bytes(memory, at, 4).try_into().unwrap()).into()
}

fn u64_at(memory: &Ram, at: u64) -> u64 {
    u64::from_le_bytes(bytes(memory, at, 8).try_into().unwrap())
}

fn table(memory: &Ram, at: u64) -> Vec<u8> {
    let len = u32_at(memory, at + 4) as usize;
    bytes(memory, at, len)
}

/// The tables that the XSDT names, by signature, with the DSDT.
fn acpi_tables(memory: &Ram, rsdp: u64) -> Vec<(String, Vec<u8>)> {
    let xsdt = table(memory, u64_at(memory, rsdp + 24));
    let entries = xsdt[36..].chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap()));
    let mut tables: Vec<Vec<u8>> = entries.map(|at| table(memory, at)).collect();
    let fadt = tables.iter().find(|t| t.starts_with(b"FACP")).unwrap();
    let dsdt = u64::from_le_bytes(fadt[140..148].try_into().unwrap());
    tables.push(table(memory, dsdt));
    tables.push(xsdt);
    let named = |t: Vec<u8>| (String::from_utf8(t[..4].to_vec()).unwrap(), t);
    tables.into_iter().map(named).collect()
}

#[test]
fn every_acpi_table_adds_up_to_zero_and_is_found_from_the_rsdp() {
    let memory = machine();
    let config = MachineConfig { cpus: 4, ecam: true, ..MachineConfig::default() };

    let rsdp = write(&memory, &config).unwrap();

    assert_eq!(&bytes(&memory, rsdp, 8), b"RSD PTR ");
    assert_eq!(sum(&bytes(&memory, rsdp, 20)), 0);
    assert_eq!(sum(&bytes(&memory, rsdp, 36)), 0);
    let tables = acpi_tables(&memory, rsdp);
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["FACP", "APIC", "HPET", "MCFG", "DSDT", "XSDT"]);
    let sums: Vec<u8> = tables.iter().map(|(_, t)| sum(t)).collect();
    assert_eq!(sums, [0; 6]);
    let rsdt = table(&memory, u32_at(&memory, rsdp + 16));
    assert_eq!((&rsdt[..4], rsdt.len(), sum(&rsdt)), (&b"RSDT"[..], 36 + 4 * 4, 0));
}

#[test]
fn tables_of_the_largest_machine_stay_in_the_firmwares_area() {
    let mmio_devices = layout::MMIO_DEVICES_MAX;
    let config = MachineConfig { cpus: 64, ecam: true, mmio_devices, ..MachineConfig::default() };

    let (_, acpi) = acpi::build(&config, layout::FIRMWARE);
    let mp = mp::build(&config, layout::FIRMWARE_HIGH);

    assert!(layout::FIRMWARE + (acpi.len() as u64) < layout::FIRMWARE_HIGH);
    assert!(mp.len() < 0x8000);
}

#[test]
fn mp_table_has_every_processor_and_pci_pin() {
    let memory = machine();
    let config = MachineConfig { cpus: 2, ..MachineConfig::default() };

    write(&memory, &config).unwrap();

    let pointer = bytes(&memory, layout::FIRMWARE_HIGH, 16);
    assert_eq!((&pointer[..4], sum(&pointer)), (&b"_MP_"[..], 0));
    let at = u32_at(&memory, layout::FIRMWARE_HIGH + 4);
    let header = bytes(&memory, at, 44);
    let len = u16::from_le_bytes([header[4], header[5]]);
    let count = u16::from_le_bytes([header[34], header[35]]);
    assert_eq!(sum(&bytes(&memory, at, len.into())), 0);
    assert_eq!(count, 2 + 2 + 1 + 128 + 15 + 2);
}

#[test]
fn smbios_entry_is_found_and_adds_up() {
    let memory = machine();

    write(&memory, &MachineConfig::default()).unwrap();

    let area = bytes(&memory, layout::FIRMWARE_HIGH, 0x10000);
    let at = (0..area.len()).step_by(16).find(|at| area[*at..].starts_with(b"_SM_")).unwrap();
    assert_eq!(sum(&area[at..at + 31]), 0);
    assert_eq!(sum(&area[at + 16..at + 31]), 0);
}

#[test]
fn real_mode_vectors_lead_to_routines_that_return() {
    let memory = machine();

    write(&memory, &MachineConfig::default()).unwrap();

    let routine = |vector: u64| {
        let [o0, o1, s0, s1] = bytes(&memory, vector * 4, 4).try_into().unwrap();
        let at = u64::from(u16::from_le_bytes([s0, s1])) * 16;
        bytes(&memory, at + u64::from(u16::from_le_bytes([o0, o1])), 1)[0]
    };
    // IRET for a hardware interrupt, PUSH BP of the refusing routine for a service.
    assert_eq!((routine(0x08), routine(0x15), routine(0xFF)), (0xCF, 0x55, 0xCF));
}

/// Whether a tool may be missing: not in CI.
fn skipped(what: &str) -> bool {
    let allowed = std::env::var_os("CI").is_none();
    assert!(allowed, "{what} is needed in CI");
    std::println!("skipped: {what} is not installed");
    true
}

#[test]
fn acpica_disassembles_and_reassembles_the_tables_without_a_complaint() {
    let memory = machine();
    let config = MachineConfig { cpus: 2, ecam: true, mmio_devices: 2, ..MachineConfig::default() };
    let rsdp = write(&memory, &config).unwrap();
    let dir = std::env::temp_dir().join(std::format!("kasane-acpi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();

    for (name, table) in acpi_tables(&memory, rsdp) {
        let file = dir.join(std::format!("{name}.aml"));
        std::fs::write(&file, &table).unwrap();
        let run = |arguments: &[&str], file: &std::path::Path| {
            std::process::Command::new("iasl").args(arguments).arg(file).output()
        };
        let Ok(output) = run(&["-d"], &file) else {
            assert!(skipped("iasl (acpica-tools)"));
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = text + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("Error"), "{name}: {text}");
        assert!(!text.contains("Warning") && !text.contains("Invalid"), "{name}: {text}");
        if name == "DSDT" {
            let output = run(&["-ve"], &dir.join("DSDT.dsl")).unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{text}");
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
