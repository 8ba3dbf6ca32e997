//! x87 instructions whose operand is an image of the unit's state, and those that only change its
//! tags: FNSTENV, FLDENV, FNSAVE, FRSTOR, FWAIT, EMMS (SDM vol. 1 §8.1.10, vol. 2A, §9.6.3).

use iced_x86::{Code, Instruction, Mnemonic};
use kasane_cpu::VectorState;
use kasane_cpu::paging::Access;
use kasane_spec_x86::control::cr0;

use super::checks::summarize;
use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

/// Bytes of the environment and of environment with registers, with 16-bit and 32-bit operands.
const ENV_16: usize = 14;
const ENV_32: usize = 28;
const REGISTERS: usize = 80;

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run: Handler = match instr.code() {
        Code::Fnstenv_m14byte => |cpu, op| store_environment(cpu, op, Width::Bits16),
        Code::Fnstenv_m28byte => |cpu, op| store_environment(cpu, op, Width::Bits32),
        Code::Fldenv_m14byte => |cpu, op| load(cpu, op, Width::Bits16, ENV_16),
        Code::Fldenv_m28byte => |cpu, op| load(cpu, op, Width::Bits32, ENV_32),
        Code::Fnsave_m94byte => |cpu, op| save(cpu, op, Width::Bits16),
        Code::Fnsave_m108byte => |cpu, op| save(cpu, op, Width::Bits32),
        Code::Frstor_m94byte => |cpu, op| load(cpu, op, Width::Bits16, ENV_16 + REGISTERS),
        Code::Frstor_m108byte => |cpu, op| load(cpu, op, Width::Bits32, ENV_32 + REGISTERS),
        _ => match instr.mnemonic() {
            Mnemonic::Wait => wait,
            Mnemonic::Emms => emms,
            _ => return None,
        },
    };
    Some(Lowered::plain(run))
}

#[derive(Clone, Copy)]
enum Width {
    Bits16,
    Bits32,
}

impl Width {
    /// Bytes of an element, for the alignment check.
    fn unit(self) -> u64 {
        match self {
            Self::Bits16 => 2,
            Self::Bits32 => 4,
        }
    }
}

fn wait(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let both = cr0::MP | cr0::TS;
    if cpu.state.cr0 & both == both {
        return Err(cpu.nm());
    }
    cpu.check_pending()
}

fn emms(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.check_mmx(false)?;
    enter_mmx(&mut cpu.state.vector);
    cpu.state.vector.set_ftw(0);
    Ok(())
}

/// TOP of the status word.
fn top(fsw: u16) -> u8 {
    (fsw >> 11 & 7) as u8
}

/// Moves the registers of the image, which is in stack order, so that physical registers keep
/// their contents when TOP becomes `new`.
fn rotate(v: &mut VectorState, new: u8) {
    let old = top(v.fsw());
    if old == new {
        return;
    }
    let before: [[u8; 10]; 8] = core::array::from_fn(|i| v.st(i as u8));
    for (i, value) in (0u8..8).zip(before) {
        let physical = i.wrapping_add(old) & 7;
        v.set_st(physical.wrapping_sub(new) & 7, value);
    }
}

/// Switches the unit to MMX: TOP zero, all registers valid (SDM vol. 1 §9.5.1).
pub(super) fn enter_mmx(v: &mut VectorState) {
    rotate(v, 0);
    v.set_fsw(v.fsw() & !0x3800);
    v.set_ftw(0xFF);
}

/// FNINIT. The registers' contents stay.
fn initialize(v: &mut VectorState) {
    rotate(v, 0);
    v.set_fcw(0x037F);
    v.set_fsw(0);
    v.set_ftw(0);
    v.set_fop(0);
    v.set_fip(0);
    v.set_fdp(0);
    v.fcs = 0;
    v.fds = 0;
}

