//! Instructions across the end of a page.
//!
//! Such an instruction is a block of its own. It depends on two pages, and on where the second is
//! mapped, which says nothing about the first. So there may be several blocks for it, by the
//! second page ([`Cache::crossing`]), and it is reached by tables only, which are emptied when the
//! mapping of either page changes: an address so near to a page's end counts as one of both pages
//! there ([`touches`]).
//!
//! What other blocks can be bound to is its signpost: a block that only jumps to it by its slot.
//!
//! [`Cache::crossing`]: crate::cache::Cache

use alloc::vec::Vec;

use iced_x86::{Decoder, DecoderError};
use kasane_cpu::paging::Access;
use kasane_interp::accelerator::decoder_options;
use kasane_interp::cpu::Cpu;
use kasane_memory::GuestMemory;

use crate::cache::Key;
use crate::emit::{Source, signpost};
use crate::engine::Translated;
use crate::guest::{ALL_FLAGS, Guest, Kind};
use crate::mode::linear;
use crate::verify::Block;

/// Bytes of an instruction at most (SDM vol. 2A §2.3.11).
pub(crate) const LONGEST: u64 = 15;

/// Whether an instruction at `rip` may have bytes in the page at `va`.
pub(crate) fn touches(rip: u64, va: u64) -> bool {
    (rip ^ va) >> 12 == 0 || (rip.wrapping_add(LONGEST - 1) ^ va) >> 12 == 0
}

/// Whether an instruction at this address may reach into the next page.
pub(crate) fn may_cross(va: u64) -> bool {
    va & 0xFFF > 4096 - LONGEST
}

/// Guest-physical address of the page behind that of `rip`.
pub(crate) fn second_page(cpu: &mut Cpu, rip: u64) -> Option<u64> {
    let (class, va) = (cpu.mode.fetch, second_address(cpu, rip)?);
    if cpu.tlb.exec(class, va).is_none() {
        cpu.translate_fill(va, Access::Execute, class).ok()?;
    }
    Some(cpu.tlb.exec(class, va)?.gpa & !0xFFF)
}
fn second_address(cpu: &Cpu, rip: u64) -> Option<u64> {
    let va = (linear(cpu, rip) & !0xFFF).checked_add(0x1000)?;
    let reached = Cpu::canonical(va) && (cpu.code64() || va <= u64::from(u32::MAX));
    reached.then_some(va)
}

/// The bytes from `gpa` to the end of its page, and those at the begin of the page `second`.
pub(crate) fn bytes_across(cpu: &Cpu, gpa: u64, second: u64) -> Option<Vec<u8>> {
    let in_first = 4096usize.checked_sub(gpa as usize & 0xFFF)?.min(LONGEST as usize);
    let mut bytes = alloc::vec![0; in_first.wrapping_add(LONGEST as usize)];
    let (first, more) = bytes.split_at_mut(in_first);
    cpu.tlb.memory().read(gpa, first).ok()?;
    cpu.tlb.memory().read(second, more).ok()?;
    Some(bytes)
}

impl Translated {
    /// Makes the block for the instruction at `key`, of which some bytes are in its page.
    pub(crate) fn make_crossing(&mut self, cpu: &mut Cpu, key: Key) {
        // Only who really is cut off reaches the second page, and makes it accessed.
        if !key.mode.has_flat_code() || !Self::is_cut_off(cpu, key) {
            return;
        }
        let Some(second) = second_page(cpu, key.rip) else { return };
        let Some(second_va) = second_address(cpu, key.rip) else { return };
        let (class, va) = (cpu.mode.fetch, linear(cpu, key.rip));
        let Some(before) = bytes_across(cpu, key.gpa, second) else { return };
        let Some(guest) = self.crossing_instruction(cpu, key, &before) else { return };
        let in_first = 4096u64.wrapping_sub(key.gpa & 0xFFF);
        let last = (guest.instruction.len() as u64).wrapping_sub(in_first).wrapping_sub(1);
        let Some(exec) = cpu.tlb.exec(class, va) else { return };
        let first_mark = exec.state.mark_code(key.gpa & 0xFFF, 4095);
        let Some(exec) = cpu.tlb.exec(class, second_va) else { return };
        let second_mark = exec.state.mark_code(0, last);
        for (new, va) in [(first_mark.new_page, va), (second_mark.new_page, second_va)] {
            if new {
                self.outside(cpu, |cpu| cpu.became_code(class, va));
            }
        }
        // Now that changes are noticed. If there were any, the next time will do.
        let unchanged = bytes_across(cpu, key.gpa, second).is_some_and(|now| now == before);
        if !unchanged || second_page(cpu, key.rip) != Some(second) {
            return;
        }
        let pages = [(key.gpa & !0xFFF, first_mark.version), (second, second_mark.version)];
        for (page, version) in pages {
            let made = self.shared.cache().page_version(page);
            if made.is_some_and(|made| made != version) {
                self.drop_page(page);
            }
        }
        self.add_crossing(cpu, key, pages, &guest);
    }

