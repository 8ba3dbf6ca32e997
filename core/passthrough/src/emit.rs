//! Makes the machine code of a stub.
//!
//! Register use inside a stub: RDI the [`StateBlock`], RSI the guest's `VectorState`, R8 its
//! general-purpose registers, R9 the memory operand, RAX/RCX/RDX the instruction's own. All are
//! caller-saved in the System V convention, so nothing has to be kept.
//!
//! VEX-encoded instructions get whole YMM registers and end with VZEROUPPER. Legacy SSE
//! instructions get XMM registers only: they don't change the upper halves, which stay in memory.
//!
//! x87 and MMX instructions run between FXRSTOR64 and FXSAVE64 of the guest's image. The host's
//! x87 state is empty by the calling convention but for its control word, which is kept in the
//! state block, like the host's MXCSR.

use alloc::vec::Vec;
use core::mem::offset_of;

use iced_x86::{Code, CodeSize, Encoder, Instruction, MemoryOperand, Register};
use kasane_cpu::VectorState;

use crate::shape::{MEMORY_BASE, Shape, Unit};

/// What RDI points to in a stub.
#[repr(C)]
pub(crate) struct StateBlock {
    /// `VectorState`.
    pub(crate) vector: *mut u8,
    /// Sixteen 64-bit registers.
    pub(crate) gpr: *mut u8,
    /// 64 bytes, aligned to 64.
    pub(crate) scratch: *mut u8,
    /// RFLAGS in, RFLAGS out.
    pub(crate) flags: u64,
    /// Kept across the stub.
    pub(crate) host_mxcsr: u32,
    /// Kept across the stub.
    pub(crate) host_fcw: u16,
}

/// How a stub is left after a host exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// No control register was changed.
    Plain,
    /// MXCSR goes back to the guest, the host's is loaded.
    Mxcsr,
    /// The whole FXSAVE image goes back to the guest and the x87 unit is emptied.
    X87,
}

/// The instruction could not be encoded.
#[derive(Debug)]
pub(crate) struct EncodeError;

/// Offset of MXCSR in the FXSAVE image.
const FX_MXCSR: i64 = 24;
/// Offset of the FXSAVE image in `VectorState`.
const FX: i64 = offset_of!(VectorState, fx) as i64;
/// Offset of YMM0 in `VectorState`.
const YMM: i64 = offset_of!(VectorState, ymm) as i64;

/// A growing piece of code at a known address.
pub(crate) struct Emitter {
    encoder: Encoder,
    address: u64,
    len: usize,
}

impl Emitter {
    pub(crate) fn new(address: u64) -> Self {
        Self { encoder: Encoder::new(64), address, len: 0 }
    }

    fn push(&mut self, instruction: &Instruction) -> Result<(), EncodeError> {
        let at = self.address.wrapping_add(self.len as u64);
        let n = self.encoder.encode(instruction, at).map_err(|_| EncodeError)?;
        self.len = self.len.wrapping_add(n);
        Ok(())
    }

    /// An instruction with one memory operand.
    fn memory(&mut self, code: Code, base: Register, displacement: i64) -> Result<(), EncodeError> {
        let instruction =
            Instruction::with1(code, at(base, displacement)).map_err(|_| EncodeError)?;
        self.push(&instruction)
    }

    fn load(
        &mut self,
        code: Code,
        to: Register,
        base: Register,
        displacement: i64,
    ) -> Result<(), EncodeError> {
        let instruction =
            Instruction::with2(code, to, at(base, displacement)).map_err(|_| EncodeError)?;
        self.push(&instruction)
    }

    fn store(
        &mut self,
        code: Code,
        base: Register,
        displacement: i64,
        from: Register,
    ) -> Result<(), EncodeError> {
        let instruction =
            Instruction::with2(code, at(base, displacement), from).map_err(|_| EncodeError)?;
        self.push(&instruction)
    }

    fn finish(mut self) -> Vec<u8> {
        self.encoder.take_buffer()
    }

    /// Loads or stores the vector registers in `set`.
    fn vectors(&mut self, set: u16, unit: Unit, way: Way) -> Result<(), EncodeError> {
        for n in (0..16u8).filter(|n| set >> n & 1 != 0) {
            let displacement = YMM + i64::from(n) * 32;
            let whole = unit == Unit::Avx;
            let first = if whole { Register::YMM0 } else { Register::XMM0 };
            let register = first + u32::from(n);
            match (way, whole) {
                (Way::In, true) => {
                    self.load(Code::VEX_Vmovaps_ymm_ymmm256, register, Register::RSI, displacement)?
                }
                (Way::In, false) => {
                    self.load(Code::Movaps_xmm_xmmm128, register, Register::RSI, displacement)?;
                }
                (Way::Out, true) => self.store(
                    Code::VEX_Vmovaps_ymmm256_ymm,
                    Register::RSI,
                    displacement,
                    register,
                )?,
                (Way::Out, false) => {
                    self.store(Code::Movaps_xmmm128_xmm, Register::RSI, displacement, register)?;
                }
            }
        }
        Ok(())
    }

    /// Loads the general-purpose registers that `shape` uses, or stores those it wrote.
    fn general(&mut self, shape: &Shape, way: Way) -> Result<(), EncodeError> {
        for (slot, used) in [Register::RAX, Register::RCX, Register::RDX].iter().zip(shape.gpr) {
            let Some(used) = used else { continue };
            let displacement = i64::from(used.guest) * 8;
            match way {
                Way::In => {
                    self.load(Code::Mov_r64_rm64, *slot, Register::R8, displacement)?;
                }
                Way::Out if used.written => {
                    self.store(Code::Mov_rm64_r64, Register::R8, displacement, *slot)?;
                }
                Way::Out => {}
            }
        }
        Ok(())
    }

