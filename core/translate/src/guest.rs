//! What the translator has to know of a guest instruction.

use alloc::vec::Vec;

use iced_x86::{
    Code, CodeSize, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register, RflagsBits,
};
use kasane_interp::op::is_immediate;

pub(crate) use crate::known::uses_vectors;
use crate::known::{
    can_trap, can_write_others, conditional_flags, is_bit_string, is_hint, runs_as_it_is,
};

/// OF, SF, ZF, AF, CF, PF in iced's numbering.
pub(crate) const ALL_FLAGS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// How an instruction is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It runs as it is, its operands renamed.
    Plain,
    /// It has no effect.
    Nop,
    Lea,
    Push,
    Pop,
    Leave,
    /// Near, direct, with the target.
    Call(u64),
    CallIndirect,
    Jump(u64),
    JumpIndirect,
    /// With the target.
    Branch(u64),
    /// With the bytes that it drops besides the return address.
    Return(u16),
    /// A bit test whose memory operand begins where the bit offset says.
    BitString,
    /// Of a string, not repeated.
    String(StringStep),
    /// REP STOS or REP MOVS.
    Repeated(StringStep),
    /// Sensitive, and done in place.
    System(System),
    /// The interpreter does it.
    Interpreted,
}

/// Sensitive instructions that are done in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Cli,
    Sti,
    Pushf,
    Popf,
    Swapgs,
    /// Of the segment with this number.
    ReadSelector(u8),
    /// The same into the low half of 32 bits.
    ReadSelector16(u8),
    /// Of the segment with this number, to memory.
    StoreSelector(u8),
    /// RDFSBASE, or with the bool RDGSBASE.
    ReadBase(bool),
    /// WRFSBASE, or with the bool WRGSBASE.
    WriteBase(bool),
    /// Of CR0, CR2, CR3 or CR4.
    ReadControl(u8),
    /// RDTSC, or with the bool RDTSCP.
    ReadTime(bool),
    /// CLD, or with the bool STD.
    Direction(bool),
    Syscall,
    /// To 64-bit code.
    Sysret,
    Stac,
    Clac,
}

impl System {
    fn of(instruction: &Instruction) -> Option<Self> {
        let size = instruction.stack_pointer_increment().unsigned_abs() as usize;
        if size != 0 && size != word(instruction) {
            return None;
        }
        Some(match instruction.code() {
            Code::Cli => Self::Cli,
            Code::Sti => Self::Sti,
            Code::Pushfq | Code::Pushfd | Code::Pushfw => Self::Pushf,
            Code::Popfq | Code::Popfd | Code::Popfw => Self::Popf,
            Code::Swapgs => Self::Swapgs,
            Code::Mov_rm16_Sreg if instruction.op0_kind() == OpKind::Register => {
                Self::ReadSelector16(instruction.op1_register().number() as u8)
            }
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg
                if instruction.op0_kind() == OpKind::Memory =>
            {
                Self::StoreSelector(instruction.op1_register().number() as u8)
            }
            Code::Mov_r64_cr if matches!(instruction.op1_register().number(), 0 | 2 | 3 | 4) => {
                Self::ReadControl(instruction.op1_register().number() as u8)
            }
            Code::Rdtsc => Self::ReadTime(false),
            Code::Rdtscp => Self::ReadTime(true),
            Code::Cld => Self::Direction(false),
            Code::Std => Self::Direction(true),
            Code::Wrfsbase_r64 => Self::WriteBase(false),
            Code::Wrgsbase_r64 => Self::WriteBase(true),
            Code::Rdfsbase_r64 => Self::ReadBase(false),
            Code::Rdgsbase_r64 => Self::ReadBase(true),
            Code::Syscall => Self::Syscall,
            Code::Sysretq => Self::Sysret,
            Code::Stac => Self::Stac,
            Code::Clac => Self::Clac,
            Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg
                if instruction.op0_kind() == OpKind::Register =>
            {
                Self::ReadSelector(instruction.op1_register().number() as u8)
            }
            _ => return None,
        })
    }
    /// It changes rings or rights.
    pub(crate) fn crosses(self) -> bool {
        matches!(self, Self::Syscall | Self::Sysret | Self::Stac | Self::Clac)
    }
}

