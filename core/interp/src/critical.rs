//! The critical instructions: those that a virtual machine monitor must not let the processor run
//! as they are.
//!
//! *Sensitive* is what reads or changes the state of the machine that a monitor keeps to itself.
//! Popek and Goldberg's theorem (1974) wants all of these to trap outside the most privileged ring.
//! On x86 some don't: they were found and named by J. S. Robin and C. E. Irvine, "Analysis of the
//! Intel Pentium's Ability to Support a Secure Virtual Machine Monitor" (USENIX Security 2000), and
//! are why a monitor without help of the hardware translates. Here they are with their kin: IRET,
//! INT3, INTO and INT1, and the LDS group, which loads segment registers as MOV and POP do. The
//! second group are the privileged ones (SDM vol. 3A §5.9, with those that IOPL guards, and later
//! ones), which would trap.

use core::iter::zip;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use kasane_cpu::engine::{CriticalCount, CriticalGroup};

/// Names each with its group and the name for people.
macro_rules! instructions {
    ($($instruction:ident $group:ident $name:literal)*) => {
        /// A critical instruction, whatever its operands' sizes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // each is named as in the manual
        pub enum CriticalInstruction { $($instruction,)* }

        impl CriticalInstruction {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$instruction,)*];

            /// As in the manual, in small letters.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$instruction => $name,)* }
            }
            /// Whether it traps by itself.
            #[must_use]
            pub const fn group(self) -> CriticalGroup {
                match self { $(Self::$instruction => CriticalGroup::$group,)* }
            }
        }

        const COUNT: usize = [$(CriticalInstruction::$instruction,)*].len();
    };
}

instructions! {
    Sgdt Unprivileged "sgdt"
    Sidt Unprivileged "sidt"
    Sldt Unprivileged "sldt"
    Smsw Unprivileged "smsw"
    Str Unprivileged "str"
    Pushf Unprivileged "pushf"
    Popf Unprivileged "popf"
    Lar Unprivileged "lar"
    Lsl Unprivileged "lsl"
    Verr Unprivileged "verr"
    Verw Unprivileged "verw"
    PushSegment Unprivileged "push segment"
    PopSegment Unprivileged "pop segment"
    MovFromSegment Unprivileged "mov from segment"
    MovToSegment Unprivileged "mov to segment"
    LoadFarPointer Unprivileged "lds, les, lfs, lgs, lss"
    CallFar Unprivileged "call far"
    JmpFar Unprivileged "jmp far"
    RetFar Unprivileged "ret far"
    Int Unprivileged "int"
    Iret Unprivileged "iret"
    Cli Privileged "cli"
    Sti Privileged "sti"
    Hlt Privileged "hlt"
    Clts Privileged "clts"
    Lmsw Privileged "lmsw"
    MovFromControl Privileged "mov from cr"
    MovToControl Privileged "mov to cr"
    MovFromDebug Privileged "mov from dr"
    MovToDebug Privileged "mov to dr"
    Lgdt Privileged "lgdt"
    Lidt Privileged "lidt"
    Lldt Privileged "lldt"
    Ltr Privileged "ltr"
    Invlpg Privileged "invlpg"
    Invpcid Privileged "invpcid"
    Invd Privileged "invd"
    Wbinvd Privileged "wbinvd"
    In Privileged "in"
    Out Privileged "out"
    Ins Privileged "ins"
    Outs Privileged "outs"
    Rdmsr Privileged "rdmsr"
    Wrmsr Privileged "wrmsr"
    Rdpmc Privileged "rdpmc"
    Xsetbv Privileged "xsetbv"
    Swapgs Privileged "swapgs"
    Sysret Privileged "sysret"
    Sysexit Privileged "sysexit"
    Stac Privileged "stac"
    Clac Privileged "clac"
}

