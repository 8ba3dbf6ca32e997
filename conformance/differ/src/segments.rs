//! Segments that are not flat, for 32-bit code: entries of the LDT, which Linux lets programs make
//! (modify_ldt(2)), and the same on our side.

use std::io;

use kasane_cpu::SegmentRegister;

use crate::interp::flat;
use crate::layout::{DATA, USER_DS};

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Linear address of offset 0.
    pub base: u32,
    /// As in a descriptor: the last offset, or the last page's number.
    pub limit: u32,
    /// What the limit counts.
    pub unit: Unit,
    /// Which offsets are in it, and what may be done there.
    pub kind: Kind,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Byte,
    /// Pages of 4 KiB.
    Page,
}

/// A kind of data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Offsets up to the limit.
    Data,
    /// The same, only to be read.
    ReadOnly,
    /// Offsets above the limit.
    Down,
}

const fn local(base: u32, limit: u32, unit: Unit, kind: Kind) -> Local {
    Local { base, limit, unit, kind }
}

/// How many there are.
pub const LOCALS: usize = 6;
/// The entries. The last three reach all that a test has. None has a limit of 4 GiB: what an access
/// around that end does is up to the processor (SDM vol. 3A §5.3).
pub const LOCAL: [Local; LOCALS] = [
    local(DATA as u32, 0x1FFF, Unit::Byte, Kind::Data),
    local(DATA as u32 + 0x800, 0x7FF, Unit::Byte, Kind::ReadOnly),
    local(DATA as u32, 0x0FFF, Unit::Byte, Kind::Down),
    local(0, 0xF_FFFE, Unit::Page, Kind::Data),
    local(0x1000_0000, 0x1FF, Unit::Page, Kind::Data),
    local(0x9018_0000, 0xF_FFFE, Unit::Page, Kind::Data), // addresses go around the end
];

/// The selector of an entry.
#[must_use]
pub const fn selector(n: usize) -> u16 {
    (n as u16) << 3 | 7
}

fn by_selector(selector: u16) -> Option<&'static Local> {
    LOCAL.get(usize::from(selector >> 3)).filter(|_| selector & 7 == 7)
}

/// The base of a user's data segment.
#[must_use]
pub fn base(selector: u16) -> u64 {
    by_selector(selector).map_or(0, |local| u64::from(local.base))
}

impl Local {
    /// Type, S, DPL and P; D/B and G: as a segment register has them.
    fn access(&self) -> u16 {
        let kind = match self.kind {
            Kind::Data => 3,
            Kind::ReadOnly => 1,
            Kind::Down => 7,
        };
        let granular = if self.unit == Unit::Page { 0x8000 } else { 0 };
        0x40F0 | kind | granular
    }
    /// The descriptor (SDM vol. 3A §3.4.5).
    #[must_use]
    pub fn descriptor(&self) -> u64 {
        let (base, limit) = (u64::from(self.base), u64::from(self.limit));
        limit & 0xFFFF
            | (base & 0xFF_FFFF) << 16
            | u64::from(self.access()) << 40
            | (limit >> 16 & 0xF) << 48
            | (base >> 24) << 56
    }
}

/// A segment register with a user's data selector.
#[must_use]
pub fn register(selector: u16) -> SegmentRegister {
    match by_selector(selector) {
        Some(local) => SegmentRegister {
            selector,
            access: local.access(),
            limit: match local.unit {
                Unit::Byte => local.limit,
                Unit::Page => local.limit << 12 | 0xFFF,
            },
            base: u64::from(local.base),
        },
        None if selector == USER_DS => flat(USER_DS, 0xC0F3),
        None => flat(0, 0),
    }
}

/// Makes the entries in this process.
///
/// # Errors
/// When the kernel was built without them.
pub(crate) fn install() -> io::Result<()> {
    for (n, local) in (0u32..).zip(LOCAL) {
        let contents = u32::from(local.kind == Kind::Down) << 1;
        let read_only = u32::from(local.kind == Kind::ReadOnly) << 3;
        let pages = u32::from(local.unit == Unit::Page) << 4;
        // seg_32bit and useable
        let flags = 1 | contents | read_only | pages | 1 << 6;
        let entry = [n, local.base, local.limit, flags];
        // SAFETY: the kernel reads a `struct user_desc` of this size.
        let result =
            unsafe { libc::syscall(libc::SYS_modify_ldt, 1, entry.as_ptr(), size_of_val(&entry)) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_as_the_manual_draws_them() {
        assert_eq!(LOCAL[3].descriptor(), 0x00CF_F300_0000_FFFE);
        assert_eq!(LOCAL[0].descriptor(), 0x1040_F318_0000_1FFF);
    }

    #[test]
    fn registers_have_scaled_limits_and_the_selector() {
        let register = register(selector(4));
        assert_eq!((register.selector, register.limit), (0x27, 0x1F_FFFF));
        assert_eq!(register.base, 0x1000_0000);
    }
}
