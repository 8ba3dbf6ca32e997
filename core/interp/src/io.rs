//! The replay log: how an instruction gets answers from the machine.
//!
//! An instruction that needs the machine (a port, MMIO, an MSR that we lack) stops with
//! `Stop::Exit` before it changed anything, and runs again from its start when the answer is
//! there. Answers are kept in order of asking, so an instruction that asks several times (a
//! page-crossing access, a read-modify-write of a register of a device) finds the earlier ones.
//!
//! It is the same instruction that runs again, whatever another processor wrote over its bytes in
//! the meantime: the op is kept here. What it asks may be another thing all the same, because a
//! page table changed, and then the answers from there on are not for it.

use alloc::vec::Vec;

use kasane_cpu::{Entry, Exit};

use crate::cpu::{Cpu, Stop};
use crate::op::Op;

/// Answers within one instruction.
#[derive(Default)]
pub struct Replay {
    answers: Vec<(Exit, Entry)>,
    cursor: usize,
    /// What was asked last.
    asked: Option<Exit>,
    /// The instruction that asked, and its address.
    op: Option<(u64, Op)>,
}

/// Whether an answer to one question is one to the other. The value of a write may differ: where
/// it comes from memory that others write, the first one is what the device got.
fn same_question(a: &Exit, b: &Exit) -> bool {
    match (a, b) {
        (
            Exit::PortWrite { port, size, .. },
            Exit::PortWrite { port: other_port, size: other_size, .. },
        ) => (port, size) == (other_port, other_size),
        (
            Exit::PortWriteString { port, size, count, .. },
            Exit::PortWriteString {
                port: other_port, size: other_size, count: other_count, ..
            },
        ) => (port, size, count) == (other_port, other_size, other_count),
        (
            Exit::MmioWrite { gpa, size, .. },
            Exit::MmioWrite { gpa: other_gpa, size: other_size, .. },
        ) => (gpa, size) == (other_gpa, other_size),
        (a, b) => a == b,
    }
}

impl Replay {
    /// An instruction (or an iteration of a repeated one) is complete: forget its answers.
    #[inline]
    pub fn commit(&mut self) {
        if !self.answers.is_empty() {
            self.answers.clear();
        }
        self.cursor = 0;
        self.op = None;
    }
    /// The instruction starts (again).
    #[inline]
    pub fn restart(&mut self) {
        self.cursor = 0;
    }
    /// The machine answered.
    pub fn answer(&mut self, entry: Entry) {
        if let Some(exit) = self.asked.take() {
            self.answers.push((exit, entry));
        }
    }
    /// Keeps the instruction at `rip` that asks.
    pub fn keep(&mut self, rip: u64, op: &Op) {
        self.op = Some((rip, *op));
    }
    /// The instruction at `rip` that asked and has answers.
    #[must_use]
    pub fn kept(&self, rip: u64) -> Option<Op> {
        self.op.filter(|(at, _)| *at == rip && self.active()).map(|(_, op)| op)
    }
    /// Whether the current instruction has answers.
    #[must_use]
    pub fn active(&self) -> bool {
        !self.answers.is_empty()
    }
    fn next(&mut self, exit: &Exit) -> Option<Entry> {
        let (asked, answer) = self.answers.get(self.cursor)?;
        if !same_question(asked, exit) {
            self.answers.truncate(self.cursor);
            return None;
        }
        self.cursor = self.cursor.wrapping_add(1);
        Some(*answer)
    }
}

impl Cpu {
    /// Asks the machine and gives its value.
    ///
    /// # Errors
    /// `Stop::Exit` until the answer is there; `Stop::Fault` (#GP(0)) if it is `Entry::Fault`.
    pub fn ask(&mut self, exit: Exit) -> Result<u64, Stop> {
        match self.replay.next(&exit) {
            Some(Entry::Value(value)) => Ok(value),
            Some(Entry::Resume | Entry::ExternalInterrupt { .. }) => Ok(0),
            Some(Entry::Fault) => Err(self.gp(0)),
            None => {
                self.pending_exit = Some(exit);
                self.replay.asked = Some(exit);
                Err(Stop::Exit)
            }
        }
    }
}
