//! Decoded blocks: straight runs of instructions, kept until their bytes change.
//!
//! A block belongs to a guest-physical address, a RIP and a code size. It is valid while the
//! versions of its pages are those it was made with. Making one follows the code map's protocol
//! (`kasane_memory`): decode to learn the range, mark exactly that range, synchronize if a page
//! is new as code, and read again; if the bytes are no longer the same, start over.

use alloc::boxed::Box;
use alloc::vec::Vec;

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};
use kasane_cpu::cpuid::Feature;
use kasane_cpu::paging::Access;
use kasane_memory::GuestMemory;

use crate::cpu::{CodeSize, Cpu, Stop};
use crate::critical::CriticalInstruction;
use crate::exec;
use crate::op::{MemoryOperand, Op};

const SLOTS: usize = 1 << 14;
const MAX_OPS: usize = 32;
/// How often a block is read again because its bytes changed in between.
const TRIES: usize = 8;
/// Longest run of bytes that is looked at for one block.
const MAX_BYTES: usize = 256;
const PAGE: u64 = 4096;

/// Where no block is looked for: guest-physical addresses have 52 bits.
const NOWHERE: u64 = u64::MAX;

/// A decoded run of instructions.
pub struct Block {
    gpa: u64,
    rip: u64,
    code: CodeSize,
    /// Length in bytes.
    len: u64,
    version: u32,
    /// Version of the following page, if the last instruction reaches into it, and its address.
    second: Option<(u64, u32)>,
    /// There are critical instructions among them.
    pub(crate) has_critical: bool,
    /// The instructions; never empty.
    pub ops: Vec<Op>,
}

/// The decoded blocks of one vCPU.
pub struct BlockCache {
    slots: Box<[Option<Box<Block>>]>,
    /// Blocks decoded since creation.
    pub decoded: u64,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::with_slots(SLOTS)
    }
}

impl BlockCache {
    /// Room for less: beside an accelerator, which leaves only cold code.
    pub(crate) fn small() -> Self {
        Self::with_slots(SLOTS / 16)
    }
    /// `slots`: a power of two.
    fn with_slots(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| None).collect(), decoded: 0 }
    }
}

/// Bytes at RIP, as far as they could be fetched.
struct Fetched {
    bytes: [u8; MAX_BYTES + 16],
    /// Bytes from the first page (or up to the code segment's limit).
    len: usize,
    /// The code segment's limit, not the page, ends them.
    limited: bool,
}

