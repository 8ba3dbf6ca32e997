//! Address spaces: which device answers at which port or guest-physical address.
//!
//! A device has its own space of offsets; a mapping says which of them appear at which addresses,
//! so that one chip can sit at several places (the 8259A pair at 0x20, 0xA0 and 0x4D0) and a BAR
//! can move. An access finds its device under the lock and calls it after unlocking, so a device
//! may map, move and unmap, even itself, while it serves an access.
//!
//! Lock order: an address space's lock is a leaf. No other lock is taken under it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kasane_cpu::AccessSize;
use lock_api::{Mutex, RawMutex};

/// Something that answers on a bus.
pub trait Device: Send + Sync {
    /// A short stable name for traces and statistics.
    fn name(&self) -> &'static str;
    /// The widest access that the device takes as a whole; the bus splits wider ones into
    /// accesses of consecutive addresses, low one first, as an ISA bridge does.
    fn widest_access(&self) -> AccessSize {
        AccessSize::Dword
    }
    /// A read at `offset` of the device's own space, at guest time `now_ns`. Bits above `size`
    /// are dropped.
    fn read(&self, offset: u32, size: AccessSize, now_ns: u64) -> u64;
    /// A write of `value` (zero-extended) at `offset`.
    fn write(&self, offset: u32, size: AccessSize, value: u64, now_ns: u64);
}

/// Names one mapping of an [`AddressSpace`], also while it is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MappingId(u32);

/// Which mapping wins where two overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// The normal one.
    #[default]
    Normal,
    /// Takes the accesses that lie wholly inside its range before the normal layer is asked:
    /// the byte register at 0xCF9 inside the doubleword register at 0xCF8.
    Overlay,
}

/// What to map.
#[derive(Clone)]
pub struct Mapping {
    /// First address.
    pub base: u64,
    /// Number of addresses, not 0.
    pub len: u64,
    /// The device's offset that appears at `base`.
    pub offset: u32,
    /// Who answers.
    pub device: Arc<dyn Device>,
    /// The layer.
    pub layer: Layer,
}

impl Mapping {
    /// A mapping in the normal layer that shows the device's offsets from 0 on.
    #[must_use]
    pub fn new(base: u64, len: u64, device: Arc<dyn Device>) -> Self {
        Self { base, len, offset: 0, device, layer: Layer::Normal }
    }
    /// The same mapping, showing the device's offsets from `offset` on.
    #[must_use]
    pub fn at_offset(mut self, offset: u32) -> Self {
        self.offset = offset;
        self
    }
    /// The same mapping in the overlay.
    #[must_use]
    pub fn overlay(mut self) -> Self {
        self.layer = Layer::Overlay;
        self
    }
    fn contains(&self, address: u64, bytes: u64) -> bool {
        address >= self.base
            && bytes <= self.len
            && address.wrapping_sub(self.base) <= self.len.wrapping_sub(bytes)
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}, {:#x} long", self.device.name(), self.base, self.len)
    }
}

/// A mapping that an address space refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The range is empty or goes beyond the space.
    Range {
        /// First address.
        base: u64,
        /// Length.
        len: u64,
    },
    /// Some address of the range is taken.
    Overlap {
        /// First address asked for.
        base: u64,
        /// Length asked for.
        len: u64,
        /// The device that has it.
        by: &'static str,
    },
    /// No mapping has this id.
    Unknown,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { base, len } => {
                write!(f, "no bus range at {base:#x} with length {len:#x}")
            }
            Self::Overlap { base, len, by } => {
                write!(f, "bus range at {base:#x} with length {len:#x} is taken by `{by}`")
            }
            Self::Unknown => write!(f, "no such mapping on the bus"),
        }
    }
}

impl core::error::Error for MapError {}

/// A read's value, and who answered an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The value read, zero-extended; 0 for a write.
    pub value: u64,
    /// The device of the lowest address, or none where nothing is mapped.
    pub device: Option<&'static str>,
}

/// Active mappings, sorted by base, and all of them by id.
#[derive(Default)]
struct Mappings {
    normal: Vec<(MappingId, Mapping)>,
    overlay: Vec<(MappingId, Mapping)>,
    inactive: Vec<(MappingId, Mapping)>,
    next_id: u32,
}

