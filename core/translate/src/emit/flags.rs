//! # Where the flags are
//! The guest's arithmetic flags are in the host's. A check overwrites them, so where they are live
//! they are saved before it, and restored where they are read. Two facts are followed along the
//! code: whether the host's flags are the guest's, and whether the saved ones are. What is live is
//! found backwards, over the edges of a block as far as its page reaches ([`crate::live`]).
//!
//! A block has two entries: one for the host's flags, and one before it that restores the saved
//! ones if anybody reads them. Jumps within a page go to the first, all others, which can't know,
//! to the second.

use super::Emitter;
use crate::asm::{Asm, Mem, reg};
use crate::checks::Fixed;
use crate::layout::at;
use crate::stubs::capture_flags;

/// Where the guest's flags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) host: bool,
    pub(super) saved: bool,
}

impl Emitter<'_> {
    /// Host code that overwrites the flags follows; `live` are those still needed.
    pub(super) fn give_up_flags(&mut self, live: u32) {
        self.save(live);
        self.flags.host = false;
    }
    pub(super) fn save(&mut self, live: u32) {
        if live != 0 && !self.flags.saved && self.flags.host {
            self.moves.save.emit(&mut self.asm);
            self.flags.saved = true;
        }
    }
    pub(super) fn need_host_flags(&mut self) {
        if !self.flags.host {
            self.restore();
            self.flags.host = true;
        }
    }
    pub(super) fn restore(&mut self) {
        self.moves.restore.emit(&mut self.asm);
    }
}

/// Saving and restoring, by way of RAX, which is kept in R11.
pub(super) struct Moves {
    save: Fixed,
    restore: Fixed,
}

impl Moves {
    pub(super) fn new() -> Self {
        let (mut save, mut restore) = (Asm::default(), Asm::default());
        save.mov(reg::R11, reg::RAX);
        capture_flags(&mut save, at::FLAGS);
        save.mov(reg::RAX, reg::R11);
        restore.mov(reg::R11, reg::RAX);
        restore.op_mem(false, &[0x0F, 0xB7], reg::RAX, Mem::state(at::FLAGS)); // movzx eax, word
        restore.bytes(&[0x04, 0x7F]); // add al, 127: OF if bit 0 was set
        restore.bytes(&[0x9E]); // sahf
        restore.mov(reg::RAX, reg::R11);
        Self { save: Fixed::of(&save), restore: Fixed::of(&restore) }
    }
}
