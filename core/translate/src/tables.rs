//! What is in the inline TLBs and jump tables, listed, so that forgetting costs as much as was
//! entered since the last time, and not as much as the tables are large.

use alloc::vec::Vec;

use crate::layout::{CLASSES, Hot, Table, tlb_index};

/// Entries of one table: those that a change of CR3 ends, and those that it doesn't.
#[derive(Default)]
struct Entered {
    local: Vec<u16>,
    global: Vec<u16>,
}

/// Of a list. One that is longer is no help: the whole table is forgotten then.
const LONGEST: usize = 4096;

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
#[derive(Default)]
pub(crate) struct Tables {
    pages: [Entered; CLASSES],
    jumps: [Entered; CLASSES],
}

impl Tables {
    pub(crate) fn new(hot: &mut Hot) -> Self {
        hot.tlb.iter_mut().for_each(Table::flush);
        hot.jumps.iter_mut().for_each(Table::flush);
        Self::default()
    }
    /// Enters a page.
    pub(crate) fn page(&mut self, hot: &mut Hot, class: usize, page: &Page) {
        if let (Some(tlb), Some(list)) = (hot.tlb.get_mut(class), self.pages.get_mut(class)) {
            list.note(tlb.fill(page.va, page.host, page.writable), page.global);
        }
    }
    /// Enters a jump's target.
    pub(crate) fn jump(&mut self, hot: &mut Hot, class: usize, rip: u64, code: u64, global: bool) {
        if let (Some(table), Some(list)) = (hot.jumps.get_mut(class), self.jumps.get_mut(class)) {
            list.note(table.enter(rip, code), global);
        }
    }
    /// Forgets what is not global.
    pub(crate) fn flush_local(&mut self, hot: &mut Hot) {
        for (table, lists) in hot.tlb.iter_mut().zip(&mut self.pages) {
            forget(table, &mut lists.local);
        }
        for (table, lists) in hot.jumps.iter_mut().zip(&mut self.jumps) {
            forget(table, &mut lists.local);
        }
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
    }
    /// Forgets the jumps of one class.
    pub(crate) fn flush_jumps(&mut self, hot: &mut Hot, class: usize) {
        if let (Some(table), Some(lists)) = (hot.jumps.get_mut(class), self.jumps.get_mut(class)) {
            forget(table, &mut lists.local);
            forget(table, &mut lists.global);
        }
    }
    /// Forgets the page at `va`, and the jumps into it.
    pub(crate) fn flush_page(hot: &mut Hot, va: u64) {
        hot.tlb.iter_mut().for_each(|tlb| tlb.flush_index(tlb_index(va)));
        hot.jumps.iter_mut().for_each(|table| table.flush_page(va));
    }
}

/// A page for the inline TLB.
pub(crate) struct Page {
    pub(crate) va: u64,
    pub(crate) host: u64,
    pub(crate) writable: bool,
    pub(crate) global: bool,
}
