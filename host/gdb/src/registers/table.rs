//! The table of registers.

use std::sync::LazyLock;

use kasane_cpu::{Gpr, Seg};

/// What a register of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Gpr(Gpr),
    Rip,
    Flags,
    Selector(Seg),
    /// ST(n).
    St(u8),
    X87(X87),
    /// Low half of YMMn.
    Xmm(u8),
    Mxcsr,
    /// High half of YMMn.
    YmmHigh(u8),
    Base(Seg),
    System(System),
}

/// x87 control registers, as GDB names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum X87 {
    Control,
    Status,
    Tags,
    InstructionSelector,
    InstructionOffset,
    OperandSelector,
    OperandOffset,
    Opcode,
}

/// System registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    KernelGsBase,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
    Xcr0,
    /// DR0 to DR3.
    Dr(u8),
    Dr6,
    Dr7,
    GdtBase,
    IdtBase,
    Ldtr,
    Tr,
}

/// Which feature of the description a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    Core,
    Sse,
    Avx,
    Segments,
    System,
}

/// One register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) name: String,
    pub(crate) feature: Feature,
    /// 32, 64, 80 or 128.
    pub(crate) bits: u16,
    /// Its type in the description.
    pub(crate) kind: &'static str,
    /// GDB's group, where it has one for it.
    pub(crate) group: Option<&'static str>,
    pub(crate) what: What,
}

impl Register {
    /// Bytes in a packet.
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }
}

/// All registers, by number.
pub(crate) fn all() -> impl Iterator<Item = &'static Register> {
    TABLE.iter()
}

/// The register of a number.
pub(crate) fn by_number(number: usize) -> Option<&'static Register> {
    TABLE.get(number)
}

static TABLE: LazyLock<Vec<Register>> = LazyLock::new(|| {
    let mut table = Table(Vec::new());
    table.core();
    table.x87();
    for n in 0..16 {
        table.add(Feature::Sse, &format!("xmm{n}"), 128, "vec128", What::Xmm(n));
    }
    table.add(Feature::Sse, "mxcsr", 32, "mxcsr_flags", What::Mxcsr);
    table.add(Feature::Segments, "fs_base", 64, "int64", What::Base(Seg::Fs));
    table.add(Feature::Segments, "gs_base", 64, "int64", What::Base(Seg::Gs));
    for n in 0..16 {
        table.add(Feature::Avx, &format!("ymm{n}h"), 128, "uint128", What::YmmHigh(n));
    }
    table.system();
    table.0
});

struct Table(Vec<Register>);

impl Table {
    fn add(&mut self, feature: Feature, name: &str, bits: u16, kind: &'static str, what: What) {
        let group = match what {
            What::X87(_) => Some("float"),
            What::Mxcsr => Some("vector"),
            What::System(_) => Some("system"),
            What::Gpr(_)
            | What::Rip
            | What::Flags
            | What::Selector(_)
            | What::St(_)
            | What::Xmm(_)
            | What::YmmHigh(_)
            | What::Base(_) => None,
        };
        let name = name.to_owned();
        self.0.push(Register { name, feature, bits, kind, group, what });
    }

    fn core(&mut self) {
        let gprs = [
            ("rax", "int64", Gpr::Rax),
            ("rbx", "int64", Gpr::Rbx),
            ("rcx", "int64", Gpr::Rcx),
            ("rdx", "int64", Gpr::Rdx),
            ("rsi", "int64", Gpr::Rsi),
            ("rdi", "int64", Gpr::Rdi),
            ("rbp", "data_ptr", Gpr::Rbp),
            ("rsp", "data_ptr", Gpr::Rsp),
            ("r8", "int64", Gpr::R8),
            ("r9", "int64", Gpr::R9),
            ("r10", "int64", Gpr::R10),
            ("r11", "int64", Gpr::R11),
            ("r12", "int64", Gpr::R12),
            ("r13", "int64", Gpr::R13),
            ("r14", "int64", Gpr::R14),
            ("r15", "int64", Gpr::R15),
        ];
        for (name, kind, gpr) in gprs {
            self.add(Feature::Core, name, 64, kind, What::Gpr(gpr));
        }
        self.add(Feature::Core, "rip", 64, "code_ptr", What::Rip);
        self.add(Feature::Core, "eflags", 32, "flags", What::Flags);
        let segments = [
            ("cs", Seg::Cs),
            ("ss", Seg::Ss),
            ("ds", Seg::Ds),
            ("es", Seg::Es),
            ("fs", Seg::Fs),
            ("gs", Seg::Gs),
        ];
        for (name, seg) in segments {
            self.add(Feature::Core, name, 32, "int32", What::Selector(seg));
        }
    }

    fn x87(&mut self) {
        for n in 0..8 {
            self.add(Feature::Core, &format!("st{n}"), 80, "i387_ext", What::St(n));
        }
        let words = [
            ("fctrl", X87::Control),
            ("fstat", X87::Status),
            ("ftag", X87::Tags),
            ("fiseg", X87::InstructionSelector),
            ("fioff", X87::InstructionOffset),
            ("foseg", X87::OperandSelector),
            ("fooff", X87::OperandOffset),
            ("fop", X87::Opcode),
        ];
        for (name, word) in words {
            self.add(Feature::Core, name, 32, "int", What::X87(word));
        }
    }

    fn system(&mut self) {
        let registers = [
            ("k_gs_base", System::KernelGsBase),
            ("cr0", System::Cr0),
            ("cr2", System::Cr2),
            ("cr3", System::Cr3),
            ("cr4", System::Cr4),
            ("cr8", System::Cr8),
            ("efer", System::Efer),
            ("xcr0", System::Xcr0),
            ("dr0", System::Dr(0)),
            ("dr1", System::Dr(1)),
            ("dr2", System::Dr(2)),
            ("dr3", System::Dr(3)),
            ("dr6", System::Dr6),
            ("dr7", System::Dr7),
            ("gdt_base", System::GdtBase),
            ("idt_base", System::IdtBase),
            ("ldtr", System::Ldtr),
            ("tr", System::Tr),
        ];
        for (name, register) in registers {
            let kind = match register {
                System::Cr0 => "cr0_flags",
                System::Cr4 => "cr4_flags",
                System::Efer => "efer_flags",
                _ => "int64",
            };
            self.add(Feature::System, name, 64, kind, What::System(register));
        }
    }
}
