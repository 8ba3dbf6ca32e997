//! The I/O APIC as a state machine.

use alloc::vec::Vec;

use kasane_ports::{Level, Msi};

use super::spec::{
    ARBITRATION, EOI, ID, INDEX, REDIRECTION, Redirection, VERSION, VERSION_VALUE, WINDOW,
};

/// Delivery modes that set remote IRR: fixed and lowest priority.
const MODES_WITH_EOI: core::ops::RangeInclusive<u8> = 0..=1;

/// The I/O APIC. Messages go to the local APICs in the form of an MSI.
#[derive(Clone, Debug)]
pub struct Ioapic {
    pub(super) index: u8,
    pub(super) id: u32,
    /// Levels of the pins; asserted is set, whatever the polarity bit says: wires here carry
    /// "asserted", not volts.
    pub(super) pins: u32,
    pub(super) entries: [Redirection; 24],
}

impl Default for Ioapic {
    fn default() -> Self {
        Self { index: 0, id: 0, pins: 0, entries: [Redirection::RESET; 24] }
    }
}

impl Ioapic {
    /// Drives pin `pin`; beyond 23 nothing is connected.
    pub fn set_pin(&mut self, pin: u32, level: Level, messages: &mut Vec<Msi>) {
        if pin >= 24 {
            return;
        }
        let bit = 1u32 << pin;
        let high = level.is_high();
        let was_high = self.pins & bit != 0;
        if high {
            self.pins |= bit;
        } else {
            self.pins &= !bit;
        }
        let edge = high && !was_high;
        let Some(entry) = self.entries.get(pin as usize).copied() else { return };
        // An edge on a masked pin is neither delivered nor held pending (82093AA §3.2.4).
        if entry.has(Redirection::LEVEL) {
            self.serve_level(pin, messages);
        } else if edge && !entry.has(Redirection::MASKED) {
            messages.push(message(entry));
        }
    }

    /// Delivers a level-triggered pin that is asserted and not in service.
    fn serve_level(&mut self, pin: u32, messages: &mut Vec<Msi>) {
        let asserted = self.pins & (1 << pin) != 0;
        let Some(entry) = self.entries.get_mut(pin as usize) else { return };
        if !asserted
            || !entry.has(Redirection::LEVEL)
            || entry.has(Redirection::MASKED | Redirection::REMOTE_IRR)
        {
            return;
        }
        if MODES_WITH_EOI.contains(&entry.delivery_mode()) {
            entry.0 |= Redirection::REMOTE_IRR;
        }
        messages.push(message(*entry));
    }

    /// A local APIC's EOI of `vector`: every level-triggered entry with it is ended, and delivered
    /// again if its pin is still asserted.
    pub fn end_of_interrupt(&mut self, vector: u8, messages: &mut Vec<Msi>) {
        for pin in 0..24u32 {
            let Some(entry) = self.entries.get_mut(pin as usize) else { continue };
            if entry.vector() == vector && entry.has(Redirection::REMOTE_IRR) {
                entry.0 &= !Redirection::REMOTE_IRR;
                self.serve_level(pin, messages);
            }
        }
    }

    /// A register read of 4 bytes.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            INDEX => u32::from(self.index),
            WINDOW => self.read_window(),
            // Nothing decodes the rest of the page.
            _ => u32::MAX,
        }
    }

    fn read_window(&self) -> u32 {
        match self.index {
            ID => self.id,
            VERSION => VERSION_VALUE,
            ARBITRATION => self.id,
            index => match self.entry_at(index) {
                Some((pin, shift)) => {
                    self.entries.get(pin).map_or(u32::MAX, |entry| (entry.0 >> shift) as u32)
                }
                None => u32::MAX,
            },
        }
    }

    /// The pin and the shift of the half that a window index names.
    fn entry_at(&self, index: u8) -> Option<(usize, u32)> {
        let at = index.checked_sub(REDIRECTION)?;
        let pin = usize::from(at / 2);
        (pin < self.entries.len()).then_some((pin, u32::from(at & 1) * 32))
    }

    /// A register write of 4 bytes.
    pub fn write(&mut self, offset: u32, value: u32, messages: &mut Vec<Msi>) {
        match offset {
            INDEX => self.index = value as u8,
            WINDOW => self.write_window(value, messages),
            EOI => self.end_of_interrupt(value as u8, messages),
            _ => {}
        }
    }

    fn write_window(&mut self, value: u32, messages: &mut Vec<Msi>) {
        if self.index == ID {
            self.id = value & 0x0F00_0000;
            return;
        }
        let Some((pin, shift)) = self.entry_at(self.index) else { return };
        let Some(entry) = self.entries.get_mut(pin) else { return };
        let writable = (0xFFFF_FFFFu64 << shift) & Redirection::WRITABLE;
        entry.0 = (entry.0 & !writable) | (u64::from(value) << shift & writable);
        // Remote IRR means nothing for an edge-triggered entry and goes with the mode: software
        // for versions without the EOI register ends an interrupt by switching to edge and back.
        if !entry.has(Redirection::LEVEL) {
            entry.0 &= !Redirection::REMOTE_IRR;
        }
        self.serve_level(pin as u32, messages);
    }
}

/// The message of an entry (SDM vol. 3A §11.11).
fn message(entry: Redirection) -> Msi {
    let address = 0xFEE0_0000
        | u64::from(entry.destination()) << 12
        | u64::from(entry.destination_mode()) << 2;
    let trigger = if entry.has(Redirection::LEVEL) { 0xC000 } else { 0 };
    let data = u32::from(entry.vector()) | u32::from(entry.delivery_mode()) << 8 | trigger;
    Msi { address, data }
}
