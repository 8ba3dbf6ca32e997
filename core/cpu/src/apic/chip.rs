//! The local APIC as a state machine.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::bus::{ApicBus, DeliveryMode, Destination, Message, Trigger};
use super::mailbox::Mailbox;

/// Register offsets of the memory-mapped form; the x2APIC MSR is 0x800 + offset / 16.
#[allow(missing_docs)] // the manual's names
pub mod registers {
    pub const ID: u64 = 0x20;
    pub const VERSION: u64 = 0x30;
    pub const TPR: u64 = 0x80;
    pub const APR: u64 = 0x90;
    pub const PPR: u64 = 0xA0;
    pub const EOI: u64 = 0xB0;
    pub const LDR: u64 = 0xD0;
    pub const DFR: u64 = 0xE0;
    pub const SVR: u64 = 0xF0;
    pub const ISR: u64 = 0x100;
    pub const TMR: u64 = 0x180;
    pub const IRR: u64 = 0x200;
    pub const ESR: u64 = 0x280;
    pub const LVT_CMCI: u64 = 0x2F0;
    pub const ICR_LOW: u64 = 0x300;
    pub const ICR_HIGH: u64 = 0x310;
    pub const LVT_TIMER: u64 = 0x320;
    pub const LVT_THERMAL: u64 = 0x330;
    pub const LVT_PERF: u64 = 0x340;
    pub const LVT_LINT0: u64 = 0x350;
    pub const LVT_LINT1: u64 = 0x360;
    pub const LVT_ERROR: u64 = 0x370;
    pub const INITIAL_COUNT: u64 = 0x380;
    pub const CURRENT_COUNT: u64 = 0x390;
    pub const DIVIDE: u64 = 0x3E0;
    pub const SELF_IPI: u64 = 0x3F0;
}
use registers as reg;

/// Least time between two interrupts of the periodic timer, so that a period of a nanosecond does
/// not keep a core of the host busy. 20 kHz is far above what systems ask for.
const TIMER_FLOOR_NS: u64 = 50_000;
const MASKED: u32 = 1 << 16;
const TIMER_MODE: u32 = 3 << 17;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_DEADLINE: u32 = 2 << 17;
/// Six LVT entries and version 0x14, as QEMU and KVM have it.
const VERSION: u32 = 0x0005_0014;
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ESR_REGISTER: u32 = 1 << 7;

/// How the APIC is switched (IA32_APIC_BASE bits 10 and 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApicMode {
    /// Off.
    Disabled,
    /// Memory-mapped.
    XApic,
    /// By MSRs.
    X2Apic,
}

/// Registers that are saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    mode: ApicMode,
    page: u64,
    id: u32,
    tpr: u32,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: [u32; 8],
    tmr: [u32; 8],
    irr: [u32; 8],
    esr: u32,
    esr_pending: u32,
    icr: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error.
    lvt: [u32; 6],
    initial_count: u32,
    divide: u32,
    /// When the count started, or started over.
    started_ns: u64,
    /// When the timer fires next, in nanoseconds of the clock.
    deadline_ns: Option<u64>,
    /// Absolute TSC of the TSC-deadline mode; 0: disarmed.
    tsc_deadline: u64,
    /// Level-triggered interrupts that were ended and that the I/O APICs were not told of yet.
    eoi: [u32; 8],
}

/// A local APIC.
pub struct LocalApic {
    s: Saved,
    /// Physical page of the registers, or 1 (no page) when they are not mapped.
    mmio_page: u64,
    /// Vector that may be delivered now, by IRR and PPR.
    ready: Option<u8>,
    index: u32,
    bus: Arc<ApicBus>,
    mailbox: Arc<Mailbox>,
}