impl CriticalInstruction {
    /// Which it is, if it is one.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Option<Self> {
        let register = |n: u32, is: fn(Register) -> bool| {
            instruction.op_kind(n) == OpKind::Register && is(instruction.op_register(n))
        };
        Some(match instruction.mnemonic() {
            Mnemonic::Mov => {
                if register(0, Register::is_segment_register) {
                    Self::MovToSegment
                } else if register(1, Register::is_segment_register) {
                    Self::MovFromSegment
                } else if register(0, Register::is_cr) {
                    Self::MovToControl
                } else if register(1, Register::is_cr) {
                    Self::MovFromControl
                } else if register(0, Register::is_dr) {
                    Self::MovToDebug
                } else if register(1, Register::is_dr) {
                    Self::MovFromDebug
                } else {
                    return None;
                }
            }
            Mnemonic::Push if register(0, Register::is_segment_register) => Self::PushSegment,
            Mnemonic::Pop if register(0, Register::is_segment_register) => Self::PopSegment,
            Mnemonic::Jmp | Mnemonic::Call => return far(instruction.code()),
            other => return by_mnemonic(other),
        })
    }
}

fn far(code: Code) -> Option<CriticalInstruction> {
    match code {
        Code::Jmp_ptr1616
        | Code::Jmp_ptr1632
        | Code::Jmp_m1616
        | Code::Jmp_m1632
        | Code::Jmp_m1664 => Some(CriticalInstruction::JmpFar),
        Code::Call_ptr1616
        | Code::Call_ptr1632
        | Code::Call_m1616
        | Code::Call_m1632
        | Code::Call_m1664 => Some(CriticalInstruction::CallFar),
        _ => None,
    }
}

fn by_mnemonic(mnemonic: Mnemonic) -> Option<CriticalInstruction> {
    use CriticalInstruction as C;
    Some(match mnemonic {
        Mnemonic::Sgdt => C::Sgdt,
        Mnemonic::Sidt => C::Sidt,
        Mnemonic::Sldt => C::Sldt,
        Mnemonic::Smsw => C::Smsw,
        Mnemonic::Str => C::Str,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => C::Pushf,
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => C::Popf,
        Mnemonic::Lar => C::Lar,
        Mnemonic::Lsl => C::Lsl,
        Mnemonic::Verr => C::Verr,
        Mnemonic::Verw => C::Verw,
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            C::LoadFarPointer
        }
        Mnemonic::Retf => C::RetFar,
        Mnemonic::Int | Mnemonic::Int1 | Mnemonic::Int3 | Mnemonic::Into => C::Int,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => C::Iret,
        other => return privileged(other),
    })
}

fn privileged(mnemonic: Mnemonic) -> Option<CriticalInstruction> {
    use CriticalInstruction as C;
    Some(match mnemonic {
        Mnemonic::Cli => C::Cli,
        Mnemonic::Sti => C::Sti,
        Mnemonic::Hlt => C::Hlt,
        Mnemonic::Clts => C::Clts,
        Mnemonic::Lmsw => C::Lmsw,
        Mnemonic::Lgdt => C::Lgdt,
        Mnemonic::Lidt => C::Lidt,
        Mnemonic::Lldt => C::Lldt,
        Mnemonic::Ltr => C::Ltr,
        Mnemonic::Invlpg => C::Invlpg,
        Mnemonic::Invpcid => C::Invpcid,
        Mnemonic::Invd => C::Invd,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => C::Wbinvd,
        Mnemonic::In => C::In,
        Mnemonic::Out => C::Out,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => C::Ins,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => C::Outs,
        Mnemonic::Rdmsr => C::Rdmsr,
        Mnemonic::Wrmsr => C::Wrmsr,
        Mnemonic::Rdpmc => C::Rdpmc,
        Mnemonic::Xsetbv => C::Xsetbv,
        Mnemonic::Swapgs => C::Swapgs,
        Mnemonic::Sysret | Mnemonic::Sysretq => C::Sysret,
        Mnemonic::Sysexit | Mnemonic::Sysexitq => C::Sysexit,
        Mnemonic::Stac => C::Stac,
        Mnemonic::Clac => C::Clac,
        _ => return None,
    })
}

