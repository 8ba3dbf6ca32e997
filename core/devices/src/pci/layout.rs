//! What a function's configuration space looks like at power-on.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use kasane_spec_pci::{capability, header};

use super::bus::PciError;
use super::config::ConfigSpace;
use crate::bus::Device;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem's vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// The pin that a function interrupts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptPin {
    /// INTA#
    A = 1,
    /// INTB#
    B = 2,
    /// INTC#
    C = 3,
    /// INTD#
    D = 4,
}

/// What a base address register asks for. Lengths are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports, at least 4.
    Io {
        /// Number of ports.
        len: u64,
    },
    /// Memory below 4 GiB, at least 16 bytes.
    Memory32 {
        /// Bytes.
        len: u64,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Bytes, at most 4 GiB.
        len: u64,
        /// Reading has no side effects.
        prefetchable: bool,
    },
}

impl Bar {
    pub(super) const fn len(self) -> u64 {
        match self {
            Self::Io { len } | Self::Memory32 { len } | Self::Memory64 { len, .. } => len,
        }
    }
    pub(super) const fn is_io(self) -> bool {
        matches!(self, Self::Io { .. })
    }
    /// The last address that it can have, and still be told from a BAR that is being sized.
    const fn last_max(self) -> u64 {
        match self {
            Self::Io { .. } => 0xFFFF,
            Self::Memory32 { .. } => 0xFFFF_FFFE,
            Self::Memory64 { .. } => u64::MAX - 1,
        }
    }
    /// Doublewords that its base takes.
    const fn registers(self) -> usize {
        match self {
            Self::Io { .. } | Self::Memory32 { .. } => 1,
            Self::Memory64 { .. } => 2,
        }
    }
    const fn valid(self) -> bool {
        let least = if self.is_io() { 4 } else { 16 };
        let most = if self.is_io() { 1 << 16 } else { 1 << 32 };
        self.len().is_power_of_two() && self.len() >= least && self.len() <= most
    }
}

/// What switches a window on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnable {
    /// The command register's I/O or memory bit.
    Command,
    /// A bit of the function's own.
    Bits {
        /// Register.
        at: usize,
        /// Mask in that byte.
        mask: u8,
    },
}

/// A range of addresses whose place is in the configuration space: a BAR, or a base register of
/// a chip's own.
#[derive(Clone)]
pub struct Window {
    /// The register that holds the address.
    pub register: usize,
    /// What is there.
    pub bar: Bar,
    /// What switches it on.
    pub enable: WindowEnable,
    /// Which of the function's windows it is: a BAR's number.
    pub number: u8,
    /// Who answers, if not the function.
    pub device: Option<Arc<dyn Device>>,
}

impl Window {
    /// The address that the registers give, if the window answers there.
    pub(super) fn base(&self, space: &ConfigSpace) -> Option<u64> {
        let enabled = match self.enable {
            WindowEnable::Command => {
                let bit =
                    if self.bar.is_io() { header::command::IO } else { header::command::MEMORY };
                space.u16(header::COMMAND) & bit != 0
            }
            WindowEnable::Bits { at, mask } => space.byte(at) & mask == mask,
        };
        let raw = match self.bar {
            Bar::Io { .. } | Bar::Memory32 { .. } => u64::from(space.u32(self.register)),
            Bar::Memory64 { .. } => space.u64(self.register),
        };
        let base = raw & !self.bar.len().wrapping_sub(1);
        let last = base.checked_add(self.bar.len().wrapping_sub(1));
        let placed = base != 0 && last.is_some_and(|last| last <= self.bar.last_max());
        (enabled && placed).then_some(base)
    }

    /// Whether a write to `at` (up to 8 bytes) can move the window or switch it.
    pub(super) fn depends_on(&self, at: usize, len: usize) -> bool {
        let touches = |register: usize, bytes: usize| {
            at < register.saturating_add(bytes) && register < at.saturating_add(len)
        };
        touches(self.register, self.bar.registers() * 4)
            || match self.enable {
                WindowEnable::Command => touches(header::COMMAND, 2),
                WindowEnable::Bits { at, .. } => touches(at, 1),
            }
    }
}

