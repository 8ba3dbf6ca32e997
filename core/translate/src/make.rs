//! Making a block: what is worth it, what bytes it is made of, and where it ends.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use hashbrown::HashSet;
use iced_x86::{Code, Decoder, Instruction};
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared, shown};
use kasane_interp::cpu::Cpu;
use kasane_memory::GuestMemory;

use crate::cache::Key;
use crate::emit::{self, Source, Translator};
use crate::engine::Translated;
use crate::guest::{Analyst, Guest, Kind};
use crate::live::{self, Page};
use crate::mode::{Mode, linear};
use crate::verify::{Block, Dump, Verifier};

/// Guest instructions in a block at most.
const BLOCK_INSTRUCTIONS: usize = 48;
const HEAT: usize = 1 << 14;
/// Blocks that can't be made and are remembered. Forgotten ones are tried again: code changes.
const HOPELESS: usize = 1024;
/// How often a page is read again because its bytes changed in between.
const TRIES: usize = 4;

/// What blocks are made with.
pub(crate) struct Maker {
    pub(crate) translator: Translator,
    analyst: Analyst,
    /// By code; none where it was not asked yet.
    shown: Box<[Option<bool>]>,
    heat: Box<[u8]>,
    hopeless: HashSet<Key>,
    page: Box<[u8]>,
    /// As it is later.
    again: Box<[u8]>,
    /// Empty, or of the last block.
    guests: Vec<Guest>,
    found: live::Liveness,
    /// The guest-physical page that it is a copy of, maybe an old one.
    page_of: Option<u64>,
    /// Liveness as debuggers and comparisons want it: every flag at every fault.
    pub(crate) strict: bool,
    /// Blocks are verified before they are used.
    pub(crate) verifies: bool,
    verifier: Verifier,
}

impl Maker {
    pub(crate) fn new() -> Self {
        Self {
            translator: Translator::new(),
            analyst: Analyst::new(),
            shown: alloc::vec![None; Code::values().len()].into_boxed_slice(),
            heat: alloc::vec![0; HEAT].into_boxed_slice(),
            hopeless: HashSet::new(),
            page: alloc::vec![0; 4096].into_boxed_slice(),
            again: alloc::vec![0; 4096].into_boxed_slice(),
            guests: Vec::with_capacity(BLOCK_INSTRUCTIONS),
            found: live::Liveness::default(),
            page_of: None,
            strict: false,
            verifies: cfg!(debug_assertions),
            verifier: Verifier::new(),
        }
    }

    /// Whether a block came up `threshold` times, this time included.
    pub(crate) fn is_hot(&mut self, key: Key, threshold: u8) -> bool {
        let hash = (key.gpa ^ key.rip.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50;
        let Some(heat) = self.heat.get_mut(hash as usize & (HEAT - 1)) else { return false };
        *heat = heat.saturating_add(1);
        *heat >= threshold && !self.hopeless.contains(&key)
    }
    /// Notes that no block could be made: of an instruction that reaches into the next page, say.
    pub(crate) fn give_up(&mut self, key: Key) {
        if self.hopeless.len() >= HOPELESS {
            self.hopeless.clear();
        }
        self.hopeless.insert(key);
    }

    /// What the interpreter does for a block.
    pub(crate) fn ops(&self, cpu: &Cpu, translated: &emit::Translated) -> Box<[Op]> {
        translated.left.iter().map(|left| prepared(cpu, *left)).collect()
    }

    /// Whether a block may be used.
    pub(crate) fn approves(&mut self, block: &Block<'_>) -> bool {
        let found = if self.verifies { self.verifier.verify(block) } else { Ok(()) };
        if let Err(violation) = &found {
            debug_assert!(false, "a translated block is refused: {}", Dump(block, violation));
        }
        found.is_ok()
    }

    /// The run of instructions from RIP: up to one that ends it, which is its last.
    fn decode(&mut self, cpu: &Cpu, rip: u64, mode: Mode, range: Range<usize>) -> Vec<Guest> {
        let page = core::mem::take(&mut self.page);
        let bytes = page.get(range).unwrap_or_default();
        let mut decoder = Decoder::with_ip(mode.bits(), bytes, rip, decoder_options(cpu));
        let mut guests = core::mem::take(&mut self.guests);
        guests.clear();
        while guests.len() < BLOCK_INSTRUCTIONS && decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break; // or cut off by the page's end
            }
            let guest = self.guest(cpu, mode, &instruction);
            guests.push(guest);
            if live::ends_block(guest.kind) {
                break;
            }
        }
        self.page = page;
        guests
    }
    /// What is to be done about an instruction in a mode.
    #[inline]
    pub(crate) fn guest(&mut self, cpu: &Cpu, mode: Mode, instruction: &Instruction) -> Guest {
        let mut guest = self.analyst.look_at(instruction);
        let vex = instruction.encoding() == iced_x86::EncodingKind::VEX;
        let lacking = guest.vectors && guest.kind == Kind::Plain && !mode.runs_vectors(vex);
        let refused = matches!(guest.kind, Kind::System(system) if !mode.takes(system));
        if !is_shown(&mut self.shown, cpu, instruction) || refused || lacking {
            guest.kind = Kind::Interpreted;
        }
        guest
    }
}

