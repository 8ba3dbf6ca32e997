//! What the manual leaves undefined, and so is not compared.

mod faults;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use kasane_spec_x86::flags::{AF, CF, OF, PF, SF, ZF};

pub use self::faults::{either_fault, forget, only_unselected};
use crate::case::Case;

/// An entry of the table that `--table` prints.
pub struct Rule {
    /// Instructions.
    pub what: &'static str,
    /// What is undefined.
    pub undefined: &'static str,
    /// Where the manual says so.
    pub source: &'static str,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule { what: "AND OR XOR TEST", undefined: "AF", source: "SDM vol. 2A/2B, AND, OR, XOR, TEST" },
    Rule { what: "MUL IMUL", undefined: "SF ZF AF PF", source: "SDM vol. 2A/2B, IMUL, MUL" },
    Rule { what: "DIV IDIV", undefined: "CF OF SF ZF AF PF", source: "SDM vol. 2A, DIV, IDIV" },
    Rule {
        what: "SHL SHR SAR",
        undefined: "AF; OF for counts above 1; CF for SHL and SHR by the width or more",
        source: "SDM vol. 2B, SAL/SAR/SHL/SHR",
    },
    Rule {
        what: "ROL ROR RCL RCR",
        undefined: "OF for counts above 1",
        source: "SDM vol. 2B, RCL/RCR/ROL/ROR",
    },
    Rule {
        what: "SHLD SHRD",
        undefined: "AF; OF for counts above 1; everything for counts above the width",
        source: "SDM vol. 2B, SHLD, SHRD",
    },
    Rule {
        what: "BT BTS BTR BTC",
        undefined: "OF SF AF PF",
        source: "SDM vol. 2A, BT, BTC, BTR, BTS",
    },
    Rule { what: "BSF BSR", undefined: "CF OF SF AF PF", source: "SDM vol. 2A, BSF, BSR" },
    Rule { what: "LZCNT TZCNT", undefined: "OF SF AF PF", source: "SDM vol. 2A/2B, LZCNT, TZCNT" },
    Rule { what: "ANDN", undefined: "AF PF", source: "SDM vol. 2A, ANDN" },
    Rule { what: "BEXTR", undefined: "AF SF PF", source: "SDM vol. 2A, BEXTR" },
    Rule {
        what: "BLSI BLSMSK BLSR BZHI",
        undefined: "AF PF",
        source: "SDM vol. 2A, BLSI, BLSMSK, BLSR, BZHI",
    },
    Rule { what: "AAA AAS", undefined: "OF SF ZF PF", source: "SDM vol. 2A, AAA, AAS" },
    Rule { what: "AAM AAD", undefined: "OF AF CF", source: "SDM vol. 2A, AAM, AAD" },
    Rule { what: "DAA DAS", undefined: "OF", source: "SDM vol. 2A, DAA, DAS" },
    Rule {
        what: "VMASKMOV VPMASKMOV MASKMOV",
        undefined: "which address of the page is in CR2; which page of two is reported",
        source: "SDM vol. 3A §4.7, vol. 2C, VMASKMOV",
    },
    Rule {
        what: "MASKMOVQ MASKMOVDQU",
        undefined: "whether bytes that are not selected fault; #AC",
        source: "SDM vol. 2B, MASKMOVQ, MASKMOVDQU; APM vol. 4, MASKMOVDQU",
    },
    Rule {
        what: "VGATHER VPGATHER, faulting",
        undefined: "destination and mask above the faulting element; the mask but its sign bits",
        source: "SDM vol. 2C, VGATHERDPS, VPGATHERDD",
    },
    Rule {
        what: "MMX stores, faulting",
        undefined: "TOP and the tags: the transition from x87 to MMX may have happened",
        source: "SDM vol. 3A, Effect of MMX instructions on the tag word: nothing of faults",
    },
    Rule {
        what: "VCVTPS2PH, faulting",
        undefined: "the exception flags of MXCSR: arithmetic may have come before the store",
        source: "SDM vol. 2C, VCVTPS2PH, which does not order the two",
    },
    Rule { what: "BSWAP r16", undefined: "the result", source: "SDM vol. 2A, BSWAP" },
];

