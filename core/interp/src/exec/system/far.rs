//! Far JMP, CALL and RET (SDM vol. 3A §5.8; vol. 2A "CALL", "JMP"; vol. 2B "RET").

use iced_x86::Code;
use kasane_cpu::{Gpr, Seg, SegmentRegister};
use kasane_spec_x86::descriptor::system;
use kasane_spec_x86::vector;

use super::descriptor::{Blame, Descriptor, is_null, null_stack, rpl, selector_error};
use super::structures::{Stack, Width};
use super::task::Cause;
use crate::cpu::{Cpu, Stop};
use crate::op::Op;

/// Where a far transfer goes.
#[derive(Clone, Copy, Debug)]
struct Target {
    selector: u16,
    offset: u64,
    width: Width,
}

fn target(cpu: &mut Cpu, op: &Op) -> Result<Target, Stop> {
    let width = match op.instr.code() {
        Code::Jmp_ptr1616 | Code::Call_ptr1616 | Code::Jmp_m1616 | Code::Call_m1616 => Width::W16,
        Code::Jmp_m1664 | Code::Call_m1664 => Width::W64,
        _ => Width::W32,
    };
    match op.instr.code() {
        Code::Jmp_ptr1616 | Code::Call_ptr1616 => {
            let offset = u64::from(op.instr.far_branch16());
            return Ok(Target { selector: op.instr.far_branch_selector(), offset, width });
        }
        Code::Jmp_ptr1632 | Code::Call_ptr1632 => {
            let offset = u64::from(op.instr.far_branch32());
            return Ok(Target { selector: op.instr.far_branch_selector(), offset, width });
        }
        _ => {}
    }
    let (seg, at) = (op.mem.seg, cpu.ea(op));
    let offset = match width {
        Width::W16 => u64::from(cpu.read::<u16>(seg, at)?),
        Width::W32 => u64::from(cpu.read::<u32>(seg, at)?),
        Width::W64 => cpu.read::<u64>(seg, at)?,
    };
    let selector = cpu.read::<u16>(seg, at.wrapping_add(width.bytes()) & op.mem.mask)?;
    Ok(Target { selector, offset, width })
}

/// JMP far.
pub(super) fn jump(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)?;
    cpu.far_transfer(&target, Cause::Jump)?;
    Err(Stop::Break)
}

/// CALL far.
pub(super) fn call(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)?;
    cpu.far_transfer(&target, Cause::Call)?;
    Err(Stop::Break)
}

/// RET far, with the bytes to drop in the immediate.
pub(super) fn ret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let width = match op.instr.code() {
        Code::Retfw | Code::Retfw_imm16 => Width::W16,
        Code::Retfq | Code::Retfq_imm16 => Width::W64,
        _ => Width::W32,
    };
    let drop = match op.instr.code() {
        Code::Retfw_imm16 | Code::Retfd_imm16 | Code::Retfq_imm16 => {
            u64::from(op.instr.immediate16())
        }
        _ => 0,
    };
    cpu.far_return(width, drop)?;
    Err(Stop::Break)
}

impl Cpu {
    fn push_return(&mut self, stack: &mut Stack, width: Width) -> Result<(), Stop> {
        stack.push(self, width, u64::from(self.state.cs.selector))?;
        stack.push(self, width, self.next_rip)
    }

    fn far_transfer(&mut self, to: &Target, cause: Cause) -> Result<(), Stop> {
        if !self.protected() || self.v86() {
            return self.far_real(to, cause);
        }
        if is_null(to.selector) {
            return Err(self.gp(0));
        }
        let Some(d) = self.descriptor(to.selector)? else {
            return Err(self.blame(Blame::PROGRAM, to.selector));
        };
        if d.is_segment() {
            return self.far_direct(to, &d, cause);
        }
        let long = self.long_mode();
        match d.kind() {
            system::CALL_GATE32 => self.far_gate(to.selector, d, cause),
            system::CALL_GATE16 if !long => self.far_gate(to.selector, d, cause),
            system::TASK_GATE
            | system::TSS16_AVAILABLE
            | system::TSS32_AVAILABLE
            | system::TSS16_BUSY
            | system::TSS32_BUSY
                if !long =>
            {
                self.far_task(to.selector, &d, cause)
            }
            _ => Err(self.blame(Blame::PROGRAM, to.selector)),
        }
    }

