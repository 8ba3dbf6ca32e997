//! FXSAVE and FXRSTOR (SDM vol. 1 §10.5), and the legacy region that XSAVE shares with them.

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::VectorState;
use kasane_spec_x86::control::cr0;

use super::checks::summarize;
use super::control::MXCSR_MASK;
use super::fpu::control_word;
use super::operand::{join, split};
use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

/// Bytes that FXSAVE writes: the last 96 of its 512 are left alone.
const WRITTEN: usize = 416;
/// Offset of MXCSR and MXCSR_MASK.
pub(super) const MXCSR: usize = 24;
/// Offsets of the x87 and XMM registers.
const ST: usize = 32;
const XMM: usize = 160;

/// How the pointers are stored: REX.W gives 64 bits, else 32 bits and a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointers {
    /// 64-bit offsets.
    Wide,
    /// 32-bit offsets and selectors.
    Narrow,
}

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run: Handler = match instr.mnemonic() {
        Mnemonic::Fxsave => |cpu, op| fxsave(cpu, op, Pointers::Narrow),
        Mnemonic::Fxsave64 => |cpu, op| fxsave(cpu, op, Pointers::Wide),
        Mnemonic::Fxrstor => |cpu, op| fxrstor(cpu, op, Pointers::Narrow),
        Mnemonic::Fxrstor64 => |cpu, op| fxrstor(cpu, op, Pointers::Wide),
        _ => return None,
    };
    Some(Lowered::plain(run))
}

/// The bytes of an image at a constant place.
pub(super) fn take<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(from) = image.get(at..at.saturating_add(N)) {
        out.copy_from_slice(from);
    }
    out
}

/// Puts `bytes` at `at`.
pub(super) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = image.get_mut(at..at.saturating_add(bytes.len())) {
        to.copy_from_slice(bytes);
    }
}

/// XMM registers that the mode can name.
pub(super) fn reachable(cpu: &Cpu) -> u8 {
    if cpu.code64() { 16 } else { 8 }
}

/// Writes the x87 part: the first 24 bytes and the registers. Reserved bytes become zero.
pub(super) fn x87_out(v: &VectorState, pointers: Pointers, image: &mut [u8]) {
    put(image, 0, &v.fcw().to_le_bytes());
    put(image, 2, &v.fsw().to_le_bytes());
    put(image, 4, &u16::from(v.ftw()).to_le_bytes());
    put(image, 6, &v.fop().to_le_bytes());
    let pair = match pointers {
        Pointers::Wide => [v.fip(), v.fdp()],
        Pointers::Narrow => [(v.fip(), v.fcs), (v.fdp(), v.fds)]
            .map(|(offset, selector)| offset & 0xFFFF_FFFF | u64::from(selector) << 32),
    };
    for (n, pointer) in pair.into_iter().enumerate() {
        put(image, 8 + 8 * n, &pointer.to_le_bytes());
    }
    for i in 0..8u8 {
        let mut slot = [0; 16];
        put(&mut slot, 0, &v.st(i));
        put(image, ST + 16 * usize::from(i), &slot);
    }
}

/// Loads the x87 part.
pub(super) fn x87_in(v: &mut VectorState, pointers: Pointers, image: &[u8]) {
    v.set_fcw(control_word(u16::from_le_bytes(take(image, 0))));
    v.set_fsw(u16::from_le_bytes(take(image, 2)));
    v.set_ftw(u8::from_le_bytes(take(image, 4)));
    v.set_fop(u16::from_le_bytes(take(image, 6)) & 0x7FF);
    let mask = match pointers {
        Pointers::Wide => u64::MAX,
        Pointers::Narrow => 0xFFFF_FFFF,
    };
    v.set_fip(u64::from_le_bytes(take(image, 8)) & mask);
    v.set_fdp(u64::from_le_bytes(take(image, 16)) & mask);
    // FCS and FDS are deprecated: they read as zero.
    (v.fcs, v.fds) = (0, 0);
    for i in 0..8u8 {
        v.set_st(i, take(image, ST + 16 * usize::from(i)));
    }
    summarize(v);
}

/// Writes MXCSR and its mask.
pub(super) fn mxcsr_out(v: &VectorState, image: &mut [u8]) {
    put(image, MXCSR, &v.mxcsr().to_le_bytes());
    put(image, MXCSR + 4, &MXCSR_MASK.to_le_bytes());
}

/// MXCSR of an image; `None` if a reserved bit is set.
pub(super) fn mxcsr_of(image: &[u8]) -> Option<u32> {
    let value = u32::from_le_bytes(take(image, MXCSR));
    (value & !MXCSR_MASK == 0).then_some(value)
}

impl Cpu {
    /// Writes the first `n` XMM registers into an image.
    pub(super) fn xmm_out(&self, n: u8, image: &mut [u8]) {
        for i in 0..n {
            put(image, XMM + 16 * usize::from(i), &self.xmm(i).to_le_bytes());
        }
    }

    /// Loads the first `n` XMM registers of an image.
    pub(super) fn xmm_in(&mut self, n: u8, image: &[u8]) {
        for i in 0..n {
            let [a, b] = split(u128::from_le_bytes(take(image, XMM + 16 * usize::from(i))));
            self.set_xmm(i, join(a, b));
        }
    }

    fn check_fx(&mut self, op: &Op) -> Result<u64, Stop> {
        // Also EM gives #NM here, as for x87 instructions (APM vol. 5 "FXSAVE").
        if self.state.cr0 & (cr0::EM | cr0::TS) != 0 {
            return Err(self.nm());
        }
        let ea = self.ea(op);
        self.check_aligned(op, ea, 16)?;
        Ok(ea)
    }
}

fn fxsave(cpu: &mut Cpu, op: &Op, pointers: Pointers) -> Result<(), Stop> {
    let ea = cpu.check_fx(op)?;
    cpu.probe_write(op.mem.seg, ea, 512)?;
    let mut image = [0u8; WRITTEN];
    x87_out(&cpu.state.vector, pointers, &mut image);
    mxcsr_out(&cpu.state.vector, &mut image);
    let n = reachable(cpu);
    cpu.xmm_out(n, &mut image);
    let len = XMM + 16 * usize::from(n);
    cpu.write_bytes(op, ea, image.get(..len).unwrap_or_default())
}

fn fxrstor(cpu: &mut Cpu, op: &Op, pointers: Pointers) -> Result<(), Stop> {
    let ea = cpu.check_fx(op)?;
    let mut image = [0u8; 512];
    cpu.read_bytes(op, ea, &mut image)?;
    let Some(mxcsr) = mxcsr_of(&image) else { return Err(cpu.gp(0)) };
    x87_in(&mut cpu.state.vector, pointers, &image);
    cpu.state.vector.set_mxcsr(mxcsr);
    let n = reachable(cpu);
    cpu.xmm_in(n, &image);
    Ok(())
}
