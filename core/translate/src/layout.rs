//! The state block: what translated code reaches through RSP.
//!
//! RSP is the only register that translated code needs for itself all the time, and a guest's RSP
//! lives in R15, so the block stands where a stack would be. RSP points to the inline TLB of
//! supervisor code, so that its entries are reached with a displacement of one byte. So are the 128
//! bytes below RSP, which hold what code names most: the System V ABI (AMD64 supplement, §3.2.2)
//! keeps signals away from them. The highest 8 of them take the return address where code is left.
//! Below those lies room for the frames of signals that a home delivers on this stack.
//!
//! | host register | holds |
//! |---|---|
//! | RAX RCX RDX RBX RBP RSI RDI R8 R12 R13 R14 | the same register of the guest |
//! | R15 | the guest's RSP |
//! | R9 R10 R11 | scratch |
//! | RSP | the state block |
//!
//! 32-bit and 16-bit code uses the lower halves of the first eight, and leaves the others alone.
//! The guest's R9, R10, R11 and R15 have their [`Hot::homed`] places. They are the registers that
//! compilers use least.

use core::mem::offset_of;

use kasane_cpu::Seg;
use kasane_spec_x86::flags;

use crate::crossing::touches;

/// Entries of each inline TLB table.
pub(crate) const TLB_ENTRIES: usize = 4096;
/// By how many bits an address is rotated right, and what is left of it then: its entry's offset.
pub(crate) const TLB_ROTATION: u8 = 12 - TLB_SHIFT as u8;
pub(crate) const TLB_MASK: u32 = (TLB_ENTRIES as u32 - 1) << TLB_SHIFT;
const TLB_SHIFT: u32 = size_of::<TlbEntry>().trailing_zeros();
/// What RSP points to: an offset in [`Hot`].
pub(crate) const RSP_AT: usize = offset_of!(Hot, tlb);
/// Sizes of accesses that have a word in [`Hot::last`].
const LAST: [u64; 4] = [1, 4, 8, 16];
/// Entries of each table of jump targets.
pub(crate) const JUMP_ENTRIES: usize = 32768;
/// Numbers of polls, see [`Hot::counts`].
pub(crate) const COUNTS: usize = 4;
/// Slots for jumps to known targets in other pages.
pub(crate) const SLOTS: usize = 32768;
/// What a jump table's hash leaves of an address and itself shifted left by 4: an entry's offset.
pub(crate) const JUMP_MASK: u32 = (JUMP_ENTRIES as u32 - 1) << 4;
/// Privilege classes ([`kasane_memory::TlbClass`]).
pub(crate) const CLASSES: usize = 3;
/// Room for signal frames.
const STACK: usize = 64 << 10;

/// An entry of an inline TLB. A tag is a page's address; one that is not valid is a page that has
/// another index, which no address that selects the entry can lie in.
#[repr(C)]
pub(crate) struct TlbEntry {
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// Host address less guest address of the page.
    pub(crate) addend: u64,
    /// Host address of the page.
    pub(crate) host: u64,
}

/// The inline TLB of one privilege class.
#[repr(C)]
pub(crate) struct ClassTlb {
    pub(crate) entries: [TlbEntry; TLB_ENTRIES],
}

/// Where translated code for a guest address begins; invalid entries as in [`ClassTlb`].
#[repr(C)]
pub(crate) struct JumpTable {
    /// RIP and the address of its code.
    pub(crate) entries: [[u64; 2]; JUMP_ENTRIES],
}