/// Where a function's MSI-X table and pending bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// The BAR that holds both.
    pub bar: u8,
    /// The table's offset in it, a multiple of 8.
    pub table: u32,
    /// The pending bits' offset in it, a multiple of 8.
    pub pending: u32,
}

/// A function's configuration space at power-on, and what in it moves or interrupts.
#[derive(Clone)]
pub struct FunctionLayout {
    pub(super) space: ConfigSpace,
    pub(super) windows: Vec<Window>,
    pub(super) msi: Option<usize>,
    pub(super) msix: Option<(usize, MsixPlace)>,
    /// Registers that the function answers for.
    pub(super) live: Range<usize>,
    /// Where the next capability goes, and the byte that will point to it.
    next_capability: usize,
    last_link: usize,
}

impl FunctionLayout {
    /// A function without BARs, interrupts or capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        use header::command;
        let [class, subclass, interface] = identity.class;
        let writable = command::IO
            | command::MEMORY
            | command::BUS_MASTER
            | command::PARITY
            | command::SERR
            | command::INTX_DISABLE;
        let mut space = ConfigSpace::default();
        space.set(header::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.set(header::DEVICE_ID, &identity.device.to_le_bytes());
        space.set(header::REVISION, &[identity.revision]);
        space.set(header::CLASS, &[interface, subclass, class]);
        space.set(header::SUBSYSTEM_VENDOR, &identity.subsystem_vendor.to_le_bytes());
        space.set(header::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        space.allow(header::COMMAND, &writable.to_le_bytes());
        let clearable = header::status::WRITE_ONE_TO_CLEAR;
        space.allow_clear(header::STATUS, &clearable.to_le_bytes());
        space.allow(header::CACHE_LINE, &[0xFF]);
        space.allow(header::LATENCY, &[0xFF]);
        Self {
            space,
            windows: Vec::new(),
            msi: None,
            msix: None,
            live: 0..0,
            next_capability: header::END,
            last_link: header::CAPABILITIES,
        }
    }

    /// Sets registers of the function's own, with the bits that the guest may write.
    #[must_use]
    pub fn registers(mut self, at: usize, values: &[u8], writable: &[u8]) -> Self {
        self.space.set(at, values);
        self.space.allow(at, writable);
        self
    }

    /// The `len` bytes from `at` on are a window into the function: it is asked when they are read
    /// and told when they are written. Other registers can't be read together with them.
    #[must_use]
    pub fn live(mut self, at: usize, len: usize) -> Self {
        self.live = at..at.saturating_add(len);
        self
    }

    /// The function interrupts by `pin`.
    #[must_use]
    pub fn interrupt_pin(mut self, pin: InterruptPin) -> Self {
        self.space.set(header::INTERRUPT_PIN, &[pin as u8]);
        self.space.allow(header::INTERRUPT_LINE, &[0xFF]);
        self
    }

    /// Base address register `number`.
    ///
    /// # Errors
    /// A length that a BAR can't have, or a register that is taken or not there.
    pub fn bar(mut self, number: u8, bar: Bar) -> Result<Self, PciError> {
        let registers = bar.registers();
        let at = header::BAR0 + usize::from(number) * 4;
        let taken = self.windows.iter().any(|w| w.depends_on(at, registers * 4) && w.number < 6);
        let fits = usize::from(number) + registers <= usize::from(header::BARS);
        if !bar.valid() || taken || !fits {
            return Err(PciError::BadBar { number, len: bar.len() });
        }
        let flags = match bar {
            Bar::Io { .. } => header::bar::IO,
            Bar::Memory32 { .. } => 0,
            Bar::Memory64 { prefetchable: true, .. } => {
                header::bar::MEMORY64 | header::bar::PREFETCHABLE
            }
            Bar::Memory64 { prefetchable: false, .. } => header::bar::MEMORY64,
        };
        self.space.set(at, &flags.to_le_bytes());
        let mask = (!bar.len().wrapping_sub(1)).to_le_bytes();
        self.space.allow(at, mask.get(..registers * 4).unwrap_or_default());
        let enable = WindowEnable::Command;
        self.windows.push(Window { register: at, bar, enable, number, device: None });
        Ok(self)
    }

    /// A window with a base register of the function's own.
    #[must_use]
    pub fn window(mut self, window: Window) -> Self {
        self.windows.push(window);
        self
    }

    /// Adds a capability (id and next pointer are put in front of `body`), with the bits of
    /// `body` that the guest may write; gives its offset.
    ///
    /// # Errors
    /// When the 192 bytes for capabilities are full.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<usize, PciError> {
        let at = self.next_capability;
        let end = at.saturating_add(2).saturating_add(body.len());
        if end > header::CONVENTIONAL_LEN {
            return Err(PciError::NoCapabilitySpace { id });
        }
        self.space.set(self.last_link, &[at as u8]);
        self.space.set(at, &[id, 0]);
        self.space.set(at.wrapping_add(2), body);
        self.space.allow(at.wrapping_add(2), writable);
        let status = self.space.u16(header::STATUS) | header::status::CAPABILITIES;
        self.space.set(header::STATUS, &status.to_le_bytes());
        self.last_link = at.wrapping_add(1);
        self.next_capability = end.next_multiple_of(4);
        Ok(at)
    }

