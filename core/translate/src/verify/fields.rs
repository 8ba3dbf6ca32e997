//! What code may touch of the state block: the fields with what may be done to them, the tables,
//! and who may use which.
//!
//! A field that is not listed is the engine's: where the host's stack is, where the vector
//! registers are, what the tables hold.

use core::mem::offset_of;

use kasane_cpu::Seg;
use kasane_memory::TlbClass;

use super::state::Tags;
use crate::layout::{CLASSES, Hot, JUMP_ENTRIES, SLOTS, TLB_ENTRIES, TLB_MASK, TlbEntry, at};

/// What code may do to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    ReadWrite,
    /// 32 bits that the engine believes: written as a constant only, which is looked at.
    Constant,
}

struct Field {
    start: usize,
    len: usize,
    may: Use,
}

const fn len_of<T>(_: fn(&Hot) -> &T) -> usize {
    size_of::<T>()
}

/// A whole field of `Hot`.
macro_rules! field {
    ($name:ident, $may:ident) => {
        Field { start: offset_of!(Hot, $name), len: len_of(|hot| &hot.$name), may: Use::$may }
    };
}

/// All fields, or parts of them, that code may touch.
const FIELDS: &[Field] = &[
    field!(homed, ReadWrite),
    field!(flags, ReadWrite),
    field!(counts, ReadWrite),
    field!(tlb_mask, Read),
    field!(last, Read),
    field!(lower_bases, Read),
    // SWAPGS, WRFSBASE, WRGSBASE.
    Field { start: at::segment_base(Seg::Fs), len: 8, may: Use::ReadWrite },
    Field { start: at::segment_base(Seg::Gs), len: 8, may: Use::ReadWrite },
    field!(segment_limit, Read),
    field!(kernel_gs, ReadWrite),
    field!(rflags, ReadWrite),
    field!(tsc_multiplier, Read),
    field!(tsc_offset, Read),
    field!(tsc_aux, Read),
    field!(control, Read),
    field!(selectors, Read),
    // CS and SS, by SYSCALL and SYSRET.
    Field { start: at::selector(Seg::Cs as u8), len: 4, may: Use::ReadWrite },
    field!(waiting, Read),
    field!(vectors, Read),
    field!(crossed, Constant),
    field!(ring, Constant),
    field!(syscall_ok, Read),
    field!(ac_ok, Read),
    field!(syscall_target, Read),
    field!(syscall_kept, Read),
    field!(syscall_selectors, Read),
    field!(scratch, ReadWrite),
];

/// Whether `size` bytes from an offset on may be used so.
pub(super) fn allows(offset: usize, size: usize, wanted: Use) -> bool {
    let end = offset.saturating_add(size);
    FIELDS.iter().any(|field| {
        let inside = field.start <= offset && end <= field.start.saturating_add(field.len);
        inside && (field.may == wanted || field.may == Use::ReadWrite && wanted == Use::Read)
    })
}

/// What always stands in a field of this size, if it is one of the constants.
pub(super) fn constant(offset: usize, size: usize) -> Option<u64> {
    match (offset, size) {
        (at::TLB_MASK, 4) => Some(TLB_MASK.into()),
        (_, 8) => {
            let of = |size: &u32| at::last(*size) == Some(offset);
            let size = [1, 2, 4, 8, 16, 32].into_iter().find(of)?;
            Some(4096u64.wrapping_sub(size.into()))
        }
        _ => None,
    }
}

/// Whether the engine believes what code writes there.
pub(super) fn is_believed(offset: usize) -> bool {
    allows(offset, 4, Use::Constant)
}

/// A table in the state block, of words of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Tags(Tags),
    Hosts,
    Addends,
    /// Of a jump table, by class: the addresses, and their code.
    Rips(usize),
    Codes(usize),
    Slots,
}

/// Where a table is: its first word, bytes from one word to the next, how many.
struct Span {
    start: usize,
    stride: usize,
    entries: usize,
}

