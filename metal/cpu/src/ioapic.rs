//! Routing an ISA interrupt line through an I/O APIC (82093AA datasheet).

/// What is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High, as ISA's are.
    ActiveHigh,
    /// Low, as PCI's are.
    ActiveLow,
}

/// What triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerMode {
    /// An edge, as ISA's do.
    Edge,
    /// The level.
    Level,
}

/// How a line comes in.
#[derive(Clone, Copy, Debug)]
pub struct IsaLine {
    /// Physical address of the I/O APIC's registers.
    pub ioapic: u64,
    /// Its pin.
    pub pin: u8,
    /// What is active.
    pub polarity: Polarity,
    /// What triggers.
    pub trigger: TriggerMode,
}

const WINDOW: usize = 0x10;
const REDIRECTION: u32 = 0x10;
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;

/// Sends the line to a processor as `vector`.
///
/// # Safety
/// The I/O APIC's registers are mapped at their address, and nobody else uses them now.
pub unsafe fn route(line: &IsaLine, vector: u8, apic_id: u32) {
    let polarity = match line.polarity {
        Polarity::ActiveHigh => 0,
        Polarity::ActiveLow => ACTIVE_LOW,
    };
    let trigger = match line.trigger {
        TriggerMode::Edge => 0,
        TriggerMode::Level => LEVEL,
    };
    let low = u32::from(vector) | polarity | trigger;
    let index: *mut u32 = core::ptr::with_exposed_provenance_mut(line.ioapic as usize);
    let number = REDIRECTION + u32::from(line.pin) * 2;
    // SAFETY: by the caller.
    unsafe {
        let window = index.byte_add(WINDOW);
        index.write_volatile(number + 1);
        window.write_volatile(apic_id << 24);
        index.write_volatile(number);
        window.write_volatile(low);
    }
}