/// What translated code knows. All of it but what the tables hold is a field by its own name.
#[repr(C)]
pub(crate) struct Hot {
    // What code names most comes first, in 128 bytes.
    /// The guest's R9, R10, R11, R15.
    pub(crate) homed: [u64; 4],
    /// The guest's arithmetic flags: OF in bit 0, LAHF's byte in bits 8 to 15.
    pub(crate) flags: u64,
    /// Polls until translated code is left to look around; negative: now. Several, because a
    /// decrement has to wait for the last one of the same number.
    pub(crate) counts: [i32; COUNTS],
    /// [`TLB_MASK`], and the last offset in a page where accesses of [`LAST`] sizes may begin:
    /// shorter to name than constants.
    pub(crate) tlb_mask: u32,
    /// An interrupt waits for IF.
    pub(crate) waiting: u32,
    pub(crate) last: [u64; LAST.len()],
    /// RFLAGS but for the arithmetic flags.
    pub(crate) rflags: u64,
    /// Bases of FS and GS.
    pub(crate) upper_bases: [u64; 2],
    /// Code writes its return address here where it is left.
    _called: u64,
    /// RSP points here.
    pub(crate) tlb: [ClassTlb; CLASSES],
    /// Where code was left: the address of the site.
    pub(crate) site: u64,
    /// Bases of the guest's first segments, by [`kasane_cpu::Seg`].
    pub(crate) lower_bases: [u64; 4],
    /// The host's registers by number, saved when code is left. That of RSP is not used.
    pub(crate) regs: [u64; 16],
    /// Address at which code is entered.
    pub(crate) entry: u64,
    pub(crate) host_rsp: u64,
    /// The guest's `VectorState`.
    pub(crate) vector: u64,
    /// Outside 64-bit code: the last byte that may be read, and written; -1 where none may, or
    /// where the interpreter is to find that out.
    pub(crate) segment_limit: [[i64; 2]; 6],
    /// The base that SWAPGS exchanges with that of GS.
    pub(crate) kernel_gs: u64,
    /// The guest's TSC: high half of the host's times this, plus the next. 0: the interpreter
    /// reads it.
    pub(crate) tsc_multiplier: u64,
    pub(crate) tsc_offset: u64,
    pub(crate) tsc_aux: u64,
    /// CR0, none, CR2, CR3, CR4.
    pub(crate) control: [u64; 5],
    /// Selectors, in the order of `Seg`.
    pub(crate) selectors: [u16; 6],
    /// The guest's vector registers are in the host's while code runs.
    pub(crate) vectors: u32,
    /// SYSCALL or SYSRET was done in place: the ring is now this, CS and SS are theirs.
    pub(crate) crossed: u32,
    /// The ring after that.
    pub(crate) ring: u32,
    /// The tables of rings 0 and 3 can be entered from each other.
    pub(crate) syscall_ok: u32,
    /// Those of ring 0 with and without AC can.
    pub(crate) ac_ok: u32,
    /// Where SYSCALL goes in 64-bit code.
    pub(crate) syscall_target: u64,
    /// The flags that SYSCALL keeps.
    pub(crate) syscall_kept: u64,
    /// Selectors of CS (low half) and SS after SYSCALL, and after SYSRET to 64-bit code.
    pub(crate) syscall_selectors: [u32; 2],
    /// A value for the time of one guest instruction.
    pub(crate) scratch: u64,
    pub(crate) host_mxcsr: u32,
    /// The flags at a host exception, as in `flags`.
    pub(crate) fault_flags: u32,
    pub(crate) jumps: [JumpTable; CLASSES],
    pub(crate) slots: [u64; SLOTS],
}

/// The block with the room below it. All zero is valid; the first entries of the tables are valid
/// too then ([`crate::tables::Tables::new`]).
#[repr(C, align(4096))]
pub(crate) struct StateBlock {
    _stack: [u8; STACK],
    pub(crate) hot: Hot,
}

/// Offsets in [`Hot`].
pub(crate) mod at {
    use super::{COUNTS, ClassTlb, Hot, JumpTable, LAST, Seg, TlbEntry, offset_of};

    pub(crate) const FLAGS: usize = offset_of!(Hot, flags);
    pub(crate) const SITE: usize = offset_of!(Hot, site);
    pub(crate) const ENTRY: usize = offset_of!(Hot, entry);
    pub(crate) const HOST_RSP: usize = offset_of!(Hot, host_rsp);
    pub(crate) const VECTOR: usize = offset_of!(Hot, vector);
    pub(crate) const FAULT_FLAGS: usize = offset_of!(Hot, fault_flags);
    pub(crate) const HOST_MXCSR: usize = offset_of!(Hot, host_mxcsr);

    pub(crate) const KERNEL_GS: usize = offset_of!(Hot, kernel_gs);
    pub(crate) const RFLAGS: usize = offset_of!(Hot, rflags);
    pub(crate) const WAITING: usize = offset_of!(Hot, waiting);
    pub(crate) const TSC_MULTIPLIER: usize = offset_of!(Hot, tsc_multiplier);
    pub(crate) const TSC_OFFSET: usize = offset_of!(Hot, tsc_offset);
    pub(crate) const TSC_AUX: usize = offset_of!(Hot, tsc_aux);
    pub(crate) const SCRATCH: usize = offset_of!(Hot, scratch);
    pub(crate) const VECTORS: usize = offset_of!(Hot, vectors);
    pub(crate) const CROSSED: usize = offset_of!(Hot, crossed);
    pub(crate) const SYSCALL_OK: usize = offset_of!(Hot, syscall_ok);
    pub(crate) const AC_OK: usize = offset_of!(Hot, ac_ok);
    pub(crate) const RING: usize = offset_of!(Hot, ring);
    pub(crate) const SYSCALL_TARGET: usize = offset_of!(Hot, syscall_target);
    pub(crate) const SYSCALL_KEPT: usize = offset_of!(Hot, syscall_kept);

