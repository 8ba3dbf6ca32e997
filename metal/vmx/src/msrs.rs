//! MSRs that a guest has to itself: the bitmap that lets it reach them (SDM vol. 3C §24.6.9), and
//! the list by which entries and exits exchange those that the control structure has no field for
//! (§24.7.2).

/// STAR, LSTAR, CSTAR, SFMASK and the kernel's GS base. The hypervisor uses none of them.
pub const LISTED: [u32; 5] = [0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102];
/// SYSENTER's, and the bases of FS and GS: fields of the control structure.
const FIELDS: [u32; 5] = [0x174, 0x175, 0x176, 0xC000_0100, 0xC000_0101];

/// A page of one bit for each MSR: those from 0 and those from C000_0000H, read and written.
#[repr(C, align(4096))]
pub struct Bitmap([u8; 4096]);

impl Bitmap {
    /// All others exit.
    #[must_use]
    pub fn new() -> Self {
        let mut map = Self([0xFF; 4096]);
        for index in LISTED.into_iter().chain(FIELDS) {
            let first = if index >= 0xC000_0000 { 0x400 } else { 0 };
            let number = (index & 0x1FFF) as usize;
            for at in [first, first + 0x800] {
                if let Some(byte) = map.0.get_mut(at + number / 8) {
                    *byte &= !(1 << (number % 8));
                }
            }
        }
        map
    }
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }
}

impl Default for Bitmap {
    fn default() -> Self {
        Self::new()
    }
}

/// One MSR of a list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    index: u32,
    reserved: u32,
    value: u64,
}

/// The list, in entries' and exits' hands.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct List([Entry; LISTED.len()]);

impl List {
    /// All of them, as 0.
    #[must_use]
    pub fn new() -> Self {
        Self(LISTED.map(|index| Entry { index, ..Entry::default() }))
    }
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }
    /// Sets the values, in the order of [`LISTED`].
    pub fn put(&mut self, values: [u64; LISTED.len()]) {
        for (entry, value) in self.0.iter_mut().zip(values) {
            entry.value = value;
        }
    }
    /// The values.
    #[must_use]
    pub fn get(&self) -> [u64; LISTED.len()] {
        // The processor writes them behind the compiler's back.
        // SAFETY: entries of this list.
        self.0.each_ref().map(|entry| unsafe { core::ptr::from_ref(&entry.value).read_volatile() })
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_registers_do_not_exit() {
        let map = Bitmap::new();
        let free: u32 = map.0.iter().map(|byte| byte.count_zeros()).sum();
        // LSTAR is bit 82H of the second half's reads and writes.
        let lstar = [0x410, 0xC10].map(|at| map.0[at] >> 2 & 1);

        assert_eq!((free, lstar), (20, [0, 0]));
        assert_eq!((size_of::<Bitmap>(), size_of::<List>()), (4096, 80));
    }

    #[test]
    fn values_come_back() {
        let mut list = List::new();
        list.put([1, 2, 3, 4, 5]);

        assert_eq!(list.get(), [1, 2, 3, 4, 5]);
    }
}
