//! Descriptor-table registers and looks at descriptors: LGDT, SGDT, LLDT, LTR, LAR, LSL, VERR,
//! VERW, ARPL and their like (SDM vol. 2).

use iced_x86::{Code, Mnemonic};
use kasane_cpu::DescriptorTable;
use kasane_spec_x86::descriptor::system;
use kasane_spec_x86::flags;

use super::descriptor::{Blame, Descriptor, is_null, rpl, selector_error};
use super::segments::{read_rm16, write_register, write_rm16};
use crate::cpu::{Cpu, Stop};
use crate::op::{Op, register_slot};

impl Cpu {
    /// #GP(0) outside of ring 0.
    pub(super) fn need_ring0(&mut self) -> Result<(), Stop> {
        if self.cpl() == 0 { Ok(()) } else { Err(self.gp(0)) }
    }
    /// #UD in real and virtual-8086 mode.
    fn need_protected(&mut self) -> Result<(), Stop> {
        if self.protected() && !self.v86() { Ok(()) } else { Err(self.ud()) }
    }
    /// #GP(0) if UMIP forbids the instruction.
    fn need_no_umip(&mut self) -> Result<(), Stop> {
        if self.umip() { Err(self.gp(0)) } else { Ok(()) }
    }
}

/// SGDT, SIDT.
pub(super) fn store_table(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_no_umip()?;
    let global = op.instr.mnemonic() == Mnemonic::Sgdt;
    let table = if global { cpu.state.gdtr } else { cpu.state.idtr };
    let (seg, at) = (op.mem.seg, cpu.ea(op));
    let base_at = at.wrapping_add(2) & op.mem.mask;
    if matches!(op.instr.code(), Code::Sgdt_m1664 | Code::Sidt_m1664) {
        cpu.probe_write(seg, at, 10)?;
        cpu.write(seg, at, table.limit)?;
        cpu.write(seg, base_at, table.base)
    } else {
        cpu.probe_write(seg, at, 6)?;
        cpu.write(seg, at, table.limit)?;
        cpu.write(seg, base_at, table.base as u32)
    }
}

/// LGDT, LIDT.
pub(super) fn load_table(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    Cpu::serialize();
    let (seg, at) = (op.mem.seg, cpu.ea(op));
    let limit = cpu.read::<u16>(seg, at)?;
    let base_at = at.wrapping_add(2) & op.mem.mask;
    let base = match op.instr.code() {
        Code::Lgdt_m1664 | Code::Lidt_m1664 => cpu.read::<u64>(seg, base_at)?,
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => {
            u64::from(cpu.read::<u32>(seg, base_at)? & 0x00FF_FFFF)
        }
        _ => u64::from(cpu.read::<u32>(seg, base_at)?),
    };
    if !Cpu::canonical(base) {
        return Err(cpu.gp(0));
    }
    let table = DescriptorTable { base, limit };
    if op.instr.mnemonic() == Mnemonic::Lgdt {
        cpu.state.gdtr = table;
    } else {
        cpu.state.idtr = table;
    }
    Ok(())
}

/// SLDT, STR.
pub(super) fn store_selector(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    cpu.need_no_umip()?;
    let ldt = op.instr.mnemonic() == Mnemonic::Sldt;
    let selector = if ldt { cpu.state.ldtr.selector } else { cpu.state.tr.selector };
    write_rm16(cpu, op, u64::from(selector))
}

/// SMSW: 16 bits to memory, the whole CR0 to a 32- or 64-bit register.
pub(super) fn smsw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_no_umip()?;
    let cr0 = cpu.state.cr0;
    write_rm16(cpu, op, cr0)
}

/// LLDT.
pub(super) fn lldt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    cpu.need_ring0()?;
    Cpu::serialize();
    let selector = read_rm16(cpu, op, 0)?;
    let ldt = cpu.load_ldt(selector, Blame::PROGRAM)?;
    if !Cpu::canonical(ldt.base) {
        return Err(cpu.gp(selector_error(selector, 0)));
    }
    cpu.state.ldtr = ldt;
    Ok(())
}

