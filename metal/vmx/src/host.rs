//! The hypervisor's state that exits load: that of the processor which is to enter.

use core::arch::asm;

use kasane_metal_cpu as cpu;

use crate::enter::exit_address;
use crate::vmcs::{Fields, host};

const EFER: u32 = 0xC000_0080;
const PAT: u32 = 0x277;
const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;
const SYSENTER: [u32; 3] = [0x174, 0x175, 0x176];

#[repr(C, packed(2))]
#[derive(Clone, Copy, Default)]
struct TableRegister {
    limit: u16,
    base: u64,
}

fn tables() -> [u64; 2] {
    let (mut global, mut interrupts) = (TableRegister::default(), TableRegister::default());
    // SAFETY: each writes its ten bytes.
    unsafe {
        asm!("sgdt [{}]", in(reg) &raw mut global, options(nostack));
        asm!("sidt [{}]", in(reg) &raw mut interrupts, options(nostack));
    }
    [global.base, interrupts.base]
}

/// Selectors of CS, SS, DS, ES and TR.
fn selectors() -> [u64; 5] {
    let [cs, ss, ds, es, tr]: [u64; 5];
    // SAFETY: reading them changes nothing.
    unsafe {
        asm!(
            "mov {0}, cs", "mov {1}, ss", "mov {2}, ds", "mov {3}, es", "xor {4:e}, {4:e}", "str {4:x}",
            out(reg) cs, out(reg) ss, out(reg) ds, out(reg) es, out(reg) tr, options(nostack),
        );
    }
    [cs, ss, ds, es, tr]
}

fn control_registers() -> [u64; 3] {
    let [cr0, cr3, cr4]: [u64; 3];
    // SAFETY: reading them changes nothing.
    unsafe {
        asm!(
            "mov {}, cr0", "mov {}, cr3", "mov {}, cr4",
            out(reg) cr0, out(reg) cr3, out(reg) cr4, options(nomem, nostack),
        );
    }
    [cr0, cr3, cr4]
}

/// The base of the task state segment, out of its descriptor.
fn task_base(global: u64, tr: u64) -> u64 {
    let at: *const u64 = core::ptr::with_exposed_provenance((global + (tr & !7)) as usize);
    // SAFETY: the task register's descriptor is in this table and has 16 bytes.
    let [low, high] = unsafe { [at.read_unaligned(), at.add(1).read_unaligned()] };
    low >> 16 & 0xFF_FFFF | (low >> 56) << 24 | high << 32
}

/// Into the current control structure.
pub(crate) fn put(fields: &mut impl Fields) {
    let [global, interrupts] = tables();
    let [cs, ss, ds, es, tr] = selectors();
    let [cr0, cr3, cr4] = control_registers();
    let [sysenter_cs, sysenter_esp, sysenter_eip] = SYSENTER.map(cpu::read_msr);
    for (field, value) in [
        (host::CS, cs),
        (host::SS, ss),
        (host::DS, ds),
        (host::ES, es),
        (host::FS, 0),
        (host::GS, 0),
        (host::TR, tr),
        (host::CR0, cr0),
        (host::CR3, cr3),
        (host::CR4, cr4),
        (host::FS_BASE, cpu::read_msr(FS_BASE)),
        (host::GS_BASE, cpu::read_msr(GS_BASE)),
        (host::TR_BASE, task_base(global, tr)),
        (host::GDTR_BASE, global),
        (host::IDTR_BASE, interrupts),
        (host::EFER, cpu::read_msr(EFER)),
        (host::PAT, cpu::read_msr(PAT)),
        (host::SYSENTER_CS, sysenter_cs),
        (host::SYSENTER_ESP, sysenter_esp),
        (host::SYSENTER_EIP, sysenter_eip),
        (host::RIP, exit_address()),
    ] {
        fields.write(field, value);
    }
}
