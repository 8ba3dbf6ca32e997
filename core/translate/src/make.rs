//! Making a block: what is worth it, what bytes it is made of, and where it ends.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashSet;
use iced_x86::{Code, Decoder, Instruction};
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared, shown};
use kasane_interp::cpu::Cpu;
use kasane_memory::GuestMemory;

use crate::cache::Key;
use crate::copies::Copies;
use crate::emit::{self, Source, Translator};
use crate::engine::Translated;
use crate::guest::{Analyst, Guest, Kind};
use crate::live::{self, Ahead, Page};
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
    copies: Copies,
    /// Bytes as they are later.
    again: Box<[u8]>,
    /// Empty, or of the last block.
    guests: Vec<Guest>,
    found: live::Liveness,
    /// Liveness as debuggers and comparisons want it: every flag at every fault.
    pub(crate) strict: bool,
    /// Blocks are verified before they are used.
    pub(crate) verifies: bool,
    verifier: Verifier,
    /// Blocks that it refused.
    pub(crate) refused: u64,
}

impl Maker {
    pub(crate) fn new() -> Self {
        Self {
            translator: Translator::new(),
            analyst: Analyst::new(),
            shown: alloc::vec![None; Code::values().len()].into_boxed_slice(),
            heat: alloc::vec![0; HEAT].into_boxed_slice(),
            hopeless: HashSet::new(),
            copies: Copies::new(),
            again: alloc::vec![0; 4096].into_boxed_slice(),
            guests: Vec::with_capacity(BLOCK_INSTRUCTIONS),
            found: live::Liveness::default(),
            strict: false,
            verifies: cfg!(debug_assertions),
            verifier: Verifier::new(),
            refused: 0,
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
            self.refused = self.refused.wrapping_add(1);
        }
        found.is_ok()
    }

    /// Reads the run of instructions that begins at RIP, up to one that ends it, which is its last,
    /// and looks at what is live in it. `page_len`: bytes of the page that are code.
    fn read(&mut self, cpu: &Cpu, key: Key, page_len: usize) {
        let offset = key.gpa & 0xFFF;
        let page = Page {
            bytes: self.copies.get(key.gpa & !0xFFF).get(..page_len).unwrap_or_default(),
            rip: key.rip.wrapping_sub(offset),
        };
        let options = decoder_options(cpu);
        let mut decoder = Decoder::with_ip(key.mode.bits(), page.bytes, page.rip, options);
        page.go_to(&mut decoder, key.rip);
        self.guests.clear();
        while self.guests.len() < BLOCK_INSTRUCTIONS && decoder.can_decode() {
            self.guests.push(Guest::default());
            let Some(guest) = self.guests.last_mut() else { break };
            decoder.decode_out(&mut guest.instruction);
            if guest.instruction.is_invalid() {
                self.guests.pop();
                break; // or cut off by the page's end
            }
            self.analyst.look_at(guest);
            limit(&mut self.shown, cpu, key.mode, guest);
            if live::ends_block(guest.kind) {
                break;
            }
        }
        let ahead = Ahead::new(&mut self.analyst, &mut decoder, &page, self.strict);
        live::find(&mut self.found, &self.guests, ahead);
    }
    /// Decides what is to be done about the instruction in `guest`, in a mode.
    pub(crate) fn look_at(&mut self, cpu: &Cpu, mode: Mode, guest: &mut Guest) {
        self.analyst.look_at(guest);
        limit(&mut self.shown, cpu, mode, guest);
    }
}

