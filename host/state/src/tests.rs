use std::io::{self, Read};

use kasane_devices::Section;
use kasane_memory::{GuestMemory, Ram, RamSlot};
use proptest::prelude::*;

use crate::{CHUNK, FORMAT, MAGIC, PAGE, StateError, StateReader, StateWriter};
use crate::{read_memory, write_memory};

fn empty_ram() -> Ram {
    let slots = [(0, 4 * CHUNK), (0x1_0000_0000, CHUNK)];
    Ram::new(slots.map(|(base, len)| RamSlot::allocated(base, len)).into())
}

fn sections() -> Vec<Section> {
    let section = |name: &str, version, bytes: &[u8]| Section {
        name: name.into(),
        version,
        bytes: bytes.to_vec(),
    };
    vec![section("header", 1, b"a machine"), section("cpu.0", 7, b""), section("pit", 2, &[0; 99])]
}

fn file(sections: &[Section], ram: &Ram) -> Vec<u8> {
    let mut writer = StateWriter::new(Vec::new()).unwrap();
    for section in sections {
        writer.section(section).unwrap();
    }
    write_memory(&mut writer, ram).unwrap();
    writer.finish().unwrap()
}

/// A file with a few pages of memory.
fn small_file() -> Vec<u8> {
    let ram = empty_ram();
    ram.write(0x5FFE, b"xyz").unwrap();
    ram.write(0x1_0000_0000, b"high").unwrap();
    file(&sections(), &ram)
}

fn load(from: impl Read, ram: &Ram) -> Result<Vec<Section>, StateError> {
    let reader = StateReader::new(from)?;
    let sections = reader.sections().to_vec();
    read_memory(reader, ram)?;
    Ok(sections)
}

fn bytes_at<const N: usize>(ram: &Ram, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read(address, &mut bytes).unwrap();
    bytes
}

#[test]
fn sections_and_memory_come_back() {
    let file = small_file();
    let ram = empty_ram();

    let found = load(&file[..], &ram).unwrap();

    assert_eq!(found, sections());
    assert_eq!(bytes_at(&ram, 0x5FFD), *b"\0xyz\0");
    assert_eq!(bytes_at(&ram, 0x1_0000_0000), *b"high");
}

#[test]
fn zero_pages_cost_nothing_and_others_are_compressed() {
    assert!(small_file().len() < 1000, "{} bytes", small_file().len());
}

#[test]
fn memory_that_does_not_compress_comes_back() {
    let noise: Vec<u8> = (0u32..CHUNK as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(n >> 3) >> 13) as u8)
        .collect();
    let ram = empty_ram();
    ram.write(CHUNK as u64, &noise).unwrap();
    let file = file(&[], &ram);
    let back = empty_ram();

    load(&file[..], &back).unwrap();
    let mut found = vec![0; CHUNK];
    back.read(CHUNK as u64, &mut found).unwrap();

    assert!(found == noise);
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    let file = small_file();
    let cut_well = (0..file.len())
        .filter(|len| !matches!(load(&file[..*len], &empty_ram()), Err(StateError::CutOff { .. })));

    assert_eq!(cut_well.collect::<Vec<_>>(), Vec::<usize>::new());
}

#[test]
fn any_changed_bit_is_an_error() {
    let file = small_file();
    let unnoticed = (0..file.len() * 8).filter(|bit| {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        load(&changed[..], &empty_ram()).is_ok()
    });

    assert_eq!(unnoticed.collect::<Vec<_>>(), Vec::<usize>::new());
}

#[test]
fn what_is_wrong_is_said() {
    let text = |bytes: &[u8]| load(bytes, &empty_ram()).unwrap_err().to_string();
    let good = small_file();
    let mut newer = good.clone();
    newer[8] = 9;
    let mut damaged = good.clone();
    damaged[30] ^= 1;

    assert_eq!(text(b"#!/bin/sh and so on"), "this is no saved machine");
    assert_eq!(text(b"#!"), "it is cut off in its head");
    assert_eq!(text(&newer), "it has format 9, this program knows format 1");
    assert_eq!(text(&damaged), "it is damaged in record 0: the checksum is wrong");
    assert_eq!(text(&good[..good.len() - 1]), "it is cut off in record 5, behind section `pit`");
}

/// A record with a right checksum.
fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend((bytes.len() as u32).to_le_bytes());
    record.extend(bytes);
    let crc = crc32fast::hash(&record);
    record.extend(crc.to_le_bytes());
    record
}

fn memory_record(address: u64, len: u32, compressed: &[u8]) -> Vec<u8> {
    record(2, &[&address.to_le_bytes()[..], &len.to_le_bytes(), compressed].concat())
}

