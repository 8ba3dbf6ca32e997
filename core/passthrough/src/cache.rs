//! Stubs, found again: the cache in front of the arena, and the run itself.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use iced_x86::{Instruction, InstructionInfoFactory, OpKind};
use kasane_cpu::VectorState;

use crate::emit::{self, Recovery, StateBlock};
use crate::features::HostFeatures;
use crate::runner::{ArenaError, CodeArena, CodeEntry, CodeRunner, FaultKind, Outcome};
use crate::shape::{self, Operand, Refusal, Unit};

/// Bytes of an arena: some 8000 stubs.
const ARENA_BYTES: usize = 768 << 10;
/// Slots of the table; a power of two. At three quarters full, all stubs are dropped.
const SLOTS: usize = 8192;
/// Room that each recovery path gets at the start of the arena.
const RECOVERY_BYTES: usize = 64;
/// Where stubs begin.
const FIRST_STUB: usize = 3 * RECOVERY_BYTES;

/// Arithmetic flags: CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8D5;
/// FSW: an unmasked exception is pending.
const FSW_ES: u16 = 0x80;
/// MXCSR bits that exist on every 64-bit processor; loading others faults.
const MXCSR_BITS: u32 = 0xFFFF;

/// The instruction is not passed through: do it in software, or raise #UD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSupported;

/// What the host's CPU raised instead of completing the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// An unmasked SIMD exception: #XM. MXCSR has its flags; nothing else changed, except that
    /// an instruction on MMX registers has switched the x87 unit to them.
    SimdFp,
    /// A pending unmasked x87 exception: #MF. Nothing changed.
    X87Fp,
    /// The host does not know the instruction: #UD.
    Undefined,
    /// The stub is older than the last flush of the cache: prepare it again.
    Stale,
    /// Anything else: our bug.
    Other(FaultKind),
}

/// How an instruction ended that did not fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Whether the memory operand was written, if it is one that is written. An x87 store whose
    /// exception is unmasked completes without storing; the exception stays pending.
    pub stored: bool,
}

/// A prepared instruction. Small and `Copy`, valid until the cache is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    entry: CodeEntry,
    /// Offset of the instruction itself in the arena.
    instruction: u32,
    generation: u32,
    operand: Option<Operand>,
    unit: Unit,
    flags: bool,
    mixed: bool,
    control: bool,
}

impl Prepared {
    /// The memory operand, which the caller loads or stores.
    #[must_use]
    pub const fn operand(&self) -> Option<Operand> {
        self.operand
    }
    /// The unit, for the checks that come before the instruction.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }
}

/// The guest's registers.
#[derive(Debug)]
pub struct Registers<'a> {
    /// RAX to R15 by their encoding.
    pub gpr: &'a mut [u64; 16],
    /// RFLAGS: only the arithmetic flags are read and written.
    pub rflags: &'a mut u64,
    /// The rest.
    pub vector: &'a mut VectorState,
}

/// Where the guest's instruction is, for the x87 pointers.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    /// The instruction itself, as the guest has it.
    pub instruction: &'a Instruction,
    /// Offset of the instruction (its first byte, prefixes included).
    pub rip: u64,
    /// CS selector, or 0 where the guest's CPUID says that FCS and FDS are gone.
    pub cs: u16,
    /// Offset of the memory operand.
    pub operand: u64,
    /// Selector of the memory operand's segment, or 0 likewise.
    pub ds: u16,
}

/// The memory operand of a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Scratch(pub [u8; 64]);

impl Default for Scratch {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// An instruction's identity: two instructions with the same key share a stub. Code (16 bits),
/// immediate (8), and five operands (8 each): a register's number, or 255 for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of an instruction that may be passed through; others have one, but no meaning.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Self {
        let mut key = instruction.code() as u64;
        let mut immediate = 0;
        for i in 0..instruction.op_count().min(5) {
            let operand = match instruction.op_kind(i) {
                OpKind::Register => instruction.op_register(i) as u8,
                OpKind::Memory => u8::MAX,
                OpKind::Immediate8 => {
                    immediate = instruction.immediate8();
                    0
                }
                // Refused when the stub would be made.
                _ => 0,
            };
            key |= u64::from(operand) << (24 + 8 * i);
        }
        Self(key | u64::from(immediate) << 16)
    }
    /// As a number, to be kept beside a decoded instruction.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }
    /// From [`Key::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    const fn slot(self) -> usize {
        (self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & (SLOTS - 1)
    }
}

/// Runs single instructions on the host. One per vCPU: it owns its arena.
pub struct Passthrough {
    arena: Box<dyn CodeArena>,
    features: HostFeatures,
    factory: InstructionInfoFactory,
    table: Vec<Option<(Key, Prepared)>>,
    used: usize,
    next: usize,
    generation: u32,
}

