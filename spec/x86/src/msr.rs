//! Model-specific registers (SDM vol. 4, APM vol. 2 appendix A).

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Local APIC base.
pub const APIC_BASE: u32 = 0x1B;
/// Feature control.
pub const FEATURE_CONTROL: u32 = 0x3A;
/// TSC adjust.
pub const TSC_ADJUST: u32 = 0x3B;
/// Microcode revision.
pub const UCODE_REV: u32 = 0x8B;
/// MTRR capabilities.
pub const MTRR_CAP: u32 = 0xFE;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER instruction pointer.
pub const SYSENTER_EIP: u32 = 0x176;
/// Machine-check capabilities.
pub const MCG_CAP: u32 = 0x179;
/// Machine-check status.
pub const MCG_STATUS: u32 = 0x17A;
/// Miscellaneous enables.
pub const MISC_ENABLE: u32 = 0x1A0;
/// First variable-range MTRR base.
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// First fixed-range MTRR.
pub const MTRR_FIX64K_00000: u32 = 0x250;
/// First of the two 16K fixed-range MTRRs.
pub const MTRR_FIX16K_80000: u32 = 0x258;
/// First of the eight 4K fixed-range MTRRs.
pub const MTRR_FIX4K_C0000: u32 = 0x268;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// MTRR default type.
pub const MTRR_DEF_TYPE: u32 = 0x2FF;
/// TSC deadline.
pub const TSC_DEADLINE: u32 = 0x6E0;
/// First x2APIC register.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8FF;
/// Extended features.
pub const EFER: u32 = 0xC000_0080;
/// SYSCALL segments.
pub const STAR: u32 = 0xC000_0081;
/// SYSCALL target, 64-bit.
pub const LSTAR: u32 = 0xC000_0082;
/// SYSCALL target, compatibility mode.
pub const CSTAR: u32 = 0xC000_0083;
/// SYSCALL flag mask.
pub const FMASK: u32 = 0xC000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xC000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xC000_0101;
/// GS base that SWAPGS exchanges.
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
/// Value that RDTSCP and RDPID give.
pub const TSC_AUX: u32 = 0xC000_0103;
/// KVM: wall clock page (new number).
pub const KVM_WALL_CLOCK_NEW: u32 = 0x4B56_4D00;
/// KVM: system time page (new number).
pub const KVM_SYSTEM_TIME_NEW: u32 = 0x4B56_4D01;
/// AMD: system configuration.
pub const SYSCFG: u32 = 0xC001_0010;
/// AMD: hardware configuration.
pub const HWCR: u32 = 0xC001_0015;
/// AMD: northbridge configuration.
pub const NB_CFG: u32 = 0xC001_001F;
/// AMD: microcode patch loader.
pub const PATCH_LOADER: u32 = 0xC001_0020;
/// AMD: decode configuration.
pub const DE_CFG: u32 = 0xC001_1029;
