//! IRET in every form (SDM vol. 2A "IRET").

use iced_x86::Code;
use kasane_cpu::{Gpr, Seg};
use kasane_spec_x86::control::cr4;
use kasane_spec_x86::flags;

use super::descriptor::{rpl, v86_segment};
use super::structures::{Stack, Width};
use crate::cpu::{Cpu, Stop};
use crate::op::Op;

/// Flags that any IRET loads, as far as its width reaches.
const ALWAYS: u64 =
    flags::ARITHMETIC | flags::TF | flags::DF | flags::NT | flags::RF | flags::AC | flags::ID;

/// IRET, IRETD, IRETQ.
pub(super) fn iret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    Cpu::serialize();
    let width = match op.instr.code() {
        Code::Iretw => Width::W16,
        Code::Iretq => Width::W64,
        _ => Width::W32,
    };
    let result = cpu.interrupt_return(width);
    if result == Err(Stop::Exit) {
        return result;
    }
    // NMIs are unblocked even if IRET faults (SDM vol. 3A §6.7.1).
    if cpu.state.nmi_blocked {
        cpu.state.nmi_blocked = false;
        cpu.attention |= cpu.state.nmi_pending;
    }
    result?;
    cpu.suppress_rf_clear = true;
    Err(Stop::Break)
}

impl Cpu {
    fn interrupt_return(&mut self, width: Width) -> Result<(), Stop> {
        if !self.protected() {
            return self.iret_real(width, flags::IOPL | flags::IF);
        }
        if self.v86() {
            return self.iret_v86(width);
        }
        if self.flag(flags::NT) {
            if self.long_mode() {
                return Err(self.gp(0));
            }
            return self.return_to_linked_task();
        }
        self.iret_protected(width)
    }

    fn load_flags(&mut self, width: Width, image: u64, also: u64) {
        let mask = (ALWAYS | also) & width.mask();
        self.set_flags(mask, image);
    }

    /// Real mode, and virtual-8086 mode with IOPL 3.
    fn iret_real(&mut self, width: Width, also: u64) -> Result<(), Stop> {
        let mut stack = Stack::program(self);
        let rip = stack.pop(self, width)?;
        let selector = stack.pop(self, width)? as u16;
        let image = stack.pop(self, width)?;
        let cs = self.real_segment(Seg::Cs, selector);
        if rip > u64::from(cs.limit) {
            return Err(self.gp(0));
        }
        stack.commit(self);
        self.load_flags(width, image, also);
        self.enter_code(cs, rip);
        Ok(())
    }

    fn iret_v86(&mut self, width: Width) -> Result<(), Stop> {
        if self.state.rflags & flags::IOPL == flags::IOPL {
            return self.iret_real(width, flags::IF);
        }
        if !self.cr4(cr4::VME) || width != Width::W16 {
            return Err(self.gp(0));
        }
        // VME: IF goes to VIF.
        let mut stack = Stack::program(self);
        let rip = stack.pop(self, width)?;
        let selector = stack.pop(self, width)? as u16;
        let image = stack.pop(self, width)?;
        let wants_interrupts = image & flags::IF != 0;
        let cs = self.real_segment(Seg::Cs, selector);
        let pending = wants_interrupts && self.flag(flags::VIP);
        if image & flags::TF != 0 || pending || rip > u64::from(cs.limit) {
            return Err(self.gp(0));
        }
        stack.commit(self);
        self.load_flags(width, image, 0);
        self.set_flags(flags::VIF, if wants_interrupts { flags::VIF } else { 0 });
        self.enter_code(cs, rip);
        Ok(())
    }

    fn iret_protected(&mut self, width: Width) -> Result<(), Stop> {
        let mut stack = Stack::program(self);
        let rip = stack.pop(self, width)?;
        let selector = stack.pop(self, width)? as u16;
        let image = stack.pop(self, width)?;
        let cpl = self.cpl();
        let to_v86 = image & flags::VM != 0 && width == Width::W32;
        if to_v86 && cpl == 0 && !self.long_mode() {
            return self.iret_to_v86(stack, rip, selector, image);
        }
        let cs = self.return_code(selector)?;
        let mut also = 0;
        if cpl == 0 {
            also |= flags::IOPL | flags::VIF | flags::VIP;
        }
        if u64::from(cpl) <= (self.state.rflags & flags::IOPL) >> flags::IOPL_SHIFT {
            also |= flags::IF;
        }
        // 64-bit code always gets its stack back; legacy code only from an inner ring.
        if rpl(selector) == cpl && !self.code64() {
            self.check_target(&cs, rip, 0)?;
            stack.commit(self);
            self.load_flags(width, image, also);
            self.enter_code(cs, rip);
            return Ok(());
        }
        let sp = stack.pop(self, width)?;
        let ss_selector = stack.pop(self, width)? as u16;
        let ss = self.return_stack(ss_selector, &cs)?;
        self.check_target(&cs, rip, 0)?;
        self.load_flags(width, image, also);
        self.leave_ring(cs, rip, ss, sp);
        Ok(())
    }

    fn iret_to_v86(
        &mut self,
        mut stack: Stack,
        rip: u64,
        selector: u16,
        image: u64,
    ) -> Result<(), Stop> {
        let esp = stack.pop(self, Width::W32)?;
        let mut selectors = [0u16; 5];
        for slot in &mut selectors {
            *slot = stack.pop(self, Width::W32)? as u16;
        }
        if rip > 0xFFFF {
            return Err(self.gp(0));
        }
        let all = ALWAYS | flags::IOPL | flags::IF | flags::VM | flags::VIF | flags::VIP;
        self.set_flags(all, image);
        for (seg, selector) in [Seg::Ss, Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].iter().zip(selectors) {
            *self.state.seg_mut(*seg) = v86_segment(selector);
        }
        self.set_reg(Gpr::Rsp, esp);
        self.enter_code(v86_segment(selector), rip);
        Ok(())
    }
}
