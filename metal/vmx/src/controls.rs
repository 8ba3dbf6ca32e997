//! What the processor lets be controlled (SDM vol. 3D appendix A), and what of it is used.

/// A control word's capability MSR: bits that must be one (low half) and that may be (high half).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(pub u64);

impl Allowed {
    /// Whether all of these bits can be set.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        bits & !((self.0 >> 32) as u32) == 0
    }
    /// The word with these bits, as far as they can be set, and those that must be.
    #[must_use]
    pub const fn word(self, bits: u32) -> u32 {
        (bits | self.0 as u32) & (self.0 >> 32) as u32
    }
}

/// Pin-based controls.
#[allow(missing_docs)] // the manual's names
pub mod pin {
    pub const EXTERNAL_INTERRUPT: u32 = 1;
    pub const NMI: u32 = 1 << 3;
    pub const VIRTUAL_NMI: u32 = 1 << 5;
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
    pub const NEEDED: u32 = EXTERNAL_INTERRUPT | NMI | VIRTUAL_NMI;
}

/// Primary processor-based controls.
#[allow(missing_docs)] // the manual's names
pub mod primary {
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub const TSC_OFFSETTING: u32 = 1 << 3;
    pub const HLT: u32 = 1 << 7;
    pub const MWAIT: u32 = 1 << 10;
    pub const RDPMC: u32 = 1 << 11;
    pub const CR8_LOAD: u32 = 1 << 19;
    pub const CR8_STORE: u32 = 1 << 20;
    pub const MOV_DR: u32 = 1 << 23;
    pub const IO: u32 = 1 << 24;
    pub const MSR_BITMAPS: u32 = 1 << 28;
    pub const MONITOR: u32 = 1 << 29;
    pub const SECONDARY: u32 = 1 << 31;
    pub const NEEDED: u32 = INTERRUPT_WINDOW
        | TSC_OFFSETTING
        | HLT
        | MWAIT
        | RDPMC
        | CR8_LOAD
        | CR8_STORE
        | MOV_DR
        | IO
        | MSR_BITMAPS
        | MONITOR
        | SECONDARY;
}

/// Secondary processor-based controls.
#[allow(missing_docs)] // the manual's names
pub mod secondary {
    pub const EPT: u32 = 1 << 1;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD: u32 = 1 << 6;
    pub const UNRESTRICTED: u32 = 1 << 7;
    pub const INVPCID: u32 = 1 << 12;
    pub const NEEDED: u32 = EPT | UNRESTRICTED | WBINVD;
}

/// Exit controls.
#[allow(missing_docs)] // the manual's names
pub mod exit {
    pub const SAVE_DEBUG: u32 = 1 << 2;
    pub const HOST_64: u32 = 1 << 9;
    pub const SAVE_PAT: u32 = 1 << 18;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
    pub const NEEDED: u32 = SAVE_DEBUG | HOST_64 | SAVE_PAT | LOAD_PAT | SAVE_EFER | LOAD_EFER;
}

/// Entry controls.
#[allow(missing_docs)] // the manual's names
pub mod entry {
    pub const LOAD_DEBUG: u32 = 1 << 2;
    pub const LONG_MODE: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
    pub const NEEDED: u32 = LOAD_DEBUG | LONG_MODE | LOAD_PAT | LOAD_EFER;
}

/// IA32_VMX_EPT_VPID_CAP.
pub mod ept {
    /// Four levels, write-back tables, pages of 2 MiB.
    pub const NEEDED: u64 = 1 << 6 | 1 << 14 | 1 << 16;
    /// INVVPID, of one context.
    pub const INVVPID: u64 = 1 << 32 | 1 << 41;
}

