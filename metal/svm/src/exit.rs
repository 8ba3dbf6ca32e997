//! Why a guest exited (APM vol. 2 appendix C).

/// What to do about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An interrupt, NMI, SMI or INIT of the host, which is served by now: go on.
    Host,
    /// The guest can take an interrupt now.
    Window,
    /// The instruction at RIP is the interpreter's.
    Instruction,
    /// An access to memory that the nested tables don't map, or not so: the interpreter does the
    /// instruction, unless an event was just being delivered.
    NestedFault,
    /// A fault while #DF was delivered.
    Shutdown,
    /// The control block is wrong: ours, or a state that the processor can't have.
    Invalid,
    /// Something that was not asked for.
    Unknown,
}

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

impl Reason {
    /// From the exit code. Only its low half: QEMU stores that of an invalid state zero-extended.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code as u32 {
            INTR..=INIT => Self::Host,
            VINTR => Self::Window,
            SHUTDOWN => Self::Shutdown,
            READ_CR0..=WRITE_DR15 | EXCEPTION_UD | RDPMC | CPUID..0x7F | VMRUN..=XSETBV => {
                Self::Instruction
            }
            NESTED_PAGE_FAULT => Self::NestedFault,
            INVALID => Self::Invalid,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_invalid_state_are_known() {
        let invalid = [0xFFFF_FFFF, u64::MAX].map(Reason::from_code);

        assert_eq!(invalid, [Reason::Invalid; 2]);
    }

    #[test]
    fn intercepted_instructions_are_the_interpreters() {
        let codes = [0x10, 0x14, 0x37, 0x46, 0x72, 0x78, 0x7B, 0x7C, 0x81, 0x8D];

        assert_eq!(codes.map(Reason::from_code), [Reason::Instruction; 10]);
        assert_eq!(Reason::from_code(0x4E), Reason::Unknown);
    }
}
