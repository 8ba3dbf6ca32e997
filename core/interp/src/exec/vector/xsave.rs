//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, XGETBV, XSETBV (SDM vol. 1 chapter 13).
//!
//! Components are x87, SSE and AVX. A component is *in use* (XINUSE) when its registers differ
//! from their initial values: a function of the state, so that nothing more has to be saved.

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::cpuid::Feature;
use kasane_cpu::{Gpr, VectorState};
use kasane_spec_x86::control::{cr0, cr4, xcr0};

use super::fxsave::{MXCSR, Pointers, mxcsr_of, mxcsr_out, put, reachable, take, x87_in, x87_out};
use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

/// Offset of the header, and of its XCOMP_BV.
const HEADER: usize = 512;
const XCOMP_BV: usize = 520;
/// Offset of the AVX component, in both formats: it is the only extended one.
const AVX: usize = 576;
const AREA: usize = AVX + 256;
/// XCOMP_BV: the area has the compacted format.
const COMPACTED: u64 = 1 << 63;

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    use Pointers::{Narrow, Wide};
    let run: Handler = match instr.mnemonic() {
        Mnemonic::Xsave => |cpu, op| save(cpu, op, Narrow, Form::Standard),
        Mnemonic::Xsave64 => |cpu, op| save(cpu, op, Wide, Form::Standard),
        Mnemonic::Xsaveopt => |cpu, op| save(cpu, op, Narrow, Form::Optimized),
        Mnemonic::Xsaveopt64 => |cpu, op| save(cpu, op, Wide, Form::Optimized),
        Mnemonic::Xsavec => |cpu, op| save(cpu, op, Narrow, Form::Compacted),
        Mnemonic::Xsavec64 => |cpu, op| save(cpu, op, Wide, Form::Compacted),
        Mnemonic::Xsaves => |cpu, op| supervisor_save(cpu, op, Narrow),
        Mnemonic::Xsaves64 => |cpu, op| supervisor_save(cpu, op, Wide),
        Mnemonic::Xrstor => |cpu, op| restore(cpu, op, Narrow, Accepts::Both),
        Mnemonic::Xrstor64 => |cpu, op| restore(cpu, op, Wide, Accepts::Both),
        Mnemonic::Xrstors => |cpu, op| supervisor_restore(cpu, op, Narrow),
        Mnemonic::Xrstors64 => |cpu, op| supervisor_restore(cpu, op, Wide),
        Mnemonic::Xgetbv => xgetbv,
        Mnemonic::Xsetbv => xsetbv,
        _ => return None,
    };
    Some(Lowered::plain(run))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// XSAVE: all requested components.
    Standard,
    /// XSAVEOPT: of them those in use.
    Optimized,
    /// XSAVEC and XSAVES.
    Compacted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Both,
    CompactedOnly,
}

/// Which components are not in their initial state. MXCSR does not count.
fn in_use(v: &VectorState) -> u64 {
    let x87 = v.fcw() != 0x037F
        || v.fsw() != 0
        || v.ftw() != 0
        || v.fop() != 0
        || v.fip() != 0
        || v.fdp() != 0
        || (0..8).any(|i| v.st(i) != [0; 10]);
    let sse = v.ymm.iter().any(|[a, b, ..]| a | b != 0);
    let avx = v.ymm.iter().any(|[.., c, d]| c | d != 0);
    u64::from(x87) | u64::from(sse) << 1 | u64::from(avx) << 2
}

impl Cpu {
    /// Checks of every XSAVE instruction; gives the operand's offset and RFBM.
    fn check_xsave(&mut self, op: &Op) -> Result<(u64, u64), Stop> {
        if !self.cr4(cr4::OSXSAVE) {
            return Err(self.ud());
        }
        if self.state.cr0 & cr0::TS != 0 {
            return Err(self.nm());
        }
        let ea = self.ea(op);
        self.check_aligned(op, ea, 64)?;
        let requested = self.reg(Gpr::Rax) & 0xFFFF_FFFF | self.reg(Gpr::Rdx) << 32;
        Ok((ea, requested & self.state.xcr0))
    }