    /// MSI with `1 << vectors_log2` vectors (at most 32), 64-bit address and masking.
    ///
    /// # Errors
    /// When there is no room for the capability.
    pub fn msi(mut self, vectors_log2: u8) -> Result<Self, PciError> {
        use capability::msi;
        let log2 = u16::from(vectors_log2.min(5));
        let control = msi::ADDRESS64 | msi::PER_VECTOR_MASK | log2 << msi::CAPABLE_SHIFT;
        let mut body = [0; msi::LEN - 2];
        let mut mask = [0; msi::LEN - 2];
        let vectors = u32::MAX >> (32 - (1u32 << log2));
        let put = |to: &mut [u8], at: usize, value: &[u8]| {
            for (to, from) in to.iter_mut().skip(at - 2).zip(value) {
                *to = *from;
            }
        };
        put(&mut body, msi::CONTROL, &control.to_le_bytes());
        let control_mask = msi::ENABLE | 7 << msi::ENABLED_SHIFT;
        put(&mut mask, msi::CONTROL, &control_mask.to_le_bytes());
        put(&mut mask, msi::ADDRESS, &(!3u64).to_le_bytes());
        put(&mut mask, msi::DATA, &[0xFF, 0xFF]);
        put(&mut mask, msi::MASK, &vectors.to_le_bytes());
        self.msi = Some(self.capability(capability::MSI, &body, &mask)?);
        Ok(self)
    }

    /// MSI-X.
    ///
    /// # Errors
    /// When the place makes no sense, or there is no room for the capability.
    pub fn msix(mut self, place: MsixPlace) -> Result<Self, PciError> {
        use capability::msix;
        let bar = self.windows.iter().find(|w| w.number == place.bar).map_or(0, |w| w.bar.len());
        let table_end = u64::from(place.table) + u64::from(place.vectors) * 16;
        let pending_end = u64::from(place.pending) + u64::from(place.vectors).div_ceil(64) * 8;
        let in_bar = table_end.max(pending_end) <= bar;
        let aligned = place.table.is_multiple_of(8) && place.pending.is_multiple_of(8);
        let apart = table_end <= place.pending.into() || pending_end <= place.table.into();
        let count = (1..=msix::VECTORS_MAX).contains(&place.vectors);
        if !in_bar || !aligned || !apart || !count {
            return Err(PciError::BadMsix { vectors: place.vectors, bar: place.bar });
        }
        let mut body = [0; msix::LEN - 2];
        let fields = [
            (msix::CONTROL, u32::from(place.vectors - 1)),
            (msix::TABLE, place.table | u32::from(place.bar)),
            (msix::PENDING, place.pending | u32::from(place.bar)),
        ];
        for (at, value) in fields {
            for (to, from) in body.iter_mut().skip(at - 2).zip(value.to_le_bytes()) {
                *to |= from;
            }
        }
        let mask = (msix::FUNCTION_MASK | msix::ENABLE).to_le_bytes();
        let at = self.capability(capability::MSIX, &body, &mask)?;
        self.msix = Some((at, place));
        Ok(self)
    }
}
