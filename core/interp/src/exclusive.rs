//! Sections in which one processor of a partition runs and all others stand still.
//!
//! # Why
//! A locked access is atomic on any processor, also across a cache line or a page. On the host
//! one that lies in a line is one instruction. One across lines would be a split lock, which some
//! hosts answer with SIGBUS; and for one across pages there is no instruction at all, because the
//! pages are anywhere. Both are so rare that it may cost what it likes, as long as nothing else
//! gets slower by it.
//!
//! # How
//! Each processor says when it runs guest code. Who wants to be alone raises a flag, leaves a
//! note in the mailboxes of those that run, which they look at between blocks anyway, and waits
//! until none says that it runs. Who comes to the note, or begins to run, waits for the flag to
//! go down. This is Dekker's protocol: each side stores its own word before it reads the other's,
//! both sequentially consistent, so that not both go on.
//!
//! Who waits to be alone is itself at a safe point: it has changed nothing yet.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use kasane_cpu::apic::{ApicBus, events};

/// On a line of its own: its processor writes it at each entry.
#[repr(align(64))]
struct Runs(AtomicBool);

/// Who runs, and whether somebody wants to be alone.
pub struct Exclusive {
    wanted: AtomicBool,
    running: Vec<Runs>,
    apics: Arc<ApicBus>,
}

impl Exclusive {
    /// For the processors of `apics`, none of which runs.
    #[must_use]
    pub fn new(apics: Arc<ApicBus>) -> Self {
        let running = (0..apics.cpus()).map(|_| Runs(AtomicBool::new(false))).collect();
        Self { wanted: AtomicBool::new(false), running, apics }
    }
    fn say(&self, index: u32, runs: bool) -> bool {
        let word = self.running.get(index as usize);
        word.is_some_and(|word| word.0.swap(runs, Ordering::SeqCst))
    }
    /// Processor `index` begins to run guest code. `relax` passes a little time.
    pub fn enter(&self, index: u32, relax: impl Fn()) {
        loop {
            self.say(index, true);
            if !self.wanted.load(Ordering::SeqCst) {
                return;
            }
            self.say(index, false);
            while self.wanted.load(Ordering::Relaxed) {
                relax();
            }
        }
    }
    /// Processor `index` runs no guest code any more.
    pub fn leave(&self, index: u32) {
        self.say(index, false);
    }
    /// Between two blocks of processor `index`: lets another one be alone.
    pub fn give_way(&self, index: u32, relax: impl Fn()) {
        if self.wanted.load(Ordering::SeqCst) {
            self.leave(index);
            self.enter(index, relax);
        }
    }
    /// Runs `section` on processor `index` while no other runs guest code.
    pub fn alone<R>(&self, index: u32, relax: impl Fn(), section: impl FnOnce() -> R) -> R {
        let ran = self.say(index, false);
        while self
            .wanted
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed)
            .is_err()
        {
            relax();
        }
        for (word, mailbox) in self.running.iter().zip(self.apics.mailboxes()) {
            if !word.0.load(Ordering::SeqCst) {
                continue;
            }
            mailbox.leave_note(events::LINES);
            while word.0.load(Ordering::SeqCst) {
                relax();
            }
        }
        let result = section();
        self.wanted.store(false, Ordering::SeqCst);
        if ran {
            self.enter(index, relax);
        }
        result
    }
}