/// What is counted of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Places in the guest's code that a translator met.
    pub met: u64,
    /// Those of them that it translated to code that does the instruction.
    pub translated: u64,
    /// Times that the interpreter did it.
    pub trapped: u64,
}

/// What is counted of all.
#[derive(Clone, Debug)]
pub struct Critical([Counts; COUNT]);

impl Default for Critical {
    fn default() -> Self {
        Self([Counts::default(); COUNT])
    }
}

impl Critical {
    /// The counts of one.
    pub fn of(&mut self, which: CriticalInstruction) -> &mut Counts {
        let [first, rest @ ..] = &mut self.0;
        (which as usize).checked_sub(1).and_then(|n| rest.get_mut(n)).unwrap_or(first)
    }
    /// The interpreter did one.
    pub(crate) fn trapped(&mut self, which: CriticalInstruction) {
        let count = self.of(which);
        count.trapped = count.trapped.wrapping_add(1);
    }
    /// Those that came up, with `places` of a translator, in the order of
    /// [`CriticalInstruction::ALL`].
    pub(crate) fn named(&self, places: &Self) -> alloc::vec::Vec<CriticalCount> {
        let all = zip(CriticalInstruction::ALL, zip(&self.0, &places.0));
        let named = all.map(|(which, (done, met))| CriticalCount {
            name: which.name(),
            group: which.group(),
            met: met.met,
            translated: met.translated,
            trapped: done.trapped,
        });
        named.filter(|count| count.met != 0 || count.trapped != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn name(bits: u32, bytes: &[u8]) -> Option<&'static str> {
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        assert!(!instruction.is_invalid());
        CriticalInstruction::of(&instruction).map(CriticalInstruction::name)
    }

    #[test]
    fn instructions_are_told_apart_by_their_operands() {
        assert_eq!(name(64, &[0x8C, 0xD8]), Some("mov from segment"));
        assert_eq!(name(64, &[0x8E, 0xD8]), Some("mov to segment"));
        assert_eq!(name(64, &[0x0F, 0x20, 0xD8]), Some("mov from cr"));
        assert_eq!(name(64, &[0x0F, 0x22, 0xD8]), Some("mov to cr"));
        assert_eq!(name(64, &[0x0F, 0x23, 0xF8]), Some("mov to dr"));
        assert_eq!(name(64, &[0x48, 0x89, 0xD8]), None);
        assert_eq!(name(32, &[0x1E]), Some("push segment"));
        assert_eq!(name(32, &[0x1F]), Some("pop segment"));
        assert_eq!(name(32, &[0x50]), None);
        assert_eq!(name(64, &[0xFF, 0x28]), Some("jmp far"));
        assert_eq!(name(64, &[0xFF, 0x20]), None);
        assert_eq!(name(64, &[0xCB]), Some("ret far"));
        assert_eq!(name(64, &[0xC3]), None);
    }

    #[test]
    fn sizes_make_no_difference() {
        for prefix in [&[][..], &[0x66]] {
            assert_eq!(name(32, &[prefix, &[0x9D]].concat()), Some("popf"));
            assert_eq!(name(64, &[prefix, &[0x9C]].concat()), Some("pushf"));
            assert_eq!(name(32, &[prefix, &[0xCF]].concat()), Some("iret"));
        }
        assert_eq!(name(64, &[0x0F, 0x01, 0xE0]), Some("smsw"));
        assert_eq!(name(64, &[0x0F, 0x01, 0x04, 0x24]), Some("sgdt"));
    }

    #[test]
    fn each_has_counts_of_its_own() {
        let mut critical = Critical::default();
        for which in CriticalInstruction::ALL {
            critical.trapped(*which);
        }

        assert!(critical.0.iter().all(|counts| counts.trapped == 1));
    }
}
