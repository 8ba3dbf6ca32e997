//! Numbers of the control structure's fields (SDM vol. 3D appendix B).

/// Fields, by whatever reads and writes them.
pub trait Fields {
    /// The value of a field.
    fn read(&self, field: u32) -> u64;
    /// Sets it.
    fn write(&mut self, field: u32, value: u64);
}

/// What is controlled.
pub mod control {
    /// Tag of the guest's translations, 16 bits, not 0.
    pub const VPID: u32 = 0x0000;
    /// Physical address of the MSR bitmap.
    pub const MSR_BITMAP: u32 = 0x2004;
    /// Where exits store MSRs: address and count.
    pub const EXIT_MSR_STORE: [u32; 2] = [0x2006, 0x400E];
    /// Where entries load MSRs from: address and count.
    pub const ENTRY_MSR_LOAD: [u32; 2] = [0x200A, 0x4014];
    /// Where exits load MSRs from: count.
    pub const EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
    /// Added to the time-stamp counter.
    pub const TSC_OFFSET: u32 = 0x2010;
    /// The extended page tables.
    pub const EPT_POINTER: u32 = 0x201A;
    /// What exits of what happens outside.
    pub const PIN_BASED: u32 = 0x4000;
    /// What exits of what the guest does.
    pub const PROCESSOR_BASED: u32 = 0x4002;
    /// Exceptions that exit, a bit for each vector.
    pub const EXCEPTIONS: u32 = 0x4004;
    /// Targets of MOV to CR3 that don't exit: how many.
    pub const CR3_TARGETS: u32 = 0x400A;
    /// How exits go.
    pub const EXIT: u32 = 0x400C;
    /// How entries go.
    pub const ENTRY: u32 = 0x4012;
    /// The event that is delivered at entry.
    pub const ENTRY_EVENT: u32 = 0x4016;
    /// More of what exits.
    pub const SECONDARY: u32 = 0x401E;
    /// Bits of CR0 and CR4 that are the hypervisor's.
    pub const OWNED: [u32; 2] = [0x6000, 0x6002];
    /// What the guest reads of those.
    pub const SHADOWS: [u32; 2] = [0x6004, 0x6006];
}

/// What an exit tells.
pub mod exit {
    /// Why an instruction of the hypervisor's failed.
    pub const INSTRUCTION_ERROR: u32 = 0x4400;
    /// Why the guest exited.
    pub const REASON: u32 = 0x4402;
    /// The exception or NMI.
    pub const EVENT: u32 = 0x4404;
    /// More about that.
    pub const QUALIFICATION: u32 = 0x6400;
}

/// The guest's state.
#[allow(missing_docs)] // the manual's names
pub mod guest {
    /// ES, CS, SS, DS, FS, GS, LDTR, TR: selectors, limits, access rights, bases, two apart.
    pub const SELECTORS: u32 = 0x0800;
    pub const LIMITS: u32 = 0x4800;
    pub const ACCESS: u32 = 0x4814;
    pub const BASES: u32 = 0x6806;
    pub const LINK: u32 = 0x2800;
    pub const DEBUGCTL: u32 = 0x2802;
    pub const PAT: u32 = 0x2804;
    pub const EFER: u32 = 0x2806;
    pub const PDPTES: [u32; 4] = [0x280A, 0x280C, 0x280E, 0x2810];
    pub const GDTR_LIMIT: u32 = 0x4810;
    pub const IDTR_LIMIT: u32 = 0x4812;
    pub const INTERRUPTIBILITY: u32 = 0x4824;
    pub const ACTIVITY: u32 = 0x4826;
    pub const SYSENTER_CS: u32 = 0x482A;
    pub const PREEMPTION_TIMER: u32 = 0x482E;
    pub const CR0: u32 = 0x6800;
    pub const CR3: u32 = 0x6802;
    pub const CR4: u32 = 0x6804;
    pub const GDTR_BASE: u32 = 0x6816;
    pub const IDTR_BASE: u32 = 0x6818;
    pub const DR7: u32 = 0x681A;
    pub const RSP: u32 = 0x681C;
    pub const RIP: u32 = 0x681E;
    pub const RFLAGS: u32 = 0x6820;
    pub const PENDING_DEBUG: u32 = 0x6822;
    pub const SYSENTER_ESP: u32 = 0x6824;
    pub const SYSENTER_EIP: u32 = 0x6826;
}

/// What exits load of the hypervisor's state.
#[allow(missing_docs)] // the manual's names
pub mod host {
    pub const ES: u32 = 0x0C00;
    pub const CS: u32 = 0x0C02;
    pub const SS: u32 = 0x0C04;
    pub const DS: u32 = 0x0C06;
    pub const FS: u32 = 0x0C08;
    pub const GS: u32 = 0x0C0A;
    pub const TR: u32 = 0x0C0C;
    pub const PAT: u32 = 0x2C00;
    pub const EFER: u32 = 0x2C02;
    pub const SYSENTER_CS: u32 = 0x4C00;
    pub const CR0: u32 = 0x6C00;
    pub const CR3: u32 = 0x6C02;
    pub const CR4: u32 = 0x6C04;
    pub const FS_BASE: u32 = 0x6C06;
    pub const GS_BASE: u32 = 0x6C08;
    pub const TR_BASE: u32 = 0x6C0A;
    pub const GDTR_BASE: u32 = 0x6C0C;
    pub const IDTR_BASE: u32 = 0x6C0E;
    pub const SYSENTER_ESP: u32 = 0x6C10;
    pub const SYSENTER_EIP: u32 = 0x6C12;
    pub const RIP: u32 = 0x6C16;
}