fn head() -> Vec<u8> {
    [&MAGIC[..], &FORMAT.to_le_bytes()].concat()
}

#[test]
fn records_that_nobody_writes_are_refused() {
    let page = lz4_flex::block::compress(&[1; PAGE]);
    let cases: [(&str, Vec<u8>); 10] = [
        ("not a section", record(1, b"\xFF\xFFname")),
        ("not a section", record(1, b"\x01\x00\xFF\0\0\0\0")),
        ("a record of unknown kind", record(9, b"")),
        ("records are missing", record(3, &1u64.to_le_bytes())),
        ("not a piece of memory", record(2, b"short")),
        ("a piece of memory that is no pages", memory_record(1, PAGE as u32, &page)),
        ("a piece of memory that is no pages", memory_record(0, 0, &page)),
        ("a piece of memory that is no pages", memory_record(!0xFFF, PAGE as u32, &page)),
        ("memory that can't be unpacked", memory_record(0, 2 * PAGE as u32, &page)),
        ("memory that can't be unpacked", memory_record(0, PAGE as u32, b"\xF0")),
    ];
    let found = cases.iter().map(|(_, bytes)| {
        match load(&[head(), bytes.clone()].concat()[..], &empty_ram()) {
            Err(StateError::Damaged { what, .. }) => what.to_owned(),
            other => format!("{other:?}"),
        }
    });

    assert_eq!(found.collect::<Vec<_>>(), cases.each_ref().map(|(what, _)| (*what).to_owned()));
}

#[test]
fn memory_out_of_order_or_out_of_the_machine_is_refused() {
    let page = lz4_flex::block::compress(&[1; PAGE]);
    let one = |address| memory_record(address, PAGE as u32, &page);
    let twice = [head(), one(0x3000), one(0x3000)].concat();
    let outside = [head(), one(0x8000_0000)].concat();

    assert!(matches!(
        load(&twice[..], &empty_ram()),
        Err(StateError::Damaged { what: "memory that is not in order", .. })
    ));
    assert!(matches!(load(&outside[..], &empty_ram()), Err(StateError::Memory(_))));
}

#[test]
fn a_section_behind_memory_is_refused() {
    let page = lz4_flex::block::compress(&[1; PAGE]);
    let memory = memory_record(0, PAGE as u32, &page);
    let bytes = [head(), memory, record(1, b"\x01\x00x\0\0\0\0")].concat();

    assert!(matches!(
        load(&bytes[..], &empty_ram()),
        Err(StateError::Damaged { what: "a section in the midst of memory", .. })
    ));
}

#[test]
fn a_length_is_not_believed_before_the_bytes_are_there() {
    let mut bytes = head();
    bytes.extend([1, 0xFF, 0xFF, 0xFF, 0x0F]);
    bytes.extend([0; 100]);
    let mut too_long = head();
    too_long.extend([1, 0xFF, 0xFF, 0xFF, 0xFF]);

    assert!(matches!(load(&bytes[..], &empty_ram()), Err(StateError::CutOff { .. })));
    assert!(matches!(
        load(&too_long[..], &empty_ram()),
        Err(StateError::Damaged { what: "a record that is too long", .. })
    ));
}

#[test]
fn a_section_that_no_reader_would_take_is_not_written() {
    let mut writer = StateWriter::new(io::sink()).unwrap();
    let long = Section { name: "n".repeat(1 << 16), version: 1, bytes: Vec::new() };

    assert!(matches!(writer.section(&long), Err(StateError::TooLarge { .. })));
}

#[test]
fn errors_of_the_host_are_passed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }

    assert!(matches!(load(Broken, &empty_ram()), Err(StateError::Read(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_behind_the_head_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let file = [head(), bytes].concat();
        prop_assert!(load(&file[..], &empty_ram()).is_err());
    }

    #[test]
    fn any_memory_comes_back(writes in proptest::collection::vec(
        (0..(4 * CHUNK - 40_000) as u64, proptest::collection::vec(any::<u8>(), 1..40_000)), 0..8,
    )) {
        let ram = empty_ram();
        for (address, bytes) in &writes {
            ram.write(*address, bytes).unwrap();
        }
        let back = empty_ram();
        load(&file(&sections(), &ram)[..], &back).unwrap();
        let all = |ram: &Ram| {
            let mut bytes = vec![0; 4 * CHUNK];
            ram.read(0, &mut bytes).unwrap();
            bytes
        };
        prop_assert!(all(&ram) == all(&back));
    }
}
