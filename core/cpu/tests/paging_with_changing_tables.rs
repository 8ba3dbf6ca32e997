//! Page walks while another processor changes the tables.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use kasane_cpu::paging::{Access, Marking, PageFault, PagingContext, Privilege};
use kasane_memory::{GuestMemory, MemoryError, Ram, RamSlot};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::paging::{A, D, P, RW};
use kasane_spec_x86::vector::page_fault as code;

const PTE: u64 = 0x4000;

/// Memory in which somebody writes an entry just before the first mark on it.
struct Meddled {
    ram: Ram,
    entry: u64,
    done: AtomicBool,
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $t:ty),*) -> $r:ty;)*) => {
        $(fn $name(&self, $($arg: $t),*) -> $r { self.ram.$name($($arg),*) })*
    };
}

impl GuestMemory for Meddled {
    fn compare_exchange_u64(&self, gpa: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        if gpa == PTE && !self.done.swap(true, Ordering::Relaxed) {
            self.ram.store_u64(PTE, self.entry)?;
        }
        self.ram.compare_exchange_u64(gpa, current, new)
    }
    forward! {
        read(gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError>;
        write(gpa: u64, data: &[u8]) -> Result<(), MemoryError>;
        fill(gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError>;
        load_u16(gpa: u64) -> Result<u16, MemoryError>;
        load_u32(gpa: u64) -> Result<u32, MemoryError>;
        load_u64(gpa: u64) -> Result<u64, MemoryError>;
        store_u16(gpa: u64, value: u16) -> Result<(), MemoryError>;
        store_u32(gpa: u64, value: u32) -> Result<(), MemoryError>;
        store_u64(gpa: u64, value: u64) -> Result<(), MemoryError>;
        compare_exchange_u32(gpa: u64, current: u32, new: u32) -> Result<u32, MemoryError>;
        ram_ranges() -> Vec<(u64, u64)>;
    }
}

/// Writes to address 0, whose entry is `first` and becomes `then`: where it leads, and the entry.
fn write_while_changed(first: u64, then: u64) -> (Result<u64, PageFault>, u64) {
    let ram = Ram::new(vec![RamSlot::allocated(0, 0x8000)]);
    for (at, next) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, PTE)] {
        ram.store_u64(at, next | P | RW | A).unwrap();
    }
    ram.store_u64(PTE, first).unwrap();
    let memory = Meddled { ram, entry: then, done: AtomicBool::new(false) };
    let context = PagingContext {
        cr0: cr0::PE | cr0::PG | cr0::WP,
        cr3: 0x1000,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        pdpte: [0; 4],
        physical_bits: 40,
        a20_mask: u64::MAX,
    };
    let found = context.walk(&memory, 8, Access::Write, Privilege::Supervisor, Marking::Set);
    (found.map(|page| page.gpa), memory.load_u64(PTE).unwrap())
}

#[test]
fn a_page_that_moves_is_found_where_it_is_now() {
    let (found, entry) = write_while_changed(0x5000 | P | RW, 0x6000 | P | RW);
    assert_eq!((found, entry), (Ok(0x6008), 0x6000 | P | RW | A | D));
}

#[test]
fn a_page_that_becomes_read_only_faults_and_is_not_marked_dirty() {
    let (found, entry) = write_while_changed(0x5000 | P | RW, 0x5000 | P);
    assert_eq!((found, entry), (Err(PageFault { error: code::P | code::W }), 0x5000 | P));
}

#[test]
fn a_page_that_goes_away_faults_as_not_present() {
    let (found, entry) = write_while_changed(0x5000 | P | RW, 0);
    assert_eq!((found, entry), (Err(PageFault { error: code::W }), 0));
}
