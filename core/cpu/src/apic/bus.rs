//! Who an interrupt message is for (SDM vol. 3A §11.6.2, §11.11).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use kasane_ports::{IrqLine, Level, Msi, MsiSink};
use spin::RwLock;

use super::mailbox::{Mailbox, events};

/// Delivery modes of interrupt messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the manual's names
pub enum DeliveryMode {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
}

impl DeliveryMode {
    /// From the three-bit field; the reserved value is none.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::StartUp),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// Trigger mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Trigger {
    Edge,
    Level,
}

/// Who a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// APIC id; `u32::MAX` (or 0xFF when it came from an xAPIC or an MSI) is everybody.
    Physical(u32),
    /// Logical address, as the sender wrote it (8 bits xAPIC, 32 bits x2APIC).
    Logical(u32),
    /// The sender.
    Itself(u32),
    /// Everybody.
    All,
    /// Everybody but the sender.
    AllBut(u32),
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// For whom.
    pub destination: Destination,
    /// How.
    pub mode: DeliveryMode,
    /// Vector (start-up: page number).
    pub vector: u8,
    /// Edge or level.
    pub trigger: Trigger,
}

/// Sees what local APICs do by themselves, without an exit of their processor. For traces.
pub trait ApicObserver: Send + Sync {
    /// APIC `from` sent an interprocessor interrupt.
    fn sent(&self, from: u32, message: &Message);
    /// The timer of APIC `index` came to `deadline_ns` and raised `vector`.
    fn timer(&self, index: u32, vector: u8, deadline_ns: u64);
}

/// The local APICs of a machine.
pub struct ApicBus {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Where the search for the lowest priority starts, to spread ties.
    rotor: AtomicU32,
    /// Weak, because who looks on usually holds what holds the bus.
    observer: RwLock<Option<Weak<dyn ApicObserver>>>,
}

impl ApicBus {
    /// A bus with `cpus` local APICs, ids 0 and up.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        let mailboxes = (0..cpus).map(|id| Arc::new(Mailbox::new(id))).collect();
        Self { mailboxes, rotor: AtomicU32::new(0), observer: RwLock::new(None) }
    }
    /// Number of local APICs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.mailboxes.len() as u32
    }
    /// The mailbox of vCPU `index`.
    #[must_use]
    pub fn mailbox(&self, index: u32) -> Option<Arc<Mailbox>> {
        self.mailboxes.get(index as usize).cloned()
    }
    /// All mailboxes.
    #[must_use]
    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }
    /// Drives the PIC's INTR wire, which goes to the bootstrap processor.
    pub fn set_extint(&self, level: Level) {
        if let Some(first) = self.mailboxes.first() {
            first.set_extint(level.is_high());
        }
    }
    /// Opens or closes the A20 gate of every processor.
    pub fn set_a20(&self, open: bool) {
        for mailbox in &self.mailboxes {
            mailbox.set_a20(open);
        }
    }
    /// Connects the FERR# pin of the bootstrap processor, the one that a PC's glue knows, or
    /// takes it off.
    pub fn set_ferr_line(&self, line: Option<Arc<dyn IrqLine>>) {
        if let Some(first) = self.mailboxes.first() {
            first.set_ferr_line(line);
        }
    }
    /// Drives the IGNNE# pin of the bootstrap processor.
    pub fn set_ignne(&self, level: Level) {
        if let Some(first) = self.mailboxes.first() {
            first.set_ignne(level.is_high());
        }
    }
    /// Says who is told of what the APICs do by themselves, as long as somebody else keeps it.
    pub fn observe(&self, observer: &Arc<dyn ApicObserver>) {
        *self.observer.write() = Some(Arc::downgrade(observer));
    }
    /// Tells the observer, if there is one.
    pub(super) fn tell(&self, what: impl FnOnce(&dyn ApicObserver)) {
        let observer = self.observer.read().as_ref().and_then(Weak::upgrade);
        if let Some(observer) = observer {
            what(&*observer);
        }
    }
    /// Kicks every vCPU out of `run`.
    pub fn kick_all(&self) {
        for mailbox in &self.mailboxes {
            mailbox.post(events::KICK);
        }
    }

    /// Delivers a message. False if nobody was addressed.
    pub fn send(&self, message: &Message) -> bool {
        if message.mode == DeliveryMode::LowestPriority {
            return self.send_lowest(message);
        }
        let mut any = false;
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            if addressed(index as u32, mailbox, message.destination) {
                any = true;
                deliver(mailbox, message);
            }
        }
        any
    }

    fn send_lowest(&self, message: &Message) -> bool {
        let count = self.mailboxes.len();
        let start = self.rotor.fetch_add(1, Ordering::Relaxed) as usize;
        let mut best: Option<(&Arc<Mailbox>, u32)> = None;
        for step in 0..count {
            let index = start.wrapping_add(step) % count.max(1);
            let Some(mailbox) = self.mailboxes.get(index) else { continue };
            let mode = mailbox.mode.load(Ordering::Acquire);
            if mode & 1 == 0 || !addressed(index as u32, mailbox, message.destination) {
                continue;
            }
            let priority = mode >> 8 & 0xFF;
            if best.is_none_or(|(_, lowest)| priority < lowest) {
                best = Some((mailbox, priority));
            }
        }
        if let Some((mailbox, _)) = best {
            deliver(mailbox, message);
        }
        best.is_some()
    }
}

