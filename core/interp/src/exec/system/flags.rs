//! RFLAGS as a whole: PUSHF, POPF, CLI, STI, STAC, CLAC (SDM vol. 2; vol. 3A §20.3 for VME).

use iced_x86::{Code, Mnemonic};
use kasane_cpu::cpuid::Feature;
use kasane_spec_x86::control::cr4;
use kasane_spec_x86::flags;

use crate::cpu::{Cpu, Shadow, Stop};
use crate::op::Op;

/// Flags that every POPF may change.
const POPF: u64 = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT | flags::AC | flags::ID;

/// How a program may change IF.
enum InterruptFlag {
    /// Itself.
    Real,
    /// VIF in its place.
    Virtual,
}

impl Cpu {
    fn iopl(&self) -> u8 {
        ((self.state.rflags & flags::IOPL) >> flags::IOPL_SHIFT) as u8
    }
    /// For CLI and STI.
    fn interrupt_flag(&mut self) -> Result<InterruptFlag, Stop> {
        if !self.protected() || self.iopl() >= self.cpl() {
            return Ok(InterruptFlag::Real);
        }
        let extension = if self.v86() { cr4::VME } else { cr4::PVI };
        if self.cpl() == 3 && self.cr4(extension) {
            return Ok(InterruptFlag::Virtual);
        }
        Err(self.gp(0))
    }
    /// In virtual-8086 mode with IOPL below 3, PUSHF and POPF are only there with VME and 16
    /// bits, and then IF means VIF.
    fn flags_are_virtual(&mut self, wide: bool) -> Result<bool, Stop> {
        if !self.v86() || self.iopl() == 3 {
            return Ok(false);
        }
        if self.cr4(cr4::VME) && !wide { Ok(true) } else { Err(self.gp(0)) }
    }
}

/// PUSHF.
pub(super) fn pushf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let is_virtual = cpu.flags_are_virtual(op.instr.code() != Code::Pushfw)?;
    let mut image = cpu.state.rflags & !(flags::VM | flags::RF);
    if is_virtual {
        let interrupts = if image & flags::VIF != 0 { flags::IF } else { 0 };
        image = image & !flags::IF | interrupts | flags::IOPL;
    }
    match op.instr.code() {
        Code::Pushfw => cpu.push(image as u16),
        Code::Pushfd => cpu.push(image as u32),
        _ => cpu.push(image),
    }
}

/// POPF.
pub(super) fn popf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let is_virtual = cpu.flags_are_virtual(op.instr.code() != Code::Popfw)?;
    let (image, bytes, width) = match op.instr.code() {
        Code::Popfw => (u64::from(cpu.peek::<u16>(0)?), 2, 0xFFFF),
        Code::Popfd => (u64::from(cpu.peek::<u32>(0)?), 4, u64::MAX),
        _ => (cpu.peek::<u64>(0)?, 8, u64::MAX),
    };
    let mut mask = POPF;
    if is_virtual {
        let wants = image & flags::IF != 0;
        if image & flags::TF != 0 || wants && cpu.flag(flags::VIP) {
            return Err(cpu.gp(0));
        }
        cpu.set_flags(flags::VIF, if wants { flags::VIF } else { 0 });
    } else {
        if cpu.cpl() == 0 {
            mask |= flags::IOPL;
        }
        if cpu.cpl() <= cpu.iopl() {
            mask |= flags::IF;
        }
    }
    cpu.drop_stack(bytes);
    cpu.set_flags(mask & width, image);
    cpu.refresh_mode();
    Err(Stop::Break)
}

/// CLI.
pub(super) fn cli(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    match cpu.interrupt_flag()? {
        InterruptFlag::Real => cpu.set_flags(flags::IF, 0),
        InterruptFlag::Virtual => cpu.set_flags(flags::VIF, 0),
    }
    Ok(())
}

/// STI: interrupts come after the next instruction.
pub(super) fn sti(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    match cpu.interrupt_flag()? {
        InterruptFlag::Real => {
            if !cpu.flag(flags::IF) {
                cpu.shadow = Shadow::Sti;
            }
            cpu.set_flags(flags::IF, flags::IF);
        }
        InterruptFlag::Virtual => {
            if cpu.flag(flags::VIP) {
                return Err(cpu.gp(0));
            }
            cpu.set_flags(flags::VIF, flags::VIF);
        }
    }
    Err(Stop::Break)
}

/// STAC, CLAC.
pub(super) fn access_check(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Smap) || cpu.cpl() != 0 || cpu.v86() {
        return Err(cpu.ud());
    }
    let on = op.instr.mnemonic() == Mnemonic::Stac;
    cpu.set_flags(flags::AC, if on { flags::AC } else { 0 });
    cpu.refresh_mode();
    Ok(())
}
