//! Whether vector and x87 instructions may run now, in the manual's order: #UD, then #NM, then
//! #MF (SDM vol. 3A §2.5 table 2-2, §13.1; vol. 2A §2.4).

use kasane_cpu::paging::Access;
use kasane_cpu::{Activity, VectorState};
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

    /// Reports an unmasked exception that is pending, by #MF or, with CR0.NE clear, as PCs of old
    /// did (SDM vol. 1 §8.7).
    pub(super) fn check_pending(&mut self) -> Result<(), Stop> {
        let native = self.state.cr0 & cr0::NE != 0;
        match (pending(&self.state.vector), native) {
            (false, true) => Ok(()),
            (true, true) => Err(self.raise(vector::MF, None)),
            (error, false) => self.external_error(error),
        }
    }

    /// CR0.NE is clear: FERR# tells of the error, and unless IGNNE# lets it pass, the processor
    /// stands before the instruction until an interrupt comes. That is what HLT does, with RIP
    /// where it is.
    #[cold]
    fn external_error(&mut self, error: bool) -> Result<(), Stop> {
        self.mailbox.set_ferr(error);
        if !error || self.mailbox.ignne() {
            return Ok(());
        }
        self.next_rip = self.state.rip;
        self.state.activity = Activity::Halted;
        self.attention = true;
        Err(Stop::Break)
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

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicU32, Ordering};

    use kasane_cpu::{Entry, Exit, Vcpu};
    use kasane_ports::{IrqLine, Level};

    use super::*;
    use crate::testing::{CODE, TestCpu};

    /// Counts how often the wire went up, and how often down in the upper half.
    #[derive(Default)]
    struct Wire(AtomicU32);

    impl IrqLine for Wire {
        fn set(&self, level: Level) {
            self.0.fetch_add(if level.is_high() { 1 } else { 0x1_0000 }, Ordering::Relaxed);
        }
    }

    /// WAIT, then HLT, with an error pending and CR0.NE clear.
    fn with_error() -> (TestCpu, Arc<Wire>) {
        let mut it = TestCpu::code32(&[0x9B, 0xF4]);
        it.cpu.state.cr0 &= !cr0::NE;
        it.cpu.state.vector.set_fcw(0x37E);
        it.cpu.state.vector.set_fsw(0x8081);
        let wire = Arc::new(Wire::default());
        it.apics.set_ferr_line(Some(wire.clone()));
        (it, wire)
    }

    #[test]
    fn an_error_without_native_reporting_drives_ferr_and_waits_before_the_instruction() {
        let (it, wire) = with_error();
        let mut vcpu = it.vcpu();

        let exits = [vcpu.run(Entry::Resume).unwrap(), vcpu.run(Entry::Resume).unwrap()];

        assert_eq!((exits, vcpu.cpu.state.rip), ([Exit::Halt; 2], CODE));
        assert_eq!(wire.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn ignne_lets_the_instruction_pass() {
        let (it, wire) = with_error();
        it.apics.set_ignne(Level::High);
        let mut vcpu = it.vcpu();

        let exit = vcpu.run(Entry::Resume).unwrap();

        assert_eq!((exit, vcpu.cpu.state.rip), (Exit::Halt, CODE + 2));
        assert_eq!(wire.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn ferr_goes_down_when_the_error_is_gone() {
        let (it, wire) = with_error();
        let mut vcpu = it.vcpu();
        vcpu.run(Entry::Resume).unwrap();

        vcpu.cpu.state.vector.set_fsw(0);
        vcpu.cpu.state.activity = Activity::Running;
        vcpu.run(Entry::Resume).unwrap();

        assert_eq!(vcpu.cpu.state.rip, CODE + 2);
        assert_eq!(wire.0.load(Ordering::Relaxed), 0x1_0001);
    }
}
