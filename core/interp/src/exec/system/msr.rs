//! RDMSR and WRMSR (SDM vol. 4, APM vol. 2 appendix A).

use kasane_cpu::Gpr;
use kasane_cpu::cpuid::Feature;
use kasane_cpu::exit::Exit;
use kasane_spec_x86::control::efer;
use kasane_spec_x86::msr;

use crate::cpu::{Cpu, Stop};
use crate::op::Op;
use crate::partition::apic_mode;

/// 8 variable ranges, fixed ranges, write combining.
const MTRR_CAPS: u64 = 0x508;
/// Microcode level of the model.
const MICROCODE: u64 = 0x0100_0065_0000_0000;
/// APIC_BASE: bootstrap processor, x2APIC, enable.
const APIC_BSP: u64 = 1 << 8;
const APIC_EXTD: u64 = 1 << 10;
const APIC_ENABLE: u64 = 1 << 11;

/// RDMSR.
pub(super) fn rdmsr(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    let index = cpu.reg(Gpr::Rcx) as u32;
    let value = cpu.read_msr(index)?;
    cpu.set_reg(Gpr::Rax, value & 0xFFFF_FFFF);
    cpu.set_reg(Gpr::Rdx, value >> 32);
    Ok(())
}

/// WRMSR.
pub(super) fn wrmsr(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    let index = cpu.reg(Gpr::Rcx) as u32;
    let value = cpu.reg(Gpr::Rax) & 0xFFFF_FFFF | cpu.reg(Gpr::Rdx) << 32;
    Cpu::serialize();
    cpu.write_msr(index, value)?;
    Err(Stop::Break)
}

/// Where a fixed-range MTRR is in the state.
fn fixed_mtrr(index: u32) -> Option<usize> {
    match index {
        msr::MTRR_FIX64K_00000 => Some(0),
        0x258..=0x259 => Some((index - 0x257) as usize),
        0x268..=0x26F => Some((index - 0x265) as usize),
        _ => None,
    }
}

fn is_memory_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

