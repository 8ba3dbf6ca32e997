//! Running a block three times and comparing.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use kasane_spec_x86::flags::ARITHMETIC;

use super::disturb::{End, Entries, Plan};
use super::guest::{Engine, FaultFlags, Machine, TRANSLATORS};
use super::{Block, flow};
use crate::case::{Case, Outcome, Patterns};
use crate::compare::{FLAGS, NAMES, describe, forget_kernel_half, vectors};
use crate::layout::{DATA, INT3, OPEN_CODE, PAGE, WRITABLE_PAGES};
use crate::native::Native;
use crate::undefined;

/// The result of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No difference.
    Same,
    /// It runs too long, or where it has no instruction, or does what is undefined, or this host
    /// can't run it.
    Unfit,
    /// The interpreter lacks an instruction.
    Missing,
    /// What differs.
    Different(Vec<String>),
}

/// The real CPU and the machines.
pub struct Session {
    native: Native,
    reference: Machine,
    translating: Vec<Machine>,
    patterns: Patterns,
    /// Vector of the exception that ended the last block; `None`: it ended by itself.
    pub ended_by: Option<u8>,
}

impl Session {
    /// Sets all sides up in this process.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn new() -> anyhow::Result<Self> {
        // A machine first: the code of the translator has signal handlers that the native side's
        // pass on to.
        let reference = Machine::new(Engine::Interpreter)?;
        let native = Native::for_blocks()?;
        let (translating, patterns) = (Vec::new(), Patterns::default());
        let mut it = Self { native, reference, translating, patterns, ended_by: None };
        it.renew()?;
        Ok(it)
    }

    /// Makes new machines, so that what follows does not depend on what ran before.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn renew(&mut self) -> anyhow::Result<()> {
        self.reference = Machine::new(Engine::Interpreter)?;
        self.translating = TRANSLATORS.into_iter().map(Machine::new).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What the translators of the machines at hand did, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.translating.iter().flat_map(Machine::counts).collect()
    }

    /// How many blocks of code the translator's verifier refused on the machines at hand.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let refused = |(name, _): &(String, u64)| name == "refused_by_verifier";
        self.counts().into_iter().filter(refused).map(|(_, count)| count).sum()
    }

    /// Runs a block on all sides.
    pub fn check(&mut self, block: &Block) -> Verdict {
        if block.case.segments.is_some() && !self.native.local_segments {
            return Verdict::Unfit;
        }
        let reference = match self.reference.run(block, block.plan.calm(), &self.patterns) {
            Ok(End::Done(outcome)) => outcome,
            Ok(End::Endless | End::Stray | End::Undefined | End::Wrong(_)) => {
                return Verdict::Unfit;
            }
            Err(why) => return Verdict::Different(vec![format!("interpreter: {why}")]),
        };
        if reference.missing {
            return Verdict::Missing;
        }
        if reference.is_about_trampoline() {
            return Verdict::Unfit;
        }
        if block.is_open() {
            self.native.open_code().fill(INT3);
        }
        let real = self.native.run_block(&block.case, &self.patterns);
        self.ended_by = real.fault.map(|fault| fault.vector);
        let compare = Comparison { block, real: &real };
        let mut out = Vec::new();
        compare.outcomes("interpreter", FaultFlags::Exact, &reference, &mut out);
        compare.memory("interpreter", &mut self.native, &mut self.reference, &mut out);
        self.translated(block, &real, &mut out);
        if out.is_empty() {
            return Verdict::Same;
        }
        if self.is_undefined(block) { Verdict::Unfit } else { Verdict::Different(out) }
    }

    /// Whether the block did something on its way that need not end in the same way elsewhere.
    fn is_undefined(&mut self, block: &Block) -> bool {
        let watched = self.reference.run(block, block.plan.watched(), &self.patterns);
        watched == Ok(End::Undefined)
    }

    fn translated(&mut self, block: &Block, real: &Outcome, out: &mut Vec<String>) {
        let Some(machine) = self.translating.get_mut(block.plan.machine) else { return };
        let Engine::Translator { flags, .. } = machine.engine else { return };
        let compare = Comparison { block, real };
        for round in 0..block.plan.rounds.max(1) {
            let plan = Plan { seed: block.plan.seed.wrapping_add(u64::from(round)), ..block.plan };
            let mut found = Vec::new();
            match machine.run(block, plan, &self.patterns) {
                Ok(End::Done(outcome)) => {
                    compare.outcomes("translator", flags, &outcome, &mut found);
                    compare.memory("translator", &mut self.native, machine, &mut found);
                    // An access that faults may have used an entry already.
                    if plan.entries == Entries::Fresh && real.fault.is_none() {
                        used_pages(&self.reference, machine, &mut found);
                    }
                }
                Ok(End::Endless) => found.push("translator: it comes to no end".into()),
                Ok(End::Stray) => found.push("translator: it strays".into()),
                Ok(End::Undefined) => found.push("translator: it noticed what is undefined".into()),
                Ok(End::Wrong(why)) => found.push(format!("translator: {why}")),
                Err(why) => found.push(format!("translator: {why}")),
            }
            if !found.is_empty() {
                out.push(format!("in round {round} of machine {}:", block.plan.machine));
                out.append(&mut found);
                return;
            }
        }
    }
}

