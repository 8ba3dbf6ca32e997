//! Direct boot: a kernel, its modules and its command line are put into guest memory as a boot
//! loader would, together with the tables that firmware would have left there.
//!
//! An image may come from anybody: every field is checked, nothing in here panics, and the error
//! says what was found. The result is the bootstrap processor's state at the kernel's entry.

use kasane_cpu::CpuState;
use kasane_memory::GuestMemory;

mod e820;
mod elf;
mod error;
mod image;
mod linux;
mod multiboot;
mod placement;
mod pvh;
mod start;

pub use error::BootError;
pub use start::application_processor;

use crate::config::MachineConfig;
use crate::record::Record;
use crate::tables;
use image::Image;
use placement::Placement;

/// More modules than any loader is asked for; a bound.
const MODULES_MAX: usize = 64;
/// Longest command line for protocols that set no bound.
const TEXT_MAX: u64 = 0xFFFF;

/// What to boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootImages<'a> {
    /// The kernel: a Linux bzImage, an ELF image with a PVH note, or a Multiboot 1 image.
    pub kernel: &'a [u8],
    /// Initial RAM disk; for PVH and Multiboot the first module.
    pub initrd: Option<&'a [u8]>,
    /// Kernel command line, without a terminating zero.
    pub cmdline: &'a str,
    /// More modules, for PVH and Multiboot.
    pub modules: &'a [BootModule<'a>],
}

/// A file that a boot loader puts beside the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootModule<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// Its command line, without a terminating zero.
    pub cmdline: &'a str,
}

impl<'a> BootImages<'a> {
    /// The initrd, if there is one, then the modules.
    fn all_modules(&self) -> impl Iterator<Item = BootModule<'a>> + use<'a> {
        let initrd = self.initrd.map(|data| BootModule { data, cmdline: "" });
        initrd.into_iter().chain(self.modules.iter().copied())
    }
}

/// The boot protocols, in the order in which an image is asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux bzImage, 64- or 32-bit entry.
    Linux,
    /// Multiboot 1.
    Multiboot,
    /// ELF with a Xen PVH entry note.
    Pvh,
}

/// Which protocol an image asks for.
///
/// # Errors
/// `UnknownFormat` or `Compressed`; or what is wrong with an ELF image's headers.
pub fn identify(kernel: &[u8]) -> Result<Protocol, BootError> {
    let image = Image::new(kernel);
    if linux::is_bzimage(image) {
        return Ok(Protocol::Linux);
    }
    if multiboot::find_header(image).is_some() {
        return Ok(Protocol::Multiboot);
    }
    if elf::is_elf(image) {
        return Ok(Protocol::Pvh);
    }
    let packed: [(&[u8], &'static str); 5] = [
        (b"\x1F\x8B", "gzip"),
        (b"\xFD7zXZ\0", "xz"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4D\x18", "lz4"),
    ];
    match packed.iter().find(|(magic, _)| image.has(0, magic)) {
        Some((_, kind)) => Err(BootError::Compressed { kind }),
        None => Err(BootError::UnknownFormat { first: image.first(), len: image.len() }),
    }
}

/// Puts `images` and the firmware's tables into guest memory; gives the bootstrap processor's
/// state at the kernel's entry. [`application_processor`] is the state of the others.
///
/// # Errors
/// What is wrong with the image, or why it doesn't fit into this machine.
pub fn load(
    memory: &dyn GuestMemory,
    config: &MachineConfig,
    images: &BootImages<'_>,
) -> Result<CpuState, BootError> {
    let protocol = identify(images.kernel)?;
    let ram = memory.ram_ranges();
    let mut placement = Placement::new(memory);
    let low_end = placement.low_ram_end();
    if low_end <= crate::layout::HIGH_MEMORY {
        return Err(BootError::OutsideRam {
            what: "the kernel",
            start: crate::layout::HIGH_MEMORY,
            end: low_end,
        });
    }
    let rsdp = tables::write(memory, config)?;
    match protocol {
        Protocol::Linux => linux::load(config, images, rsdp, &mut placement, &ram),
        Protocol::Multiboot => multiboot::load(config, images, &mut placement, &ram),
        Protocol::Pvh => pvh::load(config, images, rsdp, &mut placement, &ram),
    }
}

/// The command line's bytes, if the guest can take them.
fn checked_command_line(text: &str, max: u64) -> Result<&[u8], BootError> {
    let bytes = text.as_bytes();
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(BootError::CommandLineZero { at: at as u64 });
    }
    let len = bytes.len() as u64;
    if len > max {
        return Err(BootError::CommandLineTooLong { len, max });
    }
    Ok(bytes)
}

/// Writes a zero-terminated text into conventional memory; gives its address.
fn place_text(placement: &mut Placement<'_>, text: &str, max: u64) -> Result<u64, BootError> {
    let bytes = checked_command_line(text, max)?;
    let mut record = Record::zeroed(bytes.len().saturating_add(1));
    record.put(0, bytes);
    place_record(placement, "a command line", &record)
}

/// Writes a structure into conventional memory; gives its address.
fn place_record(
    placement: &mut Placement<'_>,
    what: &'static str,
    record: &Record,
) -> Result<u64, BootError> {
    let at = placement.claim_conventional(what, record.0.len() as u64)?;
    placement.write(at, &record.0)?;
    Ok(at)
}

#[cfg(test)]
mod tests;
