//! Running translated code: the way in, the reasons for leaving, the inline TLB.

use alloc::boxed::Box;
use alloc::vec::Vec;

use iced_x86::Decoder;
use kasane_cpu::VectorState;
use kasane_cpu::paging::Access;
use kasane_interp::accelerator::{Accelerator, Ran, decoder_options, shown};
use kasane_interp::cpu::{CodeSize, Cpu};
use kasane_memory::{Flushed, GuestMemory};
use kasane_passthrough::{CodeEntry, Outcome};
use kasane_spec_x86::control::{cr0, cr4};
use kasane_spec_x86::flags;

use crate::cache::{Cache, Counters, Key};
use crate::emit::{Site, Source, Translator};
use crate::guest::{Analyst, Guest, Kind, uses_vectors};
use crate::layout::{Hot, StateBlock};
use crate::live::{self, Page};

/// Guest instructions in a block at most.
const BLOCK_INSTRUCTIONS: usize = 48;
/// Backward jumps and indirect branches between two looks around.
const POLLS: i32 = 2000;
/// A block is translated when it comes up so often.
const THRESHOLD: u8 = 3;
const HEAT: usize = 1 << 14;
/// Bits of a key's mode above the privilege class.
const SSE: u8 = 4;
const AVX: u8 = 8;

/// When the translator translates, and when it looks up from what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A block is translated when it comes up so often.
    pub threshold: u8,
    /// Backward jumps and indirect branches between two looks around.
    pub polls: i32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { threshold: THRESHOLD, polls: POLLS }
    }
}

/// The translator of one vCPU.
pub struct Translated {
    state: Box<StateBlock>,
    cache: Cache,
    translator: Translator,
    analyst: Analyst,
    heat: Box<[u8]>,
    /// Mode that the jump tables hold blocks of.
    mode: u8,
    /// Liveness as debuggers and comparisons want it: every flag at every fault.
    strict: bool,
    policy: Policy,
    page: Box<[u8]>,
}

