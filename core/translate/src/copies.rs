//! Copies of the guest's pages that code was last made from. They may be old: who used one looks
//! at memory again once changes are noticed.

use alloc::boxed::Box;

use kasane_memory::GuestMemory;

const PAGE: usize = 4096;
/// How many there are.
const COPIES: usize = 8;

/// See the module.
pub(crate) struct Copies {
    bytes: Box<[u8]>,
    /// Which page each is of.
    of: [Option<u64>; COPIES],
}

fn place(page: u64) -> usize {
    (page >> 12) as usize % COPIES
}

impl Copies {
    pub(crate) fn new() -> Self {
        Self { bytes: alloc::vec![0; PAGE * COPIES].into_boxed_slice(), of: [None; COPIES] }
    }
    /// Sees to it that there is a copy of the page at guest-physical address `page`; false if it
    /// can't be read.
    pub(crate) fn load(&mut self, memory: &impl GuestMemory, page: u64) -> bool {
        let place = place(page);
        let begin = place.wrapping_mul(PAGE);
        let Some(of) = self.of.get_mut(place) else { return false };
        let Some(bytes) = self.bytes.get_mut(begin..begin.wrapping_add(PAGE)) else { return false };
        if *of != Some(page) {
            *of = memory.read(page, bytes).is_ok().then_some(page);
        }
        of.is_some()
    }
    /// The copy of the page that was loaded last, of those that share a place with it.
    pub(crate) fn get(&self, page: u64) -> &[u8] {
        let begin = place(page).wrapping_mul(PAGE);
        self.bytes.get(begin..begin.wrapping_add(PAGE)).unwrap_or_default()
    }
    /// The page has changed.
    pub(crate) fn forget(&mut self, page: u64) {
        if let Some(of) = self.of.get_mut(place(page)) {
            *of = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_memory::{Ram, RamSlot};

    #[test]
    fn a_copy_is_kept_until_it_is_forgotten_or_another_page_takes_its_place() {
        let ram = Ram::new(alloc::vec![RamSlot::allocated(0, 16 << 12)]);
        let mut copies = Copies::new();
        let first = |copies: &mut Copies, page| {
            assert!(copies.load(&ram, page));
            copies.get(page)[0]
        };
        ram.write(0x1000, &[1]).unwrap();
        ram.write(0x9000, &[9]).unwrap();
        assert_eq!(first(&mut copies, 0x1000), 1);
        ram.write(0x1000, &[2]).unwrap();
        assert_eq!(first(&mut copies, 0x1000), 1);
        copies.forget(0x1000);
        assert_eq!(first(&mut copies, 0x1000), 2);
        assert_eq!(first(&mut copies, 0x9000), 9);
        assert_eq!(first(&mut copies, 0x1000), 2);
        assert!(!copies.load(&ram, 0x10000));
        assert!(!copies.load(&ram, 0x18000));
    }
}
