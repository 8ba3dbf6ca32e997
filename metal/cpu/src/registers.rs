//! Control, model-specific and identification registers.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

/// CPUID.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// The time-stamp counter.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC changes nothing but its two registers; CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// Reads a model-specific register that this processor has.
#[must_use]
pub fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect; of an unknown register it is #GP, which stops the hypervisor
    // with a message.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// What the register does must be what the whole hypervisor expects.
pub unsafe fn write_msr(index: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: by the caller.
    unsafe { asm!("wrmsr", in("ecx") index, in("eax") low, in("edx") high, options(nostack)) }
}

/// Switches to other page tables.
///
/// # Safety
/// They map everything that is in use as it was.
pub unsafe fn load_root(root: u64) {
    // SAFETY: by the caller.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) }
}

/// Flushes this processor's TLB (no page is global).
pub fn flush_tlb() {
    // SAFETY: the tables stay the same.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) }
}

/// CR2: what the last page fault was about.
#[must_use]
pub fn page_fault_address() -> u64 {
    let address;
    // SAFETY: reading it changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack)) }
    address
}

const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;

/// Switches on what of this processor the hypervisor uses: SMEP and UMIP where they are there,
/// XSAVE with all state components that guests may have (x87, SSE, AVX).
pub fn enable_features() {
    let [_, _, leaf_1, _] = cpuid(1, 0);
    let [_, leaf_7b, leaf_7c, _] = cpuid(7, 0);
    let xsave = leaf_1 >> 26 & 1 != 0;
    let mut bits = 0;
    bits |= if leaf_7b >> 7 & 1 != 0 { CR4_SMEP } else { 0 };
    bits |= if leaf_7c >> 2 & 1 != 0 { CR4_UMIP } else { 0 };
    bits |= if xsave { CR4_OSXSAVE } else { 0 };
    // SAFETY: each bit's feature is there; none changes what the hypervisor does: it has no code
    // in user pages, runs SGDT and its kin in ring 0 only, and uses no vector registers itself.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) bits, options(nostack));
    }
    if xsave {
        let [supported, ..] = cpuid(13, 0);
        let mask = supported & 7;
        // SAFETY: x87 is always set, and AVX only comes with SSE.
        unsafe { asm!("xsetbv", in("ecx") 0, in("eax") mask, in("edx") 0, options(nostack)) }
    }
}

/// The state components that [`enable_features`] switched on; 0 without XSAVE.
#[must_use]
pub fn extended_control_mask() -> u64 {
    let [_, _, leaf_1, _] = cpuid(1, 0);
    if leaf_1 >> 26 & 1 == 0 {
        return 0;
    }
    let [supported, ..] = cpuid(13, 0);
    u64::from(supported & 7)
}

/// Sets XCR0.
///
/// # Safety
/// The processor has XSAVE, and `value` is a combination that it has: with x87, AVX only with SSE.
pub unsafe fn set_extended_control(value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: by the caller.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack)) }
}

/// A random number of the processor's, where it has RDRAND and that works.
#[must_use]
pub fn random() -> Option<u64> {
    let [_, _, leaf_1, _] = cpuid(1, 0);
    if leaf_1 >> 30 & 1 == 0 {
        return None;
    }
    // So often Intel recommends to try (DRNG Software Implementation Guide §5.2.1).
    (0..10).find_map(|_| {
        let (number, carry): (u64, u8);
        // SAFETY: the processor has the instruction.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) number, out(reg_byte) carry) }
        (carry != 0).then_some(number)
    })
}

/// Stops this processor.
pub fn halt_for_ever() -> ! {
    loop {
        // SAFETY: interrupts are off, so it ends here.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}
