use super::access::Refused;
use super::table::{System, What, X87};
use super::*;
use kasane_cpu::{Gpr, Seg, StateSet};
use kasane_spec_x86::control::cr0;

#[test]
fn the_g_packet_starts_with_rax_and_has_rip_in_seventeenth_place() {
    let mut state = CpuState::reset(true);
    state.gpr[Gpr::Rax as usize] = 0x1122_3344_5566_7788;
    state.rip = 0xFFFF_8000_0000_1234;

    let bytes = RegisterBytes::of(&state);

    let mut sent = Vec::new();
    bytes.gdb_serialize(|byte| sent.push(byte.unwrap()));
    assert_eq!(sent[..8], 0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(sent[128..136], state.rip.to_le_bytes());
    assert_eq!(bytes.pc(), state.rip);
}

#[test]
fn numbers_are_those_of_the_description() {
    let xml = target_xml();

    for (number, register) in all().enumerate() {
        let (name, bits) = (&register.name, register.bits);
        let line = xml.lines().find(|line| line.starts_with(&format!("<reg name=\"{name}\" ")));
        let line = line.unwrap();
        assert!(line.contains(&format!("bitsize=\"{bits}\"")), "{line}");
        assert!(line.ends_with(&format!("regnum=\"{number}\"/>")), "{line}");
    }
}

#[test]
fn every_register_reads_back_what_was_written() {
    let read_only = [System::Cr8, System::Ldtr, System::Tr].map(What::System);

    for register in all().filter(|one| !read_only.contains(&one.what)) {
        let mut state = CpuState::reset(true);
        // Reads back in full from flags, tags, selectors and opcodes too.
        let value = match register.what {
            What::Flags => 0x246,
            What::X87(_) | What::Selector(_) | What::Mxcsr => 0x5A5,
            _ => 0x55,
        };
        let value = if register.what == What::X87(X87::Tags) { 0xFFFF } else { value };

        let result = write(&mut state, register.what, value);

        assert_eq!(result, Ok(()), "{}", register.name);
        assert_eq!(read(&state, register.what), value, "{}", register.name);
    }
}

#[test]
fn a_selector_in_protected_mode_needs_a_descriptor() {
    let mut state = CpuState::reset(true);
    state.cr0 |= cr0::PE;

    let changed = write(&mut state, What::Selector(Seg::Ds), 8);
    let same = write(&mut state, What::Selector(Seg::Ds), 0);

    assert_eq!((changed, same), (Err(Refused), Ok(())));
}

#[test]
fn a_selector_in_real_mode_takes_its_base_along() {
    let mut state = CpuState::reset(true);

    write(&mut state, What::Selector(Seg::Ds), 0x1234).unwrap();

    assert_eq!((state.ds.selector, state.ds.base), (0x1234, 0x12340));
}

#[test]
fn tags_tell_zero_special_valid_and_empty_apart() {
    let mut state = CpuState::reset(true);
    let vector = &mut state.vector;
    vector.set_fsw(6 << 11); // ST(0) is physical register 6
    vector.set_ftw(0b1110_0000);
    vector.set_st(0, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F]); // 1.0
    vector.set_st(1, [0; 10]); // physical 7
    vector.set_st(7, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x7F]); // infinity, physical 5

    let tags = read(&state, What::X87(X87::Tags));

    assert_eq!(tags, 0b01_00_10_11_11_11_11_11);
}

#[test]
fn the_high_half_of_a_ymm_register_is_apart_from_the_low_one() {
    let mut state = CpuState::reset(true);
    state.vector.set_ymm(3, [1, 2, 3, 4]);

    write(&mut state, What::YmmHigh(3), 9 << 64 | 8).unwrap();

    assert_eq!(read(&state, What::Xmm(3)), 2 << 64 | 1);
    assert_eq!(state.vector.ymm(3), [1, 2, 8, 9]);
}

#[test]
fn each_part_of_the_state_has_its_registers() {
    assert_eq!(set_of(What::Rip), StateSet::GENERAL);
    assert_eq!(set_of(What::System(System::Cr3)), StateSet::SYSTEM);
    assert_eq!(set_of(What::Mxcsr), StateSet::VECTOR);
    assert_eq!(set_of(What::System(System::KernelGsBase)), StateSet::PLATFORM);
}

#[test]
fn a_short_packet_names_the_registers_that_it_reaches() {
    let mut bytes = RegisterBytes::default();
    bytes.gdb_deserialize(&[1; 20]).unwrap();

    let names: Vec<&str> = bytes.iter().map(|(register, _)| register.name.as_str()).collect();

    assert_eq!(names, ["rax", "rbx"]);
}
