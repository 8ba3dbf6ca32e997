//! The architectural state of one processor, as saved, shown to a debugger, and compared.

use alloc::boxed::Box;

use kasane_spec_x86::{control, flags};
use serde::{Deserialize, Serialize};

use crate::segment::{DescriptorTable, Seg, SegmentRegister};
use crate::vector_state::VectorState;

/// A general-purpose register by its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it all
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// What the processor does between instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Executing.
    #[default]
    Running,
    /// HLT was executed.
    Halted,
    /// An application processor that waits for a start-up IPI.
    WaitForSipi,
    /// Shut down by a triple fault.
    Shutdown,
}

/// What holds interrupts (and traps) back for one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptShadow {
    /// Nothing.
    #[default]
    None,
    /// After STI: maskable interrupts wait.
    Sti,
    /// After MOV SS or POP SS: interrupts, NMI and debug traps wait.
    MovSs,
}

/// A bit set of parts of the state; reading or writing costs only what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSet(u8);

impl StateSet {
    /// GPRs, RIP, RFLAGS.
    pub const GENERAL: Self = Self(1);
    /// Segments, descriptor tables, control and debug registers.
    pub const SYSTEM: Self = Self(2);
    /// x87, SSE, AVX.
    pub const VECTOR: Self = Self(4);
    /// MSRs, local APIC, activity, pending events.
    pub const PLATFORM: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);
    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether all of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Model-specific registers that hold plain values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // named as in `kasane_spec_x86::msr`
pub struct Msrs {
    pub apic_base: u64,
    pub tsc_offset: u64,
    pub tsc_adjust: u64,
    pub tsc_aux: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mcg_status: u64,
    pub mtrr_def_type: u64,
    /// 64K, two 16K, eight 4K.
    pub mtrr_fixed: [u64; 11],
    /// Base and mask pairs.
    pub mtrr_variable: [u64; 16],
    pub kvm_system_time: u64,
    pub kvm_wall_clock: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            apic_base: 0xFEE0_0800,
            tsc_offset: 0,
            tsc_adjust: 0,
            tsc_aux: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            pat: 0x0007_0406_0007_0406,
            misc_enable: 1,
            mcg_status: 0,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_variable: [0; 16],
            kvm_system_time: 0,
            kvm_wall_clock: 0,
        }
    }
}

/// Everything that a processor is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the manual's names
pub struct CpuState {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub es: SegmentRegister,
    pub cs: SegmentRegister,
    pub ss: SegmentRegister,
    pub ds: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub tr: SegmentRegister,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
    /// DR0-DR3.
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub msrs: Msrs,
    pub vector: Box<VectorState>,
    /// The four page-directory-pointer entries that PAE paging loads with CR3.
    pub pdpte: [u64; 4],
    pub activity: Activity,
    /// Whether STI or MOV SS was the last instruction.
    pub interrupt_shadow: InterruptShadow,
    /// Debug traps that were met and wait to be delivered, as DR6's bits: behind the shadow of
    /// MOV SS, or of the delivery of an interrupt.
    pub pending_debug: u64,
    /// Inside an NMI handler, until IRET.
    pub nmi_blocked: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// In system-management mode.
    pub smm: bool,
    pub smbase: u32,
    /// The local APIC's saved form (see [`crate::apic`]); empty: reset state.
    pub apic: alloc::vec::Vec<u8>,
}

impl CpuState {
    /// The state after RESET (SDM vol. 3A table 9-1): real mode at F000:FFF0.
    #[must_use]
    pub fn reset(bootstrap: bool) -> Self {
        let mut cs = SegmentRegister::real_mode(0xF000);
        cs.base = 0xFFFF_0000;
        cs.access = 0x9B;
        let data = SegmentRegister::real_mode(0);
        let mut msrs = Msrs::default();
        if bootstrap {
            msrs.apic_base |= 1 << 8;
        }
        Self {
            gpr: [0, 0, 0x600, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            rip: 0xFFF0,
            rflags: flags::FIXED,
            es: data,
            cs,
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: SegmentRegister { selector: 0, access: 0x82, limit: 0xFFFF, base: 0 },
            tr: SegmentRegister { selector: 0, access: 0x8B, limit: 0xFFFF, base: 0 },
            gdtr: DescriptorTable { base: 0, limit: 0xFFFF },
            idtr: DescriptorTable { base: 0, limit: 0xFFFF },
            cr0: control::cr0::ET | control::cr0::NW | control::cr0::CD,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: control::xcr0::X87,
            dr: [0; 4],
            dr6: control::dr6::FIXED,
            dr7: control::dr7::FIXED,
            msrs,
            vector: Box::default(),
            pdpte: [0; 4],
            activity: if bootstrap { Activity::Running } else { Activity::WaitForSipi },
            interrupt_shadow: InterruptShadow::None,
            pending_debug: 0,
            nmi_blocked: false,
            nmi_pending: false,
            smm: false,
            smbase: 0x3_0000,
            apic: alloc::vec::Vec::new(),
        }
    }

    /// A segment register by its encoding.
    #[must_use]
    pub fn seg(&self, seg: Seg) -> &SegmentRegister {
        match seg {
            Seg::Es => &self.es,
            Seg::Cs => &self.cs,
            Seg::Ss => &self.ss,
            Seg::Ds => &self.ds,
            Seg::Fs => &self.fs,
            Seg::Gs => &self.gs,
        }
    }

    /// A segment register by its encoding, to change it.
    pub fn seg_mut(&mut self, seg: Seg) -> &mut SegmentRegister {
        match seg {
            Seg::Es => &mut self.es,
            Seg::Cs => &mut self.cs,
            Seg::Ss => &mut self.ss,
            Seg::Ds => &mut self.ds,
            Seg::Fs => &mut self.fs,
            Seg::Gs => &mut self.gs,
        }
    }
}
