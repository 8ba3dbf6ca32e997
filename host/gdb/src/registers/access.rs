//! Registers of the table in a processor's state.

use kasane_cpu::apic::saved_cr8;
use kasane_cpu::{CpuState, Seg, StateSet, VectorState};
use kasane_spec_x86::{control::cr0, flags};

use super::table::{System, What};
use super::x87;

/// The register can't be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// The flags that exist; the others are constant.
const FLAGS: u64 = flags::ARITHMETIC
    | flags::TF
    | flags::IF
    | flags::DF
    | flags::IOPL
    | flags::NT
    | flags::RF
    | flags::VM
    | flags::AC
    | flags::VIF
    | flags::VIP
    | flags::ID;

/// The part of the state that has a register.
pub(crate) fn set_of(what: What) -> StateSet {
    match what {
        What::Gpr(_) | What::Rip | What::Flags => StateSet::GENERAL,
        What::Selector(_) | What::Base(_) => StateSet::SYSTEM,
        What::St(_) | What::X87(_) | What::Xmm(_) | What::Mxcsr | What::YmmHigh(_) => {
            StateSet::VECTOR
        }
        What::System(register) => match register {
            System::KernelGsBase | System::Cr8 => StateSet::PLATFORM,
            System::Xcr0 => StateSet::VECTOR,
            System::Cr0
            | System::Cr2
            | System::Cr3
            | System::Cr4
            | System::Efer
            | System::Dr(_)
            | System::Dr6
            | System::Dr7
            | System::GdtBase
            | System::IdtBase
            | System::Ldtr
            | System::Tr => StateSet::SYSTEM,
        },
    }
}

/// A register's value.
pub(crate) fn read(state: &CpuState, what: What) -> u128 {
    let vector = &state.vector;
    match what {
        What::Gpr(gpr) => state.gpr.get(gpr as usize).copied().unwrap_or(0).into(),
        What::Rip => state.rip.into(),
        What::Flags => state.rflags.into(),
        What::Selector(seg) => state.seg(seg).selector.into(),
        What::St(n) => x87::from_bytes(vector.st(n)),
        What::X87(word) => x87::word(vector, word).into(),
        What::Xmm(n) => half(vector, n, 0),
        What::YmmHigh(n) => half(vector, n, 2),
        What::Mxcsr => vector.mxcsr().into(),
        What::Base(seg) => state.seg(seg).base.into(),
        What::System(register) => system(state, register).into(),
    }
}

fn half(vector: &VectorState, n: u8, low: usize) -> u128 {
    let lanes = vector.ymm(n);
    let lane = |at: usize| u128::from(lanes.get(at).copied().unwrap_or(0));
    lane(low) | lane(low + 1) << 64
}

fn system(state: &CpuState, register: System) -> u64 {
    match register {
        System::KernelGsBase => state.msrs.kernel_gs_base,
        System::Cr0 => state.cr0,
        System::Cr2 => state.cr2,
        System::Cr3 => state.cr3,
        System::Cr4 => state.cr4,
        System::Cr8 => saved_cr8(&state.apic).unwrap_or(0),
        System::Efer => state.efer,
        System::Xcr0 => state.xcr0,
        System::Dr(n) => state.dr.get(usize::from(n)).copied().unwrap_or(0),
        System::Dr6 => state.dr6,
        System::Dr7 => state.dr7,
        System::GdtBase => state.gdtr.base,
        System::IdtBase => state.idtr.base,
        System::Ldtr => state.ldtr.selector.into(),
        System::Tr => state.tr.selector.into(),
    }
}

/// Changes a register.
///
/// # Errors
/// `Refused` for those whose change would need a descriptor (selectors in protected mode) or
/// that are no plain values (CR8, the x87 tags' sign of "special").
pub(crate) fn write(state: &mut CpuState, what: What, value: u128) -> Result<(), Refused> {
    if read(state, what) == value {
        return Ok(());
    }
    let word = value as u64;
    match what {
        What::Gpr(gpr) => {
            if let Some(register) = state.gpr.get_mut(gpr as usize) {
                *register = word;
            }
        }
        What::Rip => state.rip = word,
        What::Flags => state.rflags = word & FLAGS | flags::FIXED,
        What::Selector(seg) => return selector(state, seg, word),
        What::St(n) => state.vector.set_st(n, x87::to_bytes(value)),
        What::X87(register) => x87::set_word(&mut state.vector, register, word as u32),
        What::Xmm(n) => set_half(&mut state.vector, n, 0, value),
        What::YmmHigh(n) => set_half(&mut state.vector, n, 2, value),
        What::Mxcsr => state.vector.set_mxcsr(word as u32 & 0xFFFF),
        What::Base(seg) => state.seg_mut(seg).base = word,
        What::System(register) => return set_system(state, register, word),
    }
    Ok(())
}

/// Real and virtual-8086 mode make a segment of any selector; elsewhere it takes a descriptor.
fn selector(state: &mut CpuState, seg: Seg, value: u64) -> Result<(), Refused> {
    let v86 = state.rflags & flags::VM != 0;
    if state.cr0 & cr0::PE != 0 && !v86 {
        return Err(Refused);
    }
    let selector = u16::try_from(value).map_err(|_| Refused)?;
    let segment = state.seg_mut(seg);
    segment.selector = selector;
    segment.base = u64::from(selector) << 4;
    Ok(())
}

fn set_half(vector: &mut VectorState, n: u8, low: usize, value: u128) {
    let mut lanes = vector.ymm(n);
    let halves = [value as u64, (value >> 64) as u64];
    lanes.iter_mut().skip(low).zip(halves).for_each(|(lane, half)| *lane = half);
    vector.set_ymm(n, lanes);
}

fn set_system(state: &mut CpuState, register: System, value: u64) -> Result<(), Refused> {
    match register {
        System::KernelGsBase => state.msrs.kernel_gs_base = value,
        System::Cr0 => state.cr0 = value,
        System::Cr2 => state.cr2 = value,
        System::Cr3 => state.cr3 = value,
        System::Cr4 => state.cr4 = value,
        System::Efer => state.efer = value,
        System::Xcr0 => state.xcr0 = value,
        System::Dr(n) => {
            if let Some(dr) = state.dr.get_mut(usize::from(n)) {
                *dr = value;
            }
        }
        System::Dr6 => state.dr6 = value,
        System::Dr7 => state.dr7 = value,
        System::GdtBase => state.gdtr.base = value,
        System::IdtBase => state.idtr.base = value,
        System::Cr8 | System::Ldtr | System::Tr => return Err(Refused),
    }
    Ok(())
}
