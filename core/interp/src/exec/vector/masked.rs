//! Instructions that access memory element by element under a mask: gathers, VMASKMOV,
//! VPMASKMOV, MASKMOVQ, MASKMOVDQU (SDM vol. 2B, 2C). Masked-out elements neither access nor
//! fault.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use kasane_cpu::paging::Access;

use super::fpu::enter_mmx;
use super::operand::{Ymm, join};
use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run: Handler = match instr.mnemonic() {
        Mnemonic::Vgatherdps | Mnemonic::Vpgatherdd => gather::<4, 4>,
        Mnemonic::Vgatherqps | Mnemonic::Vpgatherqd => gather::<8, 4>,
        Mnemonic::Vgatherdpd | Mnemonic::Vpgatherdq => gather::<4, 8>,
        Mnemonic::Vgatherqpd | Mnemonic::Vpgatherqq => gather::<8, 8>,
        Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd => maskmov::<4>,
        Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq => maskmov::<8>,
        Mnemonic::Maskmovq => maskmovq,
        Mnemonic::Maskmovdqu => maskmovdqu,
        Mnemonic::Vmaskmovdqu => vmaskmovdqu,
        _ => return None,
    };
    // EVEX forms have opmask registers.
    if instr.has_op_mask() || instr.op_register(0).is_zmm() {
        return None;
    }
    Some(Lowered::plain(run))
}

/// Element `i` of a register, `SIZE` bytes wide.
fn element<const SIZE: usize>(value: Ymm, i: usize) -> u64 {
    if SIZE == 8 {
        return value.get(i).copied().unwrap_or(0);
    }
    let word = value.get(i / 2).copied().unwrap_or(0);
    if i.is_multiple_of(2) { word & 0xFFFF_FFFF } else { word >> 32 }
}

fn set_element<const SIZE: usize>(value: &mut Ymm, i: usize, new: u64) {
    if SIZE == 8 {
        if let Some(word) = value.get_mut(i) {
            *word = new;
        }
        return;
    }
    if let Some(word) = value.get_mut(i / 2) {
        *word = if i.is_multiple_of(2) {
            *word & !0xFFFF_FFFF | new & 0xFFFF_FFFF
        } else {
            *word & 0xFFFF_FFFF | new << 32
        };
    }
}

/// The sign bit of a mask element.
fn selected<const SIZE: usize>(mask: Ymm, i: usize) -> bool {
    element::<SIZE>(mask, i) >> (8 * SIZE - 1) & 1 != 0
}

fn number(register: Register) -> u8 {
    (register.number() & 15) as u8
}

/// Elements never raise #AC (SDM vol. 2C, VMASKMOV, VPGATHERDD).
fn read_element<const SIZE: usize>(cpu: &mut Cpu, op: &Op, at: u64) -> Result<u64, Stop> {
    if SIZE == 8 {
        cpu.read_unaligned::<u64>(op.mem.seg, at)
    } else {
        Ok(u64::from(cpu.read_unaligned::<u32>(op.mem.seg, at)?))
    }
}

/// VEX gathers: operand 0 is the destination, 1 the vector-indexed memory, 2 the mask.
fn gather<const INDEX: usize, const DATA: usize>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let index_register = op.instr.memory_index();
    let [destination, mask] = [0, 2].map(|n| number(op.instr.op_register(n)));
    let index = number(index_register);
    if destination == mask || destination == index || mask == index {
        return Err(cpu.ud());
    }
    // The wider of indices and data says how many elements there are.
    let data_bytes = op.instr.op_register(0).size();
    let count = (data_bytes / DATA).min(index_register.size() / INDEX);
    let indices = cpu.state.vector.ymm(index);
    let mut mask_value = cpu.state.vector.ymm(mask);
    let mut result = cpu.state.vector.ymm(destination);
    for i in 0..32 / DATA {
        let ones = if selected::<DATA>(mask_value, i) { u64::MAX } else { 0 };
        set_element::<DATA>(&mut mask_value, i, ones);
    }
    for i in 0..count {
        if !selected::<DATA>(mask_value, i) {
            continue;
        }
        let raw = element::<INDEX>(indices, i);
        let signed = if INDEX == 4 { raw as u32 as i32 as u64 } else { raw };
        let scaled = signed << (op.mem.shift & 3);
        let at = cpu.gpr(op.mem.base).wrapping_add(scaled).wrapping_add(op.mem.disp) & op.mem.mask;
        match read_element::<DATA>(cpu, op, at) {
            Ok(value) => {
                set_element::<DATA>(&mut result, i, value);
                set_element::<DATA>(&mut mask_value, i, 0);
            }
            Err(stop) => {
                // Elements that are done stay done at a fault. A question to the machine is
                // asked again from the start.
                if stop == Stop::Fault {
                    cpu.state.vector.set_ymm(destination, result);
                    cpu.state.vector.set_ymm(mask, mask_value);
                }
                return Err(stop);
            }
        }
    }
    for i in count * DATA / 4..8 {
        set_element::<4>(&mut result, i, 0);
    }
    cpu.state.vector.set_ymm(destination, result);
    cpu.state.vector.set_ymm(mask, [0; 4]);
    Ok(())
}

