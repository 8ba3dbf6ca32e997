//! Jumps to other pages whose target is known: each such target has a slot, a pointer in the
//! state block, and the jump goes through it.
//!
//! ```text
//!     mov   r9d, slot
//!     jmp   [rsp + slots + slot*8]
//! ```
//! A slot holds the place of its target's code while the vCPU's mapping of that page is known, and
//! that of a stub which leaves translated code otherwise. So a jump needs no comparison, leaves the
//! flags alone, and a change of mappings costs as many stores as slots were filled since the last
//! one. A target has two slots: for the entry that takes the host's flags, and for that which
//! takes the saved ones.
//!
//! Slots are numbered once for all vCPUs, and filled by each for itself.

use alloc::vec::Vec;

use crate::blocks::{Index, hash_of};
use crate::crossing::touches;
use crate::layout::{Hot, SLOTS};
use crate::mode::Mode;

/// What a slot leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) rip: u64,
    pub(crate) mode: Mode,
    /// The guest's flags are the saved ones there.
    pub(crate) saved: bool,
}

impl Target {
    fn hash(self) -> u32 {
        hash_of([self.rip, self.mode.number(), self.saved.into()])
    }
}

/// The numbers of all slots.
#[derive(Default)]
pub(crate) struct Numbers {
    index: Index,
    targets: Vec<Target>,
}

impl Numbers {
    /// The slot of a target, a new one if need be; `None` if all are taken.
    pub(crate) fn of(&mut self, target: Target) -> Option<u32> {
        if let Some(number) = self.known(target) {
            return Some(number);
        }
        let number = self.targets.len();
        if number >= SLOTS {
            return None;
        }
        self.targets.push(target);
        self.index.insert(target.hash(), number as u32);
        Some(number as u32)
    }
    pub(crate) fn known(&self, target: Target) -> Option<u32> {
        let is = |number: u32| self.targets.get(number as usize) == Some(&target);
        self.index.find(target.hash(), is)
    }
    pub(crate) fn target(&self, number: u32) -> Option<Target> {
        self.targets.get(number as usize).copied()
    }
    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.targets.clear();
    }
}

/// The slots that a vCPU has filled: number and target address.
#[derive(Default)]
pub(crate) struct Filled {
    local: Vec<(u32, u64)>,
    global: Vec<(u32, u64)>,
    /// Where an empty slot leads.
    missed: u64,
}

impl Filled {
    /// `missed`: the stub's address.
    pub(crate) fn new(hot: &mut Hot, missed: u64) -> Self {
        hot.slots.fill(missed);
        Self { missed, ..Self::default() }
    }
    pub(crate) fn fill(&mut self, hot: &mut Hot, number: u32, code: u64, rip: u64, global: bool) {
        if let Some(slot) = hot.slots.get_mut(number as usize) {
            *slot = code;
            let list = if global { &mut self.global } else { &mut self.local };
            if list.len() >= 2 * SLOTS {
                // Slots that were emptied one by one and filled again are in it several times.
                list.sort_unstable();
                list.dedup();
            }
            list.push((number, rip));
        }
    }
    pub(crate) fn empty(&self, hot: &mut Hot, number: u32) {
        if let Some(slot) = hot.slots.get_mut(number as usize) {
            *slot = self.missed;
        }
    }
    /// Those to pages that are not global.
    pub(crate) fn empty_local(&mut self, hot: &mut Hot) {
        for (number, _) in core::mem::take(&mut self.local) {
            self.empty(hot, number);
        }
    }
    pub(crate) fn empty_all(&mut self, hot: &mut Hot) {
        self.empty_local(hot);
        for (number, _) in core::mem::take(&mut self.global) {
            self.empty(hot, number);
        }
    }
    /// Those into the page at `va`.
    pub(crate) fn empty_page(&self, hot: &mut Hot, va: u64) {
        for (number, rip) in self.local.iter().chain(&self.global) {
            if touches(*rip, va) {
                self.empty(hot, *number);
            }
        }
    }
}