fn addressed(index: u32, mailbox: &Mailbox, destination: Destination) -> bool {
    let identity = mailbox.identity.load(Ordering::Acquire);
    let (id, ldr) = (identity as u32, (identity >> 32) as u32);
    let mode = mailbox.mode.load(Ordering::Acquire);
    let x2apic = mode & 2 != 0;
    match destination {
        Destination::All => true,
        Destination::Itself(sender) => index == sender,
        Destination::AllBut(sender) => index != sender,
        Destination::Physical(dest) => dest == u32::MAX || dest == id || (dest == 0xFF && !x2apic),
        Destination::Logical(dest) if x2apic => {
            // The cluster must match; 0xFFFF_FFFF is everybody; an 8-bit destination (from an
            // I/O APIC or MSI) reaches cluster 0.
            dest == u32::MAX || (dest >> 16 == ldr >> 16 && dest & ldr & 0xFFFF != 0)
        }
        Destination::Logical(dest) => {
            let (dest, own) = (dest & 0xFF, ldr >> 24);
            if dest == 0xFF {
                return true;
            }
            if mode & 8 != 0 {
                dest & own != 0
            } else {
                dest >> 4 == own >> 4 && dest & own & 0xF != 0
            }
        }
    }
}

fn deliver(mailbox: &Mailbox, message: &Message) {
    match message.mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
            mailbox.post_interrupt(message.vector, message.trigger == Trigger::Level);
        }
        DeliveryMode::Smi => mailbox.post(events::SMI),
        DeliveryMode::Nmi => mailbox.post(events::NMI),
        DeliveryMode::Init => mailbox.post(events::INIT),
        DeliveryMode::StartUp => mailbox.post_sipi(message.vector),
        // An I/O APIC pin in ExtINT mode passes the PIC's wire on, which is already known.
        DeliveryMode::ExtInt => mailbox.post(events::LINES),
    }
}

impl MsiSink for ApicBus {
    fn signal(&self, msi: Msi) {
        let Some(mode) = DeliveryMode::from_bits(msi.data >> 8) else { return };
        if msi.address & 0xFFF0_0000 != 0xFEE0_0000 {
            return;
        }
        let dest = (msi.address >> 12 & 0xFF) as u32;
        let logical = msi.address & 4 != 0;
        let message = Message {
            destination: if logical {
                Destination::Logical(dest)
            } else {
                Destination::Physical(dest)
            },
            mode,
            vector: msi.data as u8,
            trigger: if msi.data & 0x8000 != 0 { Trigger::Level } else { Trigger::Edge },
        };
        self.send(&message);
    }
}