/// The full tag word: two bits for each physical register.
fn full_tags(v: &VectorState) -> u16 {
    let top = top(v.fsw());
    (0u8..8).fold(0, |tags, physical| {
        let tag = if v.ftw() >> physical & 1 == 0 {
            3
        } else {
            class(v.st(physical.wrapping_sub(top) & 7))
        };
        tags | tag << (2 * physical)
    })
}

/// Tag of a register that is not empty: 0 valid, 1 zero, 2 special.
fn class(value: [u8; 10]) -> u16 {
    let [a, b, c, d, e, f, g, h, i, j] = value;
    let mantissa = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let exponent = u16::from_le_bytes([i, j]) & 0x7FFF;
    match (exponent, mantissa) {
        (0, 0) => 1,
        (0 | 0x7FFF, _) => 2,
        (_, m) if m >> 63 == 0 => 2,
        _ => 0,
    }
}

fn abridged(tags: u16) -> u8 {
    (0u8..8).fold(0, |bits, n| if tags >> (2 * n) & 3 == 3 { bits } else { bits | 1 << n })
}

/// Puts `bytes` at `at` of a buffer that is long enough.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = buffer.get_mut(at..at.saturating_add(bytes.len())) {
        to.copy_from_slice(bytes);
    }
}

fn get_16(buffer: &[u8], at: usize) -> u16 {
    let mut bytes = [0; 2];
    if let Some(from) = buffer.get(at..at.saturating_add(2)) {
        bytes.copy_from_slice(from);
    }
    u16::from_le_bytes(bytes)
}

fn get_32(buffer: &[u8], at: usize) -> u32 {
    u32::from(get_16(buffer, at)) | u32::from(get_16(buffer, at.saturating_add(2))) << 16
}

/// Whether images have the real-mode format.
fn real_format(cpu: &Cpu) -> bool {
    !cpu.protected() || cpu.v86()
}

/// Writes the environment image into `out`.
fn environment(cpu: &Cpu, width: Width, out: &mut [u8]) {
    let v = &cpu.state.vector;
    let (fip, fdp, fop) = (v.fip(), v.fdp(), v.fop() & 0x7FF);
    let words = [v.fcw(), v.fsw(), full_tags(v)];
    let real = real_format(cpu);
    match width {
        Width::Bits16 => {
            for (n, word) in words.into_iter().enumerate() {
                put(out, 2 * n, &word.to_le_bytes());
            }
            let (high_ip, high_dp) = if real {
                ((fip >> 4 & 0xF000) as u16 | fop, (fdp >> 4 & 0xF000) as u16)
            } else {
                (v.fcs, v.fds)
            };
            put(out, 6, &(fip as u16).to_le_bytes());
            put(out, 8, &high_ip.to_le_bytes());
            put(out, 10, &(fdp as u16).to_le_bytes());
            put(out, 12, &high_dp.to_le_bytes());
        }
        Width::Bits32 => {
            // The reserved halves are written as ones.
            for (n, word) in words.into_iter().enumerate() {
                put(out, 4 * n, &(u32::from(word) | 0xFFFF_0000).to_le_bytes());
            }
            let fop = u32::from(fop);
            let image = if real {
                let high = |pointer: u64| (pointer >> 16 & 0xFFFF) as u32;
                [fip as u32 & 0xFFFF, high(fip) << 12 | fop, fdp as u32 & 0xFFFF, high(fdp) << 12]
            } else {
                let (fcs, fds) = (u32::from(v.fcs), u32::from(v.fds));
                [fip as u32, fcs | fop << 16, fdp as u32, fds | 0xFFFF_0000]
            };
            for (n, word) in image.into_iter().enumerate() {
                put(out, 12 + 4 * n, &word.to_le_bytes());
            }
        }
    }
}

