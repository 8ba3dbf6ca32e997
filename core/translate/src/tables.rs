//! What is in the inline TLBs and jump tables, listed, so that forgetting costs as much as was
//! entered since the last time, and not as much as the tables are large.

use alloc::vec::Vec;

use crate::crossing::may_cross;
use crate::layout::{CLASSES, Hot, JUMP_ENTRIES, TLB_ENTRIES, Table, tlb_index};
use crate::slots::Filled;

/// Entries of one table: those that a change of CR3 ends, and those that it doesn't.
#[derive(Default)]
struct Entered {
    local: Vec<u16>,
    global: Vec<u16>,
}

/// Of a list. One that is longer is no help: the whole table is forgotten then.
const LONGEST: usize = 8192;

impl Entered {
    fn note(&mut self, index: usize, global: bool) {
        let list = if global { &mut self.global } else { &mut self.local };
        if list.len() <= LONGEST {
            list.push(index as u16);
        }
    }
}

/// Forgets the entries that are listed.
fn forget(table: &mut impl Table, list: &mut Vec<u16>) {
    if list.len() > LONGEST {
        table.flush();
    } else {
        list.iter().for_each(|index| table.flush_index(usize::from(*index)));
    }
    list.clear();
}

/// The lists of all classes.
pub(crate) struct Tables {
    pages: [Entered; CLASSES],
    jumps: [Entered; CLASSES],
    pub(crate) slots: Filled,
    /// Bit n: there may be jumps or slots into a page whose number has these lowest bits.
    targets: [u64; 64],
}

impl Tables {
    /// For a new state block. `slot_missed`: where empty slots lead.
    pub(crate) fn new(hot: &mut Hot, slot_missed: u64) -> Self {
        hot.set_constants();
        // All zero, every other entry is that of an address which has another index.
        hot.tlb.iter_mut().for_each(|tlb| tlb.flush_index(0));
        hot.jumps.iter_mut().for_each(|table| table.flush_index(0));
        let slots = Filled::new(hot, slot_missed);
        Self { pages: Default::default(), jumps: Default::default(), slots, targets: [0; 64] }
    }
    fn target_bit(rip: u64) -> (usize, u64) {
        ((rip >> 18) as usize % 64, 1 << (rip >> 12 & 63))
    }
    fn note_target(&mut self, rip: u64) {
        let next = may_cross(rip).then(|| rip.wrapping_add(0x1000));
        for page in [Some(rip), next].into_iter().flatten() {
            let (word, bit) = Self::target_bit(page);
            if let Some(word) = self.targets.get_mut(word) {
                *word |= bit;
            }
        }
    }
    /// Lets a slot lead to the code of `rip`.
    pub(crate) fn slot(&mut self, hot: &mut Hot, number: u32, code: u64, rip: u64, global: bool) {
        self.slots.fill(hot, number, code, rip, global);
        self.note_target(rip);
    }
    /// Enters a page.
    pub(crate) fn page(&mut self, hot: &mut Hot, class: usize, page: &Page) {
        if let (Some(tlb), Some(list)) = (hot.tlb.get_mut(class), self.pages.get_mut(class)) {
            list.note(tlb.fill(page.va, page.host, page.writable), page.global);
        }
    }
    /// Forgets in every class that the page at host address `page` may be written.
    pub(crate) fn protect(&self, hot: &mut Hot, page: u64) {
        for (tlb, lists) in hot.tlb.iter_mut().zip(&self.pages) {
            for list in [&lists.local, &lists.global] {
                if list.len() > LONGEST {
                    (0..TLB_ENTRIES).for_each(|index| tlb.protect_index(index, page));
                } else {
                    list.iter().for_each(|n| tlb.protect_index(usize::from(*n), page));
                }
            }
        }
    }
    /// Enters a jump's target.
    pub(crate) fn jump(&mut self, hot: &mut Hot, class: usize, rip: u64, code: u64, global: bool) {
        if let (Some(table), Some(list)) = (hot.jumps.get_mut(class), self.jumps.get_mut(class)) {
            list.note(table.enter(rip, code), global);
        }
        self.note_target(rip);
    }
    /// Forgets what is not global.
    pub(crate) fn flush_local(&mut self, hot: &mut Hot) {
        for (table, lists) in hot.tlb.iter_mut().zip(&mut self.pages) {
            forget(table, &mut lists.local);
        }
        for (table, lists) in hot.jumps.iter_mut().zip(&mut self.jumps) {
            forget(table, &mut lists.local);
        }
        self.slots.empty_local(hot);
    }
    /// Forgets everything.
    pub(crate) fn flush_all(&mut self, hot: &mut Hot) {
        self.flush_local(hot);
        for (table, lists) in hot.tlb.iter_mut().zip(&mut self.pages) {
            forget(table, &mut lists.global);
        }
        for (table, lists) in hot.jumps.iter_mut().zip(&mut self.jumps) {
            forget(table, &mut lists.global);
        }
        self.slots.empty_all(hot);
        self.targets = [0; 64];
    }
    /// Forgets the jumps of one class.
    pub(crate) fn flush_jumps(&mut self, hot: &mut Hot, class: usize) {
        if let (Some(table), Some(lists)) = (hot.jumps.get_mut(class), self.jumps.get_mut(class)) {
            forget(table, &mut lists.local);
            forget(table, &mut lists.global);
        }
    }
    /// Forgets the page at `va`, and the jumps into it.
    pub(crate) fn flush_page(&self, hot: &mut Hot, va: u64) {
        hot.tlb.iter_mut().for_each(|tlb| tlb.flush_index(tlb_index(va)));
        let (word, bit) = Self::target_bit(va);
        if self.targets.get(word).is_some_and(|word| word & bit == 0) {
            return;
        }
        self.slots.empty_page(hot, va);
        for (table, lists) in hot.jumps.iter_mut().zip(&self.jumps) {
            for list in [&lists.local, &lists.global] {
                if list.len() > LONGEST {
                    (0..JUMP_ENTRIES).for_each(|index| table.flush_index_of_page(index, va));
                } else {
                    list.iter().for_each(|n| table.flush_index_of_page(usize::from(*n), va));
                }
            }
        }
    }
}

/// A page for the inline TLB.
pub(crate) struct Page {
    pub(crate) va: u64,
    pub(crate) host: u64,
    pub(crate) writable: bool,
    pub(crate) global: bool,
}