    /// Writes a part of the area.
    fn area_out(
        &mut self,
        op: &Op,
        ea: u64,
        image: &[u8],
        part: core::ops::Range<usize>,
    ) -> Result<(), Stop> {
        let at = Self::within(op, ea, part.start as u64);
        self.write_bytes(op, at, image.get(part).unwrap_or_default())
    }
}

fn supervisor_save(cpu: &mut Cpu, op: &Op, pointers: Pointers) -> Result<(), Stop> {
    supervisor(cpu)?;
    save(cpu, op, pointers, Form::Compacted)
}

fn supervisor_restore(cpu: &mut Cpu, op: &Op, pointers: Pointers) -> Result<(), Stop> {
    supervisor(cpu)?;
    restore(cpu, op, pointers, Accepts::CompactedOnly)
}

/// #UD and #NM come before the privilege check.
fn supervisor(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr4(cr4::OSXSAVE) && cpu.state.cr0 & cr0::TS == 0 && cpu.cpl() != 0 {
        return Err(cpu.gp(0));
    }
    Ok(())
}

fn save(cpu: &mut Cpu, op: &Op, pointers: Pointers, form: Form) -> Result<(), Stop> {
    let (ea, rfbm) = cpu.check_xsave(op)?;
    let used = in_use(&cpu.state.vector);
    let mxcsr_differs = cpu.state.vector.mxcsr() != 0x1F80;
    let (saved, state_bv) = match form {
        Form::Standard => (rfbm, rfbm & used),
        Form::Optimized => (rfbm & used, rfbm & used),
        Form::Compacted => {
            let sse = if mxcsr_differs { xcr0::SSE } else { 0 };
            (rfbm & (used | sse), rfbm & (used | sse))
        }
    };
    let old: u64 = match form {
        Form::Compacted => 0,
        Form::Standard | Form::Optimized => {
            cpu.read(op.mem.seg, Cpu::within(op, ea, HEADER as u64))?
        }
    };
    let len = if saved & xcr0::AVX != 0 { AREA } else { AVX };
    cpu.probe_write(op.mem.seg, ea, len as u64)?;
    let mut image = [0u8; AREA];
    let n = reachable(cpu);
    x87_out(&cpu.state.vector, pointers, &mut image);
    mxcsr_out(&cpu.state.vector, &mut image);
    cpu.xmm_out(n, &mut image);
    for (i, [.., c, d]) in cpu.state.vector.ymm.into_iter().take(usize::from(n)).enumerate() {
        put(&mut image, AVX + 16 * i, &c.to_le_bytes());
        put(&mut image, AVX + 16 * i + 8, &d.to_le_bytes());
    }
    put(&mut image, HEADER, &(old & !rfbm | state_bv).to_le_bytes());
    put(&mut image, XCOMP_BV, &(rfbm | COMPACTED).to_le_bytes());
    let with_mxcsr = match form {
        Form::Standard | Form::Optimized => rfbm & (xcr0::SSE | xcr0::AVX) != 0,
        Form::Compacted => saved & xcr0::SSE != 0,
    };
    let registers = usize::from(n) * 16;
    if saved & xcr0::X87 != 0 {
        cpu.area_out(op, ea, &image, 0..MXCSR)?;
        cpu.area_out(op, ea, &image, 32..160)?;
    }
    if with_mxcsr {
        cpu.area_out(op, ea, &image, MXCSR..32)?;
    }
    if saved & xcr0::SSE != 0 {
        cpu.area_out(op, ea, &image, 160..160 + registers)?;
    }
    if saved & xcr0::AVX != 0 {
        cpu.area_out(op, ea, &image, AVX..AVX + registers)?;
    }
    // The compacted forms write XSTATE_BV and XCOMP_BV, the others only XSTATE_BV.
    let header = if form == Form::Compacted { HEADER..XCOMP_BV + 8 } else { HEADER..XCOMP_BV };
    cpu.area_out(op, ea, &image, header)
}

