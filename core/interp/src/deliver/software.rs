//! INT n, INT3, INTO and INT1 (SDM vol. 2A "INT n").

use kasane_spec_x86::control::{cr4, dr6};
use kasane_spec_x86::flags;

use super::{Event, Source};
use crate::cpu::{Cpu, Shadow, Stop};
use crate::exec::system::structures::Width;

impl Cpu {
    /// Delivers a software interrupt. It is done like a branch: RIP is the handler's.
    pub(crate) fn software_interrupt(&mut self, vector: u8, source: Source) -> Result<(), Stop> {
        let event =
            Event { vector, error: None, source, rip: self.next_rip, flags: self.state.rflags };
        if source == Source::Interrupt && self.v86() && self.redirect(&event)? {
            return self.software_done();
        }
        if source == Source::Icebp {
            self.state.dr6 |= dr6::FIXED;
        }
        self.enter(&event)?;
        self.software_done()
    }

    fn software_done(&mut self) -> Result<(), Stop> {
        self.shadow = Shadow::None;
        // TF was cleared on the way: no single-step trap after this instruction.
        self.step_override = Some(false);
        Err(Stop::Break)
    }

    /// INT n in virtual-8086 mode (SDM vol. 3A §20.3, table 20-2). True if it went to a real-mode
    /// handler.
    fn redirect(&mut self, event: &Event) -> Result<bool, Stop> {
        let trusted = self.state.rflags & flags::IOPL == flags::IOPL;
        let vme = self.cr4(cr4::VME);
        if !vme || self.redirection_bit(event.vector)? {
            return if trusted { Ok(false) } else { Err(self.gp(0)) };
        }
        let mut image = event.flags;
        if !trusted {
            let virtual_if = if image & flags::VIF != 0 { flags::IF } else { 0 };
            image = image & !flags::IF | virtual_if | flags::IOPL;
        }
        let entry = self.ivt_entry_v86(event.vector)?;
        self.enter_ivt(event, entry, image)?;
        let interrupts = if trusted { flags::IF } else { flags::VIF };
        self.set_flags(interrupts | flags::TF | flags::RF | flags::NT, 0);
        self.refresh_mode();
        Ok(true)
    }

    /// The bit of the software interrupt redirection map, which ends where the I/O map begins.
    fn redirection_bit(&mut self, vector: u8) -> Result<bool, Stop> {
        let tr = self.state.tr;
        if tr.kind() & 8 == 0 || tr.limit < 103 {
            return Err(self.gp(0));
        }
        let io_map: u16 = self.system_read(tr.base.wrapping_add(102))?;
        let at = u64::from(io_map).wrapping_sub(32).wrapping_add(u64::from(vector >> 3));
        if at > u64::from(tr.limit) {
            return Err(self.gp(0));
        }
        let byte: u8 = self.system_read(tr.base.wrapping_add(at))?;
        Ok(byte >> (vector & 7) & 1 != 0)
    }

    /// The inner stack pointer of a 64-bit TSS at byte `offset`: RSP0-2 or an IST entry.
    pub(crate) fn tss_rsp(&mut self, offset: u64, ext: u32) -> Result<u64, Stop> {
        let tr = self.state.tr;
        if offset.wrapping_add(7) > u64::from(tr.limit) {
            return Err(self.ts(u32::from(tr.selector & !3) | ext));
        }
        let rsp = self.system_read(tr.base.wrapping_add(offset))?;
        if Self::canonical(rsp) { Ok(rsp) } else { Err(self.ss(ext)) }
    }

    /// SS and stack pointer of ring `cpl` in a 16- or 32-bit TSS.
    pub(crate) fn tss_stack(&mut self, cpl: u8, ext: u32) -> Result<(u16, u64), Stop> {
        let tr = self.state.tr;
        let width = if tr.kind() & 8 != 0 { Width::W32 } else { Width::W16 };
        let step = width.bytes();
        let offset = step + 2 * step * u64::from(cpl);
        if offset + step + 1 > u64::from(tr.limit) {
            return Err(self.ts(u32::from(tr.selector & !3) | ext));
        }
        let at = tr.base.wrapping_add(offset);
        let sp = match width {
            Width::W16 => u64::from(self.system_read::<u16>(at)?),
            Width::W32 | Width::W64 => u64::from(self.system_read::<u32>(at)?),
        };
        let ss = self.system_read::<u16>(at.wrapping_add(step))?;
        Ok((ss, sp))
    }
}
