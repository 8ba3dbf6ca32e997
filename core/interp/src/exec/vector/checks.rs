//! Whether vector and x87 instructions may run now, in the manual's order: #UD, then #NM, then
//! #MF (SDM vol. 3A §2.5 table 2-2, §13.1; vol. 2A §2.4).

use kasane_cpu::VectorState;
use kasane_cpu::paging::Access;
use kasane_spec_x86::control::{cr0, cr4, xcr0};
use kasane_spec_x86::vector;

use crate::cpu::{Cpu, Stop};
use crate::op::Op;

/// Exception flags and masks of the x87 words.
const EXCEPTIONS: u16 = 0x3F;
/// FSW: error summary and busy.
const SUMMARY: u16 = 0x8080;

/// Whether an unmasked x87 exception waits for the next waiting instruction.
pub(super) fn pending(v: &VectorState) -> bool {
    v.fsw() & !v.fcw() & EXCEPTIONS != 0
}

/// Brings FSW.ES and FSW.B in line with flags and masks, as hardware does on each load of FCW or
/// FSW.
pub(super) fn summarize(v: &mut VectorState) {
    let fsw = v.fsw() & !SUMMARY;
    v.set_fsw(if pending(v) { fsw | SUMMARY } else { fsw });
}

impl Cpu {
    /// Legacy-encoded instructions on XMM registers.
    #[inline(always)]
    pub(super) fn check_sse(&mut self) -> Result<(), Stop> {
        let s = &self.state;
        if s.cr0 & (cr0::EM | cr0::TS) == 0 && s.cr4 & cr4::OSFXSR != 0 {
            return Ok(());
        }
        if s.cr0 & cr0::EM != 0 || s.cr4 & cr4::OSFXSR == 0 {
            Err(self.ud())
        } else {
            Err(self.nm())
        }
    }

    /// VEX-encoded instructions on vector registers.
    #[inline(always)]
    pub(super) fn check_avx(&mut self) -> Result<(), Stop> {
        const ENABLED: u64 = xcr0::SSE | xcr0::AVX;
        let there = self.protected()
            && !self.v86()
            && self.cr4(cr4::OSXSAVE)
            && self.state.xcr0 & ENABLED == ENABLED;
        if !there {
            return Err(self.ud());
        }
        if self.state.cr0 & cr0::TS != 0 { Err(self.nm()) } else { Ok(()) }
    }

    /// Instructions on MMX registers; `xmm`: also on XMM registers.
    pub(super) fn check_mmx(&mut self, xmm: bool) -> Result<(), Stop> {
        if self.state.cr0 & cr0::EM != 0 || (xmm && !self.cr4(cr4::OSFXSR)) {
            return Err(self.ud());
        }
        if self.state.cr0 & cr0::TS != 0 {
            return Err(self.nm());
        }
        self.check_pending()
    }

    /// x87 instructions that don't wait for pending exceptions.
    pub(super) fn check_x87(&mut self) -> Result<(), Stop> {
        if self.state.cr0 & (cr0::EM | cr0::TS) != 0 { Err(self.nm()) } else { Ok(()) }
    }

    /// #MF if an unmasked exception is pending. With CR0.NE clear a processor signals FERR# and
    /// waits for the interrupt that a PC's glue makes of it; we have no such wire and raise #MF.
    pub(super) fn check_pending(&mut self) -> Result<(), Stop> {
        if pending(&self.state.vector) { Err(self.raise(vector::MF, None)) } else { Ok(()) }
    }

    /// #XM, or #UD where the operating system doesn't know it.
    #[cold]
    pub(super) fn xm(&mut self) -> Stop {
        if self.cr4(cr4::OSXMMEXCPT) { self.raise(vector::XM, None) } else { self.ud() }
    }

    /// #GP(0) if the operand at offset `ea` is not aligned to `alignment`, a power of two.
    #[inline(always)]
    pub(super) fn check_aligned(&mut self, op: &Op, ea: u64, alignment: u64) -> Result<(), Stop> {
        let base = self.mode.base.get(op.mem.seg as usize).copied().unwrap_or(0);
        let va = base.wrapping_add(ea) & self.mode.linear_mask;
        if va & alignment.wrapping_sub(1) == 0 {
            return Ok(());
        }
        self.misaligned(op, ea, alignment)
    }

    /// The segment's own fault comes first, but not that of an address that is not canonical.
    #[cold]
    fn misaligned(&mut self, op: &Op, ea: u64, len: u64) -> Result<(), Stop> {
        self.linear(op.mem.seg, ea, len, Access::Read)?;
        Err(self.gp(0))
    }
}
