//! From the loader's memory map to the hypervisor's page tables and heap.

use core::ops::Range as Addresses;
use core::sync::atomic::{AtomicBool, Ordering};

use kasane_metal_boot::image;
use kasane_metal_boot::memory_map::RegionKind;
use kasane_metal_cpu as cpu;
use kasane_metal_memory::physical::{self, Identity};
use kasane_metal_memory::ranges::{Range, Ranges};
use kasane_metal_memory::tables::{OutOfTables, PageTables, Rights};
use kasane_metal_memory::{PAGE, physical as memory};

use super::loader::Boot;
use super::serial::log;

const MIB: u64 = 1 << 20;
const GIB_4: u64 = 1 << 32;
/// Where firmware's tables may be, below 1 MiB.
const FIRMWARE: Addresses<u64> = 0xE_0000..0x10_0000;
/// Conventional memory but for page 0, which is not mapped so that null is nothing.
const LOW: Addresses<u64> = 0x1000..0xA_0000;
/// Where other processors start: conventional memory that no loader leaves anything in by now.
pub(crate) const TRAMPOLINE: u64 = 0x8000;

static HAS_HEAP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static boot_stack_guard: u8;
}

/// Whether memory can be allocated.
pub(crate) fn has_heap() -> bool {
    HAS_HEAP.load(Ordering::Acquire)
}

/// MiB of free memory.
pub(crate) fn free_mib() -> u64 {
    memory::free_and_total().0 / MIB
}

/// Makes a heap of what is free, and page tables of our own.
pub(crate) fn set_up(boot: &Boot) {
    let (low, high) = free(boot);
    // SAFETY: free by the map, below 4 GiB, where the entry has mapped everything.
    unsafe { physical::give(&low) }
    HAS_HEAP.store(true, Ordering::Release);
    match tables(boot) {
        Ok(tables) => {
            let root = tables.root();
            physical::set_tables(tables);
            // SAFETY: they map the image, the stack, and all memory of the map.
            unsafe { cpu::load_root(root) }
        }
        Err(error) => {
            log!("{error}");
            cpu::halt_for_ever();
        }
    }
    // SAFETY: free by the map, and mapped now.
    unsafe { physical::give(&high) }
}

/// What is free below and above 4 GiB.
fn free(boot: &Boot) -> (Ranges, Ranges) {
    let (mut low, mut high) = (Ranges::new(), Ranges::new());
    boot.regions(&mut |region| {
        if region.kind == RegionKind::Usable {
            low.give(Range { start: region.start.max(MIB), end: region.end().min(GIB_4) });
            high.give(Range { start: region.start.max(GIB_4), end: region.end() });
        }
    });
    // A region that somebody lists as something else too isn't free.
    boot.regions(&mut |region| {
        if region.kind != RegionKind::Usable {
            low.remove(Range { start: region.start, end: region.end() });
            high.remove(Range { start: region.start, end: region.end() });
        }
    });
    let image = image();
    low.remove(Range { start: image.start, end: image.end });
    boot.occupied(&mut |range| {
        low.remove(range);
        high.remove(range);
    });
    (low, high)
}

fn tables(boot: &Boot) -> Result<PageTables<Identity>, OutOfTables> {
    let mut tables = PageTables::new(Identity)?;
    let mut result = Ok(());
    boot.regions(&mut |region| {
        let above = region.start.max(MIB)..region.end();
        let rights = match region.kind {
            RegionKind::Usable => Rights::ReadWrite,
            RegionKind::AcpiTables => Rights::Read,
            RegionKind::AcpiNvs | RegionKind::Reserved => return,
        };
        let whole = above.start.next_multiple_of(PAGE)..above.end & !(PAGE - 1);
        if result.is_ok() && !whole.is_empty() {
            result = tables.map(whole.clone(), whole.start, rights);
        }
    });
    tables.map(LOW, LOW.start, Rights::ReadWrite)?;
    tables.map(FIRMWARE, FIRMWARE.start, Rights::Read)?;
    // A loader may leave things in memory that the map doesn't list as free.
    boot.occupied(&mut |range| {
        let pages = range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE);
        for page in pages.step_by(PAGE as usize) {
            if result.is_ok() && tables.find(page).is_none() {
                result = tables.map(page..page + PAGE, page, Rights::Read);
            }
        }
    });
    result?;
    let image = image();
    for (part, rights) in [
        (image.start..image.text_end, Rights::ReadExecute),
        (image.text_end..image.rodata_end, Rights::Read),
        (image.rodata_end..image.end, Rights::ReadWrite),
    ] {
        tables.map(part.clone(), part.start, rights)?;
    }
    let guard = (&raw const boot_stack_guard).addr() as u64;
    tables.unmap(guard..guard + PAGE)?;
    Ok(tables)
}

/// Maps a device's registers, if they aren't.
pub(crate) fn map_device(at: u64, len: u64) {
    // SAFETY: what is there is a device's; it may be mapped already, in the same way.
    let mapped = unsafe { physical::map(at..at.saturating_add(len), Rights::Device) };
    if let Err(error) = mapped {
        log!("{error}: a device at {at:#x} stays without registers");
    }
    cpu::flush_tlb();
}

/// A stack of so many bytes with an unmapped page below; gives its top.
pub(crate) fn new_stack(len: u64) -> Option<u64> {
    let at = physical::take(len + PAGE, PAGE, MIB..u64::MAX)?;
    // SAFETY: just taken; nobody uses the page.
    unsafe { physical::unmap(at..at + PAGE) }.ok()?;
    cpu::flush_tlb();
    Some(at + PAGE + len)
}

/// Firmware's tables, mapped as they are asked for.
pub(crate) struct FirmwareMemory;

impl kasane_metal_acpi::Memory for FirmwareMemory {
    fn bytes(&self, at: u64, len: u64) -> Option<&[u8]> {
        let end = at.checked_add(len).filter(|end| *end < 1 << 46)?;
        if at == 0 {
            return None;
        }
        let mut page = at & !(PAGE - 1);
        while page < end {
            if !physical::is_mapped(page..page + 1) {
                // SAFETY: nothing was mapped there.
                unsafe { physical::map(page..page + PAGE, Rights::Read) }.ok()?;
            }
            page = page.checked_add(PAGE)?;
        }
        // SAFETY: mapped; firmware doesn't write its tables any more.
        Some(unsafe { physical::bytes(at, len) })
    }
}