impl Cpu {
    fn read_msr(&mut self, index: u32) -> Result<u64, Stop> {
        let m = &self.state.msrs;
        if let Some(n) = fixed_mtrr(index) {
            return Ok(m.mtrr_fixed.get(n).copied().unwrap_or(0));
        }
        Ok(match index {
            msr::TSC => self.tsc(),
            msr::APIC_BASE => m.apic_base,
            msr::TSC_ADJUST if self.model.has(Feature::TscAdjust) => m.tsc_adjust,
            msr::UCODE_REV => MICROCODE,
            msr::MTRR_CAP => MTRR_CAPS,
            msr::SYSENTER_CS => m.sysenter_cs,
            msr::SYSENTER_ESP => m.sysenter_esp,
            msr::SYSENTER_EIP => m.sysenter_eip,
            msr::MCG_CAP => 0,
            msr::MCG_STATUS => m.mcg_status,
            msr::MISC_ENABLE => m.misc_enable,
            0x200..=0x20F => m.mtrr_variable.get((index & 15) as usize).copied().unwrap_or(0),
            msr::PAT => m.pat,
            msr::MTRR_DEF_TYPE => m.mtrr_def_type,
            msr::TSC_DEADLINE if self.model.has(Feature::TscDeadline) => {
                // A masked timer has nobody who looks at the clock for it.
                let now = self.clock.now_ns();
                self.apic.advance(now);
                self.apic.tsc_deadline()
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST => return self.x2apic_read(index),
            msr::EFER => self.state.efer,
            msr::STAR => m.star,
            msr::LSTAR => m.lstar,
            msr::CSTAR => m.cstar,
            msr::FMASK => m.fmask,
            msr::FS_BASE => self.state.fs.base,
            msr::GS_BASE => self.state.gs.base,
            msr::KERNEL_GS_BASE => m.kernel_gs_base,
            msr::TSC_AUX if self.model.has(Feature::Rdtscp) => m.tsc_aux,
            msr::SYSCFG | msr::HWCR | msr::NB_CFG | msr::DE_CFG | msr::PATCH_LOADER => 0,
            msr::KVM_SYSTEM_TIME_NEW => m.kvm_system_time,
            msr::KVM_WALL_CLOCK_NEW => m.kvm_wall_clock,
            _ => return self.ask(Exit::MsrRead { index }),
        })
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        match index {
            msr::TSC => self.write_tsc(value),
            msr::APIC_BASE => self.write_apic_base(value)?,
            msr::TSC_ADJUST if self.model.has(Feature::TscAdjust) => {
                let change = value.wrapping_sub(self.state.msrs.tsc_adjust);
                let tsc = self.tsc();
                self.write_tsc(tsc.wrapping_add(change));
                self.state.msrs.tsc_adjust = value;
            }
            msr::UCODE_REV
            | msr::SYSCFG
            | msr::HWCR
            | msr::NB_CFG
            | msr::DE_CFG
            | msr::PATCH_LOADER => {}
            msr::SYSENTER_CS => self.state.msrs.sysenter_cs = value & 0xFFFF_FFFF,
            msr::MCG_STATUS => self.state.msrs.mcg_status = value & 7,
            msr::MISC_ENABLE => self.state.msrs.misc_enable = value,
            0x200..=0x2FF => self.write_memory_type(index, value)?,
            msr::TSC_DEADLINE if self.model.has(Feature::TscDeadline) => {
                self.arm_tsc_deadline(value);
            }
            msr::X2APIC_FIRST..=msr::X2APIC_LAST => self.x2apic_write(index, value)?,
            msr::EFER => self.write_efer(value)?,
            msr::STAR => self.state.msrs.star = value,
            msr::FMASK => self.state.msrs.fmask = value & 0xFFFF_FFFF,
            msr::TSC_AUX if self.model.has(Feature::Rdtscp) => {
                if value >> 32 != 0 {
                    return Err(self.gp(0));
                }
                self.state.msrs.tsc_aux = value;
            }
            msr::SYSENTER_ESP
            | msr::SYSENTER_EIP
            | msr::LSTAR
            | msr::CSTAR
            | msr::FS_BASE
            | msr::GS_BASE
            | msr::KERNEL_GS_BASE => self.write_address(index, value)?,
            msr::KVM_SYSTEM_TIME_NEW => self.write_system_time(value),
            msr::KVM_WALL_CLOCK_NEW => self.write_wall_clock(value),
            msr::MCG_CAP | msr::MTRR_CAP => return Err(self.gp(0)),
            _ => {
                self.ask(Exit::MsrWrite { index, value })?;
            }
        }
        Ok(())
    }

    /// MSRs that hold linear addresses: #GP(0) if they aren't canonical.
    fn write_address(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        if !Self::canonical(value) {
            return Err(self.gp(0));
        }
        let m = &mut self.state.msrs;
        match index {
            msr::SYSENTER_ESP => m.sysenter_esp = value,
            msr::SYSENTER_EIP => m.sysenter_eip = value,
            msr::LSTAR => m.lstar = value,
            msr::CSTAR => m.cstar = value,
            msr::KERNEL_GS_BASE => m.kernel_gs_base = value,
            msr::FS_BASE => self.state.fs.base = value,
            _ => self.state.gs.base = value,
        }
        self.refresh_mode();
        Ok(())
    }

    /// MTRRs and PAT, kept as state: caches don't exist here.
    fn write_memory_type(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        let above = !((1u64 << self.model.physical_bits()) - 1);
        let bytes_are =
            |good: fn(u64) -> bool| value.to_le_bytes().into_iter().all(|b| good(b.into()));
        let place = fixed_mtrr(index);
        let good = match index {
            _ if place.is_some() => bytes_are(is_memory_type),
            0x200..=0x20F if index & 1 == 0 => {
                is_memory_type(value & 0xFF) && value & (above | 0xF00) == 0
            }
            0x200..=0x20F => value & (above | 0x7FF) == 0,
            msr::PAT => bytes_are(|kind| is_memory_type(kind) || kind == 7),
            msr::MTRR_DEF_TYPE => is_memory_type(value & 0xFF) && value & !0xCFF == 0,
            _ => false,
        };
        if !good {
            return Err(self.gp(0));
        }
        let m = &mut self.state.msrs;
        let slot = match index {
            msr::PAT => Some(&mut m.pat),
            msr::MTRR_DEF_TYPE => Some(&mut m.mtrr_def_type),
            0x200..=0x20F => m.mtrr_variable.get_mut((index & 15) as usize),
            _ => place.and_then(|n| m.mtrr_fixed.get_mut(n)),
        };
        if let Some(slot) = slot {
            *slot = value;
        }
        Ok(())
    }

    /// IA32_APIC_BASE and its mode transitions (SDM vol. 3A §11.12.5).
    fn write_apic_base(&mut self, value: u64) -> Result<(), Stop> {
        let old = self.state.msrs.apic_base;
        let x2apic = if self.model.has(Feature::X2apic) { APIC_EXTD } else { 0 };
        let page = ((1u64 << self.model.physical_bits()) - 1) & !0xFFF;
        let known = page | APIC_BSP | APIC_ENABLE | x2apic;
        const MODE: u64 = APIC_ENABLE | APIC_EXTD;
        let transition_allowed = match (old & MODE, value & MODE) {
            (_, APIC_EXTD) => false,
            (0, MODE) => false,
            (MODE, APIC_ENABLE) => false,
            (_, _) => true,
        };
        if value & !known != 0 || !transition_allowed {
            return Err(self.gp(0));
        }
        self.state.msrs.apic_base = value;
        self.apic.set_base(apic_mode(value), value & page);
        self.tlb.flush_all();
        self.attention = true;
        Ok(())
    }

    pub(super) fn efer_known(&self) -> u64 {
        let when = |feature, bit| if self.model.has(feature) { bit } else { 0 };
        when(Feature::Syscall, efer::SCE)
            | when(Feature::Lm, efer::LME)
            | when(Feature::Nx, efer::NXE)
    }
    pub(super) fn cr4_known(&self) -> u64 {
        self.model.cr4_supported()
    }
}
