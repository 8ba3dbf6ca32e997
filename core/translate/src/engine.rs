//! Running translated code: what to run, the reasons for leaving, what happened meanwhile.

mod shadow;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::paging::Access;
use kasane_cpu::{EngineFault, VectorState};
use kasane_interp::accelerator::{
    Accelerator, CodeFollowers, Ran, Step, enter_by_syscall, step, syscall_selectors,
};
use kasane_interp::cpu::Cpu;
use kasane_interp::critical::Critical;
use kasane_memory::Flushed;
use kasane_passthrough::{CodeEntry, Outcome};
use kasane_spec_x86::flags;

use crate::cache::{Block, Key};
use crate::counters::Counters;
use crate::crossing::{may_cross, second_page};
use crate::guest::uses_vectors;
use crate::layout::{CLASSES, COUNTS, Hot, RSP_AT, StateBlock, TlbEntry};
use crate::make::Maker;
use crate::mode::{Mode, linear, segment_limits};
use crate::refused::Refused;
use crate::shared::Shared;
use crate::sites::{CALL, OpAt, Site, Way};
use crate::tables::{Page, Tables};
use shadow::Shadow;

/// How often supervisor code is entered with the vector registers loaded after it had a vector
/// instruction.
const VECTOR_CREDIT: u32 = 1024;
/// After so many vector instructions, that is: the few that each switch of tasks has are not
/// worth other tables of jumps.
const VECTOR_WISHES: u32 = 32;

/// When the translator translates, and when it looks up from what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A block is translated when it comes up so often.
    pub threshold: u8,
    /// Backward jumps and indirect branches between two looks around; one of the interpreter's
    /// instructions counts as several.
    pub polls: i32,
    /// How many they may become where they take little time: a look around takes as long as some
    /// hundred iterations of a small loop.
    pub most_polls: i32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { threshold: 2, polls: 1000, most_polls: 32_000 }
    }
}

/// The time between two looks around that is wanted, in nanoseconds: a look takes below 1 µs, and
/// that late may an interrupt be.
const BETWEEN_LOOKS: core::ops::Range<u64> = 20_000..50_000;
/// For how many polls an instruction of the interpreter counts.
const POLLS_OF_ONE: i32 = 16;

/// The translator of one vCPU.
pub struct Translated {
    pub(crate) shared: Arc<Shared>,
    index: u32,
    pub(crate) state: Box<StateBlock>,
    tables: Tables,
    pub(crate) maker: Maker,
    mode: Mode,
    /// The mode, and the base of CS, that the jump tables hold blocks of.
    jump_modes: [(Mode, u64); CLASSES],
    refused: Refused,
    vector_credit: u32,
    vector_wishes: u32,
    policy: Policy,
    /// Polls between two looks around now, and when the last one was.
    polls: i32,
    looked_at: u64,
    /// How much was read of the log of pages that became code.
    log_read: u64,
    /// The cache's generation that the jump tables are of.
    generation: u64,
    pub(crate) counters: Counters,
    shadow: Option<Box<Shadow>>,
}

/// What is there for the code at RIP.
enum Found {
    Code(u64),
    /// The interpreter does this instruction.
    Op(OpAt),
    Nothing,
}

/// Why translated code was left.
enum Left {
    /// The interpreter does this instruction.
    Op(OpAt),
    /// On at RIP.
    On,
    Ran(Ran),
}