/// A string instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringStep {
    pub(crate) action: StringAction,
    /// Bytes of an element.
    pub(crate) size: u32,
    /// Bytes of RSI and RDI that are the address.
    pub(crate) width: u32,
}

/// See [`StringStep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StringAction {
    Load,
    Store,
    Move,
    Scan,
    Compare,
}

impl StringStep {
    fn of(instruction: &Instruction) -> Option<Self> {
        use Mnemonic::{
            Cmpsb, Cmpsd, Cmpsq, Cmpsw, Lodsb, Lodsd, Lodsq, Lodsw, Movsb, Movsd, Movsq, Movsw,
            Scasb, Scasd, Scasq, Scasw, Stosb, Stosd, Stosq, Stosw,
        };
        if !instruction.is_string_instruction() {
            return None;
        }
        let action = match instruction.mnemonic() {
            Lodsb | Lodsw | Lodsd | Lodsq => StringAction::Load,
            Stosb | Stosw | Stosd | Stosq => StringAction::Store,
            Movsb | Movsw | Movsd | Movsq => StringAction::Move,
            Scasb | Scasw | Scasd | Scasq => StringAction::Scan,
            Cmpsb | Cmpsw | Cmpsd | Cmpsq => StringAction::Compare,
            _ => return None,
        };
        let width = (0..instruction.op_count()).find_map(|n| match instruction.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
            _ => None,
        })?;
        Some(Self { action, size: instruction.memory_size().size() as u32, width })
    }
    fn kind(self, instruction: &Instruction) -> Kind {
        let copies = matches!(self.action, StringAction::Move | StringAction::Store);
        match (instruction.has_rep_prefix(), instruction.has_repne_prefix()) {
            (false, false) => Kind::String(self),
            (true, false) if copies && self.width != 2 => Kind::Repeated(self),
            _ => Kind::Interpreted,
        }
    }
}

/// What an explicit memory operand is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Bytes.
    pub(crate) size: u32,
    pub(crate) write: bool,
}

/// A guest instruction with what is known of it. It is made where it stays: copies of it take as
/// long as decoding does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(crate) instruction: Instruction,
    pub(crate) kind: Kind,
    pub(crate) access: Option<Access>,
    /// Bit n: explicit operand n is written.
    pub(crate) written_operands: u8,
    /// It may write to general registers that are no operands.
    pub(crate) writes_others: bool,
    pub(crate) flags_read: u32,
    /// Flags that have a new value afterwards, or an undefined one, whatever the operands.
    pub(crate) flags_written: u32,
    /// Flags may change.
    pub(crate) changes_flags: bool,
    /// It may raise an exception.
    pub(crate) may_fault: bool,
    /// It needs the vector unit.
    pub(crate) vectors: bool,
}

impl Default for Guest {
    /// An invalid one.
    fn default() -> Self {
        Self {
            instruction: Instruction::default(),
            kind: Kind::Interpreted,
            access: None,
            written_operands: 0,
            writes_others: false,
            flags_read: 0,
            flags_written: 0,
            changes_flags: false,
            may_fault: true,
            vectors: false,
        }
    }
}

/// Decides about instructions. What it found out about most it remembers: it follows from their
/// code, whether they have a memory operand, and the size of the code that they are from.
pub(crate) struct Analyst {
    factory: InstructionInfoFactory,
    /// By size of code and whether there is a memory operand, then by code. Empty as long as there
    /// are none.
    known: [Vec<Option<Known>>; FORMS],
}

/// Sizes of code, each without and with a memory operand.
const FORMS: usize = 8;