impl Table {
    fn span(self, class: usize) -> Span {
        let (start, stride, entries) = match self {
            Self::Tags(Tags::Read) => (at::read_tags(class), size_of::<TlbEntry>(), TLB_ENTRIES),
            Self::Tags(Tags::Write) => (at::write_tags(class), size_of::<TlbEntry>(), TLB_ENTRIES),
            Self::Hosts => (at::hosts(class), size_of::<TlbEntry>(), TLB_ENTRIES),
            Self::Addends => (at::addends(class), size_of::<TlbEntry>(), TLB_ENTRIES),
            Self::Rips(of) => (at::jump_rips(of), 16, JUMP_ENTRIES),
            Self::Codes(of) => (at::jump_codes(of), 16, JUMP_ENTRIES),
            Self::Slots => (at::slot(0), 8, SLOTS),
        };
        Span { start, stride, entries }
    }
}

/// The table that a block of a class finds at an offset, and the number of the entry. Inline TLBs
/// of other classes are none of a block's.
pub(super) fn table(offset: usize, class: usize) -> Option<(Table, usize)> {
    let fixed = [
        Table::Tags(Tags::Read),
        Table::Tags(Tags::Write),
        Table::Hosts,
        Table::Addends,
        Table::Slots,
    ];
    let jumps = (0..CLASSES).flat_map(|class| [Table::Rips(class), Table::Codes(class)]);
    fixed.into_iter().chain(jumps).find_map(|table| {
        let Span { start, stride, entries } = table.span(class);
        let within = offset.checked_sub(start)?;
        let number = within / stride;
        (within % stride == 0 && number < entries).then_some((table, number))
    })
}

/// What has to be known where code goes on in another class.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// The engine will be told of this ring.
    Ring(u32),
    /// AC in `Hot::rflags`.
    Ac(bool),
}

/// A way from a class to another one.
pub(super) struct Crossing {
    from: TlbClass,
    to: TlbClass,
    /// The field that was compared with zero.
    pub(super) permitted_by: usize,
    pub(super) told: Told,
}

const CROSSINGS: &[Crossing] = {
    use TlbClass::{Supervisor, SupervisorAc, User};
    const fn ring(from: TlbClass, to: TlbClass, ring: u32) -> Crossing {
        Crossing { from, to, permitted_by: at::SYSCALL_OK, told: Told::Ring(ring) }
    }
    const fn ac(from: TlbClass, to: TlbClass, ac: bool) -> Crossing {
        Crossing { from, to, permitted_by: at::AC_OK, told: Told::Ac(ac) }
    }
    &[
        ring(User, Supervisor, 0),
        ring(Supervisor, User, 3),
        ring(SupervisorAc, User, 3),
        ac(Supervisor, SupervisorAc, true),
        ac(SupervisorAc, Supervisor, false),
    ]
};

/// The ways out of a class.
pub(super) fn crossings(from: usize) -> impl Iterator<Item = &'static Crossing> {
    CROSSINGS.iter().filter(move |crossing| crossing.from as usize == from)
}

impl Crossing {
    pub(super) fn leads_to(&self, class: usize) -> bool {
        self.to as usize == class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_alone_may_touch_is_not_allowed() {
        for offset in [at::SITE, at::HOST_RSP, at::VECTOR, at::ENTRY, at::HOST_MXCSR, at::reg(0)] {
            assert!(!allows(offset, 4, Use::Read), "{offset}");
            assert!(!allows(offset, 4, Use::ReadWrite), "{offset}");
        }
        assert!(!allows(at::read_tags(0), 8, Use::Read));
    }

    #[test]
    fn an_access_may_not_reach_beyond_its_field() {
        assert!(allows(at::homed(15), 8, Use::ReadWrite));
        assert!(!allows(at::homed(15) + 1, 8, Use::ReadWrite) || at::FLAGS == at::homed(15) + 8);
        assert!(!allows(at::WAITING, 4, Use::ReadWrite) && allows(at::WAITING, 4, Use::Read));
        assert!(!allows(at::RING, 4, Use::ReadWrite) && allows(at::RING, 4, Use::Constant));
    }

    #[test]
    fn the_tlb_of_another_class_is_no_table_and_jumps_of_any_class_are() {
        assert_eq!(table(at::read_tags(1), 1), Some((Table::Tags(Tags::Read), 0)));
        assert_eq!(table(at::read_tags(0), 1), None);
        assert_eq!(table(at::jump_codes(0) + 32, 1), Some((Table::Codes(0), 2)));
        assert_eq!(table(at::jump_codes(0) + 4, 1), None);
        assert_eq!(table(at::slot(3), 1), Some((Table::Slots, 3)));
        assert_eq!(table(at::slot(SLOTS as u32), 1), None);
    }
}
