//! Registers and memory operands of the vector group.

use iced_x86::Mnemonic;
use kasane_cpu::paging::Access;
use kasane_memory::Scalar;

use crate::cpu::{Cpu, Stop};
use crate::op::Op;

/// A YMM register's value.
pub(super) type Ymm = [u64; 4];

/// The halves of a 128-bit value.
#[inline(always)]
pub(super) const fn split(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// A 128-bit value of its halves.
#[inline(always)]
pub(super) const fn join(low: u64, high: u64) -> u128 {
    low as u128 | (high as u128) << 64
}

impl Cpu {
    /// `XMMn`.
    #[inline(always)]
    pub(super) fn xmm(&self, n: u8) -> u128 {
        let [low, high, ..] = self.state.vector.ymm(n);
        join(low, high)
    }

    /// Sets `XMMn`; the upper half of the YMM register stays.
    #[inline(always)]
    pub(super) fn set_xmm(&mut self, n: u8, value: u128) {
        let [.., c, d] = self.state.vector.ymm(n);
        let [a, b] = split(value);
        self.state.vector.set_ymm(n, [a, b, c, d]);
    }

    /// Sets `XMMn`; the upper half of the YMM register becomes zero.
    #[inline(always)]
    pub(super) fn set_xmm_zeroing(&mut self, n: u8, value: u128) {
        let [a, b] = split(value);
        self.state.vector.set_ymm(n, [a, b, 0, 0]);
    }

    /// The offset `more` bytes into the memory operand at `ea`: only the operand's beginning is
    /// cut to the address size.
    #[inline(always)]
    pub(super) fn within(_op: &Op, ea: u64, more: u64) -> u64 {
        ea.wrapping_add(more)
    }

    /// Checks that the end of an operand that is read in parts is as canonical as its beginning,
    /// and in the segment: that comes before the faults of pages.
    #[inline(always)]
    pub(super) fn check_end(&mut self, op: &Op, ea: u64, len: u64) -> Result<(), Stop> {
        if self.code64() {
            let base = self.mode.base.get(op.mem.seg as usize).copied().unwrap_or(0);
            let va = base.wrapping_add(ea);
            let end = va.wrapping_add(len.wrapping_sub(1));
            if (va ^ end) >> 47 != 0 && !Self::canonical(end) {
                return Err(self.segment_fault(op.mem.seg));
            }
        } else if self.mode.plain.get(op.mem.seg as usize).copied().unwrap_or(0) & 1 == 0 {
            self.linear_checked(op.mem.seg, ea, len, Access::Read)?;
        }
        Ok(())
    }

    /// The checks of an operand that is a structure: #AC by its elements of `unit` bytes, then
    /// its first and last byte, as Intel's processors do it.
    pub(super) fn check_image(
        &mut self,
        op: &Op,
        ea: u64,
        (unit, len): (u64, u64),
        access: Access,
    ) -> Result<(), Stop> {
        let va = self.linear(op.mem.seg, ea, unit, access)?;
        self.probe_linear(op.mem.seg, va, unit, access, self.mode.data)?;
        let last = Self::within(op, ea, len.wrapping_sub(1));
        let va = self.linear(op.mem.seg, last, 1, access)?;
        self.probe_linear(op.mem.seg, va, 1, access, self.mode.data)
    }

    /// Reads the 32 bytes of a memory operand.
    #[inline(always)]
    pub(super) fn read_256(&mut self, op: &Op, ea: u64) -> Result<Ymm, Stop> {
        self.check_end(op, ea, 32)?;
        let low: u128 = self.read(op.mem.seg, ea)?;
        let high: u128 = self.read(op.mem.seg, Self::within(op, ea, 16))?;
        let ([a, b], [c, d]) = (split(low), split(high));
        Ok([a, b, c, d])
    }

    /// Writes the 32 bytes of a memory operand, all or none.
    #[inline(always)]
    pub(super) fn write_256(&mut self, op: &Op, ea: u64, value: Ymm) -> Result<(), Stop> {
        let [a, b, c, d] = value;
        self.prove_writable(op, ea, 32)?;
        self.write(op.mem.seg, ea, join(a, b))?;
        self.write(op.mem.seg, Self::within(op, ea, 16), join(c, d))
    }

    /// Makes sure that an operand that is written in parts is written wholly or not at all: looks
    /// at both pages where it crosses, and at the segment where that matters.
    #[inline(always)]
    pub(super) fn prove_writable(&mut self, op: &Op, ea: u64, len: u64) -> Result<(), Stop> {
        let n = op.mem.seg as usize;
        let base = self.mode.base.get(n).copied().unwrap_or(0);
        let inside = base.wrapping_add(ea) & 4095 <= 4096 - len;
        let plain = self.mode.plain.get(n).copied().unwrap_or(0) & 2 != 0;
        if inside && plain {
            return Ok(());
        }
        self.probe_write(op.mem.seg, ea, len)
    }

    /// Reads a memory operand of `len` bytes (at most 64) in pieces of up to 16.
    pub(super) fn read_bytes(&mut self, op: &Op, ea: u64, out: &mut [u8]) -> Result<(), Stop> {
        let mut at = 0u64;
        if out.len() > 16 {
            self.check_end(op, ea, out.len() as u64)?;
        }
        if out.len() > 32 && self.read_plain(op.mem.seg, ea, out).is_some() {
            return Ok(());
        }
        let alignment = alignment(op, out.len());
        let mut rest = out;
        while !rest.is_empty() {
            let from = Self::within(op, ea, at);
            let n = piece(rest.len());
            let bytes = match n {
                16 => self.read::<u128>(op.mem.seg, from)?.to_le_bytes(),
                8 => self.read_piece::<u64>(op, from, alignment)?,
                4 => self.read_piece::<u32>(op, from, alignment)?,
                2 => self.read_piece::<u16>(op, from, alignment)?,
                _ => self.read_piece::<u8>(op, from, alignment)?,
            };
            let Some((head, tail)) = rest.split_at_mut_checked(n) else { break };
            for (to, byte) in head.iter_mut().zip(bytes) {
                *to = byte;
            }
            rest = tail;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    #[inline(always)]
    fn read_piece<T: Scalar>(
        &mut self,
        op: &Op,
        from: u64,
        alignment: Alignment,
    ) -> Result<[u8; 16], Stop> {
        let value: T = match alignment {
            Alignment::Checked => self.read(op.mem.seg, from)?,
            Alignment::Free => self.read_unaligned(op.mem.seg, from)?,
        };
        Ok(value.widen().to_le_bytes())
    }

    /// Writes a memory operand in pieces of up to 16 bytes, all or none.
    pub(super) fn write_bytes(&mut self, op: &Op, ea: u64, bytes: &[u8]) -> Result<(), Stop> {
        // An 80-bit store is one of eight bytes and one of two, also if the second faults.
        if piece(bytes.len()) != bytes.len() && bytes.len() != 10 {
            self.probe_write(op.mem.seg, ea, bytes.len() as u64)?;
        }
        if bytes.len() > 32 && self.write_plain(op.mem.seg, ea, bytes).is_some() {
            return Ok(());
        }
        let mut at = 0u64;
        let alignment = alignment(op, bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let to = Self::within(op, ea, at);
            let n = piece(rest.len());
            let Some((head, tail)) = rest.split_at_checked(n) else { break };
            let mut whole = [0u8; 16];
            for (slot, byte) in whole.iter_mut().zip(head) {
                *slot = *byte;
            }
            let value = u128::from_le_bytes(whole);
            match n {
                16 => self.write(op.mem.seg, to, value)?,
                8 => self.write_piece(op, to, value as u64, alignment)?,
                4 => self.write_piece(op, to, value as u32, alignment)?,
                2 => self.write_piece(op, to, value as u16, alignment)?,
                _ => self.write_piece(op, to, value as u8, alignment)?,
            }
            rest = tail;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    #[inline(always)]
    fn write_piece<T: Scalar>(
        &mut self,
        op: &Op,
        to: u64,
        value: T,
        alignment: Alignment,
    ) -> Result<(), Stop> {
        match alignment {
            Alignment::Checked => self.write(op.mem.seg, to, value),
            Alignment::Free => self.write_unaligned(op.mem.seg, to, value),
        }
    }
}

/// Whether an operand may raise #AC.
#[derive(Clone, Copy)]
enum Alignment {
    Checked,
    Free,
}

/// The parts of an operand are not what #AC looks at, and F16C's operands never raise it (SDM
/// vol. 2C, VCVTPH2PS, VCVTPS2PH).
fn alignment(op: &Op, len: usize) -> Alignment {
    let in_parts = piece(len) != len && len != 10;
    let half_floats = matches!(op.instr.mnemonic(), Mnemonic::Vcvtps2ph | Mnemonic::Vcvtph2ps);
    if in_parts || half_floats { Alignment::Free } else { Alignment::Checked }
}

/// The largest access that fits in `len` bytes.
const fn piece(len: usize) -> usize {
    match len {
        16.. => 16,
        8..16 => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}
