//! Control and debug registers (SDM vol. 3A §2.5, vol. 3B §17.2; vol. 2B "MOV").

use kasane_cpu::cpuid::Feature;
use kasane_spec_x86::control::{cr0, cr4, dr6, dr7, efer};
use kasane_spec_x86::descriptor::access;

use super::segments::{read_rm16, write_register};
use crate::cpu::{Cpu, Stop};
use crate::op::{Op, register_slot};

const CR0_KNOWN: u64 = cr0::PE
    | cr0::MP
    | cr0::EM
    | cr0::TS
    | cr0::ET
    | cr0::NE
    | cr0::WP
    | cr0::AM
    | cr0::NW
    | cr0::CD
    | cr0::PG;
/// CR3 bit 63: with PCIDE, don't flush.
const NO_FLUSH: u64 = 1 << 63;
/// CR4 bits that change translations.
const CR4_PAGING: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP;

/// #UD for control registers that there are not. Outside of 64-bit code CR8 is LOCK MOV CR0, by a
/// feature of its own.
fn known_cr(cpu: &mut Cpu, number: usize) -> Result<(), Stop> {
    let known = match number {
        0 | 2 | 3 | 4 => true,
        8 => cpu.code64() || cpu.model.has(Feature::Cr8Legacy),
        _ => false,
    };
    if known { Ok(()) } else { Err(cpu.ud()) }
}

/// MOV CRn, r.
pub(super) fn mov_to_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let number = op.instr.op0_register().number();
    known_cr(cpu, number)?;
    cpu.need_ring0()?;
    let slot = register_slot(op.instr.op1_register());
    let value = if cpu.code64() { cpu.gpr(slot) } else { u64::from(cpu.get::<u32>(slot)) };
    Cpu::serialize();
    match number {
        0 => cpu.write_cr0(value)?,
        2 => cpu.state.cr2 = value,
        3 => cpu.write_cr3(value)?,
        4 => cpu.write_cr4(value)?,
        _ => {
            if value > 15 {
                return Err(cpu.gp(0));
            }
            cpu.apic.set_cr8(value);
            cpu.attention = true;
        }
    }
    Err(Stop::Break)
}

/// MOV r, CRn.
pub(super) fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let number = op.instr.op1_register().number();
    known_cr(cpu, number)?;
    cpu.need_ring0()?;
    let value = match number {
        0 => cpu.state.cr0,
        2 => cpu.state.cr2,
        3 => cpu.state.cr3,
        4 => cpu.state.cr4,
        _ => cpu.apic.cr8(),
    };
    write_register(cpu, op.instr.op0_register(), value);
    Ok(())
}

/// LMSW: the low four bits of CR0; PE can only be set.
pub(super) fn lmsw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    let value = u64::from(read_rm16(cpu, op, 0)?);
    let old = cpu.state.cr0;
    Cpu::serialize();
    cpu.write_cr0(old & !0xE | value & 0xF)?;
    Err(Stop::Break)
}

/// CLTS.
pub(super) fn clts(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    cpu.state.cr0 &= !cr0::TS;
    Err(Stop::Break)
}

