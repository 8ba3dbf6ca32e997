//! Processors and interrupt controllers (ACPI 6.5 §5.2.12).

use alloc::vec::Vec;

use crate::read::{u16_at, u32_at, u64_at};
use crate::tables::{HEAD, Table};

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
const LOCAL_APIC_ADDRESS: u8 = 5;
const LOCAL_X2APIC: u8 = 9;
/// A processor's flags: enabled.
const ENABLED: u32 = 1;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u64,
    /// The first global interrupt of its pins.
    pub first_gsi: u32,
}

/// An ISA interrupt that is not where it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA interrupt line.
    pub isa: u8,
    /// Global interrupt.
    pub gsi: u32,
    /// Bits 0 and 1: polarity (3 is low), bits 2 and 3: trigger (3 is level).
    pub flags: u16,
}

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterruptTopology {
    /// Physical address of the local APICs' registers.
    pub local_apic: u64,
    /// APIC ids of the processors that can be started, each once.
    pub processors: Vec<u32>,
    /// The I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts that are elsewhere.
    pub overrides: Vec<Override>,
}

impl InterruptTopology {
    /// Where ISA interrupt `line` comes in: global interrupt and flags.
    #[must_use]
    pub fn isa(&self, line: u8) -> (u32, u16) {
        let found = self.overrides.iter().find(|one| one.isa == line);
        found.map_or((line.into(), 0), |one| (one.gsi, one.flags))
    }

    /// The I/O APIC and pin of a global interrupt.
    #[must_use]
    pub fn pin(&self, gsi: u32) -> Option<(IoApic, u8)> {
        let below = self.io_apics.iter().filter(|one| one.first_gsi <= gsi);
        let controller = below.max_by_key(|one| one.first_gsi)?;
        let pin = u8::try_from(gsi.checked_sub(controller.first_gsi)?).ok()?;
        Some((*controller, pin))
    }
}

/// Reads the table; nothing if it is shorter than its fixed part. What is malformed ends the list.
#[must_use]
pub fn read_madt(table: &Table<'_>) -> Option<InterruptTopology> {
    let mut found = InterruptTopology {
        local_apic: u32_at(table.bytes, HEAD)?.into(),
        ..InterruptTopology::default()
    };
    let mut rest = table.bytes.get(HEAD.checked_add(8)?..)?;
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        let Some(entry) = rest.get(..len).filter(|entry| entry.len() >= 2) else { break };
        let _shorter_than_its_kind = take(&mut found, kind, entry);
        rest = rest.get(len..).unwrap_or_default();
    }
    Some(found)
}

fn take(found: &mut InterruptTopology, kind: u8, entry: &[u8]) -> Option<()> {
    match kind {
        LOCAL_APIC => add(found, (*entry.get(3)?).into(), u32_at(entry, 4)?),
        LOCAL_X2APIC => add(found, u32_at(entry, 4)?, u32_at(entry, 8)?),
        IO_APIC => {
            let (address, first_gsi) = (u32_at(entry, 4)?.into(), u32_at(entry, 8)?);
            found.io_apics.push(IoApic { address, first_gsi });
        }
        OVERRIDE => {
            let (isa, gsi, flags) = (*entry.get(3)?, u32_at(entry, 4)?, u16_at(entry, 8)?);
            found.overrides.push(Override { isa, gsi, flags });
        }
        LOCAL_APIC_ADDRESS => found.local_apic = u64_at(entry, 4)?,
        // NMI lines and the like: nothing that is used here.
        _ => {}
    }
    Some(())
}

fn add(found: &mut InterruptTopology, id: u32, flags: u32) {
    if flags & ENABLED != 0 && !found.processors.contains(&id) {
        found.processors.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::testing::table_of;

    fn read(entries: &[u8]) -> InterruptTopology {
        let body = [&0xFEE0_0000u32.to_le_bytes(), &1u32.to_le_bytes(), entries].concat();
        let bytes = table_of(b"APIC", &body);
        read_madt(&Table { signature: *b"APIC", bytes: &bytes }).unwrap()
    }

    const CPU_0: [u8; 8] = [0, 8, 0, 0, 1, 0, 0, 0];
    const CPU_3_OFF: [u8; 8] = [0, 8, 1, 3, 0, 0, 0, 0];
    const CPU_300: [u8; 16] = [9, 16, 0, 0, 0x2C, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    const IO: [u8; 12] = [1, 12, 2, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0];
    const TIMER: [u8; 10] = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];

    #[test]
    fn processors_and_lines_are_found() {
        let found = read(&[&CPU_0[..], &CPU_3_OFF, &CPU_0, &CPU_300, &IO, &TIMER].concat());

        assert_eq!(found.processors, [0, 300]);
        assert_eq!((found.isa(0), found.isa(4)), ((2, 0), (4, 0)));
        assert_eq!(found.pin(4).map(|(io, pin)| (io.address, pin)), Some((0xFEC0_0000, 4)));
        assert_eq!(found.local_apic, 0xFEE0_0000);
    }

    #[test]
    fn entries_that_are_too_short_or_too_long_do_no_harm() {
        let zero = read(&[&CPU_0[..], &[0, 0, 0, 0]].concat());
        let short = read(&[&[1, 3, 0][..], &CPU_0].concat());
        let long = read(&[&CPU_0[..], &[0, 200, 1, 1]].concat());

        assert!([zero, long].iter().all(|found| found.processors == [0]));
        assert_eq!((short.io_apics.len(), short.processors.len()), (0, 1));
    }
}
