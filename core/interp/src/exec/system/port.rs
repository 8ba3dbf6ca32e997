//! Port I/O: IN, OUT, INS, OUTS (SDM vol. 1 §19).

use iced_x86::{Mnemonic, OpKind};
use kasane_cpu::{AccessSize, Exit, Gpr, Seg};
use kasane_spec_x86::control::{cr4, dr7};
use kasane_spec_x86::descriptor::system;
use kasane_spec_x86::flags;

use super::segments::write_register;
use crate::cpu::{Cpu, Stop};
use crate::op::{Op, register_slot};

/// Offset of the I/O map's base in a 32- or 64-bit TSS.
const IO_MAP: u64 = 102;

impl Cpu {
    /// Notes breakpoints on ports (DR7's R/W field 2, with CR4.DE).
    fn watch_port(&mut self, port: u16, size: AccessSize) {
        if self.state.dr7 & dr7::ENABLES == 0 || !self.cr4(cr4::DE) {
            return;
        }
        let (first, last) = (u64::from(port), u64::from(port) + u64::from(size.bytes()) - 1);
        for (n, at) in (0u32..).zip(self.state.dr) {
            let enabled = self.state.dr7 >> (n * 2) & 3 != 0;
            let for_ports = self.state.dr7 >> (16 + n * 4) & 3 == 2;
            let len = (self.state.dr7 >> (18 + n * 4) & 3) + 1;
            let at = at & !(len - 1);
            if enabled && for_ports && at <= last && first < at.saturating_add(len) {
                self.debug_hits |= 1 << n;
            }
        }
    }
    /// Whether the program may use these ports: IOPL, else the TSS's I/O permission map.
    fn check_port(&mut self, port: u16, size: AccessSize) -> Result<(), Stop> {
        // Every port instruction comes by here, and none is passed by memory accesses around it
        // (SDM vol. 1 §19.6).
        Self::serialize();
        let iopl = (self.state.rflags & flags::IOPL) >> flags::IOPL_SHIFT;
        if !self.protected() || (!self.v86() && u64::from(self.cpl()) <= iopl) {
            return Ok(());
        }
        let tr = self.state.tr;
        let wide = matches!(tr.kind(), system::TSS32_AVAILABLE | system::TSS32_BUSY);
        if !tr.present() || !wide || u64::from(tr.limit) < IO_MAP + 1 {
            return Err(self.gp(0));
        }
        let map: u16 = self.system_read(tr.base.wrapping_add(IO_MAP))?;
        let at = u64::from(map).wrapping_add(u64::from(port >> 3));
        // Two bytes are read always, because the ports may cross a byte.
        if at.wrapping_add(1) > u64::from(tr.limit) {
            return Err(self.gp(0));
        }
        let bits: u16 = self.system_read(tr.base.wrapping_add(at))?;
        let mask = (1u16 << size.bytes()) - 1;
        if bits >> (port & 7) & mask != 0 { Err(self.gp(0)) } else { Ok(()) }
    }
}

fn size_of(bytes: usize) -> AccessSize {
    match bytes {
        1 => AccessSize::Byte,
        2 => AccessSize::Word,
        _ => AccessSize::Dword,
    }
}

/// IN.
pub(super) fn input(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let register = op.instr.op0_register();
    let size = size_of(register.size());
    let port = port_of(cpu, op, 1);
    cpu.check_port(port, size)?;
    cpu.watch_port(port, size);
    let value = cpu.ask(Exit::PortRead { port, size })?;
    if register.size() == 1 {
        cpu.set(Gpr::Rax as u8, value as u8);
    } else {
        write_register(cpu, register, value & 0xFFFF_FFFF);
    }
    Ok(())
}

/// OUT.
pub(super) fn output(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let register = op.instr.op1_register();
    let size = size_of(register.size());
    let port = port_of(cpu, op, 0);
    cpu.check_port(port, size)?;
    cpu.watch_port(port, size);
    let value = (cpu.gpr(register_slot(register)) & size.mask()) as u32;
    cpu.ask(Exit::PortWrite { port, size, value })?;
    Err(Stop::Break)
}

fn port_of(cpu: &Cpu, op: &Op, operand: u32) -> u16 {
    if op.instr.op_kind(operand) == OpKind::Immediate8 {
        u16::from(op.instr.immediate8())
    } else {
        cpu.reg(Gpr::Rdx) as u16
    }
}

/// Mask of the address size of a string operand.
fn address_mask(kind: OpKind) -> u64 {
    match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 0xFFFF,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}

fn repeats(op: &Op) -> bool {
    op.instr.has_rep_prefix() || op.instr.has_repne_prefix()
}

