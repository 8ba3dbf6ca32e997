//! Translated blocks: where they are, what they were made from, and who jumps to them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use hashbrown::HashMap;
use kasane_interp::op::Op;
use kasane_memory::TlbClass;
use kasane_passthrough::{CodeArena, CodeObserver, CodeOrigin, PlacedCode};

use crate::blocks::Blocks;
use crate::emit::{FaultPoint, Translated};
use crate::mode::Mode;
use crate::places::Places;
use crate::sites::{HEAD, OP, OpAt};
use crate::slots::{Numbers, Target};

/// What identifies a block: the same bytes give other code at another RIP or in another mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Guest-physical address of its first byte.
    pub(crate) gpa: u64,
    pub(crate) rip: u64,
    pub(crate) mode: Mode,
}

/// A block in the arena. Offsets are the arena's.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Entry with saved flags; the block's first byte.
    pub(crate) entry: u32,
    /// Nothing was translated: the interpreter does the first instruction, which is this.
    pub(crate) op: Option<OpAt>,
    /// Entry with the host's flags.
    pub(crate) host_entry: u32,
    /// It is a signpost ([`crate::crossing`]).
    pub(crate) is_signpost: bool,
    /// The last of the jumps that are bound to this block, in [`Cache::links`].
    incoming: Option<NonZeroU32>,
}

impl Block {
    #[cfg(test)]
    pub(crate) fn at(entry: u32) -> Self {
        Self { entry, op: None, host_entry: entry, is_signpost: false, incoming: None }
    }
    /// The entry for the saved flags, or the host's.
    pub(crate) fn entry_for(&self, saved: bool) -> u32 {
        if saved { self.entry } else { self.host_entry }
    }
}

/// A [`FaultPoint`] in half the room; there are very many.
#[derive(Clone, Copy)]
struct SmallPoint {
    /// In the highest bit whether the flags are the host's: an arena is smaller than 2 GiB.
    code: u32,
    rip: [u32; 2],
}

const HOST_FLAGS: u32 = 1 << 31;

impl SmallPoint {
    fn of(point: &FaultPoint) -> Self {
        let flag = if point.host_flags { HOST_FLAGS } else { 0 };
        Self {
            code: point.code & !HOST_FLAGS | flag,
            rip: [point.rip as u32, (point.rip >> 32) as u32],
        }
    }
    fn code(&self) -> u32 {
        self.code & !HOST_FLAGS
    }
    fn point(self) -> FaultPoint {
        let [low, high] = self.rip;
        FaultPoint {
            code: self.code(),
            rip: u64::from(high) << 32 | u64::from(low),
            host_flags: self.code & HOST_FLAGS != 0,
        }
    }
}

/// A jump that is bound to a block.
struct Link {
    /// Place of its displacement.
    patch: u32,
    /// Where it leads while it is not bound.
    way_out: u32,
    /// The number, from 1, of the one that was bound to the same block before.
    before: Option<NonZeroU32>,
}

/// The blocks made from one guest page.
#[derive(Default)]
struct PageBlocks {
    version: u32,
    /// Their numbers.
    blocks: Vec<u32>,
    /// Those of instructions that only end in the page.
    ending: Vec<Key>,
}

/// What was made, all told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// Blocks translated.
    pub(crate) blocks: u64,
    /// Guest instructions translated.
    pub(crate) instructions: u64,
    /// Guest bytes translated.
    pub(crate) guest_bytes: u64,
    /// Host bytes made of them, sites and all.
    pub(crate) host_bytes: u64,
    /// Those of them that are sites.
    pub(crate) site_bytes: u64,
    /// Blocks dropped because their bytes changed.
    pub(crate) invalidated: u64,
    /// Times that the whole cache was dropped because it was full.
    pub(crate) flushes: u64,
}

/// The code cache of a machine.
pub(crate) struct Cache {
    arena: Arc<dyn CodeArena>,
    /// First free byte, a multiple of 8.
    next: u32,
    /// First byte behind the stubs.
    start: u32,
    /// A block with its head.
    buffer: Vec<u8>,
    blocks: Blocks,
    /// In the order of their places, also those of dropped blocks, where somebody may still be.
    fault_points: Vec<SmallPoint>,
    pages: HashMap<u64, PageBlocks>,
    /// Blocks of instructions across pages, by the guest-physical address of the second.
    crossing: HashMap<(Key, u64), Block>,
    /// What the interpreter does for each block.
    ops: Vec<Box<[Op]>>,
    /// Bound jumps, those of dropped blocks too.
    links: Vec<Link>,
    pub(crate) slots: Numbers,
    pub(crate) made: Made,
    pub(crate) places: Places,
    observer: Option<Arc<dyn CodeObserver>>,
}

