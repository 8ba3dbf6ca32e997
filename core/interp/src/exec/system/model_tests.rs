//! Segmentation and paging against plain second implementations that follow the manual's words
//! and nothing else: a byte at a time, a level at a time.

use alloc::sync::Arc;
use alloc::vec;

use kasane_cpu::paging::{Access, Marking, PageFault, PagingContext, Privilege};
use kasane_cpu::{Seg, SegmentRegister};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::vector::page_fault as code;
use proptest::prelude::*;

use crate::testing::TestCpu;

// --- segments -----------------------------------------------------------------------------------

/// SDM vol. 3A §5.3 for one byte of a data segment.
fn byte_inside(s: &SegmentRegister, offset: u64) -> bool {
    let expands_down = s.access >> 3 & 1 == 0 && s.access >> 2 & 1 == 1;
    if offset > 0xFFFF_FFFF {
        return false;
    }
    if expands_down {
        let top = if s.access >> 14 & 1 == 1 { 0xFFFF_FFFF } else { 0xFFFF };
        offset > u64::from(s.limit) && offset <= top
    } else {
        offset <= u64::from(s.limit)
    }
}

fn allowed_plainly(s: &SegmentRegister, offset: u64, len: u64, write: bool) -> bool {
    let kind = s.access & 15;
    let readable = kind < 8 || kind & 2 != 0;
    let writable = kind < 8 && kind & 2 != 0;
    let right = if write { writable } else { readable };
    s.access >> 7 & 1 == 1 && right && (0..len).all(|i| byte_inside(s, offset + i))
}

fn edges() -> impl Strategy<Value = u64> {
    prop_oneof![0..0x20u64, 0xFFF0..0x1_0010u64, 0xFFFF_FFF0..0x1_0000_0000u64, 0..0x1_0000_0000u64]
}

proptest! {
    #[test]
    fn segments_allow_what_the_manual_says(
        access in 0u16..0x100, big in any::<bool>(), limit in edges(), offset in edges(),
        size in 0u32..5, write in any::<bool>(),
    ) {
        let access = access | 0x10 | if big { 1 << 14 } else { 0 };
        let segment = SegmentRegister { selector: 8, access, limit: limit as u32, base: 0 };
        let mut it = TestCpu::code32(&[0x90]);
        it.cpu.state.ds = segment;
        it.cpu.refresh_mode();
        let len = 1 << size;
        let kind = if write { Access::Write } else { Access::Read };

        let found = it.cpu.linear(Seg::Ds, offset, len, kind).is_ok();

        let wraps = offset + len > 1 << 32;
        // An expand-up segment of 4 GiB may wrap: the manual leaves it to the processor.
        prop_assume!(!(wraps && limit == 0xFFFF_FFFF));
        prop_assert_eq!(found, allowed_plainly(&segment, offset, len, write));
    }
}

// --- paging -------------------------------------------------------------------------------------

/// Tables at 0x1000 (top), 0x2000, 0x3000, 0x4000; physical addresses of 40 bits.
const PHYSICAL_BITS: u8 = 40;

/// What a level's entry says in the plain model.
#[derive(Clone, Copy, Debug)]
struct Bits {
    present: bool,
    write: bool,
    user: bool,
    large: bool,
    no_execute: bool,
    reserved: bool,
}

fn bits() -> impl Strategy<Value = Bits> {
    let mostly = |p: f64| prop::bool::weighted(p);
    (mostly(0.9), mostly(0.7), mostly(0.7), mostly(0.15), mostly(0.2), mostly(0.05)).prop_map(
        |(present, write, user, large, no_execute, reserved)| Bits {
            present,
            write,
            user,
            large,
            no_execute,
            reserved,
        },
    )
}

impl Bits {
    fn entry(self, target: u64) -> u64 {
        let bit = |on: bool, n: u32| u64::from(on) << n;
        target
            | bit(self.present, 0)
            | bit(self.write, 1)
            | bit(self.user, 2)
            | bit(self.large, 7)
            | bit(self.no_execute, 63)
            | bit(self.reserved, 45)
    }
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    wp: bool,
    nx: bool,
    smep: bool,
    smap: bool,
}

