//! Random programs of 32-bit and 16-bit code under the translator and under the interpreter, in all
//! modes that there are: the same registers, flags and memory at the end, which may be a fault.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/legacy/mod.rs"]
mod legacy;
#[path = "support/quiet.rs"]
mod quiet;

use iced_x86::Register;
use kasane_cpu::{CpuState, SegmentRegister};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::descriptor::access;
use kasane_spec_x86::paging;

use bare::{Engine, Random, Setup, run};
use legacy::{Programs, Shape};
use quiet::flat;

// Linear addresses.
const TABLES: u64 = 0x8000;
const CODE: u64 = 0x10_0000;
/// In the middle of the data, so that operands lie on both sides of a page's end.
const DATA: u64 = 0x20_1000;
const STACK: u64 = 0x30_8000;
/// How often a program's body runs: it is translated on the way.
const ROUNDS: u16 = 12;
/// Where the rounds are counted, behind the stack.
const COUNTER: u64 = STACK + 0x1000;

const READ_WRITE: u16 = 0x93;
const CODE_READ: u16 = 0x9B;

const SEGMENTS: [Register; 3] = [Register::DS, Register::ES, Register::FS];

/// A processor to run programs on.
struct Case {
    state: CpuState,
    bits: u32,
    tables: Vec<(u64, u64)>,
}

fn segment(base: u64, limit: u32, access: u16) -> SegmentRegister {
    SegmentRegister { selector: 0x10, access, limit, base }
}

/// Protected mode without paging, flat.
fn flat32(random: &mut Random) -> Case {
    let mut state = CpuState::reset(true);
    state.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::WP;
    state.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.xcr0 = 7;
    state.idtr.limit = 0; // every fault is the end
    state.cs = flat(CODE_READ | access::DB | access::G);
    let data = flat(READ_WRITE | access::DB | access::G);
    (state.ss, state.ds, state.es) = (data, data, data);
    state.fs = segment(0x40, 0x3F_FFFF, READ_WRITE | access::DB);
    state.gs = segment(0, 0, 0);
    state.gpr.fill_with(|| random.next() & 0xFFFF_FFFF);
    for register in &mut state.vector.ymm {
        register.fill_with(|| random.next());
    }
    state.rflags = 2;
    Case { state, bits: 32, tables: Vec::new() }
}

/// With pages of 4 MiB, at CPL 0 or 3.
fn paged32(random: &mut Random) -> Case {
    let mut case = flat32(random);
    case.state.cr0 |= cr0::PG;
    case.state.cr4 |= cr4::PSE;
    case.state.cr3 = TABLES;
    case.tables = vec![(TABLES, paging::P | paging::RW | paging::US | paging::PS)];
    if random.below(2) == 0 {
        let s = &mut case.state;
        for segment in [&mut s.cs, &mut s.ss, &mut s.ds, &mut s.es] {
            segment.access |= 3 << access::DPL_SHIFT;
            segment.selector |= 3;
        }
    }
    case
}

/// Under a 64-bit system, which may have left anything in the upper halves.
fn compatibility(random: &mut Random) -> Case {
    let mut case = flat32(random);
    case.state.cr0 |= cr0::PG;
    case.state.cr4 |= cr4::PAE;
    case.state.cr3 = TABLES;
    case.state.efer = efer::LME | efer::LMA;
    case.state.gpr.fill_with(|| random.next());
    case.state.fs.base = 0x1234_5678_0000_0040;
    let table = paging::P | paging::RW;
    let page = table | paging::PS;
    case.tables = vec![
        (TABLES, (TABLES + 0x1000) | table),
        (TABLES + 0x1000, (TABLES + 0x2000) | table),
        (TABLES + 0x2000, page),
        (TABLES + 0x2008, 0x20_0000 | page),
    ];
    case
}

/// Segments with bases and limits; some programs meet the limits.
fn segmented32(random: &mut Random) -> Case {
    let mut case = flat32(random);
    let base = random.pick(&[0, 0x18_0000, 0x20_0B00]);
    let s = &mut case.state;
    s.cs.base = random.pick(&[0, CODE - 0x10, CODE - 0x3330]);
    let end = (DATA - base) as u32 + 0x180 + random.below(0x80) as u32;
    s.ds = match random.below(8) {
        // From behind the limit up to 4 GiB.
        0 => segment(base, (DATA - base) as u32 - 0x1E0, 0x97 | access::DB),
        1 => segment(base, end, 0x91 | access::DB), // read only
        _ => segment(base, end, READ_WRITE | access::DB),
    };
    s.es = segment(base + random.below(0x20), end, READ_WRITE | access::DB);
    s.fs = segment(base, u32::MAX, random.pick(&[READ_WRITE, 0x99, CODE_READ]));
    if random.below(2) == 0 {
        s.ss = segment(STACK - 0x8000, 0xFFFF, READ_WRITE); // SP
    }
    case
}

