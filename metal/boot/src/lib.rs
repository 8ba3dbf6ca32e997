//! The way in. A loader starts the image by Multiboot2 (GRUB, from BIOS or UEFI) or by PVH (QEMU's
//! `-kernel`, other monitors) in flat 32-bit protected mode. `entry.s` goes on to long mode and
//! calls `kasane_main(protocol, information)`; the parsers here read what the loader left behind.
//!
//! `unsafe` because of the entry itself, which is assembler. The parsers have none: they get bytes,
//! and every length in them is checked.
#![no_std]
#[cfg(test)]
extern crate std;

pub mod archive;
#[cfg(target_os = "none")]
mod entry;
pub mod memory_map;
pub mod multiboot2;
mod read;

#[cfg(target_os = "none")]
pub use entry::{ApParameters, TRAMPOLINE_LEN, image, trampoline};
pub mod pvh;

/// What started the image: the first argument of `kasane_main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The information is a [`pvh`] start info.
    Pvh,
    /// The information is a list of [`multiboot2`] tags.
    Multiboot2,
}

impl Protocol {
    /// From the number that the entry passes.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Pvh),
            2 => Some(Self::Multiboot2),
            _ => None,
        }
    }

    /// The loader's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pvh => "PVH",
            Self::Multiboot2 => "Multiboot2",
        }
    }
}

/// A file that the loader put into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its command line, of which the first word is its name; PVH's first module has none.
    pub command_line: &'a str,
    /// Physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl<'a> Module<'a> {
    /// The last part of the first word of the command line.
    #[must_use]
    pub fn name(&self) -> &'a str {
        let word = self.command_line.split_ascii_whitespace().next().unwrap_or("");
        word.rsplit('/').next().unwrap_or(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_called_by_the_file_that_it_was() {
        let module = Module { command_line: "/boot/guests/smp.elf x=1", ..Module::default() };

        assert_eq!((module.name(), Module::default().name()), ("smp.elf", ""));
    }
}
