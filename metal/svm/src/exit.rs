//! Why a guest exited (APM vol. 2 appendix C).

use kasane_metal_assist::Reason;

const READ_CR0: u32 = 0x00;
const WRITE_DR15: u32 = 0x3F;
const EXCEPTION_UD: u32 = 0x46;
const INTR: u32 = 0x60;
const INIT: u32 = 0x63;
const VINTR: u32 = 0x64;
const RDPMC: u32 = 0x6F;
const CPUID: u32 = 0x72;
const SHUTDOWN: u32 = 0x7F;
const VMRUN: u32 = 0x80;
const XSETBV: u32 = 0x8D;
const NESTED_PAGE_FAULT: u32 = 0x400;
const INVALID: u32 = 0xFFFF_FFFF;

/// What to do about an exit. Only the code's low half: QEMU stores that of an invalid state
/// zero-extended.
#[must_use]
pub const fn reason(code: u64) -> Reason {
    match code as u32 {
        INTR..=INIT => Reason::Host,
        VINTR => Reason::Window,
        SHUTDOWN => Reason::Shutdown,
        READ_CR0..=WRITE_DR15 | EXCEPTION_UD | RDPMC | CPUID..0x7F | VMRUN..=XSETBV => {
            Reason::Instruction
        }
        NESTED_PAGE_FAULT => Reason::NestedFault,
        INVALID => Reason::Invalid,
        _ => Reason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_invalid_state_are_known() {
        let invalid = [0xFFFF_FFFF, u64::MAX].map(reason);

        assert_eq!(invalid, [Reason::Invalid; 2]);
    }

    #[test]
    fn intercepted_instructions_are_the_interpreters() {
        let codes = [0x10, 0x14, 0x37, 0x46, 0x72, 0x78, 0x7B, 0x7C, 0x81, 0x8D];

        assert_eq!(codes.map(reason), [Reason::Instruction; 10]);
        assert_eq!(reason(0x4E), Reason::Unknown);
    }
}
