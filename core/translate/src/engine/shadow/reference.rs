//! The interpreter's side: the code as it stands in memory, instruction by instruction.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;
use iced_x86::{Code, Decoder, FlowControl, Instruction, RflagsBits};
use kasane_cpu::paging::Access;
use kasane_cpu::{InterruptShadow, Seg};
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared};
use kasane_interp::cpu::{Cpu, Stop};
use kasane_memory::GuestMemory;
use kasane_spec_x86::flags;

use crate::crossing::{bytes_across, may_cross, second_page};
use crate::known::conditional_flags;
use crate::mode::linear;

/// Instructions that are done for one block at most: more than any block has.
const MOST: usize = 8192;
/// Bytes that are decoded at once.
const BYTES: usize = 256;
const PAGE: u64 = 4096;

/// What an instruction does to the arithmetic flags, besides giving some of them values.
#[derive(Clone, Copy)]
struct Effect {
    modified: u64,
    undefined: u64,
    /// It may leave all of them alone.
    conditional: bool,
}

/// A run of instructions.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    ops: Vec<(Op, Effect)>,
}

/// Where code is: its physical address, RIP and code size.
type Place = (u64, u64, u8);

/// See the module.
#[derive(Default)]
pub(super) struct Reference {
    numbers: HashMap<Place, usize>,
    runs: Vec<Run>,
    /// Where the processor is: a run, and the number of the next instruction in it.
    at: (usize, usize),
    /// What was done: a run, and the number of an instruction in it.
    done: Vec<(usize, usize)>,
    /// Arithmetic flags without a defined value.
    undefined: u64,
    /// Bits in memory that were made of such flags.
    images: Vec<(u64, u64)>,
    /// The bits of R11 that were.
    r11: u64,
}

/// No instruction.
const NOWHERE: (usize, usize) = (usize::MAX, 0);

impl Reference {
    /// At the state as it is now.
    pub(super) fn begin(&mut self) {
        self.at = NOWHERE;
        self.done.clear();
        (self.undefined, self.r11) = (0, 0);
        self.images.clear();
    }
    /// Instructions done.
    pub(super) fn steps(&self) -> u64 {
        self.done.len() as u64
    }
    pub(super) fn done(&self) -> impl Iterator<Item = &Instruction> {
        self.done.iter().filter_map(|at| self.op(*at)).map(|(op, _)| &op.instr)
    }
    fn op(&self, (run, number): (usize, usize)) -> Option<&(Op, Effect)> {
        self.runs.get(run)?.ops.get(number)
    }
    pub(super) fn undefined(&self) -> u64 {
        self.undefined
    }
    /// Bits of a general register that nobody can know.
    pub(super) fn unknown_bits(&self, register: usize) -> u64 {
        if register == 11 { self.r11 } else { 0 }
    }
    /// Bits of the 64-bit word at a guest-physical address that nobody can know.
    pub(super) fn unknown_in_memory(&self, gpa: u64) -> u64 {
        let inside = self.images.iter().filter(|(at, _)| at & !7 == gpa);
        inside.fold(0, |bits, (at, mask)| bits | mask << (at & 7).wrapping_mul(8))
    }

    /// How the instruction at `rip` goes on.
    pub(super) fn flow(&mut self, cpu: &mut Cpu, rip: u64) -> Option<FlowControl> {
        let run = self.find(cpu, rip).ok()?;
        self.op((run, 0)).map(|(op, _)| op.instr.flow_control())
    }

    /// Does one instruction, or one round of a repeated one.
    pub(super) fn step(&mut self, cpu: &mut Cpu) -> Result<(), String> {
        if self.done.len() >= MOST {
            return Err(format!("the interpreter did {MOST} instructions and was not there"));
        }
        let at = self.next(cpu)?;
        let Some((op, effect)) = self.op(at) else {
            return Err(format!("there is no instruction at {:#x}", cpu.state.rip));
        };
        let (effect, instruction) = (*effect, op.instr);
        let rflags = cpu.state.rflags;
        cpu.shadow = InterruptShadow::None;
        cpu.next_rip = op.next_rip;
        match (op.run)(cpu, op) {
            Ok(()) | Err(Stop::Break) => {}
            Err(stop) => {
                let (rip, fault) = (cpu.state.rip, cpu.fault);
                return Err(format!("the interpreter stops at {rip:#x}: {stop:?} ({fault:x?})"));
            }
        }
        cpu.state.rip = cpu.next_rip;
        if cpu.step_override == Some(false) {
            cpu.step_override = None;
        }
        self.done.push(at);
        if core::mem::take(&mut cpu.unfinished) {
            self.at = NOWHERE;
        } else {
            cpu.retired = cpu.retired.wrapping_add(1);
        }
        if core::mem::take(&mut cpu.code_written) {
            return Err(format!(
                "{:#x} stores to code, which translated code must not do",
                instruction.ip()
            ));
        }
        let known = self.undefined;
        if known != 0 {
            self.follow_images(cpu, &instruction);
        }
        let alone = effect.conditional && rflags == cpu.state.rflags;
        self.undefined = if alone { known } else { known & !effect.modified } | effect.undefined;
        Ok(())
    }

