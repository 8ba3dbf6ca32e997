//! The hottest moves, done here without the host: they need no arithmetic, and a stub
//! costs more than they do.

use iced_x86::{Code, Instruction, OpKind, Register};

use crate::cpu::{Cpu, Stop};
use crate::exec::vector::operand::join;
use crate::op::{Handler, Lowered, Op, register_slot};

/// A register number: of a vector register by its own numbering, else of a general one.
pub(super) fn slot(register: Register) -> u8 {
    if register.is_vector_register() {
        (register.number() & 15) as u8
    } else {
        register_slot(register)
    }
}

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let register = |n: u32| instr.op_count() > n && instr.op_kind(n) == OpKind::Register;
    let memory = (0..instr.op_count()).any(|n| instr.op_kind(n) == OpKind::Memory);
    let run = if memory { with_memory(instr.code())? } else { between_registers(instr.code())? };
    let number = |n: u32| if register(n) { slot(instr.op_register(n)) } else { 255 };
    Some(Lowered { a: number(0), b: number(1), c: number(2), ..Lowered::plain(run) })
}

#[rustfmt::skip]
fn with_memory(code: Code) -> Option<Handler> {
    Some(match code {
        Code::Movups_xmm_xmmm128 | Code::Movupd_xmm_xmmm128 | Code::Movdqu_xmm_xmmm128
        | Code::Lddqu_xmm_m128 => load_128::<1>,
        Code::Movaps_xmm_xmmm128 | Code::Movapd_xmm_xmmm128 | Code::Movdqa_xmm_xmmm128
        | Code::Movntdqa_xmm_m128 => load_128::<16>,
        Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm | Code::Movdqu_xmmm128_xmm
            => store_128::<1>,
        Code::Movaps_xmmm128_xmm | Code::Movapd_xmmm128_xmm | Code::Movdqa_xmmm128_xmm
        | Code::Movntps_m128_xmm | Code::Movntpd_m128_xmm | Code::Movntdq_m128_xmm
            => store_128::<16>,
        Code::Movd_xmm_rm32 | Code::Movss_xmm_xmmm32 => load_32,
        Code::Movd_rm32_xmm | Code::Movss_xmmm32_xmm => store_32,
        Code::Movq_xmm_rm64 | Code::Movq_xmm_xmmm64 | Code::Movsd_xmm_xmmm64 => load_64,
        Code::Movq_rm64_xmm | Code::Movq_xmmm64_xmm | Code::Movsd_xmmm64_xmm
        | Code::Movlps_m64_xmm | Code::Movlpd_m64_xmm => store_low,
        Code::Movlps_xmm_m64 | Code::Movlpd_xmm_m64 => load_low,
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 => load_high,
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => store_high,
        Code::VEX_Vmovups_xmm_xmmm128 | Code::VEX_Vmovupd_xmm_xmmm128
        | Code::VEX_Vmovdqu_xmm_xmmm128 | Code::VEX_Vlddqu_xmm_m128 => vload_128::<1>,
        Code::VEX_Vmovaps_xmm_xmmm128 | Code::VEX_Vmovapd_xmm_xmmm128
        | Code::VEX_Vmovdqa_xmm_xmmm128 => vload_128::<16>,
        Code::VEX_Vmovups_ymm_ymmm256 | Code::VEX_Vmovupd_ymm_ymmm256
        | Code::VEX_Vmovdqu_ymm_ymmm256 | Code::VEX_Vlddqu_ymm_m256 => vload_256::<1>,
        Code::VEX_Vmovaps_ymm_ymmm256 | Code::VEX_Vmovapd_ymm_ymmm256
        | Code::VEX_Vmovdqa_ymm_ymmm256 => vload_256::<32>,
        Code::VEX_Vmovups_xmmm128_xmm | Code::VEX_Vmovupd_xmmm128_xmm
        | Code::VEX_Vmovdqu_xmmm128_xmm => vstore_128::<1>,
        Code::VEX_Vmovaps_xmmm128_xmm | Code::VEX_Vmovapd_xmmm128_xmm
        | Code::VEX_Vmovdqa_xmmm128_xmm | Code::VEX_Vmovntps_m128_xmm
        | Code::VEX_Vmovntpd_m128_xmm | Code::VEX_Vmovntdq_m128_xmm => vstore_128::<16>,
        Code::VEX_Vmovups_ymmm256_ymm | Code::VEX_Vmovupd_ymmm256_ymm
        | Code::VEX_Vmovdqu_ymmm256_ymm => vstore_256::<1>,
        Code::VEX_Vmovaps_ymmm256_ymm | Code::VEX_Vmovapd_ymmm256_ymm
        | Code::VEX_Vmovdqa_ymmm256_ymm | Code::VEX_Vmovntps_m256_ymm
        | Code::VEX_Vmovntpd_m256_ymm | Code::VEX_Vmovntdq_m256_ymm => vstore_256::<32>,
        _ => return None,
    })
}

