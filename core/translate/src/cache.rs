//! Translated blocks: where they are, what they were made from, and who jumps to them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kasane_passthrough::CodeArena;

use crate::emit::{FaultPoint, Site, Translated};
use crate::stubs::{self, Stubs};

/// What identifies a block: the same bytes give other code at another RIP or privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Guest-physical address of its first byte.
    pub(crate) gpa: u64,
    pub(crate) rip: u64,
    /// Privilege class and the vector units that are on.
    pub(crate) mode: u8,
}

/// A block in the arena. Offsets are the arena's.
pub(crate) struct Block {
    /// Entry with saved flags; the block's first byte.
    pub(crate) entry: u32,
    /// Entry with the host's flags.
    pub(crate) host_entry: u32,
    /// Displacements of jumps that are bound to this block.
    incoming: Vec<u32>,
    fault_points: Vec<FaultPoint>,
}

/// The blocks made from one guest page.
#[derive(Default)]
struct PageBlocks {
    version: u32,
    keys: Vec<Key>,
}

/// Counts that `--stats` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions translated.
    pub instructions: u64,
    /// Guest bytes translated.
    pub guest_bytes: u64,
    /// Host bytes made of them.
    pub host_bytes: u64,
    /// Blocks dropped because their bytes changed.
    pub invalidated: u64,
    /// Times that the whole cache was dropped because it was full.
    pub flushes: u64,
    /// Accesses that the inline TLB did not have.
    pub tlb_misses: u64,
    /// Instructions done by the interpreter out of the middle of translated code.
    pub fallbacks: u64,
    /// Times that translated code was entered.
    pub entries: u64,
}

/// The code cache of one vCPU.
pub(crate) struct Cache {
    arena: Box<dyn CodeArena>,
    pub(crate) stubs: Stubs,
    /// First free byte.
    next: u32,
    /// First byte behind the stubs.
    start: u32,
    blocks: BTreeMap<Key, Block>,
    by_entry: BTreeMap<u32, Key>,
    pages: BTreeMap<u64, PageBlocks>,
    sites: Vec<Site>,
    /// Raised when blocks are dropped: what was remembered of code is void.
    pub(crate) generation: u64,
    pub(crate) counters: Counters,
}

/// Room that a block may need.
const BLOCK_MAX: usize = 64 << 10;

impl Cache {
    /// `None` if the arena can't take the stubs.
    pub(crate) fn new(arena: Box<dyn CodeArena>) -> Option<Self> {
        let (asm, stubs) = stubs::emit();
        let start = (asm.code.len() as u32).next_multiple_of(64);
        // SAFETY: nobody runs anything in a new arena.
        unsafe { arena.write(0, &asm.code) }.ok()?;
        Some(Self {
            arena,
            stubs,
            next: start,
            start,
            blocks: BTreeMap::new(),
            by_entry: BTreeMap::new(),
            pages: BTreeMap::new(),
            sites: Vec::new(),
            generation: 0,
            counters: Counters::default(),
        })
    }
    pub(crate) fn arena(&self) -> &dyn CodeArena {
        &*self.arena
    }
    pub(crate) fn address(&self, offset: u32) -> u64 {
        self.arena.address().wrapping_add(u64::from(offset))
    }
    pub(crate) fn find(&self, key: Key) -> Option<&Block> {
        self.blocks.get(&key)
    }
    pub(crate) fn site(&self, number: u32) -> Option<Site> {
        self.sites.get(number as usize).copied()
    }
    pub(crate) fn next_site(&self) -> u32 {
        self.sites.len() as u32
    }

    /// Where the next block will stand; drops everything if there is no room for it.
    pub(crate) fn make_room(&mut self) -> u32 {
        if (self.next as usize).saturating_add(BLOCK_MAX) > self.arena.capacity() {
            self.counters.flushes = self.counters.flushes.wrapping_add(1);
            self.drop_all();
        }
        self.next
    }
    pub(crate) fn drop_all(&mut self) {
        self.blocks.clear();
        self.by_entry.clear();
        self.pages.clear();
        self.sites.clear();
        self.next = self.start;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Takes a block that was translated for `make_room`'s place. `version`: of its page.
    pub(crate) fn add(&mut self, key: Key, version: u32, translated: Translated) -> Option<&Block> {
        let entry = self.next;
        if translated.code.len() > BLOCK_MAX {
            return None;
        }
        // SAFETY: the bytes from `next` on belong to no block, so nobody runs them.
        unsafe { self.arena.write(entry as usize, &translated.code) }.ok()?;
        self.next = entry.wrapping_add((translated.code.len() as u32).next_multiple_of(16));
        self.counters.blocks = self.counters.blocks.wrapping_add(1);
        self.counters.instructions =
            self.counters.instructions.wrapping_add(translated.instructions as u64);
        self.counters.host_bytes =
            self.counters.host_bytes.wrapping_add(translated.code.len() as u64);
        self.sites.extend_from_slice(&translated.sites);
        let page = self.pages.entry(key.gpa & !0xFFF).or_default();
        page.version = version;
        page.keys.push(key);
        self.by_entry.insert(entry, key);
        self.blocks.insert(
            key,
            Block {
                entry,
                host_entry: entry.wrapping_add(translated.host_entry),
                incoming: Vec::new(),
                fault_points: translated.fault_points,
            },
        );
        self.blocks.get(&key)
    }

    /// Lets the jump at `patch` go to a block's entry for the host's flags.
    pub(crate) fn link(&mut self, patch: u32, to: Key) {
        let Some(block) = self.blocks.get_mut(&to) else { return };
        block.incoming.push(patch);
        let target = block.host_entry;
        self.patch(patch, target.wrapping_sub(patch).wrapping_sub(4));
    }
    fn patch(&self, at: u32, displacement: u32) {
        // SAFETY: the four bytes are the displacement of a jump; this vCPU's code runs only on
        // this thread, which is not in it now.
        let written = unsafe { self.arena.write(at as usize, &displacement.to_le_bytes()) };
        debug_assert!(written.is_ok());
    }

    /// The version that a page's blocks were made from.
    pub(crate) fn page_version(&self, page: u64) -> Option<u32> {
        self.pages.get(&page).map(|blocks| blocks.version)
    }
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.pages.iter().map(|(page, blocks)| (*page, blocks.version))
    }
    /// Drops the blocks made from a page; tells their RIPs.
    pub(crate) fn drop_page(&mut self, page: u64, mut dropped: impl FnMut(Key)) {
        let Some(blocks) = self.pages.remove(&page) else { return };
        self.generation = self.generation.wrapping_add(1);
        for key in blocks.keys {
            let Some(block) = self.blocks.remove(&key) else { continue };
            self.by_entry.remove(&block.entry);
            for patch in block.incoming {
                self.patch(patch, 0); // its own way out follows
            }
            self.counters.invalidated = self.counters.invalidated.wrapping_add(1);
            dropped(key);
        }
    }

    /// The guest instruction behind a host exception at an offset of the arena.
    pub(crate) fn fault_point(&self, offset: u32) -> Option<FaultPoint> {
        let (_, key) = self.by_entry.range(..=offset).next_back()?;
        let points = &self.blocks.get(key)?.fault_points;
        points.iter().find(|point| point.code == offset).copied()
    }
}
