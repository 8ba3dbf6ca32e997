//! Where translated code is left, and why.
//!
//! A block's sites stand behind its code in the arena, and code names its site by that place. So
//! who comes out finds what to do without a lock and without a table, and sites live exactly as
//! long as the code that names them.

use kasane_interp::Op;
use kasane_passthrough::CodeArena;

/// `O`: an instruction that the interpreter does; its number among the block's as long as the
/// block is being made, where it stands then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site<O> {
    /// An access that the inline TLB refused. RIP is the instruction's; the check is made again
    /// at `retry` (an offset in the arena) with the address in R9.
    Access { rip: u64, retry: u32, write: bool },
    /// An access that a segment refused.
    Refused { rip: u64 },
    /// A jump within the page whose displacement at `patch` (an offset in the arena) can be bound
    /// to the target's entry for the host's flags.
    Link { rip: u64, patch: u32 },
    /// The interpreter does the instruction at RIP.
    Interpret { rip: u64, op: O },
    /// An indirect branch to an address, in R9, that the jump table doesn't have. It is looked up
    /// again at `retry`, or the interpreter does the instruction.
    Indirect { rip: u64, retry: u32 },
    /// The guest goes on at RIP.
    Go { rip: u64 },
    /// The guest goes on at the address in R9.
    Arrived,
}

/// An instruction of a block in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpAt(*const Op);

// SAFETY: what it points to is never changed, and is Send and Sync itself.
unsafe impl Send for OpAt {}
// SAFETY: as above.
unsafe impl Sync for OpAt {}

impl OpAt {
    pub(crate) fn new(op: &Op) -> Self {
        Self(op)
    }
    /// # Safety
    /// No cache was dropped since the reference was found.
    pub(crate) unsafe fn op(&self) -> &Op {
        // SAFETY: it was made of a reference to an instruction that the cache keeps until it is
        // dropped as a whole.
        unsafe { &*self.0 }
    }
}

/// Bytes of a site in the arena at most.
const LONGEST: usize = 24;

impl<O> Site<O> {
    /// Bytes in the arena. There are very many sites, so those without an instruction take less.
    pub(crate) fn len(&self) -> usize {
        if matches!(self, Self::Interpret { .. }) { LONGEST } else { 16 }
    }
    /// With the instruction, if there is one, replaced.
    pub(crate) fn with_op<P>(self, replace: impl FnOnce(O) -> Option<P>) -> Option<Site<P>> {
        Some(match self {
            Self::Access { rip, retry, write } => Site::Access { rip, retry, write },
            Self::Refused { rip } => Site::Refused { rip },
            Self::Link { rip, patch } => Site::Link { rip, patch },
            Self::Interpret { rip, op } => Site::Interpret { rip, op: replace(op)? },
            Self::Indirect { rip, retry } => Site::Indirect { rip, retry },
            Self::Go { rip } => Site::Go { rip },
            Self::Arrived => Site::Arrived,
        })
    }
}

impl Site<OpAt> {
    /// As many of them as `len` says count.
    pub(crate) fn to_bytes(self) -> [u8; LONGEST] {
        let none = core::ptr::null();
        let (kind, place, rip, op) = match self {
            Self::Access { rip, retry, write: false } => (0, retry, rip, none),
            Self::Access { rip, retry, write: true } => (1, retry, rip, none),
            Self::Refused { rip } => (2, 0, rip, none),
            Self::Link { rip, patch } => (3, patch, rip, none),
            Self::Interpret { rip, op } => (4, 0, rip, op.0),
            Self::Indirect { rip, retry } => (5, retry, rip, none),
            Self::Go { rip } => (6, 0, rip, none),
            Self::Arrived => (7, 0, 0, none),
        };
        let mut bytes = [0; LONGEST];
        let words = [rip, u64::from(place) << 32 | kind, op as u64];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
    /// The site at `offset` in an arena.
    ///
    /// # Safety
    /// Translated code named it, and was not dropped since.
    pub(crate) unsafe fn at(arena: &dyn CodeArena, offset: u32) -> Self {
        let site = arena.address().wrapping_add(u64::from(offset)) as *const u64;
        // SAFETY: code names only sites that `to_bytes` made and that stand, aligned, in the arena;
        // each has two words.
        let [rip, rest] = unsafe { site.cast::<[u64; 2]>().read() };
        let (kind, place) = (rest as u32, (rest >> 32) as u32);
        match kind {
            0 => Self::Access { rip, retry: place, write: false },
            1 => Self::Access { rip, retry: place, write: true },
            2 => Self::Refused { rip },
            3 => Self::Link { rip, patch: place },
            4 => {
                // SAFETY: as above; a site of this kind has a third word.
                let op = unsafe { site.add(2).read() };
                Self::Interpret { rip, op: OpAt(op as *const Op) }
            }
            5 => Self::Indirect { rip, retry: place },
            6 => Self::Go { rip },
            _ => Self::Arrived,
        }
    }
}
