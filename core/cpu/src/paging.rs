//! Address translation: 32-bit, PAE and 4-level paging (SDM vol. 3A §4).

use kasane_memory::{GuestMemory, MemoryError};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::paging as pte;
use kasane_spec_x86::vector::page_fault as code;

/// The control state that a walk depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagingContext {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// PAE paging's four page-directory-pointer entries, loaded with CR3.
    pub pdpte: [u64; 4],
    /// Physical address width (MAXPHYADDR), 36 to 52.
    pub physical_bits: u8,
    /// AND-mask of physical addresses: all ones, or without bit 20 while A20 is off.
    pub a20_mask: u64,
}

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// The rights an access is made with (SDM vol. 3A §4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// User mode.
    User,
    /// Supervisor mode; SMAP applies if CR4 has it.
    Supervisor,
    /// Supervisor mode, explicit access with EFLAGS.AC set: SMAP does not apply.
    SupervisorAc,
}

/// Whether a walk may change the accessed and dirty bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// As the processor does.
    Set,
    /// Leave them alone (a debugger's look).
    Leave,
}

/// Where a page is, and what may be done there without another walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address that the linear address maps to.
    pub gpa: u64,
    /// Reads with the same privilege are allowed.
    pub readable: bool,
    /// Writes with the same privilege are allowed and the dirty bit is set.
    pub writable: bool,
    /// Fetches with the same privilege are allowed.
    pub executable: bool,
    /// Global.
    pub global: bool,
    /// log2 of the page size: 12, 21, 22 or 30 (12 without paging).
    pub page_bits: u8,
}

/// The error code of the page fault that an access gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// See [`kasane_spec_x86::vector::page_fault`].
    pub error: u32,
}

/// Rights accumulated over the levels.
struct Rights {
    write: bool,
    user: bool,
    no_exec: bool,
}

impl PagingContext {
    /// Whether paging is on.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.cr0 & cr0::PG != 0
    }
    const fn nx(&self) -> bool {
        self.efer & efer::NXE != 0
    }
    /// Bits of a PAE or 4-level entry's address field.
    const fn address_mask(&self) -> u64 {
        ((1 << self.physical_bits) - 1) & !pte::PAGE_MASK
    }
    /// Reserved bits of any PAE or 4-level entry (SDM vol. 3A table 4-14 ff.).
    const fn reserved(&self) -> u64 {
        let above = 0x000F_FFFF_FFFF_FFFF & !((1 << self.physical_bits) - 1);
        let above = if self.efer & efer::LMA == 0 { above | 0x7FF0_0000_0000_0000 } else { above };
        if self.nx() { above } else { above | pte::NX }
    }

    /// Translates `va` for one access.
    ///
    /// # Errors
    /// The page fault that the access gets.
    pub fn walk<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        va: u64,
        access: Access,
        privilege: Privilege,
        marking: Marking,
    ) -> Result<Translation, PageFault> {
        if !self.enabled() {
            return Ok(Translation {
                gpa: va & 0xFFFF_FFFF & self.a20_mask,
                readable: true,
                writable: true,
                executable: true,
                global: false,
                page_bits: 12,
            });
        }
        let walk = Walk { context: self, memory, access, privilege, marking };
        // Each further round means that somebody changed an entry in the few nanoseconds between
        // a look at it and its mark, so that there is no need for a bound.
        loop {
            match walk.once(va) {
                Ok(found) => return Ok(found),
                Err(Ended::Fault(fault)) => return Err(fault),
                Err(Ended::Changed) => {}
            }
        }
    }
}

/// How a walk ended without a translation.
enum Ended {
    Fault(PageFault),
    /// An entry changed while it was looked at: walk again.
    Changed,
}

struct Walk<'a, M: ?Sized> {
    context: &'a PagingContext,
    memory: &'a M,
    access: Access,
    privilege: Privilege,
    marking: Marking,
}

/// An entry where it was found.
struct Entry {
    gpa: u64,
    value: u64,
}

