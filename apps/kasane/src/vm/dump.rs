//! A processor's registers for a person.

use std::fmt;

use kasane_cpu::CpuState;
use kasane_cpu::SegmentRegister;

/// Prints general, segment and control registers.
#[derive(Clone, Copy, Debug)]
pub struct Registers<'a>(pub &'a CpuState);

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

impl fmt::Display for Registers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        write!(f, "rip {:016x}  rflags {:08x}", s.rip, s.rflags)?;
        for (at, (name, value)) in NAMES.iter().zip(&s.gpr).enumerate() {
            let before = if at.is_multiple_of(4) { "\n" } else { "  " };
            write!(f, "{before}{name:<3} {value:016x}")?;
        }
        let segments: [(&str, &SegmentRegister); 8] = [
            ("cs", &s.cs),
            ("ss", &s.ss),
            ("ds", &s.ds),
            ("es", &s.es),
            ("fs", &s.fs),
            ("gs", &s.gs),
            ("ldt", &s.ldtr),
            ("tr", &s.tr),
        ];
        for (name, one) in segments {
            let SegmentRegister { selector, access, limit, base } = one;
            write!(f, "\n{name:<3} {selector:04x} base {base:016x} limit {limit:08x} ")?;
            write!(f, "access {access:05x}")?;
        }
        write!(f, "\ngdt base {:016x} limit {:04x}", s.gdtr.base, s.gdtr.limit)?;
        write!(f, "  idt base {:016x} limit {:04x}", s.idtr.base, s.idtr.limit)?;
        write!(f, "\ncr0 {:08x}  cr2 {:016x}  cr3 {:016x}", s.cr0, s.cr2, s.cr3)?;
        write!(f, "  cr4 {:08x}  efer {:04x}", s.cr4, s.efer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_after_reset() {
        let state = CpuState::reset(true);
        let text = Registers(&state).to_string();
        let lines: Vec<&str> = text.lines().collect();

        assert_eq!(lines[0], "rip 000000000000fff0  rflags 00000002");
        assert_eq!(lines[5], "cs  f000 base 00000000ffff0000 limit 0000ffff access 0009b");
        assert_eq!(lines.len(), 15);
    }
}
