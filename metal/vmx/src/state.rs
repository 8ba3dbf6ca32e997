//! The processor's state into the control structure, and back.

use kasane_cpu::{CpuState, Gpr, InterruptShadow, SegmentRegister};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::flags;

use crate::controls::{Capabilities, entry};
use crate::vmcs::{Fields, control, guest};

/// CR4.VMXE.
const VMXE: u64 = 1 << 13;
/// Bits that the guest changes without an exit: what it switches often and what means nothing to
/// the rest.
const FREE_CR0: u64 = cr0::TS;
const FREE_CR4: u64 = cr4::PGE | cr4::TSD;
/// Access rights: present; a segment that can't be used.
const PRESENT: u64 = 1 << 7;
const UNUSABLE: u64 = 1 << 16;
const DPL: u64 = 3 << 5;
/// What a segment is in virtual-8086 mode.
const V86: u64 = 0xF3;
/// Interruptibility: after STI, after MOV SS, in an NMI's handler.
const AFTER_STI: u64 = 1;
const AFTER_MOV_SS: u64 = 1 << 1;
const IN_NMI: u64 = 1 << 3;

fn put_segment(fields: &mut impl Fields, number: u32, segment: &SegmentRegister, access: u64) {
    fields.write(guest::SELECTORS + 2 * number, segment.selector.into());
    fields.write(guest::LIMITS + 2 * number, segment.limit.into());
    fields.write(guest::ACCESS + 2 * number, access);
    fields.write(guest::BASES + 2 * number, segment.base);
}

fn get_segment(fields: &impl Fields, number: u32) -> SegmentRegister {
    let access = fields.read(guest::ACCESS + 2 * number);
    // The privilege level is kept where the rest means nothing.
    let access = if access & UNUSABLE != 0 { access & DPL } else { access & 0xF0FF };
    SegmentRegister {
        selector: fields.read(guest::SELECTORS + 2 * number) as u16,
        limit: fields.read(guest::LIMITS + 2 * number) as u32,
        access: access as u16,
        base: fields.read(guest::BASES + 2 * number),
    }
}

/// Access rights as the processor wants them; the number is that of SS, 2, for the privilege level.
fn access(segment: &SegmentRegister, number: u32, state: &CpuState, cpl: u8) -> u64 {
    if state.rflags & flags::VM != 0 && number < 6 {
        return V86;
    }
    let mut access = u64::from(segment.access) & 0xF0FF;
    if access & PRESENT == 0 {
        access |= UNUSABLE;
    }
    if number == 2 { access & !DPL | u64::from(cpl) << 5 } else { access }
}

/// All of the state but general registers other than RSP, CR2, DR6, debug addresses, listed MSRs
/// and vectors.
pub fn put(
    fields: &mut impl Fields,
    (state, cpl, shadow): (&CpuState, u8, InterruptShadow),
    can: &Capabilities,
) {
    let segments =
        [&state.es, &state.cs, &state.ss, &state.ds, &state.fs, &state.gs, &state.ldtr, &state.tr];
    for (number, segment) in (0..).zip(segments) {
        put_segment(fields, number, segment, access(segment, number, state, cpl));
    }
    put_control(fields, state, can);
    let msrs = &state.msrs;
    for (field, value) in [
        (guest::GDTR_LIMIT, state.gdtr.limit.into()),
        (guest::GDTR_BASE, state.gdtr.base),
        (guest::IDTR_LIMIT, state.idtr.limit.into()),
        (guest::IDTR_BASE, state.idtr.base),
        (guest::PAT, msrs.pat),
        (guest::DR7, state.dr7),
        (guest::RSP, state.gpr.get(Gpr::Rsp as usize).copied().unwrap_or(0)),
        (guest::RIP, state.rip),
        (guest::RFLAGS, state.rflags),
        (guest::SYSENTER_CS, msrs.sysenter_cs),
        (guest::SYSENTER_ESP, msrs.sysenter_esp),
        (guest::SYSENTER_EIP, msrs.sysenter_eip),
        (guest::PENDING_DEBUG, 0),
        (guest::ACTIVITY, 0),
    ] {
        fields.write(field, value);
    }
    let shadow = match shadow {
        InterruptShadow::None => 0,
        InterruptShadow::Sti => AFTER_STI,
        InterruptShadow::MovSs => AFTER_MOV_SS,
    };
    let nmi = if state.nmi_blocked { IN_NMI } else { 0 };
    fields.write(guest::INTERRUPTIBILITY, shadow | nmi);
}

/// CR0, CR3, CR4 and EFER. What of the first and third isn't free is the hypervisor's: the guest
/// reads its own values and exits to change them, and the processor has what it demands.
fn put_control(fields: &mut impl Fields, state: &CpuState, can: &Capabilities) {
    let [must, may] = can.cr0;
    // Unrestricted guests may be without paging and protection.
    let must = must & !(cr0::PE | cr0::PG);
    // Caches are on, whatever the guest thinks.
    let real = (state.cr0 & !(cr0::CD | cr0::NW) | must) & may;
    fields.write(guest::CR0, real);
    let [must, may] = can.cr4;
    fields.write(guest::CR4, (state.cr4 | VMXE | must) & may);
    for (field, value) in control::OWNED.into_iter().zip([!FREE_CR0, !FREE_CR4]) {
        fields.write(field, value);
    }
    for (field, value) in control::SHADOWS.into_iter().zip([state.cr0, state.cr4]) {
        fields.write(field, value);
    }
    fields.write(guest::CR3, state.cr3);
    fields.write(guest::EFER, state.efer);
    for (field, value) in guest::PDPTES.into_iter().zip(state.pdpte) {
        fields.write(field, value);
    }
    let long = if state.efer & efer::LMA != 0 { entry::LONG_MODE } else { 0 };
    let wanted = entry::NEEDED & !entry::LONG_MODE | long;
    fields.write(control::ENTRY, can.entry.word(wanted).into());
}