impl Translated {
    /// `None` if the arena can't be used.
    #[must_use]
    pub fn new(arena: Box<dyn kasane_passthrough::CodeArena>) -> Option<Self> {
        let mut state = StateBlock::new();
        state.hot.flush_all();
        Some(Self {
            state,
            cache: Cache::new(arena)?,
            translator: Translator::new(),
            analyst: Analyst::new(),
            heat: alloc::vec![0; HEAT].into_boxed_slice(),
            mode: u8::MAX,
            strict: false,
            policy: Policy::default(),
            page: alloc::vec![0; 4096].into_boxed_slice(),
        })
    }
    /// All flags are as the manual has them at every fault, also those that no program can miss.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }
    /// Changes the policy; for comparisons that want every tier and every way out.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.state.hot.count = policy.polls;
    }
    /// Counts since creation.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.cache.counters
    }

    fn class(&self) -> usize {
        usize::from(self.mode & 3)
    }

    // --- what changed meanwhile --------------------------------------------------------------

    /// Follows what the interpreter and others did to TLB and code.
    fn catch_up(&mut self, cpu: &mut Cpu) {
        match cpu.tlb.take_flushes() {
            Flushed::Nothing => {}
            Flushed::Pages(pages) => {
                for page in pages {
                    let hot = &mut self.state.hot;
                    hot.tlb.iter_mut().for_each(|tlb| tlb.flush_page(page));
                    hot.jumps.iter_mut().for_each(|table| table.flush_page(page));
                }
            }
            Flushed::All => self.state.hot.flush_all(),
        }
        for page in cpu.tlb.take_code_pages() {
            self.state.hot.protect(page as u64);
        }
        let changed: Vec<u64> = match cpu.tlb.take_code_changes() {
            None => return,
            Some(Some(pages)) => pages,
            Some(None) => self.cache.pages().map(|(page, _)| page).collect(),
        };
        for page in changed {
            let version = cpu.tlb.page_version(page);
            if self.cache.page_version(page).is_some_and(|made| version != Some(made)) {
                self.drop_page(page);
            }
        }
    }

    /// Drops the blocks of a page, also from the jump tables.
    fn drop_page(&mut self, page: u64) {
        let hot = &mut self.state.hot;
        self.cache.drop_page(page, |key| {
            if let Some(table) = hot.jumps.get_mut(usize::from(key.mode & 3)) {
                table.forget(key.rip);
            }
        });
    }

    /// The mode that blocks are made for now; `None` if the interpreter has to do it.
    fn mode_of(cpu: &Cpu) -> Option<u8> {
        if cpu.mode.code != CodeSize::Bits64 || cpu.alignment_checked() {
            return None;
        }
        let mut mode = cpu.mode.data as u8;
        let s = &cpu.state;
        let sse = s.cr0 & (cr0::EM | cr0::TS) == 0 && s.cr4 & cr4::OSFXSR != 0;
        if sse {
            mode |= SSE;
            if s.cr4 & cr4::OSXSAVE != 0 && s.xcr0 & 6 == 6 {
                mode |= AVX;
            }
        }
        Some(mode)
    }

    // --- blocks ------------------------------------------------------------------------------

    /// The entry of the code at RIP, if there is some or it is worth making.
    fn entry(&mut self, cpu: &mut Cpu) -> Option<u64> {
        let rip = cpu.state.rip;
        let class = self.class();
        if let Some(code) = self.state.hot.jumps.get(class).and_then(|table| table.find(rip)) {
            return Some(code);
        }
        let key = self.key(cpu, rip)?;
        let known = self.cache.find(key).map(|block| block.entry);
        let entry = match known {
            Some(entry) => entry,
            None if self.is_hot(key) => self.translate(cpu, key)?,
            None => return None,
        };
        let code = self.cache.address(entry);
        if let Some(table) = self.state.hot.jumps.get_mut(class) {
            table.enter(rip, code);
        }
        Some(code)
    }

    /// `None` if there is nothing to fetch from: the interpreter finds out what to do about it.
    fn key(&self, cpu: &mut Cpu, rip: u64) -> Option<Key> {
        let class = cpu.mode.fetch;
        if !Cpu::canonical(rip) {
            return None;
        }
        if cpu.tlb.exec(class, rip).is_none() {
            cpu.translate_fill(rip, Access::Execute, class).ok()?;
        }
        let page = cpu.tlb.exec(class, rip)?;
        Some(Key { gpa: page.gpa | rip & 0xFFF, rip, mode: self.mode })
    }

    fn is_hot(&mut self, key: Key) -> bool {
        let hash = (key.gpa ^ key.rip.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50;
        let Some(heat) = self.heat.get_mut(hash as usize & (HEAT - 1)) else { return false };
        *heat = heat.saturating_add(1);
        *heat >= self.policy.threshold
    }

    /// Makes the block for `key`; gives its entry.
    fn translate(&mut self, cpu: &mut Cpu, key: Key) -> Option<u32> {
        let offset = key.rip & 0xFFF;
        let class = cpu.mode.fetch;
        let gpa_page = key.gpa & !0xFFF;
        for _ in 0..4 {
            cpu.tlb.memory().read(gpa_page, &mut self.page).ok()?;
            let guests = self.decode(cpu, key.rip);
            let page = Page { bytes: &self.page, rip: key.rip & !0xFFF };
            let options = decoder_options(cpu);
            let found = live::find(&mut self.analyst, &guests, &page, options, self.strict);
            let len = guests.last()?.instruction.next_ip().wrapping_sub(key.rip);
            let first = found.looked_at.0.min(offset);
            let end = found.looked_at.1.max(offset.wrapping_add(len)).min(4096);
            let state = cpu.tlb.exec(class, key.rip)?.state;
            let mark = state.mark_code(first, end.wrapping_sub(1));
            if mark.new_page {
                cpu.barrier.synchronize();
                let host = cpu.tlb.note_code_page(class, key.rip);
                self.state.hot.protect(host);
            }
            let before: Vec<u8> = self.page.get(first as usize..end as usize)?.into();
            cpu.tlb.memory().read(gpa_page, &mut self.page).ok()?;
            if self.page.get(first as usize..end as usize) != Some(&*before) {
                continue;
            }
            if self.cache.page_version(gpa_page).is_some_and(|version| version != mark.version) {
                self.drop_page(gpa_page);
            }
            return self.make(key, mark.version, &guests, &found);
        }
        None
    }

    fn make(
        &mut self,
        key: Key,
        version: u32,
        guests: &[Guest],
        found: &live::Liveness,
    ) -> Option<u32> {
        let generation = self.cache.generation;
        let at = self.cache.make_room();
        if self.cache.generation != generation {
            self.state.hot.flush_jumps();
        }
        let translated = self.translator.translate(&Source {
            guests,
            live: &found.before,
            live_at_target: &found.at_target,
            class: self.class(),
            at,
            stubs: self.cache.stubs,
            first_site: self.cache.next_site(),
        })?;
        self.cache.add(key, version, translated).map(|block| block.entry)
    }

    /// The run of instructions from RIP: up to one that ends it, which is its last.
    fn decode(&mut self, cpu: &Cpu, rip: u64) -> Vec<Guest> {
        let bytes = self.page.get((rip & 0xFFF) as usize..).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, bytes, rip, decoder_options(cpu));
        let mut guests = Vec::new();
        while guests.len() < BLOCK_INSTRUCTIONS && decoder.can_decode() {
            let instruction = decoder.decode();
            let mut guest = self.analyst.look_at(&instruction);
            let vectors = uses_vectors(&instruction);
            let unit =
                if instruction.encoding() == iced_x86::EncodingKind::VEX { AVX } else { SSE };
            if instruction.is_invalid()
                || !shown(cpu, &instruction)
                || vectors && self.mode & unit == 0
            {
                guest.kind = Kind::Interpreted;
            }
            guests.push(guest);
            if live::ends_block(guest.kind) {
                break;
            }
        }
        guests
    }

    // --- in and out --------------------------------------------------------------------------

    fn sync_in(&mut self, cpu: &mut Cpu) {
        let hot = &mut self.state.hot;
        let gpr = &cpu.state.gpr;
        hot.regs = *gpr;
        let [_, _, _, _, rsp, _, _, _, _, r9, r10, r11, _, _, _, r15] = *gpr;
        if let Some(place) = hot.regs.get_mut(15) {
            *place = rsp;
        }
        hot.homed = [r9, r10, r11, r15];
        hot.flags = saved_flags(cpu.state.rflags);
        let [_, _, _, _, fs, gs] = cpu.mode.base;
        hot.segment_base = [fs, gs];
        hot.vector = core::ptr::from_mut::<VectorState>(&mut cpu.state.vector) as u64;
    }
    fn sync_out(&mut self, cpu: &mut Cpu, rip: u64) {
        let hot = &self.state.hot;
        let rsp = hot.regs.get(15).copied().unwrap_or(0);
        cpu.state.gpr = hot.regs;
        let [r9, r10, r11, r15] = hot.homed;
        for (number, value) in [(4, rsp), (9, r9), (10, r10), (11, r11), (15, r15)] {
            cpu.set_gpr(number, value);
        }
        cpu.set_flags(flags::ARITHMETIC, guest_flags(hot.flags));
        cpu.state.rip = rip;
    }

    /// Runs from `code` until the interpreter is needed.
    fn run_from(&mut self, cpu: &mut Cpu, code: u64) -> Ran {
        self.state.hot.entry = code;
        loop {
            self.cache.counters.entries = self.cache.counters.entries.wrapping_add(1);
            let entry =
                CodeEntry { at: self.cache.stubs.enter, recovery: self.cache.stubs.recovery };
            let hot: *mut Hot = &raw mut self.state.hot;
            // SAFETY: both offsets are stubs of this arena; the state block is what they and the
            // code behind them expect, `hot.entry` is the entry of a block or the retry of a check,
            // and `hot.vector` points to the vCPU's registers, which nobody else uses now.
            let outcome = unsafe { self.cache.arena().run(entry, hot.cast()) };
            match outcome {
                Outcome::Done => {}
                Outcome::Fault { offset, .. } => return self.host_fault(cpu, offset),
            }
            let Some(site) = self.cache.site(self.state.hot.site) else {
                return Ran::Cold; // can't be: every site has its number from the cache
            };
            match site {
                Site::Access { rip, retry, write } => {
                    self.cache.counters.tlb_misses = self.cache.counters.tlb_misses.wrapping_add(1);
                    if !self.fill(cpu, retry, write) {
                        self.sync_out(cpu, rip);
                        return self.one(cpu);
                    }
                }
                Site::Link { rip, patch } => {
                    self.sync_out(cpu, rip);
                    let generation = self.cache.generation;
                    let Some(code) = self.entry(cpu) else { return Ran::Cold };
                    if self.cache.generation == generation
                        && let Some(key) = self.key(cpu, rip)
                    {
                        self.cache.link(patch, key);
                    }
                    self.state.hot.entry = code;
                }
                Site::Interpret { rip } => {
                    self.sync_out(cpu, rip);
                    return self.one(cpu);
                }
                Site::Go { rip } => {
                    self.sync_out(cpu, rip);
                    if self.look_around(cpu) {
                        return Ran::Around;
                    }
                    let Some(code) = self.entry(cpu) else { return Ran::Cold };
                    self.state.hot.entry = code;
                }
            }
        }
    }

    /// Whether the polls are used up.
    fn look_around(&mut self, cpu: &mut Cpu) -> bool {
        if self.state.hot.count >= 0 && cpu.mailbox.pending() == 0 {
            return false;
        }
        self.state.hot.count = self.policy.polls;
        true
    }

    fn one(&mut self, cpu: &mut Cpu) -> Ran {
        self.cache.counters.fallbacks = self.cache.counters.fallbacks.wrapping_add(1);
        if self.look_around(cpu) { Ran::OneThenAround } else { Ran::One }
    }

    fn host_fault(&mut self, cpu: &mut Cpu, offset: u32) -> Ran {
        // Every instruction that can fault has its point.
        let Some(point) = self.cache.fault_point(offset) else { return Ran::Cold };
        if point.host_flags {
            self.state.hot.flags = u64::from(self.state.hot.fault_flags);
        }
        self.sync_out(cpu, point.rip);
        self.one(cpu)
    }

    /// Enters the page of an access that was refused in the inline TLB, if it can be; then the
    /// check is to be made again.
    fn fill(&mut self, cpu: &mut Cpu, retry: u32, write: bool) -> bool {
        let class = self.class();
        let hot = &mut self.state.hot;
        let [_, _, _, _, _, _, _, _, _, distance, index, ..] = hot.regs;
        let Some(tlb) = hot.tlb.get_mut(class) else { return false };
        let tags = if write { &tlb.write } else { &tlb.read };
        let Some(tag) = tags.get(index as usize) else { return false };
        let va = distance.wrapping_add(*tag);
        if !Cpu::canonical(va) {
            return false;
        }
        let wanted = if write { Access::Write } else { Access::Read };
        let mut page = cpu.tlb.host_page(cpu.mode.data, va);
        if !page.is_some_and(|page| if write { page.write } else { page.read }) {
            if cpu.translate_fill(va, wanted, cpu.mode.data).is_err() {
                return false;
            }
            page = cpu.tlb.host_page(cpu.mode.data, va);
        }
        let Some(page) = page else { return false };
        let writable = page.write && !page.code;
        if !page.read || write && !writable {
            return false;
        }
        let known = tags.get(index as usize) == Some(&(va & !0xFFF));
        if known {
            return false; // across the page's end
        }
        tlb.fill(va, page.host as u64, writable);
        if let Some(place) = hot.regs.get_mut(9) {
            *place = va;
        }
        hot.entry = self.cache.address(retry);
        true
    }
}

/// OF in bit 0, LAHF's byte in bits 8 to 15.
fn saved_flags(rflags: u64) -> u64 {
    u64::from(rflags & flags::OF != 0) | (rflags & 0xFF) << 8
}

fn guest_flags(saved: u64) -> u64 {
    let overflow = if saved & 1 != 0 { flags::OF } else { 0 };
    overflow | saved >> 8 & 0xFF & flags::ARITHMETIC
}

impl Accelerator for Translated {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        let Some(mode) = Self::mode_of(cpu) else { return Ran::Cold };
        self.catch_up(cpu);
        if mode & !3 != self.mode & !3 {
            self.state.hot.flush_jumps();
        }
        self.mode = mode;
        let Some(code) = self.entry(cpu) else { return Ran::Cold };
        self.sync_in(cpu);
        if self.state.hot.count < 0 {
            self.state.hot.count = self.policy.polls;
        }
        self.run_from(cpu, code)
    }
}
