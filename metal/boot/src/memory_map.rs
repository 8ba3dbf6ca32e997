//! What is where in physical memory, as the firmware says: both protocols use the types of ACPI's
//! address map (ACPI 6.5 §15.2).

/// What a region may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Free memory.
    Usable,
    /// ACPI tables; free once they are read.
    AcpiTables,
    /// The firmware's own, to be kept as it is.
    AcpiNvs,
    /// Not to be touched.
    Reserved,
}

impl RegionKind {
    /// From ACPI's number; all that is not known is reserved.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 => Self::AcpiTables,
            4 => Self::AcpiNvs,
            _ => Self::Reserved,
        }
    }
}

/// A region of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it may be used for.
    pub kind: RegionKind,
}

impl Region {
    /// The first byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}