/// What [`put`] put, as the guest left it.
pub fn get(fields: &impl Fields, state: &mut CpuState) -> InterruptShadow {
    let segments = [
        &mut state.es,
        &mut state.cs,
        &mut state.ss,
        &mut state.ds,
        &mut state.fs,
        &mut state.gs,
        &mut state.ldtr,
        &mut state.tr,
    ];
    for (number, segment) in (0..).zip(segments) {
        *segment = get_segment(fields, number);
    }
    state.gdtr.limit = fields.read(guest::GDTR_LIMIT) as u16;
    state.gdtr.base = fields.read(guest::GDTR_BASE);
    state.idtr.limit = fields.read(guest::IDTR_LIMIT) as u16;
    state.idtr.base = fields.read(guest::IDTR_BASE);
    // The bits that aren't free are as they were put.
    state.cr0 = state.cr0 & !FREE_CR0 | fields.read(guest::CR0) & FREE_CR0;
    state.cr4 = state.cr4 & !FREE_CR4 | fields.read(guest::CR4) & FREE_CR4;
    state.cr3 = fields.read(guest::CR3);
    state.efer = fields.read(guest::EFER);
    for (value, field) in state.pdpte.iter_mut().zip(guest::PDPTES) {
        *value = fields.read(field);
    }
    state.dr7 = fields.read(guest::DR7);
    state.rip = fields.read(guest::RIP);
    state.rflags = fields.read(guest::RFLAGS);
    if let Some(rsp) = state.gpr.get_mut(Gpr::Rsp as usize) {
        *rsp = fields.read(guest::RSP);
    }
    let msrs = &mut state.msrs;
    msrs.pat = fields.read(guest::PAT);
    msrs.sysenter_cs = fields.read(guest::SYSENTER_CS);
    msrs.sysenter_esp = fields.read(guest::SYSENTER_ESP);
    msrs.sysenter_eip = fields.read(guest::SYSENTER_EIP);
    let interruptibility = fields.read(guest::INTERRUPTIBILITY);
    state.nmi_blocked = interruptibility & IN_NMI != 0;
    match interruptibility {
        bits if bits & AFTER_MOV_SS != 0 => InterruptShadow::MovSs,
        bits if bits & AFTER_STI != 0 => InterruptShadow::Sti,
        _ => InterruptShadow::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::Allowed;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Fake(BTreeMap<u32, u64>);

    impl Fields for Fake {
        fn read(&self, field: u32) -> u64 {
            self.0.get(&field).copied().unwrap_or(0)
        }
        fn write(&mut self, field: u32, value: u64) {
            self.0.insert(field, value);
        }
    }

    const EVERYTHING: Allowed = Allowed(u64::MAX << 32);

    fn can() -> Capabilities {
        Capabilities {
            revision: 0,
            pin: EVERYTHING,
            primary: EVERYTHING,
            secondary: EVERYTHING,
            exit: EVERYTHING,
            entry: EVERYTHING,
            ept: u64::MAX,
            timer_shift: 0,
            cr0: [0x8000_0021, 0xFFFF_FFFF],
            cr4: [0x2000, 0x3F_FFFF],
        }
    }

    fn long_mode() -> CpuState {
        let mut state = CpuState::reset(true);
        state.cs = SegmentRegister { selector: 8, access: 0xA09B, limit: 0xFFFF_FFFF, base: 0 };
        state.ss = SegmentRegister { selector: 0, access: 0x60, limit: 0, base: 0 };
        state.tr = SegmentRegister { selector: 0x40, access: 0x8B, limit: 0x67, base: 0x1234 };
        state.gdtr.base = 0xFFFF_8000_0000_1000;
        state.efer = 0xD01;
        state.cr0 = 0xE000_0011 | cr0::TS;
        state.cr4 = 0x6B0;
        state.pdpte = [1, 2, 3, 4];
        state.nmi_blocked = true;
        state
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let state = long_mode();
        let mut fields = Fake::default();
        put(&mut fields, (&state, 3, InterruptShadow::MovSs), &can());
        let mut back = CpuState { cr0: state.cr0, cr4: state.cr4, ..CpuState::reset(true) };
        let shadow = get(&fields, &mut back);

        assert_eq!((back, shadow), (state, InterruptShadow::MovSs));
    }

    #[test]
    fn the_processor_gets_what_it_demands_and_the_guest_reads_its_own() {
        let state = long_mode();
        let mut fields = Fake::default();
        put(&mut fields, (&state, 3, InterruptShadow::None), &can());

        // NE on; CD and NW off; the shadow as the guest set it.
        assert_eq!(fields.read(guest::CR0), 0x8000_0039);
        assert_eq!(fields.read(control::SHADOWS[0]), state.cr0);
        assert_eq!(fields.read(guest::CR4), 0x26B0);
        assert_eq!(fields.read(control::ENTRY) & 1 << 9, 1 << 9);
        // A null SS in ring 3: unusable, with its level.
        assert_eq!(fields.read(guest::ACCESS + 4), 0x1_0060);
    }

    #[test]
    fn segments_of_virtual_8086_mode_are_what_they_must_be() {
        let mut state = CpuState::reset(true);
        state.rflags |= flags::VM;
        let mut fields = Fake::default();
        put(&mut fields, (&state, 3, InterruptShadow::None), &can());

        let access: std::vec::Vec<_> = (0..8).map(|n| fields.read(guest::ACCESS + 2 * n)).collect();
        assert_eq!(access[..6], [0xF3; 6]);
        assert_eq!(access[7] & 0xFF, 0x8B);
    }
}