fn maskmov<const SIZE: usize>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let ea = cpu.ea(op);
    let mask = cpu.state.vector.ymm(number(op.instr.op_register(1)));
    if op.instr.op_kind(0) == OpKind::Memory {
        let source = op.instr.op_register(2);
        let value = cpu.state.vector.ymm(number(source));
        return mask_store::<SIZE>(cpu, op, ea, (mask, value, source.size() / SIZE));
    }
    let destination = op.instr.op_register(0);
    let mut result = [0; 4];
    for i in 0..destination.size() / SIZE {
        if selected::<SIZE>(mask, i) {
            let at = Cpu::within(op, ea, (i * SIZE) as u64);
            set_element::<SIZE>(&mut result, i, read_element::<SIZE>(cpu, op, at)?);
        }
    }
    cpu.state.vector.set_ymm(number(destination), result);
    Ok(())
}

/// All elements are looked at before the first is written.
fn mask_store<const SIZE: usize>(
    cpu: &mut Cpu,
    op: &Op,
    ea: u64,
    (mask, value, count): (Ymm, Ymm, usize),
) -> Result<(), Stop> {
    let at = |i: usize| Cpu::within(op, ea, (i * SIZE) as u64);
    for i in (0..count).filter(|i| selected::<SIZE>(mask, *i)) {
        cpu.probe_write_unaligned(op.mem.seg, at(i), SIZE as u64)?;
    }
    for i in (0..count).filter(|i| selected::<SIZE>(mask, *i)) {
        if SIZE == 8 {
            cpu.write_unaligned(op.mem.seg, at(i), element::<8>(value, i))?;
        } else {
            cpu.write_unaligned(op.mem.seg, at(i), element::<4>(value, i) as u32)?;
        }
    }
    Ok(())
}

/// Writes the bytes whose mask byte has its top bit set, at the address in DI, EDI or RDI.
fn mask_bytes(cpu: &mut Cpu, op: &Op, (mask, value, count): (u128, u128, u8)) -> Result<(), Stop> {
    let width = match op.instr.op_kind(0) {
        OpKind::MemorySegDI => 0xFFFF,
        OpKind::MemorySegEDI => 0xFFFF_FFFF,
        _ => u64::MAX,
    };
    let start = cpu.reg(kasane_cpu::Gpr::Rdi);
    let at = |i: u8| (start & width).wrapping_add(u64::from(i));
    let chosen = |i: &u8| mask >> (8 * i + 7) & 1 != 0;
    // Whether bytes that are not chosen fault is the implementation's choice (SDM vol. 2B,
    // MASKMOVDQU); ours do, which proves the whole operand before the first byte is written.
    cpu.linear(op.mem.seg, at(0), 8, Access::Write)?;
    cpu.probe_write_unaligned(op.mem.seg, at(0), u64::from(count))?;
    for i in (0..count).filter(chosen) {
        cpu.write(op.mem.seg, at(i), (value >> (8 * i)) as u8)?;
    }
    Ok(())
}

fn maskmovq(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_mmx(false)?;
    // Operands 1 and 2 are value and mask; MMn is physical register n.
    let v = &cpu.state.vector;
    let top = (v.fsw() >> 11 & 7) as u8;
    let [value, mask] = [1, 2].map(|n| {
        let physical = (op.instr.op_register(n).number() & 7) as u8;
        let [a, b, c, d, e, f, g, h, ..] = v.st(physical.wrapping_sub(top) & 7);
        u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    });
    mask_bytes(cpu, op, (mask, value, 8))?;
    enter_mmx(&mut cpu.state.vector);
    Ok(())
}

fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    xmm_mask(cpu, op)
}

fn vmaskmovdqu(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    xmm_mask(cpu, op)
}

fn xmm_mask(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let [value, mask] = [1, 2].map(|n| {
        let [a, b, ..] = cpu.state.vector.ymm(number(op.instr.op_register(n)));
        join(a, b)
    });
    mask_bytes(cpu, op, (mask, value, 16))
}

/// MOVNTI: a plain store.
pub(super) fn lower_movnti(instr: &Instruction) -> Option<Lowered> {
    let run: Handler = match instr.code() {
        Code::Movnti_m32_r32 => |cpu, op| {
            let ea = cpu.ea(op);
            cpu.write(op.mem.seg, ea, cpu.gpr(op.b) as u32)
        },
        Code::Movnti_m64_r64 => |cpu, op| {
            let ea = cpu.ea(op);
            cpu.write(op.mem.seg, ea, cpu.gpr(op.b))
        },
        _ => return None,
    };
    Some(Lowered::operands(run, instr))
}