    /// Whether an instruction goes on behind the end of its page.
    fn is_cut_off(cpu: &Cpu, key: Key) -> bool {
        let mut bytes = [0; LONGEST as usize];
        let in_first = 4096usize.wrapping_sub(key.gpa as usize & 0xFFF);
        let Some(bytes) = bytes.get_mut(..in_first) else { return false };
        if cpu.tlb.memory().read(key.gpa, bytes).is_err() {
            return false;
        }
        let mut decoder = Decoder::with_ip(key.mode.bits(), bytes, key.rip, decoder_options(cpu));
        let _cut_off = decoder.decode();
        decoder.last_error() == DecoderError::NoMoreBytes
    }
    fn crossing_instruction(&mut self, cpu: &Cpu, key: Key, code: &[u8]) -> Option<Guest> {
        let options = decoder_options(cpu);
        let mut decoder = Decoder::with_ip(key.mode.bits(), code, key.rip, options);
        let instruction = decoder.decode();
        let crosses = instruction.len() as u64 > 4096u64.wrapping_sub(key.gpa & 0xFFF);
        let inside = key.rip.wrapping_add(instruction.len() as u64) <= key.mode.code_end();
        if instruction.is_invalid() || !crosses || !inside {
            return None;
        }
        let mut guest = Guest { instruction, ..Guest::default() };
        self.maker.look_at(cpu, key.mode, &mut guest);
        (guest.kind != Kind::Interpreted).then_some(guest)
    }

    fn add_crossing(&mut self, cpu: &Cpu, key: Key, pages: [(u64, u32); 2], guest: &Guest) {
        let [(_, version), (second, _)] = pages;
        if self.shared.cache().find(key).is_none() {
            self.add_signpost(key, version);
        }
        let mut cache = self.shared.cache();
        let source = Source {
            guests: core::slice::from_ref(guest),
            bytes: &[],
            live: &[ALL_FLAGS; 2],
            live_at_target: &[ALL_FLAGS],
            mode: key.mode,
            skew: key.gpa.wrapping_sub(key.rip) & 0xFFF,
            at: cache.next(),
            stubs: self.shared.stubs,
        };
        let mut translated = self.maker.translator.translate(&source, &mut cache.slots);
        let known = cache.find_crossing(key, second).is_some();
        if cache.is_full() || known || translated.instructions == 0 {
            return;
        }
        let block = Block::of(&translated, source.at, key, self.shared.stubs, &cache.slots);
        if self.maker.approves(&block) {
            let ops = self.maker.ops(cpu, &translated);
            if cache.add_crossing(key, pages, &mut translated, ops).is_some() {
                cache.places.note(source.guests, translated.instructions, |_| key.gpa);
            }
        }
    }
    /// The block that leads to the one for an instruction across pages.
    fn add_signpost(&mut self, key: Key, version: u32) {
        let mut cache = self.shared.cache();
        let at = cache.next();
        let Some(mut translated) = signpost(key, &mut cache.slots) else { return };
        let block = Block::of(&translated, at, key, self.shared.stubs, &cache.slots);
        if !cache.is_full() && self.maker.approves(&block) {
            let _: Option<()> = cache.add_signpost(key, version, &mut translated);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_of_a_page_touch_the_next_one() {
        assert!(touches(0x1FF1, 0x1000) && !touches(0x1FF1, 0x2000));
        assert!(touches(0x1FF2, 0x1000) && touches(0x1FF2, 0x2000));
        assert!(touches(0x2000, 0x2000) && !touches(0x2000, 0x1000));
        assert!(!may_cross(0x1FF1) && may_cross(0x1FF2) && !may_cross(0x2000));
    }
}
