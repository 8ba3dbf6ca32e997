//! Saved states from anybody: taken over or refused; what was taken over runs.
#![no_main]

use arbitrary::Arbitrary;
use kasane_cpu::{StateSet, saved};
use kasane_devices::Section;
use kasane_fuzz::{Step, machine, run, step, vcpu};
use libfuzzer_sys::fuzz_target;

/// A change of the machine's own saved state.
#[derive(Arbitrary, Debug)]
enum Change {
    Byte { section: u8, at: u16, value: u8 },
    Cut { section: u8, len: u16 },
    Replace { section: u8, bytes: Vec<u8> },
    Version { section: u8, version: u32 },
    Drop { section: u8 },
    Again { section: u8 },
}

#[derive(Arbitrary, Debug)]
enum Input {
    Machine {
        before: Vec<Step>,
        changes: Vec<Change>,
        after: Vec<Step>,
    },
    /// Bytes of a saved processor, changed.
    Processor {
        changes: Vec<(u16, u8)>,
        answers: [u64; 4],
        code: Vec<u8>,
    },
    /// Any bytes.
    Bytes(Vec<u8>),
}

fn of(sections: &mut [Section], number: u8) -> Option<&mut Section> {
    let len = sections.len().max(1);
    sections.get_mut(usize::from(number) % len)
}

fn change(sections: &mut Vec<Section>, change: &Change) {
    match change {
        Change::Byte { section, at, value } => {
            if let Some(section) = of(sections, *section) {
                let len = section.bytes.len().max(1);
                if let Some(byte) = section.bytes.get_mut(usize::from(*at) % len) {
                    *byte = *value;
                }
            }
        }
        Change::Cut { section, len } => {
            if let Some(section) = of(sections, *section) {
                section.bytes.truncate((*len).into());
            }
        }
        Change::Replace { section, bytes } => {
            if let Some(section) = of(sections, *section) {
                section.bytes.clone_from(bytes);
            }
        }
        Change::Version { section, version } => {
            if let Some(section) = of(sections, *section) {
                section.version = *version;
            }
        }
        Change::Drop { section } => {
            let len = sections.len().max(1);
            if !sections.is_empty() {
                sections.remove(usize::from(*section) % len);
            }
        }
        Change::Again { section } => {
            let copy = of(sections, *section).cloned();
            sections.extend(copy);
        }
    }
}

fn restore_machine(before: &[Step], changes: &[Change], after: &[Step]) {
    let (machine, home) = machine();
    before.iter().for_each(|one| step(&machine, &home, one));
    let mut sections = machine.save();
    changes.iter().for_each(|one| change(&mut sections, one));
    if machine.restore(&sections).is_ok() {
        let _ = machine.save();
    }
    after.iter().for_each(|one| step(&machine, &home, one));
}

fn restore_processor(changes: &[(u16, u8)], answers: &[u64], code: &[u8]) {
    let (mut vcpu, ram) = vcpu(1 << 16);
    for page in [0u64, 0x1000, 0xFFF0] {
        let _outside = kasane_memory::GuestMemory::write(&*ram, page, code);
    }
    let mut state = kasane_cpu::CpuState::reset(true);
    vcpu.read(StateSet::ALL, &mut state);
    let mut bytes = saved::save(&state);
    for (at, value) in changes {
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
            *byte = *value;
        }
    }
    restore_bytes(vcpu.as_mut(), &bytes, answers);
}

fn restore_bytes(vcpu: &mut dyn kasane_cpu::Vcpu, bytes: &[u8], answers: &[u64]) {
    let Ok(state) = saved::restore(bytes) else { return };
    vcpu.write(StateSet::ALL, &state);
    vcpu.set_budget(Some(64));
    run(vcpu, answers);
}

fuzz_target!(|input: Input| {
    match &input {
        Input::Machine { before, changes, after } => restore_machine(before, changes, after),
        Input::Processor { changes, answers, code } => restore_processor(changes, answers, code),
        Input::Bytes(bytes) => restore_bytes(vcpu(1 << 12).0.as_mut(), bytes, &[]),
    }
});
