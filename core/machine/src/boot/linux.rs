//! Linux bzImage: the 64-bit boot protocol, and the 32-bit one for kernels without
//! `XLF_KERNEL_64` (Linux, Documentation/arch/x86/boot.rst and zero-page.rst).

use kasane_cpu::{CpuState, Gpr};

use super::e820::{self, Kind};
use super::image::Image;
use super::placement::Placement;
use super::start::{self, Mode};
use super::{BootError, BootImages};
use crate::config::MachineConfig;
use crate::layout;
use crate::record::Record;

/// Offsets in the setup header; in the file and in `boot_params` they are the same.
mod header {
    pub(super) const START: u64 = 0x1F1;
    pub(super) const SETUP_SECTS: u64 = 0x1F1;
    pub(super) const SYSSIZE: u64 = 0x1F4;
    pub(super) const BOOT_FLAG: u64 = 0x1FE;
    /// Operand of the short jump at 0x200: the header ends at 0x202 plus this.
    pub(super) const JUMP_OFFSET: u64 = 0x201;
    pub(super) const MAGIC: u64 = 0x202;
    pub(super) const VERSION: u64 = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: u64 = 0x211;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21C;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const INITRD_ADDR_MAX: u64 = 0x22C;
    pub(super) const KERNEL_ALIGNMENT: u64 = 0x230;
    pub(super) const RELOCATABLE: u64 = 0x234;
    pub(super) const XLOADFLAGS: u64 = 0x236;
    pub(super) const CMDLINE_SIZE: u64 = 0x238;
    pub(super) const PAYLOAD_OFFSET: u64 = 0x248;
    pub(super) const PAYLOAD_LENGTH: u64 = 0x24C;
    pub(super) const PREF_ADDRESS: u64 = 0x258;
    pub(super) const INIT_SIZE: u64 = 0x260;
    /// The header may not reach what follows it in `boot_params`.
    pub(super) const END_MAX: u64 = 0x290;
}

/// Offsets in `boot_params` outside the setup header.
mod zero_page {
    pub(super) const LEN: usize = 4096;
    pub(super) const EXT_MEM_K: usize = 0x002;
    pub(super) const ACPI_RSDP_ADDR: usize = 0x070;
    pub(super) const ALT_MEM_K: usize = 0x1E0;
    pub(super) const E820_ENTRIES: usize = 0x1E8;
    pub(super) const E820_TABLE: usize = 0x2D0;
    pub(super) const E820_ENTRY_LEN: usize = 20;
}

const MAGIC: &[u8; 4] = b"HdrS";
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
const LOADER_UNDEFINED: u8 = 0xFF;
/// Offset of the 64-bit entry point in the protected-mode code.
const ENTRY64: u64 = 0x200;
/// `initrd_addr_max` of kernels that don't say.
const INITRD_MAX_DEFAULT: u64 = 0x37FF_FFFF;
/// `cmdline_size` of kernels that don't say.
const CMDLINE_MAX_DEFAULT: u64 = 255;
/// More than any kernel takes; a bound for hostile headers.
const CMDLINE_MAX: u64 = 0xFFFF;

/// Whether the file is a bzImage, or claims to be.
pub(super) fn is_bzimage(image: Image<'_>) -> bool {
    image.has(header::MAGIC as usize, MAGIC)
}

/// What the loader needs of the setup header.
struct Setup<'a> {
    /// The header as it is copied into `boot_params`.
    bytes: &'a [u8],
    /// The protected-mode code.
    code: &'a [u8],
    mode: Mode,
    /// Where the kernel wants to be.
    address: u64,
    relocatable: bool,
    /// A power of two.
    alignment: u64,
    /// RAM it needs from its load address on, until it has unpacked itself.
    init_size: u64,
    initrd_max: u64,
    cmdline_max: u64,
}