/// LTR.
pub(super) fn ltr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    cpu.need_ring0()?;
    Cpu::serialize();
    let selector = read_rm16(cpu, op, 0)?;
    if is_null(selector) {
        return Err(cpu.gp(0));
    }
    let long = cpu.long_mode();
    let good = |d: &Descriptor| {
        let narrow = d.kind() == system::TSS16_AVAILABLE && !long;
        !d.is_segment() && (narrow || d.kind() == system::TSS32_AVAILABLE)
    };
    let found = if selector & 4 != 0 { None } else { cpu.descriptor(selector)? };
    let Some(d) = found.filter(good) else {
        return Err(cpu.gp(selector_error(selector, 0)));
    };
    if !d.present() {
        return Err(cpu.np(selector_error(selector, 0)));
    }
    let Some(d) = cpu.widen_descriptor(selector, d)?.filter(|d| Cpu::canonical(d.base())) else {
        return Err(cpu.gp(selector_error(selector, 0)));
    };
    cpu.mark_busy(d.address, true)?;
    cpu.state.tr = d.register(selector);
    cpu.state.tr.access |= 2;
    Ok(())
}

/// The descriptor that LAR, LSL, VERR or VERW looks at, if the program may see it. A conforming
/// code segment may be seen from any ring.
fn visible(cpu: &mut Cpu, selector: u16) -> Result<Option<Descriptor>, Stop> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(d) = cpu.descriptor(selector)? else { return Ok(None) };
    let anywhere = d.is_code() && d.conforming();
    Ok((anywhere || d.dpl() >= cpu.cpl().max(rpl(selector))).then_some(d))
}

fn set_zero_flag(cpu: &mut Cpu, on: bool) {
    cpu.set_flags(flags::ZF, if on { flags::ZF } else { 0 });
}

/// LAR.
pub(super) fn lar(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    let selector = read_rm16(cpu, op, 1)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|d| {
        d.is_segment()
            || match d.kind() {
                2 | 9 | 11 | 12 => true,
                1 | 3 | 4 | 5 => !long,
                _ => false,
            }
    });
    if let Some(d) = found {
        write_register(cpu, op.instr.op0_register(), d.low >> 32 & LAR_MASK);
    }
    set_zero_flag(cpu, found.is_some());
    Ok(())
}

/// Access rights as LAR shows them. The limit's bits 16-19 are undefined by the manual; processors
/// show them as they are.
const LAR_MASK: u64 = 0x00FF_FF00;

/// LSL.
pub(super) fn lsl(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    let selector = read_rm16(cpu, op, 1)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|d| {
        d.is_segment()
            || match d.kind() {
                2 | 9 | 11 => true,
                1 | 3 => !long,
                _ => false,
            }
    });
    if let Some(d) = found {
        write_register(cpu, op.instr.op0_register(), u64::from(d.limit()));
    }
    set_zero_flag(cpu, found.is_some());
    Ok(())
}

/// VERR, VERW.
pub(super) fn verify(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    let selector = read_rm16(cpu, op, 0)?;
    let write = op.instr.mnemonic() == Mnemonic::Verw;
    let found = visible(cpu, selector)?;
    let good = found.is_some_and(|d| if write { d.writable() } else { d.readable() });
    set_zero_flag(cpu, good);
    Ok(())
}

/// ARPL (in 64-bit mode its opcode is MOVSXD).
pub(super) fn arpl(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_protected()?;
    let wanted: u16 = cpu.get(register_slot(op.instr.op1_register()));
    let old = read_rm16(cpu, op, 0)?;
    let raise = rpl(old) < rpl(wanted);
    if raise {
        let new = old & !3 | wanted & 3;
        match register_slot(op.instr.op0_register()) {
            255 => write_rm16(cpu, op, u64::from(new))?,
            slot => cpu.set(slot, new), // 16 bits, whatever the operand size
        }
    }
    set_zero_flag(cpu, raise);
    Ok(())
}