/// The interpreter lets interrupts in after so many iterations of a repeated instruction, as a
/// processor may after each. A fault behind such a pause restores the flags of the pause (SDM
/// vol. 2B, REP), not those of the beginning.
const ITERATIONS_AT_A_TIME: u64 = 2047;

/// The flags of an instruction that are not compared.
#[must_use]
pub fn flags(instr: &Instruction, case: &Case) -> u64 {
    match instr.mnemonic() {
        Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test => AF,
        Mnemonic::Mul | Mnemonic::Imul => SF | ZF | AF | PF,
        Mnemonic::Div | Mnemonic::Idiv => CF | OF | SF | ZF | AF | PF,
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => shift(instr, case),
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => {
            if count(instr, 1, case) <= 1 { 0 } else { OF }
        }
        Mnemonic::Shld | Mnemonic::Shrd => double(instr, case),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => OF | SF | AF | PF,
        Mnemonic::Bsf | Mnemonic::Bsr => CF | OF | SF | AF | PF,
        Mnemonic::Lzcnt | Mnemonic::Tzcnt => OF | SF | AF | PF,
        Mnemonic::Andn | Mnemonic::Blsi | Mnemonic::Blsmsk | Mnemonic::Blsr | Mnemonic::Bzhi => {
            AF | PF
        }
        Mnemonic::Bextr => AF | SF | PF,
        Mnemonic::Aaa | Mnemonic::Aas => OF | SF | ZF | PF,
        Mnemonic::Aam | Mnemonic::Aad => OF | AF | CF,
        Mnemonic::Daa | Mnemonic::Das => OF,
        _ => 0,
    }
}

/// The flags that are not compared after a fault. A repeated SCAS or CMPS that stopped for an
/// interrupt on its way, on either side, has lost the flags from before it.
#[must_use]
pub fn flags_at_fault(instr: &Instruction, case: &Case) -> u64 {
    let compares = instr.is_string_instruction()
        && matches!(
            instr.mnemonic(),
            Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
                | Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
        );
    if compares && case.gpr[1] > ITERATIONS_AT_A_TIME {
        kasane_spec_x86::flags::ARITHMETIC
    } else {
        0
    }
}

/// Whether only the page of CR2 is compared: which part of a masked operand the processor looks
/// at first is its own business.
#[must_use]
pub fn address_in_page(instr: &Instruction) -> bool {
    matches!(
        instr.mnemonic(),
        Mnemonic::Vmaskmovps
            | Mnemonic::Vmaskmovpd
            | Mnemonic::Vpmaskmovd
            | Mnemonic::Vpmaskmovq
            | Mnemonic::Maskmovq
            | Mnemonic::Maskmovdqu
            | Mnemonic::Vmaskmovdqu
    )
}

/// Whether the destination register's value is undefined.
#[must_use]
pub fn result(instr: &Instruction, case: &Case) -> bool {
    match instr.mnemonic() {
        Mnemonic::Bswap => instr.op0_register().size() == 2,
        Mnemonic::Shld | Mnemonic::Shrd => count(instr, 2, case) > width(instr),
        _ => false,
    }
}

fn width(instr: &Instruction) -> u64 {
    let bytes = match instr.op0_kind() {
        OpKind::Register => instr.op0_register().size(),
        _ => instr.memory_size().size(),
    };
    bytes as u64 * 8
}

/// The masked count in operand `n`.
fn count(instr: &Instruction, n: u32, case: &Case) -> u64 {
    let raw = match instr.op_kind(n) {
        OpKind::Register if instr.op_register(n) == Register::CL => case.gpr[1],
        OpKind::Immediate8 => u64::from(instr.immediate8()),
        _ => 1,
    };
    raw & if width(instr) == 64 { 63 } else { 31 }
}

fn shift(instr: &Instruction, case: &Case) -> u64 {
    let n = count(instr, 1, case);
    let carry = if n >= width(instr) && instr.mnemonic() != Mnemonic::Sar { CF } else { 0 };
    match n {
        0 => 0,
        1 => AF,
        _ => AF | OF | carry,
    }
}

fn double(instr: &Instruction, case: &Case) -> u64 {
    let n = count(instr, 2, case);
    match n {
        0 => 0,
        1 => AF,
        n if n > width(instr) => CF | OF | SF | ZF | AF | PF,
        _ => AF | OF,
    }
}