impl Cpu {
    pub(crate) fn write_cr0(&mut self, value: u64) -> Result<(), Stop> {
        let old = self.state.cr0;
        let on = |bit: u64| value & bit != 0;
        let switches_on = on(cr0::PG) && old & cr0::PG == 0;
        let switches_off = !on(cr0::PG) && old & cr0::PG != 0;
        let long = self.state.efer & efer::LME != 0;
        let bad = value >> 32 != 0
            || on(cr0::PG) && !on(cr0::PE)
            || on(cr0::NW) && !on(cr0::CD)
            || switches_off && (self.code64() || self.cr4(cr4::PCIDE))
            || switches_on
                && long
                && (!self.cr4(cr4::PAE) || self.state.cs.long() || self.state.tr.kind() & 8 == 0);
        if bad {
            return Err(self.gp(0));
        }
        let new = value & CR0_KNOWN | cr0::ET;
        let changed = old ^ new;
        let reloads = changed & (cr0::PG | cr0::CD | cr0::NW) != 0;
        if on(cr0::PG) && self.cr4(cr4::PAE) && !long && reloads {
            self.state.pdpte = self.read_pdptes(self.state.cr3)?;
        }
        self.state.cr0 = new;
        if switches_on && long {
            self.state.efer |= efer::LMA;
        }
        if switches_off {
            self.state.efer &= !efer::LMA;
        }
        if changed & cr0::PE != 0 {
            // CPL is 0 on both sides of the switch, and it is kept in SS.
            self.state.ss.access &= !(3 << access::DPL_SHIFT);
        }
        if changed & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.tlb.flush_all();
        }
        self.refresh_mode();
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> Result<(), Stop> {
        let pcid = self.cr4(cr4::PCIDE);
        let value = if pcid { value & !NO_FLUSH } else { value };
        if self.long_mode() {
            if value >> self.model.physical_bits() != 0 {
                return Err(self.gp(0));
            }
        } else if self.cr4(cr4::PAE) && self.state.cr0 & cr0::PG != 0 {
            self.state.pdpte = self.read_pdptes(value)?;
        }
        self.state.cr3 = value;
        // The TLB has no PCIDs: NOFLUSH is a permission that is not made use of.
        self.tlb.flush_non_global();
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Stop> {
        let old = self.state.cr4;
        let sets_pcid = value & cr4::PCIDE != 0 && old & cr4::PCIDE == 0;
        let bad = value & !self.cr4_known() != 0
            || self.long_mode() && value & cr4::PAE == 0
            || sets_pcid && (!self.long_mode() || self.state.cr3 & 0xFFF != 0);
        if bad {
            return Err(self.gp(0));
        }
        let changed = old ^ value;
        let paging = self.state.cr0 & cr0::PG != 0;
        if paging && !self.long_mode() && value & cr4::PAE != 0 && changed & CR4_PAGING != 0 {
            self.state.pdpte = self.read_pdptes(self.state.cr3)?;
        }
        self.state.cr4 = value;
        if changed & CR4_PAGING != 0 {
            self.tlb.flush_all();
        }
        self.refresh_mode();
        Ok(())
    }

    pub(super) fn write_efer(&mut self, value: u64) -> Result<(), Stop> {
        let old = self.state.efer;
        let paging = self.state.cr0 & cr0::PG != 0;
        let changes_lme = (old ^ value) & efer::LME != 0;
        if value & !(self.efer_known() | efer::LMA) != 0 || paging && changes_lme {
            return Err(self.gp(0));
        }
        self.state.efer = value & !efer::LMA | old & efer::LMA;
        if (old ^ value) & efer::NXE != 0 {
            self.tlb.flush_all();
        }
        self.refresh_mode();
        Ok(())
    }
}

/// The debug register that an operand names; DR4 and DR5 are other names of DR6 and DR7.
fn debug_number(cpu: &mut Cpu, number: usize) -> Result<usize, Stop> {
    let number = match number {
        4 | 5 if cpu.cr4(cr4::DE) => return Err(cpu.ud()),
        4 | 5 => number + 2,
        0..=3 | 6 | 7 => number,
        _ => return Err(cpu.ud()),
    };
    cpu.need_ring0()?;
    if cpu.state.dr7 & dr7::GD != 0 {
        return Err(cpu.debug_fault(dr6::BD));
    }
    Ok(number)
}

/// MOV DRn, r.
pub(super) fn mov_to_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let number = debug_number(cpu, op.instr.op0_register().number())?;
    let slot = register_slot(op.instr.op1_register());
    let value = if cpu.code64() { cpu.gpr(slot) } else { u64::from(cpu.get::<u32>(slot)) };
    if number >= 6 && value >> 32 != 0 {
        return Err(cpu.gp(0));
    }
    Cpu::serialize();
    match number {
        6 => cpu.state.dr6 = value & (dr6::B | dr6::BD | dr6::BS | dr6::BT) | dr6::FIXED,
        7 => cpu.state.dr7 = value & 0xFFFF_23FF | dr7::FIXED,
        n => {
            if let Some(register) = cpu.state.dr.get_mut(n) {
                *register = value;
            }
        }
    }
    cpu.refresh_mode();
    Err(Stop::Break)
}

/// MOV r, DRn.
pub(super) fn mov_from_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let number = debug_number(cpu, op.instr.op1_register().number())?;
    let value = match number {
        6 => cpu.state.dr6,
        7 => cpu.state.dr7,
        n => cpu.state.dr.get(n).copied().unwrap_or(0),
    };
    write_register(cpu, op.instr.op0_register(), value);
    Ok(())
}

/// INVLPG.
pub(super) fn invlpg(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    Cpu::serialize();
    let base = cpu.mode.base.get(op.mem.seg as usize).copied().unwrap_or(0);
    let va = base.wrapping_add(cpu.ea(op)) & cpu.mode.linear_mask;
    if Cpu::canonical(va) || !cpu.code64() {
        cpu.tlb.flush_page(va);
    }
    Err(Stop::Break)
}

/// INVPCID (SDM vol. 2A).
pub(super) fn invpcid(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.protected() || cpu.v86() {
        return Err(cpu.gp(0));
    }
    cpu.need_ring0()?;
    let kind = {
        let slot = register_slot(op.instr.op0_register());
        if cpu.code64() { cpu.gpr(slot) } else { u64::from(cpu.get::<u32>(slot)) }
    };
    let (seg, at) = (op.mem.seg, cpu.ea(op));
    let descriptor: u128 = cpu.read(seg, at)?;
    let (pcid, va) = (descriptor as u64, (descriptor >> 64) as u64);
    let needs_pcid = kind <= 1;
    let bad = kind > 3
        || pcid >> 12 != 0
        || needs_pcid && pcid != 0 && !cpu.cr4(cr4::PCIDE)
        || kind == 0 && !Cpu::canonical(va);
    if bad {
        return Err(cpu.gp(0));
    }
    Cpu::serialize();
    match kind {
        0 => cpu.tlb.flush_page(va),
        2 => cpu.tlb.flush_all(),
        _ => cpu.tlb.flush_non_global(),
    }
    Err(Stop::Break)
}
