//! x87, MMX, SSE and AVX registers.
//!
//! The x87 part and MXCSR are kept as the head of an FXSAVE image (SDM vol. 1 §10.5.1), so that
//! `core/passthrough` can load them with one instruction. The XMM/YMM registers are kept whole in
//! [`VectorState::ymm`]; the XMM fields inside [`VectorState::fx`] mean nothing.

/// An FXSAVE image in its 64-bit form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct FxArea(pub [u8; 512]);

/// Vector and floating-point registers. `repr(C)`: translated and passed-through code uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct VectorState {
    /// FCW at 0, FSW at 2, abridged FTW at 4, FOP at 6, FIP at 8 (64 bits), FDP at 16 (64 bits),
    /// MXCSR at 24, ST0..ST7 at 32 in steps of 16. With the legacy CS/DS selectors kept in
    /// [`VectorState::fcs`] and [`VectorState::fds`].
    pub fx: FxArea,
    /// YMM0..15; XMM is the low half.
    pub ymm: [[u64; 4]; 16],
    /// Code selector of the last x87 instruction.
    pub fcs: u16,
    /// Data selector of the last x87 operand.
    pub fds: u16,
}

impl Default for VectorState {
    /// The state after RESET is that of FNINIT but FCW 0x0040, tags "zero"; INIT leaves it alone.
    /// Here it is that of FNINIT, which is what every guest sets up first, with MXCSR 0x1F80.
    fn default() -> Self {
        let mut state = Self { fx: FxArea([0; 512]), ymm: [[0; 4]; 16], fcs: 0, fds: 0 };
        state.set_fcw(0x037F);
        state.set_mxcsr(0x1F80);
        state
    }
}

impl VectorState {
    /// Reads `N` bytes of the FXSAVE image at a constant offset.
    fn bytes<const AT: usize, const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        if let Some(src) = self.fx.0.get(AT..AT.wrapping_add(N)) {
            out.copy_from_slice(src);
        }
        out
    }
    /// Writes `N` bytes of the FXSAVE image at a constant offset.
    fn set_bytes<const AT: usize, const N: usize>(&mut self, value: [u8; N]) {
        if let Some(dst) = self.fx.0.get_mut(AT..AT.wrapping_add(N)) {
            dst.copy_from_slice(&value);
        }
    }
    /// x87 control word.
    #[must_use]
    pub fn fcw(&self) -> u16 {
        u16::from_le_bytes(self.bytes::<0, 2>())
    }
    /// Sets the x87 control word.
    pub fn set_fcw(&mut self, value: u16) {
        self.set_bytes::<0, 2>(value.to_le_bytes());
    }
    /// x87 status word.
    #[must_use]
    pub fn fsw(&self) -> u16 {
        u16::from_le_bytes(self.bytes::<2, 2>())
    }
    /// Sets the x87 status word.
    pub fn set_fsw(&mut self, value: u16) {
        self.set_bytes::<2, 2>(value.to_le_bytes());
    }
    /// Abridged tag word: bit set = not empty, by physical register.
    #[must_use]
    pub fn ftw(&self) -> u8 {
        self.bytes::<4, 1>()[0]
    }
    /// Sets the abridged tag word.
    pub fn set_ftw(&mut self, value: u8) {
        self.set_bytes::<4, 1>([value]);
    }
    /// Last x87 opcode, 11 bits.
    #[must_use]
    pub fn fop(&self) -> u16 {
        u16::from_le_bytes(self.bytes::<6, 2>())
    }
    /// Sets the last x87 opcode.
    pub fn set_fop(&mut self, value: u16) {
        self.set_bytes::<6, 2>(value.to_le_bytes());
    }
    /// Last x87 instruction pointer.
    #[must_use]
    pub fn fip(&self) -> u64 {
        u64::from_le_bytes(self.bytes::<8, 8>())
    }
    /// Sets the last x87 instruction pointer.
    pub fn set_fip(&mut self, value: u64) {
        self.set_bytes::<8, 8>(value.to_le_bytes());
    }
    /// Last x87 data pointer.
    #[must_use]
    pub fn fdp(&self) -> u64 {
        u64::from_le_bytes(self.bytes::<16, 8>())
    }
    /// Sets the last x87 data pointer.
    pub fn set_fdp(&mut self, value: u64) {
        self.set_bytes::<16, 8>(value.to_le_bytes());
    }
    /// MXCSR.
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.bytes::<24, 4>())
    }
    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.set_bytes::<24, 4>(value.to_le_bytes());
    }
    /// The 80 bits of `ST(index)`, index taken modulo 8.
    #[must_use]
    pub fn st(&self, index: u8) -> [u8; 10] {
        let at = 32 + usize::from(index & 7) * 16;
        let mut out = [0; 10];
        if let Some(src) = self.fx.0.get(at..at + 10) {
            out.copy_from_slice(src);
        }
        out
    }
    /// Sets the 80 bits of `ST(index)`; tags are not touched.
    pub fn set_st(&mut self, index: u8, value: [u8; 10]) {
        let at = 32 + usize::from(index & 7) * 16;
        if let Some(dst) = self.fx.0.get_mut(at..at + 10) {
            dst.copy_from_slice(&value);
        }
    }
    /// `YMMn`, n taken modulo 16.
    #[must_use]
    pub fn ymm(&self, n: u8) -> [u64; 4] {
        self.ymm.get(usize::from(n & 15)).copied().unwrap_or_default()
    }
    /// Sets `YMMn`.
    pub fn set_ymm(&mut self, n: u8, value: [u64; 4]) {
        if let Some(r) = self.ymm.get_mut(usize::from(n & 15)) {
            *r = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_words_live_at_the_fxsave_offsets() {
        let mut v = VectorState::default();
        v.set_fsw(0x1234);
        v.set_fip(0x1122_3344_5566_7788);
        assert_eq!(v.fx.0[0..4], [0x7F, 0x03, 0x34, 0x12]);
        assert_eq!(v.fx.0[8], 0x88);
        assert_eq!(v.mxcsr(), 0x1F80);
    }
}
