//! The processor as the handlers see it: architectural state plus what is derived from it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use iced_x86::Code;
use kasane_cpu::apic::{LocalApic, Mailbox};
use kasane_cpu::cpuid::CpuModel;
use kasane_cpu::engine::DebugControl;
use kasane_cpu::paging::PagingContext;
use kasane_cpu::{CpuState, Exit, Gpr, Seg};
use kasane_memory::{Scalar, SoftTlb, TlbClass};
use kasane_ports::{Clock, Entropy, HeavyBarrier};
use kasane_spec_x86::control::{cr0, cr4, dr7, efer};
use kasane_spec_x86::descriptor::access;
use kasane_spec_x86::{flags, vector};

use crate::accelerator::CodeFollowers;
use crate::critical::Critical;
use crate::exclusive::Exclusive;
use crate::io::Replay;

/// Why a handler did not simply finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// An exception: see [`Cpu::fault`].
    Fault,
    /// The machine is needed: see [`Cpu::pending_exit`].
    Exit,
    /// The instruction is done and the block must end.
    Break,
}

/// An exception to deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Vector, see [`kasane_spec_x86::vector`].
    pub vector: u8,
    /// Error code, for the vectors that push one.
    pub error: Option<u32>,
    /// Linear address for CR2, with #PF.
    pub address: u64,
    /// For #DB: the DR6 bits to set (B0-B3, BD, BS, BT).
    pub dr6: u64,
}

/// Size of the code segment's default operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodeSize {
    /// 16-bit.
    Bits16 = 16,
    /// 32-bit.
    Bits32 = 32,
    /// 64-bit.
    Bits64 = 64,
}

/// What is derived from the state and kept at hand; see [`Cpu::refresh_mode`].
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Code size.
    pub code: CodeSize,
    /// Current privilege level.
    pub cpl: u8,
    /// Mask of the stack pointer's width: 16, 32 or 64 bits.
    pub stack_mask: u64,
    /// Mask of linear addresses: 32 or 64 bits.
    pub linear_mask: u64,
    /// Mask of RIP: 16, 32 or 64 bits. (32 in real mode: EIP, checked against the limit.)
    pub rip_mask: u64,
    /// Rights of explicit data accesses.
    pub data: TlbClass,
    /// Rights of instruction fetches.
    pub fetch: TlbClass,
    /// Effective segment bases by `Seg`: zero for ES, CS, SS, DS in 64-bit code.
    pub base: [u64; 6],
    /// By `Seg`: bit 0 reads, bit 1 writes need no segment or alignment check.
    pub plain: [u8; 6],
}

/// One processor.
pub struct Cpu {
    /// Architectural state. After changing CR0, CR4, EFER, CS, SS, other segments or RFLAGS.VM/AC
    /// call [`Cpu::refresh_mode`]; after CR0.PG/WP, CR3, CR4 paging bits, EFER flush the TLB.
    pub state: CpuState,
    /// Address of the next instruction; a branch sets it.
    pub next_rip: u64,
    /// Derived state.
    pub mode: Mode,
    /// Software TLB.
    pub tlb: SoftTlb,
    /// The exception that `Stop::Fault` speaks of.
    pub fault: Fault,
    /// The exit that `Stop::Exit` speaks of.
    pub pending_exit: Option<Exit>,
    /// Answers of the machine within one instruction.
    pub replay: Replay,
    /// The run loop ends the block after this instruction: it stored to bytes that code was made
    /// from, or to a register of the local APIC.
    pub code_written: bool,
    /// The run loop must look for attention before the next block (a handler changed something
    /// that it acts on: activity, APIC, shadow).
    pub attention: bool,
    /// The instruction set RF on purpose (IRET, task switch): it stays for the next one.
    pub suppress_rf_clear: bool,
    /// A repeated instruction stopped between two iterations: it is not retired yet.
    pub unfinished: bool,
    /// #DB conditions met by the current instruction, delivered after it (DR6 bits).
    pub debug_hits: u64,
    /// Whether a single-step trap follows the current instruction, where that does not simply
    /// depend on TF before it: SYSCALL and SYSRET look at TF afterwards, INT n never traps.
    pub step_override: Option<bool>,
    /// STI or MOV SS just ran: no interrupts before the next instruction is done. The run loop
    /// clears it.
    pub shadow: Shadow,
    /// Instructions retired.
    pub retired: u64,
    /// `retired` at which to look at the clock again. What takes much longer than an instruction
    /// brings it nearer.
    pub clock_check: u64,
    /// What CPUID says and which features exist.
    pub model: Arc<CpuModel>,
    /// Local APIC.
    pub apic: LocalApic,
    /// Where other threads leave interrupts and kicks.
    pub mailbox: Arc<Mailbox>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// For locked accesses that no instruction of the host makes atomic.
    pub exclusive: Arc<Exclusive>,
    /// Barrier for marking code pages.
    pub barrier: Arc<dyn HeavyBarrier>,
    /// Who else has to know that a page became code.
    pub followers: Option<Arc<dyn CodeFollowers>>,
    /// TSC frequency in Hz.
    pub tsc_hz: u64,
    /// vCPU number.
    pub index: u32,
    /// vCPUs in the machine.
    pub cpus: u32,
    /// What the debugger (not the guest) wants.
    pub debugger: DebugControl,
    /// The debugger's watchpoints that the current instruction hit: bits 0 to 3 by their place in
    /// the list; those from the fourth on share bit 3.
    pub watch_hits: u32,
    /// Instructions that we lack, by code, with counts.
    pub missing: BTreeMap<Code, u64>,
    /// Critical instructions that were done.
    pub critical: Critical,
    /// Runs vector instructions on the host; `None` where the home can't.
    pub passthrough: Option<kasane_passthrough::Passthrough>,
}