    fn far_real(&mut self, to: &Target, cause: Cause) -> Result<(), Stop> {
        let cs = self.real_segment(Seg::Cs, to.selector);
        if to.offset > u64::from(cs.limit) {
            return Err(self.gp(0));
        }
        if cause == Cause::Call {
            let mut stack = Stack::program(self);
            self.push_return(&mut stack, to.width)?;
            stack.commit(self);
        }
        self.enter_code(cs, to.offset);
        Ok(())
    }

    fn far_direct(&mut self, to: &Target, d: &Descriptor, cause: Cause) -> Result<(), Stop> {
        let cpl = self.cpl();
        let allowed =
            if d.conforming() { d.dpl() <= cpl } else { rpl(to.selector) <= cpl && d.dpl() == cpl };
        self.check_code(to.selector, d, allowed, Blame::PROGRAM)?;
        let cs = self.code_register(to.selector, d, cpl)?;
        let mut stack = Stack::program(self);
        if cause == Cause::Call {
            self.push_return(&mut stack, to.width)?;
        }
        self.check_target(&cs, to.offset, 0)?;
        if cause == Cause::Call {
            stack.commit(self);
        }
        self.enter_code(cs, to.offset);
        Ok(())
    }

    /// Through a call gate: 16- or 32-bit, or 64-bit in long mode.
    fn far_gate(&mut self, selector: u16, gate: Descriptor, cause: Cause) -> Result<(), Stop> {
        let cpl = self.cpl();
        if gate.dpl() < cpl.max(rpl(selector)) {
            return Err(self.blame(Blame::PROGRAM, selector));
        }
        let Some(gate) = self.widen_descriptor(selector, gate)? else {
            return Err(self.blame(Blame::PROGRAM, selector));
        };
        if !gate.present() {
            return Err(self.np(selector_error(selector, 0)));
        }
        let code = gate.gate_selector();
        if is_null(code) {
            return Err(self.gp(0));
        }
        let Some(d) = self.descriptor(code)? else {
            return Err(self.blame(Blame::PROGRAM, code));
        };
        let exact = cause == Cause::Jump && !d.conforming();
        let allowed = if exact { d.dpl() == cpl } else { d.dpl() <= cpl };
        let long = self.long_mode();
        self.check_code(code, &d, allowed && (!long || d.is_code64()), Blame::PROGRAM)?;
        let offset = gate.gate_offset();
        let width = if long { Width::W64 } else { gate.gate_width() };
        let inner = cause == Cause::Call && !d.conforming() && d.dpl() < cpl;
        let new_cpl = if inner { d.dpl() } else { cpl };
        let cs = self.code_register(code, &d, new_cpl)?;
        if inner {
            return self.call_inner(&gate, &cs, width);
        }
        let mut stack = Stack::program(self);
        if cause == Cause::Call {
            self.push_return(&mut stack, width)?;
        }
        self.check_target(&cs, offset, 0)?;
        if cause == Cause::Call {
            stack.commit(self);
        }
        self.enter_code(cs, offset);
        Ok(())
    }

    fn call_inner(
        &mut self,
        gate: &Descriptor,
        cs: &SegmentRegister,
        width: Width,
    ) -> Result<(), Stop> {
        let cpl = rpl(cs.selector);
        let (ss, mut stack) = if width == Width::W64 {
            let rsp = self.tss_rsp(4 + 8 * u64::from(cpl), 0)?;
            (null_stack(u16::from(cpl), cpl), Stack::long(self, rsp, cpl, 0))
        } else {
            self.inner_stack(cpl, 0)?
        };
        stack.push(self, width, u64::from(self.state.ss.selector))?;
        let old_sp = self.reg(Gpr::Rsp);
        stack.push(self, width, old_sp)?;
        if width != Width::W64 {
            self.copy_parameters(&mut stack, gate.gate_parameters(), width)?;
        }
        self.push_return(&mut stack, width)?;
        self.check_target(cs, gate.gate_offset(), 0)?;
        self.state.ss = ss;
        stack.commit(self);
        self.enter_code(*cs, gate.gate_offset());
        Ok(())
    }

