//! What happens to a block while it runs, and how its beginning and end are seen.
//!
//! A harness stands where a vCPU has its accelerator, with the translator behind it, or
//! nothing. So it is asked before each block of the interpreter and after each poll of translated
//! code, with the processor's whole state in its hands. What it does must not be seen in the
//! outcome: interrupts whose handlers return, flushes of the TLB, pages that are taken away until
//! they are missed, and the other tier for a while.

use std::sync::{Arc, Mutex, PoisonError};

use iced_x86::{Decoder, DecoderOptions, Instruction};
use kasane_cpu::Activity;
use kasane_cpu::apic::{events, registers};
use kasane_interp::accelerator::{Accelerator, CodeFollowers, Ran};
use kasane_interp::cpu::{Cpu, Shadow};
use kasane_memory::{GuestMemory, Ram};
use kasane_spec_x86::control::dr6;
use kasane_translate::{Policy, Translated};

use super::kernel::{self, INTERRUPTS, OPEN_GPA};
use super::pages::{self, Pages, Right};
use super::{Block, flow};
use crate::case::{Case, Fault, Outcome};
use crate::generate::codes::is_excluded;
use crate::interp::{flat, load_vectors, vectors_of};
use crate::layout::{
    CODE, CODE_PAGES, DATA, EXIT, OPEN_CODE, OPEN_PAGES, PAGE, USER_CS32, USER_CS64, USER_DS,
};
use crate::rng::Rng;
use crate::segments;

/// How the entries of the page table are when a block begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entries {
    /// All accessed, and dirty as the blocks before left them.
    #[default]
    Used,
    /// Neither accessed nor dirty. The bits are compared between our own then.
    Fresh,
}

/// What happens; chances are of 100, each time that somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Of the rest.
    pub seed: u64,
    /// How often the block runs, from the same state each time, so that it gets hot.
    pub rounds: u32,
    /// From which count on code is translated.
    pub threshold: u8,
    /// Polls between two looks.
    pub polls: i32,
    /// Interrupts and NMIs.
    pub interrupts: u64,
    /// Flushes of the TLB.
    pub flushes: u64,
    /// Blocks that the interpreter does although there is a translation.
    pub cold: u64,
    /// Pages that are taken away.
    pub swaps: u64,
    /// Pages of data that move to another frame.
    pub migrations: u64,
    /// Accessed and dirty bits.
    pub entries: Entries,
    /// Which of the translating machines runs it.
    pub machine: usize,
    /// How closely the interpreter is watched.
    pub watch: Watch,
}

/// How closely the interpreter is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// Before each of its blocks.
    #[default]
    Blocks,
    /// Before each instruction: whether it may end otherwise elsewhere, by a flag that is undefined
    /// on the way that was really taken, or by what the block has made of its own code.
    Instructions,
}

impl Plan {
    /// A random one.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Self {
        let quiet = rng.chance(35);
        let mut percent = |values: &[u64]| if quiet { 0 } else { rng.pick(values) };
        let interrupts = percent(&[0, 0, 20, 70]);
        let flushes = percent(&[0, 0, 0, 5, 25]);
        let cold = percent(&[0, 0, 0, 10, 40]);
        let swaps = percent(&[0, 0, 0, 5, 20]);
        let migrations = percent(&[0, 0, 0, 5, 20]);
        Self {
            seed: rng.next(),
            rounds: rng.pick(&[1, 2, 2, 3]),
            threshold: rng.pick(&[1, 1, 1, 1, 1, 2, 3, 255]),
            polls: rng.pick(&[2000, 2000, 2000, 1, 1, 2, 5]),
            interrupts,
            flushes,
            cold,
            swaps,
            migrations,
            // Whoever brings pages back brings them back accessed.
            entries: if swaps + migrations == 0 && rng.chance(15) {
                Entries::Fresh
            } else {
                Entries::Used
            },
            machine: rng.below(super::guest::TRANSLATING as u64) as usize,
            watch: Watch::Blocks,
        }
    }
    /// That of the reference: nothing happens.
    #[must_use]
    pub fn calm(self) -> Self {
        let entries = self.entries;
        Self { rounds: 1, polls: 2000, threshold: 255, entries, ..Self::default() }
    }
    /// The same, with a look at each instruction.
    #[must_use]
    pub fn watched(self) -> Self {
        Self { watch: Watch::Instructions, ..self.calm() }
    }
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq)]
pub enum End {
    /// With this state.
    Done(Box<Outcome>),
    /// Not soon.
    Endless,
    /// It was about to run bytes that nobody meant as an instruction: they could be any, also one
    /// that an operating system answers.
    Stray,
    /// It was about to do what need not end in the same way elsewhere: to read a flag that is
    /// undefined, or an instruction that an operating system may answer.
    Undefined,
    /// Otherwise.
    Wrong(&'static str),
}

/// What the vCPU and who runs it tell each other.
#[derive(Default)]
pub(super) struct Exchange {
    /// To be begun.
    pub(super) start: Option<Box<(Block, Plan)>>,
    pub(super) end: Option<End>,
}

pub(super) type Shared = Arc<Mutex<Exchange>>;

/// Looks after which a run of the reference counts as endless.
const MANY_LOOKS: u32 = 1_000;
/// And another's, which has interrupts to handle.
const MANY_MORE_LOOKS: u32 = 200_000;

/// Stands between a vCPU and its translator.
pub(super) struct Harness {
    translator: Option<Translated>,
    exchange: Shared,
    ram: Arc<Ram>,
    plan: Plan,
    rng: Rng,
    block: Block,
    looks: u32,
    /// Flags that are undefined now, if they are followed.
    undefined: u64,
    /// Where it was when the page of its code was taken away.
    gone_at: Option<u64>,
    running: bool,
}

impl Harness {
    pub(super) fn new(translator: Option<Translated>, exchange: Shared, ram: Arc<Ram>) -> Self {
        let (plan, rng) = (Plan::default(), Rng::new(0, 0));
        let block = Block::default();
        Self {
            translator,
            exchange,
            ram,
            plan,
            rng,
            block,
            looks: 0,
            undefined: 0,
            gone_at: None,
            running: false,
        }
    }

