//! The interpreter's side: the code as it stands in memory, instruction by instruction.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;
use iced_x86::{Code, Decoder, FlowControl, Instruction, Mnemonic, RflagsBits};
use kasane_cpu::paging::Access;
use kasane_cpu::{InterruptShadow, Seg};
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared};
use kasane_interp::cpu::{Cpu, Stop};
use kasane_memory::GuestMemory;
use kasane_spec_x86::flags;

use crate::known::conditional_flags;
use crate::mode::linear;

/// Instructions that are done for one block at most: more than any block has.
const MOST: usize = 4096;
/// Bytes that are decoded at once.
const BYTES: usize = 256;
const PAGE: u64 = 4096;

/// A run of instructions.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    ops: Vec<Op>,
}

/// Where code is: its physical address, RIP and code size.
type Place = (u64, u64, u8);

/// See the module.
#[derive(Default)]
pub(super) struct Reference {
    runs: HashMap<Place, Run>,
    /// Where the processor is: the run's place, and the number of the next instruction in it.
    at: Option<(Place, usize)>,
    /// What was done.
    done: Vec<Instruction>,
    /// Arithmetic flags without a defined value.
    undefined: u64,
    /// Bits in memory that were made of such flags.
    images: Vec<(u64, u64)>,
    /// The bits of R11 that were.
    r11: u64,
}

impl Reference {
    /// At the state as it is now.
    pub(super) fn begin(&mut self, cpu: &Cpu) {
        debug_assert!(!cpu.stepping());
        self.at = None;
        self.done.clear();
        (self.undefined, self.r11) = (0, 0);
        self.images.clear();
    }
    /// Instructions done.
    pub(super) fn steps(&self) -> u64 {
        self.done.len() as u64
    }
    pub(super) fn done(&self) -> &[Instruction] {
        &self.done
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
        let place = self.find(cpu, rip).ok()?;
        let op = self.runs.get(&place)?.ops.first()?;
        Some(op.instr.flow_control())
    }

    /// Does one instruction, or one round of a repeated one.
    pub(super) fn step(&mut self, cpu: &mut Cpu) -> Result<(), String> {
        if self.done.len() >= MOST {
            return Err(format!("the interpreter did {MOST} instructions and was not there"));
        }
        let op = self.next(cpu)?;
        let rflags = cpu.state.rflags;
        cpu.shadow = InterruptShadow::None;
        cpu.next_rip = op.next_rip;
        match (op.run)(cpu, &op) {
            Ok(()) | Err(Stop::Break) => {}
            Err(stop) => {
                return Err(format!(
                    "the interpreter stops at {:#x}: {stop:?} ({:?})",
                    cpu.state.rip, cpu.fault
                ));
            }
        }
        cpu.state.rip = cpu.next_rip;
        if cpu.step_override == Some(false) {
            cpu.step_override = None;
        }
        self.done.push(op.instr);
        if core::mem::take(&mut cpu.unfinished) {
            self.at = None;
        } else {
            cpu.retired = cpu.retired.wrapping_add(1);
        }
        if core::mem::take(&mut cpu.code_written) {
            return Err(format!(
                "{:#x} stores to code, which translated code must not do",
                op.instr.ip()
            ));
        }
        self.follow_undefined(cpu, &op.instr, rflags);
        Ok(())
    }

    /// The instruction at RIP.
    fn next(&mut self, cpu: &mut Cpu) -> Result<Op, String> {
        if let Some((place, number)) = self.at
            && let Some(op) = self.runs.get(&place).and_then(|run| run.ops.get(number))
            && op.instr.ip() == cpu.state.rip
        {
            self.at = Some((place, number.wrapping_add(1)));
            return Ok(*op);
        }
        let place = self.find(cpu, cpu.state.rip)?;
        self.at = Some((place, 1));
        let op = self.runs.get(&place).and_then(|run| run.ops.first()).copied();
        op.ok_or_else(|| format!("there is no instruction at {:#x}", cpu.state.rip))
    }

    /// The run at `rip`, decoded again if its bytes are no longer the same.
    fn find(&mut self, cpu: &mut Cpu, rip: u64) -> Result<Place, String> {
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
        let run = self.runs.entry(place).or_default();
        let mut bytes = [0; BYTES];
        let known = run.bytes.len();
        let same = match bytes.get_mut(..known) {
            Some(now) if known != 0 => {
                cpu.tlb.memory().read(gpa, now).is_ok() && *now == *run.bytes
            }
            _ => false,
        };
        if !same {
            *run = decode(cpu, gpa, rip);
        }
        Ok(place)
    }

    fn follow_undefined(&mut self, cpu: &mut Cpu, instruction: &Instruction, before: u64) {
        let known = self.undefined;
        if known != 0 {
            self.follow_images(cpu, instruction);
        }
        let undefined = from_iced(instruction.rflags_undefined());
        let modified = from_iced(instruction.rflags_modified());
        let unchanged = before == cpu.state.rflags && conditional_flags(instruction);
        let kept = if unchanged { known } else { known & !modified };
        self.undefined = (kept | undefined) & flags::ARITHMETIC;
    }
    /// Notes what an instruction made of undefined flags.
    fn follow_images(&mut self, cpu: &mut Cpu, instruction: &Instruction) {
        let undefined = self.undefined;
        match instruction.code() {
            Code::Syscall => self.r11 = undefined,
            _ if instruction.mnemonic() == Mnemonic::Pushf
                || instruction.mnemonic() == Mnemonic::Pushfd
                || instruction.mnemonic() == Mnemonic::Pushfq =>
            {
                let base = cpu.mode.base.get(Seg::Ss as usize).copied().unwrap_or(0);
                let va = base.wrapping_add(cpu.stack_pointer()) & cpu.mode.linear_mask;
                if let Ok(found) = cpu.translate_fill(va, Access::Read, cpu.mode.data) {
                    self.images.push((found.gpa, undefined));
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
        ops.push(prepared(cpu, instruction));
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    Run { bytes: bytes.get(..end).unwrap_or_default().to_vec(), ops }
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