    fn copy_parameters(&mut self, stack: &mut Stack, count: u64, width: Width) -> Result<(), Stop> {
        for n in (0..count).rev() {
            let mut old = Stack::program(self);
            old.skip(n * width.bytes());
            let value = old.pop(self, width)?;
            stack.push(self, width, value)?;
        }
        Ok(())
    }

    /// The stack of an inner ring, from the TSS.
    pub(crate) fn inner_stack(
        &mut self,
        cpl: u8,
        ext: u32,
    ) -> Result<(SegmentRegister, Stack), Stop> {
        let (selector, sp) = self.tss_stack(cpl, ext)?;
        let ss = self.load_stack(selector, cpl, Blame { vector: vector::TS, ext })?;
        let error = selector_error(selector, ext);
        let stack = Stack::legacy(self, ss, sp, error);
        Ok((ss, stack))
    }

    fn far_return(&mut self, width: Width, drop: u64) -> Result<(), Stop> {
        let mut stack = Stack::program(self);
        let rip = stack.pop(self, width)?;
        let selector = stack.pop(self, width)? as u16;
        if !self.protected() || self.v86() {
            let cs = self.real_segment(Seg::Cs, selector);
            if rip > u64::from(cs.limit) {
                return Err(self.gp(0));
            }
            stack.skip(drop);
            stack.commit(self);
            self.enter_code(cs, rip);
            return Ok(());
        }
        let cs = self.return_code(selector)?;
        stack.skip(drop);
        if rpl(selector) == self.cpl() {
            self.check_target(&cs, rip, 0)?;
            stack.commit(self);
            self.enter_code(cs, rip);
            return Ok(());
        }
        let sp = stack.pop(self, width)?;
        let ss_selector = stack.pop(self, width)? as u16;
        let ss = self.return_stack(ss_selector, &cs)?;
        self.check_target(&cs, rip, 0)?;
        self.leave_ring(cs, rip, ss, sp);
        // The parameters are on the outer stack too (in its own width).
        let sp = self.stack_pointer().wrapping_add(drop);
        self.set_stack_pointer(sp);
        Ok(())
    }

    /// The checked code segment that RET or IRET goes back to.
    pub(super) fn return_code(&mut self, selector: u16) -> Result<SegmentRegister, Stop> {
        if is_null(selector) {
            return Err(self.gp(0));
        }
        let Some(d) = self.descriptor(selector)? else {
            return Err(self.blame(Blame::PROGRAM, selector));
        };
        let cpl = rpl(selector);
        let fits = if d.conforming() { d.dpl() <= cpl } else { d.dpl() == cpl };
        self.check_code(selector, &d, fits && cpl >= self.cpl(), Blame::PROGRAM)?;
        self.code_register(selector, &d, cpl)
    }

    /// The checked stack segment that RET or IRET goes back to, for code `cs`.
    pub(super) fn return_stack(
        &mut self,
        selector: u16,
        cs: &SegmentRegister,
    ) -> Result<SegmentRegister, Stop> {
        let cpl = rpl(cs.selector);
        if is_null(selector) {
            // A null SS is good for 64-bit code outside of ring 3, with the right RPL.
            if self.long_mode() && cs.long() && cpl != 3 && rpl(selector) == cpl {
                return Ok(null_stack(selector, cpl));
            }
            return Err(self.gp(0));
        }
        self.load_stack(selector, cpl, Blame::PROGRAM)
    }

    /// Goes to code of the same or an outer ring on another stack.
    pub(super) fn leave_ring(
        &mut self,
        cs: SegmentRegister,
        rip: u64,
        ss: SegmentRegister,
        sp: u64,
    ) {
        let cpl = rpl(cs.selector);
        let outer = cpl > self.cpl();
        self.state.ss = ss;
        self.enter_code(cs, rip);
        self.set_stack_pointer(sp);
        if outer {
            self.drop_inner_segments(cpl);
            self.refresh_mode();
        }
    }
}