    /// Of the selectors after SYSCALL (0) or SYSRET (1).
    pub(crate) const fn syscall_selectors(which: usize) -> usize {
        offset_of!(Hot, syscall_selectors) + 4 * which
    }

    /// Of CR0, CR2, CR3 or CR4.
    pub(crate) const fn control(number: u8) -> usize {
        offset_of!(Hot, control) + 8 * number as usize
    }
    /// Of a segment's selector.
    pub(crate) const fn selector(segment: u8) -> usize {
        offset_of!(Hot, selectors) + 2 * segment as usize
    }
    pub(crate) const fn reg(number: u8) -> usize {
        offset_of!(Hot, regs) + 8 * number as usize
    }
    /// Of the guest's R9, R10, R11 or R15.
    pub(crate) const fn homed(guest: u8) -> usize {
        let place = match guest {
            9 => 0,
            10 => 1,
            11 => 2,
            _ => 3,
        };
        offset_of!(Hot, homed) + 8 * place
    }
    pub(crate) const TLB_MASK: usize = offset_of!(Hot, tlb_mask);
    /// Of the last offset in a page where an access of this size may begin.
    pub(crate) fn last(size: u32) -> Option<usize> {
        let place = LAST.iter().position(|known| *known == u64::from(size))?;
        Some(offset_of!(Hot, last).wrapping_add(place.wrapping_mul(8)))
    }
    pub(crate) const fn segment_base(seg: Seg) -> usize {
        let number = seg as usize;
        if number < 4 {
            offset_of!(Hot, lower_bases) + 8 * number
        } else {
            offset_of!(Hot, upper_bases) + 8 * (number - 4)
        }
    }
    pub(crate) const fn segment_limit(seg: Seg, write: bool) -> usize {
        offset_of!(Hot, segment_limit) + 16 * seg as usize + 8 * write as usize
    }
    const fn tlb(class: usize) -> usize {
        offset_of!(Hot, tlb) + class * size_of::<ClassTlb>()
    }
    pub(crate) const fn read_tags(class: usize) -> usize {
        tlb(class) + offset_of!(TlbEntry, read)
    }
    pub(crate) const fn write_tags(class: usize) -> usize {
        tlb(class) + offset_of!(TlbEntry, write)
    }
    pub(crate) const fn hosts(class: usize) -> usize {
        tlb(class) + offset_of!(TlbEntry, host)
    }
    pub(crate) const fn addends(class: usize) -> usize {
        tlb(class) + offset_of!(TlbEntry, addend)
    }
    /// Of the count for the poll of an instruction.
    pub(crate) const fn count(rip: u64) -> usize {
        offset_of!(Hot, counts) + 4 * ((rip >> 1) as usize % COUNTS)
    }
    pub(crate) const fn slot(number: u32) -> usize {
        offset_of!(Hot, slots) + 8 * number as usize
    }
    const fn jumps(class: usize) -> usize {
        offset_of!(Hot, jumps) + class * size_of::<JumpTable>()
    }
    /// Of the RIPs in entries at offset 0.
    pub(crate) const fn jump_rips(class: usize) -> usize {
        jumps(class)
    }
    pub(crate) const fn jump_codes(class: usize) -> usize {
        jumps(class) + 8
    }
}

/// The index of an address's entry in its inline TLB.
pub(crate) fn tlb_index(va: u64) -> usize {
    (va >> 12) as usize % TLB_ENTRIES
}

/// The jump table's index of an address. The lowest bits alone would not spread functions, which
/// begin at multiples of 16.
pub(crate) fn jump_index(rip: u64) -> usize {
    let low = rip as u32;
    ((low ^ low.wrapping_shl(4)) & JUMP_MASK) as usize >> 4
}

/// A tag that no address with this index has.
fn no_page(index: usize) -> u64 {
    ((index ^ 1) as u64) << 12
}

/// An address that belongs to another entry of a jump table.
fn no_target(index: usize) -> u64 {
    // Two numbers below the table's size with different hashes: one of them fits.
    u64::from(jump_index(0) == index)
}

/// What can be forgotten whole or by entry.
pub(crate) trait Table {
    fn flush(&mut self);
    fn flush_index(&mut self, index: usize);
}

