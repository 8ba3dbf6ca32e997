//! The processor's state into the control block, and back.

use kasane_cpu::{CpuState, Gpr, InterruptShadow, SegmentRegister};

use crate::vmcb::save::{self, register};
use crate::vmcb::{Vmcb, control};

/// EFER.SVME, which a guest's EFER needs while it runs.
const SVME: u64 = 1 << 12;
/// CR0.PG and CR4.PAE, EFER.LMA.
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const LMA: u64 = 1 << 10;

/// A segment's attributes: the descriptor's bits 40 to 47 and 52 to 55 side by side.
const fn attributes(access: u16) -> u16 {
    access & 0xFF | access >> 4 & 0xF00
}

const fn access(attributes: u16) -> u16 {
    attributes & 0xFF | (attributes & 0xF00) << 4
}

fn put_segment(vmcb: &mut Vmcb, at: usize, segment: &SegmentRegister) {
    vmcb.set_u16(at, segment.selector);
    vmcb.set_u16(at + 2, attributes(segment.access));
    vmcb.set_u32(at + 4, segment.limit);
    vmcb.set_u64(at + 8, segment.base);
}

fn get_segment(vmcb: &Vmcb, at: usize) -> SegmentRegister {
    SegmentRegister {
        selector: vmcb.u16(at),
        access: access(vmcb.u16(at + 2)),
        limit: vmcb.u32(at + 4),
        base: vmcb.u64(at + 8),
    }
}

/// All of the state but general registers other than RAX and RSP, debug addresses and vectors.
pub fn put(vmcb: &mut Vmcb, state: &CpuState, cpl: u8, shadow: InterruptShadow) {
    let segments = [&state.es, &state.cs, &state.ss, &state.ds, &state.fs, &state.gs];
    for (at, segment) in (save::SEGMENTS..).step_by(16).zip(segments) {
        put_segment(vmcb, at, segment);
    }
    put_segment(vmcb, save::LDTR, &state.ldtr);
    put_segment(vmcb, save::TR, &state.tr);
    for (at, table) in [(save::GDTR, &state.gdtr), (save::IDTR, &state.idtr)] {
        vmcb.set_u32(at + 4, table.limit.into());
        vmcb.set_u64(at + 8, table.base);
    }
    vmcb.set_u8(save::CPL, cpl);
    let gpr = |register: Gpr| state.gpr.get(register as usize).copied().unwrap_or(0);
    let msrs = &state.msrs;
    for (at, value) in [
        (register::EFER, state.efer | SVME),
        (register::CR4, state.cr4),
        (register::CR3, state.cr3),
        (register::CR0, state.cr0),
        (register::DR7, state.dr7),
        (register::DR6, state.dr6),
        (register::RFLAGS, state.rflags),
        (register::RIP, state.rip),
        (register::RSP, gpr(Gpr::Rsp)),
        (register::RAX, gpr(Gpr::Rax)),
        (register::STAR, msrs.star),
        (register::LSTAR, msrs.lstar),
        (register::CSTAR, msrs.cstar),
        (register::SFMASK, msrs.fmask),
        (register::KERNEL_GS_BASE, msrs.kernel_gs_base),
        (register::SYSENTER_CS, msrs.sysenter_cs),
        (register::SYSENTER_ESP, msrs.sysenter_esp),
        (register::SYSENTER_EIP, msrs.sysenter_eip),
        (register::CR2, state.cr2),
        (register::PAT, msrs.pat),
    ] {
        vmcb.set_u64(at, value);
    }
    vmcb.set_u64(control::INTERRUPT_SHADOW, u64::from(shadow != InterruptShadow::None));
}

