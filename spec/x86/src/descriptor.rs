//! Segment and gate descriptors (SDM vol. 3A §3.4.5, §5.8, §7.2).

/// The access byte and flags of a segment, as bits 8 to 23 of the descriptor's upper half
/// shifted down by 8 (the form that VMX and KVM use too, less the unusable bit):
/// bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G.
pub mod access {
    /// Type field.
    pub const TYPE: u16 = 0xF;
    /// Code or data (not system).
    pub const S: u16 = 1 << 4;
    /// DPL field's shift.
    pub const DPL_SHIFT: u32 = 5;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Available to software.
    pub const AVL: u16 = 1 << 12;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// Default size / big.
    pub const DB: u16 = 1 << 14;
    /// Limit in pages.
    pub const G: u16 = 1 << 15;
    /// In a code or data type: accessed.
    pub const ACCESSED: u16 = 1 << 0;
    /// Code: readable. Data: writable.
    pub const RW: u16 = 1 << 1;
    /// Code: conforming. Data: expand down.
    pub const DC: u16 = 1 << 2;
    /// Code segment.
    pub const CODE: u16 = 1 << 3;
}

/// System descriptor types (S = 0).
pub mod system {
    /// Available 16-bit TSS.
    pub const TSS16_AVAILABLE: u8 = 1;
    /// LDT.
    pub const LDT: u8 = 2;
    /// Busy 16-bit TSS.
    pub const TSS16_BUSY: u8 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE16: u8 = 4;
    /// Task gate.
    pub const TASK_GATE: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT_GATE16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE16: u8 = 7;
    /// Available 32-bit TSS (64-bit in long mode).
    pub const TSS32_AVAILABLE: u8 = 9;
    /// Busy 32-bit TSS (64-bit in long mode).
    pub const TSS32_BUSY: u8 = 11;
    /// 32-bit call gate (64-bit in long mode).
    pub const CALL_GATE32: u8 = 12;
    /// 32-bit interrupt gate (64-bit in long mode).
    pub const INTERRUPT_GATE32: u8 = 14;
    /// 32-bit trap gate (64-bit in long mode).
    pub const TRAP_GATE32: u8 = 15;
}
