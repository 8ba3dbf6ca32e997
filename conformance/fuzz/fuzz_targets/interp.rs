//! Any bytes as code, in any mode, with any registers: the interpreter neither panics nor hangs.
#![no_main]

use arbitrary::Arbitrary;
use kasane_cpu::{CpuState, SegmentRegister, StateSet};
use kasane_fuzz::{run, vcpu};
use kasane_memory::GuestMemory;
use kasane_spec_x86::control::{cr0, cr4, efer};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Paged32,
    Pae,
    Compatibility,
    Long,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Segment {
    selector: u16,
    access: u16,
    limit: u32,
    base: u32,
}

#[derive(Arbitrary, Debug)]
struct Input {
    mode: Mode,
    user: bool,
    /// Without it, the code runs in blocks.
    budget: Option<u8>,
    gpr: [u64; 16],
    /// Registers that point into the little memory there is.
    small: u16,
    rflags: u32,
    rip: u16,
    cr0: u32,
    cr4: u32,
    efer: u16,
    dr7: Option<u32>,
    dr: [u16; 4],
    segments: [Option<Segment>; 6],
    tables: [u16; 4],
    answers: [u64; 4],
    pokes: Vec<(u16, u64)>,
    code: [u8; 48],
}

const RAM: u64 = 1 << 17;
/// Page tables: one level after the other.
const TABLES: u64 = 0x1_0000;

fn flat(access: u16, selector: u16) -> SegmentRegister {
    SegmentRegister { selector, access, limit: u32::MAX, base: 0 }
}

/// The code segment's access rights.
fn code_access(mode: Mode, dpl: u16) -> u16 {
    let kind = match mode {
        Mode::Long => 0xA09B,
        Mode::Protected16 => 0x809B,
        Mode::Protected32 | Mode::Paged32 | Mode::Pae | Mode::Compatibility => 0xC09B,
        Mode::Real | Mode::Virtual8086 => 0x009B,
    };
    kind | dpl << 5
}

fn state(input: &Input) -> CpuState {
    let mut s = CpuState::reset(true);
    s.gpr = input.gpr;
    for (n, register) in s.gpr.iter_mut().enumerate() {
        if input.small >> n & 1 != 0 {
            *register &= 0xFFFF;
        }
    }
    s.rip = input.rip.into();
    s.rflags = u64::from(input.rflags) & 0x003F_7FD5 & !(1 << 17) | 2;
    s.cr0 = u64::from(input.cr0) & 0xE005_003E | 0x10;
    s.cr4 = u64::from(input.cr4) & 0x0037_0BFF & !cr4::PAE;
    s.efer = u64::from(input.efer) & (efer::SCE | efer::NXE);
    s.cr3 = TABLES;
    modes(input.mode, &mut s);
    let user = input.user && s.cr0 & cr0::PE != 0;
    let dpl = if user { 3 } else { 0 };
    if s.cr0 & cr0::PE != 0 && input.mode != Mode::Virtual8086 {
        s.cs = flat(code_access(input.mode, dpl), 0x08 | dpl);
        let data = flat(0xC093 | dpl << 5, 0x10 | dpl);
        (s.ss, s.ds, s.es, s.fs, s.gs) = (data, data, data, data, data);
        let places = [&mut s.es, &mut s.ds, &mut s.fs, &mut s.gs];
        for (place, segment) in places.into_iter().zip(input.segments) {
            let Some(Segment { selector, access, limit, base }) = segment else { continue };
            // Never a system descriptor: no instruction loads one here.
            *place = SegmentRegister {
                selector,
                access: access & 0xF0FF | 0x10,
                limit,
                base: base.into(),
            };
        }
    }
    if input.mode == Mode::Virtual8086 {
        s.rflags |= 1 << 17;
        for (n, place) in [&mut s.es, &mut s.cs, &mut s.ss, &mut s.ds, &mut s.fs, &mut s.gs]
            .into_iter()
            .enumerate()
        {
            let selector = input.segments[n].map_or(0, |one| one.selector & 0xFFF);
            *place = SegmentRegister::real_mode(selector);
            place.access = 0xF3;
        }
    }
    let [gdt, idt, ldt, tss] = input.tables;
    (s.gdtr.base, s.gdtr.limit) = (gdt.into(), 0x7FF);
    (s.idtr.base, s.idtr.limit) = (idt.into(), 0xFFF);
    s.ldtr = SegmentRegister { selector: 0x28, access: 0x82, limit: 0xFFF, base: ldt.into() };
    s.tr = SegmentRegister { selector: 0x30, access: 0x8B, limit: 0x2FF, base: tss.into() };
    if let Some(dr7) = input.dr7 {
        s.dr7 = u64::from(dr7) | 0x400;
        s.dr = input.dr.map(u64::from);
    }
    s.xcr0 = 7;
    s
}

fn modes(mode: Mode, s: &mut CpuState) {
    match mode {
        Mode::Real => {}
        Mode::Virtual8086 | Mode::Protected16 | Mode::Protected32 => s.cr0 |= cr0::PE,
        Mode::Paged32 => s.cr0 |= cr0::PE | cr0::PG,
        Mode::Pae => {
            s.cr0 |= cr0::PE | cr0::PG;
            s.cr4 |= cr4::PAE;
            s.pdpte = [TABLES + 0x1001, 0, 0, TABLES + 0x1001];
        }
        Mode::Compatibility | Mode::Long => {
            s.cr0 |= cr0::PE | cr0::PG;
            s.cr4 |= cr4::PAE;
            s.efer |= efer::LME | efer::LMA;
        }
    }
    if !matches!(mode, Mode::Compatibility | Mode::Long) {
        s.cr4 &= !cr4::PCIDE;
    }
}

/// Identity maps of the first 2 or 4 MiB.
fn page_tables(mode: Mode, ram: &dyn GuestMemory) {
    let entries: &[(u64, u64)] = match mode {
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 | Mode::Protected32 => &[],
        // One table with the first pages; the directory's second entry points to itself.
        Mode::Paged32 => &[(0, (TABLES + 0x4000) | 7 | (TABLES | 7) << 32)],
        Mode::Pae => &[(0x1000, 0xE7)],
        Mode::Compatibility | Mode::Long => &[
            (0, (TABLES + 0x1000) | 7),
            (0xFF8, (TABLES + 0x1000) | 7),
            (0x1000, (TABLES + 0x2000) | 7),
            (0x2000, (TABLES + 0x3000) | 7),
            (0x2008, 0xE7),
        ],
    };
    for (at, value) in entries {
        ram.store_u64(TABLES + at, *value).expect("the tables are in memory");
    }
    for page in 0..RAM >> 12 {
        let gpa = page << 12;
        let entry = gpa | 7;
        if mode == Mode::Paged32 {
            let at = TABLES + 0x4000 + page * 4;
            ram.store_u32(at, entry as u32).expect("the tables are in memory");
        } else {
            ram.store_u64(TABLES + 0x3000 + page * 8, entry).expect("the tables are in memory");
        }
    }
}

fuzz_target!(|input: Input| {
    let (mut vcpu, ram) = vcpu(RAM as usize);
    page_tables(input.mode, &*ram);
    for (at, value) in &input.pokes {
        let _misaligned = ram.store_u64(u64::from(*at) << 1 & !7, *value);
    }
    let state = state(&input);
    let base = if state.cs.base < RAM { state.cs.base } else { 0 };
    let _outside = ram.write(base + state.rip, &input.code);
    vcpu.write(StateSet::ALL, &state);
    vcpu.set_budget(input.budget.map(u64::from));
    run(vcpu.as_mut(), &input.answers);
});