fn slot_of(gpa: u64, rip: u64, code: CodeSize) -> usize {
    let x = (gpa ^ rip.rotate_left(23)).wrapping_add(code as u64);
    (x.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & (SLOTS - 1)
}

impl BlockCache {
    /// The block at RIP, decoded if need be.
    ///
    /// # Errors
    /// A fetch fault.
    #[inline]
    pub fn find(&mut self, cpu: &mut Cpu) -> Result<&Block, Stop> {
        let rip = cpu.state.rip;
        let code = cpu.mode.code;
        let base = cpu.mode.base.get(1).copied().unwrap_or(0);
        let va = base.wrapping_add(rip) & cpu.mode.linear_mask;
        let gpa = Self::fetch_page(cpu, rip, va)? | va & (PAGE - 1);
        let slot = slot_of(gpa, rip, code) & self.slots.len().wrapping_sub(1);
        let hit = match self.slots.get(slot) {
            Some(Some(block)) => {
                block.gpa == gpa
                    && block.rip == rip
                    && block.code == code
                    && Self::valid(cpu, block, va)
            }
            _ => false,
        };
        if !hit {
            let block = Self::decode(cpu, rip, va, gpa)?;
            self.decoded = self.decoded.wrapping_add(1);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(Box::new(block));
            }
        }
        match self.slots.get(slot) {
            Some(Some(block)) => Ok(block),
            _ => Err(Stop::Break),
        }
    }

    /// The guest-physical page that holds the byte at RIP.
    #[inline]
    fn fetch_page(cpu: &mut Cpu, rip: u64, va: u64) -> Result<u64, Stop> {
        if matches!(cpu.mode.code, CodeSize::Bits64) {
            if !Cpu::canonical(rip) {
                return Err(cpu.gp(0));
            }
        } else if rip > u64::from(cpu.state.cs.limit) {
            return Err(cpu.gp(0));
        }
        if let Some(page) = cpu.tlb.exec(cpu.mode.fetch, va) {
            return Ok(page.gpa);
        }
        cpu.translate_fill(va, Access::Execute, cpu.mode.fetch)?;
        match cpu.tlb.exec(cpu.mode.fetch, va) {
            Some(page) => Ok(page.gpa),
            // No memory there: the bus floats high, and FF FF is no instruction.
            None => Err(cpu.ud()),
        }
    }

    #[inline]
    fn valid(cpu: &Cpu, block: &Block, va: u64) -> bool {
        let class = cpu.mode.fetch;
        if cpu.tlb.exec(class, va).is_none_or(|page| page.state.version() != block.version) {
            return false;
        }
        if !matches!(block.code, CodeSize::Bits64)
            && block.rip.wrapping_add(block.len).wrapping_sub(1) > u64::from(cpu.state.cs.limit)
        {
            return false;
        }
        block.second.is_none_or(|(gpa, version)| {
            let next = (va & !(PAGE - 1)).wrapping_add(PAGE) & cpu.mode.linear_mask;
            cpu.tlb
                .exec(class, next)
                .is_some_and(|page| page.gpa == gpa && page.state.version() == version)
        })
    }

    fn decode(cpu: &mut Cpu, rip: u64, va: u64, gpa: u64) -> Result<Block, Stop> {
        for _ in 0..TRIES {
            let first = Self::fetch(cpu, rip, va, gpa);
            let (instrs, len, second) = Self::decode_bytes(cpu, rip, va, &first)?;
            let offset = gpa & (PAGE - 1);
            let in_first = len.min(PAGE - offset);
            let class = cpu.mode.fetch;
            let Some(page) = cpu.tlb.exec(class, va) else { continue };
            let mark = page.state.mark_code(offset, offset + in_first - 1);
            let mut new_page = mark.new_page;
            let mut second_mark = None;
            if let Some(second_gpa) = second {
                let next = (va & !(PAGE - 1)).wrapping_add(PAGE) & cpu.mode.linear_mask;
                let Some(page) = cpu.tlb.exec(class, next) else { continue };
                let mark = page.state.mark_code(0, (len - in_first).saturating_sub(1));
                new_page |= mark.new_page;
                second_mark = Some((second_gpa, mark.version));
            }
            if new_page {
                cpu.became_code(class, va);
                if second.is_some() {
                    let next = (va & !(PAGE - 1)).wrapping_add(PAGE) & cpu.mode.linear_mask;
                    cpu.became_code(class, next);
                }
            }
            let again = Self::fetch(cpu, rip, va, gpa);
            let (_, len_again, second_again) = Self::decode_bytes(cpu, rip, va, &again)?;
            let n = (in_first as usize).min(first.len);
            let same = first.bytes.get(..n) == again.bytes.get(..n);
            if !same || len_again != len || second_again != second {
                continue;
            }
            let code = cpu.mode.code;
            let (ops, has_critical) = make_ops(cpu, instrs);
            let (version, second) = (mark.version, second_mark);
            return Ok(Block { gpa, rip, code, len, version, second, has_critical, ops });
        }
        Self::decode_once(cpu, rip, va, gpa)
    }

    /// The one instruction at RIP as it is now, for code that another processor changes all the
    /// time: to be run, and never to be found again.
    fn decode_once(cpu: &mut Cpu, rip: u64, va: u64, gpa: u64) -> Result<Block, Stop> {
        let bytes = Self::fetch(cpu, rip, va, gpa);
        let (mut instrs, len, _) = Self::decode_bytes(cpu, rip, va, &bytes)?;
        instrs.truncate(1);
        let code = cpu.mode.code;
        let (ops, has_critical) = make_ops(cpu, instrs);
        Ok(Block { gpa: NOWHERE, rip, code, len, version: 0, second: None, has_critical, ops })
    }

    /// Reads the bytes of the first page.
    fn fetch(cpu: &Cpu, rip: u64, va: u64, gpa: u64) -> Fetched {
        let mut fetched = Fetched { bytes: [0; MAX_BYTES + 16], len: 0, limited: false };
        let mut len = (PAGE - (va & (PAGE - 1))).min(MAX_BYTES as u64);
        if !matches!(cpu.mode.code, CodeSize::Bits64) {
            let allowed = u64::from(cpu.state.cs.limit).saturating_sub(rip).saturating_add(1);
            if allowed <= len {
                len = allowed;
                fetched.limited = true;
            }
        }
        fetched.len = len as usize;
        if let Some(part) = fetched.bytes.get_mut(..len as usize) {
            // The page is RAM or ROM: `fetch_page` found it in the TLB.
            if cpu.tlb.memory().read(gpa, part).is_err() {
                part.fill(0xFF);
            }
        }
        fetched
    }

    /// Decodes a block: instructions, length, and the second page's address if it reaches there.
    fn decode_bytes(
        cpu: &mut Cpu,
        rip: u64,
        va: u64,
        fetched: &Fetched,
    ) -> Result<(Vec<Instruction>, u64, Option<u64>), Stop> {
        let bits = cpu.mode.code as u32;
        let bytes = fetched.bytes.get(..fetched.len).unwrap_or_default();
        let mut decoder = Decoder::with_ip(bits, bytes, rip, decoder_options(cpu));
        let mut instrs = Vec::new();
        let mut len = 0;
        while instrs.len() < MAX_OPS && decoder.can_decode() {
            let start = decoder.position();
            let mut instr = decoder.decode();
            if instr.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
                if !instrs.is_empty() {
                    break; // the block ends before the instruction that is cut off
                }
                return Self::decode_across(cpu, rip, va, fetched);
            }
            len = decoder.position() as u64;
            if instr.is_invalid() {
                let rest = bytes.get(start..).unwrap_or_default();
                instr.set_len(invalid_len(cpu, rest, decoder.position().saturating_sub(start)));
            }
            let ends = ends_block(&instr);
            instrs.push(instr);
            if ends {
                break;
            }
        }
        Ok((instrs, len, None))
    }

    /// Decodes one instruction that reaches into the next page.
    fn decode_across(
        cpu: &mut Cpu,
        rip: u64,
        va: u64,
        fetched: &Fetched,
    ) -> Result<(Vec<Instruction>, u64, Option<u64>), Stop> {
        if fetched.limited || fetched.len > 15 {
            return Err(cpu.gp(0)); // beyond the segment's limit, or longer than 15 bytes
        }
        let next = (va & !(PAGE - 1)).wrapping_add(PAGE) & cpu.mode.linear_mask;
        let first_len = fetched.len as u64;
        let gpa = Self::fetch_page(cpu, rip.wrapping_add(first_len), next)?;
        let mut bytes = fetched.bytes;
        let mut more = 16 - fetched.len;
        if !matches!(cpu.mode.code, CodeSize::Bits64) {
            let from = rip.wrapping_add(first_len);
            let allowed = u64::from(cpu.state.cs.limit).saturating_sub(from).saturating_add(1);
            if allowed < more as u64 {
                more = allowed as usize;
            }
        }
        let end = fetched.len + more;
        if let Some(part) = bytes.get_mut(fetched.len..end)
            && cpu.tlb.memory().read(gpa, part).is_err()
        {
            part.fill(0xFF);
        }
        let bits = cpu.mode.code as u32;
        let whole = bytes.get(..end).unwrap_or_default();
        let mut decoder = Decoder::with_ip(bits, whole, rip, decoder_options(cpu));
        let mut instr = decoder.decode();
        if instr.is_invalid() {
            // Cut off by the limit, or longer than 15 bytes.
            if decoder.last_error() == DecoderError::NoMoreBytes {
                return Err(cpu.gp(0));
            }
            instr.set_len(invalid_len(cpu, whole, decoder.position()));
        }
        let len = decoder.position() as u64;
        Ok((alloc::vec![instr], len, Some(gpa)))
    }
}