/// What is the same for all instructions of a kind, in few bytes: there are many kinds.
#[derive(Clone, Copy)]
struct Known {
    /// Whatever the target of a branch.
    kind: Kind,
    written_operands: u8,
    /// Bits, see below.
    facts: u8,
    /// Bytes, and whether they are written.
    access: Option<(u8, bool)>,
    /// Those read and those written; none if they depend on a constant: on the count of a shift.
    flags: Option<(u8, u8, bool)>,
}

impl Known {
    const WRITES_OTHERS: u8 = 1;
    const MAY_FAULT: u8 = 2;
    const VECTORS: u8 = 4;

    fn of(guest: &Guest) -> Self {
        let fact = |bit: u8, holds: bool| if holds { bit } else { 0 };
        let flags = || {
            let Flags { read, written, changed } = Flags::of(&guest.instruction);
            (read as u8, written as u8, changed)
        };
        Self {
            kind: guest.kind,
            written_operands: guest.written_operands,
            facts: fact(Self::WRITES_OTHERS, guest.writes_others)
                | fact(Self::MAY_FAULT, guest.may_fault)
                | fact(Self::VECTORS, guest.vectors),
            access: guest.access.map(|access| (access.size as u8, access.write)),
            flags: (!conditional_flags(&guest.instruction)).then(flags),
        }
    }
    fn has(&self, fact: u8) -> bool {
        self.facts & fact != 0
    }
    #[inline]
    fn tell(&self, guest: &mut Guest) {
        let flags = match self.flags {
            Some((read, written, changed)) => {
                Flags { read: read.into(), written: written.into(), changed }
            }
            None => Flags::of(&guest.instruction),
        };
        let target = guest.instruction.near_branch_target();
        guest.kind = self.kind;
        if let Kind::Branch(known) | Kind::Jump(known) | Kind::Call(known) = &mut guest.kind {
            *known = target;
        }
        guest.access = self.access.map(|(size, write)| Access { size: size.into(), write });
        guest.written_operands = self.written_operands;
        guest.writes_others = self.has(Self::WRITES_OTHERS);
        guest.flags_read = flags.read;
        guest.flags_written = flags.written;
        guest.changes_flags = flags.changed;
        guest.may_fault = self.has(Self::MAY_FAULT);
        guest.vectors = self.has(Self::VECTORS);
    }
}

// All flags that are followed have a bit among the lowest 8, and no access is longer than 255.
const _: () = assert!(ALL_FLAGS <= 0xFF);

/// Whether an instruction's kind is that of all with the same code.
fn is_common(guest: &Guest) -> bool {
    match guest.kind {
        Kind::Plain
        | Kind::Nop
        | Kind::Lea
        | Kind::Push
        | Kind::Leave
        | Kind::Branch(_)
        | Kind::Jump(_)
        | Kind::Call(_)
        | Kind::JumpIndirect
        | Kind::CallIndirect => true,
        // Not one that happens to drop 0 bytes.
        Kind::Return(_) => guest.instruction.op_count() == 0,
        Kind::Pop => guest.instruction.code() == Code::Pop_r64,
        Kind::System(System::Cli | System::Sti | System::Pushf | System::Clac | System::Stac) => {
            true
        }
        Kind::Interpreted => guest.instruction.code() == Code::Ud2,
        _ => false,
    }
}

impl Analyst {
    pub(crate) fn new() -> Self {
        Self { factory: InstructionInfoFactory::new(), known: [const { Vec::new() }; FORMS] }
    }

