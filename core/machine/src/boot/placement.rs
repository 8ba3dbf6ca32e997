//! Who has which part of guest RAM while images and tables are put into it.

use alloc::vec::Vec;

use kasane_memory::GuestMemory;

use super::BootError;
use crate::layout;

/// A part of guest RAM that is taken.
struct Claim {
    start: u64,
    end: u64,
    what: &'static str,
}

/// Hands out guest RAM, so that no loaded thing overwrites another.
pub(super) struct Placement<'a> {
    memory: &'a dyn GuestMemory,
    ram: Vec<(u64, u64)>,
    claims: Vec<Claim>,
}

impl<'a> Placement<'a> {
    /// Guest memory with the parts taken that firmware has: the interrupt vectors and BIOS data
    /// area, and everything from the extended BIOS data area to the end of the first MiB.
    pub(super) fn new(memory: &'a dyn GuestMemory) -> Self {
        let ram = memory.ram_ranges();
        let claims = alloc::vec![
            Claim { start: 0, end: layout::LOW_FREE, what: "the BIOS data area" },
            Claim {
                start: layout::EBDA,
                end: layout::HIGH_MEMORY,
                what: "the firmware's area and the VGA window",
            },
        ];
        Self { memory, ram, claims }
    }

    /// End of the RAM that begins at 0.
    pub(super) fn low_ram_end(&self) -> u64 {
        self.ram
            .iter()
            .find(|(base, _)| *base == 0)
            .map_or(0, |(_, len)| (*len).min(layout::LOW_RAM_MAX))
    }

    fn clash(&self, start: u64, end: u64) -> Option<&Claim> {
        self.claims.iter().find(|c| start < c.end && c.start < end)
    }

    /// Whether `len` bytes at `start` are RAM below 4 GiB that nobody has.
    pub(super) fn is_free(&self, start: u64, len: u64) -> bool {
        start
            .checked_add(len)
            .is_some_and(|end| end <= self.low_ram_end() && self.clash(start, end).is_none())
    }

    /// Takes `len` bytes at `start`.
    pub(super) fn claim(
        &mut self,
        what: &'static str,
        start: u64,
        len: u64,
    ) -> Result<(), BootError> {
        let end = start.saturating_add(len);
        if start.checked_add(len).is_none() || end > self.low_ram_end() {
            return Err(BootError::OutsideRam { what, start, end });
        }
        if let Some(claim) = self.clash(start, end) {
            return Err(BootError::Overlap { what, start, end, with: claim.what });
        }
        self.claims.push(Claim { start, end, what });
        Ok(())
    }

    /// Takes the lowest free `len` bytes from `from` up that end at or below `below`.
    /// `align` is a power of two.
    pub(super) fn claim_lowest(
        &mut self,
        what: &'static str,
        len: u64,
        align: u64,
        window: core::ops::Range<u64>,
    ) -> Result<u64, BootError> {
        let below = window.end.min(self.low_ram_end());
        let no_room = BootError::NoRoom { what, len, below };
        let up = |address: u64| {
            address.checked_add(align.wrapping_sub(1)).map(|a| a & !align.wrapping_sub(1))
        };
        let mut start = up(window.start).ok_or(no_room.clone())?;
        // Each turn steps over one claim, so there are at most as many turns as claims.
        loop {
            let end = start.checked_add(len).filter(|end| *end <= below).ok_or(no_room.clone())?;
            match self.clash(start, end) {
                None => {
                    self.claims.push(Claim { start, end, what });
                    return Ok(start);
                }
                Some(claim) => start = up(claim.end).ok_or(no_room.clone())?,
            }
        }
    }

    /// Takes `len` bytes of conventional memory.
    pub(super) fn claim_conventional(
        &mut self,
        what: &'static str,
        len: u64,
    ) -> Result<u64, BootError> {
        self.claim_lowest(what, len, 4096, layout::LOW_FREE..layout::EBDA)
    }

    /// Takes the highest free `len` bytes, page-aligned, that end at or below `below`.
    pub(super) fn claim_highest(
        &mut self,
        what: &'static str,
        len: u64,
        below: u64,
    ) -> Result<u64, BootError> {
        let below = below.min(self.low_ram_end());
        let no_room = BootError::NoRoom { what, len, below };
        let mut top = below;
        loop {
            let start = top.checked_sub(len).ok_or(no_room.clone())? & !0xFFF;
            let end = start.saturating_add(len);
            match self.clash(start, end) {
                None => {
                    self.claims.push(Claim { start, end, what });
                    return Ok(start);
                }
                Some(claim) => top = claim.start,
            }
        }
    }

    /// Copies `data` to `gpa`.
    pub(super) fn write(&self, gpa: u64, data: &[u8]) -> Result<(), BootError> {
        Ok(self.memory.write(gpa, data)?)
    }

    /// Clears `len` bytes at `gpa`.
    pub(super) fn clear(&self, gpa: u64, len: u64) -> Result<(), BootError> {
        Ok(self.memory.fill(gpa, len, 0)?)
    }
}
