//! A second way to run an instruction on this CPU, to compare with: the whole state is loaded by
//! XRSTOR, the instruction's own bytes run with its own registers, the whole state is saved by
//! XSAVE. Shares nothing with the stubs but the arena.

use std::arch::global_asm;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use kasane_cpu::VectorState;
use kasane_host_code::HostCode;
use kasane_passthrough::{CodeArena, CodeEntry, CodeRunner, FaultKind, Outcome};

/// The registers an instruction sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) gpr: [u64; 16],
    pub(crate) rflags: u64,
    pub(crate) vector: VectorState,
    pub(crate) memory: [u8; 1024],
}

/// Layout known to the assembly below.
#[repr(C, align(64))]
struct Area {
    xin: [u8; 1024],
    xout: [u8; 1024],
    gpr: [u64; 16],
    flags: u64,
    host_mxcsr: u32,
    host_fcw: u32,
    padding: [u8; 48],
    memory: [u8; 1024],
}

global_asm!(
    ".globl kasane_test_before, kasane_test_after, kasane_test_end",
    "kasane_test_before:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "stmxcsr [rdi + 2184]",
    "fnstcw [rdi + 2188]",
    "mov eax, 7",
    "xor edx, edx",
    "xrstor64 [rdi]",
    "push qword ptr [rdi + 2176]",
    "popfq",
    "mov rax, [rdi + 2048 + 0]",
    "mov rcx, [rdi + 2048 + 8]",
    "mov rdx, [rdi + 2048 + 16]",
    "mov rbx, [rdi + 2048 + 24]",
    "mov rbp, [rdi + 2048 + 40]",
    "mov rsi, [rdi + 2048 + 48]",
    "mov r8, [rdi + 2048 + 64]",
    "mov r9, [rdi + 2048 + 72]",
    "mov r10, [rdi + 2048 + 80]",
    "mov r11, [rdi + 2048 + 88]",
    "mov r12, [rdi + 2048 + 96]",
    "mov r13, [rdi + 2048 + 104]",
    "mov r14, [rdi + 2048 + 112]",
    "mov r15, [rdi + 2048 + 120]",
    "mov rdi, [rdi + 2048 + 56]",
    "kasane_test_after:",
    "pushfq",
    "push rdi",
    "mov rdi, [rsp + 16]",
    "mov [rdi + 2048 + 0], rax",
    "mov [rdi + 2048 + 8], rcx",
    "mov [rdi + 2048 + 16], rdx",
    "mov [rdi + 2048 + 24], rbx",
    "mov [rdi + 2048 + 40], rbp",
    "mov [rdi + 2048 + 48], rsi",
    "mov [rdi + 2048 + 64], r8",
    "mov [rdi + 2048 + 72], r9",
    "mov [rdi + 2048 + 80], r10",
    "mov [rdi + 2048 + 88], r11",
    "mov [rdi + 2048 + 96], r12",
    "mov [rdi + 2048 + 104], r13",
    "mov [rdi + 2048 + 112], r14",
    "mov [rdi + 2048 + 120], r15",
    "pop qword ptr [rdi + 2048 + 56]",
    "pop qword ptr [rdi + 2176]",
    "mov eax, 7",
    "xor edx, edx",
    "xsave64 [rdi + 1024]",
    "fninit",
    "fldcw [rdi + 2188]",
    "ldmxcsr [rdi + 2184]",
    "vzeroupper",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    "kasane_test_end:",
);

unsafe extern "C" {
    static kasane_test_before: u8;
    static kasane_test_after: u8;
    static kasane_test_end: u8;
}

/// The code of the frame: before and after the instruction.
fn frame() -> (&'static [u8], &'static [u8]) {
    let before = &raw const kasane_test_before;
    let after = &raw const kasane_test_after;
    let end = &raw const kasane_test_end;
    // SAFETY: the labels bound code of this program, which is readable and never changes.
    unsafe {
        (
            std::slice::from_raw_parts(before, after as usize - before as usize),
            std::slice::from_raw_parts(after, end as usize - after as usize),
        )
    }
}

/// Runs raw instructions.
pub(crate) struct Native {
    arena: Box<dyn CodeArena>,
    area: Box<Area>,
}