/// LZCNT and TZCNT are BSR and BSF with a prefix that processors without them ignore.
pub(crate) fn decoder_options(cpu: &Cpu) -> u32 {
    let mut options = DecoderOptions::NONE;
    if !cpu.model.has(Feature::Bmi1) {
        options |= DecoderOptions::NO_MPFX_0FBC;
    }
    if !cpu.model.has(Feature::Lzcnt) {
        options |= DecoderOptions::NO_MPFX_0FBD;
    }
    options
}

/// The length of an instruction that the decoder calls invalid after `consumed` bytes: 15 only for
/// one that is longer than that. The decoder gives up at 15 bytes for both reasons; without some
/// of the prefixes, which such an instruction begins with, its length shows. The decoder takes one
/// byte more than the opcode of what it doesn't know, so that an unknown opcode in the 15th byte
/// is not taken for a longer one.
fn invalid_len(cpu: &Cpu, bytes: &[u8], consumed: usize) -> usize {
    if consumed < 15 {
        return consumed;
    }
    const DROPPED: usize = 4;
    let rest = bytes.get(DROPPED..).unwrap_or_default();
    let mut decoder = Decoder::new(cpu.mode.code as u32, rest, decoder_options(cpu));
    let unknown = decoder.decode().is_invalid();
    let cut_off = decoder.last_error() == DecoderError::NoMoreBytes;
    let whole = decoder.position().saturating_add(DROPPED).saturating_sub(usize::from(unknown));
    if cut_off || whole > 15 { 15 } else { 14 }
}

