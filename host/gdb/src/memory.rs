//! Guest memory by linear address, as a debugger looks at it: through the page tables, without
//! regard for the rights in them (a debugger may look at and change anything), without setting
//! accessed and dirty bits, and RAM only (a look must not move a device).

use kasane_cpu::CpuState;
use kasane_cpu::paging::{Access, Marking, PagingContext, Privilege};
use kasane_memory::GuestMemory;
use kasane_spec_x86::control::efer;

use crate::target::PhysicalView;

const PAGE: u64 = 4096;

/// A vCPU's view of guest memory.
pub(crate) struct LinearMemory<'a> {
    memory: &'a dyn GuestMemory,
    paging: PagingContext,
}

impl<'a> LinearMemory<'a> {
    /// The view that `state` (its system registers) makes.
    pub(crate) fn new(
        memory: &'a dyn GuestMemory,
        state: &CpuState,
        physical: PhysicalView,
    ) -> Self {
        let paging = PagingContext {
            cr0: state.cr0,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            pdpte: state.pdpte,
            physical_bits: physical.bits,
            a20_mask: physical.a20_mask,
        };
        Self { memory, paging }
    }

    /// Guest-physical address of a linear one.
    fn translate(&self, va: u64) -> Option<u64> {
        let long = self.paging.efer & efer::LMA != 0;
        // GDB may sign-extend the addresses of a 32-bit guest.
        let va = if long { va } else { va & 0xFFFF_FFFF };
        if long && ((va << 16) as i64 >> 16) as u64 != va {
            return None;
        }
        let looked = self.paging.walk(
            self.memory,
            va,
            Access::Read,
            Privilege::SupervisorAc,
            Marking::Leave,
        );
        looked.ok().map(|found| found.gpa)
    }

    /// Reads as many bytes as there are from `va` on; gives their number.
    pub(crate) fn read(&self, va: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let at = va.wrapping_add(done as u64);
            let Some(part) = buf.get_mut(done..end_in_page(at, done, buf.len())) else { break };
            let read = self.translate(at).map(|gpa| self.memory.read(gpa, part));
            if !matches!(read, Some(Ok(()))) {
                break;
            }
            done += part.len();
        }
        done
    }

    /// Writes all of `data`, or nothing where a page is not there. False: nothing was written,
    /// or (read-only memory) a part.
    pub(crate) fn write(&self, va: u64, data: &[u8]) -> bool {
        let mut there = vec![0; data.len()];
        if self.read(va, &mut there) < data.len() {
            return false;
        }
        let mut done = 0;
        while done < data.len() {
            let at = va.wrapping_add(done as u64);
            let Some(part) = data.get(done..end_in_page(at, done, data.len())) else { break };
            let Some(gpa) = self.translate(at) else { return false };
            if self.memory.write(gpa, part).is_err() {
                return false;
            }
            done += part.len();
        }
        true
    }
}

/// How far, of `len` bytes of which `done` are done, the page of address `at` reaches.
fn end_in_page(at: u64, done: usize, len: usize) -> usize {
    let in_page = (PAGE - (at & (PAGE - 1))) as usize;
    done.saturating_add(in_page).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_memory::{Ram, RamSlot};
    use kasane_spec_x86::control::{cr0, cr4};

    const VIEW: PhysicalView = PhysicalView { bits: 40, a20_mask: u64::MAX };

    fn ram() -> Ram {
        Ram::new(vec![RamSlot::allocated(0, 0x1_0000)])
    }

    /// 4-level tables at 0x1000 that map page 0x7000 to 0x8000 and nothing else.
    fn paged(ram: &Ram) -> CpuState {
        for (at, entry) in
            [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4038, 0x8001u64)]
        {
            ram.store_u64(at, entry).unwrap();
        }
        let mut state = CpuState::reset(true);
        state.cr0 |= cr0::PE | cr0::PG | cr0::WP;
        state.cr4 |= cr4::PAE;
        state.efer = efer::LME | efer::LMA;
        state.cr3 = 0x1000;
        state
    }

    #[test]
    fn reading_stops_where_the_mapping_ends() {
        let ram = ram();
        let state = paged(&ram);
        ram.write(0x8FFC, b"tail").unwrap();
        let mut buf = [0; 8];

        let read = LinearMemory::new(&ram, &state, VIEW).read(0x7FFC, &mut buf);

        assert_eq!((read, &buf[..4]), (4, b"tail".as_slice()));
    }

    #[test]
    fn writing_ignores_the_write_protection_but_not_a_missing_page() {
        let ram = ram();
        let state = paged(&ram);
        let linear = LinearMemory::new(&ram, &state, VIEW);

        let inside = linear.write(0x7010, b"yes");
        let across = linear.write(0x7FFE, b"nono");

        let mut buf = [0; 3];
        ram.read(0x8010, &mut buf).unwrap();
        assert_eq!((inside, &buf), (true, b"yes"));
        let mut end = [0; 2];
        ram.read(0x8FFE, &mut end).unwrap();
        assert_eq!((across, end), (false, [0, 0]));
    }

    #[test]
    fn a_look_marks_nothing() {
        let ram = ram();
        let state = paged(&ram);

        LinearMemory::new(&ram, &state, VIEW).write(0x7000, b"x");

        assert_eq!(ram.load_u64(0x4038), Ok(0x8001));
    }

    #[test]
    fn without_paging_addresses_are_physical_and_end_with_the_memory() {
        let ram = ram();
        ram.write(0xFFFF, b"z").unwrap();
        let state = CpuState::reset(true);
        let mut buf = [0; 4];

        let read = LinearMemory::new(&ram, &state, VIEW).read(0xFFFF, &mut buf);

        assert_eq!((read, buf[0]), (1, b'z'));
    }

    #[test]
    fn an_address_that_is_not_canonical_is_not_there() {
        let ram = ram();
        let state = paged(&ram);

        let read = LinearMemory::new(&ram, &state, VIEW).read(0x8000_0000_0000_7000, &mut [0; 1]);

        assert_eq!(read, 0);
    }
}