impl core::fmt::Debug for Passthrough {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Passthrough")
            .field("stubs", &self.used)
            .field("bytes", &self.next)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Passthrough {
    /// Takes an arena from `runner`.
    ///
    /// # Errors
    /// When the home has none.
    pub fn new(runner: &Arc<dyn CodeRunner>) -> Result<Self, ArenaError> {
        Self::with_capacity(runner, ARENA_BYTES)
    }

    /// Likewise, with an arena of at least `bytes`.
    ///
    /// # Errors
    /// When the home has none, or `bytes` is too little.
    pub fn with_capacity(runner: &Arc<dyn CodeRunner>, bytes: usize) -> Result<Self, ArenaError> {
        let features = runner.features();
        let arena = runner.arena(bytes)?;
        let avx = features.contains(HostFeatures::AVX);
        for (i, recovery) in [Recovery::Plain, Recovery::Mxcsr, Recovery::X87].iter().enumerate() {
            let offset = i * RECOVERY_BYTES;
            let address = arena.address().wrapping_add(offset as u64);
            let code =
                emit::recovery_code(*recovery, address, avx).map_err(|_| ArenaError::OutOfRange)?;
            // SAFETY: the arena is new, so nothing runs in it.
            unsafe { arena.write(offset, &code)? };
        }
        Ok(Self {
            arena,
            features,
            factory: InstructionInfoFactory::new(),
            table: vec![None; SLOTS],
            used: 0,
            next: FIRST_STUB,
            generation: 0,
        })
    }

    /// What the host allows: the CPUID model may show no more than this.
    #[must_use]
    pub const fn features(&self) -> HostFeatures {
        self.features
    }

    /// How many stubs there are.
    #[must_use]
    pub const fn stubs(&self) -> usize {
        self.used
    }

    /// Finds or makes the stub of `instruction`, decoded in any mode.
    ///
    /// # Errors
    /// When it is not one that may run on the host.
    pub fn prepare(&mut self, instruction: &Instruction) -> Result<Prepared, NotSupported> {
        self.prepare_keyed(Key::of(instruction), instruction)
    }

    /// Likewise, with the instruction's key at hand: the quick way.
    ///
    /// # Errors
    /// When it is not one that may run on the host.
    #[inline]
    pub fn prepare_keyed(
        &mut self,
        key: Key,
        instruction: &Instruction,
    ) -> Result<Prepared, NotSupported> {
        let slot = self.find(key);
        if let Some(Some((_, prepared))) = self.table.get(slot) {
            return Ok(*prepared);
        }
        self.make(instruction, key)
    }

    #[inline]
    /// The slot that holds `key`, or the free one where it would go.
    fn find(&self, key: Key) -> usize {
        let mut slot = key.slot();
        // There are always free slots, so this ends.
        while let Some(Some((other, _))) = self.table.get(slot) {
            if *other == key {
                break;
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
        slot
    }

    fn make(&mut self, instruction: &Instruction, key: Key) -> Result<Prepared, NotSupported> {
        let shape = shape::analyse(instruction, self.features, &mut self.factory)
            .map_err(|_: Refusal| NotSupported)?;
        if self.used >= SLOTS / 4 * 3 {
            self.flush();
        }
        let (code, at) = self.code_of(&shape)?;
        if self.next.saturating_add(code.len()) > self.arena.capacity() {
            self.flush();
        }
        // The code has no reference to its own address, so a flush doesn't change it.
        let offset = self.next;
        // SAFETY: only this object runs the arena's code, and not while it is borrowed here.
        unsafe { self.arena.write(offset, &code) }.map_err(|_| NotSupported)?;
        self.next = offset.saturating_add(code.len()).next_multiple_of(16);
        let recovery = match emit::recovery_of(&shape) {
            Recovery::Plain => 0,
            Recovery::Mxcsr => RECOVERY_BYTES,
            Recovery::X87 => 2 * RECOVERY_BYTES,
        };
        let prepared = Prepared {
            entry: CodeEntry { at: offset as u32, recovery: recovery as u32 },
            instruction: offset.saturating_add(at) as u32,
            generation: self.generation,
            operand: shape.operand,
            unit: shape.unit,
            flags: shape.flags,
            mixed: shape.unit == Unit::Mmx && shape.vectors_used != 0,
            control: shape.control,
        };
        let slot = self.find(key);
        if let Some(entry) = self.table.get_mut(slot) {
            *entry = Some((key, prepared));
            self.used = self.used.saturating_add(1);
        }
        Ok(prepared)
    }

    fn code_of(&self, shape: &shape::Shape) -> Result<(Vec<u8>, usize), NotSupported> {
        let address = self.arena.address().wrapping_add(self.next as u64);
        emit::stub(shape, address).map_err(|_| NotSupported)
    }

    /// Forgets all stubs. Older [`Prepared`] values become stale.
    pub fn flush(&mut self) {
        self.table.fill(None);
        self.used = 0;
        self.next = FIRST_STUB;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Runs a prepared instruction. Its memory operand, if it is read, is in `scratch`; if it is
    /// written, it is there afterwards.
    ///
    /// # Errors
    /// When the host raised an exception; see [`HostFault`] for what changed.
    pub fn run(
        &mut self,
        prepared: &Prepared,
        registers: &mut Registers<'_>,
        scratch: &mut Scratch,
        location: &Location<'_>,
    ) -> Result<Completed, HostFault> {
        if prepared.generation != self.generation {
            return Err(HostFault::Stale);
        }
        let vector = &mut *registers.vector;
        let mxcsr = vector.mxcsr();
        if mxcsr & !MXCSR_BITS != 0 {
            vector.set_mxcsr(mxcsr & MXCSR_BITS);
        }
        let old_fop = vector.fop();
        let mut block = StateBlock {
            vector: core::ptr::from_mut(vector).cast(),
            gpr: registers.gpr.as_mut_ptr().cast(),
            scratch: scratch.0.as_mut_ptr(),
            flags: (*registers.rflags & ARITHMETIC) | 2,
            host_mxcsr: 0,
            host_fcw: 0,
        };
        // SAFETY: the stub was written by `make` in this generation and keeps the runner's
        // contract; the block's pointers are to live, exclusively borrowed values of the sizes and
        // alignments that the stub assumes.
        let outcome =
            unsafe { self.arena.run(prepared.entry, core::ptr::from_mut(&mut block).cast()) };
        match outcome {
            Outcome::Done => {}
            Outcome::Fault { kind, offset } => {
                clear(registers.vector, prepared);
                return Err(fault(prepared, kind, offset));
            }
        }
        if prepared.flags {
            *registers.rflags = (*registers.rflags & !ARITHMETIC) | (block.flags & ARITHMETIC);
        }
        let scratch_address = block.scratch as u64;
        match prepared.unit {
            Unit::Sse | Unit::Avx => Ok(Completed { stored: true }),
            Unit::X87 | Unit::Mmx => {
                let instruction =
                    self.arena.address().wrapping_add(u64::from(prepared.instruction));
                let own = Own { instruction, scratch: scratch_address, old_fop };
                tidy(registers.vector, prepared, &own, location);
                let stored = prepared.control || x87_stored(registers.vector);
                Ok(Completed { stored })
            }
        }
    }
}

fn fault(prepared: &Prepared, kind: FaultKind, offset: u32) -> HostFault {
    match kind {
        // Only the instruction itself may raise these.
        FaultKind::Simd if offset == prepared.instruction => HostFault::SimdFp,
        FaultKind::X87 if offset == prepared.instruction => HostFault::X87Fp,
        FaultKind::InvalidOpcode if offset == prepared.instruction => HostFault::Undefined,
        FaultKind::Simd
        | FaultKind::X87
        | FaultKind::InvalidOpcode
        | FaultKind::Divide
        | FaultKind::Protection
        | FaultKind::Page { .. }
        | FaultKind::Alignment
        | FaultKind::Other { .. } => HostFault::Other(kind),
    }
}

/// What of a stub the hardware may have put into the x87 pointers.
struct Own {
    instruction: u64,
    scratch: u64,
    /// FOP before.
    old_fop: u16,
}

/// Makes the image that FXSAVE64 left the guest's: the x87 pointers hold addresses of the stub
/// where the hardware updated them (some do it at each instruction, some only at an unmasked
/// exception, SDM vol. 1 §8.1.8).
fn tidy(vector: &mut VectorState, prepared: &Prepared, own: &Own, location: &Location<'_>) {
    if vector.fip() == own.instruction {
        vector.set_fip(location.rip);
        vector.fcs = location.cs;
    }
    if vector.fdp() == own.scratch {
        vector.set_fdp(location.operand);
        vector.fds = location.ds;
    }
    // The stub's ModRM byte differs from the guest's only in a memory operand. FOP changed, or
    // was by chance the same before and an exception is pending now: then it is this stub's.
    let pending = vector.fsw() & FSW_ES != 0;
    if prepared.unit == Unit::X87
        && prepared.operand.is_some()
        && !prepared.control
        && (vector.fop() != own.old_fop || pending)
        && let Some(fop) = emit::x87_opcode(location.instruction)
    {
        vector.set_fop(fop);
    }
    clear(vector, prepared);
}

/// Clears the fields of the image that have no meaning here: MXCSR_MASK, and the XMM registers,
/// of which a mixed instruction left some.
fn clear(vector: &mut VectorState, prepared: &Prepared) {
    if let Some(mask) = vector.fx.0.get_mut(28..32) {
        mask.fill(0);
    }
    if prepared.mixed
        && let Some(xmm) = vector.fx.0.get_mut(160..416)
    {
        xmm.fill(0);
    }
}

/// Whether an x87 store has stored. With no unmasked exception it has. With one it has only if
/// that is the inexact result, which is raised after the store (SDM vol. 1 §8.5). The flags are
/// this instruction's own: an older unmasked one would have been #MF.
fn x87_stored(vector: &VectorState) -> bool {
    let unmasked = vector.fsw() & !vector.fcw() & 0x3F;
    unmasked & 0x1F == 0
}
