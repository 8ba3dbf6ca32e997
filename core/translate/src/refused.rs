//! Instructions of translated code whose access was refused: across pages, MMIO, faults. The
//! interpreter does them, and finds them here prepared, because some come again and again.

use alloc::boxed::Box;

use iced_x86::Decoder;
use kasane_interp::Op;
use kasane_interp::accelerator::{decoder_options, prepared};
use kasane_interp::cpu::Cpu;
use kasane_memory::GuestMemory;

use crate::cache::Key;
use crate::crossing::LONGEST;
use crate::sites::OpAt;

const ENTRIES: usize = 256;

struct Entry {
    key: Key,
    /// Of the cache: if blocks were dropped, the instruction may be another one.
    generation: u64,
    op: Op,
}

/// See the module.
pub(crate) struct Refused {
    entries: Box<[Option<Box<Entry>>]>,
}

impl Refused {
    pub(crate) fn new() -> Self {
        Self { entries: (0..ENTRIES).map(|_| None).collect() }
    }

    /// The instruction at `key`, which lies in one page. It stays as long as no other is asked for.
    pub(crate) fn op(&mut self, cpu: &Cpu, key: Key, generation: u64) -> Option<OpAt> {
        let hash = key.rip ^ key.rip >> 8;
        let place = self.entries.get_mut(hash as usize % ENTRIES)?;
        let held =
            place.as_ref().is_some_and(|held| held.key == key && held.generation == generation);
        if !held {
            let mut bytes = [0; LONGEST as usize];
            let len = LONGEST.min(4096u64.wrapping_sub(key.gpa & 0xFFF));
            let bytes = bytes.get_mut(..len as usize)?;
            cpu.tlb.memory().read(key.gpa, bytes).ok()?;
            let mut decoder =
                Decoder::with_ip(key.mode.bits(), bytes, key.rip, decoder_options(cpu));
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return None;
            }
            *place = Some(Box::new(Entry { key, generation, op: prepared(cpu, instruction) }));
        }
        place.as_ref().map(|entry| OpAt::new(&entry.op))
    }
}
