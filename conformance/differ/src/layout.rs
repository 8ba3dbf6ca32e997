//! Where everything lies in the address space that both sides see.
//!
//! All of it is below 2 GiB, so that 32-bit addresses reach it and the trampoline can name its
//! own data absolutely, without a register. What is not listed is unmapped on both sides, or
//! (the test program itself, high up) so unlikely to be hit that a hit is a report worth reading.
//! A test that hits the trampoline's two pages, which only the real CPU has, is unfit: among
//! millions of tests there are some.

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// The trampoline: how the real CPU enters and leaves a test. Not mapped for the interpreter.
pub const TRAMPOLINE: u64 = 0x6AB3_D000;
/// The trampoline's data; see `native`.
pub const STATE: u64 = 0x6AB3_E000;
/// Where a test goes when it is done.
pub const EXIT: u64 = TRAMPOLINE + 0x400;
/// Linux's selectors for user code and data.
pub const USER_CS64: u16 = 0x33;
/// 32-bit code.
pub const USER_CS32: u16 = 0x23;
/// Data and stack.
pub const USER_DS: u16 = 0x2B;
/// Two pages of code: readable and executable for the test, filled with INT3.
pub const CODE: u64 = 0x1010_0000;
/// Two pages of data that may be written, then one that may only be read. Around them nothing.
pub const DATA: u64 = 0x1018_0000;
/// Two more pages of code, which the test may write to: only blocks run there.
pub const OPEN_CODE: u64 = 0x1015_4000;
/// Pages of code that may be written.
pub const OPEN_PAGES: usize = 2;
/// Pages of code.
pub const CODE_PAGES: usize = 2;
/// Pages of data.
pub const DATA_PAGES: usize = 3;
/// Pages of data that may be written; the first ones.
pub const WRITABLE_PAGES: usize = 2;
/// End of the code.
pub const CODE_END: u64 = CODE + (CODE_PAGES * PAGE) as u64;
/// First read-only byte.
pub const READ_ONLY: u64 = DATA + (WRITABLE_PAGES * PAGE) as u64;
/// End of the data.
pub const DATA_END: u64 = DATA + (DATA_PAGES * PAGE) as u64;
/// What fills the code pages.
pub const INT3: u8 = 0xCC;

/// Whether an access at an address reaches the trampoline or its data.
#[must_use]
pub fn reaches_trampoline(address: u64) -> bool {
    const WIDEST: u64 = 64;
    (TRAMPOLINE - WIDEST..STATE + PAGE as u64).contains(&address)
}

/// Whether an address is in the code pages.
#[must_use]
pub fn in_code(address: u64) -> bool {
    (CODE..CODE_END).contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trampoline_is_reached_from_a_little_before_it_to_the_end_of_its_data() {
        let reached = [TRAMPOLINE - 64, TRAMPOLINE, EXIT, STATE, STATE + 4095];
        let not = [TRAMPOLINE - 65, STATE + 4096, CODE, DATA_END];

        assert!(reached.into_iter().all(reaches_trampoline));
        assert!(!not.into_iter().any(reaches_trampoline));
    }
}
