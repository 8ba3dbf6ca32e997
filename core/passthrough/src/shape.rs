//! What a stub has to know about an instruction: its registers, its memory operand, its control
//! registers; and whether it may be passed through at all.

use alloc::format;

use iced_x86::{
    EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    RflagsBits,
};

use crate::features::HostFeatures;

/// Which part of the processor an instruction belongs to: it decides the checks that the caller
/// makes before (CR0.EM, CR0.TS, CR4.OSFXSR, XCR0, pending x87 exceptions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// x87.
    X87,
    /// MMX registers, perhaps with XMM registers (CVTPI2PS, MOVQ2DQ).
    Mmx,
    /// Legacy-encoded XMM.
    Sse,
    /// VEX-encoded XMM or YMM.
    Avx,
}

/// What an instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Reads it.
    Read,
    /// Writes all of it.
    Write,
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Bytes: 1 to 32.
    pub size: u8,
    /// Read or written.
    pub direction: Direction,
    /// The alignment that the instruction demands (else #GP(0)); 1 is none.
    pub alignment: u8,
}

/// Why an instruction is not passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its CPUID feature is not on the list, or the host lacks it.
    Feature,
    /// Its operands are of a form that a stub can't hold.
    Operands,
    /// It is one that software has to do.
    Instruction,
}

/// Everything that a stub is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which unit.
    pub unit: Unit,
    /// The memory operand, if any.
    pub operand: Option<Operand>,
    /// The instruction with its memory operand at `[R9]` and its explicit general-purpose
    /// registers renamed to RAX, RCX, RDX.
    pub(crate) normal: Instruction,
    /// For RAX, RCX, RDX of the stub: which guest register it stands for.
    pub(crate) gpr: [Option<GprUse>; 3],
    /// Bit n: XMMn/YMMn is loaded before.
    pub(crate) vectors_used: u16,
    /// Bit n: XMMn/YMMn is stored after.
    pub(crate) vectors_written: u16,
    /// Arithmetic flags are read or written.
    pub(crate) flags: bool,
    /// MXCSR matters.
    pub(crate) mxcsr: bool,
    /// FLDCW, FNSTCW or FNSTSW: stores whatever exceptions are pending, and leaves the pointers.
    pub(crate) control: bool,
}

/// A general-purpose register of the guest that a stub uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GprUse {
    /// The guest's register number.
    pub(crate) guest: u8,
    /// Stored back.
    pub(crate) written: bool,
}

/// The registers of a stub that stand for guest registers, by width.
const SLOTS: [[Register; 3]; 3] = [
    [Register::AX, Register::CX, Register::DX],
    [Register::EAX, Register::ECX, Register::EDX],
    [Register::RAX, Register::RCX, Register::RDX],
];

/// The register through which a stub reaches its memory operand.
pub(crate) const MEMORY_BASE: Register = Register::R9;

/// Finds the shape of `instruction`.
///
/// # Errors
/// When it may not be passed to a host with `features`.
pub fn analyse(
    instruction: &Instruction,
    features: HostFeatures,
    factory: &mut InstructionInfoFactory,
) -> Result<Shape, Refusal> {
    if !instruction.cpuid_features().iter().all(|f| features.allows(*f)) {
        return Err(Refusal::Feature);
    }
    if in_software(instruction.mnemonic()) || instruction.is_vsib() || instruction.has_op_mask() {
        return Err(Refusal::Instruction);
    }
    let (normal, renamed) = normalise(instruction)?;
    let info = factory.info(&normal);
    let operand = operand_of(&normal, info.used_memory())?;
    let mut shape = Shape {
        unit: Unit::Sse,
        operand,
        normal,
        gpr: [None; 3],
        vectors_used: 0,
        vectors_written: 0,
        flags: (normal.rflags_read() | normal.rflags_modified()) & ARITHMETIC != 0,
        mxcsr: false,
        control: matches!(normal.mnemonic(), Mnemonic::Fldcw | Mnemonic::Fnstcw | Mnemonic::Fnstsw),
    };
    let mut mmx = normal.mnemonic() == Mnemonic::Emms;
    for used in info.used_registers() {
        let register = used.register();
        let written = is_write(used.access());
        if register.is_vector_register() {
            let bit = 1u16.checked_shl(register.number() as u32).unwrap_or(0);
            shape.vectors_used |= bit;
            if written {
                shape.vectors_written |= bit;
            }
        } else if register.is_mm() {
            mmx = true;
        } else if register.is_gpr() && register.full_register() != MEMORY_BASE {
            add_gpr(&mut shape, &renamed, register, written)?;
        }
    }
    let name = format!("{:?}", normal.mnemonic());
    // CVTSD2SI from memory is a vector instruction without a vector register.
    let vector = shape.vectors_used != 0 || name.starts_with("Cvt") || name.starts_with("Vcvt");
    shape.unit = match normal.encoding() {
        EncodingKind::Legacy if name.starts_with('F') => Unit::X87,
        EncodingKind::Legacy if mmx => Unit::Mmx,
        EncodingKind::Legacy if vector => Unit::Sse,
        EncodingKind::VEX if vector => Unit::Avx,
        // EVEX and what else iced knows; the enum is open.
        _ => return Err(Refusal::Instruction),
    };
    shape.mxcsr = vector && !ignores_mxcsr(&name);
    Ok(shape)
}

