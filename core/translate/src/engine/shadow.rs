//! The shadow mode: the interpreter does again what each translated block did, from the same state,
//! and both have to come out the same. For developers; many times slower than either.
//!
//! # One block
//! Blocks are not linked, and the jump tables and slots stay empty, so that translated code comes
//! out at the end of each block: a jump leaves it by its site, an indirect branch by a stub that
//! its target is entered for just then. Around each way in:
//!
//! 1. The processor's state is kept, and a record of memory begins ([`kasane_memory::Record`]):
//!    pages that are stored to, and marks in page tables.
//! 2. The translated code runs, with everything that the engine does for it meanwhile, until it is
//!    left. Its state is kept, and processor, memory and TLBs become what they were before.
//! 3. The interpreter runs the code at RIP, as it stands in memory now, instruction by instruction,
//!    until it is where the translated code was left. That is the run that counts: what it does to
//!    code pages, the clock and devices is done once.
//! 4. Both states, both records and the bytes in memory are compared ([`compare`]).
//!
//! How many instructions that is, nobody says, so that this does not depend on what blocks are: the
//! interpreter goes on until RIP, registers and flags are those of the translated code. If that
//! comes to nothing, the first state at the same RIP is what is reported. At least one instruction
//! is done, unless translated code was left for the interpreter to do an instruction, which may be
//! the block's first.
//!
//! # Flags
//! Half of all blocks, by their address, are made as [`super::Translated::strict`] makes them: then
//! the arithmetic flags have to be exact wherever code is left for the interpreter.
//! The other half is made as usual. Where a jump leaves a block, flags that are dead at its target
//! may have any value. So flags that differ are not an error there; but the next block is entered
//! with the translated code's values on its side and with the interpreter's on the other, and
//! whoever reads a flag that is not dead makes a difference of it. Flags that the manual leaves
//! undefined are not compared until they are defined again, nor what PUSHF and SYSCALL make of
//! them.
//!
//! # What this can't see
//! Chained blocks (links, slots, jump tables, the entry for the host's flags), inline TLB entries
//! for writes that live longer than a block, other processors, and devices that write to memory by
//! themselves while a block is compared. The comparison of blocks with the real CPU
//! (`conformance/differ`) has those.

mod compare;
mod reference;

use alloc::boxed::Box;
use alloc::string::String;

use iced_x86::FlowControl;
use kasane_cpu::InterruptShadow;
use kasane_interp::accelerator::Ran;
use kasane_interp::cpu::Cpu;
use kasane_memory::Record;
use kasane_spec_x86::flags;

use super::{Left, Translated};
use crate::asm::Asm;
use crate::cache::Key;
use crate::emit;
use crate::layout::{COUNTS, Table, tlb_index};
use crate::mode::Mode;
use crate::sites::{Origin, Site};
use compare::Seen;
use reference::Reference;

/// Whose code the stub for ends is: nobody's.
const STOP: Key = Key { gpa: u64::MAX, rip: u64::MAX, mode: Mode::NONE };
/// One block of so many finds that it is time to look around.
const POLLED: u64 = 16;

/// Flags that are dead, if the translator is right: its own values of them.
#[derive(Clone, Copy, Default)]
struct Stale {
    mask: u64,
    values: u64,
    /// Where that was: RIP, and instructions retired.
    at: (u64, u64),
}

/// What was compared.
#[derive(Clone, Copy, Default)]
struct Compared {
    blocks: u64,
    instructions: u64,
    /// Pages that either side could write.
    pages: u64,
    /// Blocks that were entered with flags that differ.
    stale: u64,
}

/// The shadow mode of one vCPU.
pub(super) struct Shadow {
    before: Seen,
    translated: Seen,
    /// What translated code, and the interpreter, wrote.
    records: [Record; 2],
    reference: Reference,
    /// Where the indirect branch at hand goes.
    target: Option<u64>,
    /// The class and target of the one entry in the jump tables.
    entered: Option<(usize, u64)>,
    stale: Stale,
    compared: Compared,
    random: u64,
    pub(super) fault: String,
}

impl Shadow {
    /// Whether the block is made with exact flags at every fault.
    pub(super) fn is_strict(key: Key) -> bool {
        (key.gpa ^ key.rip).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 != 0
    }
    /// XorShift (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Compared { blocks, instructions, pages, stale } = self.compared;
        [
            ("compared_blocks", blocks),
            ("compared_instructions", instructions),
            ("compared_pages", pages),
            ("compared_with_stale_flags", stale),
        ]
        .into_iter()
    }
}