impl Table for ClassTlb {
    fn flush(&mut self) {
        (0..TLB_ENTRIES).for_each(|index| self.flush_index(index));
    }
    fn flush_index(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            (entry.read, entry.write) = (no_page(index), no_page(index));
        }
    }
}

impl ClassTlb {
    /// Forgets that a page may be written if it is the one at host address `page`.
    pub(crate) fn protect_index(&mut self, index: usize, page: u64) {
        if let Some(entry) = self.entries.get_mut(index)
            && entry.host == page
        {
            entry.write = no_page(index);
        }
    }
    /// Gives the entry's index.
    pub(crate) fn fill(&mut self, va: u64, host: u64, writable: bool) -> usize {
        let index = tlb_index(va);
        let page = va & !0xFFF;
        if let Some(entry) = self.entries.get_mut(index) {
            let write = if writable { page } else { no_page(index) };
            *entry = TlbEntry { read: page, write, addend: host.wrapping_sub(page), host };
        }
        index
    }
}

impl Table for JumpTable {
    fn flush(&mut self) {
        (0..JUMP_ENTRIES).for_each(|index| self.flush_index(index));
    }
    fn flush_index(&mut self, index: usize) {
        if let Some([rip, _]) = self.entries.get_mut(index) {
            *rip = no_target(index);
        }
    }
}

impl JumpTable {
    /// Gives the entry's index.
    pub(crate) fn enter(&mut self, rip: u64, code: u64) -> usize {
        let index = jump_index(rip);
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = [rip, code];
        }
        index
    }
    /// Forgets one target.
    pub(crate) fn forget(&mut self, rip: u64) {
        let index = jump_index(rip);
        if self.entries.get(index).is_some_and(|[known, _]| *known == rip) {
            self.flush_index(index);
        }
    }
    /// Forgets an entry if its target has bytes in a page.
    pub(crate) fn flush_index_of_page(&mut self, index: usize, va: u64) {
        if self.entries.get(index).is_some_and(|[rip, _]| touches(*rip, va)) {
            self.flush_index(index);
        }
    }
    pub(crate) fn find(&self, rip: u64) -> Option<u64> {
        let [known, code] = self.entries.get(jump_index(rip))?;
        (*known == rip).then_some(*code)
    }
}

impl StateBlock {
    /// With everything zero, on the heap from the start.
    pub(crate) fn new() -> alloc::boxed::Box<Self> {
        let layout = core::alloc::Layout::new::<Self>();
        // SAFETY: the size is not zero, and all-zero bytes are a valid block of plain numbers.
        unsafe {
            let raw = alloc::alloc::alloc_zeroed(layout).cast::<Self>();
            if raw.is_null() {
                alloc::alloc::handle_alloc_error(layout);
            }
            alloc::boxed::Box::from_raw(raw)
        }
    }
}

impl Hot {
    /// Whether it is time to look around.
    pub(crate) fn polls_are_used_up(&self) -> bool {
        self.counts.iter().any(|count| *count < 0)
    }
    /// Takes the arithmetic flags out of RFLAGS.
    pub(crate) fn set_guest_flags(&mut self, rflags: u64) {
        self.flags = u64::from(rflags & flags::OF != 0) | (rflags & 0xFF) << 8;
    }
    /// The arithmetic flags as in RFLAGS.
    pub(crate) fn guest_flags(&self) -> u64 {
        let overflow = if self.flags & 1 != 0 { flags::OF } else { 0 };
        overflow | self.flags >> 8 & 0xFF & flags::ARITHMETIC
    }
    /// Bases of the guest's segments, by [`kasane_cpu::Seg`].
    pub(crate) fn set_bases(&mut self, bases: [u64; 6]) {
        let [es, cs, ss, ds, fs, gs] = bases;
        self.lower_bases = [es, cs, ss, ds];
        self.upper_bases = [fs, gs];
    }
    /// The constants that code names.
    pub(crate) fn set_constants(&mut self) {
        self.tlb_mask = TLB_MASK;
        self.last = LAST.map(|size| 4096u64.wrapping_sub(size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_tag_lies_in_no_page_with_its_index() {
        for index in 0..TLB_ENTRIES {
            assert_ne!(tlb_index(no_page(index)), index);
        }
    }

    #[test]
    fn an_invalid_jump_belongs_to_another_entry() {
        for index in 0..JUMP_ENTRIES {
            assert_ne!(jump_index(no_target(index)), index);
        }
    }

    #[test]
    fn offsets_fit_a_displacement() {
        assert!(size_of::<Hot>() < i32::MAX as usize);
        assert_eq!(RSP_AT, 128);
        assert_eq!(size_of::<StateBlock>() % 4096, 0);
    }
}
