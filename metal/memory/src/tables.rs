//! Four-level page tables (SDM vol. 3A §4.5), written through a trait so that they can be looked at
//! on a host. The same walks make the nested tables of AMD-V, which have the same form (APM vol. 2
//! §15.25), and those of VT-x, whose entries have bits of their own (SDM vol. 3C §28.3.2).

use core::ops::Range;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Where tables are.
pub trait TableMemory {
    /// The entry at a physical address.
    fn read(&self, at: u64) -> u64;
    /// Writes it, in one store.
    fn write(&mut self, at: u64, entry: u64);
    /// A zeroed page for a new table, if there is one.
    fn new_table(&mut self) -> Option<u64>;
}

/// What may be done with a page. There is none that can be written and executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Constants.
    Read,
    /// Data.
    ReadWrite,
    /// Code.
    ReadExecute,
    /// Registers of a device: not cached.
    Device,
    /// A guest's RAM in nested tables: the guest's own tables say more.
    Guest,
    /// The same that the guest may not write.
    GuestRead,
}

/// Whose entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The processor's own, and AMD's nested ones.
    Paging,
    /// VT-x's extended page tables.
    Extended,
}

impl Format {
    const fn page(self, rights: Rights) -> u64 {
        match self {
            Self::Paging => rights.bits(),
            Self::Extended => rights.extended_bits(),
        }
    }
    /// An entry for the next table allows everything.
    const fn table(self) -> u64 {
        match self {
            Self::Paging => PRESENT | WRITE | USER | ACCESSED,
            Self::Extended => extended::READ | extended::WRITE | extended::EXECUTE,
        }
    }
}

/// Bits of VT-x's tables. The first also says that there is something.
mod extended {
    pub(super) const READ: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const EXECUTE: u64 = 1 << 2;
    /// Memory types.
    pub(super) const UNCACHED: u64 = 0;
    pub(super) const WRITE_BACK: u64 = 6 << 3;
}

impl Rights {
    const fn extended_bits(self) -> u64 {
        use extended::{EXECUTE, READ, UNCACHED, WRITE, WRITE_BACK};
        READ | match self {
            Self::Read => WRITE_BACK,
            Self::ReadWrite => WRITE | WRITE_BACK,
            Self::ReadExecute | Self::GuestRead => EXECUTE | WRITE_BACK,
            Self::Device => WRITE | UNCACHED,
            Self::Guest => WRITE | EXECUTE | WRITE_BACK,
        }
    }
    const fn bits(self) -> u64 {
        PRESENT
            | ACCESSED
            | match self {
                Self::Read => NO_EXECUTE,
                Self::ReadWrite => WRITE | DIRTY | NO_EXECUTE,
                Self::ReadExecute => 0,
                Self::Device => WRITE | DIRTY | CACHE_DISABLE | WRITE_THROUGH | NO_EXECUTE,
                // Nested walks are made as by user mode (APM vol. 2 §15.25.5).
                Self::Guest => WRITE | DIRTY | USER,
                Self::GuestRead => USER,
            }
    }
}

/// No page was left for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTables;

impl core::fmt::Display for OutOfTables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no memory is left for page tables")
    }
}

impl core::error::Error for OutOfTables {}

/// Page tables under construction or in use.
#[derive(Debug)]
pub struct PageTables<M> {
    root: u64,
    format: Format,
    memory: M,
}

impl<M: TableMemory> PageTables<M> {
    /// Empty tables.
    ///
    /// # Errors
    /// When there is no page for the root.
    pub fn new(memory: M) -> Result<Self, OutOfTables> {
        Self::with_format(memory, Format::Paging)
    }

    /// The same with entries of this format.
    ///
    /// # Errors
    /// When there is no page for the root.
    pub fn with_format(mut memory: M, format: Format) -> Result<Self, OutOfTables> {
        let root = memory.new_table().ok_or(OutOfTables)?;
        Ok(Self { root, format, memory })
    }

    /// Physical address of the top-level table.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Maps `pages` (virtual addresses, rounded outwards to pages) to physical memory from `to` on,
    /// by pages of 2 MiB where they fit. What was mapped there is replaced.
    ///
    /// # Errors
    /// When no page is left for a table; what comes before is mapped.
    pub fn map(&mut self, pages: Range<u64>, to: u64, rights: Rights) -> Result<(), OutOfTables> {
        let mut at = pages.start & !0xFFF;
        let mut physical = to & !0xFFF;
        while at < pages.end {
            let large = (at | physical) & 0x1F_FFFF == 0 && pages.end - at >= 0x20_0000;
            let (level, step) = if large { (2, 0x20_0000) } else { (1, 0x1000) };
            let entry = physical | self.format.page(rights) | if large { LARGE } else { 0 };
            let place = self.place(at, level)?;
            // A table of small pages that becomes one large page is lost: this is rare.
            self.memory.write(place, entry);
            at = at.saturating_add(step);
            physical = physical.saturating_add(step);
        }
        Ok(())
    }

    /// Takes pages out.
    ///
    /// # Errors
    /// When a large page has to be split and no page is left for a table.
    pub fn unmap(&mut self, pages: Range<u64>) -> Result<(), OutOfTables> {
        let mut at = pages.start & !0xFFF;
        while at < pages.end {
            let place = self.place(at, 1)?;
            self.memory.write(place, 0);
            at = at.saturating_add(0x1000);
        }
        Ok(())
    }

