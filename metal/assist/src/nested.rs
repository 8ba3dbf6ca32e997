//! Nested page tables: a guest's RAM, all of it, where it is.

use alloc::sync::Arc;

use kasane_memory::{Ram, SlotKind};
use kasane_metal_memory::PAGE;
use kasane_metal_memory::tables::{Format, OutOfTables, PageTables, Rights, TableMemory};

/// The tables of a machine, with their memory.
pub struct Nested<M> {
    tables: PageTables<M>,
    /// What they map lives as long.
    _ram: Arc<Ram>,
}

impl<M: TableMemory> Nested<M> {
    /// Tables for all slots. The hypervisor runs identity-mapped, so a host address is physical.
    ///
    /// # Errors
    /// Without memory for them.
    pub fn new(ram: &Arc<Ram>, memory: M, format: Format) -> Result<Self, OutOfTables> {
        let mut tables = PageTables::with_format(memory, format)?;
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
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.tables.root()
    }
}
