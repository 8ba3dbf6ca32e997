//! The memory of one VM: a list of slots that can change while the VM runs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::RwLock;

use crate::port::{GuestMemory, MemoryError};
use crate::slot::{RamSlot, SlotList};

/// Guest memory.
///
/// Changing the map raises [`Ram::generation`]; a TLB compares it when its vCPU is kicked and
/// takes the new list. Removed slots live on until no TLB holds the old list.
pub struct Ram {
    list: RwLock<Arc<SlotList>>,
    generation: AtomicU64,
}

impl Ram {
    /// Memory with these slots. Overlapping slots: the lower base wins.
    #[must_use]
    pub fn new(slots: Vec<RamSlot>) -> Self {
        let slots = slots.into_iter().map(Arc::new).collect();
        Self { list: RwLock::new(Arc::new(SlotList::new(slots))), generation: AtomicU64::new(0) }
    }
    /// The current list.
    #[must_use]
    pub fn slots(&self) -> Arc<SlotList> {
        self.list.read().clone()
    }
    /// Raised by every change of the map.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    /// Adds a slot. The caller kicks the vCPUs.
    pub fn add(&self, slot: RamSlot) {
        let mut list = self.list.write();
        let mut slots: Vec<_> = list.slots().to_vec();
        slots.push(Arc::new(slot));
        *list = Arc::new(SlotList::new(slots));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
    /// Removes the slot that starts at `base`. The caller kicks the vCPUs.
    pub fn remove(&self, base: u64) {
        let mut list = self.list.write();
        let slots = list.slots().iter().filter(|slot| slot.base() != base).cloned().collect();
        *list = Arc::new(SlotList::new(slots));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl SlotList {
    fn each(
        &self,
        gpa: u64,
        len: u64,
        write: bool,
        mut step: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < len {
            let at = gpa.checked_add(done).ok_or(MemoryError::Unmapped { gpa, len })?;
            let (slot, offset) = self.find(at).ok_or(MemoryError::Unmapped { gpa, len })?;
            let part = slot.len().saturating_sub(offset).min(len.saturating_sub(done));
            let (slot, offset, host) = match self.range(at, part, write) {
                Ok(found) => found,
                Err(MemoryError::Unmapped { .. }) => {
                    let _ = slot;
                    return Err(MemoryError::Unmapped { gpa, len });
                }
                Err(other) => return Err(other),
            };
            step(host, done as usize, part as usize);
            if write {
                slot.note_write(offset, part);
            }
            done = done.saturating_add(part);
        }
        Ok(())
    }
}

impl GuestMemory for SlotList {
    fn read(&self, gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        let out = buf.as_mut_ptr();
        self.each(gpa, buf.len() as u64, false, |host, at, part| {
            // SAFETY: `each` gives parts that lie inside both; guest memory is copied as bytes
            // without a reference to it; a racing guest write gives torn bytes, as on hardware.
            unsafe { copy_bytes(out.add(at), host, part) }
        })
    }
    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError> {
        let src = data.as_ptr();
        self.each(gpa, data.len() as u64, true, |host, at, part| {
            // SAFETY: as in `read`.
            unsafe { copy_bytes(host, src.add(at), part) }
        })
    }
    fn fill(&self, gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError> {
        self.each(gpa, len, true, |host, _, part| {
            // SAFETY: `part` bytes at `host` are valid guest memory.
            unsafe { fill_bytes(host, byte, part) }
        })
    }
    fn load_u16(&self, gpa: u64) -> Result<u16, MemoryError> {
        self.load(gpa)
    }
    fn load_u32(&self, gpa: u64) -> Result<u32, MemoryError> {
        self.load(gpa)
    }
    fn load_u64(&self, gpa: u64) -> Result<u64, MemoryError> {
        self.load(gpa)
    }
    fn store_u16(&self, gpa: u64, value: u16) -> Result<(), MemoryError> {
        self.store(gpa, value)
    }
    fn store_u32(&self, gpa: u64, value: u32) -> Result<(), MemoryError> {
        self.store(gpa, value)
    }
    fn store_u64(&self, gpa: u64, value: u64) -> Result<(), MemoryError> {
        self.store(gpa, value)
    }
    fn compare_exchange_u32(&self, gpa: u64, current: u32, new: u32) -> Result<u32, MemoryError> {
        self.compare_exchange(gpa, current, new)
    }
    fn compare_exchange_u64(&self, gpa: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        self.compare_exchange(gpa, current, new)
    }
    fn ram_ranges(&self) -> Vec<(u64, u64)> {
        self.slots().iter().map(|slot| (slot.base(), slot.len())).collect()
    }
}

/// REP MOVSB: copies bytes of which one side is guest memory.
///
/// # Safety
/// Both ranges are valid for `len` bytes and do not overlap.
pub(crate) unsafe fn copy_bytes(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") dst => _,
            inout("rsi") src => _, options(nostack, preserves_flags));
    }
}

/// REP STOSB: fills guest memory.
///
/// # Safety
/// The range is valid for `len` bytes.
pub(crate) unsafe fn fill_bytes(dst: *mut u8, byte: u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") dst => _,
            in("al") byte, options(nostack, preserves_flags));
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $t:ty),*) -> $r:ty;)*) => {
        $(fn $name(&self, $($arg: $t),*) -> $r { self.list.read().$name($($arg),*) })*
    };
}

impl GuestMemory for Ram {
    forward! {
        read(gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError>;
        write(gpa: u64, data: &[u8]) -> Result<(), MemoryError>;
        fill(gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError>;
        load_u16(gpa: u64) -> Result<u16, MemoryError>;
        load_u32(gpa: u64) -> Result<u32, MemoryError>;
        load_u64(gpa: u64) -> Result<u64, MemoryError>;
        store_u16(gpa: u64, value: u16) -> Result<(), MemoryError>;
        store_u32(gpa: u64, value: u32) -> Result<(), MemoryError>;
        store_u64(gpa: u64, value: u64) -> Result<(), MemoryError>;
        compare_exchange_u32(gpa: u64, current: u32, new: u32) -> Result<u32, MemoryError>;
        compare_exchange_u64(gpa: u64, current: u64, new: u64) -> Result<u64, MemoryError>;
        ram_ranges() -> Vec<(u64, u64)>;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn two_slots() -> Ram {
        Ram::new(vec![RamSlot::allocated(0x1000, 0x1000), RamSlot::allocated(0x2000, 0x2000)])
    }

    #[test]
    fn copies_cross_slots() {
        let ram = two_slots();
        let mut back = [0; 4];
        ram.write(0x1FFE, &[1, 2, 3, 4]).unwrap();
        ram.read(0x1FFE, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4]);
        assert_eq!(ram.load_u16(0x2000), Ok(0x0403));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let ram = two_slots();
        assert_eq!(ram.write(0x3FFF, &[0, 0]), Err(MemoryError::Unmapped { gpa: 0x3FFF, len: 2 }));
        assert_eq!(
            ram.load_u64(u64::MAX - 7),
            Err(MemoryError::Unmapped { gpa: u64::MAX - 7, len: 8 })
        );
        assert_eq!(ram.load_u32(0x1002), Err(MemoryError::Misaligned { gpa: 0x1002 }));
    }

    #[test]
    fn dma_into_code_raises_the_version() {
        let ram = two_slots();
        let list = ram.slots();
        let (slot, offset) = list.find(0x2040).unwrap();
        let page = slot.page(offset).unwrap();
        page.mark_code(0x40, 0x4F);
        let before = page.version();
        ram.write(0x2030, &[0x90; 32]).unwrap();
        assert_ne!(page.version(), before);
    }
}