impl Mappings {
    fn layer_mut(&mut self, layer: Layer) -> &mut Vec<(MappingId, Mapping)> {
        match layer {
            Layer::Normal => &mut self.normal,
            Layer::Overlay => &mut self.overlay,
        }
    }

    fn insert(&mut self, id: MappingId, mapping: Mapping, limit: u64) -> Result<(), MapError> {
        let (base, len) = (mapping.base, mapping.len);
        let last = base.checked_add(len.wrapping_sub(1)).filter(|last| len != 0 && *last <= limit);
        let Some(last) = last else {
            return Err(MapError::Range { base, len });
        };
        let layer = self.layer_mut(mapping.layer);
        let at = layer.partition_point(|(_, m)| m.base < base);
        let before = at.checked_sub(1).and_then(|i| layer.get(i));
        let taken = before
            .filter(|(_, m)| m.contains(base, 1))
            .or_else(|| layer.get(at).filter(|(_, m)| m.base <= last));
        if let Some((_, m)) = taken {
            return Err(MapError::Overlap { base, len, by: m.device.name() });
        }
        layer.insert(at, (id, mapping));
        Ok(())
    }

    fn take(&mut self, id: MappingId) -> Option<Mapping> {
        for layer in [&mut self.normal, &mut self.overlay, &mut self.inactive] {
            if let Some(at) = layer.iter().position(|(i, _)| *i == id) {
                return Some(layer.remove(at).1);
            }
        }
        None
    }

    /// The device that takes an access whole, with the offset; else whether the first byte is
    /// mapped at all.
    fn find(&self, address: u64, bytes: u64) -> Found {
        let overlay = self.overlay.iter().find(|(_, m)| m.contains(address, bytes));
        let at = self.normal.partition_point(|(_, m)| m.base <= address);
        let normal = at.checked_sub(1).and_then(|i| self.normal.get(i));
        let Some((_, m)) = overlay.or(normal.filter(|(_, m)| m.contains(address, 1))) else {
            // A wide access may still reach a mapping with its upper bytes.
            let reaches = self.normal.get(at).is_some_and(|(_, m)| m.base - address < bytes);
            return if reaches { Found::Split } else { Found::Nothing };
        };
        if !m.contains(address, bytes) {
            return Found::Split;
        }
        // A mapping is at most 4 GiB of offsets: what is beyond wraps within the device.
        let offset = m.offset.wrapping_add(address.wrapping_sub(m.base) as u32);
        Found::Device(m.device.clone(), offset)
    }
}

enum Found {
    Device(Arc<dyn Device>, u32),
    Split,
    Nothing,
}

/// A map from addresses to devices: I/O ports or guest-physical memory without RAM.
///
/// Reads where nothing is mapped give all-ones; writes there are ignored.
pub struct AddressSpace<R: RawMutex> {
    limit: u64,
    mappings: Mutex<R, Mappings>,
}

impl<R: RawMutex> AddressSpace<R> {
    /// The 64 Ki I/O ports.
    #[must_use]
    pub fn ports() -> Self {
        Self { limit: 0xFFFF, mappings: Mutex::new(Mappings::default()) }
    }

    /// Guest-physical memory.
    #[must_use]
    pub fn memory() -> Self {
        Self { limit: u64::MAX, mappings: Mutex::new(Mappings::default()) }
    }

    /// Adds a mapping.
    ///
    /// # Errors
    /// When the range is empty, beyond the space, or overlaps another mapping of its layer.
    pub fn map(&self, mapping: Mapping) -> Result<MappingId, MapError> {
        let mut mappings = self.mappings.lock();
        let id = MappingId(mappings.next_id);
        mappings.insert(id, mapping, self.limit)?;
        mappings.next_id = mappings.next_id.wrapping_add(1);
        Ok(id)
    }

    /// Adds a mapping that is switched off: a BAR before its base is set.
    pub fn map_inactive(&self, mapping: Mapping) -> MappingId {
        let mut mappings = self.mappings.lock();
        let id = MappingId(mappings.next_id);
        mappings.inactive.push((id, mapping));
        mappings.next_id = mappings.next_id.wrapping_add(1);
        id
    }

