//! A minimal SMBIOS 2.8 table (DMTF DSP0134): what a kernel prints as the machine's name.

use alloc::vec::Vec;

use crate::record::Record;

const ENTRY_LEN: usize = 31;

/// One structure: its header, its formatted area, its strings.
fn structure(kind: u8, handle: u16, area: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut out = alloc::vec![kind, (4 + area.len()) as u8];
    out.extend(handle.to_le_bytes());
    out.extend_from_slice(area);
    for text in strings {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
    // An empty set of strings is two zero bytes.
    if strings.is_empty() {
        out.push(0);
    }
    out.push(0);
    out
}

/// The entry point, and the structures right behind it, to be put at `base`.
pub(super) fn build(base: u64) -> Vec<u8> {
    // Vendor, version, segment, date, size; characteristics: not supported; the extension says
    // "virtual machine" (bit 4 of the second byte). No BIOS or EC release numbers.
    let bios = [&[1, 2, 0, 0xE8, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x14][..], &[0xFF; 4]].concat();
    // Manufacturer, product, version, serial; UUID; wake-up by power switch; SKU, family.
    let system = [&[1, 2, 3, 0][..], &[0; 16], &[6, 0, 0]].concat();
    // Manufacturer, "other" chassis, no version, serial, asset tag; states safe, security none.
    let chassis = [1u8, 1, 0, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 1, 0, 0].to_vec();
    let structures = [
        structure(0, 0x000, &bios, &["Kasane", "1", "01/01/2026"]),
        structure(1, 0x100, &system, &["Kasane", "Standard PC", "pc"]),
        structure(3, 0x300, &chassis, &["Kasane"]),
        structure(127, 0x7F00, &[], &[]),
    ];
    let largest = structures.iter().map(Vec::len).max().unwrap_or_default();
    let count = structures.len();
    let table = structures.concat();

    let at = base.saturating_add(ENTRY_LEN as u64).next_multiple_of(16);
    let mut inner = Record::zeroed(15);
    inner.put(0, b"_DMI_");
    inner.put_u16(6, table.len() as u16);
    inner.put_u32(8, at as u32);
    inner.put_u16(12, count as u16);
    inner.put_u8(14, 0x28);
    super::set_checksum(&mut inner, 5);
    let mut entry = Record::zeroed(ENTRY_LEN);
    entry.put(0, b"_SM_");
    entry.put_u8(5, ENTRY_LEN as u8);
    entry.put_u8(6, 2);
    entry.put_u8(7, 8);
    entry.put_u16(8, largest as u16);
    entry.put(16, &inner.0);
    super::set_checksum(&mut entry, 4);
    entry.0.resize(at.saturating_sub(base) as usize, 0);
    super::concat(&[&entry.0, &table])
}
