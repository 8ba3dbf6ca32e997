//! Why a guest exited (SDM vol. 3D appendix C).

use kasane_metal_assist::Reason;

/// What an exit wants done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A non-maskable interrupt came, which the exit has taken: its handler is to be called.
    Nmi,
    /// Anything else.
    For(Reason),
}

const EXCEPTION_OR_NMI: u32 = 0;
const EXTERNAL_INTERRUPT: u32 = 1;
const TRIPLE_FAULT: u32 = 2;
const INIT: u32 = 3;
const OTHER_SMI: u32 = 6;
const INTERRUPT_WINDOW: u32 = 7;
const TASK_SWITCH: u32 = 9;
const WRMSR: u32 = 32;
const MWAIT: u32 = 36;
const MONITOR: u32 = 39;
const PAUSE: u32 = 40;
const EPT_VIOLATION: u32 = 48;
const INVEPT: u32 = 50;
const RDTSCP: u32 = 51;
const PREEMPTION_TIMER: u32 = 52;
const INVVPID: u32 = 53;
const XSETBV: u32 = 55;
const INVPCID: u32 = 58;
const VMFUNC: u32 = 59;
/// The entry failed: nothing ran.
const ENTRY_FAILED: u32 = 1 << 31;
/// Bits 8 to 10 of an event: its type.
const TYPE: u32 = 7 << 8;
const TYPE_NMI: u32 = 2 << 8;

/// What to do about an exit: by its reason and, of an exception or NMI, the event.
///
/// A task switch is done by the interpreter, with the instruction that wants it. If an exception
/// wants it, the instruction raises that again.
#[must_use]
pub const fn exit(reason: u32, event: u32) -> Exit {
    Exit::For(match reason {
        EXCEPTION_OR_NMI if event & TYPE == TYPE_NMI => return Exit::Nmi,
        EXTERNAL_INTERRUPT | INIT..=OTHER_SMI | PREEMPTION_TIMER => Reason::Host,
        INTERRUPT_WINDOW => Reason::Window,
        TRIPLE_FAULT => Reason::Shutdown,
        EXCEPTION_OR_NMI
        | TASK_SWITCH..=WRMSR
        | MWAIT
        | MONITOR
        | PAUSE
        | INVEPT
        | RDTSCP
        | INVVPID..=XSETBV
        | INVPCID
        | VMFUNC => Reason::Instruction,
        EPT_VIOLATION => Reason::NestedFault,
        _ if reason & ENTRY_FAILED != 0 => Reason::Invalid,
        _ => Reason::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_answer() {
        let reasons = |list: &[u32]| {
            list.iter().map(|reason| exit(*reason, 0x306)).collect::<std::vec::Vec<_>>()
        };
        let all = |reason, count| std::vec![Exit::For(reason); count];

        // CPUID, HLT, VMXON, CR access, I/O, RDMSR, MWAIT, RDTSCP, WBINVD, XSETBV
        let instructions = [0, 10, 12, 27, 28, 30, 31, 36, 51, 54, 55];
        assert_eq!(reasons(&instructions), all(Reason::Instruction, 11));
        assert_eq!(reasons(&[1, 3, 52]), all(Reason::Host, 3));
        // A state that the processor refuses, and an MSR.
        assert_eq!(reasons(&[0x8000_0021, 0x8000_0022]), all(Reason::Invalid, 2));
        // A wrong entry of the extended tables would be ours.
        assert_eq!(reasons(&[49, 200]), all(Reason::Unknown, 2));
        assert_eq!(exit(0, 0x8000_0202), Exit::Nmi);
    }
}