impl Native {
    pub(crate) fn new(runner: &Arc<dyn CodeRunner>) -> Self {
        let area = Area {
            xin: [0; 1024],
            xout: [0; 1024],
            gpr: [0; 16],
            flags: 0,
            host_mxcsr: 0,
            host_fcw: 0,
            padding: [0; 48],
            memory: [0; 1024],
        };
        Self { arena: runner.arena(4096).unwrap(), area: Box::new(area) }
    }

    /// Address of the memory operand that instructions reach by `[rbx]`.
    pub(crate) fn operand_address(&self) -> u64 {
        self.area.memory.as_ptr() as u64
    }

    /// Address of the instruction.
    #[allow(dead_code)] // one of the two test programs has no use for it
    pub(crate) fn instruction_address(&self) -> u64 {
        self.arena.address() + frame().0.len() as u64
    }

    /// Runs `code` on `machine`, whose RBX is the address of the memory operand if it has one; RSP
    /// is not the machine's.
    pub(crate) fn run(&mut self, code: &[u8], machine: &mut Machine) -> Option<FaultKind> {
        let (before, after) = frame();
        let mut bytes = before.to_vec();
        bytes.extend_from_slice(code);
        let recovery = bytes.len() as u32;
        bytes.extend_from_slice(after);
        let v = &machine.vector;
        self.area.xin[..160].copy_from_slice(&v.fx.0[..160]);
        self.area.xin[512] = 7;
        for (n, ymm) in v.ymm.iter().enumerate() {
            let [a, b, c, d] = ymm.map(u64::to_le_bytes);
            self.area.xin[160 + n * 16..][..8].copy_from_slice(&a);
            self.area.xin[168 + n * 16..][..8].copy_from_slice(&b);
            self.area.xin[576 + n * 16..][..8].copy_from_slice(&c);
            self.area.xin[584 + n * 16..][..8].copy_from_slice(&d);
        }
        self.area.gpr = machine.gpr;
        self.area.flags = machine.rflags;
        self.area.memory = machine.memory;
        // SAFETY: one thread owns this arena; the frame keeps the runner's contract, as do the
        // instructions of these tests, which only reach registers and the area's memory.
        let outcome = unsafe {
            self.arena.write(0, &bytes).unwrap();
            let state = (&raw mut *self.area).cast();
            self.arena.run(CodeEntry { at: 0, recovery }, state)
        };
        let area = &self.area;
        machine.vector.fx.0[..28].copy_from_slice(&area.xout[..28]);
        machine.vector.fx.0[32..160].copy_from_slice(&area.xout[32..160]);
        for (n, ymm) in machine.vector.ymm.iter_mut().enumerate() {
            let word = |at: usize| u64::from_le_bytes(area.xout[at..at + 8].try_into().unwrap());
            let at = n * 16;
            *ymm = [word(160 + at), word(168 + at), word(576 + at), word(584 + at)];
        }
        let rsp = machine.gpr[4];
        machine.gpr = area.gpr;
        machine.gpr[4] = rsp;
        machine.rflags = area.flags;
        machine.memory = area.memory;
        match outcome {
            Outcome::Done => None,
            Outcome::Fault { kind, offset } => {
                assert_eq!(u64::from(offset), before.len() as u64, "fault outside: {kind:?}");
                Some(kind)
            }
        }
    }
}

/// Forgets what processors of other makers than Intel do in their own way: the x87 pointers, which
/// are saved and restored only with a pending exception, and bit 17 of MXCSR_MASK.
pub(crate) fn forget_what_differs(machine: &mut Machine) {
    static INTEL: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Genu")
    });
    machine.memory[30] &= !2;
    if !*INTEL {
        machine.memory[6..28].fill(0);
        machine.vector.fx.0[6..24].fill(0);
    }
}

pub(crate) fn runner() -> Arc<dyn CodeRunner> {
    Arc::new(HostCode::new().unwrap())
}

pub(crate) fn decode(code: &[u8]) -> Instruction {
    Decoder::new(64, code, DecoderOptions::NONE).decode()
}

#[path = "random.rs"]
mod random;
pub(crate) use random::{Random, machine};
