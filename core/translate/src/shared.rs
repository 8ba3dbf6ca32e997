//! What the translators of a machine's processors share: the code cache, and the order in which
//! they learn of pages that become code.
//!
//! # Pages that become code
//! Translated code stores through its inline TLB without asking what a page holds. So before a
//! page's bytes are decoded for the first time, every processor has to drop its write entry for
//! it, and must not be between the check and the store of an access that was let through before.
//! Only the owner writes to its TLB. Who makes a page code appends it to a log, and waits until
//! each processor that is in translated code has come out once and has read the log
//! ([`Shared::became_code`]). Polls bring them out within microseconds; those that are not in
//! translated code read the log before they enter it. Who waits counts as outside, so that two
//! who wait don't wait for each other.
//!
//! # Old blocks
//! Who finds that a page's bytes changed drops its blocks. Another processor may still be in one,
//! and finds it in its jump table until it comes out. That is what cross-modifying code allows: a
//! processor runs what another wrote only after an instruction that serializes (SDM vol. 3A
//! §8.1.3), and those are all done by the interpreter, after which the log of changes is read.
//! The room of dropped blocks is used again only when the whole cache is dropped, and that only
//! while no other processor is inside (`Shared::alone`).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kasane_interp::accelerator::CodeFollowers;
use kasane_passthrough::{CodeArena, CodeObserver, CodeOrigin, PlacedCode};
use spin::{Mutex, MutexGuard};

use crate::cache::{Cache, Key};
use crate::stubs::{self, Stubs};

/// What others see of a processor. On a line of its own, because its owner writes it all the time.
#[repr(align(64))]
#[derive(Default)]
struct Place {
    /// It may be in translated code.
    inside: AtomicBool,
    /// How much of the log it has read.
    read: AtomicU64,
}

/// The part of the translators that is one per machine.
pub struct Shared {
    pub(crate) arena: Arc<dyn CodeArena>,
    pub(crate) stubs: Stubs,
    cache: Mutex<Cache>,
    places: Vec<Place>,
    /// Host addresses of the pages that became code.
    log: Mutex<Vec<u64>>,
    logged: AtomicU64,
    /// Raised when blocks are dropped: what was remembered of code is void.
    generation: AtomicU64,
    /// Somebody wants to be alone: nobody enters.
    closed: AtomicBool,
}

impl Shared {
    /// For the processors of a machine. `None` if the arena can't take the stubs.
    #[must_use]
    pub fn new(arena: Box<dyn CodeArena>, processors: u32) -> Option<Arc<Self>> {
        Self::observed(arena, processors, None)
    }
    /// The same with somebody who is told of all code that is made.
    #[must_use]
    pub fn observed(
        arena: Box<dyn CodeArena>,
        processors: u32,
        observer: Option<Arc<dyn CodeObserver>>,
    ) -> Option<Arc<Self>> {
        let arena: Arc<dyn CodeArena> = Arc::from(arena);
        let (asm, stubs) = stubs::emit();
        let start = (asm.code.len() as u32).next_multiple_of(64);
        // SAFETY: nobody runs anything in a new arena.
        unsafe { arena.write(0, &asm.code) }.ok()?;
        if let Some(observer) = &observer {
            let address = arena.address();
            observer.placed(&PlacedCode { origin: CodeOrigin::Stubs, address, bytes: &asm.code });
        }
        Some(Arc::new(Self {
            cache: Mutex::new(Cache::new(Arc::clone(&arena), start, observer)),
            arena,
            stubs,
            places: (0..processors.max(1)).map(|_| Place::default()).collect(),
            log: Mutex::new(Vec::new()),
            logged: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }))
    }
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    /// Drops the blocks of a page; tells whose. Gives the generation before and after.
    pub(crate) fn drop_page(
        &self,
        page: u64,
        dropped: impl FnMut(Key, [Option<u32>; 2]),
    ) -> (u64, u64) {
        let mut cache = self.cache();
        cache.drop_page(page, dropped);
        let before = self.generation.fetch_add(1, Ordering::AcqRel);
        (before, before.wrapping_add(1))
    }
    /// Drops everything, while nobody else is inside.
    pub(crate) fn drop_all(&self) {
        self.cache().drop_all();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Processor `index` may be in translated code from now on, if the answer is yes.
    pub(crate) fn enter(&self, index: u32) -> bool {
        let Some(place) = self.places.get(index as usize) else { return false };
        // Before anything of the log or the cache is read: see `became_code` and `alone`.
        place.inside.swap(true, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.leave(index);
            return false;
        }
        true
    }
    /// It is outside.
    pub(crate) fn leave(&self, index: u32) {
        if let Some(place) = self.places.get(index as usize) {
            place.inside.store(false, Ordering::Release);
        }
    }
    /// Whether somebody waits to be alone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
    /// Tells the pages that became code since `read`, and that processor `index` acted on it.
    pub(crate) fn read_log(&self, index: u32, read: &mut u64, mut tell: impl FnMut(u64)) {
        if self.logged.load(Ordering::SeqCst) == *read {
            return;
        }
        let log = self.log.lock();
        log.iter().skip(*read as usize).for_each(|page| tell(*page));
        *read = log.len() as u64;
        if let Some(place) = self.places.get(index as usize) {
            place.read.store(*read, Ordering::Release);
        }
    }
    /// Runs `section` while no other processor is in translated code. False, and nothing happens,
    /// if another one does the same. Processor `index` is outside.
    pub(crate) fn alone(&self, index: u32, relax: &dyn Fn(), section: impl FnOnce()) -> bool {
        if self.closed.swap(true, Ordering::SeqCst) {
            return false;
        }
        for place in self.others(index) {
            while place.inside.load(Ordering::SeqCst) {
                relax();
            }
        }
        section();
        self.closed.store(false, Ordering::SeqCst);
        true
    }
    fn others(&self, index: u32) -> impl Iterator<Item = &Place> {
        self.places
            .iter()
            .enumerate()
            .filter(move |(n, _)| *n != index as usize)
            .map(|(_, one)| one)
    }
}

impl CodeFollowers for Shared {
    fn became_code(&self, index: u32, host: u64, relax: &dyn Fn()) {
        let wanted = {
            let mut log = self.log.lock();
            log.push(host);
            log.len() as u64
        };
        // Dekker's protocol with `enter`: each side writes its own word before it reads the other's.
        self.logged.swap(wanted, Ordering::SeqCst);
        for place in self.others(index) {
            while place.inside.load(Ordering::SeqCst) && place.read.load(Ordering::Acquire) < wanted
            {
                relax();
            }
        }
    }
}