/// The hooks.
impl Translated {
    /// The interpreter does every block again; see `engine/shadow.rs`. For machines with one
    /// processor.
    #[must_use]
    pub fn shadowed(mut self) -> Self {
        self.policy.threshold = 1;
        self.shadow = Some(Box::new(Shadow {
            before: Seen::default(),
            translated: Seen::default(),
            records: Default::default(),
            reference: Reference::default(),
            target: None,
            entered: None,
            stale: Stale::default(),
            compared: Compared::default(),
            random: 0x2545_F491_4F6C_DD1D,
            fault: String::new(),
        }));
        self
    }

    /// Lets an indirect branch to `target` come out there; false if the interpreter has to do it.
    pub(super) fn stop_at(&mut self, target: u64) -> bool {
        let fits = Cpu::canonical(target) && target < self.mode.code_end();
        if self.shadow.is_none() || !fits {
            return false;
        }
        let Some(code) = self.stop() else { return false };
        let class = self.class();
        if let Some(table) = self.state.hot.jumps.get_mut(class) {
            table.enter(target, code);
        }
        if let Some(shadow) = &mut self.shadow {
            (shadow.target, shadow.entered) = (Some(target), Some((class, target)));
        }
        true
    }
    /// Where code that has come out by [`Site::Arrived`] is.
    pub(super) fn arrived_at(&mut self) -> u64 {
        let target = self.shadow.as_mut().and_then(|shadow| shadow.target.take());
        target.unwrap_or_else(|| self.state.hot.regs.get(9).copied().unwrap_or(0))
    }

    /// The address of code that leaves by [`Site::Arrived`].
    fn stop(&mut self) -> Option<u64> {
        if self.shared.cache().find(STOP).is_none() {
            let mut cache = self.shared.cache();
            let at_arena = cache.next();
            let mut asm = Asm::default();
            let call = asm.call();
            let exit = i64::from(self.shared.stubs.exit);
            asm.bind_to(call, exit.wrapping_sub(i64::from(at_arena)));
            let origin = Origin { entry: at_arena, rip: STOP.rip };
            let site = Site::<u32>::Arrived.pack(origin, at_arena.wrapping_add(asm.here() as u32));
            asm.site(&site);
            let mut block =
                emit::Translated { code: asm.code, instructions: 1, ..emit::Translated::default() };
            cache.add(STOP, 0, &mut block, Box::default())?;
        }
        let entry = self.shared.cache().find(STOP)?.entry;
        Some(self.address(entry))
    }

    /// Runs a block, and lets the interpreter do the same.
    pub(super) fn run_compared(&mut self, cpu: &mut Cpu, code: u64) -> Left {
        if !cpu.tlb.is_recorded() {
            cpu.tlb.start_recording();
            return Left::On;
        }
        let Some((key, _)) = self.key(cpu, cpu.state.rip) else { return Left::On };
        let mode = self.mode;
        let left = self.run_translated(cpu, code);
        self.mode = mode;
        let Some(shadow) = self.shadow.as_deref_mut() else { return left };
        match shadow.compare(cpu, key, &left) {
            Ok(()) => self.after_comparison(cpu, left),
            Err(report) => {
                shadow.fault = report;
                Left::Ran(Ran::Failed)
            }
        }
    }

    /// Runs a block, keeps what came of it, and makes it undone.
    fn run_translated(&mut self, cpu: &mut Cpu, code: u64) -> Left {
        let polls = self.policy.polls;
        let Some(shadow) = self.shadow.as_deref_mut() else { return Left::On };
        let vectors = self.mode.has_vectors();
        shadow.before.take(cpu, vectors);
        let mode = cpu.mode;
        let stale = shadow.stale;
        if stale.mask != 0 && stale.at == (cpu.state.rip, cpu.retired) {
            cpu.set_flags(stale.mask, stale.values);
            shadow.compared.stale = shadow.compared.stale.wrapping_add(1);
        }
        let polled = shadow.next().is_multiple_of(POLLED);
        shadow.target = None;
        self.state.hot.counts = [if polled { 0 } else { polls }; COUNTS];
        cpu.tlb.begin_record(None);
        self.sync_in(cpu);
        self.state.hot.tsc_multiplier = 0; // RDTSC is the interpreter's
        let left = self.run_from(cpu, code);
        let hot = &mut self.state.hot;
        if let Some(shadow) = self.shadow.as_deref_mut() {
            if let Some((class, target)) = shadow.entered.take()
                && let Some(table) = hot.jumps.get_mut(class)
            {
                table.forget(target);
            }
            shadow.translated.take(cpu, vectors);
            let [record, _] = &mut shadow.records;
            cpu.tlb.end_record(record);
            cpu.tlb.undo_record(record);
            for (class, va) in &record.fills {
                if let Some(tlb) = hot.tlb.get_mut(*class as usize) {
                    tlb.flush_index(tlb_index(*va));
                }
            }
            shadow.before.put(cpu);
            cpu.mode = mode;
        }
        left
    }