/// 4-level paging in the manual's words: the error code, or at which level (1-4) the page is.
fn walk_plainly(
    levels: [Bits; 4],
    set: Setting,
    access: Access,
    privilege: Privilege,
) -> Result<usize, u32> {
    let user = privilege == Privilege::User;
    let write = access == Access::Write;
    let fetch = access == Access::Execute;
    let mut error = 0;
    if write {
        error |= code::W;
    }
    if user {
        error |= code::U;
    }
    if fetch && (set.nx || set.smep) {
        error |= code::I;
    }
    let mut leaf = 1;
    for level in (1..=4).rev() {
        let e = levels[4 - level];
        if !e.present {
            return Err(error);
        }
        let bad_size = level == 4 && e.large;
        if e.reserved || bad_size || (e.no_execute && !set.nx) {
            return Err(error | code::P | code::RSVD);
        }
        leaf = level;
        if e.large && level != 1 {
            break;
        }
    }
    let path = &levels[..=(4 - leaf)];
    let user_page = path.iter().all(|e| e.user);
    let writable = path.iter().all(|e| e.write);
    let no_execute = set.nx && path.iter().any(|e| e.no_execute);
    let right = if user {
        user_page && (writable || !write) && !(fetch && no_execute)
    } else if fetch {
        !(no_execute || set.smep && user_page)
    } else {
        let smap = set.smap && user_page && privilege == Privilege::Supervisor;
        !(smap || write && !writable && set.wp)
    };
    if right { Ok(leaf) } else { Err(error | code::P) }
}

fn context(set: Setting) -> PagingContext {
    let on = |flag: bool, bit: u64| if flag { bit } else { 0 };
    PagingContext {
        cr0: cr0::PE | cr0::PG | on(set.wp, cr0::WP),
        cr3: 0x1000,
        cr4: cr4::PAE | on(set.smep, cr4::SMEP) | on(set.smap, cr4::SMAP),
        efer: efer::LME | efer::LMA | on(set.nx, efer::NXE),
        pdpte: [0; 4],
        physical_bits: PHYSICAL_BITS,
        a20_mask: u64::MAX,
    }
}

fn accesses() -> impl Strategy<Value = (Access, Privilege)> {
    let access = prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Execute)];
    let privilege = prop_oneof![
        Just(Privilege::User),
        Just(Privilege::Supervisor),
        Just(Privilege::SupervisorAc)
    ];
    (access, privilege)
}

fn settings() -> impl Strategy<Value = Setting> {
    any::<(bool, bool, bool, bool)>().prop_map(|(wp, nx, smep, smap)| Setting {
        wp,
        nx,
        smep,
        smap,
    })
}

proptest! {
    #[test]
    fn four_level_paging_is_what_the_manual_says(
        levels in prop::array::uniform4(bits()), set in settings(), how in accesses(),
    ) {
        let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 0x8000)]));
        for (n, (entry, table)) in levels.iter().zip([0x1000u64, 0x2000, 0x3000, 0x4000]).enumerate() {
            // A large page's frame is at its own size; the last level maps 0x5000.
            let target = if entry.large && n > 0 && n < 3 { 0 } else { table + 0x1000 };
            ram.store_u64(table, entry.entry(target)).unwrap();
        }
        let (access, privilege) = how;

        let found = context(set).walk(&*ram, 0x123, access, privilege, Marking::Set);

        match walk_plainly(levels, set, access, privilege) {
            Err(error) => prop_assert_eq!(found, Err(PageFault { error })),
            Ok(leaf) => {
                let page = found.unwrap();
                let frame = if leaf == 1 { 0x5000 } else { 0 };
                prop_assert_eq!(page.gpa, frame | 0x123);
                prop_assert_eq!(u32::from(page.page_bits), [12, 21, 30][leaf - 1]);
                let entry = ram.load_u64(0x1000 * (5 - leaf as u64)).unwrap();
                let dirty = u64::from(access == Access::Write);
                prop_assert_eq!(entry >> 5 & 3, 1 | dirty << 1);
            }
        }
    }
}