fn ends_block(instr: &Instruction) -> bool {
    instr.is_invalid()
        || instr.flow_control() != FlowControl::Next
        || exec::lower(instr).is_none_or(|lowered| lowered.ends_block)
}

/// The instructions of a block, and whether critical ones are among them.
fn make_ops(cpu: &Cpu, instrs: Vec<Instruction>) -> (Vec<Op>, bool) {
    let ops: Vec<Op> = instrs.into_iter().map(|instr| make_op(cpu, instr)).collect();
    let has_critical = ops.iter().any(|op| op.critical.is_some());
    (ops, has_critical)
}

pub(crate) fn make_op(cpu: &Cpu, instr: Instruction) -> Op {
    let shown = crate::guard::shown(&cpu.model, &instr);
    let lowered = exec::lower(&instr).filter(|_| shown).unwrap_or_else(|| {
        let lacking = shown && instr.code() != Code::INVALID;
        crate::op::Lowered::ending(if lacking { exec::missing } else { exec::invalid })
    });
    let mask = match cpu.mode.code {
        CodeSize::Bits64 => u64::MAX,
        CodeSize::Bits32 | CodeSize::Bits16 => 0xFFFF_FFFF,
    };
    Op {
        run: lowered.run,
        next_rip: instr.next_ip() & mask,
        imm: lowered.imm,
        mem: MemoryOperand::of(&instr),
        a: lowered.a,
        b: lowered.b,
        c: lowered.c,
        critical: CriticalInstruction::of(&instr),
        instr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, TestCpu};

    #[test]
    fn what_never_holds_still_is_run_one_by_one_and_not_found_again() {
        let mut it = TestCpu::code32(&[0xB8, 1, 0, 0, 0, 0x90, 0x90]);
        BlockCache::fetch_page(&mut it.cpu, CODE, CODE).unwrap();

        let block = BlockCache::decode_once(&mut it.cpu, CODE, CODE, CODE).unwrap();

        assert_eq!(block.ops.len(), 1);
        assert_eq!(block.ops[0].next_rip, CODE + 5);
        assert_ne!(block.gpa, CODE);
    }
}
