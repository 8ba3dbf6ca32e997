//! Messages: the MSI capability and the MSI-X table (PCI Local Bus 3.0 §6.8).
//!
//! A vector that is signalled while it can't be sent (masked, or the function is no bus master)
//! stays pending and is sent once it can be.

use alloc::vec::Vec;

use kasane_cpu::AccessSize;
use kasane_ports::Msi;
use kasane_spec_pci::capability::{msi, msix};
use kasane_spec_pci::header;

use super::config::ConfigSpace;
use super::layout::MsixPlace;

fn bus_master(space: &ConfigSpace) -> bool {
    space.u16(header::COMMAND) & header::command::BUS_MASTER != 0
}

/// Whether MSI is on; `at` is the capability.
pub(super) fn msi_enabled(space: &ConfigSpace, at: usize) -> bool {
    space.u16(at.wrapping_add(msi::CONTROL)) & msi::ENABLE != 0
}

/// Marks an MSI vector as pending. Vectors beyond those that are enabled are folded onto them.
pub(super) fn msi_signal(space: &mut ConfigSpace, at: usize, vector: u16) {
    if !msi_enabled(space, at) {
        return;
    }
    let vector = vector & msi_vectors(space, at).wrapping_sub(1);
    let pending = space.u32(at.wrapping_add(msi::PENDING)) | 1u32.wrapping_shl(vector.into());
    space.set(at.wrapping_add(msi::PENDING), &pending.to_le_bytes());
}

/// The number of vectors that are enabled: a power of two up to 32.
fn msi_vectors(space: &ConfigSpace, at: usize) -> u16 {
    let control = space.u16(at.wrapping_add(msi::CONTROL));
    let capable = control >> msi::CAPABLE_SHIFT & 7;
    let enabled = control >> msi::ENABLED_SHIFT & 7;
    1 << enabled.min(capable).min(5)
}

/// Sends the MSI vectors that are pending and can be sent.
pub(super) fn msi_flush(space: &mut ConfigSpace, at: usize, messages: &mut Vec<Msi>) {
    let pending = space.u32(at.wrapping_add(msi::PENDING));
    if pending == 0 || !msi_enabled(space, at) || !bus_master(space) {
        return;
    }
    let masked = space.u32(at.wrapping_add(msi::MASK));
    let address = space.u64(at.wrapping_add(msi::ADDRESS));
    // The function changes the low bits of the data to name the vector.
    let low_bits = u32::from(msi_vectors(space, at).wrapping_sub(1));
    let data = u32::from(space.u16(at.wrapping_add(msi::DATA))) & !low_bits;
    for vector in (0..32u32).filter(|v| pending & !masked & (1 << v) != 0) {
        messages.push(Msi { address, data: data | (vector & low_bits) });
    }
    space.set(at.wrapping_add(msi::PENDING), &(pending & masked).to_le_bytes());
}

/// One entry of an MSI-X table: address low, address high, data, vector control.
pub(super) type MsixEntry = [u32; 4];

/// An MSI-X table with its pending bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MsixTable {
    /// The capability.
    pub(super) at: usize,
    pub(super) place: MsixPlace,
    pub(super) entries: Vec<MsixEntry>,
    pub(super) pending: Vec<u64>,
}

impl MsixTable {
    pub(super) fn new(at: usize, place: MsixPlace) -> Self {
        let vectors = usize::from(place.vectors);
        Self {
            at,
            place,
            entries: alloc::vec![[0, 0, 0, msix::ENTRY_MASKED]; vectors],
            pending: alloc::vec![0; vectors.div_ceil(64)],
        }
    }

    fn control(&self, space: &ConfigSpace) -> u16 {
        space.u16(self.at.wrapping_add(msix::CONTROL))
    }

    pub(super) fn enabled(&self, space: &ConfigSpace) -> bool {
        self.control(space) & msix::ENABLE != 0
    }

    /// Marks a vector as pending. A vector that is not there is ignored.
    pub(super) fn signal(&mut self, space: &ConfigSpace, vector: u16) {
        if !self.enabled(space) || vector >= self.place.vectors {
            return;
        }
        if let Some(word) = self.pending.get_mut(usize::from(vector / 64)) {
            *word |= 1 << (vector % 64);
        }
    }

    /// Sends the vectors that are pending and can be sent.
    pub(super) fn flush(&mut self, space: &ConfigSpace, messages: &mut Vec<Msi>) {
        let control = self.control(space);
        let on = control & msix::ENABLE != 0 && control & msix::FUNCTION_MASK == 0;
        if !on || !bus_master(space) || self.pending.iter().all(|word| *word == 0) {
            return;
        }
        for (n, [low, high, data, vector_control]) in self.entries.iter().enumerate() {
            let Some(word) = self.pending.get_mut(n / 64) else { continue };
            let bit = 1u64 << (n % 64);
            if *word & bit != 0 && vector_control & msix::ENTRY_MASKED == 0 {
                *word &= !bit;
                let address = u64::from(*high) << 32 | u64::from(*low & !3);
                messages.push(Msi { address, data: *data });
            }
        }
    }

    /// Whether an access at `offset` of the table's BAR is to the table or the pending bits.
    pub(super) fn covers(place: MsixPlace, offset: u32) -> bool {
        let table_len = u32::from(place.vectors) * msix::ENTRY_LEN;
        let pending_len = u32::from(place.vectors).div_ceil(64) * 8;
        let within = |base: u32, len: u32| offset.checked_sub(base).is_some_and(|at| at < len);
        within(place.table, table_len) || within(place.pending, pending_len)
    }

    /// A read of the table or the pending bits. Only aligned doublewords are defined (§6.8.2);
    /// others give the bytes of the doubleword.
    pub(super) fn read(&self, offset: u32, size: AccessSize) -> u64 {
        let word = self.word(offset & !3).unwrap_or(u32::MAX);
        u64::from(word) >> (8 * (offset & 3)) & size.mask()
    }

    fn word(&self, offset: u32) -> Option<u32> {
        if let Some(at) = offset.checked_sub(self.place.table)
            && let Some(entry) = self.entries.get((at / msix::ENTRY_LEN) as usize)
        {
            return entry.get((at % msix::ENTRY_LEN / 4) as usize).copied();
        }
        let at = offset.checked_sub(self.place.pending)?;
        let word = self.pending.get((at / 8) as usize)?;
        Some((word >> (8 * (at % 8))) as u32)
    }

    /// A write to the table. Pending bits are read-only; writes that are no aligned doublewords
    /// are undefined and ignored.
    pub(super) fn write(&mut self, offset: u32, size: AccessSize, value: u64) {
        let Some(at) = offset.checked_sub(self.place.table) else { return };
        if size != AccessSize::Dword || at % 4 != 0 {
            return;
        }
        let entry = self.entries.get_mut((at / msix::ENTRY_LEN) as usize);
        let field = entry.and_then(|entry| entry.get_mut((at % msix::ENTRY_LEN / 4) as usize));
        if let Some(field) = field {
            *field = value as u32;
        }
    }
}
