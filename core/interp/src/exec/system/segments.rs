//! Segment registers as operands: MOV, PUSH, POP, LDS and its like (SDM vol. 2 "MOV", "LDS").

use iced_x86::{Mnemonic, OpKind, Register};
use kasane_cpu::Seg;

use super::descriptor::{Blame, is_null, null_stack, rpl};
use crate::cpu::{Cpu, Shadow, Stop};
use crate::op::{Op, register_slot, segment};

impl Cpu {
    /// Loads DS, ES, FS, GS or SS in any mode, with all checks.
    pub(crate) fn load_segment(&mut self, seg: Seg, selector: u16) -> Result<(), Stop> {
        let register = if !self.protected() || self.v86() {
            self.real_segment(seg, selector)
        } else if seg == Seg::Ss {
            let cpl = self.cpl();
            if is_null(selector) && self.code64() && cpl != 3 && rpl(selector) == cpl {
                null_stack(selector, cpl)
            } else {
                self.load_stack(selector, cpl, Blame::PROGRAM)?
            }
        } else {
            self.load_data(selector, Blame::PROGRAM)?
        };
        *self.state.seg_mut(seg) = register;
        self.refresh_mode();
        Ok(())
    }
}

/// A 16-bit register or memory operand.
pub(super) fn read_rm16(cpu: &mut Cpu, op: &Op, operand: u32) -> Result<u16, Stop> {
    if op.instr.op_kind(operand) == OpKind::Register {
        return Ok(cpu.get(register_slot(op.instr.op_register(operand))));
    }
    cpu.read(op.mem.seg, cpu.ea(op))
}

/// Writes a value to operand 0: a register of any size (zero-extended), or 16 bits of memory.
pub(super) fn write_rm16(cpu: &mut Cpu, op: &Op, value: u64) -> Result<(), Stop> {
    if op.instr.op0_kind() == OpKind::Register {
        let register = op.instr.op0_register();
        write_register(cpu, register, value);
        return Ok(());
    }
    cpu.write(op.mem.seg, cpu.ea(op), value as u16)
}

/// Writes a general register by its size.
pub(super) fn write_register(cpu: &mut Cpu, register: Register, value: u64) {
    let slot = register_slot(register);
    match register.size() {
        2 => cpu.set(slot, value as u16),
        4 => cpu.set(slot, value as u32),
        _ => cpu.set(slot, value),
    }
}

/// MOV Sreg, r/m.
pub(super) fn mov_to(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let seg = segment(op.instr.op0_register());
    if seg == Seg::Cs {
        return Err(cpu.ud());
    }
    let selector = read_rm16(cpu, op, 1)?;
    cpu.load_segment(seg, selector)?;
    if seg == Seg::Ss {
        cpu.shadow = Shadow::MovSs;
        return Err(Stop::Break);
    }
    Ok(())
}

/// MOV r/m, Sreg.
pub(super) fn mov_from(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let selector = cpu.seg(segment(op.instr.op1_register())).selector;
    write_rm16(cpu, op, u64::from(selector))
}

/// PUSH Sreg: zero-extended to the operand size.
pub(super) fn push(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let selector = cpu.seg(segment(op.instr.op0_register())).selector;
    match op.instr.stack_pointer_increment() {
        -2 => cpu.push(selector),
        // A 16-bit move (SDM vol. 2, PUSH): the upper half of the place stays.
        -4 => {
            let sp = cpu.stack_pointer().wrapping_sub(4) & cpu.mode.stack_mask;
            cpu.write(Seg::Ss, sp, selector)?;
            cpu.set_stack_pointer(sp);
            Ok(())
        }
        _ => cpu.push(u64::from(selector)),
    }
}

/// POP Sreg.
pub(super) fn pop(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let seg = segment(op.instr.op0_register());
    let bytes = op.instr.stack_pointer_increment();
    let selector = match bytes {
        2 => cpu.peek::<u16>(0)?,
        4 => cpu.peek::<u32>(0)? as u16,
        _ => cpu.peek::<u64>(0)? as u16,
    };
    let sp = cpu.stack_pointer().wrapping_add(bytes as u64);
    let mask = cpu.mode.stack_mask;
    cpu.load_segment(seg, selector)?;
    // In the width of the stack that was popped from, also when SS is what was loaded.
    cpu.set_masked(kasane_cpu::Gpr::Rsp, mask, sp);
    if seg == Seg::Ss {
        cpu.shadow = Shadow::MovSs;
        return Err(Stop::Break);
    }
    Ok(())
}

/// LDS, LES, LFS, LGS, LSS.
pub(super) fn load_far(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let seg = match op.instr.mnemonic() {
        Mnemonic::Les => Seg::Es,
        Mnemonic::Lss => Seg::Ss,
        Mnemonic::Lfs => Seg::Fs,
        Mnemonic::Lgs => Seg::Gs,
        _ => Seg::Ds,
    };
    let register = op.instr.op0_register();
    let (from, at) = (op.mem.seg, cpu.ea(op));
    let bytes = register.size() as u64;
    let offset = match bytes {
        2 => u64::from(cpu.read::<u16>(from, at)?),
        4 => u64::from(cpu.read::<u32>(from, at)?),
        _ => cpu.read::<u64>(from, at)?,
    };
    let selector = cpu.read::<u16>(from, at.wrapping_add(bytes) & op.mem.mask)?;
    cpu.load_segment(seg, selector)?;
    write_register(cpu, register, offset);
    Err(Stop::Break)
}
