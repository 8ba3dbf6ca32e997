//! A function's configuration space: bytes, and which of their bits a write changes.

use alloc::vec::Vec;

use kasane_cpu::AccessSize;
use kasane_spec_pci::header;

/// 4 KiB of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits that a write sets.
    writable: Vec<u8>,
    /// Bits that writing one clears.
    clearable: Vec<u8>,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        let zeros = alloc::vec![0; header::SPACE_LEN];
        Self { bytes: zeros.clone(), writable: zeros.clone(), clearable: zeros }
    }
}

impl ConfigSpace {
    /// One byte; all-ones outside.
    #[must_use]
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0xFF)
    }
    /// 16 bits.
    #[must_use]
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at.wrapping_add(1))])
    }
    /// 32 bits.
    #[must_use]
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at.wrapping_add(2))) << 16
    }
    /// 64 bits.
    #[must_use]
    pub fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at.wrapping_add(4))) << 32
    }
    /// Sets registers as the hardware does, whether or not the guest may write them.
    pub fn set(&mut self, at: usize, values: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(values) {
            *to = *from;
        }
    }
    /// Says which bits the guest may write.
    pub fn allow(&mut self, at: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(at).zip(mask) {
            *to |= *from;
        }
    }
    /// Says which bits the guest clears by writing one.
    pub fn allow_clear(&mut self, at: usize, mask: &[u8]) {
        for (to, from) in self.clearable.iter_mut().skip(at).zip(mask) {
            *to |= *from;
        }
    }
    /// The guest reads.
    #[must_use]
    pub fn read(&self, at: usize, size: AccessSize) -> u64 {
        (0..u32::from(size.bytes())).fold(0, |value, n| {
            value | u64::from(self.byte(at.wrapping_add(n as usize))) << (8 * n)
        })
    }
    /// The guest writes.
    pub fn write(&mut self, at: usize, size: AccessSize, value: u64) {
        let values = value.to_le_bytes();
        let places = self.bytes.iter_mut().zip(&self.writable).zip(&self.clearable).skip(at);
        for (((byte, mask), clear), new) in places.zip(values).take(usize::from(size.bytes())) {
            *byte = (*byte & !mask & !(clear & new)) | (new & mask);
        }
    }
    /// What the guest can have changed, for a saved state: trailing zeros are left out.
    #[must_use]
    pub(super) fn writable_bytes(&self) -> Vec<u8> {
        let mut out: Vec<u8> =
            self.bytes.iter().zip(&self.writable).map(|(byte, mask)| byte & mask).collect();
        let len = out.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.wrapping_add(1));
        out.truncate(len);
        out
    }
    /// Takes over what `writable_bytes` gave; other bits stay.
    pub(super) fn put_writable_bytes(&mut self, saved: &[u8]) {
        let saved = saved.iter().copied().chain(core::iter::repeat(0));
        for ((byte, mask), new) in self.bytes.iter_mut().zip(&self.writable).zip(saved) {
            *byte = (*byte & !mask) | (new & mask);
        }
    }
}