/// Everything that a processor says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Identifier of the control structure's form.
    pub revision: u32,
    /// Control words, by the MSRs that tell the truth about their defaults where there are some.
    pub pin: Allowed,
    /// See `pin`.
    pub primary: Allowed,
    /// See `pin`.
    pub secondary: Allowed,
    /// See `pin`.
    pub exit: Allowed,
    /// See `pin`.
    pub entry: Allowed,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept: u64,
    /// The preemption timer counts one when this bit of the time-stamp counter changes.
    pub timer_shift: u32,
    /// Bits that must be one and that may be in CR0 and CR4 while VT-x is on.
    pub cr0: [u64; 2],
    /// See `cr0`.
    pub cr4: [u64; 2],
}

impl Capabilities {
    /// From the MSRs that `read` reads.
    #[must_use]
    pub fn read(read: impl Fn(u32) -> u64) -> Self {
        let basic = read(0x480);
        let base = if basic >> 55 & 1 != 0 { 0x48D } else { 0x481 };
        let primary = Allowed(read(base + 1));
        // Its MSRs are there if the word is.
        let secondary = if primary.has(primary::SECONDARY) { read(0x48B) } else { 0 };
        let both = secondary >> 32 & u64::from(secondary::EPT | secondary::VPID) != 0;
        Self {
            revision: basic as u32 & 0x7FFF_FFFF,
            pin: Allowed(read(base)),
            primary,
            secondary: Allowed(secondary),
            exit: Allowed(read(base + 2)),
            entry: Allowed(read(base + 3)),
            ept: if both { read(0x48C) } else { 0 },
            timer_shift: (read(0x485) & 31) as u32,
            cr0: [read(0x486), read(0x487)],
            cr4: [read(0x488), read(0x489)],
        }
    }

    /// Whether it has all that is needed.
    #[must_use]
    pub const fn suffice(&self) -> bool {
        self.pin.has(pin::NEEDED)
            && self.primary.has(primary::NEEDED)
            && self.secondary.has(secondary::NEEDED)
            && self.exit.has(exit::NEEDED)
            && self.entry.has(entry::NEEDED)
            && self.ept & ept::NEEDED == ept::NEEDED
    }

    /// Whether translations can be tagged and flushed by their tag.
    #[must_use]
    pub const fn tags(&self) -> bool {
        self.secondary.has(secondary::VPID) && self.ept & ept::INVVPID == ept::INVVPID
    }

    /// Whether there is a preemption timer.
    #[must_use]
    pub const fn has_timer(&self) -> bool {
        self.pin.has(pin::PREEMPTION_TIMER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor that has everything, but for bits of one MSR's high half.
    fn without(index: u32, bits: u32) -> Capabilities {
        Capabilities::read(|msr| match msr {
            0x480 => 1 << 55 | 0x2B,
            0x48C => u64::MAX,
            0x485 => 5,
            _ if msr == index => u64::from(!bits) << 32,
            _ => 0xFFFF_FFFF_0000_0016,
        })
    }

    #[test]
    fn what_is_needed_must_be_there_and_the_rest_need_not() {
        let all = without(0, 0);
        let lacking = [
            without(0x48D, pin::VIRTUAL_NMI),
            without(0x48E, primary::MSR_BITMAPS),
            without(0x48E, primary::SECONDARY),
            without(0x48B, secondary::UNRESTRICTED),
            without(0x48F, exit::SAVE_EFER),
            without(0x490, entry::LOAD_PAT),
        ];
        let less = without(0x48B, secondary::VPID);

        assert!(all.suffice() && all.tags() && all.has_timer());
        assert_eq!((all.revision, all.timer_shift), (0x2B, 5));
        assert!(lacking.iter().all(|one| !one.suffice()), "{lacking:?}");
        assert!(less.suffice() && !less.tags());
    }

    #[test]
    fn a_word_has_what_it_must_and_lacks_what_it_can_not_have() {
        let allowed = Allowed(0x0000_00F7_0000_0016);

        assert_eq!(allowed.word(0x189), 0x97);
        assert!(allowed.has(0xF0) && !allowed.has(8));
    }
}