impl LocalApic {
    /// The APIC of vCPU `index`, in its reset state.
    ///
    /// The bootstrap processor's LINT0 is ExtINT and unmasked (virtual wire mode), which firmware
    /// would have set up (MP Specification 1.4 §3.6.2.2).
    #[must_use]
    pub fn new(index: u32, bus: Arc<ApicBus>, mailbox: Arc<Mailbox>) -> Self {
        let s = Saved {
            mode: ApicMode::XApic,
            page: 0xFEE0_0000,
            id: index,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xFF,
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [MASKED; 6],
            initial_count: 0,
            divide: 0,
            started_ns: 0,
            deadline_ns: None,
            tsc_deadline: 0,
            eoi: [0; 8],
        };
        let mut apic = Self { s, mmio_page: 1, ready: None, index, bus, mailbox };
        if index == 0 {
            apic.set_lvt(3, 0x700);
        }
        apic.update();
        apic
    }
    /// INIT: as reset, but the id and the mode stay (SDM vol. 3A §11.4.7.3).
    pub fn init(&mut self) {
        let fresh = Self::new(self.index, self.bus.clone(), self.mailbox.clone());
        let (mode, page) = (self.s.mode, self.s.page);
        self.reset_to(fresh);
        self.set_base(mode, page);
    }
    /// What was ended before is told to the I/O APICs nonetheless.
    fn reset_to(&mut self, fresh: Self) {
        let eoi = self.s.eoi;
        self.s = fresh.s;
        self.s.eoi = eoi;
    }
    /// Physical page of the registers, or a value that is no page.
    #[inline(always)]
    #[must_use]
    pub fn mmio_page(&self) -> u64 {
        self.mmio_page
    }
    /// Mode.
    #[must_use]
    pub fn mode(&self) -> ApicMode {
        self.s.mode
    }
    /// Sets mode and page, from IA32_APIC_BASE.
    pub fn set_base(&mut self, mode: ApicMode, page: u64) {
        if mode == ApicMode::X2Apic && self.s.mode != ApicMode::X2Apic {
            let id = self.index;
            self.s.id = id;
            self.s.ldr = (id >> 4) << 16 | 1 << (id & 15);
        }
        if mode == ApicMode::Disabled && self.s.mode != ApicMode::Disabled {
            let fresh = Self::new(self.index, self.bus.clone(), self.mailbox.clone());
            self.reset_to(fresh);
        }
        self.s.mode = mode;
        self.s.page = page & !0xFFF;
        self.update();
    }
    fn software_enabled(&self) -> bool {
        self.s.svr & 0x100 != 0 && self.s.mode != ApicMode::Disabled
    }
    /// Whether the PIC's interrupts reach the processor through this APIC.
    #[must_use]
    pub fn passes_extint(&self) -> bool {
        let lint0 = self.lvt(3);
        self.s.mode == ApicMode::Disabled || (lint0 & MASKED == 0 && lint0 >> 8 & 7 == 7)
    }

    // --- priorities ---------------------------------------------------------------------------

