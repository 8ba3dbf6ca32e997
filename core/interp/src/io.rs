//! The replay log: how an instruction gets answers from the machine.
//!
//! An instruction that needs the machine (a port, MMIO, an MSR that we lack) stops with
//! `Stop::Exit` before it changed anything, and runs again from its start when the answer is
//! there. Answers are kept in order of asking, so an instruction that asks several times (a
//! page-crossing access, a read-modify-write of a register of a device) finds the earlier ones.

use alloc::vec::Vec;

use kasane_cpu::{Entry, Exit};

use crate::cpu::{Cpu, Stop};

/// Answers within one instruction.
#[derive(Default)]
pub struct Replay {
    answers: Vec<Entry>,
    cursor: usize,
}

impl Replay {
    /// An instruction (or an iteration of a repeated one) is complete: forget its answers.
    #[inline]
    pub fn commit(&mut self) {
        if !self.answers.is_empty() {
            self.answers.clear();
        }
        self.cursor = 0;
    }
    /// The instruction starts (again).
    #[inline]
    pub fn restart(&mut self) {
        self.cursor = 0;
    }
    /// The machine answered.
    pub fn answer(&mut self, entry: Entry) {
        self.answers.push(entry);
    }
    /// Whether the current instruction has answers.
    #[must_use]
    pub fn active(&self) -> bool {
        !self.answers.is_empty()
    }
    fn next(&mut self) -> Option<Entry> {
        let answer = self.answers.get(self.cursor).copied();
        if answer.is_some() {
            self.cursor = self.cursor.wrapping_add(1);
        }
        answer
    }
}

impl Cpu {
    /// Asks the machine and gives its value.
    ///
    /// # Errors
    /// `Stop::Exit` until the answer is there; `Stop::Fault` (#GP(0)) if it is `Entry::Fault`.
    pub fn ask(&mut self, exit: Exit) -> Result<u64, Stop> {
        match self.replay.next() {
            Some(Entry::Value(value)) => Ok(value),
            Some(Entry::Resume | Entry::ExternalInterrupt { .. }) => Ok(0),
            Some(Entry::Fault) => Err(self.gp(0)),
            None => {
                self.pending_exit = Some(exit);
                Err(Stop::Exit)
            }
        }
    }
}