pub use kasane_cpu::InterruptShadow as Shadow;

impl Cpu {
    // --- exceptions -------------------------------------------------------------------------

    /// Sets `fault` and gives `Stop::Fault`.
    #[cold]
    pub fn raise(&mut self, vector: u8, error: Option<u32>) -> Stop {
        self.fault = Fault { vector, error, address: 0, dr6: 0 };
        Stop::Fault
    }
    /// #GP(error).
    #[cold]
    pub fn gp(&mut self, error: u32) -> Stop {
        self.raise(vector::GP, Some(error))
    }
    /// #SS(error).
    #[cold]
    pub fn ss(&mut self, error: u32) -> Stop {
        self.raise(vector::SS, Some(error))
    }
    /// #UD.
    #[cold]
    pub fn ud(&mut self) -> Stop {
        self.raise(vector::UD, None)
    }
    /// #NM.
    #[cold]
    pub fn nm(&mut self) -> Stop {
        self.raise(vector::NM, None)
    }
    /// #DE.
    #[cold]
    pub fn de(&mut self) -> Stop {
        self.raise(vector::DE, None)
    }
    /// #PF at linear address `address`.
    #[cold]
    pub fn page_fault(&mut self, error: u32, address: u64) -> Stop {
        self.fault = Fault { vector: vector::PF, error: Some(error), address, dr6: 0 };
        Stop::Fault
    }
    /// A #DB fault (not a trap) with these DR6 bits.
    #[cold]
    pub fn debug_fault(&mut self, dr6: u64) -> Stop {
        self.fault = Fault { vector: vector::DB, error: None, address: 0, dr6 };
        Stop::Fault
    }

    // --- registers --------------------------------------------------------------------------

    /// A whole register by number (0-15); higher numbers read as zero.
    #[inline(always)]
    #[must_use]
    pub fn gpr(&self, n: u8) -> u64 {
        self.state.gpr.get(usize::from(n)).copied().unwrap_or(0)
    }
    /// Sets a whole register by number; higher numbers are ignored.
    #[inline(always)]
    pub fn set_gpr(&mut self, n: u8, value: u64) {
        if let Some(r) = self.state.gpr.get_mut(usize::from(n)) {
            *r = value;
        }
    }
    /// A named register.
    #[inline(always)]
    #[must_use]
    pub fn reg(&self, r: Gpr) -> u64 {
        self.gpr(r as u8)
    }
    /// Sets a named register.
    #[inline(always)]
    pub fn set_reg(&mut self, r: Gpr, value: u64) {
        self.set_gpr(r as u8, value);
    }
    /// An operand register as [`crate::op::register_slot`] numbers it: 0-15, and 16-19 for
    /// AH, CH, DH, BH.
    #[inline(always)]
    #[must_use]
    pub fn get<T: Scalar>(&self, slot: u8) -> T {
        if T::SIZE == 1 && slot >= 16 {
            return T::from_u64(self.gpr(slot & 3) >> 8);
        }
        T::from_u64(self.gpr(slot))
    }
    /// Writes an operand register: 8 and 16 bits merge, 32 bits zero-extend.
    #[inline(always)]
    pub fn set<T: Scalar>(&mut self, slot: u8, value: T) {
        let v = value.to_u64();
        match T::SIZE {
            1 if slot >= 16 => {
                let old = self.gpr(slot & 3);
                self.set_gpr(slot & 3, old & !0xFF00 | v << 8);
            }
            1 => {
                let old = self.gpr(slot);
                self.set_gpr(slot, old & !0xFF | v);
            }
            2 => {
                let old = self.gpr(slot);
                self.set_gpr(slot, old & !0xFFFF | v);
            }
            _ => self.set_gpr(slot, v),
        }
    }
    /// Writes the low `mask` bits of a register that is used as an address or counter: 16 bits
    /// merge, 32 bits zero-extend.
    #[inline(always)]
    pub fn set_masked(&mut self, r: Gpr, mask: u64, value: u64) {
        let old = self.reg(r);
        let new = if mask == 0xFFFF { old & !mask | value & mask } else { value & mask };
        self.set_reg(r, new);
    }