/// What one side did, beside what the real CPU did.
struct Comparison<'a> {
    block: &'a Block,
    real: &'a Outcome,
}

impl Comparison<'_> {
    /// The instruction at which it stopped.
    fn stopped_at(&self) -> Instruction {
        let case = &self.block.case;
        let offset = self.real.rip.wrapping_sub(case.rip) as usize;
        let bytes = case.bytes.get(offset..).unwrap_or_default();
        Decoder::with_ip(case.bits, bytes, self.real.rip, DecoderOptions::NONE).decode()
    }

    fn outcomes(&self, who: &str, flags: FaultFlags, ours: &Outcome, out: &mut Vec<String>) {
        let real = self.real;
        if real == ours {
            return;
        }
        let instr = self.stopped_at();
        let at = Case { gpr: real.gpr, ..self.block.case.clone() };
        let (mut a, mut b) = (real.fault, ours.fault);
        forget_kernel_half(&mut a);
        forget_kernel_half(&mut b);
        if undefined::address_in_page(&instr) {
            for fault in [&mut a, &mut b].into_iter().flatten() {
                fault.address &= !(PAGE as u64 - 1);
            }
        }
        match (a, b) {
            (Some(a), Some(b)) if undefined::either_fault(&instr, &at, a, b) => {}
            _ if a == b => {}
            _ => out.push(format!(
                "{who}: exception: real {}, ours {}",
                describe(real.fault),
                describe(ours.fault)
            )),
        }
        let mut value = |name: &str, a: u64, b: u64| {
            if a != b {
                out.push(format!("{who}: {name}: real {a:#x}, ours {b:#x}"));
            }
        };
        value("rip", real.rip, ours.rip);
        // What compatibility mode leaves in the upper halves is undefined (vol. 1 §3.4.1.1).
        let mask = if at.bits == 32 { 0xFFFF_FFFF } else { u64::MAX };
        for ((name, a), b) in NAMES.iter().zip(real.gpr).zip(ours.gpr) {
            value(name, a & mask, b & mask);
        }
        if (real.rflags ^ ours.rflags) & FLAGS != 0 {
            let compared = FLAGS & !self.undefined(flags);
            value("rflags", real.rflags & compared, ours.rflags & compared);
        }
        if at.bits == 64 {
            value("fs", real.fs, ours.fs);
            value("gs", real.gs, ours.gs);
        }
        if let (Some(a), Some(b)) = (&real.vectors, &ours.vectors)
            && a != b
        {
            let (mut a, mut b) = (a.clone(), b.clone());
            if let Some(fault) = real.fault {
                undefined::forget(&instr, fault, &mut a, &mut b);
            }
            let first = out.len();
            vectors(&a, &b, out);
            out.iter_mut().skip(first).for_each(|line| *line = format!("{who}: {line}"));
        }
    }

    /// The flags that are not compared where it stopped.
    fn undefined(&self, flags: FaultFlags) -> u64 {
        if flags == FaultFlags::Live && self.real.fault.is_some() {
            return ARITHMETIC;
        }
        flow::of(self.block).map_or(0, |undefined| undefined.at(self.block, self.real.rip))
    }

    fn memory(&self, who: &str, real: &mut Native, ours: &mut Machine, out: &mut Vec<String>) {
        let writable = WRITABLE_PAGES * PAGE;
        let data = (real.data().get(..writable), ours.data().get(..writable));
        if let (Some(a), Some(b)) = data {
            differences(who, DATA, a, b, out);
        }
        if self.block.is_open() {
            differences(who, OPEN_CODE, real.open_code(), ours.open_code(), out);
        }
    }
}

/// Accessed and dirty bits. The real CPU's are not to be seen.
fn used_pages(reference: &Machine, ours: &Machine, out: &mut Vec<String>) {
    for ((at, a), (_, b)) in reference.used_pages().into_iter().zip(ours.used_pages()) {
        if a != b {
            out.push(format!("entry of {at:#x}: interpreter {a:#x}, translator {b:#x}"));
        }
    }
}

/// The first bytes that differ.
fn differences(who: &str, base: u64, real: &[u8], ours: &[u8], out: &mut Vec<String>) {
    if real == ours {
        return;
    }
    let differing = (base..).zip(real.iter().zip(ours)).filter(|(_, (a, b))| a != b);
    for (at, (a, b)) in differing.take(4) {
        out.push(format!("{who}: memory {at:#x}: real {a:02x}, ours {b:02x}"));
    }
}
