//! The function's configuration space and what is where in its BARs.

use alloc::string::String;

use kasane_spec_pci::{capability as pci_capability, class};
use kasane_spec_virtio::device_type;
use kasane_spec_virtio::pci::{
    DEVICE_ID_MODERN, REVISION_MODERN, REVISION_TRANSITIONAL, VENDOR_ID, capability, common,
    legacy, transitional,
};

use crate::pci::{Bar, FunctionLayout, Identity, InterruptPin, MsixPlace, PciAddress, PciError};
use crate::virtio::{Interface, Offer, VirtioChip};

/// The I/O BAR of a transitional function.
pub(super) const LEGACY_BAR: u8 = 0;
/// The memory BAR, with the next register its high half.
pub(super) const BAR: u8 = 2;
/// Bytes of the memory BAR.
const BAR_LEN: u64 = 0x8000;
/// Offsets in it.
pub(super) const COMMON: u32 = 0x0000;
pub(super) const ISR: u32 = 0x1000;
pub(super) const DEVICE: u32 = 0x2000;
pub(super) const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PENDING: u32 = 0x7000;
/// Bytes from one queue's doorbell to the next.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
/// Bytes of each of the first four parts, at most.
pub(super) const PART_LEN: u32 = 0x1000;
/// The most queues: their vectors and one more fit between table and pending bits.
const QUEUES_MAX: u16 = 512;

/// What a function needs to know of its device before there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciShape {
    /// Where it is.
    pub address: PciAddress,
    /// The device's own name, for its saved section.
    pub name: String,
    /// Device type.
    pub device_type: u16,
    /// Queues.
    pub queues: u16,
    /// Bytes of the device's configuration.
    pub config_len: u32,
    /// Which drivers it is for.
    pub interface: Interface,
}

impl PciShape {
    /// The function of a chip. Types that had no legacy interface are modern in any case.
    #[must_use]
    pub fn of<C: VirtioChip>(chip: &C, address: PciAddress, name: &str, offer: Offer) -> Self {
        Self {
            address,
            name: name.into(),
            device_type: C::DEVICE_TYPE,
            queues: u16::try_from(chip.queue_sizes().len()).unwrap_or(u16::MAX).min(QUEUES_MAX),
            config_len: u32::try_from(chip.config().len()).unwrap_or(PART_LEN).min(PART_LEN),
            interface: offer.interface,
        }
    }

    /// The device id of §4.1.2.1, where there is one and it is wanted.
    fn transitional_id(&self) -> Option<u16> {
        let id = match self.device_type {
            device_type::NET => transitional::NET,
            device_type::BLOCK => transitional::BLOCK,
            device_type::BALLOON => transitional::BALLOON,
            device_type::CONSOLE => transitional::CONSOLE,
            device_type::ENTROPY => transitional::ENTROPY,
            device_type::P9 => transitional::P9,
            _ => return None,
        };
        (self.interface == Interface::Transitional).then_some(id)
    }

    fn identity(&self) -> Identity {
        let class = match self.device_type {
            device_type::NET => class::ETHERNET,
            device_type::BLOCK => class::SCSI_STORAGE,
            device_type::CONSOLE | device_type::SOCKET => class::OTHER_COMMUNICATION,
            _ => class::UNCLASSIFIED,
        };
        let modern = DEVICE_ID_MODERN.saturating_add(self.device_type);
        let (device, revision, subsystem) = match self.transitional_id() {
            Some(id) => (id, REVISION_TRANSITIONAL, self.device_type),
            None => (modern, REVISION_MODERN, modern),
        };
        let subsystem_vendor = VENDOR_ID;
        Identity { vendor: VENDOR_ID, device, revision, class, subsystem_vendor, subsystem }
    }

    /// Vectors: one for each queue, one for the configuration.
    pub(super) fn vectors(&self) -> u16 {
        self.queues.saturating_add(1)
    }

    /// The configuration space, and where in it the window of §4.1.4.9 is.
    pub(super) fn layout(&self) -> Result<(FunctionLayout, usize), PciError> {
        let mut layout = FunctionLayout::new(self.identity()).interrupt_pin(InterruptPin::A);
        if self.transitional_id().is_some() {
            let len = legacy::CONFIG_WITH_MSIX.saturating_add(self.config_len);
            let len = u64::from(len).next_power_of_two();
            layout = layout.bar(LEGACY_BAR, Bar::Io { len })?;
        }
        let (vectors, bar) = (self.vectors(), BAR);
        let place = MsixPlace { vectors, bar, table: MSIX_TABLE, pending: MSIX_PENDING };
        layout = layout.bar(BAR, Bar::Memory64 { len: BAR_LEN, prefetchable: false })?;
        layout = layout.msix(place)?;
        let doorbells = NOTIFY_MULTIPLIER.saturating_mul(self.queues.into());
        for (kind, offset, len) in [
            (capability::COMMON, COMMON, common::LEN),
            (capability::ISR, ISR, 1),
            (capability::DEVICE, DEVICE, self.config_len),
        ] {
            // A capability of nothing is none (§4.1.4.6: only if there is a configuration).
            if len != 0 {
                let body = body(kind, (offset, len));
                layout.capability(pci_capability::VENDOR, body_of(&body, capability::LEN), &[])?;
            }
        }
        let mut notify = body(capability::NOTIFY, (NOTIFY, doorbells));
        put(&mut notify, capability::NOTIFY_MULTIPLIER, &NOTIFY_MULTIPLIER.to_le_bytes());
        let notify = body_of(&notify, capability::NOTIFY_LEN);
        layout.capability(pci_capability::VENDOR, notify, &[])?;
        let mut window = [0; capability::PCI_LEN as usize];
        put(&mut window, capability::CAP_LEN, &[capability::PCI_LEN, capability::PCI]);
        let mut writable = [0; capability::PCI_LEN as usize];
        put(&mut writable, capability::BAR, &[0xFF]);
        put(&mut writable, capability::OFFSET, &[0xFF; 12]);
        let (window, writable) =
            (body_of(&window, capability::PCI_LEN), body_of(&writable, capability::PCI_LEN));
        let at = layout.capability(pci_capability::VENDOR, window, writable)?;
        Ok((layout.live(at.wrapping_add(capability::PCI_DATA), 4), at))
    }
}

/// A capability of this transport in the memory BAR; the first two bytes are the bus's.
fn body(kind: u8, place: (u32, u32)) -> [u8; capability::NOTIFY_LEN as usize] {
    let (offset, length) = place;
    let len = if kind == capability::NOTIFY { capability::NOTIFY_LEN } else { capability::LEN };
    let mut bytes = [0; capability::NOTIFY_LEN as usize];
    put(&mut bytes, capability::CAP_LEN, &[len, kind, BAR]);
    put(&mut bytes, capability::OFFSET, &offset.to_le_bytes());
    put(&mut bytes, capability::LENGTH, &length.to_le_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// What follows id and next pointer, of a capability of `len` bytes.
fn body_of(bytes: &[u8], len: u8) -> &[u8] {
    bytes.get(2..usize::from(len)).unwrap_or_default()
}