/// CF, PF, AF, ZF, SF, OF as iced names them.
const ARITHMETIC: u32 = RflagsBits::CF
    | RflagsBits::PF
    | RflagsBits::AF
    | RflagsBits::ZF
    | RflagsBits::SF
    | RflagsBits::OF;

/// Instructions of allowed features that are not passed through: their memory operand is
/// conditional or an image of state, or they are pure state changes that software does better.
fn in_software(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Ldmxcsr
            | Mnemonic::Stmxcsr
            | Mnemonic::Vldmxcsr
            | Mnemonic::Vstmxcsr
            | Mnemonic::Fldenv
            | Mnemonic::Fnstenv
            | Mnemonic::Fstenv
            | Mnemonic::Frstor
            | Mnemonic::Fnsave
            | Mnemonic::Fsave
            | Mnemonic::Fxsave
            | Mnemonic::Fxsave64
            | Mnemonic::Fxrstor
            | Mnemonic::Fxrstor64
            | Mnemonic::Femms
            | Mnemonic::Wait
            | Mnemonic::Maskmovq
            | Mnemonic::Maskmovdqu
            | Mnemonic::Vmaskmovdqu
            | Mnemonic::Vmaskmovps
            | Mnemonic::Vmaskmovpd
            | Mnemonic::Vpmaskmovd
            | Mnemonic::Vpmaskmovq
            | Mnemonic::Vzeroall
            | Mnemonic::Vzeroupper
    )
}

/// Whether an instruction on vector registers, by its name, neither reads nor writes MXCSR. Only
/// names that are surely integer, logic or data movement: to say no is always right.
fn ignores_mxcsr(name: &str) -> bool {
    const PREFIXES: [&str; 21] = [
        "P",
        "Mov",
        "And",
        "Or",
        "Xor",
        "Unpck",
        "Shuf",
        "Aes",
        "Sha",
        "Blend",
        "Insert",
        "Extract",
        "Lddqu",
        "Broadcast",
        "Perm",
        "Test",
        "Zero",
        "Mpsadbw",
        "Movq",
        "Extr",
        "Ins",
    ];
    let legacy = PREFIXES.iter().any(|p| name.starts_with(p));
    let vex = name.strip_prefix('V').is_some_and(|rest| {
        PREFIXES
            .iter()
            .any(|p| rest.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p)))
    });
    legacy || vex
}

/// Moves the memory operand to `[R9]` and the explicit general-purpose registers to the slots.
/// Gives the slots' guest registers.
fn normalise(instruction: &Instruction) -> Result<(Instruction, [Option<u8>; 3]), Refusal> {
    let mut normal = *instruction;
    let mut renamed = [None; 3];
    normal.set_has_lock_prefix(false);
    normal.set_has_rep_prefix(false);
    normal.set_has_repne_prefix(false);
    normal.set_has_xacquire_prefix(false);
    normal.set_has_xrelease_prefix(false);
    normal.set_segment_prefix(Register::None);
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Register => {
                let register = instruction.op_register(i);
                if register.is_gpr() {
                    normal.set_op_register(i, rename(register, &mut renamed)?);
                }
            }
            OpKind::Memory => {
                normal.set_memory_base(MEMORY_BASE);
                normal.set_memory_index(Register::None);
                normal.set_memory_index_scale(1);
                normal.set_memory_displacement64(0);
                normal.set_memory_displ_size(0);
            }
            OpKind::Immediate8 => {}
            _ => return Err(Refusal::Operands),
        }
    }
    Ok((normal, renamed))
}

