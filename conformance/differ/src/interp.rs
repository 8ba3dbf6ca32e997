//! The interpreter's side: a 64-bit ring-3 processor over the same pages at the same addresses.

use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, SegmentRegister, VectorState};
use kasane_host_code::HostCode;
use kasane_interp::block::BlockCache;
use kasane_interp::cpu::{Cpu, Shadow, Stop};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamBacking, RamSlot};
use kasane_passthrough::{CodeRunner, Passthrough};
use kasane_ports::{Clock, Entropy, HeavyBarrier};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::paging;

use crate::case::{Case, Fault, Outcome, Patterns, Vectors};
use crate::layout::{
    CODE, CODE_PAGES, DATA, DATA_PAGES, INT3, PAGE, USER_CS32, USER_CS64, USER_DS, WRITABLE_PAGES,
    in_code,
};

/// Guest-physical addresses: tables, then code, then data.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const CODE_GPA: u64 = 0x1_0000;
const DATA_GPA: u64 = 0x2_0000;
const MEMORY: usize = 0x4_0000;
/// Iterations after which a repeated instruction counts as hanging.
const MAX_STEPS: u32 = 1 << 20;

/// Ports of a processor that has no machine around it.
pub(crate) struct Quiet;
impl Clock for Quiet {
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}
impl Entropy for Quiet {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0);
    }
}
impl HeavyBarrier for Quiet {
    fn synchronize(&self) {}
}

/// Memory that we keep a pointer to, so that comparing it needs no copies.
struct Leaked(NonNull<u8>);
// SAFETY: the memory is leaked, so it is valid for ever, and only one thread uses it.
unsafe impl Send for Leaked {}
// SAFETY: as above.
unsafe impl Sync for Leaked {}
// SAFETY: `MEMORY` bytes, page-aligned, valid for ever.
unsafe impl RamBacking for Leaked {
    fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr()
    }
    fn len(&self) -> usize {
        MEMORY
    }
}

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u8; PAGE]);

/// The interpreter's side.
pub struct Interpreter {
    cpu: Cpu,
    cache: BlockCache,
    ram: Arc<Ram>,
    memory: NonNull<u8>,
}

/// A segment of all memory.
pub(crate) fn flat(selector: u16, access: u16) -> SegmentRegister {
    SegmentRegister { selector, access, limit: u32::MAX, base: 0 }
}

fn map_pages(ram: &Ram) -> anyhow::Result<()> {
    let user = paging::P | paging::US | paging::A;
    let index = |at: u64, level: u32| at >> (12 + 9 * level) & 511;
    ram.store_u64(PML4 + index(CODE, 3) * 8, PDPT | user | paging::RW)?;
    ram.store_u64(PDPT + index(CODE, 2) * 8, PD | user | paging::RW)?;
    ram.store_u64(PD + index(CODE, 1) * 8, PT | user | paging::RW)?;
    for n in 0..CODE_PAGES as u64 {
        let page = n * PAGE as u64;
        ram.store_u64(PT + index(CODE + page, 0) * 8, (CODE_GPA + page) | user)?;
    }
    for n in 0..DATA_PAGES as u64 {
        let page = n * PAGE as u64;
        let writable = if n < WRITABLE_PAGES as u64 { paging::RW } else { 0 };
        let entry = (DATA_GPA + page) | user | writable | paging::NX;
        ram.store_u64(PT + index(DATA + page, 0) * 8, entry)?;
    }
    Ok(())
}

/// Of a processor in user mode, as Linux runs programs.
pub(crate) fn start_state() -> CpuState {
    let mut state = CpuState::reset(true);
    state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::ET | cr0::NE | cr0::MP | cr0::AM;
    state.cr3 = PML4;
    state.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE | cr4::FSGSBASE | cr4::UMIP;
    state.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
    state.xcr0 = 7;
    state.cs = flat(USER_CS64, 0xA0FB);
    state.ss = flat(USER_DS, 0xC0F3);
    // Too short for an I/O permission bitmap, as Linux leaves it for most: IN and OUT are refused.
    state.tr.limit = 0x65;
    for seg in [&mut state.ds, &mut state.es] {
        *seg = flat(USER_DS, 0xC0F3);
    }
    for seg in [&mut state.fs, &mut state.gs] {
        *seg = flat(0, 0); // null; 64-bit code only uses the base
    }
    state
}

/// Gives a processor a vector state.
pub(crate) fn load_vectors(vectors: &Vectors, to: &mut VectorState) {
    to.fx.0.copy_from_slice(vectors.part(0, 512));
    for (n, ymm) in to.ymm.iter_mut().enumerate() {
        let low = vectors.part(160 + n * 16, 16);
        let high = vectors.part(576 + n * 16, 16);
        for (word, bytes) in ymm.iter_mut().zip(low.chunks(8).chain(high.chunks(8))) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
    }
}

