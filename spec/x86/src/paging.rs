//! Paging-structure entries (SDM vol. 3A §4).

/// Present.
pub const P: u64 = 1 << 0;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User.
pub const US: u64 = 1 << 2;
/// Write-through.
pub const PWT: u64 = 1 << 3;
/// Cache disable.
pub const PCD: u64 = 1 << 4;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Page size: this entry maps a large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// No-execute.
pub const NX: u64 = 1 << 63;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// Offset bits of a page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;