fn store_environment(cpu: &mut Cpu, op: &Op, width: Width) -> Result<(), Stop> {
    cpu.check_x87()?;
    let mut image = [0; ENV_32];
    environment(cpu, width, &mut image);
    let len = match width {
        Width::Bits16 => ENV_16,
        Width::Bits32 => ENV_32,
    };
    let ea = cpu.ea(op);
    cpu.check_image(op, ea, (width.unit(), len as u64), Access::Write)?;
    cpu.write_bytes(op, ea, image.get(..len).unwrap_or_default())?;
    // All exceptions are masked afterwards, so none is pending.
    let v = &mut cpu.state.vector;
    v.set_fcw(v.fcw() | 0x3F);
    summarize(v);
    Ok(())
}

fn save(cpu: &mut Cpu, op: &Op, width: Width) -> Result<(), Stop> {
    cpu.check_x87()?;
    let mut image = [0; ENV_32 + REGISTERS];
    environment(cpu, width, &mut image);
    let env = match width {
        Width::Bits16 => ENV_16,
        Width::Bits32 => ENV_32,
    };
    for i in 0..8u8 {
        put(&mut image, env + 10 * usize::from(i), &cpu.state.vector.st(i));
    }
    let ea = cpu.ea(op);
    let len = (env + REGISTERS) as u64;
    cpu.check_image(op, ea, (width.unit(), len), Access::Write)?;
    cpu.write_bytes(op, ea, image.get(..env + REGISTERS).unwrap_or_default())?;
    initialize(&mut cpu.state.vector);
    Ok(())
}

/// FLDENV and FRSTOR, which differ in length.
fn load(cpu: &mut Cpu, op: &Op, width: Width, len: usize) -> Result<(), Stop> {
    cpu.check_x87()?;
    cpu.check_pending()?;
    let mut buffer = [0; ENV_32 + REGISTERS];
    let ea = cpu.ea(op);
    cpu.check_image(op, ea, (width.unit(), len as u64), Access::Read)?;
    if let Some(part) = buffer.get_mut(..len) {
        cpu.read_bytes(op, ea, part)?;
    }
    let image = buffer.get(..len).unwrap_or_default();
    let real = real_format(cpu);
    let v = &mut cpu.state.vector;
    let (fsw, env) = match width {
        Width::Bits16 => {
            v.set_fcw(control_word(get_16(image, 0)));
            let high_ip = get_16(image, 8);
            let low = [get_16(image, 6), get_16(image, 10)].map(u64::from);
            let high = |word: u16| if real { u64::from(word & 0xF000) << 4 } else { 0 };
            v.set_fip(low[0] | high(high_ip));
            v.set_fdp(low[1] | high(get_16(image, 12)));
            v.set_fop(if real { high_ip & 0x7FF } else { 0 });
            (get_16(image, 2), ENV_16)
        }
        Width::Bits32 => {
            v.set_fcw(control_word(get_16(image, 0)));
            let [ip, code, dp, data] = [12, 16, 20, 24].map(|at| get_32(image, at));
            let pointer = |low: u32, high: u32| {
                let real_value = u64::from(low & 0xFFFF) | u64::from(high >> 12 & 0xFFFF) << 16;
                if real { real_value } else { u64::from(low) }
            };
            v.set_fip(pointer(ip, code));
            v.set_fdp(pointer(dp, data));
            let fop = if real { code } else { code >> 16 };
            v.set_fop(fop as u16 & 0x7FF);
            (get_16(image, 4), ENV_32)
        }
    };
    let tags = get_16(image, if env == ENV_16 { 4 } else { 8 });
    rotate(v, top(fsw));
    v.set_fsw(fsw);
    v.set_ftw(abridged(tags));
    (v.fcs, v.fds) = (0, 0);
    for (i, value) in (0u8..8).zip(image.get(env..).unwrap_or_default().chunks_exact(10)) {
        let mut st = [0; 10];
        st.copy_from_slice(value);
        v.set_st(i, st);
    }
    summarize(v);
    Ok(())
}

/// FCW as it reads after a load: bit 6 is always one, bits 7 and 15:13 zero.
pub(super) fn control_word(value: u16) -> u16 {
    value & 0x1F3F | 0x40
}
