//! A virtual machine that runs blocks as user code, by the interpreter alone or with the
//! translator.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, PoisonError};

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{Entry, Exit, Partition, StateSet, Vcpu};
use kasane_host_code::HostCode;
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamBacking, RamSlot};
use kasane_passthrough::{CodeRunner, Passthrough};
use kasane_translate::{self as translate, Translated};

use super::Block;
use super::disturb::{End, Harness, Plan, Shared};
use super::kernel::{self, CODE_GPA, DATA_GPA, MEMORY, OPEN_GPA};
use super::pages;
use crate::case::{Case, Patterns};
use crate::interp::Quiet;
use crate::layout::{CODE, DATA_PAGES, INT3, OPEN_CODE, OPEN_PAGES, PAGE};

/// How a machine executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By the interpreter, which is the reference.
    Interpreter,
    /// By the translator.
    Translator {
        /// Bytes of its code arena.
        arena: usize,
        /// Whether all flags are exact at every fault.
        flags: FaultFlags,
        /// Whether its code is verified before it runs.
        code: Code,
    },
}

/// What is done with code before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The translator's verifier looks at it, which takes twice as long as all the rest.
    Verified,
    /// Nothing, but in builds with debug assertions.
    Trusted,
}

/// Which flags a fault shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultFlags {
    /// All, as the manual has them.
    Exact,
    /// Those that a program could miss.
    Live,
}

/// How many machines translate.
pub const TRANSLATING: usize = 3;

/// The machines that translate: as usual, with a cache that is full all the time and a verifier,
/// and without the flags that nobody misses.
pub const TRANSLATORS: [Engine; TRANSLATING] = [
    Engine::Translator { arena: 1 << 20, flags: FaultFlags::Exact, code: Code::Trusted },
    Engine::Translator { arena: 176 << 10, flags: FaultFlags::Exact, code: Code::Verified },
    Engine::Translator { arena: 1 << 20, flags: FaultFlags::Live, code: Code::Trusted },
];

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE]>);

/// Guest memory whose pages we look at directly.
struct Pages(Box<[Page]>);
// SAFETY: one thread at a time uses it: the one that runs the vCPU and looks at it afterwards.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}
// SAFETY: page-aligned, as long as it says, and in one place until it is dropped.
unsafe impl RamBacking for Pages {
    fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }
    fn len(&self) -> usize {
        self.0.len() * PAGE
    }
}

/// A machine.
pub struct Machine {
    /// How it executes.
    pub engine: Engine,
    vcpu: Box<dyn Vcpu>,
    ram: Arc<Ram>,
    /// Guest memory, which `ram` keeps.
    memory: NonNull<u8>,
    exchange: Shared,
    /// The code that stands there: where and how long.
    loaded: (u64, u64),
}

impl Machine {
    /// Builds one.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn new(engine: Engine) -> anyhow::Result<Self> {
        let pages = (0..MEMORY / PAGE).map(|_| Page(UnsafeCell::new([0; PAGE]))).collect();
        let backing = Box::new(Pages(pages));
        let memory = NonNull::new(backing.as_ptr())
            .ok_or_else(|| anyhow::anyhow!("there is no memory for a machine"))?;
        let ram = Arc::new(Ram::new(vec![RamSlot::from_backing(0, backing)]));
        kernel::install(&ram)?;
        let exchange = Shared::default();
        let runner: Arc<dyn CodeRunner> = Arc::new(HostCode::new()?);
        let (arenas, harness_ram, harness_exchange) =
            (runner.clone(), ram.clone(), exchange.clone());
        let partition = InterpPartition::new(InterpConfig {
            ram: ram.clone(),
            apics: Arc::new(ApicBus::new(1)),
            clock: Arc::new(Quiet),
            entropy: Arc::new(Quiet),
            barrier: Arc::new(Quiet),
            model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
            tsc_hz: 1_000_000_000,
            passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
            accelerator: Arc::new(move |_| {
                let translator = match engine {
                    Engine::Interpreter => None,
                    Engine::Translator { arena, flags, code } => {
                        let shared = translate::Shared::new(arenas.arena(arena).ok()?, 1)?;
                        let translator = Translated::new(shared, 0);
                        let translator = match code {
                            Code::Verified => translator.verified(),
                            Code::Trusted => translator,
                        };
                        Some(match flags {
                            FaultFlags::Exact => translator.strict(),
                            FaultFlags::Live => translator,
                        })
                    }
                };
                let (exchange, ram) = (harness_exchange.clone(), harness_ram.clone());
                Some(Box::new(Harness::new(translator, exchange, ram)))
            }),
        });
        let mut vcpu = partition.new_vcpu(0)?;
        vcpu.write(StateSet::ALL, &kernel::state());
        Ok(Self { engine, vcpu, ram, memory, exchange, loaded: (CODE_GPA, 0) })
    }

    fn part(&mut self, gpa: u64, pages: usize) -> &mut [u8] {
        // SAFETY: inside the memory, which `ram` keeps; the processor only runs inside `run`, and
        // `&mut self` says that it does not now.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().add(gpa as usize), pages * PAGE) }
    }
    /// The data pages.
    pub fn data(&mut self) -> &mut [u8] {
        self.part(DATA_GPA, DATA_PAGES)
    }
    /// The pages of code that may be written.
    pub fn open_code(&mut self) -> &mut [u8] {
        self.part(OPEN_GPA, OPEN_PAGES)
    }

    /// Which pages were accessed, and which written: their address, and the entry's bits.
    #[must_use]
    pub fn used_pages(&self) -> Vec<(u64, u64)> {
        pages::used(&self.ram)
    }

    /// What its translator did.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.vcpu.counts()
    }

    /// Runs a block from its beginning to its end.
    ///
    /// # Errors
    /// When the machine does what no block can make it do.
    pub fn run(&mut self, block: &Block, plan: Plan, patterns: &Patterns) -> Result<End, String> {
        patterns.apply(&block.case, self.data());
        self.load_code(&block.case);
        let start = Some(Box::new((block.clone(), plan)));
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner).start = start;
        for _ in 0..3 {
            match self.vcpu.run(Entry::Resume) {
                Ok(Exit::Kicked) => {}
                Ok(exit) => return Err(format!("it left with {exit:?}")),
                Err(error) => return Err(format!("it broke: {}", error.message)),
            }
            let end = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).end.take();
            if let Some(end) = end {
                return Ok(end);
            }
        }
        Err("it was kicked and had not ended".into())
    }

    /// Writes code over what was there before. What is there already stays, with what was made
    /// of it.
    fn load_code(&mut self, case: &Case) {
        let (base, start) =
            if case.rip >= OPEN_CODE { (OPEN_GPA, OPEN_CODE) } else { (CODE_GPA, CODE) };
        let at = case.rip.wrapping_sub(start).wrapping_add(base);
        let len = case.bytes.len() as u64;
        let mut now = vec![0; case.bytes.len()];
        let known = self.ram.read(at, &mut now).is_ok() && now == case.bytes;
        if known && self.loaded == (at, len) && base == CODE_GPA {
            return;
        }
        let (old, old_len) = self.loaded;
        if old >= OPEN_GPA || base == OPEN_GPA {
            // It may have changed anywhere, and a block elsewhere may have written there.
            let _ = self.ram.fill(OPEN_GPA, (OPEN_PAGES * PAGE) as u64, INT3);
        }
        if old < OPEN_GPA && (old, old_len) != (at, len) {
            let _ = self.ram.fill(old, old_len, INT3);
        }
        let _ = self.ram.write(at, &case.bytes);
        self.loaded = (at, len);
    }
}
