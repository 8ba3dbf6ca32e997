//! The opcodes that blocks are made of, by what they are good for.

use iced_x86::{Code, CpuidFeature, FlowControl, Instruction, Mnemonic};

use crate::generate::codes;
use crate::rng::Rng;

/// Opcodes by mnemonic, so that one with many forms does not come up more often.
#[derive(Default)]
pub(super) struct Group(Vec<(Mnemonic, Vec<Code>)>);

impl Group {
    fn add(&mut self, code: Code) {
        let mnemonic = code.mnemonic();
        match self.0.iter_mut().find(|(known, _)| *known == mnemonic) {
            Some((_, codes)) => codes.push(code),
            None => self.0.push((mnemonic, vec![code])),
        }
    }
    pub(super) fn pick(&self, rng: &mut Rng) -> Code {
        let codes = self.0.get(rng.below(self.0.len() as u64) as usize);
        codes.map_or(Code::Nopd, |(_, codes)| {
            let at = rng.below(codes.len() as u64) as usize;
            codes.get(at).copied().unwrap_or(Code::Nopd)
        })
    }
}

/// All opcodes of one bitness.
#[derive(Default)]
pub(super) struct Pool {
    /// The commonest of compilers.
    pub(super) common: Group,
    /// General registers and memory.
    pub(super) integer: Group,
    /// SSE and AVX.
    pub(super) vector: Group,
    /// x87 and MMX.
    pub(super) x87: Group,
    /// Pushes and pops.
    pub(super) stack: Group,
    /// Repeatable.
    pub(super) string: Group,
    /// Those that user mode is refused, or that only raise an exception.
    pub(super) refused: Group,
}

/// Whether the result may depend on more than the state: on the order in which parts of an
/// operand are looked at, or undefined.
fn is_excluded(code: Code) -> bool {
    matches!(
        code,
        Code::Bswap_r16
            | Code::Shld_rm16_r16_imm8
            | Code::Shld_rm16_r16_CL
            | Code::Shrd_rm16_r16_imm8
            | Code::Shrd_rm16_r16_CL
    ) || matches!(
        code.mnemonic(),
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu | Mnemonic::Xlatb
    )
}

fn has_vsib(code: Code) -> bool {
    let mut instr = Instruction::default();
    instr.set_code(code);
    instr.is_vsib()
}

fn is_refused(code: Code) -> bool {
    use Mnemonic::{Cli, Hlt, In, Insb, Insd, Insw, Out, Outsb, Outsd, Outsw, Sti, Ud0, Ud1, Ud2};
    matches!(
        code.mnemonic(),
        Cli | Hlt | In | Insb | Insd | Insw | Out | Outsb | Outsd | Outsw | Sti | Ud0 | Ud1 | Ud2
    )
}

fn is_common(code: Code) -> bool {
    use Mnemonic::{
        Adc, Add, And, Cmova, Cmovb, Cmovg, Cmovne, Cmp, Cmpxchg, Dec, Imul, Inc, Lea, Mov, Movsx,
        Movzx, Neg, Not, Or, Sar, Sbb, Setb, Sete, Setg, Seto, Sets, Shl, Shr, Sub, Test, Xadd,
        Xchg, Xor,
    };
    matches!(
        code.mnemonic(),
        Adc | Add
            | And
            | Cmova
            | Cmovb
            | Cmovg
            | Cmovne
            | Cmp
            | Cmpxchg
            | Dec
            | Imul
            | Inc
            | Lea
            | Mov
            | Movsx
            | Movzx
            | Neg
            | Not
            | Or
            | Sar
            | Sbb
            | Setb
            | Sete
            | Setg
            | Seto
            | Sets
            | Shl
            | Shr
            | Sub
            | Test
            | Xadd
            | Xchg
            | Xor
    )
}

fn is_x87(code: Code) -> bool {
    code.cpuid_features().iter().any(|feature| {
        matches!(
            feature,
            CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX
        )
    }) || code.op_code().op_kinds().iter().any(|kind| {
        use iced_x86::OpCodeOperandKind as Kind;
        matches!(kind, Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem)
    })
}

impl Pool {
    pub(super) fn new(bits: u32) -> Self {
        let mut pool = Self::default();
        let all = codes::all().into_iter().filter(|(_, b)| *b == bits).map(|(code, _)| code);
        for code in all {
            pool.add(code);
        }
        pool
    }
    fn add(&mut self, code: Code) {
        let instr = {
            let mut instr = Instruction::default();
            instr.set_code(code);
            instr
        };
        if is_excluded(code) || has_vsib(code) {
            return;
        }
        if is_refused(code) {
            return self.refused.add(code);
        }
        if code.flow_control() != FlowControl::Next {
            return; // made by `shapes`
        }
        if instr.is_stack_instruction() {
            return self.stack.add(code);
        }
        if instr.is_string_instruction() {
            return self.string.add(code);
        }
        if is_x87(code) {
            return self.x87.add(code);
        }
        if codes::uses_vectors(code) {
            return self.vector.add(code);
        }
        if is_common(code) {
            self.common.add(code);
        }
        self.integer.add(code);
    }
}
