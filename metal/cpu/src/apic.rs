//! This processor's local APIC (SDM vol. 3A ch. 11), by memory or, where the firmware has switched
//! to it, by x2APIC's registers.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::local::{MAX_CPUS, current};
use crate::scale::ticks_in;
use crate::time::{both, delay_us, now_ns, ticks_per_second};
use crate::vector;
use crate::{read_msr, write_msr};

const IA32_APIC_BASE: u32 = 0x1B;
const X2APIC_ENABLED: u64 = 1 << 10;
const X2APIC_MSRS: u32 = 0x800;

const ID: u32 = 0x20;
const TPR: u32 = 0x80;
const EOI: u32 = 0xB0;
const SVR: u32 = 0xF0;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3E0;

const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const MODE_NMI: u32 = 4 << 8;
/// Divide by 16.
const DIVIDE_16: u32 = 3;
const DELIVERY_PENDING: u32 = 1 << 12;
const ICR_INIT: u32 = 0x4500;
const ICR_STARTUP: u32 = 0x4600;
const ICR_ASSERT: u32 = 0x4000;

static BASE: AtomicU64 = AtomicU64::new(0);
static X2APIC: AtomicBool = AtomicBool::new(false);
/// Timer ticks in a second.
static TIMER_HZ: AtomicU64 = AtomicU64::new(0);

fn register(offset: u32) -> *mut u32 {
    let base = BASE.load(Ordering::Relaxed) as usize;
    core::ptr::with_exposed_provenance_mut(base.wrapping_add(offset as usize))
}

fn read(offset: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        return read_msr(X2APIC_MSRS + (offset >> 4)) as u32;
    }
    // SAFETY: `enable_local_apic` was told that the registers are mapped.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: a register of the local APIC, which is this module's alone.
        unsafe { write_msr(X2APIC_MSRS + (offset >> 4), value.into()) }
        return;
    }
    // SAFETY: as in `read`.
    unsafe { register(offset).write_volatile(value) }
}

/// Switches this processor's local APIC on. The first processor measures its timer.
///
/// # Safety
/// `base` is the physical address of the registers, and mapped there.
pub unsafe fn enable_local_apic(base: u64) {
    BASE.store(base, Ordering::Relaxed);
    X2APIC.store(read_msr(IA32_APIC_BASE) & X2APIC_ENABLED != 0, Ordering::Relaxed);
    write(TPR, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, MODE_NMI);
    write(TIMER_DIVIDE, DIVIDE_16);
    write(LVT_TIMER, MASKED | u32::from(vector::TIMER));
    write(SVR, ENABLED | u32::from(vector::SPURIOUS));
    if TIMER_HZ.load(Ordering::Relaxed) == 0 {
        TIMER_HZ.store(timer_hz(), Ordering::Relaxed);
    }
    write(LVT_TIMER, u32::from(vector::TIMER));
}

/// Ticks of the timer in a second, by the time-stamp counter: both are read at both ends.
fn timer_hz() -> u64 {
    write(TIMER_INITIAL, u32::MAX);
    let (from, first) = both(|| read(TIMER_CURRENT).into());
    delay_us(5_000);
    let (to, last) = both(|| read(TIMER_CURRENT).into());
    let (ticks, passed) = (first.saturating_sub(last), to.wrapping_sub(from));
    write(TIMER_INITIAL, 0);
    let hz = u128::from(ticks) * u128::from(ticks_per_second()) / u128::from(passed.max(1));
    u64::try_from(hz).unwrap_or(u64::MAX).max(1)
}

/// This processor's APIC id.
#[must_use]
pub fn local_apic_id() -> u32 {
    if X2APIC.load(Ordering::Relaxed) { read(ID) } else { read(ID) >> 24 }
}

pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// When each processor's timer interrupts, in nanoseconds of our time.
static ARMED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// Has this processor's timer interrupt at a time, unless it does earlier anyway.
pub fn arm_timer_no_later_ns(at_ns: u64) {
    let now_ns = now_ns();
    let armed = ARMED.get(current() as usize).map_or(u64::MAX, |at| at.load(Ordering::Relaxed));
    // A time that has passed is one at which the timer has interrupted.
    if armed < now_ns || at_ns < armed {
        arm_timer_ns(Some(at_ns.saturating_sub(now_ns)));
    }
}

/// Has this processor's timer interrupt in so many nanoseconds; `None` stops it.
pub fn arm_timer_ns(ns: Option<u64>) {
    if let Some(armed) = ARMED.get(current() as usize) {
        let at = ns.map_or(u64::MAX, |ns| now_ns().saturating_add(ns));
        armed.store(at, Ordering::Relaxed);
    }
    let count = ns.map_or(0, |ns| {
        let ticks = ticks_in(ns, TIMER_HZ.load(Ordering::Relaxed));
        u32::try_from(ticks).unwrap_or(u32::MAX)
    });
    write(TIMER_INITIAL, count);
}

fn send(apic_id: u32, command: u32) {
    crate::interrupts::with_interrupts_off(|| {
        if X2APIC.load(Ordering::Relaxed) {
            let value = u64::from(apic_id) << 32 | u64::from(command);
            // SAFETY: the interrupt command register; `command` is one of this module's.
            unsafe { write_msr(X2APIC_MSRS + (ICR_LOW >> 4), value) }
            return;
        }
        while read(ICR_LOW) & DELIVERY_PENDING != 0 {
            core::hint::spin_loop();
        }
        write(ICR_HIGH, apic_id << 24);
        write(ICR_LOW, command);
    });
}

/// Interrupts another processor.
pub fn send_ipi(apic_id: u32, vector: u8) {
    send(apic_id, ICR_ASSERT | u32::from(vector));
}

/// Starts a processor at the page of `address`, below 1 MiB (SDM vol. 3A §9.4.4).
pub fn send_init_and_startup(apic_id: u32, address: u64) {
    let page = (address >> 12 & 0xFF) as u32;
    send(apic_id, ICR_INIT);
    delay_us(10_000);
    for _ in 0..2 {
        send(apic_id, ICR_STARTUP | page);
        delay_us(200);
    }
}