    /// The entry that maps an address, with the number of bytes that it maps; nothing if none does.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(u64, u64)> {
        let mut table = self.root;
        for level in [4, 3, 2, 1] {
            let entry = self.memory.read(slot(table, address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || entry & LARGE != 0 {
                return Some((entry, 0x1000 << (9 * (level - 1))));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Where the entry of an address at a level is; tables above it are made and large pages split.
    fn place(&mut self, address: u64, level: u32) -> Result<u64, OutOfTables> {
        let mut table = self.root;
        for above in [4, 3, 2].into_iter().take_while(|above| *above > level) {
            let at = slot(table, address, above);
            let entry = self.memory.read(at);
            table = if entry & PRESENT == 0 {
                self.new_table(at)?
            } else if entry & LARGE != 0 {
                self.split(at, entry, above)?
            } else {
                entry & ADDRESS
            };
        }
        Ok(slot(table, address, level))
    }

    fn new_table(&mut self, at: u64) -> Result<u64, OutOfTables> {
        let table = self.memory.new_table().ok_or(OutOfTables)?;
        self.memory.write(at, table | self.format.table());
        Ok(table)
    }

    /// The same mapping by pages of the next level. Their entries are complete before the large
    /// page's is replaced, so that a processor that walks meanwhile finds the one or the other.
    fn split(&mut self, at: u64, entry: u64, level: u32) -> Result<u64, OutOfTables> {
        let table = self.memory.new_table().ok_or(OutOfTables)?;
        let step = 0x1000u64 << (9 * (level - 2));
        let keep = if level == 2 { !LARGE } else { u64::MAX };
        for n in 0..512u64 {
            self.memory.write(table + n * 8, (entry & keep).wrapping_add(n * step));
        }
        self.memory.write(at, table | self.format.table());
        Ok(table)
    }
}

/// Where the entry of an address in a table of this level is.
const fn slot(table: u64, address: u64, level: u32) -> u64 {
    table + (address >> (12 + 9 * (level - 1)) & 511) * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Tables are at 0x1000, 0x2000, ...; at each write every address of interest is still mapped.
    #[derive(Default)]
    struct Fake {
        words: BTreeMap<u64, u64>,
        tables: u64,
        limit: u64,
    }

    impl TableMemory for Fake {
        fn read(&self, at: u64) -> u64 {
            self.words.get(&at).copied().unwrap_or(0)
        }
        fn write(&mut self, at: u64, entry: u64) {
            self.words.insert(at, entry);
        }
        fn new_table(&mut self) -> Option<u64> {
            self.tables += 1;
            (self.tables <= self.limit).then_some(self.tables * 0x1000)
        }
    }

    fn tables(limit: u64) -> PageTables<Fake> {
        PageTables::new(Fake { limit, ..Fake::default() }).unwrap()
    }

    fn target(tables: &PageTables<Fake>, address: u64) -> Option<u64> {
        tables.find(address).map(|(entry, len)| (entry & ADDRESS) + (address & (len - 1)))
    }

    #[test]
    fn large_pages_are_used_where_they_fit() {
        let mut tables = tables(10);
        tables.map(0x1F_F000..0x60_1000, 0x1F_F000, Rights::ReadWrite).unwrap();

        let sizes = [0x1F_F000, 0x20_0000, 0x5F_FFFF, 0x60_0000]
            .map(|at| tables.find(at).map(|(_, len)| len));
        assert_eq!(sizes, [0x1000, 0x20_0000, 0x20_0000, 0x1000].map(Some));
        assert_eq!((tables.find(0x1F_EFFF), tables.find(0x60_1000)), (None, None));
    }

    #[test]
    fn a_page_out_of_a_large_one_leaves_the_others() {
        let mut tables = tables(10);
        tables.map(0..0x40_0000, 0x80_0000, Rights::ReadWrite).unwrap();
        tables.unmap(0x20_3000..0x20_4000).unwrap();
        tables.map(0x20_5000..0x20_6000, 0x100_0000, Rights::ReadExecute).unwrap();

        assert_eq!(target(&tables, 0x20_3000), None);
        assert_eq!(target(&tables, 0x20_2FFF), Some(0xA0_2FFF));
        assert_eq!(target(&tables, 0x20_4000), Some(0xA0_4000));
        assert_eq!(target(&tables, 0x20_5001), Some(0x100_0001));
        assert_eq!(target(&tables, 0x12_3456), Some(0x92_3456));
    }

    #[test]
    fn nothing_can_be_written_and_executed_by_the_hypervisor() {
        for rights in [Rights::Read, Rights::ReadWrite, Rights::ReadExecute, Rights::Device] {
            let bits = rights.bits();
            assert!(bits & WRITE == 0 || bits & NO_EXECUTE != 0, "{rights:?}");
        }
    }

    /// Bits 3 to 7 of an entry for a table are reserved there, and 0 of a page's would be uncached.
    #[test]
    fn extended_tables_have_bits_of_their_own() {
        let memory = Fake { limit: 10, ..Fake::default() };
        let mut tables = PageTables::with_format(memory, Format::Extended).unwrap();
        tables.map(0..0x40_1000, 0x80_0000, Rights::Guest).unwrap();
        tables.map(0x40_1000..0x40_2000, 0x10_0000, Rights::GuestRead).unwrap();

        let found = [0, 0x40_0000, 0x40_1000].map(|at| tables.find(at));
        let pages = [(0x80_00B7, 0x20_0000), (0xC0_0037, 0x1000), (0x10_0035, 0x1000)];
        assert_eq!(found, pages.map(Some));
        assert_eq!(tables.memory.words.get(&tables.root()), Some(&0x2007));
    }

    #[test]
    fn tables_that_are_used_up_are_an_error() {
        let mut tables = tables(3);

        assert_eq!(tables.map(0..0x1000, 0, Rights::Read), Err(OutOfTables));
    }
}