/// Whether the processor's model, which is always the same, shows an instruction.
fn is_shown(known: &mut [Option<bool>], cpu: &Cpu, instruction: &Instruction) -> bool {
    let Some(known) = known.get_mut(instruction.code() as usize) else { return false };
    *known.get_or_insert_with(|| shown(cpu, instruction))
}

impl Translated {
    /// Makes the block for `key`, if it can be made.
    pub(crate) fn make(&mut self, cpu: &mut Cpu, key: Key) {
        let began = cpu.clock.now_ns();
        self.make_in_peace(cpu, key);
        let took = cpu.clock.now_ns().wrapping_sub(began);
        let made = &mut self.shared.cache().made;
        made.nanoseconds = made.nanoseconds.wrapping_add(took);
    }
    fn make_in_peace(&mut self, cpu: &mut Cpu, key: Key) {
        if self.shared.cache().is_full() && !self.empty(cpu) {
            return;
        }
        let offset = key.gpa & 0xFFF;
        let va = linear(cpu, key.rip);
        let class = cpu.mode.fetch;
        let page_rip = key.rip.wrapping_sub(offset);
        let page_len = key.mode.code_end().wrapping_sub(page_rip).min(4096) as usize;
        let gpa_page = key.gpa & !0xFFF;
        for _ in 0..TRIES {
            if self.maker.page_of != Some(gpa_page) {
                self.maker.page_of = None;
                if cpu.tlb.memory().read(gpa_page, &mut self.maker.page).is_err() {
                    return;
                }
                self.maker.page_of = Some(gpa_page);
            }
            let guests = self.maker.decode(cpu, key.rip, key.mode, offset as usize..page_len);
            let Some(last) = guests.last() else { return self.make_crossing(cpu, key) };
            let len = last.instruction.next_ip().wrapping_sub(key.rip);
            let maker = &mut self.maker;
            let bytes = maker.page.get(..page_len).unwrap_or_default();
            let page = Page { bytes, rip: page_rip, bits: key.mode.bits() };
            let options = decoder_options(cpu);
            let mut found = core::mem::take(&mut maker.found);
            live::find(&mut found, &mut maker.analyst, &guests, &page, options, maker.strict);
            let first = found.looked_at.0.min(offset);
            let end = found.looked_at.1.max(offset.wrapping_add(len)).min(4096);
            let Some(exec) = cpu.tlb.exec(class, va) else { return };
            let mark = exec.state.mark_code(first, end.wrapping_sub(1));
            if mark.new_page {
                self.outside(cpu, |cpu| cpu.became_code(class, va));
            }
            // The page may be an old copy. What was used of it is looked at again, now that changes
            // are noticed.
            let Some(used) = self.maker.page.get(first as usize..end as usize) else { return };
            let Some(now) = self.maker.again.get_mut(..used.len()) else { return };
            if cpu.tlb.memory().read(gpa_page.wrapping_add(first), now).is_err() {
                return;
            }
            if now != used {
                self.maker.page_of = None;
                continue;
            }
            let made = self.shared.cache().page_version(gpa_page);
            if made.is_some_and(|version| version != mark.version) {
                self.drop_page(gpa_page);
            }
            let page = core::mem::take(&mut self.maker.page);
            let bytes = page.get(offset as usize..).unwrap_or_default();
            self.add(cpu, key, mark.version, (&guests, bytes), &found);
            self.maker.page = page;
            (self.maker.guests, self.maker.found) = (guests, found);
            return;
        }
    }

    fn add(
        &mut self,
        cpu: &Cpu,
        key: Key,
        version: u32,
        (guests, bytes): (&[Guest], &[u8]),
        found: &live::Liveness,
    ) {
        let mut cache = self.shared.cache();
        let at = cache.next();
        let source = Source {
            guests,
            bytes,
            live: &found.before,
            live_at_target: &found.at_target,
            mode: key.mode,
            skew: key.gpa.wrapping_sub(key.rip) & 0xFFF,
            at,
            stubs: self.shared.stubs,
        };
        let mut translated = self.maker.translator.translate(&source, &mut cache.slots);
        if cache.is_full() || cache.find(key).is_some() {
            return; // another processor was faster
        }
        let block = Block {
            code: &translated.code,
            at,
            host_entry: translated.host_entry,
            rip: key.rip,
            stubs: self.shared.stubs,
            slots: &cache.slots,
            mode: key.mode,
        };
        if !self.maker.approves(&block) {
            self.counters.refused_by_verifier = self.counters.refused_by_verifier.wrapping_add(1);
            return; // the interpreter does it
        }
        let ops = self.maker.ops(cpu, &translated);
        // A block that is too long is the interpreter's.
        let _: Option<()> = cache.add(key, version, &mut translated, ops);
        self.maker.translator.reuse(translated);
    }

    /// Drops all blocks. False if another processor does something of the kind.
    fn empty(&mut self, cpu: &mut Cpu) -> bool {
        let (shared, index) = (self.shared.clone(), self.index());
        self.outside(cpu, |cpu| shared.alone(index, &|| cpu.barrier.relax(), || shared.drop_all()))
    }
}
