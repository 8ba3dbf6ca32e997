//! The processor itself: CPUID, HLT, hypercalls, caches, software interrupts.

use iced_x86::Mnemonic;
use kasane_cpu::cpuid::{CpuidView, Leaf};
use kasane_cpu::{Activity, Exit, Gpr};
use kasane_spec_x86::control::cr4;
use kasane_spec_x86::{flags, vector};

use crate::cpu::{Cpu, Stop};
use crate::deliver::Source;
use crate::op::Op;

/// KVM's answer to a hypercall from user mode.
const NOT_PERMITTED: u64 = u64::MAX;

impl Cpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        let view = CpuidView {
            apic_id: self.index,
            cpus: self.cpus,
            osxsave: self.cr4(cr4::OSXSAVE),
            apic_on: self.state.msrs.apic_base & 1 << 11 != 0,
            xcr0: self.state.xcr0,
            tsc_hz: self.tsc_hz,
        };
        self.model.query(leaf, subleaf, &view)
    }
    /// Family, model and stepping, which EDX holds after RESET and INIT.
    pub(crate) fn signature(&self) -> u32 {
        self.cpuid(1, 0).eax
    }
}

/// CPUID.
pub(super) fn cpuid(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    Cpu::serialize();
    let leaf = cpu.cpuid(cpu.reg(Gpr::Rax) as u32, cpu.reg(Gpr::Rcx) as u32);
    cpu.set_reg(Gpr::Rax, u64::from(leaf.eax));
    cpu.set_reg(Gpr::Rbx, u64::from(leaf.ebx));
    cpu.set_reg(Gpr::Rcx, u64::from(leaf.ecx));
    cpu.set_reg(Gpr::Rdx, u64::from(leaf.edx));
    Ok(())
}

/// HLT.
pub(super) fn hlt(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.need_ring0()?;
    cpu.state.activity = Activity::Halted;
    cpu.attention = true;
    Err(Stop::Break)
}

/// VMCALL, VMMCALL.
pub(super) fn hypercall(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let answer = if cpu.cpl() == 0 { cpu.ask(Exit::Hypercall)? } else { NOT_PERMITTED };
    cpu.set_reg(Gpr::Rax, answer);
    Err(Stop::Break)
}

/// INVD, WBINVD: there is no cache to write back.
pub(super) fn cache(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    Cpu::serialize();
    cpu.need_ring0()
}

/// Instructions that CPUID hides, or that are only good where we never are (RSM outside of SMM).
pub(super) fn hidden(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    Err(cpu.ud())
}

/// INT n, INT3, INTO, INT1.
pub(super) fn interrupt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    match op.instr.mnemonic() {
        Mnemonic::Int3 => cpu.software_interrupt(vector::BP, Source::Breakpoint),
        Mnemonic::Int1 => cpu.software_interrupt(vector::DB, Source::Icebp),
        Mnemonic::Into if !cpu.flag(flags::OF) => Ok(()),
        Mnemonic::Into => cpu.software_interrupt(vector::OF, Source::Breakpoint),
        _ => {
            // INT n with IOPL below 3 in virtual-8086 mode is decided in `software_interrupt`.
            cpu.software_interrupt(op.instr.immediate8(), Source::Interrupt)
        }
    }
}
