//! The user's pages, and what happens to them behind a block's back.

use kasane_memory::{GuestMemory, Ram};
use kasane_spec_x86::paging;

use super::kernel::{CODE_GPA, DATA_GPA, ENTRIES, OPEN_GPA, PT, SWAPPED, index, kernel_gpa};
use crate::layout::{
    CODE, CODE_PAGES, DATA, DATA_PAGES, OPEN_CODE, OPEN_PAGES, PAGE, WRITABLE_PAGES,
};

/// How many there are.
const PAGES: u64 = (CODE_PAGES + OPEN_PAGES + DATA_PAGES) as u64;
/// The first page of data is number so much.
const FIRST_DATA: u64 = (CODE_PAGES + OPEN_PAGES) as u64;
/// From a page of data to the frame that it may move to.
const AWAY: u64 = 0x1_0000;
const FRAME: u64 = 0x000F_FFFF_FFFF_F000;
/// What a frame is filled with that nobody should look at any more.
const GARBAGE: u8 = 0xA5;

/// The user pages: linear address, and the entry for it. The second of each kind is global.
pub(super) fn user_pages() -> impl Iterator<Item = (u64, u64)> {
    let page = |n: usize| (n * PAGE) as u64;
    let user = |n: usize| {
        let global = if n == 1 { paging::G } else { 0 };
        paging::P | paging::US | paging::A | global
    };
    let code = (0..CODE_PAGES).map(move |n| (CODE + page(n), (CODE_GPA + page(n)) | user(n)));
    let open = (0..OPEN_PAGES)
        .map(move |n| (OPEN_CODE + page(n), (OPEN_GPA + page(n)) | user(n) | paging::RW));
    let data = (0..DATA_PAGES).map(move |n| {
        let writable = if n < WRITABLE_PAGES { paging::RW } else { 0 };
        (DATA + page(n), (DATA_GPA + page(n)) | user(n) | writable | paging::NX)
    });
    code.chain(open).chain(data)
}

/// The entry that a page should have now.
fn current(ram: &Ram, n: u64) -> u64 {
    ram.load_u64(kernel_gpa(ENTRIES) + n * 8).unwrap_or(0)
}
fn set_current(ram: &Ram, n: u64, entry: u64) {
    let _ = ram.store_u64(kernel_gpa(ENTRIES) + n * 8, entry);
}
fn in_table(ram: &Ram, at: u64) -> u64 {
    ram.load_u64(PT + index(at, 0) * 8).unwrap_or(0)
}
fn set_in_table(ram: &Ram, at: u64, entry: u64) {
    let _ = ram.store_u64(PT + index(at, 0) * 8, entry);
}

/// The rights of an entry that the page at `at` does not have now. What is gone stays so until its
/// fault.
fn missing(ram: &Ram, at: u64, entry: u64) -> u64 {
    entry & !in_table(ram, at) & (paging::P | paging::RW)
}

/// Which pages are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// All.
    All,
    /// One of them.
    One(u64),
}

/// What of a page is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// All access.
    Any,
    /// Writing.
    Write,
}

/// Takes pages away, until the page-fault handler brings them back. Tells which.
pub(super) fn take_away(ram: &Ram, pages: Pages, right: Right) -> Vec<u64> {
    let gone = match right {
        Right::Any => paging::P,
        Right::Write => paging::RW,
    };
    let mut all = Vec::new();
    for (n, (at, _)) in (0u64..).zip(user_pages()) {
        let chosen = match pages {
            Pages::All => true,
            Pages::One(one) => one % PAGES == n,
        };
        if chosen {
            let entry = current(ram, n);
            set_in_table(ram, at, entry & !gone & !missing(ram, at, entry));
            all.push(at);
        }
    }
    let _ = ram.store_u64(kernel_gpa(SWAPPED), 1);
    all
}

/// Whether pages are gone.
pub(super) fn is_taken_away(ram: &Ram) -> bool {
    ram.load_u64(kernel_gpa(SWAPPED)).is_ok_and(|value| value != 0)
}

/// Moves a page of data to another frame, or back, and leaves garbage where it was. Tells which.
pub(super) fn migrate(ram: &Ram, which: u64) -> u64 {
    let n = FIRST_DATA + which % DATA_PAGES as u64;
    let Some((at, home)) = user_pages().nth(n as usize) else { return DATA };
    let old = current(ram, n);
    let new = if old & FRAME == home & FRAME { home + AWAY } else { home };
    copy(ram, old & FRAME, new & FRAME);
    set_current(ram, n, new);
    set_in_table(ram, at, new & !missing(ram, at, old));
    at
}
fn copy(ram: &Ram, from: u64, to: u64) {
    let mut page = vec![0; PAGE];
    let _ = ram.read(from, &mut page);
    let _ = ram.write(to, &page);
    let _ = ram.fill(from, PAGE as u64, GARBAGE);
}

/// Brings all pages back from where they are. Tells whether any was not as it should be.
pub(super) fn settle(ram: &Ram) -> bool {
    let mut moved = is_taken_away(ram);
    for (n, (_, home)) in (0u64..).zip(user_pages()) {
        let now = current(ram, n);
        if now != home {
            copy(ram, now & FRAME, home & FRAME);
            set_current(ram, n, home);
            moved = true;
        }
    }
    if moved {
        user_pages().for_each(|(at, home)| set_in_table(ram, at, home));
        let _ = ram.store_u64(kernel_gpa(SWAPPED), 0);
    }
    moved
}

/// Makes the entries neither accessed nor dirty.
pub(super) fn freshen(ram: &Ram) {
    user_pages().for_each(|(at, home)| set_in_table(ram, at, home & !paging::A));
}

/// Which pages were accessed, and which written: their address, and the bits.
pub(super) fn used(ram: &Ram) -> Vec<(u64, u64)> {
    user_pages().map(|(at, _)| (at, in_table(ram, at) & (paging::A | paging::D))).collect()
}