    // --- flags ------------------------------------------------------------------------------

    /// Whether a flag is set.
    #[inline(always)]
    #[must_use]
    pub fn flag(&self, mask: u64) -> bool {
        self.state.rflags & mask != 0
    }
    /// Replaces the flags in `mask`.
    #[inline(always)]
    pub fn set_flags(&mut self, mask: u64, value: u64) {
        self.state.rflags = self.state.rflags & !mask | value & mask;
    }

    // --- mode -------------------------------------------------------------------------------

    /// Protected mode (of any kind).
    #[must_use]
    pub fn protected(&self) -> bool {
        self.state.cr0 & cr0::PE != 0
    }
    /// Virtual-8086 mode.
    #[must_use]
    pub fn v86(&self) -> bool {
        self.state.rflags & flags::VM != 0
    }
    /// Long mode is active (64-bit or compatibility code).
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.state.efer & efer::LMA != 0
    }
    /// 64-bit code.
    #[inline(always)]
    #[must_use]
    pub fn code64(&self) -> bool {
        matches!(self.mode.code, CodeSize::Bits64)
    }
    /// Current privilege level.
    #[inline(always)]
    #[must_use]
    pub fn cpl(&self) -> u8 {
        self.mode.cpl
    }
    /// The control state that page walks use.
    #[must_use]
    pub fn paging(&self) -> PagingContext {
        PagingContext {
            cr0: self.state.cr0,
            cr3: self.state.cr3,
            cr4: self.state.cr4,
            efer: self.state.efer,
            pdpte: self.state.pdpte,
            physical_bits: self.model.physical_bits(),
            a20_mask: self.mailbox.a20_mask(),
        }
    }
    /// Recomputes [`Cpu::mode`]. CPL is real mode: 0, v86: 3, else SS.DPL (which every load of
    /// SS keeps equal to CPL, also for a null SS in 64-bit code).
    pub fn refresh_mode(&mut self) {
        let s = &self.state;
        let protected = s.cr0 & cr0::PE != 0;
        let v86 = s.rflags & flags::VM != 0;
        let cpl = if !protected {
            0
        } else if v86 {
            3
        } else {
            s.ss.dpl()
        };
        let long = s.efer & efer::LMA != 0;
        let code = if long && s.cs.long() {
            CodeSize::Bits64
        } else if s.cs.big() {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        };
        let code64 = matches!(code, CodeSize::Bits64);
        let ac = s.rflags & flags::AC != 0;
        let data = match cpl {
            3 => TlbClass::User,
            _ if ac => TlbClass::SupervisorAc,
            _ => TlbClass::Supervisor,
        };
        let fetch = if cpl == 3 { TlbClass::User } else { TlbClass::Supervisor };
        let align = ac && cpl == 3 && s.cr0 & cr0::AM != 0;
        let watch = s.dr7 & dr7::ENABLES != 0 || !self.debugger.watchpoints.is_empty();
        let slow = align || watch;
        let mut base = [0; 6];
        let mut plain = [0; 6];
        for (n, seg) in [s.es, s.cs, s.ss, s.ds, s.fs, s.gs].into_iter().enumerate() {
            let keeps_base = !code64 || n >= 4;
            if let (Some(b), Some(p)) = (base.get_mut(n), plain.get_mut(n)) {
                *b = if keeps_base { seg.base } else { 0 };
                *p = if slow { 0 } else { plain_rights(&seg, code64, protected && !v86) };
            }
        }
        self.mode = Mode {
            code,
            cpl,
            stack_mask: if code64 {
                u64::MAX
            } else if s.ss.big() {
                0xFFFF_FFFF
            } else {
                0xFFFF
            },
            linear_mask: if code64 { u64::MAX } else { 0xFFFF_FFFF },
            rip_mask: match code {
                CodeSize::Bits64 => u64::MAX,
                CodeSize::Bits32 | CodeSize::Bits16 => 0xFFFF_FFFF,
            },
            data,
            fetch,
            base,
            plain,
        };
    }
    /// Whether `address` is canonical (48 bits).
    #[inline(always)]
    #[must_use]
    pub fn canonical(address: u64) -> bool {
        ((address << 16) as i64 >> 16) as u64 == address
    }
    /// Whether single-stepping, breakpoints or a shadow make the run loop go one by one.
    #[must_use]
    pub fn stepping(&self) -> bool {
        self.state.rflags & (flags::TF | flags::RF) != 0
            || self.shadow != Shadow::None
            || self.state.dr7 & dr7::ENABLES != 0
            || self.debugger.single_step
            || !self.debugger.breakpoints.is_empty()
            || !self.debugger.watchpoints.is_empty()
    }
    /// Whether something other than the clock wants the run loop.
    #[inline(always)]
    #[must_use]
    pub fn has_business(&self) -> bool {
        self.attention
            || self.mailbox.pending() != 0
            || self.state.rflags & flags::IF != 0 && self.interrupt_waits()
    }
    /// Whether an interrupt waits for the guest to take it. The PIC's wire alone is none: the guest
    /// may have masked LINT0, and then its wire stays up for ever.
    #[inline(always)]
    #[must_use]
    pub fn interrupt_waits(&self) -> bool {
        self.apic.ready().is_some() || self.mailbox.extint() && self.apic.passes_extint()
    }
    /// The page at `va` holds code from now on: returns when nobody writes there without asking.
    #[cold]
    pub fn became_code(&mut self, class: TlbClass, va: u64) {
        self.barrier.synchronize();
        if let Some(followers) = &self.followers {
            let host = self.tlb.exec_host(class, va);
            followers.became_code(self.index, host, &|| self.barrier.relax());
        }
    }
    /// What serializing instructions and port I/O do before they end (SDM vol. 3A §9.3): stores
    /// before them are visible before anything behind them is read. On the host the guest's
    /// accesses are plain ones, which a load may pass.
    #[inline]
    pub fn serialize() {
        fence(Ordering::SeqCst);
    }
    /// Guest TSC now.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        let ns = u128::from(self.clock.now_ns());
        let ticks = (ns * u128::from(self.tsc_hz) / 1_000_000_000) as u64;
        ticks.wrapping_add(self.state.msrs.tsc_offset)
    }
    /// How the guest's TSC follows from the host's; `None` if it doesn't now, or if the guest may
    /// not read it everywhere.
    #[must_use]
    pub fn ticks(&self) -> Option<kasane_ports::Ticks> {
        if self.tsc_hz != 1_000_000_000 || self.cr4(cr4::TSD) {
            return None;
        }
        let ticks = self.clock.ticks()?;
        let offset = ticks.offset.wrapping_add(self.state.msrs.tsc_offset);
        Some(kasane_ports::Ticks { offset, ..ticks })
    }
    /// Names of the missing instructions met.
    #[must_use]
    pub fn missing_instructions(&self) -> Vec<(alloc::string::String, u64)> {
        self.missing.iter().map(|(code, n)| (alloc::format!("{code:?}"), *n)).collect()
    }
    /// Whether CR4 has a bit set.
    #[must_use]
    pub fn cr4(&self, bit: u64) -> bool {
        self.state.cr4 & bit != 0
    }
    /// Whether UMIP forbids SGDT, SIDT, SLDT, SMSW and STR now.
    #[must_use]
    pub fn umip(&self) -> bool {
        self.cr4(cr4::UMIP) && self.cpl() != 0
    }
    /// A segment register.
    #[must_use]
    pub fn seg(&self, seg: Seg) -> &kasane_cpu::SegmentRegister {
        self.state.seg(seg)
    }
}

/// Accesses through this segment that need no check beyond paging.
fn plain_rights(seg: &kasane_cpu::SegmentRegister, code64: bool, checks: bool) -> u8 {
    if code64 {
        return 3;
    }
    // Expand-up with the whole 4 GiB; otherwise the slow path looks at everything.
    let is_code = seg.access & access::CODE != 0;
    if seg.limit != u32::MAX || !seg.present() || (!is_code && seg.access & access::DC != 0) {
        return 0;
    }
    if !checks {
        return 3;
    }
    match (is_code, seg.access & access::RW != 0) {
        (true, true) | (false, false) => 1,
        (true, false) => 0,
        (false, true) => 3,
    }
}
