//! How to switch off: the FADT's PM1a control port and the DSDT's `\_S5_` (ACPI 6.5 §5.2.9, §7.4.2).
//!
//! `_S5_` is a package of small numbers in every firmware that was met; its bytes are looked for,
//! so that no AML interpreter is needed in the hypervisor.

use crate::read::{u32_at, u64_at};
use crate::tables::{Table, Tables};

const DSDT: usize = 40;
const PM1A_CONTROL: usize = 64;
const PM_TIMER: usize = 76;
const X_DSDT: usize = 140;

const NAME: &[u8] = b"_S5_";
const PACKAGE: u8 = 0x12;
const BYTE: u8 = 0x0A;

/// How to switch off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// The port of PM1a control.
    pub port: u16,
    /// SLP_TYP for S5.
    pub sleep_type: u8,
}

/// The port of the ACPI timer, if there is one.
#[must_use]
pub fn find_pm_timer(tables: &Tables<'_>) -> Option<u16> {
    let fadt = tables.find(*b"FACP")?;
    u16::try_from(u32_at(fadt.bytes, PM_TIMER)?).ok().filter(|port| *port != 0)
}

/// Finds out how to switch off, if the machine has fixed hardware for that.
#[must_use]
pub fn find_power_off(tables: &Tables<'_>) -> Option<PowerOff> {
    let fadt = tables.find(*b"FACP")?;
    let port = u16::try_from(u32_at(fadt.bytes, PM1A_CONTROL)?).ok().filter(|port| *port != 0)?;
    let wide = u64_at(fadt.bytes, X_DSDT).filter(|address| *address != 0);
    let dsdt = wide.or_else(|| u32_at(fadt.bytes, DSDT).map(u64::from))?;
    Some(PowerOff { port, sleep_type: sleep_type(&tables.at(dsdt)?)? })
}

/// The first element of `_S5_`.
fn sleep_type(dsdt: &Table<'_>) -> Option<u8> {
    let at = dsdt.bytes.windows(NAME.len()).position(|window| window == NAME)?;
    let rest = dsdt.bytes.get(at.checked_add(NAME.len())?..)?;
    let (&first, rest) = rest.split_first()?;
    if first != PACKAGE {
        return None;
    }
    // The package's length is in 1 to 4 bytes (§20.2.4), then comes the number of elements.
    let length_bytes = usize::from(rest.first()? >> 6).checked_add(1)?;
    let elements = rest.get(length_bytes.checked_add(1)?..)?;
    match *elements {
        [BYTE, value, ..] => Some(value),
        // ZeroOp and OneOp.
        [value @ (0 | 1), ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::testing::{machine, table_of};
    use std::vec;
    use std::vec::Vec;

    fn fadt(port: u32, dsdt: u32) -> Vec<u8> {
        let mut body = vec![0; 80];
        body[PM1A_CONTROL - 36..][..4].copy_from_slice(&port.to_le_bytes());
        body[PM_TIMER - 36..][..4].copy_from_slice(&0x608u32.to_le_bytes());
        body[DSDT - 36..][..4].copy_from_slice(&dsdt.to_le_bytes());
        table_of(b"FACP", &body)
    }

    fn found(aml: &[u8]) -> Option<PowerOff> {
        let memory = machine(&[fadt(0x604, 0x1400), table_of(b"DSDT", aml)]);
        find_power_off(&Tables::new(&memory, 0x1000).unwrap())
    }

    #[test]
    fn the_sleep_type_is_found_in_its_encodings() {
        let byte = found(b"\x08_S5_\x12\x08\x04\x0A\x05\x0A\x05\x00\x00");
        let zero = found(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00");
        let long = found(b"\x08_S5_\x12\x40\x01\x04\x0A\x07\x00");

        let types = [byte, zero, long].map(|one| one.map(|one| (one.port, one.sleep_type)));
        assert_eq!(types, [Some((0x604, 5)), Some((0x604, 0)), Some((0x604, 7))]);
    }

    #[test]
    fn the_timer_has_a_port() {
        let memory = machine(&[fadt(0x604, 0)]);

        assert_eq!(find_pm_timer(&Tables::new(&memory, 0x1000).unwrap()), Some(0x608));
    }

    #[test]
    fn what_is_no_package_or_is_cut_off_is_none() {
        assert_eq!(found(b"\x08_S5_\x0A\x05"), None);
        assert_eq!(found(b"\x08_S5_\x12"), None);
        assert_eq!(found(b"\x08_S5_"), None);
        assert_eq!(found(b""), None);
    }
}