    /// Fills in what is known of the instruction in `guest`.
    #[inline]
    pub(crate) fn look_at(&mut self, guest: &mut Guest) {
        let instruction = &guest.instruction;
        // No explicit operand behind the fourth is in memory; the kinds of those that are not there
        // are registers. One by one, as they were stored: loaded together they would stall.
        let is_memory = |kind: OpKind| core::hint::black_box(kind) == OpKind::Memory;
        let memory = is_memory(instruction.op0_kind())
            | is_memory(instruction.op1_kind())
            | is_memory(instruction.op2_kind())
            | is_memory(instruction.op3_kind());
        let size = instruction.code_size() as usize & 3;
        let form = self.known.get_mut(size * 2 + usize::from(memory));
        let code = instruction.code() as usize;
        if let Some(Some(known)) = form.as_ref().and_then(|form| form.get(code)) {
            known.tell(guest);
            return;
        }
        *guest = look_closely(&mut self.factory, &guest.instruction);
        let Some(form) = form.filter(|_| is_common(guest)) else { return };
        if form.is_empty() {
            form.resize(Code::values().len(), None);
        }
        if let Some(place) = form.get_mut(code) {
            *place = Some(Known::of(guest));
        }
    }
}

fn look_closely(factory: &mut InstructionInfoFactory, instruction: &Instruction) -> Guest {
    let flags = Flags::of(instruction);
    let mut guest = Guest {
        instruction: *instruction,
        kind: Kind::Interpreted,
        access: None,
        written_operands: 0,
        writes_others: false,
        flags_read: flags.read,
        flags_written: flags.written,
        changes_flags: flags.changed,
        may_fault: true,
        vectors: uses_vectors(instruction),
    };
    guest.kind = kind(instruction);
    if matches!(guest.kind, Kind::System(System::StoreSelector(_))) {
        guest.access = Some(Access { size: 2, write: true });
    }
    if matches!(
        guest.kind,
        Kind::Plain | Kind::BitString | Kind::Push | Kind::JumpIndirect | Kind::CallIndirect
    ) && operands(factory, &mut guest).is_none()
    {
        guest.kind = Kind::Interpreted;
    }
    guest.may_fault = match guest.kind {
        Kind::Plain => guest.access.is_some() || can_trap(instruction),
        Kind::Nop | Kind::Lea | Kind::Jump(_) | Kind::Branch(_) => false,
        _ => true,
    };
    guest
}

/// `None` if the operands are of a form that is not translated.
fn operands(factory: &mut InstructionInfoFactory, guest: &mut Guest) -> Option<()> {
    let instruction = guest.instruction;
    let info = factory.info(&instruction);
    let mut memory = 0;
    for n in 0..instruction.op_count() {
        let access = info.op_access(n);
        let writes = matches!(
            access,
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        );
        if writes {
            guest.written_operands |= 1u8.checked_shl(n)?;
        }
        match instruction.op_kind(n) {
            OpKind::Memory => {
                memory += 1;
                let size = instruction.memory_size().size() as u32;
                if size == 0 || size > 32 {
                    return None;
                }
                guest.access = Some(Access { size, write: writes });
            }
            OpKind::Register => {
                let register = instruction.op_register(n);
                let known = register.is_gpr() || register.is_xmm() || register.is_ymm();
                if !known || register.number() > 15 && !register.is_gpr() {
                    return None;
                }
            }
            kind if is_immediate(kind) => {}
            _ => return None,
        }
    }
    let explicit = |register: Register| {
        (0..instruction.op_count()).any(|n| {
            instruction.op_kind(n) == OpKind::Register
                && guest.written_operands >> n & 1 != 0
                && instruction.op_register(n).full_register() == register.full_register()
        })
    };
    guest.writes_others = can_write_others(&instruction)
        || info.used_registers().iter().any(|used| {
            let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            written && used.register().is_gpr() && !explicit(used.register())
        });
    let expected = info.used_memory().len();
    (memory <= 1 && (expected == memory || guest.kind != Kind::Plain)).then_some(())
}

/// Arithmetic flags that are read, those that are new afterwards, and whether any may change.
#[derive(Clone, Copy)]
struct Flags {
    read: u32,
    written: u32,
    changed: bool,
}

