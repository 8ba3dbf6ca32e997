//! The assembler of the way in, and what it has to do with Rust.

use core::arch::global_asm;

global_asm!(include_str!("entry.s"), options(att_syntax));
global_asm!(include_str!("trampoline.s"), options(att_syntax));

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// Where the parts of the image are; each ends at the beginning of the next. All multiples of 4096.
#[derive(Clone, Copy, Debug)]
pub struct ImageLayout {
    /// Boot headers and code.
    pub start: u64,
    /// Code ends, constants begin.
    pub text_end: u64,
    /// Constants end, data begins.
    pub rodata_end: u64,
    /// The end, BSS and boot stack included.
    pub end: u64,
}

/// Where the image is.
#[must_use]
pub fn image() -> ImageLayout {
    ImageLayout {
        start: (&raw const __image_start).addr() as u64,
        text_end: (&raw const __text_end).addr() as u64,
        rodata_end: (&raw const __rodata_end).addr() as u64,
        end: (&raw const __image_end).addr() as u64,
    }
}

/// Room that the trampoline has, with its parameters in the last 64 bytes.
pub const TRAMPOLINE_LEN: usize = 4096;

/// What `trampoline.s` reads at offset 4032 of its page.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ApParameters {
    /// Page tables (below 4 GiB).
    pub cr3: u64,
    /// Top of the stack.
    pub stack: u64,
    /// Number of the processor: the argument of the entry.
    pub index: u64,
    /// `extern "C" fn(u64) -> !`.
    pub entry: u64,
}

/// The code with which an application processor starts: position-independent, for any page below
/// 1 MiB.
#[must_use]
pub fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const ap_trampoline, &raw const ap_trampoline_end);
    let len = end.addr().wrapping_sub(start.addr());
    // SAFETY: both symbols are in the image's constants, in this order.
    unsafe { core::slice::from_raw_parts(start, len) }
}
