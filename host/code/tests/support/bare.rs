//! A processor with nothing around it but memory, interpreted or with the translator.

use std::ops::Range;
use std::sync::Arc;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, Entry, Exit, Partition, StateSet};
use kasane_host_code::HostCode;
use kasane_interp::accelerator::Accelerator;
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_passthrough::{CodeRunner, Passthrough};
use kasane_spec_x86::flags;
use kasane_translate::{Policy, Shared, Translated};

use super::quiet::Quiet;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);
impl Random {
    /// From the time of day.
    pub(crate) fn fresh() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self(now.as_nanos() as u64)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// What a program begins with.
pub(crate) struct Setup<'a> {
    pub(crate) state: &'a CpuState,
    pub(crate) image: &'a [(u64, &'a [u8])],
    /// Memory that is compared.
    pub(crate) watched: Range<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Interpreter,
    /// A block is translated when it comes up so often.
    Translator(u8),
}

/// Where a program ended: at HLT, or at a fault that nobody handles.
#[derive(Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) halted: bool,
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    /// But for AF, which many instructions leave undefined.
    pub(crate) rflags: u64,
    pub(crate) ymm: [[u64; 4]; 16],
    pub(crate) memory: Vec<u8>,
}

/// Runs a program; gives its end, and how many instructions were interpreted.
pub(crate) fn run(setup: &Setup<'_>, engine: Engine) -> (End, u64) {
    let runner: Arc<dyn CodeRunner> = Arc::new(HostCode::new().unwrap());
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 8 << 20)]));
    for (address, bytes) in setup.image {
        ram.write(*address, bytes).unwrap();
    }
    let arenas = Arc::clone(&runner);
    let partition = InterpPartition::new(InterpConfig {
        ram: Arc::clone(&ram),
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
        accelerator: Arc::new(move |_| match engine {
            Engine::Interpreter => None,
            Engine::Translator(threshold) => translator(&*arenas, threshold),
        }),
    });
    let mut vcpu = partition.new_vcpu(0).unwrap();
    vcpu.write(StateSet::ALL, setup.state);
    let exit = vcpu.run(Entry::Resume).unwrap();
    assert!(matches!(exit, Exit::Halt | Exit::TripleFault), "{exit:?}");
    let mut state = CpuState::reset(true);
    vcpu.read(StateSet::ALL, &mut state);
    let mut memory = vec![0; (setup.watched.end - setup.watched.start) as usize];
    ram.read(setup.watched.start, &mut memory).unwrap();
    let end = End {
        halted: exit == Exit::Halt,
        gpr: state.gpr,
        rip: state.rip,
        rflags: state.rflags & !flags::AF,
        ymm: state.vector.ymm,
        memory,
    };
    (end, vcpu.instructions())
}

fn translator(arenas: &dyn CodeRunner, threshold: u8) -> Option<Box<dyn Accelerator>> {
    let shared = Shared::new(arenas.arena(1 << 20).ok()?, 1)?;
    let mut translated = Translated::new(shared, 0).strict();
    translated.set_policy(Policy { threshold, ..Policy::default() });
    Some(Box::new(translated))
}