    fn highest(words: &[u32; 8]) -> Option<u8> {
        words.iter().enumerate().rev().find_map(|(n, word)| {
            (*word != 0).then(|| (n as u32 * 32 + (31 - word.leading_zeros())) as u8)
        })
    }
    fn bit(words: &mut [u32; 8], vector: u8, on: bool) {
        if let Some(word) = words.get_mut(usize::from(vector >> 5)) {
            let mask = 1u32 << (vector & 31);
            *word = if on { *word | mask } else { *word & !mask };
        }
    }
    fn is_set(words: &[u32; 8], vector: u8) -> bool {
        words.get(usize::from(vector >> 5)).is_some_and(|w| w >> (vector & 31) & 1 != 0)
    }
    /// Processor priority (SDM vol. 3A §11.8.3.1).
    #[must_use]
    pub fn ppr(&self) -> u32 {
        let isrv = u32::from(Self::highest(&self.s.isr).unwrap_or(0));
        if self.s.tpr >> 4 >= isrv >> 4 { self.s.tpr & 0xFF } else { isrv & 0xF0 }
    }
    /// Recomputes what is derived and publishes it to the mailbox.
    fn update(&mut self) {
        let ppr = self.ppr();
        self.ready = if self.software_enabled() {
            Self::highest(&self.s.irr).filter(|v| u32::from(*v) >> 4 > ppr >> 4)
        } else {
            None
        };
        self.mmio_page = if self.s.mode == ApicMode::XApic { self.s.page } else { 1 };
        let mode = u32::from(self.software_enabled())
            | u32::from(self.s.mode == ApicMode::X2Apic) << 1
            | u32::from(self.s.mode != ApicMode::Disabled) << 2
            | u32::from(self.s.dfr >> 28 == 0xF) << 3
            | ppr << 8;
        let identity = u64::from(self.s.id) | u64::from(self.s.ldr) << 32;
        self.mailbox.identity.store(identity, Ordering::Release);
        self.mailbox.mode.store(mode, Ordering::Release);
    }
    /// The vector that may be delivered now.
    #[inline(always)]
    #[must_use]
    pub fn ready(&self) -> Option<u8> {
        self.ready
    }
    /// Moves what was posted into the IRR.
    pub fn collect(&mut self) {
        for word in 0..8 {
            let (irr, level) = self.mailbox.take_interrupts(word);
            if irr == 0 || !self.software_enabled() {
                continue;
            }
            if let (Some(i), Some(t)) = (self.s.irr.get_mut(word), self.s.tmr.get_mut(word)) {
                *i |= irr;
                *t = *t & !irr | level & irr;
            }
        }
        if self.s.irr.first().is_some_and(|w| w & 0xFFFF != 0) {
            if let Some(word) = self.s.irr.first_mut() {
                *word &= !0xFFFF; // vectors 0-15 are illegal
            }
            self.error(ESR_RECEIVE_ILLEGAL);
        }
        self.update();
    }
    /// The processor takes `vector` (INTA cycle).
    pub fn acknowledge(&mut self, vector: u8) {
        Self::bit(&mut self.s.irr, vector, false);
        Self::bit(&mut self.s.isr, vector, true);
        self.update();
    }
    fn raise_local(&mut self, vector: u8) {
        if vector < 16 {
            self.error(ESR_RECEIVE_ILLEGAL);
            return;
        }
        Self::bit(&mut self.s.irr, vector, true);
        Self::bit(&mut self.s.tmr, vector, false);
        self.update();
    }
    fn error(&mut self, bit: u32) {
        if self.s.esr_pending & bit != 0 {
            return;
        }
        self.s.esr_pending |= bit;
        let entry = self.lvt(5);
        if entry & MASKED == 0 && entry & 0xFF >= 16 {
            self.raise_local(entry as u8);
        }
    }
    /// A level-triggered interrupt that was ended and not yet taken from here.
    pub fn take_eoi(&mut self) -> Option<u8> {
        let vector = Self::highest(&self.s.eoi)?;
        Self::bit(&mut self.s.eoi, vector, false);
        Some(vector)
    }
    fn end_of_interrupt(&mut self) {
        if let Some(vector) = Self::highest(&self.s.isr) {
            Self::bit(&mut self.s.isr, vector, false);
            if Self::is_set(&self.s.tmr, vector) {
                Self::bit(&mut self.s.eoi, vector, true);
            }
            self.update();
        }
    }
    /// TPR as CR8: its upper four bits.
    #[must_use]
    pub fn cr8(&self) -> u64 {
        u64::from(self.s.tpr >> 4 & 15)
    }
    /// Sets TPR by CR8.
    pub fn set_cr8(&mut self, value: u64) {
        self.s.tpr = (value as u32 & 15) << 4;
        self.update();
    }

    // --- registers ----------------------------------------------------------------------------

    fn lvt(&self, n: usize) -> u32 {
        self.s.lvt.get(n).copied().unwrap_or(MASKED)
    }
    fn set_lvt(&mut self, n: usize, value: u32) {
        if let Some(entry) = self.s.lvt.get_mut(n) {
            *entry = value;
        }
    }
    fn lvt_number(offset: u64) -> Option<usize> {
        match offset {
            reg::LVT_TIMER..=reg::LVT_ERROR if offset & 15 == 0 => {
                Some(((offset - reg::LVT_TIMER) >> 4) as usize)
            }
            _ => None,
        }
    }

    /// Reads the 32-bit register at `offset` (16-byte aligned). `None`: there is no such register.
    pub fn read(&mut self, offset: u64, now_ns: u64) -> Option<u32> {
        if let Some(n) = Self::lvt_number(offset) {
            return Some(self.lvt(n));
        }
        let word = |words: &[u32; 8], first: u64| {
            words.get(((offset - first) >> 4) as usize).copied().unwrap_or(0)
        };
        Some(match offset {
            reg::ID if self.s.mode == ApicMode::X2Apic => self.s.id,
            reg::ID => self.s.id << 24,
            reg::VERSION => VERSION,
            reg::TPR => self.s.tpr,
            reg::APR => 0,
            reg::PPR => self.ppr(),
            reg::LDR => self.s.ldr,
            reg::DFR => self.s.dfr,
            reg::SVR => self.s.svr,
            0x100..=0x170 => word(&self.s.isr, reg::ISR),
            0x180..=0x1F0 => word(&self.s.tmr, reg::TMR),
            0x200..=0x270 => word(&self.s.irr, reg::IRR),
            reg::ESR => self.s.esr,
            reg::ICR_LOW => self.s.icr as u32,
            reg::ICR_HIGH => (self.s.icr >> 32) as u32,
            reg::INITIAL_COUNT => self.s.initial_count,
            reg::CURRENT_COUNT => self.current_count(now_ns),
            reg::DIVIDE => self.s.divide,
            _ => return None,
        })
    }

