//! Fast system calls and the FS and GS bases: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS,
//! RDFSBASE and its like (APM vol. 3, SDM vol. 2).
//!
//! The CPU model is AMD's: SYSCALL works in compatibility and legacy mode too, SYSENTER doesn't
//! work in long mode, and SYSRET doesn't check its target (a non-canonical one faults at the
//! fetch, in ring 3).

use iced_x86::{Code, Mnemonic};
use kasane_cpu::cpuid::Feature;
use kasane_cpu::{Gpr, SegmentRegister};
use kasane_spec_x86::control::{cr4, efer};
use kasane_spec_x86::descriptor::access;
use kasane_spec_x86::flags;

use super::segments::write_register;
use crate::cpu::{Cpu, Stop};
use crate::op::{Op, register_slot};

/// Flags that SYSRET takes from R11.
const SYSRET_FLAGS: u64 = 0x003C_7FD7;

/// A flat segment as these instructions set it without reading a descriptor.
fn flat(selector: u16, kind: u16, dpl: u8, size: u16) -> SegmentRegister {
    let access = kind | access::S | access::P | access::G | size;
    SegmentRegister {
        selector,
        access: access | u16::from(dpl) << access::DPL_SHIFT,
        limit: u32::MAX,
        base: 0,
    }
}
const CODE: u16 = 0xB;
const DATA: u16 = 0x3;

impl Cpu {
    fn enter_flat(&mut self, selector: u16, stack: u16, dpl: u8, size: u16) {
        self.state.cs = flat(selector & !3 | u16::from(dpl), CODE, dpl, size);
        self.state.ss = flat(stack & !3 | u16::from(dpl), DATA, dpl, access::DB);
        self.refresh_mode();
    }
    fn need_syscall(&mut self) -> Result<(), Stop> {
        let on = self.state.efer & efer::SCE != 0 && self.model.has(Feature::Syscall);
        if on && self.protected() && !self.v86() { Ok(()) } else { Err(self.ud()) }
    }
}

/// What CS and SS are after a SYSCALL in 64-bit code (`inwards`), or a SYSRET to 64-bit code.
pub fn enter_by_syscall(cpu: &mut Cpu, inwards: bool) {
    let [inner, outer] = syscall_selectors(cpu.state.msrs.star);
    if inwards {
        cpu.enter_flat(inner as u16, (inner >> 16) as u16, 0, access::L);
    } else {
        cpu.enter_flat(outer as u16, (outer >> 16) as u16, 3, access::L);
    }
}

/// The selectors of CS (low half) and SS that STAR names for SYSCALL, and for SYSRET to 64-bit
/// code.
#[must_use]
pub fn syscall_selectors(star: u64) -> [u32; 2] {
    let pair = |code: u16, stack: u16, dpl: u16| {
        u32::from(code & !3 | dpl) | u32::from(stack & !3 | dpl) << 16
    };
    let (inner, outer) = ((star >> 32) as u16, (star >> 48) as u16);
    [pair(inner, inner.wrapping_add(8), 0), pair(outer.wrapping_add(16), outer.wrapping_add(8), 3)]
}

/// SYSCALL.
pub(super) fn syscall(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.need_syscall()?;
    let star = cpu.state.msrs.star;
    let selector = (star >> 32) as u16;
    if cpu.long_mode() {
        cpu.set_reg(Gpr::Rcx, cpu.next_rip);
        cpu.set_reg(Gpr::R11, cpu.state.rflags & !flags::RF);
        let target = if cpu.code64() { cpu.state.msrs.lstar } else { cpu.state.msrs.cstar };
        let cleared = cpu.state.msrs.fmask | flags::RF | flags::VM;
        cpu.state.rflags = cpu.state.rflags & !cleared | flags::FIXED;
        cpu.enter_flat(selector, selector.wrapping_add(8), 0, access::L);
        cpu.next_rip = target;
    } else {
        cpu.set_reg(Gpr::Rcx, cpu.next_rip & 0xFFFF_FFFF);
        cpu.set_flags(flags::IF | flags::RF | flags::VM, 0);
        cpu.enter_flat(selector, selector.wrapping_add(8), 0, access::DB);
        cpu.next_rip = star & 0xFFFF_FFFF;
    }
    // TF is looked at after the flags were masked.
    cpu.step_override = Some(cpu.flag(flags::TF));
    Err(Stop::Break)
}