/// What [`put`] put, as the guest left it. Which instruction made the shadow isn't known any more;
/// the stronger one is assumed.
pub fn get(vmcb: &Vmcb, state: &mut CpuState) -> InterruptShadow {
    let segments =
        [&mut state.es, &mut state.cs, &mut state.ss, &mut state.ds, &mut state.fs, &mut state.gs];
    for (at, segment) in (save::SEGMENTS..).step_by(16).zip(segments) {
        *segment = get_segment(vmcb, at);
    }
    state.ldtr = get_segment(vmcb, save::LDTR);
    state.tr = get_segment(vmcb, save::TR);
    for (at, table) in [(save::GDTR, &mut state.gdtr), (save::IDTR, &mut state.idtr)] {
        table.limit = vmcb.u32(at + 4) as u16;
        table.base = vmcb.u64(at + 8);
    }
    // SS.DPL is the privilege level for the interpreter; in real mode it is 0 in both.
    let level = u16::from(vmcb.u8(save::CPL) & 3) << 5;
    state.ss.access = state.ss.access & !0x60 | level;
    state.efer = vmcb.u64(register::EFER) & !SVME;
    state.cr4 = vmcb.u64(register::CR4);
    state.cr3 = vmcb.u64(register::CR3);
    state.cr0 = vmcb.u64(register::CR0);
    state.dr7 = vmcb.u64(register::DR7);
    state.dr6 = vmcb.u64(register::DR6);
    state.rflags = vmcb.u64(register::RFLAGS);
    state.rip = vmcb.u64(register::RIP);
    state.cr2 = vmcb.u64(register::CR2);
    for (register, at) in [(Gpr::Rsp, register::RSP), (Gpr::Rax, register::RAX)] {
        if let Some(place) = state.gpr.get_mut(register as usize) {
            *place = vmcb.u64(at);
        }
    }
    let msrs = &mut state.msrs;
    msrs.star = vmcb.u64(register::STAR);
    msrs.lstar = vmcb.u64(register::LSTAR);
    msrs.cstar = vmcb.u64(register::CSTAR);
    msrs.fmask = vmcb.u64(register::SFMASK);
    msrs.kernel_gs_base = vmcb.u64(register::KERNEL_GS_BASE);
    msrs.sysenter_cs = vmcb.u64(register::SYSENTER_CS);
    msrs.sysenter_esp = vmcb.u64(register::SYSENTER_ESP);
    msrs.sysenter_eip = vmcb.u64(register::SYSENTER_EIP);
    match vmcb.u64(control::INTERRUPT_SHADOW) & 1 {
        0 => InterruptShadow::None,
        _ => InterruptShadow::MovSs,
    }
}

/// Whether the interpreter needs the four entries that PAE paging loads with CR3, which this
/// processor reads as it needs them (APM vol. 2 §15.25.10).
#[must_use]
pub const fn wants_pdptes(state: &CpuState) -> bool {
    state.cr0 & PG != 0 && state.cr4 & PAE != 0 && state.efer & LMA == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was() {
        let mut state = CpuState::reset(true);
        state.cs = SegmentRegister { selector: 8, access: 0xA09B, limit: 0xFFFF_FFFF, base: 0 };
        state.ss = SegmentRegister { selector: 0x2B, access: 0xC0F3, limit: 9, base: 7 };
        state.tr = SegmentRegister { selector: 0x40, access: 0x8B, limit: 0x67, base: 0x1234 };
        state.gdtr.base = 0xFFFF_8000_0000_1000;
        state.efer = 0xD01;
        state.msrs.lstar = 0xFFFF_FFFF_8000_0000;
        state.cr2 = 0x55;
        let mut vmcb = Vmcb::default();
        put(&mut vmcb, &state, 3, InterruptShadow::Sti);
        let mut back = CpuState::reset(true);
        let shadow = get(&vmcb, &mut back);

        assert_eq!((back, shadow), (state, InterruptShadow::MovSs));
        assert_eq!(vmcb.u16(save::SEGMENTS + 16 + 2), 0xA9B);
    }

    #[test]
    fn only_pae_paging_outside_of_long_mode_has_entries() {
        let mut state = CpuState::reset(true);
        let before = wants_pdptes(&state);
        (state.cr0, state.cr4) = (state.cr0 | PG, state.cr4 | PAE);
        let pae = wants_pdptes(&state);
        state.efer |= LMA;

        assert_eq!([before, pae, wants_pdptes(&state)], [false, true, false]);
    }
}
