//! What other threads leave for a vCPU.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use kasane_ports::{IrqLine, Kick, Level};
use spin::RwLock;

/// Bits of `Mailbox::events`.
pub mod events {
    /// Bits were set in the mailbox's IRR.
    pub const INTERRUPT: u32 = 1 << 0;
    /// NMI.
    pub const NMI: u32 = 1 << 1;
    /// INIT.
    pub const INIT: u32 = 1 << 2;
    /// Start-up IPI; its vector is kept beside.
    pub const SIPI: u32 = 1 << 3;
    /// SMI.
    pub const SMI: u32 = 1 << 4;
    /// Somebody wants `run` to return.
    pub const KICK: u32 = 1 << 5;
    /// The PIC's INTR wire or A20 changed: look again.
    pub const LINES: u32 = 1 << 6;
}

/// What other threads leave for one vCPU.
pub struct Mailbox {
    events: AtomicU32,
    irr: [AtomicU32; 8],
    level: [AtomicU32; 8],
    sipi_vector: AtomicU8,
    extint: AtomicBool,
    a20_mask: AtomicU64,
    ferr: AtomicBool,
    ferr_line: RwLock<Option<Arc<dyn IrqLine>>>,
    ignne: AtomicBool,
    /// APIC id (32 bits) | LDR << 32, published by the owner.
    pub(super) identity: AtomicU64,
    /// Bit 0: APIC software-enabled, bit 1: x2APIC mode, bit 2: hardware-enabled,
    /// bit 3: flat model (DFR), bits 8-15: processor priority.
    pub(super) mode: AtomicU32,
    waker: RwLock<Option<Arc<dyn Kick>>>,
}

impl Mailbox {
    /// An empty mailbox for the APIC with this id.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            events: AtomicU32::new(0),
            irr: Default::default(),
            level: Default::default(),
            sipi_vector: AtomicU8::new(0),
            extint: AtomicBool::new(false),
            a20_mask: AtomicU64::new(u64::MAX),
            ferr: AtomicBool::new(false),
            ferr_line: RwLock::new(None),
            ignne: AtomicBool::new(false),
            identity: AtomicU64::new(u64::from(id)),
            mode: AtomicU32::new(0b1100),
            waker: RwLock::new(None),
        }
    }
    /// Sets what wakes the vCPU's thread when it waits.
    pub fn set_waker(&self, waker: Arc<dyn Kick>) {
        *self.waker.write() = Some(waker);
    }
    /// The event bits, without taking them.
    #[inline(always)]
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.events.load(Ordering::Relaxed)
    }
    /// Takes all event bits.
    pub fn take_events(&self) -> u32 {
        self.events.swap(0, Ordering::AcqRel)
    }
    /// Posts event bits and wakes the vCPU.
    pub fn post(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::AcqRel);
        let waker = self.waker.read().clone();
        if let Some(waker) = waker {
            waker.kick();
        }
    }
    /// Posts event bits for a vCPU that runs, without waking it if it does not.
    pub fn leave_note(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::SeqCst);
    }
    /// Posts an interrupt.
    pub fn post_interrupt(&self, vector: u8, level: bool) {
        let (word, bit) = (usize::from(vector >> 5), 1u32 << (vector & 31));
        if let (Some(irr), Some(tmr)) = (self.irr.get(word), self.level.get(word)) {
            if level {
                tmr.fetch_or(bit, Ordering::AcqRel);
            } else {
                tmr.fetch_and(!bit, Ordering::AcqRel);
            }
            irr.fetch_or(bit, Ordering::AcqRel);
        }
        self.post(events::INTERRUPT);
    }
    /// Takes one word of posted interrupts: (vectors, which of them are level-triggered).
    pub fn take_interrupts(&self, word: usize) -> (u32, u32) {
        match (self.irr.get(word), self.level.get(word)) {
            (Some(irr), Some(tmr)) => (irr.swap(0, Ordering::AcqRel), tmr.load(Ordering::Acquire)),
            _ => (0, 0),
        }
    }
    /// Posts a start-up IPI.
    pub fn post_sipi(&self, vector: u8) {
        self.sipi_vector.store(vector, Ordering::Release);
        self.post(events::SIPI);
    }
    /// The vector of the last start-up IPI.
    #[must_use]
    pub fn sipi_vector(&self) -> u8 {
        self.sipi_vector.load(Ordering::Acquire)
    }
    /// Drives the PIC's INTR wire.
    pub fn set_extint(&self, asserted: bool) {
        if self.extint.swap(asserted, Ordering::AcqRel) != asserted && asserted {
            self.post(events::LINES);
        }
    }
    /// Whether the PIC's INTR wire is asserted.
    #[must_use]
    pub fn extint(&self) -> bool {
        self.extint.load(Ordering::Acquire)
    }
    /// Opens or closes the A20 gate.
    pub fn set_a20(&self, open: bool) {
        let mask = if open { u64::MAX } else { !(1 << 20) };
        if self.a20_mask.swap(mask, Ordering::AcqRel) != mask {
            self.post(events::LINES);
        }
    }
    /// Connects the processor's FERR# pin, or takes it off.
    pub fn set_ferr_line(&self, line: Option<Arc<dyn IrqLine>>) {
        *self.ferr_line.write() = line;
    }
    /// Drives the processor's FERR# pin: an x87 error waits while CR0.NE is clear.
    pub fn set_ferr(&self, asserted: bool) {
        if self.ferr.swap(asserted, Ordering::AcqRel) == asserted {
            return;
        }
        let line = self.ferr_line.read().clone();
        if let Some(line) = line {
            line.set(Level::from_asserted(asserted));
        }
    }
    /// Whether FERR# is asserted.
    #[must_use]
    pub fn ferr(&self) -> bool {
        self.ferr.load(Ordering::Relaxed)
    }
    /// Drives the processor's IGNNE# pin: x87 errors are ignored while CR0.NE is clear.
    pub fn set_ignne(&self, asserted: bool) {
        self.ignne.store(asserted, Ordering::Release);
    }
    /// Whether IGNNE# is asserted.
    #[must_use]
    pub fn ignne(&self) -> bool {
        self.ignne.load(Ordering::Acquire)
    }
    /// AND-mask of guest-physical addresses.
    #[inline]
    #[must_use]
    pub fn a20_mask(&self) -> u64 {
        self.a20_mask.load(Ordering::Relaxed)
    }
}

impl Kick for Mailbox {
    fn kick(&self) {
        self.post(events::KICK);
    }
}
