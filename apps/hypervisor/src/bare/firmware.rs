//! What the firmware says of the machine.

use alloc::vec::Vec;

use kasane_metal_acpi::{
    EcamWindow, InterruptTopology, PowerOff, Tables, find_pm_timer, find_power_off, read_madt,
    read_mcfg,
};

use super::memory::FirmwareMemory;
use super::serial::log;

/// Where local APICs are if nobody says otherwise.
const LOCAL_APIC: u64 = 0xFEE0_0000;

/// The firmware's tables, as far as they are of use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Firmware {
    /// Processors and interrupt controllers.
    pub(crate) interrupts: InterruptTopology,
    /// PCI's configuration space in memory.
    pub(crate) ecam: Vec<EcamWindow>,
    /// How to switch off.
    pub(crate) power_off: Option<PowerOff>,
    /// The port of the ACPI timer.
    pub(crate) pm_timer: Option<u16>,
}

/// Reads the tables; what is missing is said, and then the hypervisor does without.
pub(crate) fn read(rsdp: Option<u64>) -> Firmware {
    let mut firmware = Firmware::default();
    let memory = FirmwareMemory;
    let tables = match rsdp.map(|rsdp| Tables::new(&memory, rsdp)) {
        Some(Ok(tables)) => tables,
        Some(Err(error)) => {
            log!("{error}");
            return without_tables(firmware);
        }
        None => {
            log!("the loader passed no ACPI root pointer");
            return without_tables(firmware);
        }
    };
    match tables.find(*b"APIC").and_then(|table| read_madt(&table)) {
        Some(interrupts) => firmware.interrupts = interrupts,
        None => firmware = without_tables(firmware),
    }
    firmware.ecam = tables.find(*b"MCFG").map(|table| read_mcfg(&table)).unwrap_or_default();
    firmware.pm_timer = find_pm_timer(&tables);
    firmware.power_off = find_power_off(&tables);
    let mut names = alloc::string::String::new();
    for table in tables.all() {
        names.push(' ');
        names.extend(table.signature.iter().map(|byte| char::from(*byte)));
    }
    log!("ACPI:{names}");
    firmware
}

fn without_tables(mut firmware: Firmware) -> Firmware {
    log!("no table names processors and interrupt controllers: one processor, nothing typed");
    firmware.interrupts.local_apic = LOCAL_APIC;
    firmware
}