    /// Moves a mapping to another base, or switches it off with `None`.
    ///
    /// # Errors
    /// `Unknown`; or the new range is refused: the mapping is then switched off, as the range
    /// that it had is no longer what was asked for.
    pub fn relocate(&self, id: MappingId, base: Option<u64>) -> Result<(), MapError> {
        let mut mappings = self.mappings.lock();
        let Some(mut mapping) = mappings.take(id) else {
            return Err(MapError::Unknown);
        };
        let Some(base) = base else {
            mappings.inactive.push((id, mapping));
            return Ok(());
        };
        mapping.base = base;
        let result = mappings.insert(id, mapping.clone(), self.limit);
        if result.is_err() {
            mappings.inactive.push((id, mapping));
        }
        result
    }

    /// Removes a mapping for good.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn unmap(&self, id: MappingId) -> Result<(), MapError> {
        let removed = self.mappings.lock().take(id);
        removed.map(|_| ()).ok_or(MapError::Unknown)
    }

    /// Removes all mappings. Some devices hold the space that they are in (PCI moves BARs in it),
    /// so who throws a board away breaks the circle here.
    pub fn clear(&self) {
        let all = core::mem::take(&mut *self.mappings.lock());
        drop(all);
    }

    /// Whether a device is mapped at `address`.
    #[must_use]
    pub fn device_at(&self, address: u64) -> Option<&'static str> {
        match self.mappings.lock().find(address, 1) {
            Found::Device(device, _) => Some(device.name()),
            Found::Split | Found::Nothing => None,
        }
    }

    /// The active mappings: first address, length, device; ascending, overlays last.
    #[must_use]
    pub fn layout(&self) -> Vec<(u64, u64, &'static str)> {
        let mappings = self.mappings.lock();
        let all = mappings.normal.iter().chain(&mappings.overlay);
        all.map(|(_, m)| (m.base, m.len, m.device.name())).collect()
    }

    /// Reads `size` at `address` at guest time `now_ns`.
    pub fn read(&self, address: u64, size: AccessSize, now_ns: u64) -> Reply {
        let found = self.mappings.lock().find(address, u64::from(size.bytes()));
        match (found, halved(size)) {
            (Found::Nothing, _) | (Found::Split, None) => {
                Reply { value: size.mask(), device: None }
            }
            (Found::Device(device, offset), half) => match half {
                Some(half) if size > device.widest_access() => {
                    self.read_halves(address, half, now_ns)
                }
                Some(_) | None => Reply {
                    value: device.read(offset, size, now_ns) & size.mask(),
                    device: Some(device.name()),
                },
            },
            (Found::Split, Some(half)) => self.read_halves(address, half, now_ns),
        }
    }

    fn read_halves(&self, address: u64, half: AccessSize, now_ns: u64) -> Reply {
        let low = self.read(address, half, now_ns);
        let high = self.read(address.wrapping_add(u64::from(half.bytes())), half, now_ns);
        let shift = u32::from(half.bytes()) * 8;
        Reply { value: low.value | high.value << shift, device: low.device.or(high.device) }
    }

    /// Writes `value` of `size` at `address` at guest time `now_ns`.
    pub fn write(&self, address: u64, size: AccessSize, value: u64, now_ns: u64) -> Reply {
        let found = self.mappings.lock().find(address, u64::from(size.bytes()));
        let value = value & size.mask();
        match (found, halved(size)) {
            (Found::Nothing, _) | (Found::Split, None) => Reply { value: 0, device: None },
            (Found::Device(device, offset), half) => match half {
                Some(half) if size > device.widest_access() => {
                    self.write_halves(address, half, value, now_ns)
                }
                Some(_) | None => {
                    device.write(offset, size, value, now_ns);
                    Reply { value: 0, device: Some(device.name()) }
                }
            },
            (Found::Split, Some(half)) => self.write_halves(address, half, value, now_ns),
        }
    }

    fn write_halves(&self, address: u64, half: AccessSize, value: u64, now_ns: u64) -> Reply {
        let shift = u32::from(half.bytes()) * 8;
        let low = self.write(address, half, value, now_ns);
        let next = address.wrapping_add(u64::from(half.bytes()));
        let high = self.write(next, half, value >> shift, now_ns);
        Reply { value: 0, device: low.device.or(high.device) }
    }
}

const fn halved(size: AccessSize) -> Option<AccessSize> {
    match size {
        AccessSize::Byte => None,
        AccessSize::Word => Some(AccessSize::Byte),
        AccessSize::Dword => Some(AccessSize::Word),
        AccessSize::Qword => Some(AccessSize::Dword),
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