/// Blocks made from a page, as a rule.
const USUAL_BLOCKS: usize = 12;
/// Where a block was written.
struct Placed {
    entry: u32,
    host_entry: u32,
    op: Option<OpAt>,
}

impl Placed {
    #[inline]
    fn block(self) -> Block {
        let Self { entry, host_entry, op } = self;
        Block { entry, host_entry, op, is_signpost: false, incoming: None }
    }
}

/// Says that a block was placed.
#[cold]
fn tell(observer: &dyn CodeObserver, key: Key, address: u64, bytes: &[u8]) {
    let is_user = key.mode.class() == TlbClass::User as usize;
    let origin = if is_user { CodeOrigin::User(key.rip) } else { CodeOrigin::Kernel(key.rip) };
    observer.placed(&PlacedCode { origin, address, bytes });
}

/// Room that a block may need.
const BLOCK_MAX: usize = 64 << 10;

impl Cache {
    /// An empty one that fills the arena from `start` on.
    pub(crate) fn new(
        arena: Arc<dyn CodeArena>,
        start: u32,
        observer: Option<Arc<dyn CodeObserver>>,
    ) -> Self {
        Self {
            arena,
            next: start,
            start,
            buffer: Vec::new(),
            blocks: Blocks::default(),
            fault_points: Vec::new(),
            pages: HashMap::new(),
            crossing: HashMap::new(),
            ops: Vec::new(),
            links: Vec::new(),
            slots: Numbers::default(),
            made: Made::default(),
            places: Places::default(),
            observer,
        }
    }
    pub(crate) fn find(&self, key: Key) -> Option<&Block> {
        self.blocks.get(key)
    }
    /// Whether there is no room for another block.
    pub(crate) fn is_full(&self) -> bool {
        (self.next as usize).saturating_add(BLOCK_MAX) > self.arena.capacity()
    }
    /// Where the next block's entry will be.
    pub(crate) fn next(&self) -> u32 {
        self.next.wrapping_add(HEAD as u32)
    }
    /// A block will be added soon; false if there is no room.
    pub(crate) fn prepare(&self) -> bool {
        self.arena.prepare(self.next as usize);
        !self.is_full()
    }
    /// Only while nobody runs in the arena.
    pub(crate) fn drop_all(&mut self) {
        self.blocks.clear();
        self.fault_points.clear();
        self.pages.clear();
        self.crossing.clear();
        self.ops.clear();
        self.links.clear();
        self.slots.clear();
        self.made.flushes = self.made.flushes.wrapping_add(1);
        self.next = self.start;
    }

    /// Takes a block that was translated for [`Cache::next`]. `version`: of its page. `ops`: of
    /// the instructions that were left. `None`, and nothing happens, if it is too long.
    pub(crate) fn add(
        &mut self,
        key: Key,
        version: u32,
        translated: &mut Translated,
        ops: Box<[Op]>,
    ) -> Option<()> {
        let block = self.place(key, translated, ops)?;
        let number = self.blocks.insert(key, block.block());
        self.note_page(key.gpa & !0xFFF, version).blocks.push(number);
        Some(())
    }
    /// The same for the signpost of an instruction across pages.
    pub(crate) fn add_signpost(
        &mut self,
        key: Key,
        version: u32,
        translated: &mut Translated,
    ) -> Option<()> {
        self.add(key, version, translated, Box::default())?;
        self.blocks.get_mut(key)?.is_signpost = true;
        Some(())
    }
    /// The same for such an instruction, with both pages and their versions.
    pub(crate) fn add_crossing(
        &mut self,
        key: Key,
        pages: [(u64, u32); 2],
        translated: &mut Translated,
        ops: Box<[Op]>,
    ) -> Option<()> {
        let [_, (second, version)] = pages;
        let block = self.place(key, translated, ops)?;
        self.crossing.insert((key, second), block.block());
        self.note_page(second, version).ending.push(key);
        Some(())
    }
    pub(crate) fn find_crossing(&self, key: Key, second: u64) -> Option<&Block> {
        self.crossing.get(&(key, second))
    }
    fn note_page(&mut self, page: u64, version: u32) -> &mut PageBlocks {
        let blocks = self.pages.entry(page).or_default();
        if blocks.blocks.capacity() == 0 {
            blocks.blocks.reserve(USUAL_BLOCKS);
        }
        blocks.version = version;
        blocks
    }
    /// Writes a block into the arena.
    fn place(&mut self, key: Key, translated: &mut Translated, ops: Box<[Op]>) -> Option<Placed> {
        let entry = self.next();
        let op_at = |number: u32| ops.get(number as usize).map(OpAt::new);
        for (place, number) in &translated.ops {
            let room = translated.code.get_mut(*place..place.wrapping_add(OP))?;
            room.copy_from_slice(&op_at(*number)?.to_bytes());
        }
        let code = &translated.code;
        if code.len() > BLOCK_MAX {
            return None;
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&key.rip.to_le_bytes());
        self.buffer.extend_from_slice(code);
        // SAFETY: the bytes from `next` on belong to no block, so nobody runs them.
        unsafe { self.arena.write(self.next as usize, &self.buffer) }.ok()?;
        if let Some(observer) = &self.observer {
            tell(&**observer, key, self.arena.address().wrapping_add(entry.into()), code);
        }
        self.next = entry.wrapping_add((code.len() as u32).next_multiple_of(8));
        self.count(translated);
        self.fault_points.extend(translated.fault_points.iter().map(SmallPoint::of));
        let host_entry = entry.wrapping_add(translated.host_entry);
        let op = if translated.instructions == 0 { op_at(0) } else { None };
        if !ops.is_empty() {
            self.ops.push(ops);
        }
        Some(Placed { entry, host_entry, op })
    }
    fn count(&mut self, translated: &Translated) {
        let made = &mut self.made;
        made.blocks = made.blocks.wrapping_add(1);
        made.instructions = made.instructions.wrapping_add(translated.instructions as u64);
        made.guest_bytes = made.guest_bytes.wrapping_add(translated.guest_bytes);
        made.host_bytes = made.host_bytes.wrapping_add(translated.code.len() as u64);
        made.site_bytes = made.site_bytes.wrapping_add(translated.site_bytes as u64);
    }

