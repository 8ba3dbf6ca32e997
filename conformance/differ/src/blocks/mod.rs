//! The comparison of blocks: random programs of 2 to 40 instructions, run by the real CPU, by the
//! interpreter and by the translator, whole state against whole state.
//!
//! [`generate`] makes blocks, [`flow`] knows which of their flags are undefined where, [`guest`]
//! is a virtual machine that runs one as user code, [`disturb`] is what happens to it meanwhile,
//! [`compare`] runs all three, [`shrink`] makes a difference small, [`supervise`] looks after the
//! processes that do all this.

pub mod compare;
pub mod disturb;
pub mod flow;
pub mod generate;
pub mod guest;
mod kernel;
mod pages;
pub mod shrink;
pub mod supervise;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use crate::case::Case;
use crate::layout::{OPEN_CODE, OPEN_PAGES, PAGE};

/// A program with the state that it starts from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The state; its bytes are the whole program, which begins at its RIP.
    pub case: Case,
    /// Offsets of the instructions.
    pub starts: Vec<u32>,
    /// Instructions, by number, that something jumps to by an address in a register or in memory.
    pub taken: Vec<u16>,
    /// What happens while the translator runs it.
    pub plan: disturb::Plan,
}

impl Block {
    /// The instructions as they are decoded, with their numbers.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction> + '_ {
        self.starts.iter().map(|start| {
            let bytes = self.case.bytes.get(*start as usize..).unwrap_or_default();
            let ip = self.case.rip.wrapping_add(u64::from(*start));
            Decoder::with_ip(self.case.bits, bytes, ip, DecoderOptions::NONE).decode()
        })
    }
    /// The number of the instruction at an address.
    #[must_use]
    pub fn index_at(&self, rip: u64) -> Option<usize> {
        let offset = u32::try_from(rip.wrapping_sub(self.case.rip)).ok()?;
        self.starts.binary_search(&offset).ok()
    }
    /// The bytes of an instruction in `case.bytes`.
    #[must_use]
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = self.starts.get(index).map_or(0, |start| *start as usize);
        let end = self.starts.get(index + 1).map_or(self.case.bytes.len(), |end| *end as usize);
        start..end
    }
    /// Whether its code may be written.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (OPEN_CODE..OPEN_CODE + (OPEN_PAGES * PAGE) as u64).contains(&self.case.rip)
    }
}
