//! The shadow mode finds that the translator does something else than the interpreter.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/quiet.rs"]
mod quiet;

use std::cell::UnsafeCell;
use std::sync::Arc;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, EngineFault, Entry, Exit, Partition, StateSet};
use kasane_host_code::HostCode;
use kasane_interp::accelerator::{Accelerator, CodeFollowers, Ran};
use kasane_interp::cpu::Cpu;
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamBacking, RamSlot};
use kasane_passthrough::{CodeRunner, Passthrough};
use kasane_spec_x86::control::cr0;
use kasane_translate::{Shared, Translated};

use quiet::{Quiet, flat};

const CODE: u64 = 0x2000;
const ROUNDS: u64 = 100_000;
/// Where the second byte of `inc eax` is in [`program`].
const OPCODE: usize = 1;

/// Counts in EAX and in memory.
fn program() -> Vec<u8> {
    vec![
        0xFF, 0xC0, // inc eax
        0x01, 0x03, // add [ebx], eax
        0x49, // dec ecx
        0x75, 0xF9, // jnz
        0xF4, // hlt
    ]
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

/// Memory that can be changed without anybody noticing.
struct Pages(Box<[Page]>);
// SAFETY: one thread uses it.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}
// SAFETY: page-aligned, as long as it says, and in one place until it is dropped.
unsafe impl RamBacking for Pages {
    fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }
    fn len(&self) -> usize {
        self.0.len() * 4096
    }
}

/// The translator, under whose feet a byte of the code changes when it is asked for the tenth time.
struct Saboteur {
    translator: Translated,
    /// Address of the byte, and its new value.
    change: Option<(usize, u8)>,
    asked: u32,
}

impl Accelerator for Saboteur {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        self.asked += 1;
        if self.asked == 10
            && let Some((at, value)) = self.change
        {
            // SAFETY: a byte of the guest's memory, which only this thread uses.
            unsafe { (at as *mut u8).write_volatile(value) };
        }
        self.translator.run(cpu)
    }
    fn followers(&self) -> Option<Arc<dyn CodeFollowers>> {
        self.translator.followers()
    }
    fn fault(&mut self) -> EngineFault {
        self.translator.fault()
    }
    fn counts(&self) -> Vec<(String, u64)> {
        self.translator.counts()
    }
}

/// How the program ended, and what was counted. `change`: of the code's byte at that offset.
fn run(change: Option<(usize, u8)>) -> (Result<Exit, EngineFault>, Vec<(String, u64)>) {
    let backing = Pages((0..16).map(|_| Page(UnsafeCell::new([0; 4096]))).collect());
    let memory = backing.as_ptr() as usize;
    let ram = Arc::new(Ram::new(vec![RamSlot::from_backing(0, Box::new(backing))]));
    ram.write(CODE, &program()).unwrap();
    let runner: Arc<dyn CodeRunner> = Arc::new(HostCode::new().unwrap());
    let arenas = Arc::clone(&runner);
    let partition = InterpPartition::new(InterpConfig {
        ram,
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
        accelerator: Arc::new(move |_| {
            let shared = Shared::new(arenas.arena(1 << 20).ok()?, 1)?;
            let change = change.map(|(offset, byte)| (memory + CODE as usize + offset, byte));
            let translator = Translated::new(shared, 0).shadowed();
            Some(Box::new(Saboteur { translator, change, asked: 0 }))
        }),
    });
    let mut state = CpuState::reset(true);
    state.cr0 = cr0::PE | cr0::ET | cr0::NE;
    state.cs = flat(0xC09B);
    for segment in [&mut state.ss, &mut state.ds, &mut state.es] {
        *segment = flat(0xC093);
    }
    (state.gpr[0], state.gpr[1], state.gpr[3], state.gpr[4]) = (0, ROUNDS, 0x8000, 0xA000);
    state.rip = CODE;
    let mut vcpu = partition.new_vcpu(0).unwrap();
    vcpu.write(StateSet::ALL, &state);
    let exit = vcpu.run(Entry::Resume);
    (exit, vcpu.counts())
}

fn count(counts: &[(String, u64)], name: &str) -> u64 {
    counts.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

#[test]
fn where_both_do_the_same_every_block_is_compared() {
    let (exit, counts) = run(None);

    assert!(matches!(exit, Ok(Exit::Halt)), "{exit:?}");
    assert!(count(&counts, "compared_blocks") >= ROUNDS, "{counts:?}");
    assert!(count(&counts, "compared_instructions") >= 4 * ROUNDS - 100, "{counts:?}");
    assert!(count(&counts, "compared_pages") >= 2 * (ROUNDS - 100), "{counts:?}");
}

/// A register has another value.
#[test]
fn stale_code_that_counts_upwards_is_found() {
    let (exit, _) = run(Some((OPCODE, 0xC8))); // dec eax

    let report = exit.unwrap_err().message;
    for part in ["block at 0x2000", "rax: translator", "0x2000: dec eax", "0x2004: dec ecx"] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

/// Memory has another value, and no register.
#[test]
fn stale_code_that_stores_something_else_is_found() {
    let (exit, _) = run(Some((OPCODE + 1, 0x29))); // sub [ebx], eax

    let report = exit.unwrap_err().message;
    assert!(report.contains("memory at 0x8000: translator"), "{report}");
    assert!(!report.contains("rax: translator"), "{report}");
}

/// It goes another way.
#[test]
fn stale_code_that_branches_elsewhere_is_found() {
    let (exit, _) = run(Some((OPCODE + 4, 0x74))); // jz

    let report = exit.unwrap_err().message;
    assert!(report.contains("block at 0x2000"), "{report}");
}

/// Translated code stores to memory, and the interpreter doesn't.
#[test]
fn stale_code_that_stores_is_found() {
    let (exit, _) = run(Some((OPCODE + 1, 0x39))); // cmp [ebx], eax

    let report = exit.unwrap_err().message;
    assert!(report.contains("memory at 0x8000: translator"), "{report}");
}