    fn control_in(&mut self, recovery: Recovery) -> Result<(), EncodeError> {
        match recovery {
            Recovery::Plain => Ok(()),
            Recovery::Mxcsr => {
                self.memory(Code::Stmxcsr_m32, Register::RDI, HOST_MXCSR)?;
                self.memory(Code::Ldmxcsr_m32, Register::RSI, FX + FX_MXCSR)
            }
            Recovery::X87 => {
                self.memory(Code::Stmxcsr_m32, Register::RDI, HOST_MXCSR)?;
                self.memory(Code::Fnstcw_m2byte, Register::RDI, HOST_FCW)?;
                self.memory(Code::Fxrstor64_m512byte, Register::RSI, FX)
            }
        }
    }

    /// Gives the host its control registers back and returns.
    fn leave(&mut self, recovery: Recovery, host_has_avx: bool) -> Result<(), EncodeError> {
        match recovery {
            Recovery::Plain => {}
            Recovery::Mxcsr => {
                self.memory(Code::Stmxcsr_m32, Register::RSI, FX + FX_MXCSR)?;
                self.memory(Code::Ldmxcsr_m32, Register::RDI, HOST_MXCSR)?;
            }
            Recovery::X87 => {
                self.memory(Code::Fxsave64_m512byte, Register::RSI, FX)?;
                self.push(&Instruction::with(Code::Fninit))?;
                self.memory(Code::Fldcw_m2byte, Register::RDI, HOST_FCW)?;
                self.memory(Code::Ldmxcsr_m32, Register::RDI, HOST_MXCSR)?;
            }
        }
        if host_has_avx {
            self.push(&Instruction::with(Code::VEX_Vzeroupper))?;
        }
        self.push(&Instruction::with(Code::Retnq))
    }
}

#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

const HOST_MXCSR: i64 = offset_of!(StateBlock, host_mxcsr) as i64;
const HOST_FCW: i64 = offset_of!(StateBlock, host_fcw) as i64;
const FLAGS: i64 = offset_of!(StateBlock, flags) as i64;

fn at(base: Register, displacement: i64) -> MemoryOperand {
    MemoryOperand::with_base_displ(base, displacement)
}

/// The way out of a stub of this shape after an exception.
pub(crate) fn recovery_of(shape: &Shape) -> Recovery {
    match shape.unit {
        Unit::X87 | Unit::Mmx => Recovery::X87,
        Unit::Sse | Unit::Avx if shape.mxcsr => Recovery::Mxcsr,
        Unit::Sse | Unit::Avx => Recovery::Plain,
    }
}

/// Code of a recovery path.
pub(crate) fn recovery_code(
    recovery: Recovery,
    address: u64,
    host_has_avx: bool,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = Emitter::new(address);
    out.leave(recovery, host_has_avx)?;
    Ok(out.finish())
}

/// Code of a stub and the offset of the instruction itself in it.
pub(crate) fn stub(shape: &Shape, address: u64) -> Result<(Vec<u8>, usize), EncodeError> {
    let recovery = recovery_of(shape);
    let mut out = Emitter::new(address);
    let pointer = |field: usize| field as i64;
    out.load(
        Code::Mov_r64_rm64,
        Register::RSI,
        Register::RDI,
        pointer(offset_of!(StateBlock, vector)),
    )?;
    if shape.gpr.iter().any(Option::is_some) {
        out.load(
            Code::Mov_r64_rm64,
            Register::R8,
            Register::RDI,
            pointer(offset_of!(StateBlock, gpr)),
        )?;
    }
    if shape.operand.is_some() {
        out.load(
            Code::Mov_r64_rm64,
            MEMORY_BASE,
            Register::RDI,
            pointer(offset_of!(StateBlock, scratch)),
        )?;
    }
    out.control_in(recovery)?;
    out.vectors(shape.vectors_used, shape.unit, Way::In)?;
    out.general(shape, Way::In)?;
    if shape.flags {
        out.memory(Code::Push_rm64, Register::RDI, FLAGS)?;
        out.push(&Instruction::with(Code::Popfq))?;
    }
    let instruction_at = out.len;
    out.push(&shape.normal)?;
    if shape.flags {
        out.push(&Instruction::with(Code::Pushfq))?;
        out.memory(Code::Pop_rm64, Register::RDI, FLAGS)?;
    }
    out.general(shape, Way::Out)?;
    out.vectors(shape.vectors_written, shape.unit, Way::Out)?;
    out.leave(recovery, shape.unit == Unit::Avx)?;
    Ok((out.finish(), instruction_at))
}

/// FOP of an x87 instruction: the low three bits of its first opcode byte and its ModRM byte
/// (SDM vol. 1 §8.1.9).
pub(crate) fn x87_opcode(instruction: &Instruction) -> Option<u16> {
    let bits = match instruction.code_size() {
        CodeSize::Code16 => 16,
        CodeSize::Code32 => 32,
        CodeSize::Code64 | CodeSize::Unknown => 64,
    };
    let mut encoder = Encoder::new(bits);
    encoder.encode(instruction, 0).ok()?;
    let bytes = encoder.take_buffer();
    let at = bytes.iter().position(|b| (0xD8..=0xDF).contains(b))?;
    let first = u16::from(*bytes.get(at)?);
    let modrm = u16::from(*bytes.get(at.checked_add(1)?)?);
    Some((first & 7) << 8 | modrm)
}