    /// Writes the 32-bit register at `offset`. False: there is no such writable register.
    pub fn write(&mut self, offset: u64, value: u32, now_ns: u64) -> bool {
        // What the timer did under the old masks stays done.
        self.advance(now_ns);
        if let Some(n) = Self::lvt_number(offset) {
            self.write_lvt(n, value, now_ns);
            return true;
        }
        match offset {
            reg::ID if self.s.mode != ApicMode::X2Apic => self.s.id = value >> 24,
            reg::TPR => self.s.tpr = value & 0xFF,
            reg::EOI => self.end_of_interrupt(),
            reg::LDR if self.s.mode != ApicMode::X2Apic => self.s.ldr = value & 0xFF00_0000,
            reg::DFR if self.s.mode != ApicMode::X2Apic => self.s.dfr = value | 0x0FFF_FFFF,
            reg::SVR => {
                self.s.svr = value & 0x3FF;
                if value & 0x100 == 0 {
                    for entry in &mut self.s.lvt {
                        *entry |= MASKED;
                    }
                }
            }
            reg::ESR => {
                self.s.esr = self.s.esr_pending;
                self.s.esr_pending = 0;
            }
            reg::ICR_LOW => {
                // Delivery status reads as idle: messages are delivered at once.
                self.s.icr = self.s.icr & !0xFFFF_FFFF | u64::from(value & 0x000C_CFFF);
                self.send();
            }
            reg::ICR_HIGH => {
                self.s.icr = self.s.icr & 0xFFFF_FFFF | u64::from(value & 0xFF00_0000) << 32;
            }
            reg::INITIAL_COUNT => {
                if self.lvt(0) & TIMER_MODE != TIMER_DEADLINE {
                    self.s.initial_count = value;
                    self.start_timer(now_ns);
                }
            }
            reg::DIVIDE => {
                let remaining = self.current_count(now_ns);
                self.s.divide = value & 0xB;
                self.rescale(remaining, now_ns);
            }
            reg::SELF_IPI if self.s.mode == ApicMode::X2Apic => {
                let message = Message {
                    destination: Destination::Itself(self.index),
                    mode: DeliveryMode::Fixed,
                    vector: value as u8,
                    trigger: Trigger::Edge,
                };
                self.bus.tell(|observer| observer.sent(self.index, &message));
                self.raise_local(value as u8);
            }
            _ => {
                self.error(ESR_REGISTER);
                return false;
            }
        }
        self.update();
        true
    }
    /// Writes the x2APIC's 64-bit ICR and sends.
    pub fn write_icr(&mut self, value: u64) {
        self.s.icr = value & 0xFFFF_FFFF_000C_CFFF;
        self.send();
    }
    /// The 64-bit ICR.
    #[must_use]
    pub fn icr(&self) -> u64 {
        self.s.icr
    }

    fn write_lvt(&mut self, n: usize, value: u32, now_ns: u64) {
        let writable = match n {
            0 => 0x0007_00FF,
            3 | 4 => 0x0001_A7FF,
            5 => 0x0001_00FF,
            _ => 0x0001_07FF,
        };
        let mut value = value & writable;
        if self.s.svr & 0x100 == 0 {
            value |= MASKED;
        }
        let old = self.lvt(n);
        self.set_lvt(n, value);
        if n == 0 && (old ^ value) & TIMER_MODE != 0 {
            // A change between deadline and count modes disarms (SDM vol. 3A §11.5.4.1).
            if (old | value) & TIMER_DEADLINE != 0 {
                self.s.deadline_ns = None;
                self.s.tsc_deadline = 0;
                self.s.initial_count = 0;
            } else {
                let remaining = self.current_count(now_ns);
                self.rescale(remaining, now_ns);
            }
        }
    }