impl<M: GuestMemory + ?Sized> Walk<'_, M> {
    fn fault(&self, bits: u32) -> Ended {
        let mut error = bits;
        if matches!(self.access, Access::Write) {
            error |= code::W;
        }
        if matches!(self.privilege, Privilege::User) {
            error |= code::U;
        }
        let smep = self.context.cr4 & cr4::SMEP != 0;
        let nx = self.context.nx() && self.context.cr4 & cr4::PAE != 0;
        if matches!(self.access, Access::Execute) && (nx || smep) {
            error |= code::I;
        }
        Ended::Fault(PageFault { error })
    }

    /// An entry that lies outside of memory reads as all ones, like a bus without a device.
    fn read64(&self, gpa: u64) -> u64 {
        self.memory.load_u64(gpa & self.context.a20_mask).unwrap_or(u64::MAX)
    }

    fn once(&self, va: u64) -> Result<Translation, Ended> {
        let context = self.context;
        if context.cr4 & cr4::PAE == 0 {
            self.two_level(va)
        } else if context.efer & efer::LMA == 0 {
            self.pae(va)
        } else {
            let rights = Rights { write: true, user: true, no_exec: false };
            self.levels(va, context.cr3 & context.address_mask(), 4, rights)
        }
    }

    fn pae(&self, va: u64) -> Result<Translation, Ended> {
        let pdpte = self.context.pdpte.get((va >> 30 & 3) as usize).copied().unwrap_or(0);
        if pdpte & pte::P == 0 {
            return Err(self.fault(0));
        }
        let rights = Rights { write: true, user: true, no_exec: false };
        self.levels(va & 0xFFFF_FFFF, pdpte & self.context.address_mask(), 2, rights)
    }

    /// The tables with 64-bit entries, from `level` (4: PML4) down.
    fn levels(
        &self,
        va: u64,
        mut table: u64,
        mut level: u8,
        mut rights: Rights,
    ) -> Result<Translation, Ended> {
        loop {
            let shift = 12 + 9 * (u32::from(level).wrapping_sub(1));
            let gpa = table + (va >> shift & 0x1FF) * 8;
            let value = self.read64(gpa);
            if value & pte::P == 0 {
                return Err(self.fault(0));
            }
            let large = value & pte::PS != 0 && (level == 2 || level == 3);
            let mut reserved = self.context.reserved();
            if level == 4 {
                reserved |= pte::PS;
            }
            if large {
                reserved |= ((1 << shift) - 1) & !0x1FFF; // bits below the page frame but PAT
            }
            if value & reserved != 0 {
                return Err(self.fault(code::P | code::RSVD));
            }
            rights.write &= value & pte::RW != 0;
            rights.user &= value & pte::US != 0;
            rights.no_exec |= value & pte::NX != 0;
            if large || level == 1 {
                let entry = Entry { gpa, value };
                let frame = value & self.context.address_mask() & !((1 << shift) - 1);
                let page = Page { frame, bits: shift as u8, wide: true };
                return self.leaf(va, &entry, &page, &rights);
            }
            self.mark(&Entry { gpa, value }, pte::A, true)?;
            table = value & self.context.address_mask();
            level = level.wrapping_sub(1);
        }
    }

    /// 32-bit paging (SDM vol. 3A §4.3), with PSE-36 large pages.
    fn two_level(&self, va: u64) -> Result<Translation, Ended> {
        let va = va & 0xFFFF_FFFF;
        let pde_gpa = (self.context.cr3 & 0xFFFF_F000) + (va >> 22) * 4;
        let pde = self.read32(pde_gpa);
        if pde & pte::P == 0 {
            return Err(self.fault(0));
        }
        let mut rights =
            Rights { write: pde & pte::RW != 0, user: pde & pte::US != 0, no_exec: false };
        if pde & pte::PS != 0 && self.context.cr4 & cr4::PSE != 0 {
            // Bits 13-20 are address bits 32-39 as far as the CPU has them; bit 21 is reserved.
            let high_bits = u32::from(self.context.physical_bits.saturating_sub(32)).min(8);
            let high = pde >> 13 & ((1 << high_bits) - 1);
            let reserved = (0x1F_E000 & !(((1u64 << high_bits) - 1) << 13)) | 1 << 21;
            if pde & reserved != 0 {
                return Err(self.fault(code::P | code::RSVD));
            }
            let frame = pde & 0xFFC0_0000 | high << 32;
            let page = Page { frame, bits: 22, wide: false };
            return self.leaf(va, &Entry { gpa: pde_gpa, value: pde }, &page, &rights);
        }
        self.mark(&Entry { gpa: pde_gpa, value: pde }, pte::A, false)?;
        let gpa = (pde & 0xFFFF_F000) + (va >> 12 & 0x3FF) * 4;
        let value = self.read32(gpa);
        if value & pte::P == 0 {
            return Err(self.fault(0));
        }
        rights.write &= value & pte::RW != 0;
        rights.user &= value & pte::US != 0;
        let page = Page { frame: value & 0xFFFF_F000, bits: 12, wide: false };
        self.leaf(va, &Entry { gpa, value }, &page, &rights)
    }

    fn read32(&self, gpa: u64) -> u64 {
        u64::from(self.memory.load_u32(gpa & self.context.a20_mask).unwrap_or(u32::MAX))
    }

    fn leaf(
        &self,
        va: u64,
        entry: &Entry,
        page: &Page,
        rights: &Rights,
    ) -> Result<Translation, Ended> {
        let allowed = self.allowed(rights);
        let ok = match self.access {
            Access::Read => allowed.readable,
            Access::Write => allowed.writable,
            Access::Execute => allowed.executable,
        };
        if !ok {
            return Err(self.fault(code::P));
        }
        let write = matches!(self.access, Access::Write);
        let bits = if write { pte::A | pte::D } else { pte::A };
        self.mark(entry, bits, page.wide)?;
        let dirty = write || entry.value & pte::D != 0;
        let offset = va & ((1 << page.bits) - 1);
        Ok(Translation {
            gpa: (page.frame | offset) & self.context.a20_mask,
            readable: allowed.readable,
            writable: allowed.writable && dirty,
            executable: allowed.executable,
            global: entry.value & pte::G != 0 && self.context.cr4 & cr4::PGE != 0,
            page_bits: page.bits,
        })
    }

    /// Access rights of a page (SDM vol. 3A §4.6.1).
    fn allowed(&self, rights: &Rights) -> Allowed {
        let no_exec = rights.no_exec && self.context.nx();
        match self.privilege {
            Privilege::User => Allowed {
                readable: rights.user,
                writable: rights.user && rights.write,
                executable: rights.user && !no_exec,
            },
            Privilege::Supervisor | Privilege::SupervisorAc => {
                let smap = self.context.cr4 & cr4::SMAP != 0
                    && matches!(self.privilege, Privilege::Supervisor);
                let data = !(rights.user && smap);
                let smep = self.context.cr4 & cr4::SMEP != 0;
                let wp = self.context.cr0 & cr0::WP != 0;
                Allowed {
                    readable: data,
                    writable: data && (rights.write || !wp),
                    executable: !(no_exec || rights.user && smep),
                }
            }
        }
    }

    /// Sets accessed and dirty bits, atomically. If the entry changed since it was read, what was
    /// found out by it is out of date.
    fn mark(&self, entry: &Entry, bits: u64, wide: bool) -> Result<(), Ended> {
        if entry.value & bits == bits || matches!(self.marking, Marking::Leave) {
            return Ok(());
        }
        let gpa = entry.gpa & self.context.a20_mask;
        let (current, new) = (entry.value, entry.value | bits);
        let old = if wide {
            self.memory.compare_exchange_u64(gpa, current, new)
        } else {
            self.memory.compare_exchange_u32(gpa, current as u32, new as u32).map(u64::from)
        };
        match old {
            Ok(old) if old == current => Ok(()),
            Ok(_) => Err(Ended::Changed),
            // A table in read-only memory keeps its bits.
            Err(
                MemoryError::ReadOnly { .. }
                | MemoryError::Unmapped { .. }
                | MemoryError::Misaligned { .. },
            ) => Ok(()),
        }
    }
}

struct Page {
    frame: u64,
    bits: u8,
    wide: bool,
}

struct Allowed {
    readable: bool,
    writable: bool,
    executable: bool,
}

/// Reserved bits of a PAE page-directory-pointer entry (SDM vol. 3A §4.4.1): loading one that is
/// present and has any set is #GP.
#[must_use]
pub const fn pdpte_reserved(physical_bits: u8) -> u64 {
    !((1 << physical_bits) - 1) | 0x1E6
}