/// A processor's vector state, normalized.
pub(crate) fn vectors_of(from: &VectorState) -> Box<Vectors> {
    let mut out = Box::<Vectors>::default();
    out.put(0, &from.fx.0);
    for (n, ymm) in from.ymm.iter().enumerate() {
        for (i, word) in ymm.iter().enumerate() {
            let at = if i < 2 { 160 + n * 16 + i * 8 } else { 576 + n * 16 + (i - 2) * 8 };
            out.put(at, &word.to_le_bytes());
        }
    }
    out.put(512, &7u64.to_le_bytes());
    out.normalize();
    out
}

impl Interpreter {
    /// Builds the processor and its memory.
    ///
    /// # Errors
    /// When the host refuses something.
    pub fn new() -> anyhow::Result<Self> {
        let pages = Box::leak(vec![Page([0; PAGE]); MEMORY / PAGE].into_boxed_slice());
        let memory = NonNull::from(pages).cast::<u8>();
        let slot = RamSlot::from_backing(0, Box::new(Leaked(memory)));
        let ram = Arc::new(Ram::new(vec![slot]));
        map_pages(&ram)?;
        ram.fill(CODE_GPA, (CODE_PAGES * PAGE) as u64, INT3)?;
        let runner: Arc<dyn CodeRunner> = Arc::new(HostCode::new()?);
        let partition = InterpPartition::new(InterpConfig {
            ram: ram.clone(),
            apics: Arc::new(ApicBus::new(1)),
            clock: Arc::new(Quiet),
            entropy: Arc::new(Quiet),
            barrier: Arc::new(Quiet),
            model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
            tsc_hz: 1_000_000_000,
            passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
            accelerator: Arc::new(|_| None),
        });
        let mut cpu = partition.new_cpu(0)?;
        cpu.state = start_state();
        cpu.refresh_mode();
        cpu.tlb.flush_all();
        Ok(Self { cpu, cache: BlockCache::default(), ram, memory })
    }

    /// The data pages, as they are after [`Interpreter::run`].
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: inside the leaked memory; the processor only runs inside `run`.
        unsafe {
            slice::from_raw_parts_mut(
                self.memory.as_ptr().add(DATA_GPA as usize),
                DATA_PAGES * PAGE,
            )
        }
    }

    /// Runs a case.
    pub fn run(&mut self, case: &Case, patterns: &Patterns) -> Outcome {
        patterns.apply(case, self.data());
        let at = case.rip.wrapping_sub(CODE).wrapping_add(CODE_GPA);
        let code = case.code();
        let _ = self.ram.write(at, &code);
        self.load(case);
        let (fault, missing) = self.execute(case);
        let _ = self.ram.fill(at, code.len() as u64, INT3);
        let state = &self.cpu.state;
        Outcome {
            gpr: state.gpr,
            rip: state.rip,
            rflags: state.rflags,
            fs: state.fs.base,
            gs: state.gs.base,
            fault,
            vectors: case.vectors.is_some().then(|| vectors_of(&self.cpu.state.vector)),
            missing,
        }
    }

    fn load(&mut self, case: &Case) {
        let cpu = &mut self.cpu;
        cpu.state.gpr = case.gpr;
        cpu.state.cs =
            if case.bits == 32 { flat(USER_CS32, 0xC0FB) } else { flat(USER_CS64, 0xA0FB) };
        cpu.state.rip = case.rip;
        cpu.state.rflags = case.rflags;
        cpu.state.fs.base = case.fs;
        cpu.state.gs.base = case.gs;
        if let Some(vectors) = &case.vectors {
            load_vectors(vectors, &mut cpu.state.vector);
        }
        cpu.refresh_mode();
        cpu.replay.commit();
        cpu.code_written = false;
        cpu.shadow = Shadow::None;
        cpu.debug_hits = 0;
    }

    /// Runs the instruction, and for a branch out of the code also the fetch that follows.
    fn execute(&mut self, case: &Case) -> (Option<Fault>, bool) {
        let missing = self.cpu.missing.len();
        for _ in 0..MAX_STEPS {
            let cpu = &mut self.cpu;
            let result = match self.cache.find(cpu) {
                Ok(block) => match block.ops.first() {
                    Some(op) => {
                        cpu.next_rip = op.next_rip;
                        (op.run)(cpu, op)
                    }
                    None => Err(Stop::Exit),
                },
                Err(stop) => Err(stop),
            };
            match result {
                Ok(()) | Err(Stop::Break) => {
                    cpu.state.rip = cpu.next_rip;
                    if cpu.state.rip == case.rip {
                        continue;
                    }
                    if in_code(cpu.state.rip) {
                        return (None, false);
                    }
                }
                Err(Stop::Fault) => {
                    let fault = cpu.fault;
                    let missing = cpu.missing.len() != missing;
                    cpu.missing.clear();
                    let fault = Fault {
                        vector: fault.vector,
                        error: fault.error.unwrap_or(0),
                        address: if fault.vector == 14 { fault.address } else { 0 },
                    };
                    return (Some(fault), missing);
                }
                Err(Stop::Exit) => break,
            }
        }
        // No such exception: it shows up as a difference.
        (Some(Fault { vector: 255, error: 0, address: 0 }), false)
    }
}