/// Real mode; also what is left of protected mode's limits.
fn real(random: &mut Random) -> Case {
    let mut case = flat32(random);
    case.bits = 16;
    let s = &mut case.state;
    s.cr0 &= !cr0::PE;
    s.cs = segment(CODE - random.pick(&[0, 0x10, 0x110]), 0xFFFF, READ_WRITE);
    let data = DATA - 0x1000;
    s.ds = segment(data, random.pick(&[0xFFFF, u32::MAX]), READ_WRITE);
    s.es = segment(data + 0x10, 0xFFFF, READ_WRITE);
    s.fs = segment(data, 0x1180, READ_WRITE);
    s.ss = segment(STACK - 0x8000, 0xFFFF, READ_WRITE);
    case
}

/// Protected mode with 16-bit code, and a stack of 16 or 32 bits.
fn protected16(random: &mut Random) -> Case {
    let mut case = real(random);
    case.state.cr0 |= cr0::PE;
    case.state.cs.access = CODE_READ;
    if random.below(2) == 0 {
        case.state.ss.access |= access::DB;
    }
    case
}

/// Runs a program on the case's processor under both engines; gives how many instructions were
/// interpreted in each, and whether it came to its end.
fn compare_one(random: &mut Random, mut case: Case, told: &str) -> (u64, u64, bool) {
    let s = &mut case.state;
    let keep = |register: u64, low: u64| register & !0xFFFF_FFFF | low & 0xFFFF_FFFF;
    // Some programs lie in two pages.
    let at = CODE + random.pick(&[0, 0xF40, 0xFC3]);
    let shape = Shape {
        bits: case.bits,
        at: at - s.cs.base,
        data: DATA.wrapping_sub(s.ds.base),
        counter: COUNTER - s.ss.base,
        segments: &SEGMENTS,
        edges: [s.ds.limit, s.fs.limit].map(u64::from),
    };
    s.rip = shape.at;
    s.gpr[3] = keep(s.gpr[3], shape.data);
    s.gpr[4] = keep(s.gpr[4], STACK - s.ss.base);
    let index = random.below(0x40).wrapping_sub(random.pick(&[0, 0x40]));
    s.gpr[7] = keep(s.gpr[7], index);
    let program = Programs::new(random, shape).program();
    let data = random.bytes(0x2000);
    let tables: Vec<_> = case.tables.iter().map(|(at, entry)| (*at, entry.to_le_bytes())).collect();
    let rounds = ROUNDS.to_le_bytes();
    let mut image: Vec<(u64, &[u8])> = tables.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    image.extend([(at, &*program), (DATA - 0x1000, &*data), (COUNTER, &rounds[..])]);
    let setup = Setup { state: &case.state, image: &image, watched: DATA - 0x1000..DATA + 0x1000 };

    let (expected, all) = run(&setup, Engine::Interpreter);
    let (found, left) = run(&setup, Engine::Translator(random.pick(&[1, 3])));

    assert_eq!(found, expected, "{told}: {program:02x?} from {:#x?}", setup.state);
    (all, left, found.halted)
}

fn compare(mut random: Random, make: fn(&mut Random) -> Case, programs: u32) {
    let seed = random.0;
    let (mut interpreted, mut left, mut ended) = (0, 0, 0);
    for number in 0..programs {
        let case = make(&mut random);
        let told = format!("seed {seed}, program {number}");
        let (all, rest, halted) = compare_one(&mut random, case, &told);
        interpreted += all;
        left += rest;
        ended += u32::from(halted);
    }
    println!("{left} of {interpreted} instructions left, {ended} of {programs} ended");
    assert!(left < interpreted * 3 / 4, "little was translated: {left} of {interpreted} are left");
    assert!(ended > programs / 20, "nearly all fault: {ended} of {programs} don't");
}

/// What a 64-bit system left in the upper halves is no part of addresses and counts.
#[test]
fn repeated_strings_are_about_the_lower_halves_of_their_registers() {
    for program in [[0xF3, 0xAB, 0xF4], [0xF3, 0xA5, 0xF4], [0xF3, 0xA4, 0xF4]] {
        let mut state = compatibility(&mut Random(1)).state;
        let tables = compatibility(&mut Random(1)).tables;
        for (register, low) in [(1, 0x21), (6, DATA + 0x40), (7, DATA + 0x100)] {
            state.gpr[register] = 0x1234_5678 << 32 | low;
        }
        state.rip = CODE;
        let data = Random(2).bytes(0x1000);
        let tables: Vec<_> = tables.iter().map(|(at, entry)| (*at, entry.to_le_bytes())).collect();
        let mut image: Vec<(u64, &[u8])> =
            tables.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
        image.extend([(CODE, &program[..]), (DATA, &data[..])]);
        let setup = Setup { state: &state, image: &image, watched: DATA..DATA + 0x1000 };

        let (expected, _) = run(&setup, Engine::Interpreter);
        let (found, left) = run(&setup, Engine::Translator(1));

        assert_eq!(found, expected);
        assert!(found.halted && left == 1, "{left} interpreted");
    }
}

macro_rules! modes {
    ($($name:ident with $make:ident;)*) => {
        $(#[test]
        fn $name() {
            compare(Random(1), $make, 250);
            compare(Random::fresh(), $make, 250);
        })*
    };
}

modes! {
    flat_code_without_paging with flat32;
    paged_code_in_ring_0_and_3 with paged32;
    compatibility_mode with compatibility;
    segments_with_bases_and_limits with segmented32;
    real_mode with real;
    protected_16_bit_code with protected16;
}