    /// The instruction at RIP.
    fn next(&mut self, cpu: &mut Cpu) -> Result<(usize, usize), String> {
        let (run, number) = self.at;
        let goes_on = self.op(self.at).is_some_and(|(op, _)| op.instr.ip() == cpu.state.rip);
        let at = if goes_on { (run, number) } else { (self.find(cpu, cpu.state.rip)?, 0) };
        self.at = (at.0, at.1.wrapping_add(1));
        Ok(at)
    }

    /// The run at `rip`, decoded again if its bytes are no longer the same.
    fn find(&mut self, cpu: &mut Cpu, rip: u64) -> Result<usize, String> {
        let (class, va) = (cpu.mode.fetch, linear(cpu, rip));
        if cpu.tlb.exec(class, va).is_none()
            && cpu.translate_fill(va, Access::Execute, class).is_err()
        {
            return Err(format!("there is no code at {rip:#x}"));
        }
        let page = cpu.tlb.exec(class, va);
        let Some(page) = page else { return Err(format!("no memory holds code at {rip:#x}")) };
        let gpa = page.gpa | va & (PAGE - 1);
        let place = (gpa, rip, cpu.mode.code as u8);
        let number = *self.numbers.entry(place).or_insert_with(|| {
            self.runs.push(Run::default());
            self.runs.len().wrapping_sub(1)
        });
        let Some(run) = self.runs.get_mut(number) else { return Ok(number) };
        let mut bytes = [0; BYTES];
        let same = match bytes.get_mut(..run.bytes.len()) {
            Some(now) if !now.is_empty() => {
                cpu.tlb.memory().read(gpa, now).is_ok() && *now == *run.bytes
            }
            _ => false,
        };
        if !same {
            *run = decode(cpu, gpa, rip);
            if run.ops.is_empty() && may_cross(va) {
                *run = decode_across(cpu, gpa, rip);
            }
        }
        Ok(number)
    }

    /// Notes what an instruction made of undefined flags.
    fn follow_images(&mut self, cpu: &mut Cpu, instruction: &Instruction) {
        match instruction.code() {
            Code::Syscall => self.r11 = self.undefined,
            Code::Pushfw | Code::Pushfd | Code::Pushfq => {
                let base = cpu.mode.base.get(Seg::Ss as usize).copied().unwrap_or(0);
                let va = base.wrapping_add(cpu.stack_pointer()) & cpu.mode.linear_mask;
                if let Ok(found) = cpu.translate_fill(va, Access::Read, cpu.mode.data) {
                    self.images.push((found.gpa, self.undefined));
                }
            }
            _ => {}
        }
    }
}

fn decode(cpu: &Cpu, gpa: u64, rip: u64) -> Run {
    let mut bytes = [0; BYTES];
    let len = (PAGE - (gpa & (PAGE - 1))).min(BYTES as u64) as usize;
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    if cpu.tlb.memory().read(gpa, bytes).is_err() {
        return Run::default();
    }
    let bits = cpu.mode.code as u32;
    let mut decoder = Decoder::with_ip(bits, bytes, rip, decoder_options(cpu));
    let mut ops = Vec::new();
    let mut end = 0;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            break; // or cut off
        }
        end = decoder.position();
        ops.push((prepared(cpu, instruction), Effect::of(&instruction)));
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    Run { bytes: bytes.get(..end).unwrap_or_default().to_vec(), ops }
}

/// The instruction across the end of the page. Without bytes to compare, it is decoded each time.
fn decode_across(cpu: &mut Cpu, gpa: u64, rip: u64) -> Run {
    let bytes = second_page(cpu, rip).and_then(|second| bytes_across(cpu, gpa, second));
    let bytes = bytes.unwrap_or_default();
    let bits = cpu.mode.code as u32;
    let instruction = Decoder::with_ip(bits, &bytes, rip, decoder_options(cpu)).decode();
    let mut run = Run::default();
    if !instruction.is_invalid() {
        run.ops.push((prepared(cpu, instruction), Effect::of(&instruction)));
    }
    run
}

impl Effect {
    fn of(instruction: &Instruction) -> Self {
        Self {
            modified: from_iced(instruction.rflags_modified()),
            undefined: from_iced(instruction.rflags_undefined()),
            conditional: conditional_flags(instruction),
        }
    }
}

/// Arithmetic flags of iced's numbering as RFLAGS has them.
fn from_iced(bits: u32) -> u64 {
    [
        (RflagsBits::OF, flags::OF),
        (RflagsBits::SF, flags::SF),
        (RflagsBits::ZF, flags::ZF),
        (RflagsBits::AF, flags::AF),
        (RflagsBits::CF, flags::CF),
        (RflagsBits::PF, flags::PF),
    ]
    .into_iter()
    .filter(|(theirs, _)| bits & theirs != 0)
    .fold(0, |all, (_, ours)| all | ours)
}