impl Flags {
    fn of(instruction: &Instruction) -> Self {
        let read = instruction.rflags_read() & ALL_FLAGS;
        let written = instruction.rflags_modified() & ALL_FLAGS;
        let changed = written != 0;
        if conditional_flags(instruction) {
            return Self { read: read | written, written: 0, changed };
        }
        Self { read, written, changed }
    }
}

fn kind(instruction: &Instruction) -> Kind {
    if let Some(system) = System::of(instruction) {
        return Kind::System(system);
    }
    if instruction.is_invalid() || instruction.is_privileged() {
        return Kind::Interpreted;
    }
    let near = instruction.near_branch_target();
    let wide_target = |n: u32| match instruction.op_kind(n) {
        OpKind::Memory => instruction.memory_size().size() == word(instruction),
        OpKind::Register => instruction.op_register(n).size() == word(instruction),
        _ => false,
    };
    match instruction.flow_control() {
        FlowControl::Next => straight(instruction),
        FlowControl::UnconditionalBranch if is_near(instruction) => Kind::Jump(near),
        FlowControl::Call if is_near(instruction) => Kind::Call(near),
        FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {
            if is_near(instruction) { Kind::Branch(near) } else { Kind::Interpreted }
        }
        FlowControl::IndirectBranch
            if instruction.mnemonic() == Mnemonic::Jmp && wide_target(0) =>
        {
            if instruction.is_jmp_near_indirect() { Kind::JumpIndirect } else { Kind::Interpreted }
        }
        FlowControl::IndirectCall if wide_target(0) && instruction.is_call_near_indirect() => {
            Kind::CallIndirect
        }
        FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => {
            match (instruction.code(), word(instruction)) {
                (Code::Retnq, 8) | (Code::Retnd, 4) | (Code::Retnw, 2) => Kind::Return(0),
                (Code::Retnq_imm16, 8) | (Code::Retnd_imm16, 4) | (Code::Retnw_imm16, 2) => {
                    Kind::Return(instruction.immediate16())
                }
                _ => Kind::Interpreted,
            }
        }
        _ => Kind::Interpreted,
    }
}

/// Bytes of an instruction pointer in the code that the instruction is from. A branch with another
/// operand size cuts its target off.
fn word(instruction: &Instruction) -> usize {
    match instruction.code_size() {
        CodeSize::Code16 => 2,
        CodeSize::Code32 => 4,
        CodeSize::Code64 | CodeSize::Unknown => 8,
    }
}

fn is_near(instruction: &Instruction) -> bool {
    matches!(
        (instruction.op0_kind(), word(instruction)),
        (OpKind::NearBranch64, 8) | (OpKind::NearBranch32, 4) | (OpKind::NearBranch16, 2)
    )
}

fn straight(instruction: &Instruction) -> Kind {
    if let Some(step) = StringStep::of(instruction) {
        return step.kind(instruction);
    }
    let operand = instruction.op0_register();
    match instruction.code() {
        Code::Push_r16
        | Code::Push_r32
        | Code::Push_r64
        | Code::Push_rm16
        | Code::Push_rm32
        | Code::Push_rm64
        | Code::Pushw_imm8
        | Code::Pushd_imm8
        | Code::Pushq_imm8
        | Code::Push_imm16
        | Code::Pushd_imm32
        | Code::Pushq_imm32 => Kind::Push,
        Code::Pop_r64 => Kind::Pop,
        Code::Pop_r16 | Code::Pop_r32 if operand.full_register() != Register::RSP => Kind::Pop,
        Code::Leaveq if word(instruction) == 8 => Kind::Leave,
        Code::Leaved if word(instruction) == 4 => Kind::Leave,
        Code::Leavew if word(instruction) == 2 => Kind::Leave,
        Code::Lea_r16_m | Code::Lea_r32_m | Code::Lea_r64_m => Kind::Lea,
        _ if is_hint(instruction) => Kind::Nop,
        _ if is_bit_string(instruction) => Kind::BitString,
        _ if runs_as_it_is(instruction) => Kind::Plain,
        _ => Kind::Interpreted,
    }
}