/// Moves the index register over `count` items and counts them; goes on with the same
/// instruction if items are left.
fn advance(cpu: &mut Cpu, op: &Op, index: Gpr, mask: u64, size: AccessSize, count: u64) {
    let bytes = u64::from(size.bytes()).wrapping_mul(count);
    let at = cpu.reg(index);
    let at = if cpu.flag(flags::DF) { at.wrapping_sub(bytes) } else { at.wrapping_add(bytes) };
    cpu.set_masked(index, mask, at);
    if repeats(op) {
        let left = (cpu.reg(Gpr::Rcx) & mask).wrapping_sub(count);
        cpu.set_masked(Gpr::Rcx, mask, left);
        if left & mask != 0 {
            cpu.next_rip = cpu.state.rip;
            cpu.unfinished = true;
        }
    }
}

fn string_size(op: &Op) -> AccessSize {
    match op.instr.mnemonic() {
        Mnemonic::Insb | Mnemonic::Outsb => AccessSize::Byte,
        Mnemonic::Insw | Mnemonic::Outsw => AccessSize::Word,
        _ => AccessSize::Dword,
    }
}

/// INS, one item at a time.
pub(super) fn input_string(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let size = string_size(op);
    let mask = address_mask(op.instr.op0_kind());
    let port = cpu.reg(Gpr::Rdx) as u16;
    // The permission comes before the count, also if that is zero.
    cpu.check_port(port, size)?;
    if repeats(op) && cpu.reg(Gpr::Rcx) & mask == 0 {
        return Ok(());
    }
    cpu.watch_port(port, size);
    let at = cpu.reg(Gpr::Rdi) & mask;
    cpu.probe_write(Seg::Es, at, u64::from(size.bytes()))?;
    let value = cpu.ask(Exit::PortRead { port, size })?;
    match size {
        AccessSize::Byte => cpu.write(Seg::Es, at, value as u8)?,
        AccessSize::Word => cpu.write(Seg::Es, at, value as u16)?,
        AccessSize::Dword | AccessSize::Qword => cpu.write(Seg::Es, at, value as u32)?,
    }
    advance(cpu, op, Gpr::Rdi, mask, size, 1);
    Err(Stop::Break)
}

fn read_item(cpu: &mut Cpu, seg: Seg, at: u64, size: AccessSize) -> Result<u32, Stop> {
    Ok(match size {
        AccessSize::Byte => u32::from(cpu.read::<u8>(seg, at)?),
        AccessSize::Word => u32::from(cpu.read::<u16>(seg, at)?),
        AccessSize::Dword | AccessSize::Qword => cpu.read::<u32>(seg, at)?,
    })
}

/// How many items of a REP OUTS go out at once: upwards, in one page (so that if the first can be
/// read all can), of a segment that needs no checks, and as many as an exit holds.
fn chunk(cpu: &Cpu, op: &Op, at: u64, mask: u64, size: AccessSize) -> u64 {
    let n = op.mem.seg as usize;
    let plain = cpu.mode.plain.get(n).copied().unwrap_or(0) & 1 != 0;
    if !repeats(op) || cpu.flag(flags::DF) || !plain || cpu.flag(flags::TF) {
        return 1;
    }
    let base = cpu.mode.base.get(n).copied().unwrap_or(0);
    let bytes = u64::from(size.bytes());
    let in_page = (4096 - (base.wrapping_add(at) & 4095)) / bytes;
    let before_wrap = (mask - at) / bytes;
    let left = cpu.reg(Gpr::Rcx) & mask;
    (32 / bytes).min(in_page).min(before_wrap).min(left).max(1)
}

/// OUTS, in chunks.
pub(super) fn output_string(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let size = string_size(op);
    let mask = address_mask(op.instr.op1_kind());
    let port = cpu.reg(Gpr::Rdx) as u16;
    // The permission comes before the count, also if that is zero.
    cpu.check_port(port, size)?;
    if repeats(op) && cpu.reg(Gpr::Rcx) & mask == 0 {
        return Ok(());
    }
    cpu.watch_port(port, size);
    let at = cpu.reg(Gpr::Rsi) & mask;
    let count = chunk(cpu, op, at, mask, size);
    let bytes = u64::from(size.bytes());
    if count == 1 {
        let value = read_item(cpu, op.mem.seg, at, size)?;
        cpu.ask(Exit::PortWrite { port, size, value })?;
    } else {
        let mut data = [0u8; 32];
        for (n, place) in (0..count).zip(data.chunks_exact_mut(bytes as usize)) {
            let value = read_item(cpu, op.mem.seg, at.wrapping_add(n * bytes), size)?;
            for (to, from) in place.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        }
        cpu.ask(Exit::PortWriteString { port, size, count: count as u8, data })?;
    }
    advance(cpu, op, Gpr::Rsi, mask, size, count);
    Err(Stop::Break)
}