/// Checks the header; gives XSTATE_BV and whether the format is compacted.
fn header(cpu: &mut Cpu, image: &[u8], accepts: Accepts) -> Result<(u64, bool), Stop> {
    let [state_bv, comp_bv] = [HEADER, XCOMP_BV].map(|at| u64::from_le_bytes(take(image, at)));
    let compacted = comp_bv & COMPACTED != 0;
    let reserved_from = if compacted { 528..AVX } else { XCOMP_BV..536 };
    let reserved = image.get(reserved_from).unwrap_or_default().iter().any(|byte| *byte != 0);
    let wrong = if compacted {
        comp_bv & !COMPACTED & !cpu.state.xcr0 != 0 || state_bv & !comp_bv != 0
    } else {
        state_bv & !cpu.state.xcr0 != 0 || accepts == Accepts::CompactedOnly
    };
    if reserved || wrong { Err(cpu.gp(0)) } else { Ok((state_bv, compacted)) }
}

fn restore(cpu: &mut Cpu, op: &Op, pointers: Pointers, accepts: Accepts) -> Result<(), Stop> {
    let (ea, rfbm) = cpu.check_xsave(op)?;
    let mut image = [0u8; AREA];
    if let Some(part) = image.get_mut(..AVX) {
        cpu.read_bytes(op, ea, part)?;
    }
    let (state_bv, compacted) = header(cpu, &image, accepts)?;
    let loads = rfbm & state_bv;
    if loads & xcr0::AVX != 0
        && let Some(part) = image.get_mut(AVX..)
    {
        cpu.read_bytes(op, Cpu::within(op, ea, AVX as u64), part)?;
    }
    // The standard format loads MXCSR whatever XSTATE_BV says; the compacted one with SSE.
    let mxcsr = match (compacted, rfbm & xcr0::SSE != 0, loads & xcr0::SSE != 0) {
        (false, ..) if rfbm & (xcr0::SSE | xcr0::AVX) != 0 => mxcsr_of(&image),
        (true, true, true) => mxcsr_of(&image),
        (true, true, false) => Some(0x1F80),
        (false, ..) | (true, false, _) => Some(cpu.state.vector.mxcsr()),
    };
    let Some(mxcsr) = mxcsr else { return Err(cpu.gp(0)) };
    cpu.state.vector.set_mxcsr(mxcsr);
    if rfbm & xcr0::X87 != 0 {
        if loads & xcr0::X87 != 0 {
            x87_in(&mut cpu.state.vector, pointers, &image);
        } else {
            let mut initial = [0u8; AVX];
            put(&mut initial, 0, &0x037Fu16.to_le_bytes());
            x87_in(&mut cpu.state.vector, Pointers::Wide, &initial);
        }
    }
    let n = reachable(cpu);
    if rfbm & xcr0::SSE != 0 {
        let source = if loads & xcr0::SSE != 0 { &image } else { &[0; AREA] };
        cpu.xmm_in(n, source);
    }
    if rfbm & xcr0::AVX != 0 {
        let source = if loads & xcr0::AVX != 0 { &image } else { &[0; AREA] };
        for (i, ymm) in cpu.state.vector.ymm.iter_mut().take(usize::from(n)).enumerate() {
            let [a, b, ..] = *ymm;
            let word = |more: usize| u64::from_le_bytes(take(source, AVX + 16 * i + more));
            *ymm = [a, b, word(0), word(8)];
        }
    }
    Ok(())
}

fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if !cpu.cr4(cr4::OSXSAVE) {
        return Err(cpu.ud());
    }
    let value = match cpu.reg(Gpr::Rcx) as u32 {
        0 => cpu.state.xcr0,
        1 if cpu.model.has(Feature::Xgetbv1) => cpu.state.xcr0 & in_use(&cpu.state.vector),
        _ => return Err(cpu.gp(0)),
    };
    cpu.set_reg(Gpr::Rax, value & 0xFFFF_FFFF);
    cpu.set_reg(Gpr::Rdx, value >> 32);
    Ok(())
}

fn xsetbv(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if !cpu.cr4(cr4::OSXSAVE) {
        return Err(cpu.ud());
    }
    let value = cpu.reg(Gpr::Rax) & 0xFFFF_FFFF | cpu.reg(Gpr::Rdx) << 32;
    let bad = cpu.cpl() != 0
        || cpu.reg(Gpr::Rcx) as u32 != 0
        || value & !cpu.model.xcr0_supported() != 0
        || value & xcr0::X87 == 0
        || value & (xcr0::SSE | xcr0::AVX) == xcr0::AVX;
    if bad {
        return Err(cpu.gp(0));
    }
    cpu.state.xcr0 = value;
    Ok(())
}
