//! Exception vectors (SDM vol. 3A §6.3.1) and page-fault error codes (§4.7).

/// Divide error.
pub const DE: u8 = 0;
/// Debug.
pub const DB: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Breakpoint.
pub const BP: u8 = 3;
/// Overflow.
pub const OF: u8 = 4;
/// BOUND range exceeded.
pub const BR: u8 = 5;
/// Invalid opcode.
pub const UD: u8 = 6;
/// Device not available.
pub const NM: u8 = 7;
/// Double fault; error code 0.
pub const DF: u8 = 8;
/// Invalid TSS; error code.
pub const TS: u8 = 10;
/// Segment not present; error code.
pub const NP: u8 = 11;
/// Stack fault; error code.
pub const SS: u8 = 12;
/// General protection; error code.
pub const GP: u8 = 13;
/// Page fault; error code.
pub const PF: u8 = 14;
/// x87 floating point.
pub const MF: u8 = 16;
/// Alignment check; error code 0.
pub const AC: u8 = 17;
/// Machine check.
pub const MC: u8 = 18;
/// SIMD floating point.
pub const XM: u8 = 19;

/// Bits of a page fault's error code.
pub mod page_fault {
    /// The page was present: a protection violation.
    pub const P: u32 = 1 << 0;
    /// A write.
    pub const W: u32 = 1 << 1;
    /// From user mode.
    pub const U: u32 = 1 << 2;
    /// A reserved bit was set in a paging structure.
    pub const RSVD: u32 = 1 << 3;
    /// An instruction fetch (only with NX or SMEP enabled).
    pub const I: u32 = 1 << 4;
}

/// Bits of the error code of segment-related exceptions (SDM vol. 3A §6.13).
pub mod selector_error {
    /// The event came from outside the program.
    pub const EXT: u32 = 1 << 0;
    /// The index is of an IDT gate.
    pub const IDT: u32 = 1 << 1;
    /// The index is of the LDT.
    pub const TI: u32 = 1 << 2;
}
