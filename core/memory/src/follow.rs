//! What an engine that keeps translations of its own has to follow: flushes of the TLB, pages that
//! became code, code that changed.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

/// Flushes of a [`crate::SoftTlb`] since they were last asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Flushed {
    /// None.
    #[default]
    Nothing,
    /// These linear pages of 4 KiB.
    Pages(Vec<u64>),
    /// All pages that are not global.
    Local,
    /// More than can be told one by one.
    All,
}

/// Pages that are told one by one at most.
const PAGES_MAX: usize = 16;

impl Flushed {
    pub(crate) fn page(&mut self, va: u64) {
        match self {
            Self::All => {}
            Self::Nothing => *self = Self::Pages(alloc::vec![va]),
            Self::Pages(pages) if pages.len() < PAGES_MAX => pages.push(va),
            Self::Pages(_) | Self::Local => *self = Self::All,
        }
    }
    pub(crate) fn local(&mut self) {
        match self {
            Self::All | Self::Local => {}
            Self::Nothing => *self = Self::Local,
            Self::Pages(_) => *self = Self::All,
        }
    }
}

/// A page of a [`crate::SoftTlb`] by its host address, for engines that access memory themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPage {
    /// Where its first byte is. Valid until the TLB is refreshed or dropped.
    pub host: *mut u8,
    /// Reads need no walk.
    pub read: bool,
    /// Writes need no walk.
    pub write: bool,
    /// It holds code, so that whoever writes to it has to tell.
    pub code: bool,
    /// It survives a change of CR3.
    pub global: bool,
}

/// How many changes are remembered.
const REMEMBERED: usize = 256;

/// The pages of a slot in which code was overwritten, in order: a ring with a count.
pub(crate) struct CodeLog {
    count: AtomicU64,
    ring: Mutex<[u64; REMEMBERED]>,
}

impl Default for CodeLog {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), ring: Mutex::new([0; REMEMBERED]) }
    }
}

impl CodeLog {
    /// Notes that code in the page at `gpa` was overwritten.
    #[cold]
    pub(crate) fn note(&self, gpa: u64) {
        let mut ring = self.ring.lock();
        let count = self.count.load(Ordering::Relaxed);
        if let Some(place) = ring.get_mut(count as usize % REMEMBERED) {
            *place = gpa & !0xFFF;
        }
        self.count.store(count.wrapping_add(1), Ordering::Release);
    }
    /// How many changes there were.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
    /// The changes from number `from` on; `None` if they are not remembered any more.
    pub(crate) fn since(&self, from: u64, into: &mut Vec<u64>) -> Option<u64> {
        let ring = self.ring.lock();
        let count = self.count.load(Ordering::Relaxed);
        if count.wrapping_sub(from) > REMEMBERED as u64 {
            return None;
        }
        for number in from..count {
            into.extend(ring.get(number as usize % REMEMBERED));
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_what_came_since_or_that_it_was_too_much() {
        let log = CodeLog::default();
        log.note(0x1000);
        log.note(0x2345);
        let mut found = Vec::new();
        assert_eq!(log.since(1, &mut found), Some(2));
        assert_eq!(found, [0x2000]);
        for page in 0..REMEMBERED as u64 {
            log.note(page << 12);
        }
        assert_eq!(log.since(1, &mut found), None);
    }

    #[test]
    fn many_flushed_pages_are_all() {
        let mut flushed = Flushed::default();
        (0..PAGES_MAX as u64).for_each(|page| flushed.page(page << 12));
        assert!(matches!(&flushed, Flushed::Pages(pages) if pages.len() == PAGES_MAX));
        flushed.page(0);
        assert_eq!(flushed, Flushed::All);
    }

    #[test]
    fn a_page_and_all_local_ones_are_all() {
        let mut flushed = Flushed::default();
        flushed.local();
        assert_eq!(flushed, Flushed::Local);
        flushed.page(0);
        assert_eq!(flushed, Flushed::All);
    }
}