    fn begin(&mut self, cpu: &mut Cpu, block: Block, plan: Plan) {
        self.plan = plan;
        self.rng = Rng::new(plan.seed, 0);
        (self.looks, self.undefined, self.gone_at, self.running) = (0, 0, None, true);
        if let Some(translator) = &mut self.translator {
            translator.set_policy(Policy {
                threshold: plan.threshold,
                polls: plan.polls,
                most_polls: plan.polls,
            });
        }
        if plan.entries == Entries::Fresh {
            pages::freshen(&self.ram);
            cpu.tlb.flush_all();
        }
        load(cpu, &block.case);
        self.block = block;
    }

    fn end(&mut self, cpu: &mut Cpu, end: End) -> Ran {
        self.running = false;
        if pages::settle(&self.ram) {
            cpu.tlb.flush_all();
        }
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner).end = Some(end);
        cpu.mailbox.post(events::KICK);
        Ran::Around
    }

    /// The state in which an exception found the block.
    fn outcome(&self, cpu: &Cpu, vector: u8) -> Outcome {
        let [error, rip, rflags, rsp] = kernel::frame(&self.ram, vector, cpu.gpr(4));
        let mut gpr = cpu.state.gpr;
        if let Some(place) = gpr.get_mut(4) {
            *place = rsp;
        }
        let address = if vector == 14 { cpu.state.cr2 } else { 0 };
        let fault = Fault { vector, error: error as u32, address };
        Outcome {
            gpr,
            rip,
            rflags,
            fs: cpu.state.fs.base,
            gs: cpu.state.gs.base,
            fault: (vector != 13 || rip != EXIT).then_some(fault),
            vectors: Some(vectors_of(&cpu.state.vector)),
            missing: !cpu.missing.is_empty(),
        }
    }

    /// Whether it has gone on without the fetch that would have brought its page back.
    fn runs_what_is_gone(&mut self, cpu: &Cpu) -> bool {
        if !pages::is_taken_away(&self.ram) {
            self.gone_at = None;
        }
        self.gone_at.is_some_and(|rip| cpu.mode.cpl == 0 || cpu.state.rip != rip)
    }

    /// Whether it is in the pages of the code, but at none of the block's instructions.
    fn strays(&self, cpu: &Cpu) -> bool {
        let rip = cpu.state.rip;
        let pages =
            |start: u64, count: usize| (start..start + (count * PAGE) as u64).contains(&rip);
        let in_code = pages(CODE, CODE_PAGES) || pages(OPEN_CODE, OPEN_PAGES);
        in_code && self.block.index_at(rip).is_none()
    }

    /// Whether the instruction that comes reads an undefined flag, or depends on more than our
    /// state. What none does by the ways that a block plans, one may after a return to an address
    /// that the block has overwritten, or in code that it has.
    fn is_undefined(&mut self, cpu: &Cpu) -> bool {
        let Some(instruction) = self.instruction(cpu.state.rip) else { return false };
        let effect = flow::effect(&instruction);
        let reads = effect.reads & self.undefined != 0;
        self.undefined = self.undefined & !effect.defines | effect.undefines;
        reads || is_excluded(instruction.mnemonic())
    }

    /// The instruction at an address of the block, as it is in memory now.
    fn instruction(&self, rip: u64) -> Option<Instruction> {
        let index = self.block.index_at(rip)?;
        if !self.block.is_open() {
            return self.block.instructions().nth(index);
        }
        let mut bytes = [0; 15];
        let at = rip.wrapping_sub(OPEN_CODE).wrapping_add(OPEN_GPA);
        self.ram.read(at, &mut bytes).ok()?;
        Some(Decoder::with_ip(self.block.case.bits, &bytes, rip, DecoderOptions::NONE).decode())
    }