/// Leaves to the interpreter what a mode doesn't allow, or the processor's model doesn't show.
#[inline]
fn limit(known: &mut [Option<bool>], cpu: &Cpu, mode: Mode, guest: &mut Guest) {
    let refused = match guest.kind {
        Kind::Plain if guest.vectors => {
            let vex = guest.instruction.encoding() == iced_x86::EncodingKind::VEX;
            !mode.runs_vectors(vex)
        }
        Kind::System(system) => !mode.takes(system),
        _ => false,
    };
    if refused || !is_shown(known, cpu, &guest.instruction) {
        guest.kind = Kind::Interpreted;
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
        self.counters.nanoseconds = self.counters.nanoseconds.wrapping_add(took);
    }
    fn make_in_peace(&mut self, cpu: &mut Cpu, key: Key) {
        if !self.shared.cache().prepare() && !self.empty(cpu) {
            return;
        }
        let offset = key.gpa & 0xFFF;
        let va = linear(cpu, key.rip);
        let class = cpu.mode.fetch;
        let page_rip = key.rip.wrapping_sub(offset);
        let page_len = key.mode.code_end().wrapping_sub(page_rip).min(4096) as usize;
        let gpa_page = key.gpa & !0xFFF;
        for _ in 0..TRIES {
            if !self.maker.copies.load(cpu.tlb.memory(), gpa_page) {
                return;
            }
            self.maker.read(cpu, key, page_len);
            let Some(last) = self.maker.guests.last() else {
                return self.make_crossing(cpu, key);
            };
            let len = last.instruction.next_ip().wrapping_sub(key.rip);
            let (first, end) = self.maker.found.looked_at;
            let first = first.min(offset);
            let end = end.max(offset.wrapping_add(len)).min(4096);
            let Some(exec) = cpu.tlb.exec(class, va) else { return };
            let mark = exec.state.mark_code(first, end.wrapping_sub(1));
            if mark.new_page {
                self.outside(cpu, |cpu| cpu.became_code(class, va));
            }
            // The page may be an old copy. What was used of it is looked at again, now that changes
            // are noticed.
            let copy = self.maker.copies.get(gpa_page);
            let Some(used) = copy.get(first as usize..end as usize) else { return };
            let Some(now) = self.maker.again.get_mut(..used.len()) else { return };
            if cpu.tlb.memory().read(gpa_page.wrapping_add(first), now).is_err() {
                return;
            }
            if now != used {
                self.maker.copies.forget(gpa_page);
                continue;
            }
            if !self.add(cpu, key, mark.version) {
                self.drop_page(gpa_page);
                self.add(cpu, key, mark.version);
            }
            return;
        }
    }

    /// Makes a block of what was read. False if the page's blocks are of another version, and have
    /// to be dropped before.
    fn add(&mut self, cpu: &Cpu, key: Key, version: u32) -> bool {
        let mut cache = self.shared.cache();
        if cache.page_version(key.gpa & !0xFFF).is_some_and(|made| made != version) {
            return false;
        }
        let at = cache.next();
        let Maker { translator, guests, found, copies, .. } = &mut self.maker;
        let page = copies.get(key.gpa & !0xFFF);
        let source = Source {
            guests,
            bytes: page.get(key.gpa as usize & 0xFFF..).unwrap_or_default(),
            live: &found.before,
            live_at_target: &found.at_target,
            mode: key.mode,
            skew: key.gpa.wrapping_sub(key.rip) & 0xFFF,
            at,
            stubs: self.shared.stubs,
        };
        let mut translated = translator.translate(&source, &mut cache.slots);
        if cache.is_full() || cache.find(key).is_some() {
            return true; // another processor was faster
        }
        let block = Block::of(&translated, at, key, self.shared.stubs, &cache.slots);
        if !self.maker.approves(&block) {
            return true; // the interpreter does it
        }
        let ops = self.maker.ops(cpu, &translated);
        // A block that is too long is the interpreter's.
        if cache.add(key, version, &mut translated, ops).is_some() {
            let gpa = |rip: u64| key.gpa.wrapping_add(rip.wrapping_sub(key.rip));
            cache.places.note(&self.maker.guests, translated.instructions, gpa);
        }
        self.maker.translator.reuse(translated);
        true
    }

    /// Drops all blocks. False if another processor does something of the kind.
    fn empty(&mut self, cpu: &mut Cpu) -> bool {
        let (shared, index) = (self.shared.clone(), self.index());
        self.outside(cpu, |cpu| shared.alone(index, &|| cpu.barrier.relax(), || shared.drop_all()))
    }
}
