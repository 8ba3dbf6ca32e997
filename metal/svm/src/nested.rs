//! Nested page tables: a guest's RAM, all of it, where it is.

use alloc::sync::Arc;

use kasane_memory::{Ram, SlotKind};
use kasane_metal_memory::tables::{OutOfTables, PageTables, Rights};
use kasane_metal_memory::{PAGE, PageFrames};

/// The tables of a machine, with their memory.
pub(crate) struct Nested {
    tables: PageTables<PageFrames>,
    /// What they map lives as long.
    _ram: Arc<Ram>,
}

impl Nested {
    /// Tables for all slots. The hypervisor runs identity-mapped, so a host address is physical.
    pub(crate) fn new(ram: &Arc<Ram>) -> Result<Self, OutOfTables> {
        let mut tables = PageTables::new(PageFrames::default())?;
        for slot in ram.slots().slots() {
            let rights = match slot.kind() {
                SlotKind::Ram => Rights::Guest,
                SlotKind::Rom => Rights::GuestRead,
            };
            let len = slot.len() & !(PAGE - 1);
            let end = slot.base().saturating_add(len);
            tables.map(slot.base()..end, slot.host_address() as u64, rights)?;
        }
        Ok(Self { tables, _ram: Arc::clone(ram) })
    }

    /// Physical address of the top-level table.
    pub(crate) fn root(&self) -> u64 {
        self.tables.root()
    }
}