/// SYSRET.
pub(super) fn sysret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_syscall()?;
    cpu.need_ring0()?;
    let selector = (cpu.state.msrs.star >> 48) as u16;
    let stack = selector.wrapping_add(8);
    if cpu.long_mode() {
        cpu.state.rflags = cpu.reg(Gpr::R11) & SYSRET_FLAGS | flags::FIXED;
    } else {
        cpu.set_flags(flags::IF, flags::IF);
    }
    if op.instr.code() == Code::Sysretq {
        cpu.enter_flat(selector.wrapping_add(16), stack, 3, access::L);
        cpu.next_rip = cpu.reg(Gpr::Rcx);
    } else {
        cpu.enter_flat(selector, stack, 3, access::DB);
        cpu.next_rip = cpu.reg(Gpr::Rcx) & 0xFFFF_FFFF;
    }
    // As if the SYSCALL had just finished: a trap comes before the next instruction.
    cpu.step_override = Some(cpu.flag(flags::TF));
    Err(Stop::Break)
}

/// SYSENTER.
pub(super) fn sysenter(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if cpu.long_mode() {
        return Err(cpu.ud());
    }
    let selector = cpu.state.msrs.sysenter_cs as u16;
    if !cpu.protected() || selector & !3 == 0 {
        return Err(cpu.gp(0));
    }
    cpu.set_flags(flags::VM | flags::IF | flags::RF, 0);
    cpu.enter_flat(selector, selector.wrapping_add(8), 0, access::DB);
    cpu.set_reg(Gpr::Rsp, cpu.state.msrs.sysenter_esp & 0xFFFF_FFFF);
    cpu.next_rip = cpu.state.msrs.sysenter_eip & 0xFFFF_FFFF;
    Err(Stop::Break)
}

/// SYSEXIT.
pub(super) fn sysexit(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if cpu.long_mode() {
        return Err(cpu.ud());
    }
    let selector = cpu.state.msrs.sysenter_cs as u16;
    if !cpu.protected() || selector & !3 == 0 || cpu.cpl() != 0 {
        return Err(cpu.gp(0));
    }
    let (code, stack) = (selector.wrapping_add(16), selector.wrapping_add(24));
    cpu.enter_flat(code, stack, 3, access::DB);
    cpu.set_reg(Gpr::Rsp, cpu.reg(Gpr::Rcx) & 0xFFFF_FFFF);
    cpu.next_rip = cpu.reg(Gpr::Rdx) & 0xFFFF_FFFF;
    Err(Stop::Break)
}

/// SWAPGS.
pub(super) fn swapgs(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if !cpu.code64() {
        return Err(cpu.ud());
    }
    cpu.need_ring0()?;
    core::mem::swap(&mut cpu.state.gs.base, &mut cpu.state.msrs.kernel_gs_base);
    cpu.refresh_mode();
    Ok(())
}

/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
pub(super) fn segment_base(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.code64() || !cpu.cr4(cr4::FSGSBASE) {
        return Err(cpu.ud());
    }
    let register = op.instr.op0_register();
    let slot = register_slot(register);
    let wide = register.size() == 8;
    let new = if wide { cpu.gpr(slot) } else { u64::from(cpu.get::<u32>(slot)) };
    let write = matches!(op.instr.mnemonic(), Mnemonic::Wrfsbase | Mnemonic::Wrgsbase);
    let gs = matches!(op.instr.mnemonic(), Mnemonic::Rdgsbase | Mnemonic::Wrgsbase);
    if !write {
        let base = if gs { cpu.state.gs.base } else { cpu.state.fs.base };
        write_register(cpu, register, base);
        return Ok(());
    }
    if !Cpu::canonical(new) {
        return Err(cpu.gp(0));
    }
    if gs {
        cpu.state.gs.base = new;
    } else {
        cpu.state.fs.base = new;
    }
    cpu.refresh_mode();
    Ok(())
}