#[rustfmt::skip]
fn between_registers(code: Code) -> Option<Handler> {
    Some(match code {
        Code::Movups_xmm_xmmm128 | Code::Movupd_xmm_xmmm128 | Code::Movdqu_xmm_xmmm128
        | Code::Movaps_xmm_xmmm128 | Code::Movapd_xmm_xmmm128 | Code::Movdqa_xmm_xmmm128
        | Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm | Code::Movdqu_xmmm128_xmm
        | Code::Movaps_xmmm128_xmm | Code::Movapd_xmmm128_xmm | Code::Movdqa_xmmm128_xmm
            => copy_128,
        Code::Movq_xmm_xmmm64 | Code::Movq_xmmm64_xmm => copy_64_zeroing,
        Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm => copy_64,
        Code::Movd_xmm_rm32 => from_gpr_32,
        Code::Movq_xmm_rm64 => from_gpr_64,
        Code::Movd_rm32_xmm => to_gpr_32,
        Code::Movq_rm64_xmm => to_gpr_64,
        Code::VEX_Vmovups_ymm_ymmm256 | Code::VEX_Vmovdqu_ymm_ymmm256
        | Code::VEX_Vmovaps_ymm_ymmm256 | Code::VEX_Vmovdqa_ymm_ymmm256
        | Code::VEX_Vmovups_ymmm256_ymm | Code::VEX_Vmovdqu_ymmm256_ymm
        | Code::VEX_Vmovaps_ymmm256_ymm | Code::VEX_Vmovdqa_ymmm256_ymm => vcopy_256,
        _ => return None,
    })
}

fn load_128<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    let value = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm(op.a, value);
    Ok(())
}

fn store_128<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    cpu.write(op.mem.seg, ea, cpu.xmm(op.b))
}

fn copy_128(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_xmm(op.a, cpu.xmm(op.b));
    Ok(())
}

fn load_32(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    let value: u32 = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm(op.a, u128::from(value));
    Ok(())
}

fn load_64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    let value: u64 = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm(op.a, u128::from(value));
    Ok(())
}

fn store_32(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    cpu.write(op.mem.seg, ea, cpu.xmm(op.b) as u32)
}

fn store_low(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    cpu.write(op.mem.seg, ea, cpu.xmm(op.b) as u64)
}

fn store_high(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    cpu.write(op.mem.seg, ea, (cpu.xmm(op.b) >> 64) as u64)
}

fn load_low(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    let value: u64 = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm(op.a, join(value, (cpu.xmm(op.a) >> 64) as u64));
    Ok(())
}

fn load_high(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    let ea = cpu.ea(op);
    let value: u64 = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm(op.a, join(cpu.xmm(op.a) as u64, value));
    Ok(())
}

fn copy_64_zeroing(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_xmm(op.a, u128::from(cpu.xmm(op.b) as u64));
    Ok(())
}

fn copy_64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_xmm(op.a, join(cpu.xmm(op.b) as u64, (cpu.xmm(op.a) >> 64) as u64));
    Ok(())
}

fn from_gpr_32(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_xmm(op.a, u128::from(cpu.gpr(op.b) as u32));
    Ok(())
}

fn from_gpr_64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_xmm(op.a, u128::from(cpu.gpr(op.b)));
    Ok(())
}

fn to_gpr_32(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_gpr(op.a, u64::from(cpu.xmm(op.b) as u32));
    Ok(())
}

fn to_gpr_64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_sse()?;
    cpu.set_gpr(op.a, cpu.xmm(op.b) as u64);
    Ok(())
}

fn vload_128<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    let value = cpu.read(op.mem.seg, ea)?;
    cpu.set_xmm_zeroing(op.a, value);
    Ok(())
}

fn vload_256<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    let value = cpu.read_256(op, ea)?;
    cpu.state.vector.set_ymm(op.a, value);
    Ok(())
}

fn vstore_128<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    cpu.write(op.mem.seg, ea, cpu.xmm(op.b))
}

fn vstore_256<const ALIGNMENT: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let ea = cpu.ea(op);
    cpu.check_aligned(op, ea, ALIGNMENT)?;
    cpu.write_256(op, ea, cpu.state.vector.ymm(op.b))
}

fn vcopy_256(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_avx()?;
    let value = cpu.state.vector.ymm(op.b);
    cpu.state.vector.set_ymm(op.a, value);
    Ok(())
}