/// The slot that stands for `register`.
fn rename(register: Register, renamed: &mut [Option<u8>; 3]) -> Result<Register, Refusal> {
    let guest = register.full_register().number() as u8;
    let widths = match register.size() {
        2 => &SLOTS[0],
        4 => &SLOTS[1],
        8 => &SLOTS[2],
        _ => return Err(Refusal::Operands),
    };
    for (slot, name) in renamed.iter_mut().zip(widths) {
        match slot {
            Some(taken) if *taken == guest => return Ok(*name),
            Some(_) => {}
            None => {
                *slot = Some(guest);
                return Ok(*name);
            }
        }
    }
    Err(Refusal::Operands)
}

/// Notes that the normal form uses `register`: a slot, or an implicit register that keeps its
/// name (PCMPESTRI's EAX, EDX and ECX). The two never come together.
fn add_gpr(
    shape: &mut Shape,
    renamed: &[Option<u8>; 3],
    register: Register,
    written: bool,
) -> Result<(), Refusal> {
    let full = register.full_register();
    let Some(slot) = SLOTS[2].iter().position(|r| *r == full) else {
        return Err(Refusal::Operands);
    };
    let explicit = renamed.first().copied().flatten().is_some();
    let guest = match renamed.get(slot).copied().flatten() {
        Some(guest) => guest,
        None if explicit => return Err(Refusal::Operands),
        None => full.number() as u8,
    };
    if let Some(entry) = shape.gpr.get_mut(slot) {
        let before = entry.is_some_and(|e| e.written);
        *entry = Some(GprUse { guest, written: written || before });
    }
    Ok(())
}

fn is_write(access: OpAccess) -> bool {
    match access {
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
            true
        }
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess => false,
    }
}

/// The one memory operand, or nothing; an error if there are several or a strange one.
fn operand_of(
    normal: &Instruction,
    used: &[iced_x86::UsedMemory],
) -> Result<Option<Operand>, Refusal> {
    let explicit = (0..normal.op_count()).filter(|i| normal.op_kind(*i) == OpKind::Memory).count();
    let one = match (used, explicit) {
        ([], 0) => return Ok(None),
        ([one], 1) => one,
        _ => return Err(Refusal::Operands),
    };
    let direction = match one.access() {
        OpAccess::Read => Direction::Read,
        OpAccess::Write => Direction::Write,
        OpAccess::None
        | OpAccess::CondRead
        | OpAccess::CondWrite
        | OpAccess::ReadWrite
        | OpAccess::ReadCondWrite
        | OpAccess::NoMemAccess => return Err(Refusal::Operands),
    };
    let size = match u8::try_from(normal.memory_size().size()) {
        Ok(size @ 1..=32) => size,
        Ok(_) | Err(_) => return Err(Refusal::Operands),
    };
    Ok(Some(Operand { size, direction, alignment: alignment(normal, size) }))
}

/// Alignment demanded of a memory operand: SDM vol. 1 §14.9 for VEX; for legacy SSE every 16-byte
/// operand but those of the instructions that say otherwise.
fn alignment(normal: &Instruction, size: u8) -> u8 {
    let strict = match normal.encoding() {
        EncodingKind::Legacy => {
            size == 16
                && !matches!(
                    normal.mnemonic(),
                    Mnemonic::Movups
                        | Mnemonic::Movupd
                        | Mnemonic::Movdqu
                        | Mnemonic::Lddqu
                        | Mnemonic::Pcmpestri
                        | Mnemonic::Pcmpestrm
                        | Mnemonic::Pcmpestri64
                        | Mnemonic::Pcmpestrm64
                        | Mnemonic::Pcmpistri
                        | Mnemonic::Pcmpistrm
                )
        }
        EncodingKind::VEX => matches!(
            normal.mnemonic(),
            Mnemonic::Vmovaps
                | Mnemonic::Vmovapd
                | Mnemonic::Vmovdqa
                | Mnemonic::Vmovntps
                | Mnemonic::Vmovntpd
                | Mnemonic::Vmovntdq
                | Mnemonic::Vmovntdqa
        ),
        _ => true,
    };
    if strict { size } else { 1 }
}
