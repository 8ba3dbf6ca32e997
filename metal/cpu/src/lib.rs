//! The processors of the bare machine: descriptor tables and interrupts, local and I/O APICs, the
//! start of the other processors, time, and the few ports of a PC that a hypervisor needs itself.
//!
//! `unsafe` because all of it is instructions that change the machine. What is exported is safe to
//! call for who runs alone on the machine: nobody but the hypervisor does.
//!
//! Only what is arithmetic is there on a host; the rest is under `target_os = "none"`.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod calendar;
pub mod scale;

#[cfg(target_os = "none")]
mod apic;
#[cfg(target_os = "none")]
mod descriptors;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod ioapic;
#[cfg(target_os = "none")]
mod local;
#[cfg(target_os = "none")]
mod lock;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod time;

#[cfg(target_os = "none")]
pub use self::{
    apic::{
        arm_timer_no_later_ns, arm_timer_ns, enable_local_apic, local_apic_id,
        send_init_and_startup, send_ipi,
    },
    descriptors::{Stacks, load_descriptors},
    interrupts::{Frame, Handler, fill_idt, set_handler, wait_for_interrupt, with_interrupts_off},
    ioapic::{IsaLine, Polarity, TriggerMode, route},
    local::{MAX_CPUS, current, online, set_current},
    lock::IrqSpinLock,
    ports::{Pci, SerialPort, mask_pics, power_off, reset, wall_clock},
    registers::{
        cpuid, enable_features, extended_control_mask, flush_tlb, halt_for_ever, load_root,
        page_fault_address, random, read_msr, set_extended_control, tsc, write_msr,
    },
    start::start_processor,
    time::{calibrate, delay_us, now_ns, ticks_per_second},
};

/// Interrupt vectors of the hypervisor.
pub mod vector {
    /// The local APIC's timer.
    pub const TIMER: u8 = 0x40;
    /// Another processor has something: look.
    pub const POKE: u8 = 0x41;
    /// Another processor wants a memory barrier.
    pub const BARRIER: u8 = 0x42;
    /// Stop for ever: the hypervisor is broken.
    pub const STOP: u8 = 0x43;
    /// The first of the ISA interrupt lines 0 to 15.
    pub const ISA: u8 = 0x50;
    /// The local APIC's spurious vector.
    pub const SPURIOUS: u8 = 0xFF;
}
