//! Where translated code is left, and why.
//!
//! Code is left by a CALL of a stub, and what stands behind the CALL says why: the site. So who
//! comes out finds what to do without a lock and without a table, a way out takes 5 bytes of code,
//! and sites live exactly as long as the code that names them. There are very many, so they are
//! packed, and count from their block's head:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind; [`FAR`] set if RIP takes 8 bytes |
//! | 2 | from the block's entry to here |
//! | 2 or 8 | RIP less that of the block, sign-extended, or RIP |
//! | 0, 2 or 8 | nothing; a place less the block's entry; the address of an instruction |

use kasane_interp::Op;
use kasane_passthrough::CodeArena;

/// Bytes of the CALL in front of a site.
pub(crate) const CALL: u64 = 5;
/// Bytes in front of a block's entry: its RIP.
pub(crate) const HEAD: usize = 8;

/// `O`: an instruction that the interpreter does; its number among the block's as long as the
/// block is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site<O> {
    /// An access that the inline TLB refused. RIP is the instruction's; the check is made again
    /// at `retry` (an offset in the arena) with the address in R9.
    Access { rip: u64, retry: u32, way: Way },
    /// An access that a segment refused.
    Refused { rip: u64 },
    /// A jump within the page whose displacement at `patch` (an offset in the arena) can be bound
    /// to the target's entry for the host's flags. Until then it leads to the way out by this site.
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

/// What an access is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Read,
    Write,
    /// It reads, and a write to the same operand comes soon: by the tags for writes, but nothing
    /// is made dirty for it.
    ReadToWrite,
}

impl Way {
    /// Whether an access writes, and whether it is checked by the tags for writes.
    pub(crate) fn of(writes: bool, by_write_tags: bool) -> Self {
        match (writes, by_write_tags) {
            (true, _) => Self::Write,
            (false, true) => Self::ReadToWrite,
            (false, false) => Self::Read,
        }
    }
    /// By the tags for writes.
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
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
    /// As it stands in a site.
    pub(crate) fn to_bytes(self) -> [u8; OP] {
        (self.0 as u64).to_le_bytes()
    }
    /// # Safety
    /// No cache was dropped since the reference was found.
    pub(crate) unsafe fn op(&self) -> &Op {
        // SAFETY: it was made of a reference to an instruction that the cache keeps until it is
        // dropped as a whole.
        unsafe { &*self.0 }
    }
}

/// Bytes of the site of an access, whose RIP is always near.
pub(crate) const ACCESS_SITE: usize = 1 + 2 + 2 + 2;
/// Bytes of a site at most.
pub(crate) const LONGEST: usize = 1 + 2 + 8 + OP;
/// Bytes of the address of an instruction, which are a site's last.
pub(crate) const OP: usize = 8;
/// RIP is far from the block's.
const FAR: u8 = 0x80;

const READ: u8 = 0;
const WRITE: u8 = 1;
const REFUSED: u8 = 2;
const LINK: u8 = 3;
const INTERPRET: u8 = 4;
const INDIRECT: u8 = 5;
const GO: u8 = 6;
const ARRIVED: u8 = 7;
const READ_TO_WRITE: u8 = 8;

/// What the places in a site count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The block's entry, an offset in the arena.
    pub(crate) entry: u32,
    /// That of the block's first instruction.
    pub(crate) rip: u64,
}

/// A packed site: `len` bytes, the first 8 of them in `low`, and behind them room for the address
/// of an instruction, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) len: usize,
    pub(crate) has_op: bool,
}

/// A site in the making, in registers: see [`crate::asm`].
#[derive(Default)]
struct Packing {
    bits: u128,
    len: u32,
}

impl Packing {
    #[inline]
    fn push(&mut self, value: u64, bytes: u32) {
        self.bits |= u128::from(value).wrapping_shl(self.len.wrapping_mul(8));
        self.len = self.len.wrapping_add(bytes);
    }
}

impl<O> Site<O> {
    /// Kind, RIP, and a place.
    fn parts(&self) -> (u8, u64, Option<u32>) {
        match *self {
            Self::Access { rip, retry, way } => {
                let kind = match way {
                    Way::Read => READ,
                    Way::Write => WRITE,
                    Way::ReadToWrite => READ_TO_WRITE,
                };
                (kind, rip, Some(retry))
            }
            Self::Refused { rip } => (REFUSED, rip, None),
            Self::Link { rip, patch } => (LINK, rip, Some(patch)),
            Self::Interpret { rip, .. } => (INTERPRET, rip, None),
            Self::Indirect { rip, retry } => (INDIRECT, rip, Some(retry)),
            Self::Go { rip } => (GO, rip, None),
            Self::Arrived => (ARRIVED, 0, None),
        }
    }
    /// As it will stand at the arena's offset `at`, in a block of less than 64 KiB. The address of
    /// the instruction is left out: zero.
    pub(crate) fn pack(&self, origin: Origin, at: u32) -> Packed {
        let (kind, rip, place) = self.parts();
        let mut packing = Packing::default();
        let within = |offset: u32| u64::from(offset.wrapping_sub(origin.entry) as u16);
        let near = i16::try_from(rip.wrapping_sub(origin.rip) as i64).ok();
        packing.push(u64::from(if near.is_some() { kind } else { kind | FAR }), 1);
        packing.push(within(at), 2);
        match near {
            Some(near) => packing.push(u64::from(near as u16), 2),
            None => packing.push(rip, 8),
        }
        // Behind the last byte there is nothing, so what is too much does no harm.
        packing.push(within(place.unwrap_or(origin.entry)), 2 * u32::from(place.is_some()));
        let Packing { bits, len } = packing;
        let (low, high, len) = (bits as u64, (bits >> 64) as u64, len as usize);
        Packed { low, high, len, has_op: kind == INTERPRET }
    }
}

