//! The instruction at RIP, out of the guest's memory as it is now.

use iced_x86::Decoder;
use kasane_cpu::paging::Access;
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared};
use kasane_interp::cpu::{CodeSize, Cpu, Stop};
use kasane_memory::GuestMemory;
use kasane_metal_memory::PAGE;

/// The longest instruction.
const LONGEST: usize = 15;

/// Fetches and decodes the instruction at RIP.
///
/// # Errors
/// What a fetch raises.
pub(crate) fn instruction(cpu: &mut Cpu) -> Result<Op, Stop> {
    let mut bytes = [0; LONGEST];
    let base = cpu.mode.base.get(1).copied().unwrap_or(0);
    let va = base.wrapping_add(cpu.state.rip) & cpu.mode.linear_mask;
    let in_first = ((PAGE - (va & (PAGE - 1))) as usize).min(LONGEST);
    let (first, second) = bytes.split_at_mut(in_first);
    read(cpu, va, first)?;
    let mut len = in_first;
    if !second.is_empty() && !is_complete(cpu, first) {
        let next = va.wrapping_add(in_first as u64) & cpu.mode.linear_mask;
        read(cpu, next, second)?;
        len = LONGEST;
    }
    let bytes = bytes.get(..len).unwrap_or_default();
    let mut decoder = Decoder::with_ip(bits(cpu), bytes, cpu.state.rip, decoder_options(cpu));
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return Err(cpu.ud());
    }
    Ok(prepared(cpu, instruction))
}

fn bits(cpu: &Cpu) -> u32 {
    match cpu.mode.code {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    }
}

/// Whether the bytes in front of a page's end are an instruction.
fn is_complete(cpu: &Cpu, bytes: &[u8]) -> bool {
    let mut decoder = Decoder::with_ip(bits(cpu), bytes, 0, decoder_options(cpu));
    let _incomplete = decoder.decode();
    decoder.last_error() != iced_x86::DecoderError::NoMoreBytes
}

/// Reads bytes of one page as a fetch does.
fn read(cpu: &mut Cpu, va: u64, bytes: &mut [u8]) -> Result<(), Stop> {
    let class = cpu.mode.fetch;
    if cpu.tlb.exec(class, va).is_none() {
        cpu.translate_fill(va, Access::Execute, class)?;
    }
    let Some(page) = cpu.tlb.exec(class, va) else { return Err(cpu.ud()) };
    let gpa = page.gpa | va & (PAGE - 1);
    match cpu.tlb.memory().read(gpa, bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(cpu.ud()),
    }
}
