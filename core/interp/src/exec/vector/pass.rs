//! Instructions that the host's CPU executes; here are their checks, operands and exceptions.

use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind};
use kasane_passthrough::{
    Direction, HostFault, HostFeatures, Key, Location, Operand, Prepared, Registers, Scratch, Unit,
};

use crate::cpu::{Cpu, Stop};
use crate::exec::missing;
use crate::op::{Lowered, Op};

/// The handler of an instruction that may be passed through, as far as can be told by its
/// features; a host may still refuse it when it is executed.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let features = instr.cpuid_features();
    if !features.iter().all(|f| HostFeatures(u32::MAX).allows(*f)) {
        return None;
    }
    let x87 = features
        .iter()
        .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387));
    // From memory, these name no vector register.
    let mut vector = matches!(
        instr.mnemonic(),
        Mnemonic::Cvtss2si
            | Mnemonic::Cvttss2si
            | Mnemonic::Cvtsd2si
            | Mnemonic::Cvttsd2si
            | Mnemonic::Vcvtss2si
            | Mnemonic::Vcvttss2si
            | Mnemonic::Vcvtsd2si
            | Mnemonic::Vcvttsd2si
    );
    let mut mmx = false;
    for i in 0..instr.op_count() {
        if instr.op_kind(i) == OpKind::Register {
            vector |= instr.op_register(i).is_vector_register();
            mmx |= instr.op_register(i).is_mm();
        }
    }
    let run = match instr.encoding() {
        EncodingKind::Legacy if x87 && waits(instr.mnemonic()) => x87_waiting,
        EncodingKind::Legacy if x87 => x87_not_waiting,
        EncodingKind::Legacy if mmx && vector => mmx_and_xmm,
        EncodingKind::Legacy if mmx => mmx_only,
        EncodingKind::Legacy if vector => sse,
        EncodingKind::VEX if vector => avx,
        _ => return None,
    };
    Some(Lowered { imm: Key::of(instr).to_bits(), ..Lowered::plain(run) })
}

/// Whether an x87 instruction first looks for pending exceptions.
fn waits(mnemonic: Mnemonic) -> bool {
    !matches!(
        mnemonic,
        Mnemonic::Fninit
            | Mnemonic::Fnclex
            | Mnemonic::Fnstcw
            | Mnemonic::Fnstsw
            | Mnemonic::Fneni
            | Mnemonic::Fndisi
            | Mnemonic::Fnsetpm
    )
}

fn sse(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    pass(cpu, op)
}

fn avx(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    pass(cpu, op)
}

fn mmx_only(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_mmx(false)?;
    pass(cpu, op)
}

fn mmx_and_xmm(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_mmx(true)?;
    pass(cpu, op)
}

fn x87_waiting(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_x87()?;
    cpu.check_pending()?;
    pass(cpu, op)
}

fn x87_not_waiting(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_x87()?;
    pass(cpu, op)
}

/// Runs the instruction, whose checks are done.
fn pass(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let Some(through) = cpu.passthrough.as_mut() else { return missing(cpu, op) };
    let Ok(prepared) = through.prepare_keyed(Key::from_bits(op.imm), &op.instr) else {
        return missing(cpu, op);
    };
    let mut scratch = Scratch::default();
    match prepared.operand() {
        None => {
            execute(cpu, op, &prepared, &mut scratch, 0)?;
            Ok(())
        }
        Some(operand) => {
            let ea = cpu.ea(op);
            if operand.alignment > 1 {
                cpu.check_aligned(op, ea, u64::from(operand.alignment))?;
            }

            match operand.direction {
                Direction::Read => {
                    if let Some(bytes) = scratch.0.get_mut(..usize::from(operand.size)) {
                        cpu.read_bytes(op, ea, bytes)?;
                    }
                    execute(cpu, op, &prepared, &mut scratch, ea)?;
                    Ok(())
                }
                Direction::Write => store(cpu, op, &prepared, &mut scratch, (ea, operand)),
            }
        }
    }
}

/// Runs an instruction that stores. The store may fault after the instruction has changed the
/// x87 stack or MXCSR, so these go back then.
fn store(
    cpu: &mut Cpu,
    op: &Op,
    prepared: &Prepared,
    scratch: &mut Scratch,
    (ea, operand): (u64, Operand),
) -> Result<(), Stop> {
    let v = &cpu.state.vector;
    let mxcsr = v.mxcsr();
    let image = match prepared.unit() {
        Unit::X87 | Unit::Mmx => Some((v.fx, v.fcs, v.fds)),
        Unit::Sse | Unit::Avx => None,
    };
    let stored = execute(cpu, op, prepared, scratch, ea)?;
    if !stored {
        return Ok(());
    }
    let bytes = scratch.0.get(..usize::from(operand.size)).unwrap_or_default();
    let written = cpu.write_bytes(op, ea, bytes);
    if written.is_err() {
        let v = &mut cpu.state.vector;
        v.set_mxcsr(mxcsr);
        if let Some((fx, fcs, fds)) = image {
            (v.fx, v.fcs, v.fds) = (fx, fcs, fds);
        }
    }
    written
}

/// Runs the stub; gives whether a memory operand that is written was written.
#[inline(always)]
fn execute(
    cpu: &mut Cpu,
    op: &Op,
    prepared: &Prepared,
    scratch: &mut Scratch,
    ea: u64,
) -> Result<bool, Stop> {
    // Selectors are zero: FCS and FDS are deprecated (SDM vol. 1 §8.1.8). In real mode the
    // pointers are linear, which is what the real-mode images hold.
    let real = !cpu.protected() || cpu.v86();
    let linear = |seg: usize| if real { cpu.mode.base.get(seg).copied().unwrap_or(0) } else { 0 };
    let location = Location {
        instruction: &op.instr,
        rip: cpu.state.rip.wrapping_add(linear(1)),
        cs: 0,
        operand: ea.wrapping_add(linear(op.mem.seg as usize)),
        ds: 0,
    };
    let Some(through) = cpu.passthrough.as_mut() else { return Ok(false) };
    let state = &mut cpu.state;
    let mut registers =
        Registers { gpr: &mut state.gpr, rflags: &mut state.rflags, vector: &mut state.vector };
    match through.run(prepared, &mut registers, scratch, &location) {
        Ok(completed) => Ok(completed.stored),
        Err(HostFault::SimdFp) => Err(cpu.xm()),
        Err(HostFault::X87Fp) => Err(cpu.raise(kasane_spec_x86::vector::MF, None)),
        Err(HostFault::Undefined | HostFault::Stale | HostFault::Other(_)) => {
            Err(missing(cpu, op).err().unwrap_or(Stop::Fault))
        }
    }
}