impl Translated {
    /// The translator of vCPU `index`, one of those that `shared` was made for.
    #[must_use]
    pub fn new(shared: Arc<Shared>, index: u32) -> Self {
        let mut state = StateBlock::new();
        let missed = shared.arena.address().wrapping_add(u64::from(shared.stubs.slot_missed));
        let tables = Tables::new(&mut state.hot, missed);
        Self {
            shared,
            index,
            state,
            tables,
            maker: Maker::new(),
            mode: Mode::NONE,
            jump_modes: [(Mode::NONE, 0); CLASSES],
            refused: Refused::new(),
            vector_credit: 0,
            vector_wishes: 0,
            policy: Policy::default(),
            polls: 0,
            looked_at: 0,
            log_read: 0,
            generation: 0,
            counters: Counters::default(),
            shadow: None,
        }
    }
    /// All flags are as the manual has them at every fault, also those that no program can miss.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.maker.strict = true;
        self
    }

    /// Every block is verified before it is used (`verify`). Builds with debug assertions
    /// do that anyway.
    #[must_use]
    pub fn verified(mut self) -> Self {
        self.maker.verifies = true;
        self
    }

    /// Changes the policy; for comparisons that want every tier and every way out.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.polls = policy.polls;
        self.state.hot.counts = [policy.polls; COUNTS];
    }

    pub(crate) fn class(&self) -> usize {
        self.mode.class()
    }

    // --- what changed meanwhile --------------------------------------------------------------

    /// Follows what the interpreter and others did to TLB and code.
    fn catch_up(&mut self, cpu: &mut Cpu) {
        let hot = &mut self.state.hot;
        self.shared.read_log(self.index, &mut self.log_read, |page| self.tables.protect(hot, page));
        if !cpu.tlb.moved() {
            return;
        }
        match cpu.tlb.take_flushes() {
            Flushed::Nothing => {}
            Flushed::Pages(pages) => {
                pages.into_iter().for_each(|page| self.tables.flush_page(hot, page));
                // Targets are known by RIP, which says little about a page if CS has a base.
                for (class, (_, code_base)) in self.jump_modes.iter().enumerate() {
                    if *code_base != 0 {
                        self.tables.flush_jumps(hot, class);
                    }
                }
            }
            Flushed::Local => self.tables.flush_local(hot),
            Flushed::All => self.tables.flush_all(hot),
        }
        self.counters.flushes = self.counters.flushes.wrapping_add(1);
        let changed: Vec<u64> = match cpu.tlb.take_code_changes() {
            None => return,
            Some(Some(pages)) => pages,
            Some(None) => self.shared.cache().pages().map(|(page, _)| page).collect(),
        };
        for page in changed {
            let version = cpu.tlb.page_version(page);
            let made = self.shared.cache().page_version(page);
            if made.is_some_and(|made| version != Some(made)) {
                self.drop_page(page);
            }
        }
        // Another processor may have dropped them first; then only its generation tells.
        self.follow_generation();
    }

    /// Drops the blocks of a page, also from the jump tables.
    pub(crate) fn drop_page(&mut self, page: u64) {
        let hot = &mut self.state.hot;
        let slots = &self.tables.slots;
        let (before, after) = self.shared.drop_page(page, |key, led| {
            led.into_iter().flatten().for_each(|number| slots.empty(hot, number));
            if let Some(table) = hot.jumps.get_mut(key.mode.class()) {
                table.forget(key.rip);
            }
        });
        if self.generation == before {
            self.generation = after;
        }
    }

    /// Forgets all jumps if somebody else dropped blocks.
    pub(crate) fn follow_generation(&mut self) {
        let generation = self.shared.generation();
        if generation != self.generation {
            self.generation = generation;
            let hot = &mut self.state.hot;
            (0..CLASSES).for_each(|class| self.tables.flush_jumps(hot, class));
            self.tables.slots.empty_all(hot);
        }
    }

    /// Takes the mode over that blocks are made for now; false if the interpreter has to do it.
    fn take_mode(&mut self, cpu: &Cpu) -> bool {
        let vectors = cpu.mode.cpl == 3 || self.vector_credit > 0;
        let Some(mode) = Mode::of(cpu, vectors) else { return false };
        self.mode = mode;
        let class = self.class();
        let held = (mode, linear(cpu, 0));
        if let Some(of) = self.jump_modes.get_mut(class)
            && *of != held
        {
            *of = held;
            self.tables.flush_jumps(&mut self.state.hot, class);
            self.permit();
        }
        true
    }
    /// Says which jump tables can be entered from others.
    fn permit(&mut self) {
        let [(kernel, kernel_base), (user, user_base), (free, free_base)] = self.jump_modes;
        let beside = |a: Mode, b: Mode| a.is_beside(b) && b.is_beside(a);
        let flat = kernel_base == 0 && user_base == 0;
        let hot = &mut self.state.hot;
        hot.syscall_ok = u32::from(flat && beside(kernel, user) && user.has_vectors());
        let same_vectors = kernel.has_vectors() == free.has_vectors();
        hot.ac_ok =
            u32::from(kernel_base == 0 && free_base == 0 && beside(kernel, free) && same_vectors);
    }
    /// Follows the changes of rights that code made in place. The state's flags but AC, and its
    /// registers, are those of the last way in.
    fn follow_rights(&mut self, cpu: &mut Cpu) {
        let hot = &mut self.state.hot;
        if hot.crossed == 0 && (hot.rflags ^ cpu.state.rflags) & flags::AC == 0 {
            return;
        }
        cpu.set_flags(flags::AC, hot.rflags);
        if core::mem::take(&mut hot.crossed) != 0 {
            enter_by_syscall(cpu, hot.ring == 0);
        } else {
            cpu.refresh_mode();
        }
        if let Some((mode, _)) = self.jump_modes.get(cpu.mode.data as usize) {
            self.mode = *mode;
        }
    }

    // --- blocks ------------------------------------------------------------------------------

    /// What there is for the code at RIP, made now if it is worth it.
    fn find(&mut self, cpu: &mut Cpu) -> Found {
        let rip = cpu.state.rip;
        let class = self.class();
        if let Some(code) = self.state.hot.jumps.get(class).and_then(|table| table.find(rip)) {
            return Found::Code(code);
        }
        let Some((key, global)) = self.key(cpu, rip) else { return Found::Nothing };
        let mut known = self.known(cpu, key);
        if known.is_none() && self.maker.is_hot(key, self.policy.threshold) {
            if self.shadow.is_some() {
                self.maker.strict = Shadow::is_strict(key);
            }
            self.make(cpu, key);
            known = self.known(cpu, key);
            if known.is_none() {
                self.maker.give_up(key);
            }
        }
        match known {
            None => Found::Nothing,
            Some((entry, None)) => {
                let code = self.shared.arena.address().wrapping_add(u64::from(entry));
                if self.shadow.is_none() {
                    self.tables.jump(&mut self.state.hot, class, rip, code, global);
                }
                Found::Code(code)
            }
            Some((_, Some(op))) => Found::Op(op),
        }
    }
    /// The entry of a block, or the instruction that it is.
    fn known(&mut self, cpu: &mut Cpu, key: Key) -> Option<(u32, Option<OpAt>)> {
        self.block(cpu, key, |block| (block.entry, block.op))
    }
    /// Something of the block for a key: of the one for both pages if it is an instruction across
    /// them.
    fn block<R>(&mut self, cpu: &mut Cpu, key: Key, tell: impl Fn(&Block) -> R) -> Option<R> {
        let found = {
            let cache = self.shared.cache();
            let block = cache.find(key)?;
            (!block.is_signpost).then(|| tell(block))
        };
        if found.is_some() {
            return found;
        }
        let second = second_page(cpu, key.rip)?;
        self.shared.cache().find_crossing(key, second).map(tell)
    }

    /// With whether its page is global; `None` if there is nothing to fetch from: the interpreter
    /// finds out what to do about it.
    pub(crate) fn key(&self, cpu: &mut Cpu, rip: u64) -> Option<(Key, bool)> {
        let class = cpu.mode.fetch;
        if !Cpu::canonical(rip) || rip >= self.mode.code_end() {
            return None;
        }
        let va = linear(cpu, rip);
        if cpu.tlb.exec(class, va).is_none() {
            cpu.translate_fill(va, Access::Execute, class).ok()?;
        }
        let page = cpu.tlb.exec(class, va)?;
        // Of an instruction across pages both would have to be global.
        let global = page.global && !may_cross(va);
        Some((Key { gpa: page.gpa | va & 0xFFF, rip, mode: self.mode }, global))
    }

    /// Out of translated code and back, around something that waits for others.
    pub(crate) fn outside<R>(&mut self, cpu: &mut Cpu, action: impl FnOnce(&mut Cpu) -> R) -> R {
        self.shared.leave(self.index);
        let result = action(cpu);
        while !self.shared.enter(self.index) {
            cpu.barrier.relax();
        }
        self.catch_up(cpu);
        self.follow_generation();
        result
    }
    pub(crate) fn index(&self) -> u32 {
        self.index
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
        hot.set_guest_flags(cpu.state.rflags);
        let s = &cpu.state;
        let segments = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs];
        hot.set_bases(cpu.mode.base);
        if self.mode.bits() != 64 {
            hot.segment_limit = segments.map(|segment| segment_limits(cpu, segment));
        }
        hot.control = [s.cr0, 0, s.cr2, s.cr3, s.cr4];
        hot.kernel_gs = s.msrs.kernel_gs_base;
        hot.rflags = s.rflags;
        hot.selectors = segments.map(|segment| segment.selector);
        hot.waiting = u32::from(cpu.interrupt_waits());
        let ticks = cpu.ticks();
        hot.tsc_multiplier = ticks.map_or(0, |ticks| ticks.multiplier);
        hot.tsc_offset = ticks.map_or(0, |ticks| ticks.offset);
        hot.tsc_aux = s.msrs.tsc_aux;
        hot.syscall_target = s.msrs.lstar;
        hot.syscall_kept = !(s.msrs.fmask | flags::RF | flags::VM);
        hot.syscall_selectors = syscall_selectors(s.msrs.star);
        hot.vectors = u32::from(self.mode.has_vectors());
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
        cpu.state.rflags = hot.rflags & !flags::ARITHMETIC | hot.guest_flags();
        cpu.state.rip = rip;
        let [fs, gs] = hot.upper_bases;
        let held = [cpu.state.fs.base, cpu.state.gs.base, cpu.state.msrs.kernel_gs_base];
        if cpu.code64() && held != [fs, gs, hot.kernel_gs] {
            cpu.state.fs.base = fs;
            cpu.state.gs.base = gs;
            cpu.state.msrs.kernel_gs_base = hot.kernel_gs;
            cpu.refresh_mode();
        }
    }

    /// Runs from `code` until the interpreter is needed.
    fn run_from(&mut self, cpu: &mut Cpu, code: u64) -> Left {
        self.state.hot.entry = code;
        let stubs = self.shared.stubs;
        let entry = CodeEntry { at: stubs.enter, recovery: stubs.recovery };
        loop {
            self.counters.entries = self.counters.entries.wrapping_add(1);
            let hot: *mut Hot = &raw mut self.state.hot;
            // SAFETY: both offsets are stubs of this arena; the state block is what they and the
            // code behind them expect, `hot.entry` is the entry of a block or the retry of a check,
            // and `hot.vector` points to the vCPU's registers, which nobody else uses now. The
            // vCPU is inside, so that no code is overwritten.
            let outcome = unsafe { self.shared.arena.run(entry, hot.byte_add(RSP_AT).cast()) };
            self.follow_rights(cpu);
            if let Outcome::Fault { offset, .. } = outcome {
                return self.host_fault(cpu, offset);
            }
            if self.state.hot.site == 0 {
                if let Some(left) = self.slot_missed(cpu) {
                    return left;
                }
                continue;
            }
            let at = self.state.hot.site.wrapping_sub(self.address(0)) as u32;
            // SAFETY: code was left by this site just now, and this vCPU is inside, so that nobody
            // drops the cache.
            let site = unsafe { Site::at(&*self.shared.arena, at) };
            let Some(site) = site else { return Left::Ran(Ran::Failed) };
            if let Some(left) = self.at_site(cpu, site, at) {
                return left;
            }
        }
    }

    /// `at`: the site's place. `None`: in again at `Hot::entry`.
    fn at_site(&mut self, cpu: &mut Cpu, site: Site<OpAt>, at: u32) -> Option<Left> {
        match site {
            Site::Access { rip, retry, way } => {
                self.counters.tlb_misses = self.counters.tlb_misses.wrapping_add(1);
                if self.fill(cpu, retry, way) {
                    return None;
                }
                self.sync_out(cpu, rip);
                Some(self.refused(cpu, rip))
            }
            Site::Refused { rip } => {
                self.sync_out(cpu, rip);
                Some(self.refused(cpu, rip))
            }
            Site::Link { rip, patch } => {
                self.counters.links = self.counters.links.wrapping_add(1);
                self.go_on(cpu, rip, |this, cpu| {
                    if let Some((key, _)) = this.key(cpu, rip) {
                        this.shared.cache().link(patch, at.wrapping_sub(CALL as u32), key);
                    }
                })
            }
            Site::Go { rip } => {
                self.counters.gone = self.counters.gone.wrapping_add(1);
                if self.is_time(cpu) {
                    self.sync_out(cpu, rip);
                    return Some(Left::Ran(Ran::Around));
                }
                self.go_on(cpu, rip, |_, _| {})
            }
            Site::Interpret { rip, op } => {
                self.sync_out(cpu, rip);
                Some(Left::Op(op))
            }
            Site::Arrived => {
                let rip = self.arrived_at();
                self.go_on(cpu, rip, |_, _| {})
            }
            Site::Indirect { rip, retry } => self.indirect(cpu, rip, retry),
        }
    }

    /// On at `rip`, in translated code if there is some: after `also`, then.
    fn go_on(
        &mut self,
        cpu: &mut Cpu,
        rip: u64,
        also: impl FnOnce(&mut Self, &mut Cpu),
    ) -> Option<Left> {
        if self.shadow.is_some() {
            self.sync_out(cpu, rip);
            return Some(Left::On);
        }
        let generation = self.generation;
        cpu.state.rip = rip;
        let found = self.find(cpu);
        if matches!(found, Found::Nothing) {
            self.sync_out(cpu, rip);
            return Some(Left::On);
        }
        if generation == self.generation {
            also(self, cpu);
        }
        match found {
            Found::Code(code) => {
                self.state.hot.entry = code;
                self.state.hot.vectors = u32::from(self.mode.has_vectors());
                None
            }
            Found::Op(op) => {
                self.sync_out(cpu, rip);
                Some(Left::Op(op))
            }
            Found::Nothing => None,
        }
    }

    fn indirect(&mut self, cpu: &mut Cpu, rip: u64, retry: u32) -> Option<Left> {
        self.counters.indirect = self.counters.indirect.wrapping_add(1);
        let generation = self.generation;
        let target = self.state.hot.regs.get(9).copied().unwrap_or(0);
        if self.stop_at(target) {
            self.state.hot.entry = self.address(retry);
            return None;
        }
        cpu.state.rip = target;
        if matches!(self.find(cpu), Found::Code(_)) && generation == self.generation {
            self.state.hot.entry = self.address(retry);
            return None;
        }
        self.sync_out(cpu, rip);
        // If blocks were dropped for the target, the instruction may be one of those.
        Some(if generation == self.generation { self.refused(cpu, rip) } else { Left::On })
    }

    /// Fills the slot that code came out by, and goes on there.
    fn slot_missed(&mut self, cpu: &mut Cpu) -> Option<Left> {
        self.counters.slots = self.counters.slots.wrapping_add(1);
        let number = self.state.hot.regs.get(9).copied().unwrap_or(0) as u32;
        // Every number in code is that of a slot.
        let target = self.shared.cache().slots.target(number);
        let Some(target) = target else { return Some(Left::Ran(Ran::Cold)) };
        if !target.saved {
            self.state.hot.flags = u64::from(self.state.hot.fault_flags);
        }
        self.go_on(cpu, target.rip, |this, cpu| {
            let Some((key, global)) = this.key(cpu, target.rip) else { return };
            let entry = this.block(cpu, key, |block| block.entry_for(target.saved));
            if let Some(entry) = entry {
                let code = this.address(entry);
                this.tables.slot(&mut this.state.hot, number, code, target.rip, global);
            }
        })
    }

    fn address(&self, offset: u32) -> u64 {
        self.shared.arena.address().wrapping_add(u64::from(offset))
    }

    /// Whether it is time to look around.
    fn is_time(&mut self, cpu: &Cpu) -> bool {
        let used_up = self.state.hot.polls_are_used_up();
        if used_up {
            self.count_anew(cpu);
        }
        used_up || cpu.mailbox.pending() != 0 || self.shared.is_closed()
    }
    /// Counts polls from the start, more of them if the last ones took little time.
    fn count_anew(&mut self, cpu: &Cpu) {
        let Policy { polls: least, most_polls: most, .. } = self.policy;
        let now = cpu.clock.now_ns();
        let took = now.wrapping_sub(core::mem::replace(&mut self.looked_at, now));
        if took < BETWEEN_LOOKS.start {
            self.polls = self.polls.saturating_mul(2);
        } else if took >= BETWEEN_LOOKS.end {
            self.polls /= 2;
        }
        self.polls = self.polls.min(most).max(least);
        self.state.hot.counts = [self.polls; COUNTS];
    }

    fn one(&mut self, cpu: &Cpu) -> Ran {
        if self.is_time(cpu) { Ran::OneThenAround } else { Ran::One }
    }

    /// The interpreter does the instruction at `rip`.
    fn refused(&mut self, cpu: &mut Cpu, rip: u64) -> Left {
        self.counters.refused = self.counters.refused.wrapping_add(1);
        let key = self.key(cpu, rip);
        let op = key.and_then(|(key, _)| self.refused.op(cpu, key, self.generation));
        op.map_or_else(|| Left::Ran(self.one(cpu)), Left::Op)
    }

    fn host_fault(&mut self, cpu: &mut Cpu, offset: u32) -> Left {
        self.counters.host_faults = self.counters.host_faults.wrapping_add(1);
        // Every instruction that can fault has its point.
        let point = self.shared.cache().fault_point(offset);
        let Some(point) = point else { return Left::Ran(Ran::Cold) };
        if point.host_flags {
            self.state.hot.flags = u64::from(self.state.hot.fault_flags);
        }
        self.sync_out(cpu, point.rip);
        self.refused(cpu, point.rip)
    }

    /// Enters the page of an access that was refused in the inline TLB, if it can be; then the
    /// check is to be made again.
    fn fill(&mut self, cpu: &mut Cpu, retry: u32, way: Way) -> bool {
        let write = way.writes();
        let class = self.class();
        let again = self.address(retry);
        let hot = &mut self.state.hot;
        let [_, _, _, _, _, _, _, _, _, distance, index, ..] = hot.regs;
        let Some(tlb) = hot.tlb.get(class) else { return false };
        let Some(entry) = tlb.entries.get(index as usize / size_of::<TlbEntry>()) else {
            return false;
        };
        let tag = if write { entry.write } else { entry.read };
        let va = distance.wrapping_add(tag);
        if !Cpu::canonical(va) || tag == va & !0xFFF {
            return false; // a known page is refused for its end
        }
        let wanted = if way == Way::Write { Access::Write } else { Access::Read };
        let mut page = cpu.tlb.host_page(cpu.mode.data, va);
        if !page.is_some_and(|page| if write { page.write } else { page.read }) {
            self.counters.walks = self.counters.walks.wrapping_add(1);
            if cpu.translate_fill(va, wanted, cpu.mode.data).is_err() {
                return false;
            }
            page = cpu.tlb.host_page(cpu.mode.data, va);
        }
        let Some(page) = page else { return false };
        let code = page.code && !(write && cpu.tlb.forget_code(cpu.mode.data, va));
        let writable = page.write && !code;
        if !page.read || write && !writable {
            return false;
        }
        let (host, global) = (page.host as u64, page.global);
        self.tables.page(hot, class, &Page { va, host, writable, global });
        if let Some(place) = hot.regs.get_mut(9) {
            *place = va;
        }
        hot.entry = again;
        true
    }

    fn run_inside(&mut self, cpu: &mut Cpu) -> Ran {
        if self.state.hot.polls_are_used_up() {
            self.count_anew(cpu);
        }
        self.follow_generation();
        loop {
            self.catch_up(cpu);
            if !self.take_mode(cpu) {
                return Ran::Cold;
            }
            let left = match self.find(cpu) {
                Found::Nothing => return Ran::Cold,
                Found::Op(op) => Left::Op(op),
                Found::Code(code) => {
                    if cpu.mode.cpl != 3 {
                        self.vector_credit = self.vector_credit.saturating_sub(1);
                    }
                    if self.shadow.is_some() {
                        self.run_compared(cpu, code)
                    } else {
                        self.sync_in(cpu);
                        self.run_from(cpu, code)
                    }
                }
            };
            match left {
                Left::On => {}
                Left::Ran(ran) => return ran,
                Left::Op(op) => {
                    // SAFETY: it was found after the last time that the cache could be dropped.
                    let op = unsafe { op.op() };
                    self.counters.fallback(&op.instr);
                    if !self.mode.has_vectors() && uses_vectors(&op.instr) {
                        self.vector_wishes = self.vector_wishes.wrapping_add(1);
                        if self.vector_wishes >= VECTOR_WISHES {
                            self.vector_wishes = 0;
                            self.vector_credit = VECTOR_CREDIT;
                        }
                    }
                    let [count, ..] = &mut self.state.hot.counts;
                    *count = count.saturating_sub(POLLS_OF_ONE);
                    match step(cpu, op) {
                        Step::Done if self.is_time(cpu) => return Ran::Around,
                        Step::Done => {}
                        Step::Look => return Ran::Again,
                        Step::Stopped(stop) => return Ran::Stopped(stop),
                    }
                }
            }
        }
    }
}

impl Accelerator for Translated {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        if !self.shared.enter(self.index) {
            return Ran::Cold;
        }
        let ran = self.run_inside(cpu);
        self.shared.leave(self.index);
        ran
    }
    fn followers(&self) -> Option<Arc<dyn CodeFollowers>> {
        let shared: Arc<dyn CodeFollowers> = self.shared.clone();
        Some(shared)
    }
    fn fault(&mut self) -> EngineFault {
        let message = self.shadow.as_mut().map(|shadow| core::mem::take(&mut shadow.fault));
        EngineFault { message: message.unwrap_or_default() }
    }
    fn critical(&self) -> Critical {
        // One processor tells for all.
        if self.index == 0 { self.shared.cache().places.critical() } else { Critical::default() }
    }
    fn counts(&self) -> Vec<(String, u64)> {
        let made = if self.index == 0 { Some(self.shared.cache().made) } else { None };
        let mut counts = self.counters.named(made);
        let compared = self.shadow.iter().flat_map(|shadow| shadow.counts());
        counts.push(("refused_by_verifier".to_owned(), self.maker.refused));
        counts.extend(compared.map(|(name, count)| (name.to_owned(), count)));
        counts
    }
}
