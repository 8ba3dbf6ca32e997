//! MXCSR, clearing registers, fences and hints.

use core::sync::atomic::{Ordering, fence};

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

/// Bits of MXCSR that exist: DAZ is supported, 31:16 are reserved (SDM vol. 1 §10.2.3).
pub(super) const MXCSR_MASK: u32 = 0xFFFF;

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run: Handler = match instr.mnemonic() {
        Mnemonic::Ldmxcsr => |cpu, op| {
            cpu.check_sse()?;
            load_mxcsr(cpu, op)
        },
        Mnemonic::Vldmxcsr => |cpu, op| {
            cpu.check_avx()?;
            load_mxcsr(cpu, op)
        },
        Mnemonic::Stmxcsr => |cpu, op| {
            cpu.check_sse()?;
            store_mxcsr(cpu, op)
        },
        Mnemonic::Vstmxcsr => |cpu, op| {
            cpu.check_avx()?;
            store_mxcsr(cpu, op)
        },
        Mnemonic::Vzeroall => vzeroall,
        Mnemonic::Vzeroupper => vzeroupper,
        Mnemonic::Mfence => |_, _| {
            fence(Ordering::SeqCst);
            Ok(())
        },
        // Loads and stores of one vCPU are made in order, with the host's own ordering.
        Mnemonic::Lfence
        | Mnemonic::Sfence
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1 => |_, _| Ok(()),
        _ => return None,
    };
    Some(Lowered::plain(run))
}

fn load_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let ea = cpu.ea(op);
    let value: u32 = cpu.read(op.mem.seg, ea)?;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.gp(0));
    }
    cpu.state.vector.set_mxcsr(value);
    Ok(())
}

fn store_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let ea = cpu.ea(op);
    cpu.write(op.mem.seg, ea, cpu.state.vector.mxcsr())
}

/// The registers that the mode can name: eight outside of 64-bit code.
fn reachable(cpu: &Cpu) -> usize {
    if cpu.code64() { 16 } else { 8 }
}

fn vzeroall(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let n = reachable(cpu);
    for ymm in cpu.state.vector.ymm.iter_mut().take(n) {
        *ymm = [0; 4];
    }
    Ok(())
}

fn vzeroupper(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let n = reachable(cpu);
    for ymm in cpu.state.vector.ymm.iter_mut().take(n) {
        let [a, b, ..] = *ymm;
        *ymm = [a, b, 0, 0];
    }
    Ok(())
}