    /// `Some`: what the vCPU is to do, instead of going on.
    fn disturb(&mut self, cpu: &mut Cpu) -> Option<Ran> {
        let plan = self.plan;
        let user = cpu.mode.cpl == 3;
        if user && self.rng.chance(plan.swaps) {
            let number = self.rng.next();
            let pages = if self.rng.chance(50) { Pages::All } else { Pages::One(number) };
            let right = if self.rng.chance(30) { Right::Write } else { Right::Any };
            let gone = pages::take_away(&self.ram, pages, right);
            let here = cpu.state.rip & !(PAGE as u64 - 1);
            if right == Right::Any && gone.contains(&here) {
                self.gone_at = Some(cpu.state.rip);
            }
            match gone.as_slice() {
                [page] => cpu.tlb.flush_page(*page),
                _ => cpu.tlb.flush_all(),
            }
        }
        if user && self.rng.chance(plan.migrations) {
            let page = pages::migrate(&self.ram, self.rng.next());
            if self.rng.chance(70) { cpu.tlb.flush_page(page) } else { cpu.tlb.flush_all() }
        }
        if self.rng.chance(plan.flushes) {
            let page = self.rng.pick(&[DATA, DATA + 0x1000]);
            match self.rng.below(4) {
                0 => cpu.tlb.flush_page(page),
                1 => cpu.tlb.flush_page(cpu.state.rip),
                2 => cpu.tlb.flush_non_global(),
                _ => cpu.tlb.flush_all(),
            }
        }
        if user && self.rng.chance(plan.interrupts) {
            if self.rng.chance(20) {
                cpu.state.nmi_pending = true;
            } else {
                let vector = self.rng.pick(&INTERRUPTS);
                cpu.mailbox.post_interrupt(vector, false);
            }
            cpu.attention = true;
            return Some(Ran::Around);
        }
        if self.rng.chance(plan.cold) {
            return Some(if self.rng.chance(50) { Ran::Cold } else { Ran::One });
        }
        None
    }
}

/// Gives the processor a block's state, without the flush that comes with a new state from
/// outside.
fn load(cpu: &mut Cpu, case: &Case) {
    let state = &mut cpu.state;
    state.gpr = case.gpr;
    state.rip = case.rip;
    state.rflags = case.rflags;
    state.cs = if case.bits == 32 { flat(USER_CS32, 0xC0FB) } else { flat(USER_CS64, 0xA0FB) };
    state.ss = flat(USER_DS, 0xC0F3);
    let selectors = case.segments.unwrap_or([USER_DS, USER_DS, 0, 0]);
    [state.ds, state.es, state.fs, state.gs] = selectors.map(segments::register);
    if case.segments.is_none() {
        (state.fs.base, state.gs.base) = (case.fs, case.gs);
    }
    if let Some(vectors) = &case.vectors {
        load_vectors(vectors, &mut state.vector);
    }
    (state.cr2, state.dr6) = (0, dr6::FIXED);
    state.activity = Activity::Running;
    (state.nmi_pending, state.nmi_blocked) = (false, false);
    cpu.refresh_mode();
    cpu.replay.commit();
    cpu.code_written = false;
    cpu.shadow = Shadow::None;
    cpu.debug_hits = 0;
    cpu.missing.clear();
    cpu.apic.write(registers::SVR, 0x1FF, 0);
}

impl Accelerator for Harness {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        let start = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).start.take();
        if let Some(start) = start {
            self.begin(cpu, start.0, start.1);
        }
        if !self.running {
            cpu.mailbox.post(events::KICK);
            return Ran::Around;
        }
        if cpu.mode.cpl == 0
            && let Some(vector) = kernel::exception_at(cpu.state.rip)
            && (vector != 14 || !pages::is_taken_away(&self.ram))
        {
            if self.runs_what_is_gone(cpu) {
                return self.end(cpu, End::Wrong("it ran code of a page that was gone"));
            }
            let outcome = self.outcome(cpu, vector);
            return self.end(cpu, End::Done(Box::new(outcome)));
        }
        if cpu.mode.cpl == 3 && self.runs_what_is_gone(cpu) {
            return self.end(cpu, End::Wrong("it ran code of a page that was gone"));
        }
        self.looks += 1;
        let seldom = self.translator.is_none() && self.plan.watch == Watch::Blocks;
        let many = if seldom { MANY_LOOKS } else { MANY_MORE_LOOKS };
        if self.looks > many {
            return self.end(cpu, End::Endless);
        }
        if self.translator.is_none() && self.strays(cpu) {
            return self.end(cpu, End::Stray);
        }
        if self.plan.watch == Watch::Instructions {
            let undefined = self.is_undefined(cpu);
            return if undefined { self.end(cpu, End::Undefined) } else { Ran::One };
        }
        if let Some(ran) = self.disturb(cpu) {
            return ran;
        }
        self.translator.as_mut().map_or(Ran::Cold, |translator| translator.run(cpu))
    }
    fn followers(&self) -> Option<Arc<dyn CodeFollowers>> {
        self.translator.as_ref()?.followers()
    }
    fn counts(&self) -> Vec<(String, u64)> {
        self.translator.as_ref().map(Translated::counts).unwrap_or_default()
    }
}
