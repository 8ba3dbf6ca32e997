//! The virtual machine control block (APM vol. 2 appendix B): a page of fields at fixed offsets.

/// Offsets in the control area (table B-1).
pub mod control {
    /// Reads of CR0 to CR15 (low half) and writes (high half), 32 bits.
    pub const CR_INTERCEPTS: usize = 0x000;
    /// The same of DR0 to DR15.
    pub const DR_INTERCEPTS: usize = 0x004;
    /// Exceptions, a bit for each vector, 32 bits.
    pub const EXCEPTION_INTERCEPTS: usize = 0x008;
    /// Instructions and events, 32 bits: see [`super::intercept_1`].
    pub const INTERCEPTS_1: usize = 0x00C;
    /// More instructions, 32 bits: see [`super::intercept_2`].
    pub const INTERCEPTS_2: usize = 0x010;
    /// Physical address of the I/O permission map.
    pub const IO_MAP: usize = 0x040;
    /// Physical address of the MSR permission map.
    pub const MSR_MAP: usize = 0x048;
    /// Added to the time-stamp counter.
    pub const TSC_OFFSET: usize = 0x050;
    /// Address space, 32 bits, not 0.
    pub const ASID: usize = 0x058;
    /// What of the TLB is flushed at entry, 8 bits; 1 is all.
    pub const TLB_CONTROL: usize = 0x05C;
    /// Virtual interrupts.
    pub const VIRTUAL_INTERRUPT: usize = 0x060;
    /// Bit 0: in an interrupt shadow.
    pub const INTERRUPT_SHADOW: usize = 0x068;
    /// Why the guest exited.
    pub const EXIT_CODE: usize = 0x070;
    /// More about that.
    pub const EXIT_INFO_1: usize = 0x078;
    /// Still more.
    pub const EXIT_INFO_2: usize = 0x080;
    /// Bit 0: nested paging.
    pub const NESTED_PAGING: usize = 0x090;
    /// The event that is delivered at entry.
    pub const EVENT_INJECTION: usize = 0x0A8;
    /// Physical address of the nested page tables.
    pub const NESTED_CR3: usize = 0x0B0;
}

/// Offsets in the state save area (table B-2).
pub mod save {
    /// ES, CS, SS, DS, FS, GS, 16 bytes each: selector, attributes, limit, base.
    pub const SEGMENTS: usize = 0x400;
    /// GDTR: limit and base as a segment's.
    pub const GDTR: usize = 0x460;
    /// LDTR.
    pub const LDTR: usize = 0x470;
    /// IDTR.
    pub const IDTR: usize = 0x480;
    /// TR.
    pub const TR: usize = 0x490;
    /// Current privilege level, 8 bits.
    pub const CPL: usize = 0x4CB;
    #[allow(missing_docs)] // the manual's names, 64 bits each
    pub mod register {
        pub const EFER: usize = 0x4D0;
        pub const CR4: usize = 0x548;
        pub const CR3: usize = 0x550;
        pub const CR0: usize = 0x558;
        pub const DR7: usize = 0x560;
        pub const DR6: usize = 0x568;
        pub const RFLAGS: usize = 0x570;
        pub const RIP: usize = 0x578;
        pub const RSP: usize = 0x5D8;
        pub const RAX: usize = 0x5F8;
        pub const STAR: usize = 0x600;
        pub const LSTAR: usize = 0x608;
        pub const CSTAR: usize = 0x610;
        pub const SFMASK: usize = 0x618;
        pub const KERNEL_GS_BASE: usize = 0x620;
        pub const SYSENTER_CS: usize = 0x628;
        pub const SYSENTER_ESP: usize = 0x630;
        pub const SYSENTER_EIP: usize = 0x638;
        pub const CR2: usize = 0x640;
        pub const PAT: usize = 0x668;
    }
}

/// Bits of [`control::INTERCEPTS_1`].
#[allow(missing_docs)] // the manual's names
pub mod intercept_1 {
    pub const INTR: u32 = 1;
    pub const NMI: u32 = 1 << 1;
    pub const SMI: u32 = 1 << 2;
    pub const INIT: u32 = 1 << 3;
    pub const VINTR: u32 = 1 << 4;
    pub const RDPMC: u32 = 1 << 15;
    pub const CPUID: u32 = 1 << 18;
    pub const RSM: u32 = 1 << 19;
    pub const IRET: u32 = 1 << 20;
    pub const INVD: u32 = 1 << 22;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const IO: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const FERR_FREEZE: u32 = 1 << 30;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of [`control::INTERCEPTS_2`].
#[allow(missing_docs)] // the manual's names
pub mod intercept_2 {
    pub const VMRUN: u32 = 1;
    pub const VMMCALL: u32 = 1 << 1;
    pub const VMLOAD: u32 = 1 << 2;
    pub const VMSAVE: u32 = 1 << 3;
    pub const STGI: u32 = 1 << 4;
    pub const CLGI: u32 = 1 << 5;
    pub const SKINIT: u32 = 1 << 6;
    pub const RDTSCP: u32 = 1 << 7;
    pub const WBINVD: u32 = 1 << 9;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    pub const MWAIT_ARMED: u32 = 1 << 12;
    pub const XSETBV: u32 = 1 << 13;
}

/// Bits of [`control::VIRTUAL_INTERRUPT`].
pub mod virtual_interrupt {
    /// One is pending.
    pub const PENDING: u64 = 1 << 8;
    /// It comes whatever the task priority is.
    pub const IGNORE_PRIORITY: u64 = 1 << 20;
    /// The guest's IF and CR8 are its own; the host's IF masks physical interrupts.
    pub const MASKING: u64 = 1 << 24;
}

/// A control block. Its memory is a page whose physical address the processor gets.
#[repr(C, align(4096))]
pub struct Vmcb([u8; 4096]);

impl Default for Vmcb {
    fn default() -> Self {
        Self([0; 4096])
    }
}

macro_rules! field {
    ($get:ident, $set:ident, $type:ty) => {
        /// The field at an offset.
        #[must_use]
        pub fn $get(&self, at: usize) -> $type {
            let bytes = self.0.get(at..at.saturating_add(size_of::<$type>()));
            bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, <$type>::from_le_bytes)
        }
        /// Sets the field at an offset.
        pub fn $set(&mut self, at: usize, value: $type) {
            if let Some(bytes) = self.0.get_mut(at..at.saturating_add(size_of::<$type>())) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
    };
}

impl Vmcb {
    field!(u8, set_u8, u8);
    field!(u16, set_u16, u16);
    field!(u32, set_u32, u32);
    field!(u64, set_u64, u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_nothing_is_outside() {
        let mut vmcb = Vmcb::default();
        vmcb.set_u64(control::NESTED_CR3, 0x1122_3344_5566_7788);
        vmcb.set_u64(4090, u64::MAX);

        assert_eq!((vmcb.u8(0xB0), vmcb.u16(0xB6)), (0x88, 0x1122));
        assert_eq!((vmcb.u64(4090), vmcb.u8(4095), size_of::<Vmcb>()), (0, 0, 4096));
    }
}