    /// What `left` means where the interpreter is now.
    fn after_comparison(&mut self, cpu: &mut Cpu, left: Left) -> Left {
        let is_due = cpu.retired >= cpu.clock_check || cpu.stepping() || cpu.has_business();
        self.state.hot.counts = [if is_due { -1 } else { self.policy.polls }; COUNTS];
        match left {
            Left::Op(_) | Left::Ran(Ran::One | Ran::OneThenAround) => {
                // The instruction behind STI is done at once.
                cpu.shadow = InterruptShadow::None;
                match left {
                    Left::Op(op) => Left::Op(op),
                    Left::On | Left::Ran(_) => {
                        Left::Ran(if is_due { Ran::OneThenAround } else { Ran::One })
                    }
                }
            }
            Left::On | Left::Ran(_) if is_due => Left::Ran(Ran::Around),
            Left::On | Left::Ran(_) => Left::On,
        }
    }
}

impl Shadow {
    /// Lets the interpreter go where the translated code was left.
    fn compare(&mut self, cpu: &mut Cpu, key: Key, left: &Left) -> Result<(), String> {
        let goes_on = match left {
            Left::On | Left::Ran(Ran::Around) => true,
            Left::Op(_) | Left::Ran(Ran::One | Ran::OneThenAround) => false,
            Left::Ran(Ran::Cold | Ran::Again | Ran::Stopped(_) | Ran::Failed) => {
                return Err(self.report(cpu, key, "it was left in no known way"));
            }
        };
        let exact = Self::is_strict(key) && !goes_on;
        // Who polls at an indirect branch has not done it.
        let polled = matches!(left, Left::Ran(Ran::Around))
            && self.reference.flow(cpu, self.translated.rip).is_some_and(is_indirect);
        let least = u64::from(goes_on && !polled);
        self.reference.begin();
        let [record, _] = &self.records;
        cpu.tlb.begin_record(Some(record));
        let mut first: Option<String> = None;
        loop {
            if cpu.state.rip == self.translated.rip && self.reference.steps() >= least {
                let differences = self.differences(cpu, exact);
                if differences.is_empty() {
                    break;
                }
                first.get_or_insert_with(|| self.report(cpu, key, &differences.join("\n")));
            }
            if let Err(why) = self.reference.step(cpu) {
                return Err(first.unwrap_or_else(|| self.report(cpu, key, &why)));
            }
        }
        let [_, record] = &mut self.records;
        cpu.tlb.end_record(record);
        let differences = self.memory_differences(goes_on && !polled);
        if !differences.is_empty() {
            return Err(self.report(cpu, key, &differences.join("\n")));
        }
        self.note(cpu, goes_on);
        Ok(())
    }

    fn note(&mut self, cpu: &Cpu, goes_on: bool) {
        let differing = (self.translated.rflags ^ cpu.state.rflags) & flags::ARITHMETIC;
        let mask = if goes_on { differing & !self.reference.undefined() } else { 0 };
        let values = self.translated.rflags & mask;
        self.stale = Stale { mask, values, at: (cpu.state.rip, cpu.retired) };
        let compared = &mut self.compared;
        compared.blocks = compared.blocks.wrapping_add(1);
        compared.instructions = compared.instructions.wrapping_add(self.reference.steps());
        let pages = self.records.iter().map(|record| record.pages().len() as u64).sum();
        compared.pages = compared.pages.wrapping_add(pages);
    }
}

fn is_indirect(flow: FlowControl) -> bool {
    matches!(flow, FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return)
}