impl<'a> Setup<'a> {
    /// Reads and checks the header. `file` is the whole image.
    fn read(file: Image<'a>) -> Result<Self, BootError> {
        const WHAT: &str = "the setup header";
        let boot_flag = file.u16(WHAT, header::BOOT_FLAG)?;
        if boot_flag != 0xAA55 {
            return Err(BootError::BadField {
                field: "the boot flag",
                value: boot_flag.into(),
                expected: "0xaa55",
            });
        }
        let version = file.u16(WHAT, header::VERSION)?;
        if version < 0x0202 {
            return Err(BootError::BadField {
                field: "the boot protocol's version",
                value: version.into(),
                expected: "2.02 (0x202) or later",
            });
        }
        if file.u8(WHAT, header::LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err(BootError::Unsupported { what: "a zImage, which is loaded low," });
        }
        let end = header::MAGIC.saturating_add(file.u8(WHAT, header::JUMP_OFFSET)?.into());
        let end = end.min(header::END_MAX);
        let bytes = file.slice(WHAT, header::START, end.saturating_sub(header::START))?;
        // Fields that the header is too short or too old to have are taken as absent.
        let has = |since: u16, at: u64, len: u64| version >= since && at + len <= end;
        let u32_or = |since: u16, at: u64, default: u64| {
            if has(since, at, 4) { file.u32(WHAT, at).map(u64::from) } else { Ok(default) }
        };
        let code = Self::code(file, version)?;
        let xloadflags = if has(0x020C, header::XLOADFLAGS, 2) {
            file.u16(WHAT, header::XLOADFLAGS)?
        } else {
            0
        };
        let relocatable =
            has(0x0205, header::RELOCATABLE, 1) && file.u8(WHAT, header::RELOCATABLE)? != 0;
        let address = if has(0x020A, header::PREF_ADDRESS, 8) {
            file.u64(WHAT, header::PREF_ADDRESS)?
        } else {
            layout::HIGH_MEMORY
        };
        let alignment = u32_or(0x0205, header::KERNEL_ALIGNMENT, 0x10_0000)?;
        if relocatable && !alignment.is_power_of_two() {
            return Err(BootError::BadField {
                field: "kernel_alignment",
                value: alignment,
                expected: "a power of two",
            });
        }
        let init_size = u32_or(0x020A, header::INIT_SIZE, 0)?.max(code.len() as u64);
        Ok(Self {
            bytes,
            code,
            mode: if xloadflags & XLF_KERNEL_64 != 0 { Mode::Long64 } else { Mode::Protected32 },
            address,
            relocatable,
            alignment,
            init_size,
            initrd_max: u32_or(0x0203, header::INITRD_ADDR_MAX, INITRD_MAX_DEFAULT)?,
            cmdline_max: u32_or(0x0206, header::CMDLINE_SIZE, CMDLINE_MAX_DEFAULT)?
                .min(CMDLINE_MAX),
        })
    }

