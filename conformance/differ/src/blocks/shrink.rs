//! Making a difference small, and showing it.

use std::fmt::Write as _;

use super::compare::{Session, Verdict};
use super::disturb::Plan;
use super::{Block, flow};
use crate::compare::{simplifications, text};

const NOP: u8 = 0x90;

/// A block that differs, made as small as it still does.
pub struct Shrunk {
    /// The block.
    pub block: Block,
    /// What differs.
    pub why: Vec<String>,
    /// It differs by itself, on new machines.
    pub alone: bool,
}

impl Session {
    /// Whether a block differs on new machines.
    fn differs(&mut self, block: &Block) -> Option<Vec<String>> {
        if flow::of(block).is_err() || self.renew().is_err() {
            return None;
        }
        match self.check(block) {
            Verdict::Different(why) => Some(why),
            Verdict::Same if self.refused() > 0 => {
                Some(vec!["the verifier refuses what the translator made".into()])
            }
            Verdict::Same | Verdict::Unfit | Verdict::Missing => None,
        }
    }

    /// Makes a block that differed, for these reasons, small.
    pub fn shrink(&mut self, block: &Block, why: Vec<String>) -> Shrunk {
        let Some(first) = self.differs(block) else {
            return Shrunk { block: block.clone(), why, alone: false };
        };
        let mut best = Shrunk { block: block.clone(), why: first, alone: true };
        self.try_plans(&mut best);
        loop {
            let before = best.block.clone();
            for index in (0..best.block.starts.len()).rev() {
                let range = best.block.range(index);
                let mut next = best.block.clone();
                if let Some(bytes) = next.case.bytes.get_mut(range) {
                    bytes.fill(NOP);
                }
                self.take_if_worse(&mut best, next);
            }
            if best.block == before {
                break;
            }
        }
        for simpler in simplifications() {
            let mut next = best.block.clone();
            simpler(&mut next.case);
            self.take_if_worse(&mut best, next);
        }
        best
    }

    fn take_if_worse(&mut self, best: &mut Shrunk, next: Block) {
        if next != best.block
            && let Some(why) = self.differs(&next)
        {
            (best.block, best.why) = (next, why);
        }
    }

    /// Leaves out what happens meanwhile.
    fn try_plans(&mut self, best: &mut Shrunk) {
        let changes: [fn(&mut Plan); 8] = [
            |plan| plan.migrations = 0,
            |plan| plan.interrupts = 0,
            |plan| plan.flushes = 0,
            |plan| plan.cold = 0,
            |plan| plan.swaps = 0,
            |plan| plan.polls = 2000,
            |plan| plan.rounds = 1,
            |plan| plan.threshold = 1,
        ];
        for change in changes {
            let mut next = best.block.clone();
            change(&mut next.plan);
            self.take_if_worse(best, next);
        }
    }
}

/// A block as text: its code without what does nothing, its state, what happens to it.
#[must_use]
pub fn show(block: &Block) -> String {
    let mut out = String::new();
    let case = &block.case;
    let _ = writeln!(out, "{}-bit code, {:?}", case.bits, block.plan);
    for (index, instr) in block.instructions().enumerate() {
        let bytes = case.bytes.get(block.range(index)).unwrap_or_default();
        if bytes.iter().all(|byte| *byte == NOP) {
            continue;
        }
        let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let _ = writeln!(out, "    {:#x}  {hex:<24} {}", instr.ip(), text(&instr));
    }
    for (n, value) in case.gpr.iter().enumerate().filter(|(_, value)| **value != 0) {
        let name = crate::compare::NAMES.get(n).copied().unwrap_or_default();
        let _ = writeln!(out, "    {name} = {value:#x}");
    }
    if let Some(segments) = case.segments {
        let _ = writeln!(out, "    ds, es, fs, gs = {segments:x?}");
    }
    let _ = writeln!(
        out,
        "    rflags = {:#x}, fs = {:#x}, gs = {:#x}, pages {:?}, {} patches",
        case.rflags,
        case.fs,
        case.gs,
        case.pages,
        case.patches.len()
    );
    out
}