    fn send(&mut self) {
        let icr = self.s.icr;
        let low = icr as u32;
        let Some(mode) = DeliveryMode::from_bits(low >> 8) else { return };
        let vector = low as u8;
        if matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) && vector < 16 {
            self.error(ESR_SEND_ILLEGAL);
            return;
        }
        // INIT level de-assert only synchronizes arbitration ids.
        if mode == DeliveryMode::Init && low & 0x8000 != 0 && low & 0x4000 == 0 {
            return;
        }
        let field = (icr >> 32) as u32;
        let dest = if self.s.mode == ApicMode::X2Apic { field } else { field >> 24 };
        let destination = match low >> 18 & 3 {
            1 => Destination::Itself(self.index),
            2 => Destination::All,
            3 => Destination::AllBut(self.index),
            _ if low & 0x800 != 0 => Destination::Logical(dest),
            _ => Destination::Physical(dest),
        };
        let message = Message { destination, mode, vector, trigger: Trigger::Edge };
        self.bus.tell(|observer| observer.sent(self.index, &message));
        self.bus.send(&message);
    }

    // --- timer --------------------------------------------------------------------------------

    /// Nanoseconds per count: the APIC's bus runs at 1 GHz.
    fn divider(&self) -> u64 {
        let code = (self.s.divide & 3 | self.s.divide >> 1 & 4).wrapping_add(1) & 7;
        1 << code
    }
    fn period_ns(&self) -> u64 {
        u64::from(self.s.initial_count).wrapping_mul(self.divider())
    }
    fn start_timer(&mut self, now_ns: u64) {
        self.s.started_ns = now_ns;
        self.s.deadline_ns =
            (self.s.initial_count != 0).then(|| now_ns.saturating_add(self.period_ns()));
    }
    fn rescale(&mut self, remaining: u32, now_ns: u64) {
        if self.s.deadline_ns.is_some() {
            let left = u64::from(remaining).wrapping_mul(self.divider());
            self.s.deadline_ns = Some(now_ns.saturating_add(left));
        }
    }
    fn current_count(&self, now_ns: u64) -> u32 {
        if self.lvt(0) & TIMER_MODE == TIMER_DEADLINE {
            return 0;
        }
        let Some(deadline) = self.s.deadline_ns else { return 0 };
        let mut left = deadline.saturating_sub(now_ns);
        if left == 0 && self.lvt(0) & TIMER_MODE == TIMER_PERIODIC && self.period_ns() != 0 {
            left = self.period_ns() - (now_ns - deadline) % self.period_ns();
        } else if left > self.period_ns() && self.lvt(0) & TIMER_MODE == TIMER_PERIODIC {
            // The deadline is some periods away (`advance` keeps them apart).
            left = (left - 1) % self.period_ns().max(1) + 1;
        }
        left.div_ceil(self.divider()).min(u64::from(u32::MAX)) as u32
    }
    /// When the timer raises its interrupt next. None while it is masked: what counts on
    /// without an interrupt is seen by reading, and needs nobody to wake for it.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.s.deadline_ns.filter(|_| self.lvt(0) & MASKED == 0)
    }
    /// IA32_TSC_DEADLINE as last written; 0 when disarmed or fired.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.s.tsc_deadline
    }
    /// Arms the TSC-deadline timer: absolute TSC, and the nanosecond it falls on. Ignored in
    /// other timer modes.
    pub fn set_tsc_deadline(&mut self, tsc: u64, at_ns: u64) {
        if self.lvt(0) & TIMER_MODE == TIMER_DEADLINE {
            self.s.tsc_deadline = tsc;
            self.s.deadline_ns = (tsc != 0).then_some(at_ns);
        }
    }
    /// Lets the timer fire if its time has come.
    pub fn advance(&mut self, now_ns: u64) {
        let Some(deadline) = self.s.deadline_ns else { return };
        if now_ns < deadline {
            return;
        }
        let entry = self.lvt(0);
        let period = self.period_ns();
        self.s.deadline_ns = None;
        if entry & TIMER_MODE == TIMER_PERIODIC && period != 0 {
            // Periods that were missed are dropped, not delivered in a burst, and so are those
            // that would come sooner than a host can be asked to wake up.
            let soonest = now_ns.saturating_add(TIMER_FLOOR_NS.saturating_sub(period));
            let missed = soonest.saturating_sub(deadline) / period;
            let step = missed.saturating_add(1).saturating_mul(period);
            self.s.deadline_ns = Some(deadline.saturating_add(step));
        }
        self.s.tsc_deadline = 0;
        if entry & MASKED == 0 {
            self.bus.tell(|observer| observer.timer(self.index, entry as u8, deadline));
            self.raise_local(entry as u8);
        }
    }

    // --- saved form ---------------------------------------------------------------------------

    /// The saved form.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.s).unwrap_or_default()
    }
    /// Takes a saved form over; false if it is not one (then nothing changes).
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        let Ok(s) = postcard::from_bytes(bytes) else { return false };
        self.s = s;
        self.update();
        true
    }
}

/// CR8 (the upper four bits of TPR) in a saved local APIC; `None` if the bytes are none.
#[must_use]
pub fn saved_cr8(bytes: &[u8]) -> Option<u64> {
    let saved: Saved = postcard::from_bytes(bytes).ok()?;
    Some(u64::from(saved.tpr >> 4 & 15))
}