/// Reads packed bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn word(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
}

/// How many bytes in front of the place of a site its block's entry stands. `bytes` begin with the site.
fn from_entry(bytes: &[u8]) -> Option<u32> {
    let [_, low, high, ..] = *bytes else { return None };
    Some(u16::from_le_bytes([low, high]).into())
}

/// Takes the site that `bytes` begin with, and tells its length. `op`: what the address of an
/// instruction stands for.
pub(crate) fn unpack<O>(
    bytes: &[u8],
    origin: Origin,
    op: impl FnOnce(u64) -> O,
) -> Option<(Site<O>, usize)> {
    let mut reader = Reader(bytes);
    let [kind] = reader.take()?;
    reader.word()?;
    let rip = if kind & FAR != 0 {
        u64::from_le_bytes(reader.take()?)
    } else {
        let near = i16::from_le_bytes(reader.take()?);
        origin.rip.wrapping_add_signed(near.into())
    };
    let mut place = || Some(origin.entry.wrapping_add(reader.word()?.into()));
    let site = match kind & !FAR {
        READ => Site::Access { rip, retry: place()?, way: Way::Read },
        WRITE => Site::Access { rip, retry: place()?, way: Way::Write },
        READ_TO_WRITE => Site::Access { rip, retry: place()?, way: Way::ReadToWrite },
        REFUSED => Site::Refused { rip },
        LINK => Site::Link { rip, patch: place()? },
        INTERPRET => Site::Interpret { rip, op: op(u64::from_le_bytes(reader.take()?)) },
        INDIRECT => Site::Indirect { rip, retry: place()? },
        GO => Site::Go { rip },
        ARRIVED => Site::Arrived,
        _ => return None,
    };
    Some((site, bytes.len().saturating_sub(reader.0.len())))
}

impl Site<OpAt> {
    /// The site at `offset` in an arena.
    ///
    /// # Safety
    /// Translated code named it, and was not dropped since.
    pub(crate) unsafe fn at(arena: &dyn CodeArena, offset: u32) -> Option<Self> {
        let len = arena.capacity().saturating_sub(offset as usize).min(LONGEST);
        let mut bytes = [0; LONGEST];
        let base = arena.address() as *const u8;
        // SAFETY: `len` bytes from there on are the arena's, and readable.
        unsafe { base.add(offset as usize).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        let entry = offset.checked_sub(from_entry(&bytes)?)?;
        let head = (entry as usize).checked_sub(HEAD)?;
        let mut rip = [0; HEAD];
        // SAFETY: the block's head is in front of its entry, in the arena.
        unsafe { base.add(head).copy_to_nonoverlapping(rip.as_mut_ptr(), HEAD) };
        let origin = Origin { entry, rip: u64::from_le_bytes(rip) };
        unpack(&bytes, origin, |op| OpAt(op as *const Op)).map(|(site, _)| site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { entry: 0x1000, rip: 0xFFFF_FFFF_8100_0000 };

    fn bytes(packed: Packed) -> alloc::vec::Vec<u8> {
        let mut asm = crate::asm::Asm::default();
        asm.site(&packed);
        asm.code
    }

    #[test]
    fn what_is_packed_is_unpacked_again() {
        let rips = [0, -1, 1, 0x7FFF, -0x8000, 0x8000, i64::MIN, i64::MAX];
        for rip in rips.map(|far| ORIGIN.rip.wrapping_add_signed(far)) {
            let sites = [
                Site::Access { rip, retry: 0x1234, way: Way::Read },
                Site::Access { rip, retry: 0x1000, way: Way::Write },
                Site::Access { rip, retry: 0x1002, way: Way::ReadToWrite },
                Site::Refused { rip },
                Site::Link { rip, patch: 0x10FFF },
                Site::Interpret { rip, op: 0 },
                Site::Indirect { rip, retry: 0x1001 },
                Site::Go { rip },
            ];
            for site in sites {
                let packed = bytes(site.pack(ORIGIN, 0x1FFF));
                let longer = [&packed[..], &[0xCC]].concat();
                assert_eq!(from_entry(&longer), Some(0xFFF));
                assert_eq!(unpack(&longer, ORIGIN, |op| op), Some((site, packed.len())));
            }
        }
    }

    #[test]
    fn half_a_site_is_none() {
        let packed = bytes(Site::<u64>::Link { rip: 0, patch: 0x1000 }.pack(ORIGIN, 0x1000));
        let (last, head) = packed.split_last().unwrap();
        assert_eq!((unpack(head, ORIGIN, |op| op), *last), (None, 0));
        assert_eq!(unpack(&[0x7F; 24], ORIGIN, |op| op), None);
    }
}