    /// Lets the jump at `patch` go to a block's entry for the host's flags, and no more to its way
    /// out.
    pub(crate) fn link(&mut self, patch: u32, way_out: u32, to: Key) {
        let Some(block) = self.blocks.get_mut(to) else { return };
        self.links.push(Link { patch, way_out, before: block.incoming });
        block.incoming = NonZeroU32::new(self.links.len() as u32);
        let target = block.host_entry;
        self.bind(patch, target);
    }
    fn bind(&self, at: u32, target: u32) {
        let displacement = target.wrapping_sub(at).wrapping_sub(4);
        // SAFETY: the four bytes are the displacement of a jump, within one word of 8 bytes, and who
        // runs there meanwhile goes to the old target or the new one, which are both right.
        let written = unsafe { self.arena.patch(at as usize, displacement.to_le_bytes()) };
        debug_assert!(written.is_ok());
    }

    /// The version that a page's blocks were made from.
    pub(crate) fn page_version(&self, page: u64) -> Option<u32> {
        self.pages.get(&page).map(|blocks| blocks.version)
    }
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.pages.iter().map(|(page, blocks)| (*page, blocks.version))
    }
    /// Drops the blocks made from a page; tells whose, and the slots that lead to them.
    pub(crate) fn drop_page(&mut self, page: u64, mut dropped: impl FnMut(Key, [Option<u32>; 2])) {
        let Some(blocks) = self.pages.remove(&page) else { return };
        for key in blocks.ending {
            self.crossing.remove(&(key, page));
            self.made.invalidated = self.made.invalidated.wrapping_add(1);
            dropped(key, self.slots_of(key));
        }
        for number in blocks.blocks {
            let Some(key) = self.blocks.key(number) else { continue };
            let Some(block) = self.blocks.remove(key) else { continue };
            let mut incoming = block.incoming;
            while let Some(link) = incoming.and_then(|n| self.links.get(n.get() as usize - 1)) {
                self.bind(link.patch, link.way_out);
                incoming = link.before;
            }
            if block.is_signpost {
                self.crossing.retain(|(other, _), _| *other != key);
            }
            self.made.invalidated = self.made.invalidated.wrapping_add(1);
            dropped(key, self.slots_of(key));
        }
        // The bytes that they were made from have changed: no jump may lead to them any more.
        self.arena.serialize();
    }
    fn slots_of(&self, key: Key) -> [Option<u32>; 2] {
        let Key { rip, mode, .. } = key;
        [false, true].map(|saved| self.slots.known(Target { rip, mode, saved }))
    }

    /// The guest instruction behind a host exception at an offset of the arena.
    pub(crate) fn fault_point(&self, offset: u32) -> Option<FaultPoint> {
        let place = self.fault_points.binary_search_by_key(&offset, SmallPoint::code).ok()?;
        self.fault_points.get(place).map(|small| small.point())
    }
}