    /// The protected-mode code, checked against the sizes that the header gives.
    fn code(file: Image<'a>, version: u16) -> Result<&'a [u8], BootError> {
        const WHAT: &str = "the protected-mode code";
        let sectors = match file.u8("the setup header", header::SETUP_SECTS)? {
            0 => 4,
            sectors => sectors,
        };
        let start = (u64::from(sectors) + 1) * 512;
        if version >= 0x0204 {
            let len = u64::from(file.u32("the setup header", header::SYSSIZE)?) * 16;
            // The size is rounded up to 16 bytes; the file need not be padded to it.
            let needed = start.saturating_add(len.saturating_sub(15));
            if file.len() < needed {
                return Err(BootError::Truncated { what: WHAT, needed, found: file.len() });
            }
        }
        if version >= 0x0208 {
            let offset = file.u32("the setup header", header::PAYLOAD_OFFSET)?;
            let len = file.u32("the setup header", header::PAYLOAD_LENGTH)?;
            let at = start.saturating_add(offset.into());
            file.slice("the compressed kernel", at, len.into())?;
        }
        let len = file.len().saturating_sub(start);
        if len <= ENTRY64 {
            let needed = start.saturating_add(ENTRY64).saturating_add(1);
            return Err(BootError::Truncated { what: WHAT, needed, found: file.len() });
        }
        file.slice(WHAT, start, len)
    }

    /// Takes RAM for the kernel: where it wants to be, or, if it can be moved, at the lowest
    /// place where it fits.
    fn place(&self, placement: &mut Placement<'_>) -> Result<u64, BootError> {
        const WHAT: &str = "the kernel";
        if !self.relocatable || placement.is_free(self.address, self.init_size) {
            placement.claim(WHAT, self.address, self.init_size)?;
            return Ok(self.address);
        }
        let window = layout::HIGH_MEMORY..layout::LOW_RAM_MAX;
        placement.claim_lowest(WHAT, self.init_size, self.alignment.max(4096), window)
    }
}

/// Loads the kernel, its initrd and its command line, writes the zero page.
pub(super) fn load(
    config: &MachineConfig,
    images: &BootImages<'_>,
    rsdp: u64,
    placement: &mut Placement<'_>,
    ram: &[(u64, u64)],
) -> Result<CpuState, BootError> {
    let setup = Setup::read(Image::new(images.kernel))?;
    if !images.modules.is_empty() {
        return Err(BootError::Unsupported { what: "a boot module for a Linux bzImage" });
    }
    let address = setup.place(placement)?;
    placement.write(address, setup.code)?;

    let mut page = Record::zeroed(zero_page::LEN);
    page.put(header::START as usize, setup.bytes);
    page.put_u8(header::TYPE_OF_LOADER, LOADER_UNDEFINED);
    page.put_u32(header::CODE32_START, address as u32);
    page.put_u64(zero_page::ACPI_RSDP_ADDR, rsdp);

    let text = super::place_text(placement, images.cmdline, setup.cmdline_max)?;
    page.put_u32(header::CMD_LINE_PTR, text as u32);

    let initrd = images.initrd.unwrap_or_default();
    if !initrd.is_empty() {
        let below = setup.initrd_max.saturating_add(1);
        let at = placement.claim_highest("the initrd", initrd.len() as u64, below)?;
        placement.write(at, initrd)?;
        page.put_u32(header::RAMDISK_IMAGE, at as u32);
        page.put_u32(header::RAMDISK_SIZE, initrd.len() as u32);
    }
    put_memory_map(&mut page, config, ram, placement.low_ram_end());

    let page_at = placement.claim_conventional("the zero page", zero_page::LEN as u64)?;
    placement.write(page_at, &page.0)?;
    let entry = match setup.mode {
        Mode::Long64 => address.saturating_add(ENTRY64),
        Mode::Protected32 => address,
    };
    let mut state = start::bootstrap(setup.mode, entry, placement)?;
    if let Some(rsi) = state.gpr.get_mut(Gpr::Rsi as usize) {
        *rsi = page_at;
    }
    Ok(state)
}

fn put_memory_map(page: &mut Record, config: &MachineConfig, ram: &[(u64, u64)], low_end: u64) {
    let above_1m_k = low_end.saturating_sub(layout::HIGH_MEMORY) / 1024;
    page.put_u32(zero_page::ALT_MEM_K, above_1m_k as u32);
    page.put_u16(zero_page::EXT_MEM_K, above_1m_k.min(0xFFFF) as u16);
    let map = e820::memory_map(config, ram);
    page.put_u8(zero_page::E820_ENTRIES, map.len() as u8);
    for (n, entry) in map.iter().enumerate() {
        let at = zero_page::E820_TABLE + n * zero_page::E820_ENTRY_LEN;
        page.put_u64(at, entry.base);
        page.put_u64(at + 8, entry.len);
        let kind: Kind = entry.kind;
        page.put_u32(at + 16, kind as u32);
    }
}
