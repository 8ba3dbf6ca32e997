//! Page walks against a plain second implementation, written from SDM vol. 3A §4.5 and §4.6 as
//! one flat function without sharing a line with the first.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::unreachable)] // a test: it may panic

use kasane_cpu::paging::{Access, Marking, PageFault, PagingContext, Privilege, Translation};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use proptest::prelude::*;

const MAXPHYADDR: u8 = 40;
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];

#[derive(Clone, Debug)]
struct Case {
    /// Flags of the four entries, from the PML4's down; addresses are added.
    entries: [u64; 4],
    frame: u64,
    va: u64,
    access: Access,
    privilege: Privilege,
    cr0: u64,
    cr4: u64,
    efer: u64,
}

fn flags() -> impl Strategy<Value = u64> {
    // P nearly always, A and D often, sometimes NX, PS, G, and a reserved bit (46).
    (any::<u64>(), 0u32..10, 0u32..12).prop_map(|(bits, present, reserved)| {
        let mut entry = bits & 0x8000_0000_0000_01FE;
        entry |= u64::from(present > 0);
        if reserved == 0 {
            entry |= 1 << 46;
        }
        entry
    })
}

fn case() -> impl Strategy<Value = Case> {
    let access = prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Execute)];
    let privilege = prop_oneof![
        Just(Privilege::User),
        Just(Privilege::Supervisor),
        Just(Privilege::SupervisorAc)
    ];
    (
        [flags(), flags(), flags(), flags()],
        any::<u64>(),
        any::<u64>(),
        access,
        privilege,
        any::<bool>(),
        any::<[bool; 3]>(),
        any::<bool>(),
    )
        .prop_map(|(entries, frame, va, access, privilege, wp, [smep, smap, pge], nxe)| Case {
            entries,
            frame: frame & 0xFF_FFFF_F000,
            va: ((va << 16) as i64 >> 16) as u64,
            access,
            privilege,
            cr0: 0x8000_0001 | u64::from(wp) << 16,
            cr4: 0x20 | u64::from(pge) << 7 | u64::from(smep) << 20 | u64::from(smap) << 21,
            efer: 0x500 | u64::from(nxe) << 11,
        })
}

/// Lays the tables out so that `case.va` goes through the four entries; gives their addresses.
fn lay_out(case: &Case, ram: &Ram) -> [u64; 4] {
    let mut at = [0; 4];
    for level in 0..4 {
        let index = case.va >> (39 - 9 * level as u64) & 0x1FF;
        at[level] = TABLES[level] + index * 8;
        let mut entry = case.entries[level];
        let large = level > 0 && level < 3 && entry & 0x80 != 0;
        entry |= if level == 3 || large {
            // A frame aligned to the page's size, so that no low bit is set by accident.
            let size = 1u64 << (39 - 9 * level as u64);
            case.frame & !(size - 1)
        } else {
            TABLES[level + 1]
        };
        ram.store_u64(at[level], entry).unwrap();
    }
    at
}

fn second_walk(case: &Case, ram: &Ram, at: [u64; 4]) -> Result<Translation, PageFault> {
    let nxe = case.efer >> 11 & 1 == 1;
    let smep = case.cr4 >> 20 & 1 == 1;
    let user_access = case.privilege == Privilege::User;
    let mut error = 0;
    error |= u32::from(case.access == Access::Write) << 1;
    error |= u32::from(user_access) << 2;
    error |= u32::from(case.access == Access::Execute && (nxe || smep)) << 4;
    let (mut user, mut writable, mut nx) = (true, true, false);
    for level in 0..4 {
        let entry = ram.load_u64(at[level]).unwrap();
        if entry & 1 == 0 {
            return Err(PageFault { error });
        }
        let is_large = (level == 1 || level == 2) && entry & 0x80 != 0;
        let bad = (entry & 0xF_FF00_0000_0000 != 0)
            || (entry >> 63 == 1 && !nxe)
            || (level == 0 && entry & 0x80 != 0);
        if bad {
            return Err(PageFault { error: error | 1 | 8 });
        }
        user &= entry >> 2 & 1 == 1;
        writable &= entry >> 1 & 1 == 1;
        nx |= entry >> 63 == 1;
        if level == 3 || is_large {
            let bits = [39u8, 30, 21, 12][level];
            let smap = case.cr4 >> 21 & 1 == 1 && case.privilege == Privilege::Supervisor;
            let wp = case.cr0 >> 16 & 1 == 1;
            let (r, w, x) = if user_access {
                (user, user && writable, user && !nx)
            } else {
                let data = !(user && smap);
                (data, data && (writable || !wp), !(nx || user && smep))
            };
            let ok = match case.access {
                Access::Read => r,
                Access::Write => w,
                Access::Execute => x,
            };
            if !ok {
                return Err(PageFault { error: error | 1 });
            }
            let low = (1u64 << bits) - 1;
            let dirty = entry >> 6 & 1 == 1 || case.access == Access::Write;
            return Ok(Translation {
                gpa: (entry & 0xFF_FFFF_F000 & !low) | case.va & low,
                readable: r,
                writable: w && dirty,
                executable: x,
                global: entry >> 8 & 1 == 1 && case.cr4 >> 7 & 1 == 1,
                page_bits: bits,
            });
        }
    }
    unreachable!("level 3 always returns")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn both_walks_agree_and_mark_alike(case in case()) {
        let ram = Ram::new(vec![RamSlot::allocated(0, 0x6000)]);
        let at = lay_out(&case, &ram);
        let expected = second_walk(&case, &ram, at);
        let before: Vec<u64> = at.iter().map(|gpa| ram.load_u64(*gpa).unwrap()).collect();
        let context = PagingContext {
            cr0: case.cr0, cr3: TABLES[0], cr4: case.cr4, efer: case.efer,
            pdpte: [0; 4], physical_bits: MAXPHYADDR, a20_mask: u64::MAX,
        };
        let left = context.walk(&ram, case.va, case.access, case.privilege, Marking::Leave);
        let untouched: Vec<u64> = at.iter().map(|gpa| ram.load_u64(*gpa).unwrap()).collect();
        prop_assert_eq!(&before, &untouched);
        prop_assert_eq!(left, expected);
        let found = context.walk(&ram, case.va, case.access, case.privilege, Marking::Set);
        prop_assert_eq!(found, expected);
        if let Ok(translation) = found {
            let leaf = match translation.page_bits { 30 => 1, 21 => 2, _ => 3 };
            for (level, gpa) in at.iter().enumerate() {
                let entry = ram.load_u64(*gpa).unwrap();
                let mut marked = before[level];
                if level <= leaf { marked |= 0x20; }
                if level == leaf && case.access == Access::Write { marked |= 0x40; }
                prop_assert_eq!(entry, marked, "level {}", level);
            }
        }
    }
}
